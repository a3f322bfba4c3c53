"""The graphs of system E: accuracy by stage, its source's curves, what a gain costs, and what is left under attack."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unfool.evaluation import Records
from unfool.studies.noisy_rotation_measures import Probed
from unfool.studies.noisy_rotation_scales import NOISE, ROTATION, STAGES, Pretraining, Scale


def charts(settings: Scale, probed: Mapping[Pretraining, Probed]) -> list[dict[str, Any]]:
    """All of them, as a results file carries them."""
    found = [_stages(probed), _costs(probed), *(_curves(probed, stage) for stage in STAGES)]
    return [*found, _attacked(settings, probed)]


def _share(records: Sequence[Records]) -> list[float]:
    """Mean accuracy over the seeds; for several the lowest and the highest, for one its interval."""
    shares = [one.accuracy for one in records]
    low, high = records[0].interval() if len(records) == 1 else (min(shares), max(shares))
    return [round(value, 6) for value in (sum(shares) / len(shares), low, high)]


def _stages(probed: Mapping[Pretraining, Probed]) -> dict[str, Any]:
    series = [
        {
            "name": plan.name,
            "points": [[place, *_share(one.records[stage, "test"])] for place, stage in enumerate(STAGES, 1)],
        }
        for plan, one in probed.items()
    ]
    return {
        "title": "Test accuracy by stage",
        "x": "pooling stage that is probed",
        "y": "accuracy",
        "kind": "line",
        "series": series,
        "caption": "Mean of the probe's seeds; the bands reach from the lowest to the highest.",
    }


def _costs(probed: Mapping[Pretraining, Probed]) -> dict[str, Any]:
    series = [
        {
            "name": f"{plan.name} ({one.best})",
            "points": [[one.model_images / 1e6, *_share(one.records[one.best, "test"])]],
        }
        for plan, one in probed.items()
    ]
    return {
        "title": "Cost and gain",
        "x": "millions of images through the network in pretraining",
        "y": "test accuracy of the best stage",
        "kind": "line",
        "series": series,
        "caption": "Counted exactly: every image that went forward through the network, crafting of the noise "
        "included. Best stages are chosen on held-out images.",
    }


def _curves(probed: Mapping[Pretraining, Probed], stage: str) -> dict[str, Any]:
    series = [
        {
            "name": f"{plan.name}, {split}",
            "points": [[epoch, round(share, 6)] for epoch, share in enumerate(probed[plan].curves[stage][split], 1)],
        }
        for plan in (ROTATION, NOISE)
        for split in ("train", "test")
    ]
    return {
        "title": f"Train and test accuracy of the probe on {stage}",
        "x": "epoch of the probe",
        "y": "accuracy",
        "kind": "line",
        "series": series,
        "caption": "Mean of the probe's seeds: train on an epoch's batches, each judged before its step; test after "
        "each epoch.",
    }


def _attacked(settings: Scale, probed: Mapping[Pretraining, Probed]) -> dict[str, Any]:
    series = [
        {
            "name": threat,
            "points": [
                [f"{plan.name} ({one.best})", *_share([one.attacked[threat]])]
                for plan, one in probed.items()
                if plan.attacked
            ],
        }
        for threat in settings.threats
    ]
    return {
        "title": "Robust accuracy of the best stage",
        "x": "pretraining",
        "y": "accuracy under attack",
        "kind": "bars",
        "series": series,
        "caption": f"{settings.attack} on {settings.attacked} test images, crafted on the very classifier judged; with "
        "95 % intervals.",
    }
