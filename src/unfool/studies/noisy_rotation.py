"""System E: does adversarial noise make a pretext task teach better features?

The source pretrains VGG-16 to tell by how much an image was turned, once on clean images and once on images moved
uphill on that very loss, and probes its five pooling stages. This study repeats that, and adds what the source owes:
random weights, rotation for as long, noise that reaches its budget, an extractor of half the channels, supervised
pretraining with and without noise, and a strong attack on the best probe of each.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any, ClassVar

from unfool.attacks import make_attack
from unfool.report.curves import Curve
from unfool.studies.base import STUDIES, Outcome, Study
from unfool.studies.noisy_rotation_charts import charts
from unfool.studies.noisy_rotation_claims import judge_claims
from unfool.studies.noisy_rotation_measures import Probed, probed
from unfool.studies.noisy_rotation_networks import described
from unfool.studies.noisy_rotation_scales import (
    AS_WRITTEN,
    DEMO,
    FULL,
    LABELS_NOISE,
    LONGER,
    PRETRAININGS,
    REACHING,
    SMALL,
    Pretraining,
    Scale,
)
from unfool.studies.workspace import Workspace

CRAFTING = 0.6
"""Time of a step of crafting in steps of learning: it needs no gradient of a weight."""


@STUDIES.add("noisy-rotation")
class NoisyRotation(Study):
    """System E, every pretraining probed on five stages."""

    name = "noisy-rotation"
    title = "Rotation under adversarial noise: better features, or only dearer ones?"
    subtitle = (
        "System E: VGG-16 learns to tell how far an image was turned, on clean images and on adversarial ones; a "
        "linear probe on each pooling stage then classifies."
    )
    scales: ClassVar[Mapping[str, Any]] = {"demo": DEMO, "small": SMALL, "full": FULL}

    def run(self, scale: str, work: Workspace) -> Outcome:
        settings: Scale = self.scales[scale]
        # The longest first, so that the processes end together.
        jobs = sorted(PRETRAININGS, key=lambda plan: expense(settings, plan), reverse=True)
        work.together([functools.partial(probed, settings, plan) for plan in jobs])
        found = {plan: probed(settings, plan, work) for plan in PRETRAININGS}
        return Outcome(
            rows=[row for one in found.values() for row in one.rows(settings.seeds)],
            claims=judge_claims(settings, found),
            data=described(settings, work),
            notes=_notes(scale, settings, found),
            curves=[Curve(plan.name, work.run_folder(plan.path) / "metrics.csv") for plan in PRETRAININGS if plan.task],
            gallery=[],
            charts=charts(settings, found),
        )


def expense(settings: Scale, plan: Pretraining) -> float:
    """About how long a pretraining computes, as a multiple of clean rotation; random weights take none."""
    if plan.task is None:
        return 0.0
    crafting = make_attack(settings.noises[plan.noise], settings.threat).settings["steps"] if plan.noise else 0
    return (1 + CRAFTING * crafting) * (settings.times if plan.longer else 1) * (0.5 if plan.half else 1.0)


def _notes(scale: str, settings: Scale, found: Mapping[Pretraining, Probed]) -> list[str]:
    """Every deviation from the source, in words, and what a row means."""
    labelled_set, column = settings.labels
    notes = [
        "Each row is one pretrained extractor with a linear probe on one stage; its seeds are those of the probe. "
        "Differences are those of these extractors: each was pretrained once.",
        f"The source's noise starts at the image and takes {settings.noises[AS_WRITTEN]} inside {settings.threat}; "
        f"the noise that reaches eps is {settings.noises[REACHING]}. Both climb the rotation loss of the network as it "
        "is, in eval mode.",
        f"{LONGER.name} is clean rotation for {settings.times} times the epochs: about the time that the noise takes, "
        "whose steps of crafting send more images through the network but need no gradients of weights.",
        f"Supervised pretraining learns {column} of {labelled_set}, under {settings.noises[LABELS_NOISE]} where it is "
        "noisy: none of the classes that are probed.",
        "A stage is called best on images held out of the probe's training set; the source compared its best test "
        "figures. The source states neither its input size nor its augmentation: padded crop and flip here. Its probe "
        "averages a stage to 10×10, 5×5, 2×2, 2×2 and 1×1 places, and so does this one.",
        f"{settings.attack} is aimed at one classifier each: the best stage with the probe of the first seed.",
    ]
    if settings.data != "stl10":
        notes.append(
            f"The source's figures are of STL-10, which could not be had. {settings.data} stands in: its own training "
            f"images are what rotation learns from, and the probe sees {settings.labelled:,} of their labels (STL-10 "
            "has 5,000, and 100,000 images without)."
        )
    if scale != "full":
        stage = settings.pretrain[0]
        notes.append(
            f"Scale {scale}: {settings.words} for the source's VGG-16, {stage['epochs']} epochs for 60 with a learning "
            f"rate that rises to {stage['learning_rate']} and falls to 0 for one divided by 10 every 25 epochs, in "
            f"bf16; {settings.probe['epochs']} epochs of the probe for 120. The source's values stand in scale full."
        )
    flat = sum(records.flat > 0 for one in found.values() for records in one.attacked.values())
    if flat:
        notes.append(
            f"In {flat} rows the attacked network gave no gradient on some image that stood: perhaps masked, not robust"
        )
    return notes
