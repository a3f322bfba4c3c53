"""Run every command on every kind of classifier, and print what came of it as a Markdown table.

    python docs/matrix.py            # print the table
    python docs/matrix.py --write    # replace it in docs/models.md

Each row is one kind of classifier, each column one command, run as a user runs it: tiny networks with random weights,
16×16 images, one step. A cell says what the command made of it, or points to the line with which it refuses. A row of
a library that is not installed keeps what docs/models.md says.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

HERE = Path(__file__).parent
PAGE = HERE / "models.md"
COLUMNS = ("evaluate", "attack", "report", "harden", "probe", "reverse")
BEGIN, END = "<!-- matrix: begin -->", "<!-- matrix: end -->"
CLASSES = ("cat", "dog", "owl", "yak")
WORKS = "yes"


@dataclass(frozen=True)
class Kind:
    """A row: the words that name the model on the command line, and what its commands need beside them."""

    name: str
    model: str
    more: tuple[str, ...] = ()
    features: str | None = "body"
    data: str = "set.csv"
    attack: str = "fgsm"
    needs: str | None = None
    """The library without which the row cannot be run."""
    make: Callable[[], object] = field(default=lambda: None)
    """Writes the files that the row reads, in the working directory."""


def kinds() -> list[Kind]:
    """All rows."""
    black = {"attack": "square-2", "features": None}
    return [
        Kind("transformers ResNet, a folder", "hf:resnet", features="resnet", needs="transformers", make=_hf_resnet),
        Kind("transformers ViT, a folder", "hf:vit", features="vit.layernorm", needs="transformers", make=_hf_vit),
        Kind(
            "timm",
            "timm:test_resnet",
            ("--weights", "timm.pt"),
            features="layer4",
            needs="timm",
            make=lambda: _state(importlib.import_module("timm").create_model("test_resnet"), "timm.pt"),
        ),
        Kind(
            "torchvision",
            "torchvision:shufflenet_v2_x0_5",
            ("--weights", "torchvision.pt"),
            features="conv5",
            data="set.csv",
            needs="torchvision",
            make=lambda: _state(importlib.import_module("torchvision").models.shufflenet_v2_x0_5(), "torchvision.pt"),
        ),
        Kind("TorchScript file", "script.pt", make=_script),
        Kind("`torch.export` program, a file", "program.pt2", make=_program),
        Kind("`FILE.py:NAME`, logits as a tensor", "kinds.py:plain", ("--mean", "0.5", "--std", "0.25")),
        Kind("an object with `.logits`", "kinds.py:with_logits"),
        Kind('a dictionary with `"logits"`', "kinds.py:dictionary"),
        Kind("logits first in a tuple", "kinds.py:first_of_tuple"),
        Kind("logits elsewhere: `--output heads.1.main`", "kinds.py:nested", ("--output", "heads.1.main")),
        Kind("a single logit (sigmoid)", "kinds.py:single_logit", data="two.csv"),
        Kind("logits (B, K, 1, 1)", "kinds.py:one_pixel"),
        Kind(
            "multi-label: `--multi-label`",
            "kinds.py:plain",
            ("--multi-label", "--classes", "names.txt"),
            data="several.csv",
        ),
        Kind("images (B, H, W, C): `--layout nhwc`", "kinds.py:channels_last", ("--layout", "nhwc")),
        Kind("images in 0–255: `--scale 255`", "kinds.py:in_255", ("--scale", "255")),
        Kind("float16 weights", "kinds.py:half"),
        Kind("bfloat16 weights", "kinds.py:bfloat16"),
        Kind("one batch size alone", "kinds.py:fixed_batch"),
        Kind("`nn.DataParallel`", "kinds.py:parallel"),
        Kind("`torch.compile`", "kinds.py:compiled"),
        Kind("reentrant checkpointing", "kinds.py:reentrant"),
        Kind("hooks, counters, kept feature maps", "kinds.py:keeping"),
        Kind("lazy layers, weights from a file", "kinds.py:lazy", ("--weights", "plain.pt")),
        Kind("lazy layers without weights", "kinds.py:lazy"),
        Kind("a function of NumPy arrays", "kinds.py:numpy_scores", **black),
        Kind("a function of tensors", "kinds.py:torch_scores", **black),
        Kind("a scikit-learn estimator", "kinds.py:estimator", **black),
        Kind(
            "checkpoint: `--key`, `--prefix`",
            "kinds.py:plain",
            ("--weights", "wrapped.pt", "--key", "state_dict", "--prefix", "module.encoder."),
        ),
        Kind(
            "checkpoint with an average: `--key model_ema`",
            "kinds.py:plain",
            ("--weights", "ema.pt", "--key", "model_ema"),
        ),
    ]


def cells(kind: Kind) -> dict[str, str]:
    """What each command makes of a kind of classifier: a word, or the line with which it refuses."""
    kind.make()
    for path in ("run", "hard", "set.safetensors", "set.state"):
        shutil.rmtree(path, ignore_errors=True)
        if Path(path).is_file():
            Path(path).unlink()
    model, data = ["--model", kind.model, *kind.more], ["--data", kind.data]
    few = [*data, "--images", "6"]
    named = ["--features", kind.features] if kind.features else []
    training = ["--steps", "1", "--batch-size", "6"]
    attack = ["--attack", kind.attack]
    head = [*named, *data, *training, "--task", "rotation", "--trainable", "heads", "--out", "run"]
    defense = ["--defense", "reverse:task=rotation,steps=1"]
    reversal = ["reverse", "run", "image.png", "--model", kind.model, *defense, "--out", "purified"]
    crafted = command("attack", *model, *few, *attack, "--out", "set.safetensors")
    stored = [] if isinstance(crafted, str) else ["--on", "set.safetensors"]
    evaluated = command("evaluate", *model, *few, *attack, *stored)

    def yes(*commands: list[str]) -> str:
        lines = (command(*words) for words in commands)
        return next((line for line in lines if isinstance(line, str)), WORKS)

    def protocol(row: int) -> str:
        return evaluated if isinstance(evaluated, str) else str(evaluated["rows"][row]["protocol"])

    return {
        "evaluate": protocol(1),
        # What it wrote, evaluated: on the classifier itself it is no transfer.
        "attack": crafted if isinstance(crafted, str) else protocol(-1),
        "report": evaluated if isinstance(evaluated, str) else WORKS if evaluated["reliability"] else "missing",
        "harden": yes(["harden", *model, *few, *training, "--attack", "fgsm", "--out", "hard"]),
        "probe": yes(["probe", *model, *named, *data, "--epochs", "1"]),
        "reverse": yes(["train", *model, *head], reversal),
    }


def command(*words: str) -> dict[str, Any] | str:
    """The JSON that a command prints, or the one line with which it refuses; RuntimeError for anything else."""
    from unfool.cli import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([*words, "--json"])
    if not code:
        return json.loads(out.getvalue())
    lines = [line for line in err.getvalue().splitlines() if "warning: " not in line]
    if code == 70 or len(lines) != 1:
        raise RuntimeError(f"unfool {' '.join(words)} ended with {code}:\n{err.getvalue()}")
    return lines[0].removeprefix("unfool: ")


@contextlib.contextmanager
def workplace() -> Generator[None]:
    """An empty working directory with the images, the classifiers' code and their weights."""
    before = os.getcwd()
    with tempfile.TemporaryDirectory() as folder:
        os.environ["UNFOOL_CACHE_DIR"] = str(Path(folder) / "cache")
        os.chdir(folder)
        try:
            shutil.copy(HERE / "kinds.py", "kinds.py")
            _images()
            _checkpoints()
            yield
        finally:
            os.chdir(before)


def _images() -> None:
    """Twelve random images for each split, and tables of them with one label, one of two, and several."""
    draws = np.random.RandomState(1)
    rows = {"set.csv": [], "two.csv": [], "several.csv": []}
    for number in range(24):
        path, split = f"{number}.png", "train" if number < 12 else "test"
        Image.fromarray(draws.randint(0, 256, (16, 16, 3)).astype("uint8")).save(path)
        own = CLASSES[number % 4]
        rows["set.csv"].append(f"{path},{own},{split}")
        rows["two.csv"].append(f"{path},{CLASSES[number % 2]},{split}")
        rows["several.csv"].append(f"{path},{(own, f'{own};yak', 'none')[number % 3]},{split}")
    for name, lines in rows.items():
        Path(name).write_text("\n".join(["path,label,split", *lines]))
    Path("names.txt").write_text("\n".join(CLASSES))
    shutil.copy("0.png", "image.png")


def _checkpoints() -> None:
    state = _kinds("plain").state_dict()
    torch.save(state, "plain.pt")
    torch.save(
        {"epoch": 3, "state_dict": {f"module.encoder.{name}": value for name, value in state.items()}}, "wrapped.pt"
    )
    average = {name: value * 0.9 if value.is_floating_point() else value for name, value in state.items()}
    torch.save({"model": state, "model_ema": average}, "ema.pt")


def _kinds(name: str) -> nn.Module:
    sys.path.insert(0, str(HERE))
    try:
        return getattr(importlib.import_module("kinds"), name)()
    finally:
        sys.path.remove(str(HERE))


def _script() -> None:
    torch.manual_seed(0)
    torch.jit.script(_sequential()).save("script.pt")


def _program() -> None:
    batch = {0: torch.export.Dim("batch", max=1024)}
    torch.export.save(
        torch.export.export(_sequential(), (torch.rand(4, 3, 16, 16),), dynamic_shapes=(batch,)), "program.pt2"
    )


def _sequential() -> nn.Sequential:
    torch.manual_seed(0)
    body = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1))
    parts = nn.Sequential(nn.Flatten(), nn.Linear(8, len(CLASSES)))
    module = nn.Sequential()
    module.add_module("body", body)
    module.add_module("out", parts)
    return module.eval()


def _state(module: nn.Module, path: str) -> None:
    torch.manual_seed(0)
    torch.save(module.state_dict(), path)


def _hf_resnet() -> None:
    from transformers import ResNetConfig

    _hf("resnet", ResNetConfig(embedding_size=4, hidden_sizes=[4, 8], depths=[1, 1], layer_type="basic", num_labels=4))


def _hf_vit() -> None:
    from transformers import ViTConfig

    sizes = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
    _hf("vit", ViTConfig(**sizes, image_size=16, patch_size=8, num_labels=4))


def _hf(folder: str, config: object) -> None:
    from transformers import AutoModelForImageClassification

    torch.manual_seed(0)
    AutoModelForImageClassification.from_config(config).eval().save_pretrained(folder)
    processor = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "size": {"height": 16, "width": 16}}
    (Path(folder) / "preprocessor_config.json").write_text(json.dumps(processor))


def installed(kind: Kind) -> bool:
    """Whether the library that a row needs can be imported."""
    try:
        return kind.needs is None or bool(importlib.import_module(kind.needs))
    except Exception:  # A library that does not fit the installed torch may fail in any way.
        return False


def markdown(rows: Mapping[str, Mapping[str, str]]) -> str:
    """The table, and below it the lines with which commands refuse."""
    refusals: dict[str, int] = {}
    lines = ["| " + " | ".join(["classifier", *COLUMNS]) + " |", "| --- " * (len(COLUMNS) + 1) + "|"]
    for name, row in rows.items():
        shown = [
            text if text in WORDS else f"refused ({refusals.setdefault(text, len(refusals) + 1)})"
            for text in row.values()
        ]
        lines.append("| " + " | ".join([name, *shown]) + " |")
    return "\n".join([*lines, "", *(f"{number}. {text}" for text, number in refusals.items())])


WORDS = (WORKS, "white-box", "score-based")
"""What a cell says that is no refusal."""


def stored(page: str) -> dict[str, dict[str, str]]:
    """The rows of a page's table, refusals in full."""
    section = page.partition(BEGIN)[2].partition(END)[0].strip().splitlines()
    refusals = dict(line.split(". ", 1) for line in section if line[:1].isdigit())
    rows: dict[str, dict[str, str]] = {}
    for line in section[2:]:
        if line.startswith("| "):
            name, *shown = (cell.strip() for cell in line.strip("|").split(" | "))
            texts = [refusals[text[9:-1]] if text.startswith("refused (") else text for text in shown]
            rows[name] = dict(zip(COLUMNS, texts, strict=True))
    return rows


def main(write: bool) -> None:
    """Run all rows that can be run here."""
    page = PAGE.read_text(encoding="utf-8")
    known = stored(page)
    rows: dict[str, Mapping[str, str]] = {}
    with workplace():
        for kind in kinds():
            if installed(kind):
                rows[kind.name] = cells(kind)
            elif kind.name in known:
                print(f"{kind.name}: {kind.needs} cannot be imported; its row stays as it was", file=sys.stderr)
                rows[kind.name] = known[kind.name]
    table = markdown(rows)
    print(table)
    if write:
        before, _, rest = page.partition(BEGIN)
        PAGE.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{rest.partition(END)[2]}", encoding="utf-8")


if __name__ == "__main__":
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="replace the table in docs/models.md")
    main(parser.parse_args().write)
