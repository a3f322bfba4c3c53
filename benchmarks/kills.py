"""Kill -9 at random moments and inside writes, then the same command again: nothing is lost, nothing is different.

    python benchmarks/kills.py [--kills 60] [--seed 0] [--only CASE ...] [--json]

Each case is a command of unfool in small. It runs to its end twice, which must give the same, and then again and again
under kills: half of them at a random moment of its CPU time, half inside a write, half of whose bytes are written, or
which is about to be brought to the disk or renamed (`slow_writes.py`). The command that ends after some kills must
leave the very files that it leaves uninterrupted, but for clocks: tensors to the bit, records, tables, and no file that
is half written or left over. Work is counted in images through layers. A kill may cost the work between two
finished files, and what is done before the first one; all above that is work done twice, and fails.

Exit code 1 if anything was lost or different. The same seed makes the same draws; moments of CPU time still vary.

Examples:
    python benchmarks/kills.py --kills 100
    python benchmarks/kills.py --only train harden --kills 10 --seed 3 --json
"""

from __future__ import annotations

import argparse
import json
import mmap
import os
import random
import re
import select
import signal
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
import torch._dynamo  # an optimizer's first step would import it, in every child anew
from slow_writes import Counting, install

import unfool.training.run
from unfool.cli import main as run_unfool
from unfool.models.weights import load_tensors
from unfool.training.processes import make_accelerator

STUDY = '''
"""Two widths."""

from unfool import Linf, RunConfig, StageConfig, attacks
from unfool.studies import Study
from unfool.studies.framework import Above, Attacked, Claim, Clean, Difference, Examples, Images, NetworkSpec
from unfool.training.recipes import LABELS

WIDTHS = {"narrow": "convnet:stem=strided,widths=4-8-8", "wide": "convnet:stem=strided,widths=8-8-16"}


class Wider(Study[int]):
    title = "Is a wider network more robust?"
    scales = {"demo": 4}

    def networks(self, scale):
        stage = StageConfig(tasks=LABELS, steps=scale, batch_size=32, perturb="fgsm", threat=Linf(0.1))
        for name, trunk in WIDTHS.items():
            yield NetworkSpec(key={"model": name}, config=RunConfig(data="digits", trunk=trunk, stages=(stage,)))

    def measurements(self, scale, networks):
        images = Images(data="digits").sample(16)
        for network in networks:
            yield Clean(system=network, images=images, threat="linf:0.1")
            examples = Examples(network=network, attack=attacks.PGD(Linf(0.1), steps=3), images=images)
            yield Attacked(system=network, examples=examples)

    def claims(self, scale):
        difference = Difference(a={"model": "wide"}, b={"model": "narrow"}, under={"attack": "pgd-3"})
        yield Claim(id="wider", text="The wide one is more robust", evidence=difference, rule=Above(0.0))
'''
TRAIN = ("train --data digits --trunk convnet --widths 4 8 8 --fraction 0.2 --task labels --task contrast:size=8 "
         "--steps 8 --batch-size 32 --perturb pgd-1 --threat linf:0.1 --ema 0.9 --held-out 20 --out run")  # fmt: skip
AT = "--threat linf:0.1 --batch-size 8 --json"
CASES = {
    "train": TRAIN,
    "attack": f"attack ../run --attack autoattack:steps=3,queries=10 --images 24 --out set.safetensors {AT}",
    "evaluate": f"evaluate ../run --attack pgd-3 --attack fgsm --images 24 --out results.json {AT}",
    "ladder": "evaluate ../run --defense reverse:task=contrast,steps=1,bank=32,drawn=8 --adaptive --images 8 "
    f"--attack apgd-ce:steps=3 --steps 3 --out ladder.json {AT}",
    "harden": "harden ../run --data digits --threat linf:0.1 --steps 6 --images 16 --attack pgd-3 --batch-size 16 "
    "--out hard --json",
    "study": "study ../wider.py --scale demo --out study --json",
}
CLOCKS = {"cpu_seconds", "seconds", "date", "checksum"}
_TIME = re.compile(
    r"\d[\d,.]* ?(s|min|h|seconds|minutes|hours)\b|\d+ times the CPU time|\d{4}-\d\d-\d\d \d\d:\d\d( UTC)?"
    r"|base64,[\w+/=]+|sha256-[\w+/=]+"  # of files that a page holds, which name the time too
    r"|<section id=\"cost\".*?</section>",
    re.DOTALL,
)


@dataclass
class Tally:
    """What became of the kills of one case."""

    kills: int = 0
    in_writes: int = 0
    ends: int = 0
    different: int = 0
    litter: int = 0
    done_twice: int = 0
    costliest: float = 0.0
    """The most work that was repeated for one kill, as a share of the whole."""
    allowed: float = 0.0
    faults: Counter[str] = field(default_factory=Counter[str])

    @property
    def failed(self) -> int:
        """Ends that broke a promise."""
        return self.different + self.litter + self.done_twice


@dataclass(frozen=True)
class Ending:
    """How one process ended: exit code, None if it was killed; ``moment`` is the write that it was killed in."""

    code: int | None
    moment: str | None
    work: int
    moments: int
    placed: list[int]
    seconds: float


class Processes:
    """Starts the command of a case in processes of its own, which count in memory that they share with this one."""

    def __init__(self, logs: Path):
        self.memory = mmap.mmap(-1, 16)
        self.logs = logs
        self.number = 0

    def run(self, command: str, folder: Path, chosen: int = 0, seconds: float | None = None) -> Ending:
        """Run it; killed at a ``chosen`` moment of its writes, or after ``seconds`` of CPU time."""
        self.memory[:16] = bytes(16)
        self.number += 1
        theirs, ours = os.pipe(), 0.0
        process = os.fork()
        if not process:
            self._child(command, folder, chosen, theirs[1])
        os.close(theirs[1])
        moment, placed, code = None, [], None
        text = b""
        while True:
            ready, _, _ = select.select([theirs[0]], [], [], 0.002)
            part = os.read(theirs[0], 65536) if ready else None
            if part == b"":
                break
            text += part or b""
            *lines, text = text.split(b"\n")
            for kind, _, what in (line.decode().partition(" ") for line in lines):
                if kind == "placed":
                    placed.append(int(what.split()[0]))
                else:
                    moment = what
            ours = _cpu_seconds(process, ours)
            if moment is not None or (seconds is not None and ours >= seconds):
                os.kill(process, signal.SIGKILL)
                seconds = None
        os.close(theirs[0])
        _, status = os.waitpid(process, 0)
        code = None if os.WIFSIGNALED(status) else os.waitstatus_to_exitcode(status)
        work, moments = struct.unpack("qq", self.memory[:16])
        return Ending(code, moment, work, moments, placed, ours)

    def _child(self, command: str, folder: Path, chosen: int, pipe: int) -> None:
        code = 70
        try:
            log = os.open(self.logs / f"{self.number}.err", os.O_WRONLY | os.O_CREAT)
            out = os.open(self.logs / f"{folder.name}.out", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(out, 1)
            os.dup2(log, 2)
            os.chdir(folder)
            os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})  # a study makes its pieces itself
            torch.set_num_threads(1)
            work = 0

            def count(images: int) -> None:
                nonlocal work
                work += images
                self.memory[:8] = struct.pack("q", work)

            def report(kind: str, what: str) -> None:
                os.write(pipe, f"{kind} {work if kind == 'placed' else ''} {what}\n".replace("  ", " ").encode())

            moments = install(chosen, report)
            unfool.training.run.train.__kwdefaults__["checkpoint_seconds"] = 0.0
            with Counting(count):
                code = run_unfool(command.split())
            self.memory[8:] = struct.pack("q", moments.count)
            sys.stdout.flush()
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(code)


def _cpu_seconds(process: int, before: float) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return before
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def settled(value: Any) -> Any:
    """A JSON value without clocks."""
    if isinstance(value, dict):
        return {key: settled(part) for key, part in value.items() if key not in CLOCKS}
    if isinstance(value, list):
        return [settled(part) for part in value]
    return _TIME.sub("TIME", value) if isinstance(value, str) else value


def contents(folder: Path) -> dict[str, Any]:
    """What lies in a folder, by path, without clocks and locks."""
    found: dict[str, Any] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or path.name in (".lock", "seconds"):
            continue
        if path.suffix == ".safetensors":
            tensors, metadata = load_tensors(path)
            found[name] = {key: value.numpy().tobytes() for key, value in tensors.items()}, settled(dict(metadata))
        elif path.suffix == ".json":
            found[name] = settled(json.loads(path.read_text()))
        else:
            found[name] = _TIME.sub("TIME", path.read_text())
    return found


def litter(folder: Path) -> list[str]:
    """Files and folders that a killed process left behind."""
    names = [str(path.relative_to(folder)) for path in folder.rglob("*")]
    return [name for name in names if name.endswith(".part")]


def differing(ours: dict[str, Any], theirs: dict[str, Any]) -> list[str]:
    """Names of files that are not the same, or only in one."""
    return sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))


def run_case(name: str, kills: int, draw: random.Random, home: Path, processes: Processes) -> Tally:
    """Kill one case so many times."""
    tally, command = Tally(), CASES[name]

    def fresh() -> Path:
        folder = home / f"{name}-{processes.number}"
        folder.mkdir()
        return folder

    def printed(folder: Path) -> Any:
        text = (processes.logs / f"{folder.name}.out").read_text().strip()
        return settled(json.loads(text)) if text.startswith("{") else _TIME.sub("TIME", text)

    folders = [fresh()]
    whole = processes.run(command, folders[0])
    folders.append(fresh())
    again = processes.run(command, folders[1])
    wanted, shown = contents(folders[0]), printed(folders[0])
    if whole.code or again.code or differing(wanted, contents(folders[1])) or shown != printed(folders[1]):
        tally.different += 1
        tally.faults[f"two runs without a kill differ: {differing(wanted, contents(folders[1]))} {whole.code}"] += 1
        return tally
    gaps = [later - earlier for earlier, later in zip([0, *whole.placed], [*whole.placed, whole.work], strict=True)]
    unit = gaps[0] + max(gaps)
    tally.allowed = unit / whole.work
    while tally.kills < kills:
        folder, work, deaths, moments = fresh(), 0, 0, []
        while True:
            in_write = tally.kills % 2 == 0
            killed = tally.kills < kills and (not deaths or draw.random() < 0.6)
            chosen = draw.randint(1, max(1, whole.moments // (deaths + 1))) if killed and in_write else 0
            seconds = draw.uniform(0, whole.seconds) if killed and not in_write else None
            ending = processes.run(command, folder, chosen, seconds)
            work += ending.work
            if ending.code is not None:
                break
            deaths += 1
            tally.kills += 1
            tally.in_writes += ending.moment is not None
            moments.append(ending.moment or "between writes")
        if not deaths:
            continue
        tally.ends += 1
        tally.costliest = max(tally.costliest, (work - whole.work) / deaths / whole.work)
        story = f"after kills {', '.join(moments)}"
        if ending.code:
            said = (processes.logs / f"{processes.number}.err").read_text()[-300:]
            tally.different += 1
            tally.faults[f"exit code {ending.code} {story}: {said}"] += 1
            continue
        if left := litter(folder):
            tally.litter += 1
            tally.faults[f"left over {left} {story}"] += 1
        elif off := differing(wanted, contents(folder)) or ([] if shown == printed(folder) else ["what was printed"]):
            tally.different += 1
            tally.faults[f"{off} differ {story}"] += 1
        if work - whole.work > deaths * unit:
            tally.done_twice += 1
            tally.faults[f"{(work - whole.work) / whole.work:.0%} of the work done twice {story}"] += 1
    return tally


def main() -> int:
    """Run all cases and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=60, metavar="N", help="kills of all cases together")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES), metavar="CASE")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    make_accelerator(torch.device("cpu"))
    os.environ["UNFOOL_CACHE_DIR"] = os.environ.get("UNFOOL_CACHE_DIR", "")
    with tempfile.TemporaryDirectory() as temporary:
        home = Path(temporary)
        (home / "logs").mkdir()
        (home / "wider.py").write_text(STUDY)
        processes = Processes(home / "logs")
        if processes.run(TRAIN, home).code:
            print((home / "logs" / "1.err").read_text(), file=sys.stderr)
            return 1
        tallies: dict[str, Tally] = {}
        for number, name in enumerate(options.only):
            share = (options.kills + number) // len(options.only)
            began = time.monotonic()
            tallies[name] = run_case(name, share, random.Random(f"{options.seed} {name}"), home, processes)
            print(f"{name}: {time.monotonic() - began:.0f} s, {asdict(tallies[name])}", file=sys.stderr, flush=True)
    print(json.dumps({name: asdict(tally) for name, tally in tallies.items()}) if options.json else _table(tallies))
    return 1 if any(tally.failed for tally in tallies.values()) else 0


def _table(tallies: dict[str, Tally]) -> str:
    """A line for each case, and each fault below."""
    columns = ("kills", "in_writes", "ends", "different", "litter", "done_twice")
    lines = [f"{'case':<9}" + "".join(f"{name.replace('_', ' '):>11}" for name in columns) + "  costliest  allowed"]
    for name, tally in tallies.items():
        counts = "".join(f"{getattr(tally, column):>11}" for column in columns)
        lines.append(f"{name:<9}{counts}{tally.costliest:>11.0%}{tally.allowed:>9.0%}")
    kills, writes, failed = (sum(getattr(tally, key) for tally in tallies.values())
                             for key in ("kills", "in_writes", "failed"))  # fmt: skip
    lines.append(f"{kills} kills, {writes} of them inside a write; {failed} ends failed")
    faults = [(name, fault, count) for name, tally in tallies.items() for fault, count in tally.faults.items()]
    return "\n".join([*lines, *(f"  {name}: {count} x {fault}" for name, fault, count in faults)])


if __name__ == "__main__":
    sys.exit(main())
