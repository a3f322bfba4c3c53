"""The copy of a model that attacks look for adversarial examples on: a faster one, or one with gradients of use."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn

from unfool.core.files import JsonObject
from unfool.models.fast import fast_copy


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """How a model is copied into a faster proxy, on which an attack looks for adversarial examples.

    The model itself confirms every example, so a proxy changes the cost of an attack and not what its result means.
    What a bf16 search nearly fooled is attacked again without it, so that its roundings let no image stand.

    Args:
        fold: Merge each batch norm into the convolution before it.
        channels_last: Store weights in channels-last order, and so compute the activations.
        dtype: Precision of the proxy, ``"fp32"`` or ``"bf16"``.

    Example:
        >>> import torch
        >>> from unfool import Linf, ProxySettings, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> attack = attacks.PGD(Linf(0.1), steps=5)
        >>> attack(model, images, torch.tensor([0]), proxy=ProxySettings(dtype="bf16")).fooled
        tensor([True])
    """

    fold: bool = True
    channels_last: bool = True
    dtype: str = "fp32"

    def copy(self, model: nn.Module, images: Tensor | None = None) -> nn.Module:
        """Return the proxy of ``model``; copy once and use it for all batches.

        Args:
            model: The model to copy.
            images: A few images (B, C, H, W) in [0,1], by which more batch norms of a foreign model are found and the
                proxy's logits are compared with the model's own.

        Raises:
            SpecError: The dtype is unknown, or the model cannot be copied.
        """
        fast = fast_copy(model, fold=self.fold, channels_last=self.channels_last, dtype=self.dtype, images=images)
        if self.dtype == "bf16":
            exact = fast_copy(model, fold=self.fold, channels_last=self.channels_last, images=images)
            # Beside its submodules: near misses are attacked again on it, as an fp32 search would.
            object.__setattr__(fast, "exact_copy", exact)
        return fast

    @property
    def exact_share(self) -> float:
        """Share of the steps that the model itself takes: in bf16 some 4 % of a gradient's signs are wrong."""
        return 0.1 if self.dtype == "bf16" else 0.0

    @property
    def described(self) -> JsonObject:
        """What stored batches say of the search."""
        return dict(vars(self))


@dataclass(frozen=True, kw_only=True)
class SurrogateSettings(ProxySettings):
    """Search on another model than the one that is attacked, in place of a faster copy.

    The model itself confirms every example, where the search claims it, and an image that it does not confirm is
    attacked further: so an attack follows the gradients of a part, or of an approximation, and is judged on the whole.

    Args:
        name: What is searched on, such as ``"straight-through"``.
        words: What attacks, in words.
        why: Why it does, in words.
        make: Makes it of the model that is attacked. It shares the model's parameters, which an attack leaves alone.
    """

    name: str
    words: str
    why: str
    make: Callable[[nn.Module], nn.Module]

    def copy(self, model: nn.Module, images: Tensor | None = None) -> nn.Module:
        """Return what is searched on."""
        return self.make(model)

    @property
    def exact_share(self) -> float:
        """None of the steps: the model's own gradients are of no use."""
        return 0.0

    @property
    def described(self) -> JsonObject:
        """What stored batches say of the search."""
        return {"name": self.name, "words": self.words}
