"""Threat models: how far an image may be moved, and in which norm; written ``linf:8/255``, ``l2:0.5``, ``l1:12``."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from unfool.core.errors import ImagesError, SpecError
from unfool.core.geometry import GEOMETRIES
from unfool.core.spec import parse_number, unknown
from unfool.core.streams import Streams

_FORM = "write norm:eps such as linf:8/255, l2:0.5 or l1:12"


@dataclass(frozen=True)
class ThreatModel:
    """The images within ``eps`` (pixel units) of their origins in one norm, and inside the box [0,1].

    ``norm_name`` is linf, l2 or l1 (``norm`` measures). ``text`` keeps how it was written, 8/255 and not 0.0314, and
    takes no part in comparisons. Images and origins are (B, C, H, W), the origins inside the box; results have the
    origins' dtype, and no gradient flows through them. Raises SpecError for a norm or an eps that is not allowed,
    ImagesError for images that do not match their origins.
    """

    norm_name: str
    eps: float
    text: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.norm_name not in GEOMETRIES:
            raise unknown("norm", str(self.norm_name), GEOMETRIES)
        if not (math.isfinite(self.eps) and self.eps >= 0):
            raise SpecError(f"eps {self.eps!r} of a threat model is not allowed; give a finite number of 0 or more")
        if self.norm_name == "linf" and self.eps > 1:
            meant = f"linf:{self.eps:g}/255 was meant" if self.eps <= 255 else "an eps such as 8/255 was meant"
            raise SpecError(
                f"linf eps {self.eps:g} is not allowed; pixels lie in [0,1], so give eps from 0 to 1; perhaps {meant}"
            )
        if not self.text:
            object.__setattr__(self, "text", f"{self.norm_name}:{float(self.eps)!r}")
        elif _read(self.text) != (self.norm_name, self.eps):
            raise SpecError(f"text {self.text!r} is not {self.norm_name}:{self.eps!r}; use ThreatModel.parse")

    @classmethod
    def parse(cls, text: str) -> ThreatModel:
        """Read ``norm:eps``, eps a decimal or a fraction; raises SpecError."""
        norm_name, eps = _read(text)
        return cls(norm_name, eps, text.strip())

    def __str__(self) -> str:
        return self.text

    @torch.no_grad()
    def project(self, images: Tensor, origins: Tensor) -> Tensor:
        """The images brought into ball ∩ box: the nearest such (linf, l1), or ball then box (l2).

        Idempotent, and at most eps + 1e-6 from the origins in every dtype; eps = 0 gives the origins themselves.
        """
        self._check(images, origins)
        if self.eps == 0:
            return origins.clone()
        return GEOMETRIES[self.norm_name].project(images, origins, self.eps)

    @torch.no_grad()
    def steepest(
        self,
        gradient: Tensor,
        images: Tensor,
        origins: Tensor,
        step: float | Tensor,
        share: Tensor | None = None,
    ) -> Tensor:
        """The displacement of length ``step`` (a float, or one per image (B,)) that climbs most; 0 for gradient 0.

        linf: the sign; l2: the unit gradient; l1: evenly over the steepest values that the box lets move, of which
        ``share`` (B,) says how many (default 1 %).
        """
        self._check(gradient, origins)
        self._check(images, origins)
        return GEOMETRIES[self.norm_name].steepest(gradient, images, step, share)

    @torch.no_grad()
    def sample(self, origins: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """Images drawn uniformly in the ball around their origins, one draw per image id, then projected."""
        if self.eps == 0:
            return origins.clone()
        moves = GEOMETRIES[self.norm_name].sample(ids, tuple(origins.shape[1:]), streams)
        return self.project(origins + moves.mul_(self.eps), origins)

    @torch.no_grad()
    def norm(self, delta: Tensor) -> Tensor:
        """The lengths (B,), float64, of displacements (B, ...) in this norm."""
        return GEOMETRIES[self.norm_name].norm(delta)

    @staticmethod
    def _check(images: Tensor, origins: Tensor) -> None:
        if images.shape != origins.shape:
            raise ImagesError(
                f"images or gradients have shape {tuple(images.shape)}, their origins {tuple(origins.shape)}; "
                "give one origin per image, of the same shape"
            )


def _read(text: str) -> tuple[str, float]:
    """Norm and eps of ``norm:eps``."""
    if not isinstance(text, str):
        raise SpecError(f"threat model {text!r} is not text; {_FORM}")
    norm_name, colon, number = text.strip().partition(":")
    norm_name = norm_name.strip()
    if not colon:
        raise SpecError(f"threat model {text!r} has no colon; {_FORM}")
    if norm_name not in GEOMETRIES:
        raise unknown("norm", norm_name, GEOMETRIES)
    if number.strip().startswith("-"):
        raise SpecError(f"threat model {text!r} has a negative eps; {_FORM}")
    return norm_name, parse_number(number, f"eps of threat model {text!r},")
