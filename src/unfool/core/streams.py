# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnnecessaryIsInstance=false
"""Random draws that belong to an image, not to a moment.

A draw is a pure function of (seed, purpose, image id, draw number, element number): a counter-based generator
(SplitMix64, Steele et al., OOPSLA 2014) evaluated for the whole batch at once on int64 tensors. Splitting a batch,
dropping images from it, resuming a run or adding processes therefore changes no draw, and the integers, the
uniforms and everything made of them by exact arithmetic are the same on every device. The global random state is
neither read nor written.

Shapes: ``ids`` is (B,) int64; a draw of ``shape`` S is (B, *S).
"""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

from unfool.core.errors import SpecError


def _signed(value: int) -> int:
    """The int64 with the bits of an unsigned 64-bit integer."""
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >= 1 << 63 else value


_GAMMA = _signed(0x9E3779B97F4A7C15)
_MIX1 = _signed(0xBF58476D1CE4E5B9)
_MIX2 = _signed(0x94D049BB133111EB)


def _shift(z: Tensor, bits: int) -> Tensor:
    """Logical right shift (int64's own is arithmetic)."""
    return (z >> bits) & ((1 << (64 - bits)) - 1)


def _mix(z: Tensor) -> Tensor:
    z = (z ^ _shift(z, 30)) * _MIX1
    z = (z ^ _shift(z, 27)) * _MIX2
    return z ^ _shift(z, 31)


class Streams:
    """Random draws per image for one seed and purpose.

    `named` derives the streams of one purpose, `at` those of one draw number (an epoch, a step, a restart); both nest.
    A draw depends on these and on the image's id, and on nothing else: not on the batch, the device or earlier draws.

    Args:
        seed: A whole number of 0 or more.
        key: Internal: the 64-bit state that `named` and `at` pass on. Streams of equal keys give equal draws.

    Raises:
        SpecError: A seed that is not a whole number of 0 or more.

    Example:
        >>> streams = Streams(0).named("crop").at(3)
        >>> ids = torch.tensor([7, 8, 9])
        >>> streams.uniform(ids).shape
        torch.Size([3])
        >>> torch.equal(streams.uniform(ids)[1:], streams.uniform(ids[1:]))
        True
        >>> streams.integers(ids, 10, (2,)).shape
        torch.Size([3, 2])
    """

    def __init__(self, seed: int, key: int | None = None):
        if isinstance(seed, bool) or not isinstance(seed, int) or seed < 0:
            raise SpecError(f"seed {seed!r} is not allowed; give a whole number of 0 or more")
        self.seed = seed
        self.key = self._hash("seed", seed) if key is None else key

    def __repr__(self) -> str:
        own = "" if self.key == self._hash("seed", self.seed) else f", key={self.key}"
        return f"Streams({self.seed}{own})"

    @staticmethod
    def _hash(*parts: object) -> int:
        digest = hashlib.blake2b("\x1f".join(map(repr, parts)).encode(), digest_size=8).digest()
        return _signed(int.from_bytes(digest, "little"))

    def named(self, purpose: str) -> Streams:
        """The streams for one purpose; different purposes are independent."""
        return Streams(self.seed, self._hash(self.key, "purpose", purpose))

    def at(self, draw: int) -> Streams:
        """The streams for one draw number."""
        return Streams(self.seed, self._hash(self.key, "draw", int(draw)))

    def bits(self, ids: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """Uniform int64 bit patterns, (B, *shape)."""
        count = math.prod(shape)
        start = _mix(ids.to(torch.int64) * _GAMMA + self.key)
        steps = torch.arange(1, count + 1, device=ids.device, dtype=torch.int64) * _GAMMA
        return _mix(start[:, None] + steps).reshape(len(ids), *shape)

    def uniform(self, ids: Tensor, shape: tuple[int, ...] = (), low: float = 0.0, high: float = 1.0) -> Tensor:
        """float32 uniforms in [low, high), 24 bits each, (B, *shape)."""
        unit = _shift(self.bits(ids, shape), 40).to(torch.float32) * 2.0**-24
        if (low, high) == (0.0, 1.0):
            return unit
        # Rounding may carry the largest draw onto the open end; the float below it is what was meant.
        below = torch.nextafter(torch.tensor(high, dtype=torch.float32), torch.tensor(low, dtype=torch.float32))
        return (unit * (high - low) + low).clamp_(max=float(below))

    def integers(self, ids: Tensor, below: int, shape: tuple[int, ...] = ()) -> Tensor:
        """int64 in [0, below), (B, *shape); the bias is under below / 2**32."""
        if not 1 <= below < 1 << 31:
            raise SpecError(f"integers below {below} cannot be drawn; allowed: 1 to 2**31 - 1")
        return _shift(_shift(self.bits(ids, shape), 32) * below, 32)

    def _unit_float64(self, ids: Tensor, shape: tuple[int, ...]) -> Tensor:
        """float64 uniforms in (0, 1), never an end point, so that logarithms stay finite."""
        return (_shift(self.bits(ids, shape), 12).to(torch.float64) + 0.5) * 2.0**-52

    def normal(self, ids: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """float32 standard normals by the inverse distribution function, computed in float64, (B, *shape)."""
        return torch.special.ndtri(self._unit_float64(ids, shape)).to(torch.float32)

    def exponential(self, ids: Tensor, shape: tuple[int, ...] = ()) -> Tensor:
        """float32 exponentials of mean 1, (B, *shape)."""
        return (-torch.log(self._unit_float64(ids, shape))).to(torch.float32)

    def permutation(self, ids: Tensor, size: int) -> Tensor:
        """A random order of ``size`` things for each image, (B, size) int64."""
        return torch.argsort(self.bits(ids, (size,)), dim=1, stable=True)
