"""Any module that purifies images, and any other classifier, as a defense that can be attacked."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.defenses.base import Defense, Purified
from unfool.defenses.detector import Detector
from unfool.defenses.pretext import PretextLoss
from unfool.models.surrogates.inner import Inner


class PurifierAdapter(Defense):
    """Any module with a ``network`` and a method ``purify(images, ids, streams)``, as a defense.

    The method's result has ``images``, and perhaps the ``losses`` on the way.

    What the module has of ``pretext``, ``gate``, ``threat``, ``exact_gradient``, ``abstains``, ``batch_dependent`` and
    ``images_per_prediction`` (default 1) is declared as `Defense` declares it. The module itself stays what is
    evaluated.

    Args:
        module: The module.

    Example:
        >>> from types import SimpleNamespace
        >>> class Rounded(torch.nn.Module):
        ...     def __init__(self, network):
        ...         super().__init__()
        ...         self.network = network
        ...     def purify(self, images, ids=None, streams=None):
        ...         return SimpleNamespace(images=(images * 15).round() / 15)
        ...     def forward(self, images):
        ...         return self.network(self.purify(images).images)
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> from unfool.defenses import PurifierAdapter
        >>> PurifierAdapter(Rounded(network)).purified_images(torch.full((1, 3, 8, 8), 0.5)).unique().numel()
        1
    """

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module: Any = module
        self.exact_gradient = bool(getattr(module, "exact_gradient", False))
        self.abstains = bool(getattr(module, "abstains", False))

    @property
    def classifier(self) -> nn.Module:
        return self.module.network

    @property
    def batch_dependent(self) -> bool:
        return bool(getattr(self.module, "batch_dependent", False))

    @property
    def own_batch_size(self) -> int | None:
        return getattr(self.module, "own_batch_size", None)

    @property
    def images_per_prediction(self) -> int:
        return int(getattr(self.module, "images_per_prediction", 1))

    @property
    def threat(self) -> ThreatModel | None:
        return getattr(self.module, "threat", None)

    @property
    def pretext(self) -> PretextLoss | None:
        return getattr(self.module, "pretext", None)

    @property
    def gate(self) -> Detector | None:
        return getattr(self.module, "gate", None)

    def purified_images(
        self,
        images: Tensor,
        ids: Tensor | None = None,
        streams: Streams | None = None,
        differentiable: bool = False,
    ) -> Tensor:
        """What the module purifies the images to; ``differentiable`` with the gradient that autograd gives."""
        with torch.set_grad_enabled(differentiable and torch.is_grad_enabled()):
            return self.module.purify(images, ids, streams).images

    def purify(self, images: Tensor, ids: Tensor | None = None, streams: Streams | None = None) -> Purified:
        """What the module purifies the images to, with its ``losses`` on the way if it keeps any."""
        result = self.module.purify(images, ids, streams)
        return Purified(images=result.images, losses=getattr(result, "losses", None))

    def forward(self, images: Tensor, ids: Tensor | None = None) -> Tensor:
        return self.module(images)


class WholeModel(Defense):
    """A classifier that does not say how it defends, as a defense that leaves images as they are.

    What it is attacked by is found by looking at it. The module itself stays what is evaluated.

    Args:
        module: The classifier.
        inner: The classifiers inside it; None if it wraps none, and is then compared with itself.

    Example:
        >>> from unfool.defenses import WholeModel
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 2))
        >>> WholeModel(network).wraps
        False
    """

    def __init__(self, module: nn.Module, inner: Inner | None = None):
        super().__init__()
        self.module = module
        self.wraps = inner is not None
        self._classifier = module if inner is None else inner.bare(module)

    @property
    def classifier(self) -> nn.Module:
        return self._classifier

    @property
    def images_per_prediction(self) -> int:
        return 1

    def purified_images(
        self,
        images: Tensor,
        ids: Tensor | None = None,
        streams: Streams | None = None,
        differentiable: bool = False,
    ) -> Tensor:
        """The images themselves."""
        return images

    def forward(self, images: Tensor, ids: Tensor | None = None) -> Tensor:
        return self.module(images)


def as_defense(module: nn.Module) -> Defense:
    """A module as a defense: itself if it is one, otherwise behind a `PurifierAdapter`.

    Args:
        module: A `Defense`, or any module with a ``network`` and a method ``purify(images, ids, streams)``.

    Returns:
        The defense, with what it declares.

    Raises:
        SpecError: For a module that has no network or cannot purify.

    Example:
        >>> from types import SimpleNamespace
        >>> class Rounded(torch.nn.Module):
        ...     def __init__(self, network):
        ...         super().__init__()
        ...         self.network = network
        ...     def purify(self, images, ids=None, streams=None):
        ...         return SimpleNamespace(images=(images * 15).round() / 15)
        ...     def forward(self, images):
        ...         return self.network(self.purify(images).images)
        >>> network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 10))
        >>> from unfool.defenses import as_defense
        >>> as_defense(Rounded(network))
        PurifierAdapter(Sequential)
    """
    if isinstance(module, Defense):
        return module
    for part in ("network", "purify"):
        if not hasattr(module, part):
            raise SpecError(
                f"a module of type {type(module).__name__} is not a defense: it has no {part}; give a Defense, such as "
                "defenses.Reverse(network, task), or a module with a network and a method purify(images, ids, streams)"
            )
    return PurifierAdapter(module)
