"""How long images take to reach the network: unfool's batched views and decoded store against the usual ways.

    python benchmarks/input.py [--json] [--data-dir DIR]

Prints three ratios of CPU time, each the median over rounds of A B A B in one process on one thread:

* ``views_over_kornia``: two SimCLR views of 256 images, over kornia's augmentations with a draw per image;
* ``views_over_pil``: the same, over torchvision's PIL transforms rebuilt with Pillow;
* ``store_over_dataloader``: a pass over 2,000 images in batches of 256, over decoding them in a DataLoader.

Images are CIFAR-10's where the data directory has them, else the embedded digits, encoded as PNG for the DataLoader.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import islice

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch
from PIL import Image, ImageEnhance
from torch import Tensor
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset

from unfool.core.batch import Batch
from unfool.core.streams import Streams
from unfool.data.augment import AUGMENTATIONS, augmented
from unfool.data.catalog import open_table
from unfool.data.folders import data_folder
from unfool.data.readers.parquet import hub_folders, parquet_splits
from unfool.data.table import Table

BATCH = 256
PASS = 2000
RECIPE = AUGMENTATIONS["simclr"]
SCALE = RECIPE.crop_scale or (1.0, 1.0)
RATIO = RECIPE.crop_ratio
STRENGTHS = RECIPE.strengths


def images_and_files(data_dir: str | None) -> tuple[str, Table, list[bytes]]:
    """(name, table, encoded images) of the set that is measured on; at least PASS encoded images."""
    folder = data_folder(data_dir)
    local = hub_folders(folder)
    if "cifar10" in local:
        table = open_table("cifar10", "train", data_dir=folder)
        encoded = islice(parquet_splits(local["cifar10"])["train"].read().images, PASS)
        return "cifar10", table, [item for item in encoded if isinstance(item, bytes)]
    table = open_table("digits", "train")
    files = []
    for image in table.images:
        buffer = io.BytesIO()
        Image.fromarray(image.permute(1, 2, 0).numpy()).save(buffer, format="PNG")
        files.append(buffer.getvalue())
    return "digits", table, (files * math.ceil(PASS / len(files)))[:PASS]


def kornia_views() -> Callable[[Tensor], Tensor]:
    """Kornia's augmentations with the same parameters; each draws per image."""
    from kornia import augmentation

    sequence = torch.nn.Sequential(
        augmentation.RandomResizedCrop((32, 32), scale=SCALE, ratio=RATIO),
        augmentation.RandomHorizontalFlip(p=RECIPE.flip),
        augmentation.ColorJitter(
            STRENGTHS.brightness, STRENGTHS.contrast, STRENGTHS.saturation, STRENGTHS.hue, p=RECIPE.jitter
        ),
        augmentation.RandomGrayscale(p=RECIPE.grey),
        augmentation.RandomGaussianBlur((3, 3), RECIPE.blur_sigma, p=RECIPE.blur),
    )
    return lambda images: torch.cat([sequence(images), sequence(images)])


def pil_view(image: Image.Image) -> Tensor:
    """One view of one image, step by step as torchvision's PIL transforms make it, their torch draws included."""
    width, height = image.size
    box = (0, 0, width, height)
    for _ in range(10):
        area = width * height * _drawn(*SCALE)
        ratio = math.exp(_drawn(math.log(RATIO[0]), math.log(RATIO[1])))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(0, height - h + 1, (1,)))
            left = int(torch.randint(0, width - w + 1, (1,)))
            box = (left, top, left + w, top + h)
            break
    image = image.crop(box).resize((width, height), Image.Resampling.BILINEAR)
    if torch.rand(1) < RECIPE.flip:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    if torch.rand(1) < RECIPE.jitter:
        image = _jittered(image)
    if torch.rand(1) < RECIPE.grey:
        grey = np.array(image.convert("L"), dtype=np.uint8)
        image = Image.fromarray(np.dstack([grey, grey, grey]))
    if torch.rand(1) < RECIPE.blur:
        image = _blurred(image, _drawn(*RECIPE.blur_sigma))
    return _to_tensor(image)


def _jittered(image: Image.Image) -> Image.Image:
    order = torch.randperm(4)
    brightness, contrast, saturation = (
        _drawn(max(0.0, 1.0 - strength), 1.0 + strength)
        for strength in (STRENGTHS.brightness, STRENGTHS.contrast, STRENGTHS.saturation)
    )
    hue = _drawn(-STRENGTHS.hue, STRENGTHS.hue)
    for change in order:
        if change == 0:
            image = ImageEnhance.Brightness(image).enhance(brightness)
        elif change == 1:
            image = ImageEnhance.Contrast(image).enhance(contrast)
        elif change == 2:
            image = ImageEnhance.Color(image).enhance(saturation)
        else:
            image = _hue_turned(image, hue)
    return image


def _drawn(low: float, high: float) -> float:
    return float(torch.empty(1).uniform_(low, high))


def _hue_turned(image: Image.Image, turn: float) -> Image.Image:
    hue, saturation, value = image.convert("HSV").split()
    turned = Image.fromarray(np.array(hue, dtype=np.uint8) + np.uint8(int(turn * 255) % 256))
    return Image.merge("HSV", (turned, saturation, value)).convert("RGB")


def _blurred(image: Image.Image, sigma: float) -> Image.Image:
    """torchvision has no Pillow blur: the image goes to a tensor, through a 3×3 convolution per channel, and back."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].to(torch.float32)
    taps = torch.exp(-0.5 * (torch.linspace(-1.0, 1.0, 3) / sigma) ** 2)
    taps = taps / taps.sum()
    kernel = torch.mm(taps[:, None], taps[None, :]).expand(3, 1, 3, 3)
    pixels = functional.conv2d(functional.pad(pixels, [1, 1, 1, 1], mode="reflect"), kernel, groups=3)
    return Image.fromarray(torch.round(pixels)[0].to(torch.uint8).permute(1, 2, 0).numpy())


def _to_tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous().to(torch.float32).div(255)


class Files(Dataset):
    """Encoded images, decoded one by one."""

    def __init__(self, files: list[bytes]):
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Tensor:
        image = Image.open(io.BytesIO(self.files[index])).convert("RGB")
        return _to_tensor(image)


def cpu_seconds(work: Callable[[], object], repeats: int) -> float:
    """CPU seconds of this process for one run of ``work``."""
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats


def compared(
    ours: Callable[[], object], theirs: Callable[[], object], rounds: int, repeats: int
) -> tuple[float, float, float]:
    """Medians over rounds of (ratio, our seconds, their seconds); the first round only warms up."""
    pairs = [(cpu_seconds(ours, repeats), cpu_seconds(theirs, 1)) for _ in range(rounds + 1)][1:]
    return (
        statistics.median(a / b for a, b in pairs),
        statistics.median(a for a, _ in pairs),
        statistics.median(b for _, b in pairs),
    )


def settle_allocator() -> None:
    """Put the allocator into the state of a training loop, which frees blocks of tens of megabytes at every step.

    Fresh from its start, glibc hands small heaps back to the system and pays for their pages again at every call.
    """
    for megabytes in (8, 16, 31):
        torch.ones(megabytes << 18)


def main() -> int:
    parser = argparse.ArgumentParser(description="Benchmark of unfool's input side.")
    parser.add_argument("--json", action="store_true", help="print one JSON object of medians")
    parser.add_argument("--data-dir", default=None, help="directory with cifar10 in hub layout (else UNFOOL_DATA_DIR)")
    parser.add_argument("--rounds", type=int, default=9, help="rounds, at least 5")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    settle_allocator()
    rounds = max(5, arguments.rounds)
    name, table, files = images_and_files(arguments.data_dir)

    rows = torch.arange(BATCH)
    start = table.batch(rows)
    pictures = [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in table.images[:BATCH]]
    streams, step = Streams(0), iter(range(1 << 30))
    kornia_pair = kornia_views()

    def our_views() -> Tensor:
        return augmented(Batch(images=start.images, ids=start.ids), "simclr", 2, streams.at(next(step)))

    def our_pass() -> None:
        places = torch.arange(PASS) % len(table)
        for first in range(0, PASS, BATCH):
            table.batch(places[first : first + BATCH])

    loader = DataLoader(Files(files), batch_size=BATCH)
    results = {
        "views_over_kornia": compared(our_views, lambda: kornia_pair(start.images), rounds, 3),
        "views_over_pil": compared(
            our_views,
            lambda: torch.stack([pil_view(picture) for _ in range(2) for picture in pictures]),
            rounds,
            3,
        ),
        "store_over_dataloader": compared(our_pass, lambda: list(loader), rounds, 10),
    }
    figures: dict[str, object] = {key: round(ratio, 4) for key, (ratio, _, _) in results.items()}
    figures["views_images_per_second"] = round(2 * BATCH / results["views_over_kornia"][1])
    figures["data"] = name
    if arguments.json:
        print(json.dumps(figures))
    else:
        print(f"{name}, one thread, CPU time, medians of {rounds} rounds")
        for key, (ratio, ours, theirs) in results.items():
            print(f"  {key:<24}{ratio:8.4f}   ({1e3 * ours:.2f} ms over {1e3 * theirs:.2f} ms)")
        print(f"  {'views per second':<24}{figures['views_images_per_second']:>8}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
