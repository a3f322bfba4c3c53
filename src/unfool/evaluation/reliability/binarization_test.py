"""Is an attack strong enough to be believed? It must find adversarial examples that are known to exist.

Zimmermann, Brendel, Tramèr & Carlini, "Increasing Confidence in Adversarial Robustness Evaluations", NeurIPS 2022.
"""

from __future__ import annotations

import math
import time
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from unfool.attacks import Attack
from unfool.attacks.attacked import TOLERANCE
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Problem
from unfool.core.errors import DataError, ImagesError, SpecError, UnfoolWarning
from unfool.core.progress import Progress, silent
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.as_table import TableLike, as_table
from unfool.evaluation.crafting.batches import device_of
from unfool.evaluation.intervals import wilson
from unfool.evaluation.reliability.binarization_heads import BinarizationHeads, fit_heads, on_sphere, representation
from unfool.evaluation.results.reliability import BinarizationResult
from unfool.evaluation.results.rows import Cost
from unfool.models.modes import frozen_eval

THRESHOLD = 0.95
"""Share of the known adversarial examples that an attack must find: the paper's."""

EASY = 0.05
"""Share of the heads that random search may solve; above it the test says nothing about an attack."""

BATCH_SIZE = 64
"""Images at a time; results do not depend on it, only "same bits" does."""


def binarization_test(
    model: nn.Module,
    data: TableLike,
    attack: Attack,
    *,
    images: int = 64,
    inner: int = 100,
    seed: int = 0,
    progress: Progress = silent,
) -> BinarizationResult:
    """Test whether ``attack`` finds adversarial examples that are known to exist, for the model's own features.

    For each of ``images`` images a two-class head is fitted on the frozen ``model.features``: class 0 for the image
    and ``inner`` points around it, class 1 for one point of the ball (see `binarization_heads.fit_heads`). The attack
    passes if it finds class 1 for 95 % of the images. The test is void if random search finds it for more than 5 %.
    An image outside ball or box is no success, whatever the attack says. Labels play no part. Losses that need more
    classes use their two-class form. Raises SpecError for a model without features, DataError for a table without
    images.
    """
    if attack.threat.norm_name == "l0":
        raise SpecError(f"the binarization test has no form for {attack.threat}; test the attack in linf, l2 or l1")
    features, table = representation(model), as_table(data)
    if images < 1 or inner < 1:
        raise SpecError(f"images {images}, inner {inner} are not allowed; give 1 or more of each")
    if not len(table):
        raise DataError("there are no images to test an attack on; give a table with at least one")
    started = time.process_time()
    chosen = table.sample(min(images, len(table)), Streams(seed))
    device = device_of(model)
    tally = _Tally()
    with torch.inference_mode(False), frozen_eval(model):
        for rows in torch.arange(len(chosen)).split(BATCH_SIZE):
            batch = chosen.batch(rows, device)
            streams = Streams(seed).named("strength")
            heads, passes = fit_heads(features, attack.threat, batch.images, batch.ids, streams.named("heads"), inner)
            tally.model_images += passes
            tally.dropped += len(batch) - len(heads.ids)
            if len(heads.ids):
                _test(attack, heads, inner, streams, tally)
            progress(f"binarization test of {attack.name}", int(rows[-1]) + 1, len(chosen))
    cost = Cost(cpu_seconds=round(time.process_time() - started, 2), model_images=tally.model_images)
    return tally.result(attack, cost)


@dataclass(kw_only=True)
class _Tally:
    """Counts over the batches of the test."""

    images: int = 0
    dropped: int = 0
    successes: int = 0
    random_successes: int = 0
    model_images: int = 0
    fault: str = ""

    def result(self, attack: Attack, cost: Cost) -> BinarizationResult:
        low, high = wilson(self.successes, self.images) if self.images else (0.0, 1.0)
        success = self.successes / self.images if self.images else 0.0
        at_random = self.random_successes / self.images if self.images else 0.0
        void = not self.images or at_random > EASY
        passed = success >= THRESHOLD and not void
        counted = f"{attack.name} found {self.successes} of {self.images} known adversarial examples ({success:.1%})"
        if not self.images:
            text = f"binarization test void: no head separates any of {self.dropped} images; use a larger eps"
        elif void:
            text = f"binarization test void: random search found {at_random:.1%} of the same examples; {counted}"
        elif passed:
            text = f"binarization test passed: {counted}"
        else:
            text = f"binarization test FAILED: {counted}, and {THRESHOLD:.0%} are needed"
        return BinarizationResult(
            success=success,
            low=low,
            high=high,
            random_success=at_random,
            images=self.images,
            dropped=self.dropped,
            passed=passed,
            threshold=THRESHOLD,
            text=f"{text}; {self.fault}" if self.fault else text,
            cost=cost,
        )


def _test(attack: Attack, heads: BinarizationHeads, inner: int, streams: Streams, tally: _Tally) -> None:
    """Attack one batch of heads, count the successes, and give random search as many passes."""
    passes = inner
    tally.images += len(heads.ids)
    objective = LabelLoss(heads, torch.zeros_like(heads.ids), by_row=True)
    try:
        with warnings.catch_warnings():
            # That two classes are few is no news here, and no fault of the model.
            warnings.simplefilter("ignore", UnfoolWarning)
            attacked = attack.run(
                Problem(objective=objective, images=heads.images, ids=heads.ids, streams=streams.named("attack"))
            )
    except ImagesError as error:
        # The images were checked when the table was read: what is wrong now came out of the attack.
        tally.fault = str(error)
    else:
        tally.successes += int(
            (heads.fooled(attacked.images) & _inside(attack.threat, attacked.images, heads.images)).sum()
        )
        tally.model_images += attacked.model_images
        passes = max(passes, math.ceil(attacked.model_images / len(heads.ids)))
    solved, looked = _random_search(attack.threat, heads, passes, streams.named("random"))
    tally.random_successes += solved
    tally.model_images += looked


def _inside(threat: ThreatModel, images: Tensor, origins: Tensor) -> Tensor:
    """Which images (B,) lie in ball ∩ box; NaN lies nowhere."""
    flat = images.flatten(1)
    near = threat.norm(images.double() - origins.double()) <= threat.eps + TOLERANCE
    return near & (flat >= 0).all(1) & (flat <= 1).all(1)


def _random_search(threat: ThreatModel, heads: BinarizationHeads, passes: int, streams: Streams) -> tuple[int, int]:
    """How many heads one of ``passes`` random points on the edge of the ball fools, and how many points that took."""
    standing, looked = heads, 0
    for draw in range(passes):
        if not len(standing.ids):
            break
        points = on_sphere(threat, standing.images, standing.ids, streams.at(draw))
        looked += len(points)
        missed = (~standing.fooled(points)).nonzero().squeeze(1)
        if len(missed) < len(points):
            standing = standing.on(missed)
    return len(heads.ids) - len(standing.ids), looked
