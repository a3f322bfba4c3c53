"""What hostile inputs are made from: sound files, values that hurt, and ways to spoil bytes and trees."""

import copy
import io
import json
import random
import shutil
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from unfool import classify, craft, evaluate, save_set
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import load_tensors, save_network
from unfool.training import RunConfig, StageConfig, TaskConfig

Draw = random.Random
LONG = "a" * 300

NASTY: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**30, -0.5, 1e300, "", " ", "x", "1", "-", "é\udcff", "\x00", LONG),
    *("x" * 100_000, [], {}, [[]], [None], {"a": 1}, [1, 2, 3], "../../x", "<script>", "nan", [[1, "a"]], {"": []}),
]
NUMBERS = ["0", "-1", "1e-400", "1e400", "1e39", "8/0", "8/255", "9" * 25, "9" * 5000, "nan", "inf", "0x10", "1_0", "²"]


@dataclass(frozen=True, kw_only=True)
class Material:
    """Sound files and values, which the inputs are made of."""

    folder: Path
    network: Network
    files: dict[str, bytes]
    results: Any
    records: Any
    config: str
    tensors: dict[str, torch.Tensor]
    manifest: dict[str, Any]
    pictures: list[bytes]


def material(folder: Path) -> Material:
    """Make everything once: a tiny network and what an evaluation of it writes."""
    heads = {"labels": {"kind": "linear", "outputs": 10}}
    network = Network.build(TrunkSpec(name="convnet", widths=(4, 6, 8)), heads, classifier="labels").eval()
    save_network(network, folder / "weights.safetensors")
    torch.save({"state_dict": network.state_dict(), "epoch": 3}, folder / "weights.pt")
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(6)
    examples = craft(network, (images, labels), "fgsm", threat="linf:8/255")
    save_set(examples, folder / "set.safetensors")
    results = evaluate(network, (images, labels), ["fgsm"]).to_json()
    classify(network, examples).save(folder / "records.json")
    tensors, manifest = load_tensors(folder / "set.safetensors")
    pixels = np.random.default_rng(0).integers(0, 255, (12, 10, 3), dtype=np.uint8)
    pictures: list[bytes] = []
    for form, mode in [("PNG", "RGB"), ("PNG", "P"), ("JPEG", "CMYK"), ("JPEG", "L"), ("WEBP", "RGB"), ("BMP", "RGB"),
                       ("GIF", "RGB"), ("PPM", "RGB"), ("TIFF", "RGB"), ("PNG", "I;16"), ("TIFF", "F")]:  # fmt: skip
        buffer = io.BytesIO()
        image = Image.fromarray(pixels)
        image = image.convert("L").convert("I").convert(mode) if mode == "I;16" else image.convert(mode)
        image.save(buffer, form)
        pictures.append(buffer.getvalue())
    stage = StageConfig(tasks={"labels": TaskConfig(task="labels")}, epochs=2, perturb="pgd-2", threat="linf:8/255")
    config = RunConfig(data="digits", stages=(stage,), trunk="convnet:widths=4-6-8").to_yaml()
    return Material(
        folder=folder,
        network=network,
        files={name: (folder / name).read_bytes() for name in ("weights.safetensors", "weights.pt", "set.safetensors")},
        results=json.loads(json.dumps(results)),
        records=json.loads((folder / "records.json").read_text()),
        config=config,
        tensors=tensors,
        manifest={key: value for key, value in manifest.items() if key != "checksum"},
        pictures=pictures,
    )


def spoiled_bytes(content: bytes, draw: Draw) -> bytes:
    """The same with bits flipped, a part cut out, repeated, overwritten or cut off."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 8, 40))):
        if not data:
            break
        place, length = draw.randrange(len(data)), draw.choice((1, 2, 4, 16, 200))
        kind = draw.randrange(6)
        if kind <= 1:
            data[place] ^= 1 << draw.randrange(8)
        elif kind == 2:
            data[place : place + length] = draw.choice((b"\x00", b"\xff", b"\x7f\xff\xff\xff", b"")) * length
        elif kind == 3:
            data[place:place] = data[place : place + length]
        elif kind == 4:
            data[place : place + 4] = struct.pack(draw.choice("<>") + "I", draw.choice((0, 1, 2**16, 2**31, 2**32 - 1)))
        elif draw.random() < 0.3:
            del data[place:]
    return bytes(data)


def spoiled_tree(value: Any, draw: Draw, times: int = 1) -> Any:
    """The same JSON value with something in it replaced, renamed, repeated or taken away."""
    value = copy.deepcopy(value)
    for _ in range(times):
        part = value
        while True:
            keys = list(part) if isinstance(part, dict) else list(range(len(part)))
            if not keys:
                break
            key = draw.choice(keys)
            inner = part[key]
            if isinstance(inner, (dict, list)) and inner and draw.random() < 0.75:
                part = inner
                continue
            kind = draw.randrange(6)
            if kind <= 3:
                part[key] = copy.deepcopy(draw.choice(NASTY))
            elif kind == 4:
                del part[key]
            elif isinstance(part, dict):
                part[draw.choice(("", "x", LONG, "é\udcff"))] = part.pop(key)
            else:
                part.append(copy.deepcopy(inner))
            break
    return value


def emptied(folder: Path) -> Path:
    """A folder with nothing in it."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder
