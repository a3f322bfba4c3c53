# pyright: reportUnnecessaryIsInstance=false
"""Threat models: how much an attack may change an image, in which norm: ``linf:8/255`` or ``l0:10``."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from pydantic import GetCoreSchemaHandler
from pydantic_core import CoreSchema
from pydantic_core.core_schema import no_info_plain_validator_function, to_string_ser_schema
from torch import Tensor

from unfool.core.errors import ImagesError, SpecError
from unfool.core.geometry import GEOMETRIES
from unfool.core.spec import parse_number, unknown, write_number
from unfool.core.streams import Streams

SMALLEST, LARGEST = 1e-30, 1e9
"""The smallest eps but 0, whose changes do not yet vanish in float32; the largest, farther than images are apart."""

_FORM = "write norm:eps such as linf:8/255, l2:0.5, l1:12 or l0:10"


@dataclass(frozen=True)
class ThreatModel:
    """The perturbations that an attack may make: all images within ``eps`` of their origin in a norm, and in [0,1].

    Make one with `Linf`, `L2`, `L1` or `L0`, or read it from text with `ThreatModel.parse`. Its methods take images and
    origins (B, C, H, W), the origins inside the box; results have the origins' dtype and carry no gradient.

    Args:
        norm_name: ``"linf"``, ``"l2"``, ``"l1"`` or ``"l0"``.
        eps: Largest distance, in pixel units (images are in [0,1]); for linf at most 1. For l0 how many pixels change,
            a whole number; all channels of a pixel count as one.
        text: How it was written, ``linf:8/255`` rather than ``linf:0.0314``; not compared.

    Raises:
        SpecError: The norm is unknown or eps is not allowed.

    Example:
        >>> import torch
        >>> from unfool import Linf, ThreatModel
        >>> threat = ThreatModel.parse("linf:8/255")
        >>> threat == Linf(8/255)
        True
        >>> origins = torch.full((1, 1, 1, 2), 0.5)
        >>> threat.project(origins + 0.1, origins) - origins
        tensor([[[[0.0314, 0.0314]]]])
    """

    norm_name: str
    eps: float
    text: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.norm_name not in GEOMETRIES:
            raise unknown("norm", str(self.norm_name), GEOMETRIES)
        if isinstance(self.eps, str):
            raise SpecError(
                f"eps {self.eps!r} is text; give a number, such as 8/255 without quotes, or text to "
                "ThreatModel.parse('linf:8/255')"
            )
        if isinstance(self.eps, bool) or not isinstance(self.eps, numbers.Real):
            raise SpecError(f"eps {self.eps!r} of a threat model is no number; give a number such as 8/255")
        if not isinstance(self.eps, (int, float)):  # of NumPy
            object.__setattr__(self, "eps", float(self.eps))
        if not 0 <= self.eps < math.inf:  # NaN is not either
            raise SpecError(f"eps {self.eps!r} of a threat model is not allowed; give a finite number of 0 or more")
        if 0 < self.eps < SMALLEST or self.eps > LARGEST:
            raise SpecError(
                f"eps {self.eps!r} of a threat model is not allowed; give 0, or a number from {SMALLEST:g} to "
                f"{LARGEST:g}, which float32 images can be changed by"
            )
        if self.norm_name == "linf" and self.eps > 1:
            meant = f"linf:{self.eps:g}/255 was meant" if self.eps <= 255 else "an eps such as 8/255 was meant"
            raise SpecError(
                f"linf eps {self.eps:g} is not allowed; pixels lie in [0,1], so give eps from 0 to 1; perhaps {meant}"
            )
        if self.norm_name == "l0" and self.eps != int(self.eps):
            raise SpecError(
                f"l0 eps {self.eps:g} is not allowed; it counts pixels, so give a whole number, such as l0:10"
            )
        if not self.text:
            object.__setattr__(self, "text", f"{self.norm_name}:{float(self.eps)!r}")
        elif _read(self.text) != (self.norm_name, self.eps):
            raise SpecError(f"text {self.text!r} is not {self.norm_name}:{self.eps!r}; use ThreatModel.parse")

    @classmethod
    def parse(cls, text: str) -> ThreatModel:
        """Read ``norm:eps``, eps a decimal or a fraction, such as ``linf:8/255``; raises SpecError."""
        norm_name, eps = _read(text)
        return cls(norm_name, eps, text.strip())

    @classmethod
    def __get_pydantic_core_schema__(cls, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        """In configurations: a threat model or its text is read, and the text is written."""
        return no_info_plain_validator_function(cls._of, serialization=to_string_ser_schema())

    @classmethod
    def _of(cls, value: object) -> ThreatModel:
        if isinstance(value, cls):
            return value
        if isinstance(value, str):
            return cls.parse(value)
        raise ValueError("give a threat model such as Linf(8/255), or its text, linf:8/255")

    def __str__(self) -> str:
        return self.text

    def __repr__(self) -> str:
        norm = {"linf": "Linf", "l2": "L2", "l1": "L1", "l0": "L0"}[self.norm_name]
        return f"{norm}({write_number(self.eps)})"

    @torch.no_grad()
    def project(self, images: Tensor, origins: Tensor) -> Tensor:
        """Bring images into ball ∩ box: onto the nearest point (linf, l1, l0), or into the ball, then the box (l2).

        Args:
            images: Images (B, C, H, W).
            origins: Their clean images (B, C, H, W), inside the box.

        Returns:
            Images (B, C, H, W), at most eps + 1e-6 from their origins in every dtype. Images that are inside already
            come back unchanged; with eps = 0 all are the origins.

        Raises:
            ImagesError: Images and origins have different shapes, or l0 allows more pixels than there are.
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
        """The displacement of a given length along which a loss rises most.

        Args:
            gradient: Gradient of the loss by the images (B, C, H, W).
            images: Current images (B, C, H, W).
            origins: Their clean images (B, C, H, W).
            step: Length in this norm, in pixel units: one number, or one per image (B,). In l0 pixels, rounded up.
            share: In l1, the part of each image's values that may change (B,); default 1 %.

        Returns:
            Displacements (B, C, H, W): in linf the gradient's sign, in l2 the unit gradient, in l1 evenly over the
            values with the largest gradients that the box lets change; each times ``step``. In l0 the ``step`` pixels
            that gain most go to the edge of the box. Zero for a zero gradient.

        Raises:
            ImagesError: The shapes differ.
        """
        self._check(gradient, origins)
        self._check(images, origins)
        return GEOMETRIES[self.norm_name].steepest(gradient, images, step, share)

    @torch.no_grad()
    def sample(self, origins: Tensor, ids: Tensor, streams: Streams) -> Tensor:
        """Draw images uniformly in the ball around their origins, and project them into the box.

        Args:
            origins: Clean images (B, C, H, W).
            ids: Ids of the images (B,), int64; equal ids give equal draws.
            streams: Source of the draws.

        Returns:
            Images (B, C, H, W).
        """
        if self.eps == 0:
            return origins.clone()
        displacements = GEOMETRIES[self.norm_name].sample_within(ids, tuple(origins.shape[1:]), streams, self.eps)
        return self.project(origins + displacements, origins)

    @torch.no_grad()
    def norm(self, delta: Tensor) -> Tensor:
        """The lengths (B,), float64, of displacements (B, ...) in this norm, in pixel units."""
        return GEOMETRIES[self.norm_name].norm(delta)

    def check_fits(self, images: Tensor) -> None:
        """Refuse images (B, C, H, W) with fewer pixels than l0 allows to change; raises ImagesError."""
        if self.norm_name == "l0" and images.ndim == 4 and self.eps > images.shape[2] * images.shape[3]:
            height, width = images.shape[2:]
            raise ImagesError(
                f"{self} changes more pixels than an image of {height}x{width} has; give at most l0:{height * width}"
            )

    def _check(self, images: Tensor, origins: Tensor) -> None:
        self.check_fits(origins)
        if images.shape != origins.shape:
            raise ImagesError(
                f"images or gradients have shape {tuple(images.shape)}, their origins {tuple(origins.shape)}; "
                "give one origin per image, of the same shape"
            )


if TYPE_CHECKING:
    ThreatLike = ThreatModel | str
else:
    ThreatLike = ThreatModel
    """A field of a configuration that holds a threat model, and may be given its text, ``"linf:8/255"``, too."""


def Linf(eps: float) -> ThreatModel:  # noqa: N802
    """Every pixel value changes by at most ``eps``.

    Args:
        eps: Largest change of a value, in pixel units: from 0 to 1, such as ``8/255``.

    Returns:
        The threat model, written ``linf:8/255``.

    Raises:
        SpecError: eps is no number from 0 to 1.

    Example:
        >>> from unfool import Linf
        >>> print(Linf(8/255))
        linf:8/255
    """
    return _written("linf", eps)


def L2(eps: float) -> ThreatModel:  # noqa: N802
    """The Euclidean length of the change of an image is at most ``eps``.

    Args:
        eps: Largest root of the sum of squared changes over all values of an image, in pixel units, such as ``0.5``.

    Returns:
        The threat model, written ``l2:0.5``.

    Raises:
        SpecError: eps is no finite number of 0 or more.

    Example:
        >>> from unfool import L2
        >>> print(L2(0.5))
        l2:0.5
    """
    return _written("l2", eps)


def L1(eps: float) -> ThreatModel:  # noqa: N802
    """The absolute changes of all values of an image sum to at most ``eps``.

    Args:
        eps: Largest sum of absolute changes over all values of an image, in pixel units, such as ``12``.

    Returns:
        The threat model, written ``l1:12``.

    Raises:
        SpecError: eps is no finite number of 0 or more.

    Example:
        >>> from unfool import L1
        >>> print(L1(12))
        l1:12
    """
    return _written("l1", eps)


def L0(eps: int) -> ThreatModel:  # noqa: N802
    """At most ``eps`` pixels change, each by any amount; all channels of a pixel count as one.

    Args:
        eps: Largest number of changed pixels, a whole number such as ``10``, at most as many as the images have.

    Returns:
        The threat model, written ``l0:10``.

    Raises:
        SpecError: eps is no whole number of 0 or more.

    Example:
        >>> from unfool import L0
        >>> print(L0(10))
        l0:10
    """
    return _written("l0", eps)


def _written(norm_name: str, eps: float) -> ThreatModel:
    """The threat model with its shortest text."""
    checked = ThreatModel(norm_name, eps)
    return ThreatModel(norm_name, float(eps), f"{norm_name}:{write_number(checked.eps)}")


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
