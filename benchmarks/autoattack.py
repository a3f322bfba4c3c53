"""AutoAttack here against pyautoattack: the same verdict on every image, and what it costs.

    python benchmarks/autoattack.py [--json] [--data-dir DIR] [--only NORM_KIND]
    python benchmarks/autoattack.py --model FILE.py:NAME --weights FILE --mean imagenet --std imagenet --eps 1/255 8/255

For linf, l2 and l1, on a normally and an adversarially trained small network: 256 images in two chunks of 128, in
batches of 64 at most; each chunk goes in turn, in one process on one thread, through pyautoattack's standard version,
ours in fp32 (folded proxy) and ours with a bf16 proxy. Both attack those that still stand of all batches together.
Keys, for each of ``{linf|l2|l1}_{standard|robust}``:

* ``…_agreement``: share of images on which both agree, or that only ours fools; the lower of fp32 and bf16;
* ``…_accuracy_difference``: robust accuracy of ours minus theirs in percentage points; the higher of fp32 and bf16;
* ``…_bf16_only_standing``: how many images stand under ours in bf16 that ours in fp32 fools; none may;
* ``…_time_ratio_fp32``, ``…_time_ratio_bf16``: CPU time over theirs, median over chunks;
* ``…_image_ratio``: images through the network over theirs (fp32), all chunks;
* ``…_memory_ratio``: the rise of resident memory at its peak over theirs, the highest of the chunks after the first,
  the higher of fp32 and bf16; null where the system does not tell;
* ``…_loss_gain``: mean over images of the highest cross-entropy of our APGD-CE minus theirs, at equal steps, and
  ``…_loss_gain_error`` its standard error: met unless it is below zero by more than 1.96 of them;
* ``…_disagreements``: every image on which the verdicts differ, with the margin of the returned image for each.

Networks are trained on the first call (about six CPU minutes) and kept in ``runs/benchmarks``. The second form measures
a classifier of one's own instead (`own_model.py`): images that stand, verdicts that differ with their margins, ratios.
The exit code of the first is 1 where a limit is missed, `LIMITS` and `LOWER`; that of the second where an image stands
in bf16 alone.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pyautoattack
import torch
import torch.nn.functional as F
from networks import KINDS, Material, material, trained
from own_model import Variant, add_options, compare
from pyautoattack.autopgd_base import APGDAttack
from torch import Tensor, nn

from unfool.attacks import ProxySettings, make_attack
from unfool.core.batch import Batch
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.models.network import Network

BATCH, CHUNK, CHUNKS = 64, 128, 2
SEEDS = 3
TRUNK = {"name": "convnet", "stem": "strided", "widths": [32, 64, 128]}
CIFAR_IMAGES = {"standard": 20_000, "robust": 50_000}
EPOCHS = {"standard": 4, "robust": 6}
BUDGETS = {
    "cifar10": {"linf": "linf:8/255", "l2": "l2:0.5", "l1": "l1:12"},
    "digits": {"linf": "linf:0.2", "l2": "l2:2", "l1": "l1:20"},
}
THEIRS = {"linf": "Linf", "l2": "L2", "l1": "L1"}
LIMITS = {
    "agreement": (">=", 0.97),
    "accuracy_difference": ("<=", 1.0),
    "bf16_only_standing": ("<=", 0),
    "time_ratio_fp32": ("<=", 0.90),
    "time_ratio_bf16": ("<=", 0.55),
    "memory_ratio": ("<=", 1.0),
    "loss_gain": (">=", 0.0),
}
LOWER = {
    ("linf", "robust"): {
        "agreement": (">=", 1.0),
        "accuracy_difference": ("<=", 0.0),
        "time_ratio_fp32": ("<=", 0.52),
        "time_ratio_bf16": ("<=", 0.38),
    }
}
"""Limits that are tighter for one pair, the usual case of a robust network in linf: no image may stand under ours that
pyautoattack fools."""


class Counted(nn.Module):
    """A network that counts the images it sees."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network
        self.images = 0

    def forward(self, images: Tensor) -> Tensor:
        self.images += len(images)
        return self.network(images)


def variants(network: nn.Module, threat: ThreatModel, few: Tensor | None = None) -> dict[str, Variant]:
    """The three ways that are compared; a foreign network's copies are compared with it on a ``few`` images."""
    counted = Counted(network).eval()
    attack = make_attack("autoattack", threat)
    proxies = {"fp32": ProxySettings(dtype="fp32"), "bf16": ProxySettings(dtype="bf16")}
    proxy_models = {name: proxy.copy(network, few) for name, proxy in proxies.items()}

    def theirs(images: Tensor, labels: Tensor, ids: Tensor) -> tuple[Tensor, int]:
        counted.images = 0
        adversary = pyautoattack.AutoAttack(counted, norm=THEIRS[threat.norm_name], eps=threat.eps, seed=0)
        adversarial, _ = adversary.run_standard_evaluation(images, labels, batch_size=BATCH)
        return adversarial, counted.images

    def ours(name: str) -> Variant:
        def run(images: Tensor, labels: Tensor, ids: Tensor) -> tuple[Tensor, int]:
            found = attack(
                network, images, labels, ids=ids, proxy_model=proxy_models[name], proxy=proxies[name], at_once=BATCH
            )
            return found.images, found.model_images

        return run

    return {"theirs": theirs, "fp32": ours("fp32"), "bf16": ours("bf16")}


def peak() -> tuple[int, int] | None:
    """Resident memory now and at its peak, in KiB; None where the system does not tell."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        values = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.startswith(("VmHWM", "VmRSS"))}
        return values["VmRSS"], values["VmHWM"]
    except (OSError, KeyError, ValueError, IndexError):
        return None


def forget_peak() -> None:
    """Give memory that is free back to the system, and start the peak anew from what is resident then."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return


def margins(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Highest other logit minus the label's; above 0 the image is misclassified."""
    with torch.no_grad():
        logits = network(images)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    return others - logits.gather(1, labels[:, None]).squeeze(1)


def loss_gain(network: Network, threat: ThreatModel, batch: Batch, labels: Tensor) -> tuple[float, float]:
    """Mean gain in final loss of our APGD-CE over theirs, and the mean's standard error over images.

    100 steps, one restart, without a larger ball, no proxy; each image's losses are the mean over ``SEEDS`` seeds, as
    the two draw different starts.
    """
    name, gains = THEIRS[threat.norm_name], torch.zeros(len(labels), dtype=torch.float64)
    for seed in range(SEEDS):
        theirs = APGDAttack(network, norm=name, eps=threat.eps, n_iter=100, seed=seed, device="cpu")
        ours = make_attack("apgd-ce:goal=best,wide=false", threat)
        # The highest loss of each: of theirs the image has it, ours gives a fooled image before one of higher loss.
        found = ours(network, batch.images, labels, ids=batch.ids, streams=Streams(seed)).losses
        points = theirs.perturb(batch.images, labels, best_loss=True)
        with torch.no_grad():
            gains += (found - F.cross_entropy(network(points), labels, reduction="none")).double() / SEEDS
    return float(gains.mean()), float(gains.std() / len(gains) ** 0.5)


def measured(network: Network, given: Material, norm: str, kind: str) -> dict[str, Any]:
    """All chunks through all variants."""
    threat = ThreatModel.parse(BUDGETS[given.name][norm])
    runs = variants(network, threat)
    batch = given.judged.batch()
    labels = batch.labels("label")
    for run in runs.values():
        # A warm-up on images that are all misclassified costs next to nothing, and compiles the kernels.
        run(batch.images[:BATCH], (network(batch.images[:BATCH]).argmax(1) + 1).detach() % 10, batch.ids[:BATCH])
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    images = dict.fromkeys(runs, 0)
    rises: dict[str, list[int]] = {name: [] for name in runs}
    found: dict[str, list[Tensor]] = {name: [] for name in runs}
    for number in range(CHUNKS):
        part = slice(number * CHUNK, (number + 1) * CHUNK)
        order = list(runs) if number % 2 == 0 else list(reversed(runs))
        for name in order:
            forget_peak()
            before, started = peak(), time.process_time()
            adversarial, count = runs[name](batch.images[part], labels[part], batch.ids[part])
            seconds[name].append(time.process_time() - started)
            after = peak()
            # The first chunk also loads kernels, which stay.
            if before is not None and after is not None and number:
                rises[name].append(after[1] - before[0])
            images[name] += count
            found[name].append(margins(network, adversarial, labels[part]))
        told = ", ".join(f"{name} {values[-1]:.0f} s" for name, values in seconds.items())
        print(f"{norm} {kind}: chunk {number + 1} of {CHUNKS}: {told}", file=sys.stderr, flush=True)
    margin = {name: torch.cat(parts) for name, parts in found.items()}
    fooled = {name: values > 0 for name, values in margin.items()}
    ids = batch.ids.tolist()

    def ratio(name: str) -> float:
        return statistics.median(a / b for a, b in zip(seconds[name], seconds["theirs"], strict=True))

    differing = [
        {"id": ids[row], "search": name, "ours": float(margin[name][row]), "theirs": float(margin["theirs"][row])}
        for name in ("fp32", "bf16")
        for row in (fooled[name] != fooled["theirs"]).nonzero().flatten().tolist()
    ]
    gain, gain_error = loss_gain(network, threat, batch, labels)
    rise = {name: max(values) if values else None for name, values in rises.items()}
    ours = [value for name in ("fp32", "bf16") if (value := rise[name]) is not None]
    return {
        "agreement": min(1 - float((fooled["theirs"] & ~fooled[n]).float().mean()) for n in ("fp32", "bf16")),
        "accuracy_difference": max(
            100 * float((~fooled[n]).float().mean() - (~fooled["theirs"]).float().mean()) for n in ("fp32", "bf16")
        ),
        "bf16_only_standing": int((fooled["fp32"] & ~fooled["bf16"]).sum()),
        "time_ratio_fp32": ratio("fp32"),
        "time_ratio_bf16": ratio("bf16"),
        "image_ratio": images["fp32"] / images["theirs"],
        "memory_ratio": max(ours) / rise["theirs"] if ours and rise["theirs"] else None,
        "loss_gain": gain,
        "loss_gain_error": gain_error,
        "robust_accuracy": {name: round(100 * float((~values).float().mean()), 2) for name, values in fooled.items()},
        "cpu_seconds": {name: round(sum(values), 1) for name, values in seconds.items()},
        "model_images": images,
        "disagreements": differing,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description="Benchmark of AutoAttack against pyautoattack.")
    parser.add_argument("--json", action="store_true", help="print one JSON object of medians")
    parser.add_argument("--data-dir", default=None, help="directory with cifar10 in hub layout (else UNFOOL_DATA_DIR)")
    parser.add_argument("--only", default=None, help="one of linf_standard … l1_robust; default: all six")
    add_options(parser)
    arguments = parser.parse_args()
    if arguments.model is not None:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        figures, stands = compare(arguments, variants, margins)
        print(json.dumps(figures))
        return int(stands)
    pairs = [(norm, kind) for kind in KINDS for norm in THEIRS]
    if arguments.only is not None:
        pairs = [pair for pair in pairs if "_".join(pair) == arguments.only]
        if not pairs:
            parser.error(f"--only {arguments.only} is not known; give one of linf, l2, l1 with _standard or _robust")
    torch.set_num_threads(1)
    if arguments.only is None:
        figures = shared_out(pairs, arguments.data_dir)
        return told(figures, pairs, arguments.json)
    # pyautoattack's own checks warn where an image's gradient is zero; ours says so in its result.
    warnings.simplefilter("ignore")
    given = material(arguments.data_dir, CHUNK * CHUNKS, CIFAR_IMAGES, EPOCHS)
    figures: dict[str, Any] = {}
    for norm, kind in pairs:
        values = measured(network_of(kind, given).requires_grad_(False), given, norm, kind)
        for name, value in values.items():
            figures[f"{norm}_{kind}_{name}"] = round(value, 4) if isinstance(value, float) else value
    figures |= {"data": given.name, "budgets": BUDGETS[given.name], "images": CHUNK * CHUNKS}
    return told(figures, pairs, arguments.json)


def network_of(kind: str, given: Material) -> Network:
    """The small network of that kind."""
    return trained("autoattack", kind, given, TRUNK, learning_rate=0.25 if kind == "standard" else 0.1)


def shared_out(pairs: list[tuple[str, str]], data_dir: str | None) -> dict[str, Any]:
    """Every pair in a process of its own, two at a time: all variants of a pair still run side by side in one."""
    given = material(data_dir, CHUNK * CHUNKS, CIFAR_IMAGES, EPOCHS)
    for kind in KINDS:
        network_of(kind, given)

    def alone(pair: tuple[str, str]) -> dict[str, Any]:
        command = [sys.executable, __file__, "--json", "--only", "_".join(pair)]
        command += ["--data-dir", data_dir] if data_dir is not None else []
        ended = subprocess.run(command, stdout=subprocess.PIPE)
        if not ended.stdout:
            raise subprocess.CalledProcessError(ended.returncode, command)
        # It ends with 1 where a limit is missed, which is said here.
        return json.loads(ended.stdout)

    # The longest first, so that the two processes end together.
    order = sorted(pairs, key=lambda pair: (pair[1] != "robust", pair[0] != "l1"))
    figures: dict[str, Any] = {}
    with ThreadPoolExecutor(2) as pool:
        for found in pool.map(alone, order):
            figures |= found
    return figures


def verdicts(figures: dict[str, Any], norm: str, kind: str) -> dict[str, tuple[str, str]]:
    """By figure of one pair its limit, and whether it is ``met``, ``MISSED`` or ``not measured``."""
    judged: dict[str, tuple[str, str]] = {}
    for name, (sign, limit) in {**LIMITS, **LOWER.get((norm, kind), {})}.items():
        value = figures[f"{norm}_{kind}_{name}"]
        if name == "loss_gain":
            limit = round(-1.96 * figures[f"{norm}_{kind}_loss_gain_error"], 4)
        met = value is not None and (value >= limit if sign == ">=" else value <= limit)
        judged[name] = f"{sign} {limit}", "met" if met else "MISSED" if value is not None else "not measured"
    return judged


def told(figures: dict[str, Any], pairs: list[tuple[str, str]], as_json: bool) -> int:
    """Print the figures as JSON, or as a list beside their limits; 1 where a limit is missed."""
    judged = {pair: verdicts(figures, *pair) for pair in pairs}
    if as_json:
        print(json.dumps(figures))
    else:
        print(f"AutoAttack on {figures['data']}, {figures['images']} images, one thread, CPU time, over pyautoattack")
    for (norm, kind), values in judged.items():
        for name, (limit, state) in values.items():
            line = f"  {norm} {kind} {name:<20}{figures[f'{norm}_{kind}_{name}']!s:>9}   ({limit}: {state})"
            if not as_json:
                print(line)
            elif state == "MISSED":
                print(line, file=sys.stderr)
    return int(any(state == "MISSED" for values in judged.values() for _, state in values.values()))


if __name__ == "__main__":
    sys.exit(main())
