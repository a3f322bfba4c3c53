"""The claims of system A, each judged twice: as the source measured it, and white-box."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from unfool.evaluation import Records
from unfool.studies.claims import Gain, claim, difference, gain

if TYPE_CHECKING:
    from unfool.studies.contrastive_multitask import Judged

_CLAIMS = (
    # data, model, claimed gain in robust accuracy, the source's sentence
    ("cifar10", "simclr multitask", 0.60, "On CIFAR-10 contrast adds about 60 points of robust accuracy"),
    (
        "cifar100",
        "supervised multitask",
        0.25,
        "On CIFAR-100 a supervised auxiliary adds about 25 points of robust accuracy",
    ),
    ("cifar100", "simclr multitask", 0.42, "On CIFAR-100 contrast adds about 42 points of robust accuracy"),
)
_PROTOCOLS = (("transfer", "pgd-7"), ("white-box", "pgd-50"))
"""The source's own figures are under PGD-7, by transfer; white-box is judged by the strongest attack that was run."""


def judge_claims(judged: Sequence[Judged]) -> list[dict[str, Any]]:
    """Claims with verdicts, from the records of the variant that stands beside the source's figures."""
    main = [item for item in judged if item.trained.comparable]
    claims: list[dict[str, Any]] = []
    for data in dict.fromkeys(item.trained.data for item in main):
        known = [entry for entry in _CLAIMS if entry[0] == data]
        # A set that the source did not use (the digits of the demo) borrows the claims of its CIFAR-10 and CIFAR-100.
        entries = known or [(data, model, claimed, text.split(" ", 2)[2]) for _, model, claimed, text in _CLAIMS[:2]]
        for protocol, attack in _PROTOCOLS:
            for _, model, claimed, text in entries:
                found = _gain(main, data, model, attack, protocol)
                if found is not None:
                    words = text if known else f"On {data} {text}"
                    claims.append(
                        claim(f"{words} ({_way(protocol)})", found, claimed, _detail(model, attack, protocol))
                    )
            claims.extend(_compared(main, data, attack, protocol))
    return claims


def _compared(main: Sequence[Judged], data: str, attack: str, protocol: str) -> list[dict[str, Any]]:
    contrast = _gain(main, data, "simclr multitask", attack, protocol)
    supervised = _gain(main, data, "supervised multitask", attack, protocol)
    if contrast is None or supervised is None:
        return []
    text = f"On {data} contrast regularises far better than a supervised auxiliary ({_way(protocol)})"
    detail = f"gain of contrast minus gain of the supervised auxiliary, {attack}, {protocol}"
    return [claim(text, difference(contrast, supervised), 0.17, detail)]


def _way(protocol: str) -> str:
    return "as the source measured it: examples of another network" if protocol == "transfer" else "attacked itself"


def _detail(model: str, attack: str, protocol: str) -> str:
    return f"{model} minus single-task under {attack}, {protocol}"


def _gain(main: Sequence[Judged], data: str, model: str, attack: str, protocol: str) -> Gain | None:
    base = _records(main, data, "single-task", attack, "white-box")
    ours = _records(main, data, model, attack, protocol)
    seeds = sorted(set(base) & set(ours))
    return gain([ours[seed] for seed in seeds], [base[seed] for seed in seeds]) if seeds else None


def _records(main: Sequence[Judged], data: str, model: str, attack: str, protocol: str) -> dict[int, Records]:
    return {
        item.trained.seed: item.records
        for item in main
        if (item.trained.data, item.trained.model) == (data, model)
        and (item.records.attack, item.records.protocol) == (attack, protocol)
    }
