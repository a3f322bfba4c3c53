"""Mutation testing: small bugs are planted one at a time, and for each a test has to fail.

    python benchmarks/mutants.py                              200 bugs by seed 0, evenly over six rooms
    python benchmarks/mutants.py --rooms attacks --number 50
    python benchmarks/mutants.py --again                      run those that survived again, after new tests
    python benchmarks/mutants.py --plant 'core/threat.py project: a < b -> (a <= b)'
    python benchmarks/mutants.py --json > results/benchmarks/mutants.json

The test files that speak most of a function are run with the bug in it, in a child process on a copy of the repository,
until a test fails that passes without it: a few CPU seconds each.
Interrupted, it goes on where it stopped (--work). A bug that changes nothing that anybody could see is explained in
mutants_explained.json; the score is killed over all that are not. Exit code 1 below --least.
"""

from __future__ import annotations

import argparse
import functools
import gc
import hashlib
import importlib
import itertools
import json
import os
import pkgutil
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import CodeType, FunctionType

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from likely_tests import in_child, likely_tests, run_tests, users_of
from mutations import Mutation, mutations

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("core", "attacks", "defenses", "evaluation", "training", "data")
TESTS = ("core", "attacks", "data", "defenses", "evaluation", "models", "tasks", "training", "conformance", "plugins")
SLOW_TESTS = ("report", "studies", "cli")
"""Tried with --again alone."""
EXPLAINED = Path(__file__).with_name("mutants_explained.json")
MOST_SECONDS, MOST_FILES = 20, 3
"""CPU seconds of a test file, and test files that are tried on one bug; with --again four times as many."""
NOTE = Path("first-failure")
Results = dict[str, tuple[str, float]]
"""By bug: what became of it, and the CPU seconds that it took."""


def chosen(source: Path, rooms: list[str], number: int, seed: int) -> list[Mutation]:
    """So many bugs, evenly over the rooms and at most one of each function."""
    by_room: list[list[Mutation]] = []
    for index, room in enumerate(rooms):
        files = sorted((source / "unfool" / room).rglob("*.py"))
        places = [bug for path in files for bug in _of_file(source, path)]
        # By a hash of each, so that an edit of one function moves no other bug.
        places.sort(key=lambda bug: _rank(bug, seed))
        one_each = list({(bug.file, bug.name): bug for bug in reversed(places)}.values())
        one_each.sort(key=lambda bug: _rank(bug, seed))
        by_room.append(one_each[: number // len(rooms) + (index < number % len(rooms))])
    return [bug for bugs in itertools.zip_longest(*by_room) for bug in bugs if bug is not None]


def _rank(bug: Mutation, seed: int) -> bytes:
    return hashlib.blake2b(f"{seed} {bug.key}".encode()).digest()


def _of_file(source: Path, path: Path) -> list[Mutation]:
    return mutations(str(path.relative_to(source / "unfool")), path.read_bytes())


def verdict(bug: Mutation, source: Path, depth: int) -> tuple[str, float]:
    """``killed``, ``survived`` or ``ran out of time``, and the CPU seconds that it took."""
    before = os.times()
    state = _verdict(bug, source, depth)
    after = os.times()
    seconds = after.children_user + after.children_system - before.children_user - before.children_system
    return state, round(seconds, 1)


def _verdict(bug: Mutation, source: Path, depth: int) -> str:
    rooms = TESTS if depth == 1 else (*TESTS, *SLOW_TESTS)
    texts = {path: path.read_text() for room in rooms for path in sorted(Path("tests", room).glob("test_*.py"))}
    sources = _sources(source)
    users, state = users_of(bug.file, sources), "survived"
    likely = likely_tests(bug.file, bug.name, bug.before, sources[bug.file], texts, users)
    for test_file in likely[: MOST_FILES * depth]:
        NOTE.unlink(missing_ok=True)
        status = _with_bug(bug, source, [str(test_file)], MOST_SECONDS * depth, anew=depth > 1)
        if status is None:
            # Tests that are slow by themselves say nothing.
            state = "ran out of time"
        elif status not in (0, 5) and _is_sound(NOTE.read_text() if NOTE.exists() else str(test_file)):
            return "killed"
    return state


@functools.cache
def _sources(source: Path) -> dict[str, str]:
    root = source / "unfool"
    return {str(path.relative_to(root)): path.read_text() for path in sorted(root.rglob("*.py"))}


@functools.cache
def _is_sound(test: str) -> bool:
    """Whether a test passes without any bug."""
    return in_child(lambda: run_tests([test], Path("sound-note")), 120) == 0


def _with_bug(bug: Mutation, source: Path, tests: list[str], seconds: int, anew: bool) -> int | None:
    """Pytest's exit status with the bug in the child's memory, and on the disk for the processes that tests start.

    ``anew`` the child imports the package itself, so that what runs on import has the bug too.
    """
    path = source / "unfool" / bug.file
    sound = path.read_bytes()
    path.write_bytes(bug.planted(sound))
    # Another time than any before, or a process would read what was compiled for the last bug.
    later = time.time() + next(_NUMBERS)
    os.utime(path, (later, later))
    try:
        return in_child(lambda: _run(bug, path, sound, tests, anew), seconds)
    finally:
        path.write_bytes(sound)


_NUMBERS = itertools.count(10, 10)


def _run(bug: Mutation, path: Path, sound: bytes, tests: list[str], anew: bool) -> int:
    one, other = (compile(text, str(path), "exec", dont_inherit=True) for text in (sound, bug.planted(sound)))
    swaps = dict(_pairs(one, other))
    try:
        for item in gc.get_objects():
            if isinstance(item, FunctionType) and item.__code__.co_filename == str(path):
                item.__code__ = swaps.get(item.__code__, item.__code__)
    except ValueError:  # The bug has left a variable of an outer function without a use.
        anew = True
    if anew:
        for name in [name for name in sys.modules if name.partition(".")[0] == "unfool"]:
            del sys.modules[name]
    return run_tests(tests, NOTE)


def _pairs(sound: CodeType, wrong: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """The pieces of code of two texts of one file, side by side: by equality, as a file's code is what it was."""
    inner = [[item for item in code.co_consts if isinstance(item, CodeType)] for code in (sound, wrong)]
    for one, other in zip(*inner, strict=False):
        if one != other:
            yield one, other
            yield from _pairs(one, other)


def table(results: Results, explained: dict[str, str], rooms: list[str]) -> list[dict[str, object]]:
    """A line for each room and one for all: bugs, killed, explained, survived, score."""
    lines: list[dict[str, object]] = []
    for room in [*rooms, "all"]:
        own = [key for key in results if room == "all" or key.startswith(f"{room}/")]
        killed = sum(results[key][0] == "killed" for key in own)
        spared = sum(results[key][0] != "killed" and key in explained for key in own)
        score = killed / (len(own) - spared) if len(own) > spared else 1.0
        lines.append({"room": room, "mutants": len(own), "killed": killed, "explained": spared,
                      "survived": len(own) - killed - spared, "score": round(score, 4)})  # fmt: skip
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--number", type=int, default=200, help="how many bugs (200)")
    parser.add_argument("--seed", type=int, default=0, help="which bugs (0)")
    parser.add_argument("--rooms", nargs="+", choices=ROOMS, default=list(ROOMS))
    parser.add_argument("--again", action="store_true", help="run those that survived unexplained again")
    parser.add_argument("--plant", metavar="KEY", help="run this one bug, named as in the list of survivors")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "mutants", help="where results are kept")
    parser.add_argument("--nice", type=int, default=10, help="priority: 19 waits for everybody (10)")
    parser.add_argument("--least", type=float, default=0.97, help="the least score (.97)")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    options.work = options.work.resolve()
    explained: dict[str, str] = json.loads(EXPLAINED.read_text()) if EXPLAINED.exists() else {}
    os.nice(options.nice)
    with tempfile.TemporaryDirectory() as temporary:
        source = _copied(Path(temporary))
        _import_all(source)
        if options.plant:
            [bug] = [bug for bug in _of_file(source, source / "unfool" / options.plant.split()[0])
                     if bug.key == options.plant]  # fmt: skip
            print(*verdict(bug, source, 4))
            return 0
        bugs = chosen(source, options.rooms, options.number, options.seed)
        results = _run_all(bugs, explained, source, options)
    lines = table(results, explained, options.rooms)
    survivors = {key: explained.get(key, "") for key, (state, _) in results.items() if state != "killed"}
    if options.json:
        print(json.dumps({"seed": options.seed, "rooms": lines, "survived": survivors}, indent=1))
    else:
        print(f"{'room':<12}{'mutants':>9}{'killed':>8}{'explained':>11}{'survived':>10}{'score':>9}")
        for line in lines:
            print("{room:<12}{mutants:>9}{killed:>8}{explained:>11}{survived:>10}{score:>9.1%}".format(**line))
        for key, reason in survivors.items():
            print(f"  {key}{f'   explained: {reason}' if reason else ''}")
    return 1 if float(str(lines[-1]["score"])) < options.least else 0


def _copied(folder: Path) -> Path:
    """The copied src folder: a bug may write or delete anything, so the tests too run on copies, in this folder."""
    skipped = shutil.ignore_patterns("__pycache__", "*.egg-info")
    for name in ("src", "tests", "benchmarks", "docs"):
        shutil.copytree(ROOT / name, folder / name, ignore=skipped)
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder / name)
    (folder / "tmp").mkdir()
    os.chdir(folder)
    os.environ.update(TMPDIR=str(folder / "tmp"), HOME=str(folder), XDG_CACHE_HOME=str(folder / "cache"))
    os.environ.pop("UNFOOL_DATA_DIR", None)
    tempfile.tempdir = None
    return folder / "src"


def _import_all(source: Path) -> None:
    """Import the package and what tests use once: children start from there."""
    sys.path.insert(0, str(source))
    os.environ["PYTHONPATH"] = str(source)
    for name in ("pytest", "hypothesis", "pandas", "scipy.stats", "scipy.optimize", "scipy.special"):
        importlib.import_module(name)
    package = importlib.import_module("unfool")
    for module in pkgutil.walk_packages(package.__path__, "unfool."):
        # The playground needs an extra.
        if "__main__" not in module.name and "playground" not in module.name:
            importlib.import_module(module.name)
    gc.collect()


def _run_all(bugs: list[Mutation], explained: dict[str, str], source: Path, options: argparse.Namespace) -> Results:
    """The verdict on each bug, kept in a file from one run to the next."""
    kept = options.work / "results.json"
    stored = json.loads(kept.read_text()) if kept.exists() else {}
    started = time.monotonic()
    for number, bug in enumerate(bugs, 1):
        if bug.key in stored and not (options.again and stored[bug.key][0] != "killed" and bug.key not in explained):
            continue
        stored[bug.key] = verdict(bug, source, 4 if options.again else 1)
        temporary = kept.with_suffix(".new")
        temporary.write_text(json.dumps(stored, indent=1))
        temporary.replace(kept)
        print(f"{number}/{len(bugs)} {time.monotonic() - started:.0f} s: {stored[bug.key][0]}, line {bug.line} of "
              f"{bug.key}", file=sys.stderr, flush=True)  # fmt: skip
    return {bug.key: tuple(stored[bug.key]) for bug in bugs}


if __name__ == "__main__":
    raise SystemExit(main())
