"""Golden results: what fixed commands and studies give, without what may differ between two equal runs.

``python tests/golden/capture.py NAME ...`` (or ``all``) runs them and writes ``tests/golden/NAME.json``.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

# As the tests do: the number of threads decides how sums are rounded.
os.environ.setdefault("OMP_NUM_THREADS", "1")

FOLDER = Path(__file__).parent
STUDIES = (
    "adversarial-training",
    "auxiliary-reversal",
    "contrastive-multitask",
    "noisy-rotation",
    "reverse-attack",
    "transfer",
)
TRAIN = (
    "train --data digits --trunk convnet --stem strided --widths 8 16 32 --task labels --task contrast:weight=0.5 "
    "--epochs 6 --batch-size 128 --optimizer sgd --learning-rate 0.1 --schedule triangle --perturb fgsm --seed 3"
)
COMMANDS = {
    "evaluate": "evaluate run --images 60 --attack fgsm --attack pgd-5:restarts=2 "
    "--attack autoattack:steps=6,queries=60 --threat linf:0.1 --corruptions --severity 3",
    "ladder": "evaluate run --images 24 --defense reverse:task=contrast,steps=2,bank=64,drawn=16 --adaptive "
    "--attack apgd-ce:steps=6 --threat linf:0.1",
    "audit": "audit run --images 40 --defense reverse:task=contrast,steps=2,bank=64,drawn=16 --attack pgd-3 "
    "--threat linf:0.1",
    "probe": "probe run --epochs 6 --drop-every 2 --knn --seeds 0 1",
}
TIMES = {"cpu_seconds", "seconds", "versions", "run", "gallery"}
_HASH = re.compile(r"[0-9a-f]{16,64}")


def settled(value: Any, names: dict[str, str] | None = None) -> Any:
    """A JSON value without times and pictures; identities of systems become ``system 0``, ``system 1`` in order."""
    names = {} if names is None else names
    if isinstance(value, dict):
        return {key: settled(part, names) for key, part in value.items() if key not in TIMES}
    if isinstance(value, list):
        return [settled(part, names) for part in value]
    if isinstance(value, str) and "times the CPU time" in value:
        return re.sub(r"\d+ times the CPU time", "TIME", value)
    if isinstance(value, str) and len(value) > 400:
        return hashlib.sha256(value.encode()).hexdigest()[:12]
    if isinstance(value, str) and _HASH.fullmatch(value):
        return names.setdefault(value, f"system {len(names)}")
    return value


def main(arguments: str, folder: Path) -> str:
    """What a command prints on stdout when it runs in a folder."""
    from unfool.cli import main as unfool

    before = Path.cwd()
    os.chdir(folder)
    try:
        with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(io.StringIO()) as err:
            code = unfool(arguments.split())
    finally:
        os.chdir(before)
    if code:
        raise RuntimeError(f"unfool {arguments} ended with {code}: {err.getvalue()}")
    return out.getvalue()


def train(folder: Path) -> Path:
    """The small adversarially trained network that the commands work on."""
    run = folder / "run"
    if not run.is_dir():
        main(f"{TRAIN} --out run", folder)
    return run


def printed(text: str) -> list[str]:
    """The lines of a printed table, without the folder it names and the time it took."""
    text = re.sub(r"\d+(\.\d+)? (CPU )?s\b|\d+\s+times the CPU|times,? and took \d+", "TIME", text)
    # The width of the column of times is that of the longest: so are the blanks before it.
    return [re.sub(r" +\d+\.\d+(?= +[\d,]+$)", " TIME", line.rstrip()) for line in text.splitlines()]


def capture(name: str, folder: Path) -> dict[str, Any]:
    """The golden value of a command, of the training run, or of a study's demo."""
    if name in STUDIES:
        from rich.console import Console

        from unfool.studies import run_study

        result = run_study(name, "demo", folder / name, console=Console(quiet=True)).to_json()
        verdicts = [claim["verdict"] for claim in result["claims"]]
        return settled({"rows": result["rows"], "verdicts": verdicts, "charts": result.get("charts", [])})
    run = train(folder)
    if name == "train":
        log = (run / "metrics.csv").read_text(encoding="utf-8")
        return {
            "weights": tensors_hash(run / "weights.safetensors"),
            "metrics": hashlib.sha256(log.encode()).hexdigest(),
        }
    words, file = COMMANDS[name], folder / f"{name}.json"
    text = main(words if name == "probe" else f"{words} --out {file.name}", folder)
    result = main(f"{words} --json", folder) if name == "probe" else file.read_text(encoding="utf-8")
    return {"printed": printed(text), "json": settled(json.loads(result))}


def tensors_hash(path: Path) -> str:
    """A hash of the tensors alone, by name."""
    from safetensors.torch import load_file

    found = hashlib.sha256()
    for key, tensor in sorted(load_file(path).items()):
        found.update(key.encode())
        found.update(tensor.contiguous().view(-1).numpy().tobytes())
    return found.hexdigest()


NAMES = ("train", *COMMANDS, *STUDIES)


def write(names: list[str]) -> None:
    """Capture values and write them, one file a name."""
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            value = capture(name, Path(folder))
            lines = json.dumps(value, ensure_ascii=False, indent=1) + "\n"
            (FOLDER / f"{name}.json").write_text(lines, encoding="utf-8")


if __name__ == "__main__":
    write(list(NAMES) if sys.argv[1:] == ["all"] else sys.argv[1:])
