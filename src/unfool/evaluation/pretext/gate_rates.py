"""How often clean images trigger a gate: does a threshold that is set on some keep its stated rate on others?

Legend: N clean images.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import torch

from unfool.data.table import Table
from unfool.defenses import Gate
from unfool.defenses.calibration import calibrate_threshold
from unfool.evaluation.crafting.batches import BATCH_SIZE, device_of

_FEWEST = 60
"""Images that a threshold needs at a rate of 5 %."""


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
    """Measure how often the clean images of a table trigger a gate; each resample calibrates on a twentieth of them.

    Raises SpecError for fewer images than a threshold needs at that rate.
    """
    device = device_of(gate.classifier)
    parts = [gate.losses(table.batch(rows, device).images).cpu() for rows in torch.arange(len(table)).split(BATCH_SIZE)]
    losses = torch.cat(parts)
    draw, count, rates = np.random.default_rng(seed), max(_FEWEST, len(losses) // 20), []
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
