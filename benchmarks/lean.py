"""The lean attack here against pyautoattack: passes, time and robust accuracy on networks of many kinds.

    python benchmarks/lean.py [--json] [--data-dir DIR] [--images 256] [--networks NAME …] [--folder NAME=DIR …]
    python benchmarks/lean.py --masked [--json] [--images 64] [--networks NAME …]

Networks are those of the zoo, small ones that the first call trains (`lean_subjects.TRAINED`: FGSM-RS, PGD, TRADES,
MART with weight perturbation, beside a pretext task, fine-tuned, and as usual; a minute each but ``robust``), the
public ResNet-20 (``resnet20``, at linf 0.5/255) where ``resnet20-cifar10.th`` lies in the data directory or in a folder
``models`` beside it, finished training runs that ``--folder`` names, and a classifier of one's own (``--model
FILE.py:NAME --weights FILE``, whose keys begin with NAME).

Each set of images goes through pyautoattack's standard version, in chunks of 64, and through ``lean`` as ``unfool
evaluate`` runs it: with its checks, its sample, and whatever it escalates to. The two take turns: half of the chunks,
lean in fp32, the other half, lean in bf16. Both are counted: images forward, images backward, CPU seconds of one
thread. Results are kept in ``runs/benchmarks/lean`` (``--kept``), chunk by chunk and batch by batch, and looked up
there, so that the benchmark continues where it was stopped. Keys, for each network:

* ``…_passes_forward``, ``…_passes_backward``: images through the network over pyautoattack's;
* ``…_time_fp32``, ``…_time_bf16``: CPU time over theirs, with a search in fp32 (folded) and in bf16;
* ``…_accuracy_difference``: robust accuracy of lean minus theirs in points, the higher of fp32 and bf16;
* ``…_accuracy``: robust accuracy by each;
* ``…_disagreements``: the ids of all images with different verdicts: ``missed`` by lean, or only lean ``fooled`` them;
* ``…_escalated``: why lean escalated, if it did; ``…_images``: how many images the figures are of;
  ``…_adversarially_trained``: whether the network is.

``median_…`` are those of the ``robust`` networks: adversarially trained, and at least a tenth of the images stands
under pyautoattack. ``mean_accuracy_difference`` is that of all networks on which so many stand. ``networks``,
``adversarially_trained``, ``fewest_images`` and ``lower_on`` say what was compared: how many networks, of how many
images at least, and where lean's robust accuracy is the lower one. ``missed`` lists the bounds that are missed, and the
conditions: ten networks, ``resnet20`` among them, five of them robust, 256 images of each, lean lower on some. The exit
code is 0 where all hold, else 1: also for a run of a few networks or images. ``--masked`` measures classifiers that
hide their gradients (`masked_set`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import warnings
from collections.abc import Callable
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from lean_subjects import CHUNK, IMAGES, RESNET, RESNET_EPS, Subject, subjects
from masked_set import MASKED_IMAGES, masked_subjects, measure_masked
from networks import KEPT

BOUNDS = {"passes_forward": 0.10, "passes_backward": 0.18, "time_fp32": 0.15, "time_bf16": 0.10}
MEAN_DIFFERENCE, MOST_DIFFERENCE = 0.05, 0.5
NETWORKS, FEWEST_ROBUST = 10, 5
"""How many networks must be compared, and how many of these must be robust."""
ROBUST = 0.1
"""Share of the images that stand under pyautoattack on an adversarially trained network that counts as robust."""


def measured(subject: Subject) -> dict[str, Any]:
    """All figures of one network."""
    numbers = range(-(-len(subject.table) // CHUNK))
    half = -(-len(numbers) // 2)
    # In turns, so that a machine that slows down or speeds up does so for both.
    chunks, lean = [subject.reference(number) for number in numbers[:half]], {"fp32": subject.lean("fp32")}
    chunks += [subject.reference(number) for number in numbers[half:]]
    lean["bf16"] = subject.lean("bf16")
    theirs = {number: fooled for each in chunks for number, fooled in zip(each["ids"], each["fooled"], strict=True)}
    total = {name: sum(each[name] for each in chunks) for name in ("forward", "backward", "seconds")}
    ours = {name: dict(zip(each["ids"], each["fooled"], strict=True)) for name, each in lean.items()}
    differences = {name: 100 * (sum(theirs.values()) - sum(own.values())) / len(theirs) for name, own in ours.items()}
    return {
        "passes_forward": lean["fp32"]["forward"] / total["forward"],
        "passes_backward": lean["fp32"]["backward"] / total["backward"],
        "time_fp32": lean["fp32"]["seconds"] / total["seconds"],
        "time_bf16": lean["bf16"]["seconds"] / total["seconds"],
        "accuracy_difference": max(differences.values()),
        "accuracy": {
            "pyautoattack": 100 - 100 * sum(theirs.values()) / len(theirs),
            **{name: 100 - 100 * sum(own.values()) / len(own) for name, own in ours.items()},
        },
        "disagreements": {
            name: {
                "missed": [number for number, fooled in own.items() if theirs[number] and not fooled],
                "fooled": [number for number, fooled in own.items() if fooled and not theirs[number]],
            }
            for name, own in ours.items()
        },
        "escalated": next((each["remark"] for each in lean.values() if "escalated" in each["remark"]), None),
        "images": len(theirs),
        "adversarially_trained": subject.adversarial,
    }


def summary(figures: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """What was compared, medians over the robust networks, and all bounds and conditions that are missed."""
    compared = {
        "networks": len(figures),
        "adversarially_trained": sum(each["adversarially_trained"] for each in figures.values()),
        "fewest_images": min((each["images"] for each in figures.values()), default=0),
        "lower_on": [name for name, each in figures.items() if _is_lower(each["accuracy"])],
    }
    standing = {name: each for name, each in figures.items() if each["accuracy"]["pyautoattack"] >= 100 * ROBUST}
    robust = {name: each for name, each in standing.items() if each["adversarially_trained"]}
    missed = _missed_conditions(compared)
    if len(robust) < FEWEST_ROBUST:
        missed.append(
            f"robust networks {len(robust)} < {FEWEST_ROBUST}: adversarially trained, with {100 * ROBUST:.0f} % of the "
            f"images or more standing under pyautoattack; the medians are over {', '.join(robust) or 'none'}"
        )
    if RESNET not in figures:
        missed.append(
            f"{RESNET} at {RESNET_EPS} is missing: put its checkpoint into the data directory, or give "
            f"--model FILE.py:{RESNET} --weights FILE --mean imagenet --std imagenet"
        )
    if not robust:
        return {**compared, "robust": [], "missed": [*missed, "no robust network was measured"]}
    medians = {key: statistics.median(each[key] for each in robust.values()) for key in BOUNDS}
    mean = statistics.mean(each["accuracy_difference"] for each in standing.values())
    missed += [f"median_{key} {medians[key]:.3f} > {bound}" for key, bound in BOUNDS.items() if medians[key] > bound]
    if mean > MEAN_DIFFERENCE:
        missed.append(f"mean_accuracy_difference {mean:.3f} > {MEAN_DIFFERENCE}")
    missed += [
        f"{name}_accuracy_difference {each['accuracy_difference']:.2f} > {MOST_DIFFERENCE}"
        for name, each in figures.items()
        if each["accuracy_difference"] > MOST_DIFFERENCE
    ]
    missed += [f"{name} escalated: {each['escalated']}" for name, each in figures.items() if each["escalated"]]
    medians = {f"median_{key}": round(value, 4) for key, value in medians.items()}
    return {**compared, **medians, "mean_accuracy_difference": round(mean, 4), "robust": list(robust), "missed": missed}


def _is_lower(accuracy: dict[str, float]) -> bool:
    """Whether lean leaves fewer images standing than pyautoattack, in fp32 or in bf16."""
    return min(accuracy["fp32"], accuracy["bf16"]) < accuracy["pyautoattack"]


def _missed_conditions(compared: dict[str, Any]) -> list[str]:
    least = {"networks": NETWORKS, "fewest_images": IMAGES}
    missed = [f"{name} {compared[name]} < {count}" for name, count in least.items() if compared[name] < count]
    return missed if compared["lower_on"] else [*missed, "lower_on: lean's robust accuracy is lower on no network"]


def lean_alone(makers: dict[str, Callable[[], Subject]], as_json: bool) -> int:
    """What lean says of each network, without pyautoattack; 1 where it escalates."""
    figures: dict[str, Any] = {}
    for name, make in makers.items():
        lean = make().lean("fp32")
        figures[f"{name}_accuracy"] = 100 - 100 * sum(lean["fooled"]) / len(lean["fooled"])
        figures |= {f"{name}_{key}": lean[key] for key in ("remark", "forward", "backward", "seconds")}
        print(f"{name}: {figures[f'{name}_accuracy']:.1f} %, {lean['remark']}", file=sys.stderr, flush=True)
    figures["escalated"] = [name for name in makers if "escalated" in figures[f"{name}_remark"]]
    print(json.dumps(figures) if as_json else f"escalated: {figures['escalated']}")
    return 1 if figures["escalated"] else 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Benchmark of the lean attack against pyautoattack.")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--data-dir", default=None, help="directory with cifar10 in hub layout (else UNFOOL_DATA_DIR)")
    parser.add_argument("--images", type=int, help=f"test images of each (default: {IMAGES}, masked {MASKED_IMAGES})")
    parser.add_argument("--networks", nargs="+", default=None, metavar="NAME", help="only these")
    parser.add_argument("--model", default=None, help="a classifier of one's own, as unfool --model names it")
    parser.add_argument("--weights", default=None, help="its checkpoint")
    parser.add_argument("--mean", default=None, help="mean of the images that it was trained on, as unfool --mean")
    parser.add_argument("--std", default=None, help="their standard deviation")
    parser.add_argument("--eps", default="0.5/255", help="size of its linf ball (default: 0.5/255)")
    parser.add_argument("--folder", action="append", default=[], metavar="NAME=DIR", help="a finished run on CIFAR-10")
    parser.add_argument("--kept", default=str(KEPT / "lean"), metavar="DIR", help="where results are kept")
    parser.add_argument("--lean-only", action="store_true", help="leave pyautoattack out: only what lean says")
    parser.add_argument("--masked", action="store_true", help="evaluate networks that hide their gradients instead")
    parser.add_argument("--around", default="pgd", metavar="NAME", help="the network inside those (default: pgd)")
    arguments = parser.parse_args()
    malformed = [text for text in arguments.folder if not all(text.partition("="))]
    if malformed:
        parser.error(f"--folder {malformed[0]} is not understood; give NAME=DIR, such as mine=runs/mine")
    if arguments.images is None:
        arguments.images = MASKED_IMAGES if arguments.masked else IMAGES
    if arguments.images < 1:
        parser.error(f"--images {arguments.images} is not allowed; give 1 or more")
    torch.set_num_threads(1)
    # pyautoattack's own checks warn where an image's gradient is zero.
    warnings.simplefilter("ignore")
    makers = subjects(arguments)
    if arguments.masked and arguments.around not in makers:
        parser.error(f"network {arguments.around} is not known; give one of {', '.join(makers)}")
    measured_ones = masked_subjects(arguments, makers) if arguments.masked else makers
    unknown = [name for name in arguments.networks or [] if name not in measured_ones]
    if unknown:
        parser.error(f"network {unknown[0]} is not known; give some of {', '.join(measured_ones)}")
    if arguments.masked:
        return measure_masked(arguments, measured_ones)
    if arguments.lean_only:
        return lean_alone({name: makers[name] for name in arguments.networks or makers}, arguments.json)
    figures: dict[str, dict[str, Any]] = {}
    for name in arguments.networks or makers:
        figures[name] = measured(makers[name]())
        shown = ", ".join(f"{key} {figures[name][key]:.3f}" for key in (*BOUNDS, "accuracy_difference"))
        print(f"{name}: {shown}, {figures[name]['disagreements']}", file=sys.stderr, flush=True)
    flat = {f"{name}_{key}": round(value, 4) if isinstance(value, float) else value
            for name, each in figures.items() for key, value in each.items()}  # fmt: skip
    total = summary(figures)
    if arguments.json:
        print(json.dumps({**flat, **total}))
    else:
        for key, bound in BOUNDS.items():
            median, count = total.get(f"median_{key}"), len(total["robust"])
            print(f"  {key:<20}{median!s:>9}   (median of {count} robust ones, <= {bound})")
        print(f"  accuracy_difference {total.get('mean_accuracy_difference')!s:>9}   (mean, <= {MEAN_DIFFERENCE})")
        for key in ("networks", "adversarially_trained", "fewest_images", "lower_on"):
            print(f"  {key}: {total[key]}")
        for text in total["missed"]:
            print(f"  MISSED: {text}")
    return 1 if total["missed"] else 0


if __name__ == "__main__":
    sys.exit(main())
