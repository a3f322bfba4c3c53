"""The wheel and the sdist: both hold all that they should, and the installed wheel does what the README says.

    python benchmarks/packages.py [--keep FOLDER]

Builds both from a copy of the repository, and compares them with its files: the wheel holds every file below ``src``,
the sdist every file. Then the wheel is installed into an empty environment, which finds its dependencies in this one,
and used outside the repository: the README's example, an evaluation of a network of the package, the playground, and
every card of the package's networks is verified.

Exit code 1 if anything is missing or fails.
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NOT_SOURCES = {".git", ".venv", "__pycache__", "build", "dist", "runs", "generated"}
FEW = ("--images", "32", "--tolerance", "0.3")
"""A tolerance that so few images settle: AutoAttack takes a robust network a second an image."""
EVALUATE = ("evaluate", "zoo:digits", "--attack", "pgd-5", "--images", "64", "--no-reliability")


def sources() -> list[str]:
    """The repository's files: those that git knows of; in an unpacked sdist all that are there."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
        return sorted(name for name in names if (ROOT / name).is_file())
    files = (path.relative_to(ROOT) for path in ROOT.rglob("*") if path.is_file())
    kept = (path for path in files if not any(p in NOT_SOURCES or p.endswith(".egg-info") for p in path.parts))
    return sorted(str(path) for path in kept if str(path) not in ("PKG-INFO", "setup.cfg"))


def build(names: Sequence[str], folder: Path) -> tuple[Path, Path]:
    """Build the wheel and the sdist of these files; both lie in the folder."""
    copy = folder / "copy"
    for name in names:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, copy / name)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout}{done.stderr}the build failed")
    (wheel,), (sdist,) = folder.glob("*.whl"), folder.glob("*.tar.gz")
    return wheel, sdist


def missing(names: Sequence[str], wheel: Path, sdist: Path) -> list[str]:
    """What the wheel and the sdist lack, and what the wheel holds besides."""
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
    with tarfile.open(sdist) as archive:
        in_sdist = {member.name.partition("/")[2] for member in archive if member.isfile()}
    package = {name.removeprefix("src/") for name in names if name.startswith("src/")}
    return [
        *(f"the wheel lacks {name}" for name in sorted(package - in_wheel)),
        *(f"the wheel holds {name}, which is no source" for name in sorted(in_wheel - package)),
        *(f"the sdist lacks {name}" for name in sorted(set(names) - in_sdist)),
    ]


def environment(wheel: Path, folder: Path) -> Path:
    """A fresh environment with the wheel, which finds all other packages in this one; its Python."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    command = [sys.executable, "-m", "pip", "--python", str(python), "install", "-q", "--no-deps", "--no-index"]
    subprocess.run([*command, str(wheel)], check=True)
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    # After its own: links of an editable install are not followed from such a line.
    (folder / "lib" / version / "site-packages" / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


def example() -> str:
    """The README's example."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]


def steps(python: Path) -> Iterator[tuple[str, list[str]]]:
    """What is done with the installed wheel: a title and a command."""
    unfool = str(python.with_name("unfool"))
    own = f"import unfool; assert unfool.__file__.startswith({str(python.parents[1])!r}), unfool.__file__"
    yield "the wheel is what is imported", [str(python), "-c", own]
    yield "the README's example", [str(python), "-c", example()]
    for words in (EVALUATE, ("play", "--check")):
        yield f"unfool {' '.join(words)}", [unfool, *words]
    cards = "from unfool import zoo; print(*zoo.names())"
    names = subprocess.run([str(python), "-c", cards], capture_output=True, text=True, check=True).stdout.split()
    for name in names:
        yield f"unfool verify zoo:{name}", [unfool, "verify", f"zoo:{name}", *FEW]


def follow(python: Path, folder: Path) -> list[str]:
    """Do all of it in an empty folder; the steps that failed."""
    folder.mkdir()
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "UNFOOL"))}
    clean |= {"UNFOOL_CACHE_DIR": str(folder / "cache"), "OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    failed: list[str] = []
    for title, command in steps(python):
        before, started = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
        done = subprocess.run(command, cwd=folder, env=clean, capture_output=True, text=True, check=False)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        state = "ok" if done.returncode == 0 else f"exit code {done.returncode}"
        print(f"{title}: {state}, {seconds:.1f} s of CPU, {time.monotonic() - started:.1f} s", flush=True)
        if done.returncode:
            print(done.stdout + done.stderr)
            failed.append(title)
    return failed


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy both packages here")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        names = sources()
        wheel, sdist = build(names, folder)
        lacks = missing(names, wheel, sdist)
        print(f"{wheel.name}: {wheel.stat().st_size / 1e6:.1f} MB; {sdist.name}: {sdist.stat().st_size / 1e6:.1f} MB")
        print(*lacks, sep="\n", end="\n" if lacks else "")
        failed = follow(environment(wheel, folder / "environment"), folder / "elsewhere")
        if options.keep is not None:
            options.keep.mkdir(parents=True, exist_ok=True)
            for package in (wheel, sdist):
                shutil.copy2(package, options.keep)
    return 1 if lacks or failed else 0


if __name__ == "__main__":
    sys.exit(main())
