# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
"""Classifiers that give scores and no gradient: plain functions and scikit-learn estimators.

Legend: B images, D pixels of one, K classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from unfool.core.errors import ImagesError, SpecError

_TINY = 1e-12
_ARRAY = "ndarray"
"""What an error says that is about the kind of an argument."""


def is_black_box(model: nn.Module) -> bool:
    """Whether any part of a model gives scores without a gradient."""
    return any(bool(getattr(part, "black_box", False)) for part in model.modules())


def gives_classes_alone(model: nn.Module) -> bool:
    """Whether any part of a model gives classes and no scores."""
    return any(bool(getattr(part, "classes_alone", False)) for part in model.modules())


def is_estimator(value: object) -> bool:
    """Whether a value is an estimator of scikit-learn, or behaves as one."""
    return callable(getattr(value, "predict", None)) and callable(getattr(value, "fit", None))


def _scores_pairs(estimator: Any) -> bool:
    """Whether an estimator's decision function has a column per pair of classes, of which three have as many as there
    are classes; of a pipeline or a search its last part decides."""
    while True:
        inner = getattr(estimator, "best_estimator_", getattr(estimator, "_final_estimator", None))
        if not is_estimator(inner):
            break
        estimator = inner
    pairs = getattr(estimator, "decision_function_shape", None) == "ovo"
    return pairs and len(getattr(estimator, "classes_", range(3))) > 2


class BlackBox(nn.Module):
    """A function of a batch (B, C, H, W), or an estimator of flat images (B, D), as a module that gives scores (B, K).

    A function gets a NumPy array; one to which that is the wrong type gets a tensor. Of an estimator the decision
    function, or else the logarithm of its probabilities is taken. An estimator that gives classes alone scores 1 for
    the class that it predicts and 0 for the others (``classes_alone``). Raises SpecError for one that does not say
    which classes there are, and for one that scores pairs of classes.
    """

    black_box = True
    identity_leaves_out = frozenset({"takes", "classes_alone"})

    def __init__(self, scores: Callable[[Any], Any]):
        super().__init__()
        self.scores = scores
        self.estimator = is_estimator(scores)
        self.takes: Literal["array", "tensor"] | None = None
        scored = any(hasattr(scores, name) for name in ("decision_function", "predict_proba"))
        self.classes_alone = self.estimator and not scored
        if self.classes_alone and not hasattr(scores, "classes_"):
            raise SpecError(
                f"{type(scores).__name__} gives classes and no scores, and has no classes_; fit it first, or give one "
                "with predict_proba or decision_function"
            )
        if self.estimator and _scores_pairs(scores):
            raise SpecError(
                f"{type(scores).__name__} scores pairs of classes (decision_function_shape='ovo'), and attacks need "
                "one score per class; set decision_function_shape='ovr', for which it need not be fitted again"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Scores (B, K) as float32 on the images' device, without a gradient; the function itself runs on the CPU."""
        batch = images.detach().cpu()
        scores = self._of_estimator(batch) if self.estimator else self._of_function(batch)
        if isinstance(scores, Tensor):
            return scores.detach().to(images.device, torch.float32)
        return torch.as_tensor(np.asarray(scores, dtype=np.float32), device=images.device)

    def _of_function(self, batch: Tensor) -> Any:
        if self.takes == "tensor":
            return self.scores(batch)
        try:
            scores = self.scores(batch.numpy())
        except Exception as error:
            # Once arrays were taken, an error is the function's own.
            if self.takes is not None or not (isinstance(error, (TypeError, AttributeError)) or _ARRAY in str(error)):
                raise
            return self._of_tensors(batch, error)
        self.takes = "array"
        return scores

    def _of_tensors(self, batch: Tensor, error: Exception) -> Any:
        """The scores of tensors, where an array gave ``error``; that error again, if it was not about arrays."""
        try:
            scores = self.scores(batch)
        except Exception:
            if _ARRAY in str(error):
                raise
            raise error from None
        self.takes = "tensor"
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
        if self.classes_alone:
            return (np.asarray(estimator.predict(flat))[:, None] == np.asarray(estimator.classes_)[None]).astype(float)
        if hasattr(estimator, "decision_function"):
            scores = estimator.decision_function(flat)
            columns, classes = np.shape(scores)[1:], len(getattr(estimator, "classes_", ()))
            if classes and columns not in ((), (1,), (classes,)):
                raise ImagesError(
                    f"{type(estimator).__name__} gives scores of shape {np.shape(scores)} for {classes} classes; give "
                    "an estimator with one score per class"
                )
            return scores
        return np.log(np.maximum(estimator.predict_proba(flat), _TINY))
