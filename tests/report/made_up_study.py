"""A made-up study for the tests of the report: its figures are invented and belong to no model."""

import hashlib
from typing import Any

from unfool.evaluation.results.study_result import StudyResult

ATTACKS = ("fgsm", "pgd-7", "pgd-20", "pgd-50")
MODELS = {
    "cifar10": {
        "single-task": (0.8246, (0.0289, 0.0004, 0.0, 0.0)),
        "simclr multitask": (0.7316, (0.5861, 0.6062, 0.5995, 0.5989)),
    },
    "cifar100": {
        "single-task": (0.4899, (0.0277, 0.0037, 0.0018, 0.0013)),
        "supervised multitask": (0.5047, (0.2320, 0.2564, 0.2359, 0.2349)),
        "simclr multitask": (0.4437, (0.3249, 0.4262, 0.3392, 0.3353)),
    },
}


def wilson(share: float, count: int) -> tuple[float, float]:
    square = 1.959964**2
    middle = (share + square / (2 * count)) / (1 + square / count)
    half = 1.959964 * (share * (1 - share) / count + square / (4 * count**2)) ** 0.5 / (1 + square / count)
    return max(0.0, min(share, middle - half)), min(1.0, max(share, middle + half))


def make_row(model: str, data: str, attack: str, share: float, **changes: Any) -> dict[str, Any]:
    seed = changes.get("seed", 0)
    protocol = changes.pop("protocol", "clean" if attack == "none" else "white-box")
    source_model = changes.pop("source_model", "single-task")
    count = 10000 if attack == "none" else 500
    low, high = wilson(share, count)

    def digest(name: str) -> str:
        return hashlib.sha256(f"{name} {data} {seed}".encode()).hexdigest()

    judged = None if protocol == "clean" else digest(model)
    row = {
        "model": model,
        "seed": seed,
        "data": data,
        "split": "test",
        "attack": attack,
        "threat": None if attack == "none" else "linf:8/255",
        "protocol": protocol,
        "defense": "none",
        "settings": {"stem": "imagenet"},
        "accuracy": share,
        "low": low,
        "high": high,
        "loss": 1.234,
        "n": count,
        "crafted_on": digest(source_model) if protocol == "transfer" else judged,
        "judged_on": judged,
        "source_value": None,
        "cost": {"cpu_seconds": 251.4 if attack == "none" else 12.5, "model_images": 7_250_000},
    }
    return {**row, **changes}


def make_rows(seed: int = 0, shift: float = 0.0) -> list[dict[str, Any]]:
    rows = []
    for data, models in MODELS.items():
        for model, (natural, attacked) in models.items():
            rows.append(make_row(model, data, "none", natural - 0.011 + shift, seed=seed, source_value=natural))
            for attack, theirs in zip(ATTACKS, attacked, strict=True):
                alone = model == "single-task"
                ours = round(theirs * 0.8 + shift, 3) if alone else round(0.031 / (1 + len(attack)) + shift, 3)
                cited = theirs if alone else None
                rows.append(make_row(model, data, attack, ours, seed=seed, source_value=cited))
                if not alone:
                    share = round(theirs * 0.93 + shift, 3)
                    rows.append(
                        make_row(model, data, attack, share, seed=seed, protocol="transfer", source_value=theirs)
                    )
    return rows


def make_study() -> dict[str, Any]:
    return {
        "schema_version": 1,
        "study": "contrastive-multitask",
        "scale": "small",
        "data": {
            "cifar10": {"train": 49000, "test": 10000, "classes": 10},
            "cifar100": {"train": 49000, "test": 10000, "classes": 100},
        },
        "seconds": 2473.2,
        "versions": {"unfool": "0.1.0", "python": "3.12.3", "torch": "2.10.0", "platform": "Linux x86_64, 2 cores"},
        "rows": make_rows(),
        "claims": [
            {
                "text": "Contrast adds about 60 points of robust accuracy on CIFAR-10.",
                "verdict": "fails",
                "evidence": "Under white-box PGD-50 the two networks keep 0.4 % and 0.0 %; only the transfer column "
                "shows 55.7 %. Test data: these figures are invented.",
            },
            {
                "text": "In the source's transfer protocol, the contrastive network keeps more than half its accuracy.",
                "verdict": "holds",
                "evidence": ["Transfer PGD-50: 55.7 % [51.3, 60.0] against 0.0 % [0.0, 0.8] for its source model."],
            },
            {
                "text": "Contrast regularises far better than a supervised auxiliary.",
                "verdict": "undecided",
                "evidence": "One training seed: the intervals of these two networks overlap under white-box attack.",
            },
        ],
    }


def result(values: dict[str, Any]) -> StudyResult:
    """The contents of a results file as results."""
    return StudyResult.from_json({"schema_version": 1, **values})
