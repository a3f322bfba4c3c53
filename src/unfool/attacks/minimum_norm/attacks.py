"""FMN, DDN and sigma-zero as attacks: inside a threat model, and as distances of the nearest examples."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from typing import Literal

from pydantic import Field

from unfool.attacks.base import ATTACKS, Attack, Settings
from unfool.attacks.custom import CustomAttack
from unfool.attacks.ensemble import LearnsFrom, Part
from unfool.attacks.minimum_norm.ddn import DecoupledNorm
from unfool.attacks.minimum_norm.fmn import FastMinimumNorm
from unfool.attacks.minimum_norm.hop_skip_jump import HopSkipJumpSearch
from unfool.attacks.minimum_norm.search import MinimumNormSearch, NearestExamples
from unfool.attacks.minimum_norm.sigma_zero import SigmaZeroSearch
from unfool.attacks.minimum_norm.targeted import TargetedSearch
from unfool.core.config import configured
from unfool.core.geometry import GEOMETRIES
from unfool.core.threat import ThreatModel

CLIMBED = {"margin": ("margin",), "ce": ("ce",), "both": ("margin", "ce")}
"""The losses of a setting, in the order in which they are climbed."""

STEP_SIZES = {"linf": 10.0, "l2": 1.0, "l1": 1.0, "l0": 1.0}
"""First step of FMN by norm."""


@configured
class MinimumNormAttack(Attack):
    """An attack whose real result is the distance of the nearest adversarial example; the base class of these.

    Inside a threat model it succeeds where that distance is at most eps. Most search on the model itself, whatever the
    precision of the evaluation: a faster copy would misplace the boundary. `unfool.minimum_norms` gives the distances.

    Example:
        >>> import torch
        >>> from unfool import L2, attacks
        >>> isinstance(attacks.DDN(L2(0.5)), attacks.MinimumNormAttack)
        True
    """

    uses_proxy = False

    @property
    def loss(self) -> str:
        """The loss that is reported, one of `LOSSES`."""
        return "margin"

    @property
    @abstractmethod
    def search(self) -> MinimumNormSearch:
        """The search, which knows no eps."""

    @property
    def sees(self) -> LearnsFrom:
        """What the search learns from the model."""
        return "gradient"

    @property
    def parts(self) -> tuple[Part, ...]:
        return (Part(name=self.name, engine=self.search, loss=self.loss, learns_from=self.sees),)

    def unbounded(self, shape: tuple[int, ...]) -> CustomAttack:
        """The same search without a radius on images (C, H, W): it returns the nearest example, however far it is."""
        everything = whole_box(self.threat.norm_name, shape)
        engine = NearestExamples(search=dataclasses.replace(self, threat=everything).search)
        part = Part(name=self.name, engine=engine, loss=self.loss, learns_from=self.sees)
        return CustomAttack(
            everything, label=self.name, components=(part,), details=self.settings, eot_draws=self.eot_draws
        )


def whole_box(norm_name: str, shape: tuple[int, ...]) -> ThreatModel:
    """The threat model of a norm in which an image (C, H, W) may become any other."""
    size = math.prod(shape)
    eps = {"linf": 1.0, "l2": math.sqrt(size), "l1": float(size), "l0": float(math.prod(shape[1:]))}
    return ThreatModel(norm_name, eps[norm_name])


@ATTACKS.add("fmn")
@configured
class FMN(MinimumNormAttack):
    """Fast minimum-norm attack: a ball that shrinks while the point inside it is adversarial, and else grows.

    Pintor et al., "Fast minimum-norm adversarial attacks through adaptive norm constraints", NeurIPS 2021, algorithm 1,
    in linf, l2, l1 and l0, on the margin of the logits (equation 5).

    Departures from the published code: the projections are exact in ball and box (there onto the ball, then the box);
    in l0 all channels of a pixel count as one; restarts start at random points.

    Args:
        steps: Points of each path to the boundary; each costs a forward and a backward pass.
        restarts: Paths; those after the first start at a random point, half as far as the nearest example so far.
        step_size: Euclidean length of the first step; it falls to a hundredth along a cosine. Default: 10 in linf,
            else 1.
        gamma: By which share the radius changes at first; it falls to 0.001.
        losses: The loss that is climbed, ``"margin"`` or ``"ce"``, the cross-entropy; or ``"both"``, each path on each.
            For as many passes, two paths of half the steps find nearer examples than one where minima are many (l1).

    Example:
        >>> import torch
        >>> from unfool import Linf, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> attacks.FMN(Linf(0.06), steps=50)(model, images, torch.tensor([0])).fooled
        tensor([True])
        >>> attacks.FMN(Linf(0.04), steps=50)(model, images, torch.tensor([0])).fooled
        tensor([False])
    """

    steps: int = Field(default=100, ge=1)
    restarts: int = Field(default=1, ge=1)
    step_size: float | None = Field(default=None, gt=0, allow_inf_nan=False)
    gamma: float = Field(default=0.05, gt=0, lt=1)
    losses: Literal["margin", "ce", "both"] = "margin"

    norms = tuple(GEOMETRIES)

    @property
    def own_settings(self) -> Settings:
        return {**super().own_settings, "step_size": self.search.step_size}

    @property
    def search(self) -> FastMinimumNorm:
        return FastMinimumNorm(
            threat=self.threat,
            steps=self.steps,
            restarts=self.restarts,
            step_size=STEP_SIZES[self.threat.norm_name] if self.step_size is None else self.step_size,
            gamma=self.gamma,
            losses=CLIMBED[self.losses],
        )


@ATTACKS.add("fmn-t")
@configured
class TargetedFMN(MinimumNormAttack):
    """Targeted FMN: short paths towards several classes, of which the nearest go on; the nearest examples known here.

    The balls are those of `FMN`. The classes are those with the nearest linearised boundaries (Melamed et al., "MALT
    powers up adversarial attacks", NeurIPS 2024). A first round takes half of the steps; in a second one, of 30 %, the
    two nearest paths of each image go on, and at last the nearest one climbs the margin, whichever class it leads to:
    successive halving (Jamieson & Talwalkar, AISTATS 2016). Steps are a multiple of the radius, so that one setting
    suits near and far boundaries. Where there is a faster copy of the model, it drives all but that last round.

    Args:
        steps: Points of all paths together; each costs a forward and a backward pass.
        targets: Classes, at most; fewer where each would get less than 16 steps.

    Example:
        >>> import torch
        >>> from unfool import L1, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> attack = attacks.TargetedFMN(L1(0.12), steps=50)
        >>> attack
        TargetedFMN(l1:0.12, steps=50)
        >>> attack(model, images, torch.tensor([0])).fooled
        tensor([True])
    """

    steps: int = Field(default=200, ge=1)
    targets: int = Field(default=9, ge=1)

    uses_proxy = True

    @property
    def search(self) -> TargetedSearch:
        return TargetedSearch(threat=self.threat, steps=self.steps, targets=self.targets)


@ATTACKS.add("ddn")
@configured
class DDN(MinimumNormAttack):
    """Decoupled direction and norm: the direction follows the gradient, the length rises and falls by itself.

    Rony et al., "Decoupling direction and norm for efficient gradient-based L2 adversarial attacks and defenses",
    CVPR 2019, algorithm 1, on the cross-entropy. In l2 alone.

    Departure from the paper: pixels are not rounded to 256 levels.

    Args:
        steps: Points of each path to the boundary; each costs a forward and a backward pass.
        restarts: Paths; those after the first start at a random point, half as far as the nearest example so far.
        radius: First length of a change.
        gamma: By which share the length changes with each step.
        losses: The loss that is climbed, ``"ce"``, the cross-entropy, or ``"margin"``; ``"both"``: each path on each.

    Example:
        >>> import torch
        >>> from unfool import L2, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> attacks.DDN(L2(0.1), steps=50)(model, images, torch.tensor([0])).fooled
        tensor([True])
    """

    steps: int = Field(default=100, ge=1)
    restarts: int = Field(default=1, ge=1)
    radius: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    gamma: float = Field(default=0.05, gt=0, lt=1)
    losses: Literal["margin", "ce", "both"] = "ce"

    norms = ("l2",)

    @property
    def search(self) -> DecoupledNorm:
        return DecoupledNorm(
            threat=self.threat,
            steps=self.steps,
            restarts=self.restarts,
            losses=CLIMBED[self.losses],
            radius=self.radius,
            gamma=self.gamma,
        )


@ATTACKS.add("sigma-zero")
@configured
class SigmaZero(MinimumNormAttack):
    """Sigma-zero: as few changed pixels as fool the model.

    Cinà et al., "Sigma-zero: gradient-based optimization of l0-norm adversarial examples", ICLR 2025, algorithm 1: a
    smooth count of the changed pixels is minimised beside the margin, and changes below a threshold that rises and
    falls by itself are dropped. In l0 alone.

    Departure from the published code: a pixel's channels count, and are dropped, together (there one by one).

    Args:
        steps: Points of each path to the boundary; each costs a forward and a backward pass.
        restarts: Paths; those after the first start at a random point, half as far as the nearest example so far.
        step_size: First step of Adam, which moves each value; it falls to a tenth along a cosine.
        sigma: A change whose square is sigma counts as half a pixel.
        threshold: First size below which a pixel's change is dropped.
        threshold_step: By how much the threshold changes with each step, as a share of the step size.

    Example:
        >>> import torch
        >>> from unfool import L0, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> attacks.SigmaZero(L0(1))(model, images, torch.tensor([0])).distances
        tensor([1.], dtype=torch.float64)
    """

    steps: int = Field(default=100, ge=1)
    restarts: int = Field(default=1, ge=1)
    step_size: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    sigma: float = Field(default=0.001, gt=0, allow_inf_nan=False)
    threshold: float = Field(default=0.3, ge=0, le=1)
    threshold_step: float = Field(default=0.01, ge=0, allow_inf_nan=False)

    norms = ("l0",)

    @property
    def search(self) -> SigmaZeroSearch:
        return SigmaZeroSearch(
            threat=self.threat,
            steps=self.steps,
            restarts=self.restarts,
            step_size=self.step_size,
            sigma=self.sigma,
            threshold=self.threshold,
            threshold_step=self.threshold_step,
        )


@ATTACKS.add("hop-skip-jump")
@configured
class HopSkipJump(MinimumNormAttack):
    """HopSkipJump: the nearest example from the model's classes alone, for a black box that gives no scores.

    Chen, Jordan & Wainwright, "HopSkipJumpAttack: a query-efficient decision-based attack", IEEE S&P 2020, algorithm 2,
    in l2 and linf. It needs no gradient and no score that a defense may mask.

    Departures from the published code: the first point is a plain colour or noise, and where all of these get the
    image's label, an image of another label (``others``; `craft` takes some of the table), the same for an image
    whatever its batch; an image without a first point comes back as it was; every image draws its own directions, and
    is over when its own queries are used up.

    Args:
        steps: Queries for each image, at most.

    Example:
        >>> import torch
        >>> from unfool import L2, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> attack = attacks.HopSkipJump(L2(0.1), steps=500)
        >>> attack.learns_from
        ['decisions']
        >>> attack(model, images, torch.tensor([0])).fooled
        tensor([True])
    """

    steps: int = Field(default=5000, ge=1)

    norms = ("l2", "linf")

    @property
    def sees(self) -> LearnsFrom:
        return "decisions"

    @property
    def search(self) -> HopSkipJumpSearch:
        return HopSkipJumpSearch(threat=self.threat, steps=self.steps)
