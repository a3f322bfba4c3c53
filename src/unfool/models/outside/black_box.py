# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Classifiers that give scores and no gradient: plain functions and scikit-learn estimators.

Legend: B images, D pixels of one, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from unfool.core.errors import ImagesError, SpecError

_TINY = 1e-12


def is_black_box(model: nn.Module) -> bool:
    """Whether any part of a model gives scores without a gradient."""
    return any(bool(getattr(part, "black_box", False)) for part in model.modules())


def is_estimator(value: object) -> bool:
    """Whether a value is an estimator of scikit-learn, or behaves as one."""
    return callable(getattr(value, "predict", None)) and callable(getattr(value, "fit", None))


class BlackBox(nn.Module):
    """A function of a batch (B, C, H, W), or an estimator of flat images (B, D), as a module that gives scores (B, K).

    A function gets a NumPy array; one that fails on it gets a tensor. Of an estimator the decision function, or else
    the logarithm of its probabilities is taken. Raises SpecError for an estimator that gives classes alone.
    """

    black_box = True
    identity_leaves_out = frozenset({"takes_tensors"})

    def __init__(self, scores: Callable[[Any], Any]):
        super().__init__()
        self.scores = scores
        self.estimator = is_estimator(scores)
        self.takes_tensors = False
        if self.estimator and not any(hasattr(scores, name) for name in ("decision_function", "predict_proba")):
            raise SpecError(
                f"{type(scores).__name__} gives classes and no scores; give one with predict_proba or decision_function"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, K) as float32 on the CPU, without a gradient."""
        batch = images.detach().cpu()
        scores = self._of_estimator(batch) if self.estimator else self._of_function(batch)
        if isinstance(scores, Tensor):
            return scores.detach().to(images.device, torch.float32)
        return torch.as_tensor(np.asarray(scores, dtype=np.float32), device=images.device)

    def _of_function(self, batch: Tensor) -> Any:
        if self.takes_tensors:
            return self.scores(batch)
        try:
            return self.scores(batch.numpy())
        except Exception:
            scores = self.scores(batch)
            self.takes_tensors = True
            return scores

    def _of_estimator(self, batch: Tensor) -> Any:
        estimator: Any = self.scores
        flat = batch.flatten(1).numpy()
        wanted = getattr(estimator, "n_features_in_", flat.shape[1])
        if wanted != flat.shape[1]:
            raise ImagesError(
                f"{type(estimator).__name__} takes {wanted} features, and an image has {flat.shape[1]} numbers; "
                "give the images that it was fitted on"
            )
        if hasattr(estimator, "decision_function"):
            return estimator.decision_function(flat)
        return np.log(np.maximum(estimator.predict_proba(flat), _TINY))
