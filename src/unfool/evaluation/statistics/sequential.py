# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnnecessaryIsInstance=false
"""Stop attacking as soon as a claim about robust accuracy is settled, at an error rate that survives looking often.

Images come in a random order, so each is correct with the same unknown probability p, the accuracy that the claim is
about. A gambler who believes p > c stakes a share u of the money on the next image being correct, at odds that are
fair for p = c: 1 becomes 1 + u(1 - c)/c, or 1 - u. Spread evenly over all u in (0,1), and with S images correct and F
wrong so far, 1 has become

    M(c) = ∫ (1 + u(1 - c)/c)^S (1 - u)^F du = B(S+1, F+1) · P(Beta(S+1, F+1) > c) / (c^S (1 - c)^(F+1)),

the mixture of the likelihood ratios of q = c + u(1 - c) to c (Robbins 1970, section 2; as bets: Waudby-Smith & Ramdas
2024). Where p ≤ c it is a non-negative supermartingale that starts at 1, and ever reaches 2/α with probability at most
α/2 (Ville 1939). The mirrored bet, on wrong images, speaks against p ≥ c. M falls in c, so the c that neither bet has
refuted form an interval, and all of these intervals together hold p with probability at least 1 - α: it may be looked
at after any image, and one may stop when one likes. The claim is settled once the interval leaves its bound behind.

The usual interval (Wilson's) holds for a number of images fixed beforehand. After stopping where it looked good it is
too narrow, so results of a sequential evaluation show this interval instead.
"""

from __future__ import annotations

import bisect
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfool.attacks import Attack, Lean, ProxySettings
from unfool.core.errors import SpecError
from unfool.core.progress import Progress, silent
from unfool.core.spec import parse_number
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.as_table import TableLike, as_table
from unfool.data.table import Table
from unfool.evaluation.classify import classify
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import spans
from unfool.evaluation.crafting.chosen_attacks import AttackLike, choose_attack
from unfool.evaluation.crafting.craft import craft
from unfool.evaluation.intervals import check_confidence
from unfool.evaluation.records import Records
from unfool.evaluation.results.claims import FAILS, HOLDS, OUT_OF_REACH, UNDECIDED
from unfool.evaluation.results.rows import Row
from unfool.evaluation.statistics.comparison import concatenate

LOOK = 32
"""Images between two looks: few, since those beyond the first that would have settled the claim are wasted."""

_CLAIM = re.compile(r"\s*(>=|<=|>|<)(.+)")


@dataclass(frozen=True)
class AccuracyClaim:
    """A claim about a robust accuracy, such as that it is at least 45 %.

    Args:
        relation: ``>=``, ``>``, ``<=`` or ``<``. Both of ``>=`` and ``>`` get the same verdicts.
        bound: A share between 0 and 1.

    Raises:
        SpecError: Another relation, or a bound outside (0,1).

    Example:
        >>> from unfool import AccuracyClaim
        >>> AccuracyClaim.parse(">=0.45") == AccuracyClaim(">=", 0.45)
        True
    """

    relation: str
    bound: float

    def __post_init__(self) -> None:
        if self.relation not in (">=", ">", "<=", "<"):
            raise SpecError(f"relation {self.relation!r} of a claim is unknown; give one of >=, >, <=, <")
        if not 0 < self.bound < 1:
            raise SpecError(
                f"bound {self.bound:g} of a claim is not allowed; give a share between 0 and 1, such as 0.45 for 45 %"
            )

    @classmethod
    def parse(cls, text: str) -> AccuracyClaim:
        """Read ``>=0.45``, ``<1/3`` and the like; raises SpecError."""
        match = _CLAIM.fullmatch(text) if isinstance(text, str) else None
        if match is None:
            raise SpecError(f"claim {text!r} is not understood; write a relation and a share, such as >=0.45 or <0.1")
        return cls(match[1], parse_number(match[2], f"bound of claim {text!r},"))

    def __str__(self) -> str:
        return f"{self.relation}{self.bound:g}"


def log_evidence(correct: Any, wrong: Any, bound: Any) -> np.ndarray:
    """log M of the module's docstring: the evidence for an accuracy above ``bound``; arrays are broadcast."""
    from scipy.special import betaincc, betaln  # here, because it takes long to import

    with np.errstate(divide="ignore"):
        # Where the tail underflows the images speak against it so strongly that -inf is as good.
        tail = np.log(betaincc(np.add(correct, 1.0), np.add(wrong, 1.0), bound))
    fair = np.multiply(correct, np.log(bound)) + np.multiply(np.add(wrong, 1.0), np.log1p(np.negative(bound)))
    return betaln(np.add(correct, 1.0), np.add(wrong, 1.0)) + tail - fair


def anytime_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of an accuracy after ``correct`` of ``total`` images, valid whenever the evaluation stops.

    One interval of the confidence sequence above; (0, 1) before the first image. It holds the observed share, and the
    whole exact interval (Clopper & Pearson 1934) for a number of images fixed beforehand. Raises SpecError for what is
    no share or no confidence.
    """
    if not 0 <= correct <= total:
        raise SpecError(f"{correct} correct of {total} images is no share; give 0 ≤ correct ≤ total")
    check_confidence(confidence)
    from scipy.optimize import brentq  # here, because it takes long to import

    limit = math.log(2 / (1 - confidence))

    def least(right: int, wrong: int) -> float:
        if not right:
            return 0.0
        # At the observed share M is at most 1, and towards 0 it grows without end.
        observed = right / (right + wrong)
        # Small shares want a small error of their own, so the root is that of the logarithm.
        excess: Callable[[float], Any] = lambda log: log_evidence(right, wrong, math.exp(log)) - limit  # noqa: E731
        root: Any = brentq(excess, math.log(1e-300), math.log(observed * (1 - 1e-9)))
        return math.exp(root)

    return least(correct, total - correct), 1.0 - least(total - correct, correct)


class SequentialTest:
    """Tests a claim on outcomes in random order; its error rate is at most ``alpha`` however often it is updated.

    ``verdict`` is None until the claim is settled, and final from then on: later outcomes are not counted, neither in
    ``correct`` nor in ``count``. Raises SpecError for a claim or an alpha that is not allowed.
    """

    def __init__(self, claim: AccuracyClaim | str, alpha: float = 0.05):
        if not 0 < alpha < 1:
            raise SpecError(f"error rate {alpha} is not allowed; give a number between 0 and 1, such as 0.05")
        self.claim = AccuracyClaim.parse(claim) if isinstance(claim, str) else claim
        self.alpha = alpha
        self.correct = 0
        self.count = 0
        self.verdict: str | None = None

    def update(self, outcomes: Sequence[bool] | np.ndarray) -> str | None:
        """Count outcomes (correct or not), then test the claim; the verdict, None while it is open."""
        if self.verdict is not None:
            return self.verdict
        self.correct += int(np.count_nonzero(np.asarray(outcomes, dtype=bool)))
        self.count += len(outcomes)
        wrong, bound, limit = self.count - self.correct, self.claim.bound, math.log(2 / self.alpha)
        above = log_evidence(self.correct, wrong, bound) >= limit
        below = log_evidence(wrong, self.correct, 1 - bound) >= limit
        if above or below:
            self.verdict = HOLDS if above == self.claim.relation.startswith(">") else FAILS
        return self.verdict

    def out_of_reach(self, right: Sequence[bool] | np.ndarray, look: int) -> str:
        """Why the claim cannot hold on images in this order, looked at ``look`` at a time; empty if it can.

        ``right`` says which of them are classified correctly without an attack: at best all of those stand.
        """
        upwards, total = self.claim.relation.startswith(">"), len(right)
        looks = np.minimum(np.arange(look, total + look, look), total)
        standing = np.cumsum(np.asarray(right, dtype=bool))[looks - 1] if upwards else looks * 0
        bound = self.claim.bound if upwards else 1 - self.claim.bound
        limit = math.log(2 / self.alpha)
        if (log_evidence(standing if upwards else looks, looks - standing if upwards else 0, bound) >= limit).any():
            return ""
        if not (log_evidence(looks, 0, bound) >= limit).any():
            return f"no outcome on {total} images could show it; give at least {_fewest(bound, limit)}"
        return (
            f"only {int(standing[-1])} of {total} images are right without an attack, and even if all of them stood it "
            "would not be shown; give more images, or a lower bound"
        )

    def interval(self) -> tuple[float, float]:
        """The interval of the accuracy, with confidence 1 - alpha whenever the evaluation stops."""
        return anytime_interval(self.correct, self.count, 1 - self.alpha)


def _fewest(bound: float, limit: float) -> int:
    """How many images, every one of them correct, it takes to show an accuracy above ``bound``."""
    most = 1
    while log_evidence(most, 0, bound) < limit:
        most *= 2
    return bisect.bisect_left(range(most), True, key=lambda count: bool(log_evidence(count, 0, bound) >= limit))


def order(ids: Tensor, seed: int) -> Tensor:
    """Row numbers (N,) of a table with these ids in random order, a pure function of ids and seed.

    Which of two images comes first depends on their ids alone, so it is the same in every table that holds both.
    """
    return torch.argsort(Streams(seed).named("sequential").bits(ids), stable=True)


@dataclass(frozen=True, kw_only=True)
class SequentialResult:
    """How a sequential evaluation ended: ``verdict`` holds, fails, undecided (the images ran out) or out of reach.

    Out of reach is a claim that was not settled and could not have held whatever the attack did; ``reason`` says why.
    ``records`` are those of the images attacked, in the order taken, out of ``available``. ``low`` and ``high`` are
    the confidence sequence where it stopped, at confidence 1 - ``alpha``; use them and not the records' own interval.
    """

    claim: AccuracyClaim
    alpha: float
    verdict: str
    records: Records
    low: float
    high: float
    available: int
    reason: str = ""

    def words(self) -> str:
        """The result in one sentence."""
        return (
            f"robust accuracy {self.claim} {'' if self.verdict in (HOLDS, FAILS) else 'is '}{self.verdict}: "
            f"{100 * self.records.accuracy:.1f} % after {self.records.count} of {self.available} images, "
            f"[{100 * self.low:.1f}, {100 * self.high:.1f}] at {100 * (1 - self.alpha):g} % confidence at any stop"
            f"{f'; {self.reason}' if self.reason else ''}"
        )

    def row(self, model: str, *, settings: Mapping[str, Any] | None = None) -> Row:
        """The records' row, its interval replaced by the one that is valid after stopping."""
        stopped = {"claim": str(self.claim), "error rate": self.alpha, "verdict": self.verdict, **(settings or {})}
        row = self.records.row(model, settings=stopped)
        return replace(row, low=round(self.low, 6), high=round(self.high, 6))


def check_claimed(attack: Attack) -> None:
    """Refuse an attack whose verdicts are on all images together: a claim is settled on a few at a time."""
    if isinstance(attack, Lean):
        raise SpecError(
            f"attack {attack.name} looks at all images before it says whether its verdicts stand, and a claim is "
            "settled on a few at a time; give autoattack"
        )


def evaluate_claim(
    model: nn.Module,
    data: TableLike,
    attack: AttackLike,
    claim: AccuracyClaim | str,
    *,
    threat: ThreatModel | str | None = None,
    alpha: float = 0.05,
    column: str | None = None,
    seed: int = 0,
    proxy: ProxySettings | None = None,
    batch_size: int = LOOK,
    right: Sequence[bool] | None = None,
    progress: Progress = silent,
) -> SequentialResult:
    """Attack a table's images in random order, ``batch_size`` at a time, until a claim is settled or none is left.

    ``right`` says of each image whether it is classified correctly without an attack, where that is known.
    Each image is attacked as in the full evaluation of the same seed. The claim is about the accuracy on images like
    the table's, of which they are a sample. The other arguments and errors are those of `craft` and `classify`; a
    claim, an error rate or a batch size that is not allowed raises SpecError.
    """
    test = SequentialTest(claim, alpha)
    table, chosen = as_table(data), choose_attack(attack, threat)
    check_claimed(chosen.attack)
    rows = order(table.ids, seed)
    parts: list[Records] = []
    for records in records_in_order(
        model, table, chosen.attack, column=column, seed=seed, proxy=proxy, batch_size=batch_size
    ):
        parts.append(records)
        verdict = test.update(records.correct)
        progress(f"{chosen.title}: {test.claim}?", test.count, len(table))
        if verdict is not None:
            break
    low, high = test.interval()
    standing = np.ones(len(table), dtype=bool) if right is None else np.asarray(right)[rows.numpy(force=True)]
    reason = "" if test.verdict else test.out_of_reach(standing, batch_size)
    return SequentialResult(
        claim=test.claim,
        alpha=alpha,
        verdict=test.verdict or (OUT_OF_REACH if reason else UNDECIDED),
        reason=reason,
        records=concatenate(parts),
        low=low,
        high=high,
        available=len(table),
    )


def records_in_order(
    model: nn.Module,
    table: Table,
    attack: AttackLike | None,
    *,
    threat: ThreatModel | str | None = None,
    column: str | None = None,
    seed: int = 0,
    proxy: ProxySettings | None = None,
    batch_size: int = LOOK,
) -> Iterator[Records]:
    """Outcomes on a table's images in random order, ``batch_size`` at a time; without an attack on clean images."""
    rows = order(table.ids, seed)
    for span in spans(len(table), batch_size):
        images: Table | AdversarialSet = table.subset(rows[span])
        if attack is not None:
            images = craft(
                model, images, attack, threat=threat, column=column, seed=seed, proxy=proxy, batch_size=batch_size
            )
        yield classify(model, images, column=None if attack is not None else column, batch_size=batch_size)
