# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
"""Losses of contrast: how an image's views should lie to each other and to other images.

Every function takes projections ``z_ND``, view-major and not yet normalised, the number of views V ≥ 2, a temperature
and perhaps negatives of unit length, (K, D) shared by all images or (B, K, D) each image's own; without them the
negatives are all views of the batch-mates and the rows of ``queue`` (Q, D), of unit length too, if there is one. It
gives losses (B,), each the mean over the image's V anchors. With in-batch negatives a batch of one is an ImagesError:
an image needs another to be told apart from.

s(a, b) is the cosine of two projections over the temperature; P(a) are the other views of the anchor's image, N(a) its
negatives.

Legend: B images, V views of each (N = V·B, view-major), D dimensions of the projection, K negatives.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Protocol, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from unfool.core.errors import ImagesError
from unfool.core.registry import Registry


class LossFunction(Protocol):
    """Projections, number of views, temperature, negatives or a queue → losses (B,)."""

    def __call__(
        self,
        z_ND: Tensor,
        count: int,
        temperature: float,
        negatives: Tensor | None = None,
        queue: Tensor | None = None,
    ) -> Tensor: ...


class ContrastLoss:
    """A registered loss; ``uses_negatives`` is False for one of attraction alone."""

    def __init__(self, function: LossFunction, uses_negatives: bool = True):
        functools.update_wrapper(self, function)
        self.function = function
        self.uses_negatives = uses_negatives

    def __call__(
        self, z_ND: Tensor, count: int, temperature: float, negatives: Tensor | None = None, queue: Tensor | None = None
    ) -> Tensor:
        """Losses (B,)."""
        return self.function(z_ND, count, temperature, negatives, queue)


CONTRAST_LOSSES: Registry[ContrastLoss] = Registry(
    "contrast loss", "unfool.tasks", "unfool.contrast_losses", instance_of=ContrastLoss
)
"""Losses by the name that the task's setting ``loss`` gives them."""

Function = TypeVar("Function", bound=LossFunction)


def contrast_loss(name: str, *, uses_negatives: bool = True) -> Callable[[Function], Function]:
    """Decorator that registers a loss of contrast; ``--task contrast:loss=NAME`` then trains with it.

    One of attraction alone says so: ``uses_negatives=False``.
    """

    def register(function: Function) -> Function:
        CONTRAST_LOSSES.add(name)(ContrastLoss(function, uses_negatives))
        return function

    return register


@contrast_loss("nt-xent")
def nt_xent(
    z_ND: Tensor, count: int, temperature: float, negatives: Tensor | None = None, queue: Tensor | None = None
) -> Tensor:
    """NT-Xent (Chen et al., ICML 2020, equation 1): mean over p in P(a) of -log(e^s(a,p) / (e^s(a,p) + Σ_N e^s(a,n))).

    For two views this is the paper's loss exactly; of more, the further positives stay out of a term's denominator.
    """
    same_BVV, negatives_VBK = _similarities(z_ND, count, temperature, negatives, queue)
    against_BV = negatives_VBK.logsumexp(2).permute(1, 0)
    return _over_positives(F.softplus(against_BV[:, :, None] - same_BVV))


@contrast_loss("first-positive")
def first_positive(
    z_ND: Tensor, count: int, temperature: float, negatives: Tensor | None = None, queue: Tensor | None = None
) -> Tensor:
    """Cross-entropy of the first of P(a) against everything else, as the code of Mao et al. (ICCV 2021) computes it.

    The further positives are pushed away as negatives are. For two views this is NT-Xent.
    """
    same_BVV, negatives_VBK = _similarities(z_ND, count, temperature, negatives, queue)
    first_BV = torch.cat([same_BVV[:, :1, 1], same_BVV[:, 1:, 0]], dim=1)
    return (_everything(same_BVV, negatives_VBK) - first_BV).mean(1)


@contrast_loss("multi-positive")
def multi_positive(
    z_ND: Tensor, count: int, temperature: float, negatives: Tensor | None = None, queue: Tensor | None = None
) -> Tensor:
    """L_out of supervised contrast (Khosla et al., NeurIPS 2020, equation 2) with each image a class of its own.

    The mean over p in P(a) of -log(e^s(a,p) / (Σ_P e^s(a,q) + Σ_N e^s(a,n))).
    """
    same_BVV, negatives_VBK = _similarities(z_ND, count, temperature, negatives, queue)
    return _over_positives(_everything(same_BVV, negatives_VBK)[:, :, None] - same_BVV)


@contrast_loss("margin")
def margin(
    z_ND: Tensor, count: int, temperature: float, negatives: Tensor | None = None, queue: Tensor | None = None
) -> Tensor:
    """The triplet hinge max(0, 1 + s(a,n) - s(a,p)), averaged over P(a) and N(a) (Schroff et al., CVPR 2015).

    In cosines the margin is the temperature; so the scale of the logistic losses is the width of this one.
    """
    same_BVV, negatives_VBK = _similarities(z_ND, count, temperature, negatives, queue)
    # An image's own views are -inf among the negatives, and the hinge makes zeros of them.
    hinges_BVVK = F.relu(1.0 + negatives_VBK.permute(1, 0, 2)[:, :, None, :] - same_BVV[..., None])
    others = negatives_VBK.shape[2] - (count if negatives is None else 0)
    return _over_positives(hinges_BVVK.sum(3) / others)


@contrast_loss("cosine", uses_negatives=False)
def cosine(
    z_ND: Tensor, count: int, temperature: float, negatives: Tensor | None = None, queue: Tensor | None = None
) -> Tensor:
    """One minus the cosine, averaged over P(a): attraction alone; temperature, negatives and queue play no part."""
    return _over_positives(1.0 - _own(F.normalize(z_ND, dim=1), count))


def _own(z_ND: Tensor, count: int) -> Tensor:
    """Products of each image's own views, (B, V, V)."""
    z_BVD = z_ND.unflatten(0, (count, -1)).transpose(0, 1)
    return z_BVD @ z_BVD.transpose(1, 2)


def _similarities(
    z_ND: Tensor, count: int, temperature: float, negatives: Tensor | None, queue: Tensor | None
) -> tuple[Tensor, Tensor]:
    """s among an image's own views (B, V, V), and of its views with its negatives (V, B, K)."""
    images = len(z_ND) // count
    z_ND = F.normalize(z_ND, dim=1)
    if negatives is not None:
        z_BVD = z_ND.unflatten(0, (count, images)).transpose(0, 1)
        # Image by image, also for shared negatives: then no image's rounding hangs on how many others there are.
        rows_BKD = negatives.expand(images, *negatives.shape[-2:])
        negative_BVK = z_BVD @ rows_BKD.transpose(1, 2) / temperature
        return _own(z_ND, count) / temperature, negative_BVK.transpose(0, 1)
    if images < 2:
        raise ImagesError(
            f"contrast got a batch of {images} image; its negatives are batch-mates: give at least 2 images"
        )
    similarity_VBVB = (z_ND @ z_ND.T / temperature).unflatten(1, (count, images)).unflatten(0, (count, images))
    same_BVV = similarity_VBVB.diagonal(dim1=1, dim2=3).permute(2, 0, 1)
    # One masked fill leaves only other images among the negatives; gathering by booleans costs about three times that.
    mates_BB = torch.eye(images, dtype=torch.bool, device=z_ND.device)
    mates_VBN = similarity_VBVB.masked_fill(mates_BB[None, :, None, :], float("-inf")).flatten(2)
    if queue is None:
        return same_BVV, mates_VBN
    earlier_VBQ = (z_ND @ queue.T / temperature).unflatten(0, (count, images))
    return same_BVV, torch.cat([mates_VBN, earlier_VBQ], dim=2)


def _everything(same_BVV: Tensor, negatives_VBK: Tensor) -> Tensor:
    """log of Σ_P e^s + Σ_N e^s for every anchor, (B, V)."""
    self_VV = torch.eye(same_BVV.shape[1], dtype=torch.bool, device=same_BVV.device)
    positives_BV = same_BVV.masked_fill(self_VV, float("-inf")).logsumexp(2)
    return torch.logaddexp(positives_BV, negatives_VBK.logsumexp(2).permute(1, 0))


def _over_positives(terms_BVV: Tensor) -> Tensor:
    """The mean over anchors and their positives, (B,); the diagonal, a view with itself, is left out."""
    count = terms_BVV.shape[1]
    self_VV = torch.eye(count, dtype=torch.bool, device=terms_BVV.device)
    return terms_BVV.masked_fill(self_VV, 0.0).sum((1, 2)) / (count * (count - 1))
