"""What system B's study measures of one base classifier: every figure a record, found again once it is made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import nn

from unfool.attacks import ProxySettings, make_attack
from unfool.core.streams import Streams
from unfool.defenses.calibration import calibrate_threshold
from unfool.evaluation import Records
from unfool.evaluation.adaptive.ladder_settings import LadderSettings
from unfool.evaluation.corruptions import mean_corruption_accuracy
from unfool.studies.recipes import ROBUST
from unfool.studies.reverse_networks import attacked_images, crafted, path_of, reversal, trained
from unfool.studies.reverse_scales import NORMS, REVERSAL_STEPS, SET_STEPS, SOURCE_NORMS, SOURCE_STEPS, STEPS, Scale
from unfool.studies.workspace import Workspace
from unfool.tasks.contrast_losses import CONTRAST_LOSSES

REVERSE = "reverse:contrast"
GATED = "gate:contrast"
RATE = 0.05
"""The false-trigger rate that the gate states."""
RESAMPLES = 200
_FEWEST = 60
"""Images that a threshold needs at that rate."""
_CHUNK = 500
PRESET = "reverse:mao2021"


@dataclass(frozen=True, kw_only=True)
class Measured:
    """One record, and how its row differs from others: the ``defense``, ``settings``, the source's figure in %.

    ``price`` is how many images go through the network for one prediction; ``panel`` where the page shows it, if not
    in its table.
    """

    base: str
    records: Records
    defense: str = "none"
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: float | None = None
    price: int = 1
    panel: str = ""

    def row(self) -> dict[str, Any]:
        value = None if self.source is None else round(self.source / 100, 6)
        row = self.records.row(self.base, seed=0, settings=self.settings, source_value=value).to_json()
        row["cost"]["model_images"] += (self.price - 1) * self.records.count
        return row | {"defense": self.defense} | ({"panel": self.panel} if self.panel else {})


def _measure(
    plan: Scale,
    base: str,
    work: Workspace,
    system: nn.Module,
    key: str,
    norm: str | None = "linf",
    steps: int = SET_STEPS,
    **words: Any,
) -> Measured:
    """A system judged on the set of that norm (None: clean images); ``words`` are what tells its row apart."""
    if norm is None:
        table = attacked_images(plan, work)
        records = work.clean(path_of(base), system, table, plan.threats["linf"], key)
    else:
        records = work.judged(path_of(base), system, lambda: crafted(plan, base, norm, steps, work), key)
    price = int(getattr(system, "images_per_prediction", 1))
    return Measured(base=base, records=records, price=price, **words)


def by_norm(settings: Scale, base: str, work: Workspace) -> Iterator[Measured]:
    """Clean images and the stored sets in three norms, without and with the reversal (in the set's norm)."""
    for defense in ("none", REVERSE):
        for norm in (None, *NORMS):
            system = _system(settings, base, work, defense, norm or "linf")
            key = f"{norm or 'clean'}-{_key(defense)}"
            source = SOURCE_NORMS[norm or "none"] if (base, defense) == (ROBUST, "none") else None
            yield _measure(settings, base, work, system, key, norm, defense=defense, source=source)


def by_steps(settings: Scale, base: str, work: Workspace) -> Iterator[Measured]:
    """Attacks of more and more steps in Linf, without, and with the source's five steps of reversal."""
    for steps in STEPS:
        for number, defense in enumerate(("none", REVERSE)):
            if steps == SET_STEPS and defense == "none":
                continue  # told by norm
            words: dict[str, Any] = {
                "defense": defense,
                "settings": {"reversal_steps": REVERSAL_STEPS} if number else {},
                "source": SOURCE_STEPS[steps][number] if base == ROBUST else None,
            }
            system = _system(settings, base, work, defense, "linf", steps=REVERSAL_STEPS)
            key = f"linf-{steps}-steps-{_key(defense)}"
            yield _measure(settings, base, work, system, key, steps=steps, **words)


def by_loss(settings: Scale, base: str, work: Workspace) -> Iterator[Measured]:
    """The reversal along every variant of the contrastive loss."""
    for loss in CONTRAST_LOSSES:
        system = reversal(settings, base, work, loss=loss)
        key, told = f"linf-reversed-{loss}", {"loss": loss}
        yield _measure(settings, base, work, system, key, defense=REVERSE, settings=told, panel="charts")


def by_negatives(settings: Scale, base: str, work: Workspace) -> Iterator[Measured]:
    """The reversal with more and more negatives drawn from the bank."""
    for drawn in settings.negatives:
        system = reversal(settings, base, work, drawn=drawn, bank=max(settings.negatives))
        key, told = f"linf-reversed-{drawn}-drawn", {"drawn": drawn}
        yield _measure(settings, base, work, system, key, defense=REVERSE, settings=told, panel="charts")


def by_preset(settings: Scale, base: str, work: Workspace) -> Iterator[Measured]:
    """The reference's own settings, on clean images and on the Linf set."""
    system = reversal(settings, base, work, preset="mao2021")
    for norm in (None, "linf"):
        yield _measure(settings, base, work, system, f"{norm or 'clean'}-preset", norm, defense=PRESET)


def by_strength(settings: Scale, base: str, work: Workspace) -> Iterator[Measured]:
    """The bare classifier under the strong attack, which says how robust it really is."""
    run, name = trained(settings, base, work), path_of(base)
    attack = make_attack(settings.strong, settings.threats["linf"])
    records = work.judged(
        name,
        run.network,
        lambda: work.adversarial(
            name,
            run,
            attacked_images(settings, work),
            attack,
            seed=0,
            proxy=ProxySettings(dtype=settings.precision),
            keep=False,
        ),
        settings.strong,
    )
    # The stored sets are last iterates, as the source's are; here an image counts as fooled if any step fooled it.
    yield Measured(base=base, records=records, settings={"fooled": "at any step"})


def by_corruption(settings: Scale, base: str, work: Workspace) -> dict[str, list[Records]]:
    """Records under every common corruption, without and with the reversal."""
    table = attacked_images(settings, work)
    few = table.sample(min(settings.corrupted, len(table)), Streams(0).named("corrupted images"))
    return {
        defense: work.corrupted(
            f"{path_of(base)}/{_key(defense)}", _system(settings, base, work, defense, "linf"), few, [settings.severity]
        )
        for defense in ("none", REVERSE)
    }


def corruption_rows(settings: Scale, base: str, found: Mapping[str, Sequence[Records]]) -> list[dict[str, Any]]:
    """The means over corruptions as rows: accuracy with a bootstrap interval, mean loss."""
    rows = []
    for defense, records in found.items():
        mean, low, high = mean_corruption_accuracy(records)
        row = (
            records[0]
            .row(base, seed=0, settings={"corruptions": f"mean of {len(records)}, severity {settings.severity}"})
            .to_json()
        )
        loss = sum(sum(one.losses) / one.count for one in records) / len(records)
        row |= {"accuracy": round(mean, 6), "low": round(low, 6), "high": round(high, 6), "loss": round(loss, 6)}
        rows.append(row | {"defense": defense})
    return rows


def audited(settings: Scale, base: str, work: Workspace) -> dict[str, Any]:
    """The audit of the reversal on the Linf set, as JSON."""
    return work.audited(
        path_of(base),
        lambda: reversal(settings, base, work),
        attacked_images(settings, work),
        lambda: crafted(settings, base, "linf", SET_STEPS, work),
    )


def gate_rates(settings: Scale, base: str, work: Workspace) -> dict[str, Any]:
    """How often a gate is triggered by clean test images, when its threshold is set on others: over many resamples.

    ``mean`` and ``kept`` are the mean rate, and the share of resamples whose rate is at most the stated one;
    ``deployed`` is the rate of the gate that the ladder attacks.
    """

    def rates_of() -> dict[str, Any]:
        gate = reversal(settings, base, work, gate=True)
        table = work.table(settings.data, "test")
        with work.bar("clean images at the gate") as advance, torch.no_grad():
            parts = []
            for rows in torch.arange(len(table)).split(_CHUNK):
                parts.append(gate.losses(table.batch(rows, work.device).images).cpu())  # type: ignore[operator]
                advance("", int(rows[-1]) + 1, len(table))
        losses = torch.cat(parts)
        draw, rates = np.random.default_rng(0), []
        count = max(_FEWEST, len(losses) // 20)
        for _ in range(RESAMPLES):
            order = torch.from_numpy(draw.permutation(len(losses)))
            threshold = calibrate_threshold(losses[order[:count]], RATE)
            rates.append(float((losses[order[count:]] > threshold).double().mean()))
        return {
            "rate": RATE,
            "calibrated_on": count,
            "judged_on": len(losses) - count,
            "resamples": RESAMPLES,
            "mean": round(sum(rates) / RESAMPLES, 6),
            "kept": round(sum(rate <= RATE for rate in rates) / RESAMPLES, 6),
            "deployed": round(float((losses > gate.threshold).double().mean()), 6),  # type: ignore[operator]
        }

    return work.found(f"audits/{path_of(base)}-gate", rates_of)


def climbed(settings: Scale, base: str, work: Workspace, gate: bool) -> dict[str, Any]:
    """The adaptive ladder on the reversal, gated or not, as JSON."""
    return work.climbed(
        f"{path_of(base)}-{'gated' if gate else 'plain'}",
        f"ladder on {base}{', gated' if gate else ''}",
        lambda: reversal(settings, base, work, gate=gate),
        attacked_images(settings, work),
        attack=settings.yardstick,
        rungs="abcdefg" if gate else "abcdef",
        name=base,
        defended=GATED if gate else REVERSE,
        settings=LadderSettings(
            threat=settings.threats["linf"],
            images=min(settings.laddered, settings.attacked),
            precision=settings.precision,
            **settings.ladder,
        ),
    )


def _system(settings: Scale, base: str, work: Workspace, defense: str, norm: str, **other: Any) -> nn.Module:
    if defense == "none":
        return trained(settings, base, work).network
    return reversal(settings, base, work, norm, **other)


def _key(defense: str) -> str:
    return "bare" if defense == "none" else "reversed"
