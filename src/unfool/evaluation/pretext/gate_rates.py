"""How often clean images trigger a gate: does a threshold that is set on some keep its stated rate on others?

Legend: N clean images.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch

from unfool.core.errors import SpecError
from unfool.data.table import Table
from unfool.defenses import Gate
from unfool.defenses.calibration import calibrate_threshold, fewest_images
from unfool.evaluation.crafting.batches import device_of

_USUAL = 60
"""Images that a threshold is set on, of 120 to 1,200 images at a rate of 5 %."""


@dataclass(frozen=True, kw_only=True)
class GateRates:
    """False-trigger rates of a gate. Thresholds for a stated ``rate`` were set on ``calibrated_on`` images, and
    triggered by the other ``evaluated_on`` ones; this over many ``resamples``.

    ``mean`` is the mean rate, ``kept`` the share of resamples whose rate was at most the stated one, ``deployed`` the
    rate of the gate's own threshold on all images.
    """

    rate: float
    calibrated_on: int
    evaluated_on: int
    resamples: int
    mean: float
    kept: float
    deployed: float

    def to_json(self) -> dict[str, float]:
        """The same as JSON takes it."""
        return asdict(self)


@torch.no_grad()
def gate_rates(gate: Gate, table: Table, *, rate: float = 0.05, resamples: int = 200, seed: int = 0) -> GateRates:
    """Measure how often the clean images of a table trigger a gate.

    Each resample calibrates on a twentieth of them, but on 60 or half of them if that is more, and always on as many as
    the rate needs. Raises SpecError where no other image is left to count on, and for no resamples.
    """
    needed, spans = fewest_images(rate), gate.batches_of(len(table))
    if sum(span.stop - span.start for span in spans) <= needed:
        own = gate.own_batch_size or 1
        fewest = (needed // own + 1) * own  # whole batches, where mates matter
        raise SpecError(
            f"{len(table)} clean images cannot show whether a gate keeps a false-trigger rate of {rate:g}: its "
            f"threshold needs {needed} of them, and the rate others; give at least {fewest}"
        )
    if resamples < 1:
        raise SpecError(f"{resamples} resamples are not allowed; give 1 or more, such as 200")
    device = device_of(gate.classifier)
    rows = torch.arange(len(table))
    parts = [gate.losses(table.batch(rows[span], device).images).cpu() for span in spans]
    losses = torch.cat(parts)
    count = max(needed, min(_USUAL, len(losses) // 2), len(losses) // 20)
    draw, rates = np.random.default_rng(seed), []
    for _ in range(resamples):
        some, others = losses[torch.from_numpy(draw.permutation(len(losses)))].tensor_split([count])
        rates.append(float((others > calibrate_threshold(some, rate)).double().mean()))
    return GateRates(
        rate=rate,
        calibrated_on=count,
        evaluated_on=len(losses) - count,
        resamples=resamples,
        mean=round(sum(rates) / resamples, 6),
        kept=round(sum(each <= rate for each in rates) / resamples, 6),
        deployed=round(float((losses > gate.threshold).double().mean()), 6),
    )
