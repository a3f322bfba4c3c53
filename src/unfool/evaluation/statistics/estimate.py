"""A figure with its interval, how it is tested, and the words for it."""

from __future__ import annotations

import math
from dataclasses import dataclass

from unfool.evaluation.statistics.inference import Inference


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """A figure with its 95 % interval, how it is tested, and the words for it in the evidence of a claim.

    ``points``: it is a difference of shares, told in percentage points. ``exact``: it was counted, and has no interval.
    ``detail`` says what it is of, ``pair`` what a single pair of networks is called, ``over`` replaces the words for
    the seeds, ``more`` are further sentences. Without an ``inference`` it is tested as a normal one of that interval.
    ``reach`` is what it can be at all, whatever is done: with a control at 83 %, no gain is above 17 points.
    """

    mean: float
    low: float
    high: float
    seeds: int = 1
    points: bool = True
    exact: bool = False
    pair: str = "between these two networks"
    over: str = ""
    detail: str = ""
    more: str = ""
    inference: Inference | None = None
    reach: tuple[float, float] = (-math.inf, math.inf)

    def p_value(self, value: float) -> float:
        """The two-sided p-value that ``value`` is the true one."""
        if self.inference is not None:
            return self.inference.p_value(value)
        half = self.mean - self.low if value < self.mean else self.high - self.mean
        return math.erfc(1.96 * abs(self.mean - value) / half / math.sqrt(2)) if half > 0 else 1.0

    def amount(self, value: float, sign: str = "") -> str:
        """A value as it is written: 5 points, or a plain number."""
        return f"{100 * value:{sign}.3g} points" if self.points else f"{value:{sign}.3g}"

    @property
    def figure(self) -> str:
        """The figure with its interval."""
        if self.points:
            # An interval has a width, and shows it.
            digits = 1 if self.high - self.low >= 0.002 else 2
            mean, low, high = (f"{100 * value:+.{digits}f}" for value in (self.mean, self.low, self.high))
            return f"{mean} points [{low}, {high}]"
        return f"{self.mean:.3f}" + ("" if self.exact else f" [{self.low:.3f}, {self.high:.3f}]")

    @property
    def words(self) -> str:
        """The figure with its interval, and over how many seeds."""
        seeds = f"over {self.seeds} training seeds" if self.seeds > 1 else f"{self.pair} (one training seed)"
        return f"{self.figure} {self.over or (seeds if self.points else '')}".rstrip()

    @property
    def evidence(self) -> str:
        """All that is said of it."""
        sentence = f"{self.detail}: {self.words}" if self.detail else self.words
        return f"{sentence}. {self.more}".rstrip()


def counted(value: float, detail: str, more: str = "") -> Estimate:
    """A number that was counted."""
    return Estimate(mean=value, low=value, high=value, points=False, exact=True, detail=detail, more=more)
