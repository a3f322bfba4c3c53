"""The frame around every attack: it checks what goes in, and trusts nothing that comes out."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unfool.attacks.best_so_far import Perturbed
from unfool.attacks.ensemble import FINISH, Checkpoint, Part, run_parts
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Engine, Problem, image_ids
from unfool.core.batch import check_images
from unfool.core.config import parse_settings
from unfool.core.errors import ImagesError, SpecError
from unfool.core.registry import Registry
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.models.fast import search_copy
from unfool.models.modes import frozen_eval

TOLERANCE = 1e-6
"""How far rounding may carry an image out of its ball, in pixel units."""


@dataclass(frozen=True, kw_only=True)
class ProxySettings:
    """A faster copy of a model, on which an attack looks for adversarial examples; the model confirms each of them.

    ``fold`` merges batch norm into convolutions, ``channels_last`` sets the memory order, ``dtype`` is fp32 or bf16.
    """

    fold: bool = True
    channels_last: bool = True
    dtype: str = "fp32"

    def copy(self, model: nn.Module) -> nn.Module:
        """The proxy model; copy once and use it for all batches."""
        return search_copy(model, fold=self.fold, channels_last=self.channels_last, dtype=self.dtype)

    @property
    def exact_share(self) -> float:
        """Share of the steps that the model itself takes: in bf16 some 4 % of a gradient's signs are wrong."""
        return 0.1 if self.dtype == "bf16" else 0.0


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """What an attack returns.

    Args:
        images: Attacked images (B, C, H, W), each inside ball and box.
        losses: The highest loss seen for each image (B,); of an attack of several parts, the margin of the image
            returned.
        fooled: Whether the model misclassifies the image (B,).
        zero_gradient: Not fooled, and the model gave a zero gradient at every step (B,).
        fooled_by_part: Number of the part that fooled the image (B,), -1 if none did.
        distances: Distance from the clean image in the threat model's norm (B,).
        model_images: How many images went through the model or its proxy.
    """

    images: Tensor
    losses: Tensor
    fooled: Tensor
    zero_gradient: Tensor
    fooled_by_part: Tensor
    distances: Tensor
    model_images: int


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A named attack: one engine, or several in order, each on the images that those before it did not fool.

    ``finisher`` runs last under a bf16 proxy: steps of the model itself, from the best point of each image not fooled.
    ``draws`` averages every pass over so many draws of a model that is random (EOT).
    """

    name: str
    parts: tuple[Part, ...]
    settings: Mapping[str, Any]
    finisher: Part | None = None
    draws: int = 1

    @property
    def engine(self) -> Engine:
        """The first part's engine, for an attack of one part the only one."""
        return self.parts[0].engine

    @property
    def threat(self) -> ThreatModel:
        """The threat model the attack stays within."""
        return self.engine.threat

    @property
    def names(self) -> list[str]:
        """What ``Attacked.fooled_by_part`` counts: the parts' names, and the finisher's."""
        return [part.name for part in self.parts] + ([FINISH] if self.finisher is not None else [])

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        ids: Tensor | None = None,
        streams: Streams | None = None,
        proxy: ProxySettings | None = None,
        proxy_model: nn.Module | None = None,
        checkpoint: Checkpoint | None = None,
    ) -> Attacked:
        """Attack a model (images in [0,1] → logits) on images (B, C, H, W) with labels (B,).

        ``ids`` (B,) name the images for the random draws (default: their position), ``streams`` the seed (default 0).
        ``proxy`` turns on a faster copy of the model; pass ``proxy_model=proxy.copy(model)`` to copy only once.
        ``checkpoint`` keeps the state between parts. The model is attacked in eval mode; its modes, parameters,
        ``.grad``, buffers and the global random state are left as they were. Raises ImagesError for images or labels
        that break the contract, NonFiniteError for NaN logits.
        """
        check_images(images)
        check_labels(images, labels)
        # A caller's inference mode would forbid the gradient by the image.
        with torch.inference_mode(False), frozen_eval(model):
            if proxy is not None and proxy_model is None:
                proxy_model = proxy.copy(model)
            problem = Problem(
                objective=LabelLoss(model, labels),
                images=images,
                ids=image_ids(images, ids),
                streams=Streams(0) if streams is None else streams,
                proxy_objective=LabelLoss(proxy_model, labels) if proxy_model is not None else None,
                exact_share=proxy.exact_share if proxy is not None else 0.1,
            )
            return self.run(problem, checkpoint)

    def run(self, problem: Problem[LabelLoss], checkpoint: Checkpoint | None = None) -> Attacked:
        """Solve a problem that the caller has prepared: model in eval mode, frozen parameters.

        Each part climbs its own loss of the problem's objective. Of several parts, the finisher runs if there is a
        proxy and ``exact_share`` is not 0.
        """
        objective, proxy = problem.objective, problem.proxy_objective
        if self.draws > 1:
            objective = objective.drawn(self.draws)
            proxy = proxy.drawn(self.draws) if proxy is not None else None
        problem = dataclasses.replace(
            problem,
            objective=objective,
            proxy_objective=proxy,
            images=problem.images.detach(),
            streams=problem.streams.named(self.name),
        )
        if len(self.parts) == 1:
            part = self.parts[0]
            problem = dataclasses.replace(
                problem,
                objective=objective.with_loss(part.loss),
                proxy_objective=proxy.with_loss(part.loss) if proxy is not None else None,
            )
            perturbed = part.engine.run(problem)
            fooled_by_part = torch.where(perturbed.fooled, 0, -1)
        else:
            finisher = self.finisher if proxy is not None and problem.exact_share > 0 else None
            perturbed, fooled_by_part = run_parts(self.parts, finisher, problem, checkpoint)
        return self._checked(perturbed, fooled_by_part, problem.images)

    def _checked(self, perturbed: Perturbed, fooled_by_part: Tensor, images: Tensor) -> Attacked:
        """Recompute distance and box from the images themselves, whatever the engine says."""
        # Subtracted in float64: the rounding of a half-precision difference is a thousand times the tolerance.
        distances = self.threat.norm(perturbed.images.double() - images.double())
        inside = (
            (distances <= self.threat.eps + TOLERANCE).all()
            and (perturbed.images >= 0).all()
            and (perturbed.images <= 1).all()
        )
        if not inside or not torch.isfinite(perturbed.images).all():
            raise ImagesError(f"attack {self.name} left {self.threat} or the box [0,1]; this is a fault of the attack")
        return Attacked(
            images=perturbed.images,
            losses=perturbed.losses,
            fooled=perturbed.fooled,
            zero_gradient=perturbed.zero_gradient,
            fooled_by_part=fooled_by_part,
            distances=distances,
            model_images=perturbed.model_images,
        )


def check_labels(images: Tensor, labels: Tensor) -> None:
    """Refuse anything but one int64 class per image; raises ImagesError."""
    if labels.shape != images.shape[:1] or labels.dtype != torch.int64:
        given = f"{labels.dtype} of shape {tuple(labels.shape)}"
        raise ImagesError(f"labels are {given}; give one int64 class per image, shape ({len(images)},)")
    if len(labels) and int(labels.min()) < 0:
        raise ImagesError(f"label {int(labels.min())} is no class; count classes from 0")


Factory = Callable[[str, ThreatModel, Mapping[str, Any]], Attack]

ATTACKS: Registry[Factory] = Registry("attack", "unfool.attacks")

_STEPS = re.compile(r"(.+?)-(\d+)")


def make_attack(text: str, threat: ThreatModel | str, settings: Mapping[str, Any] | None = None) -> Attack:
    """Make an attack from ``fgsm``, ``pgd-20`` or ``pgd-20:restarts=5,step_size=2/255``; the number counts steps.

    ``settings`` adds keys that the text does not set. Raises SpecError with the nearest name for anything unknown.
    """
    threat = ThreatModel.parse(threat) if isinstance(threat, str) else threat
    name, given = parse_settings(text)
    values: dict[str, Any] = {**(settings or {}), **given}
    counted = _STEPS.fullmatch(name)
    family = name
    if counted is not None and name not in ATTACKS:
        family = counted[1]
        if "steps" in values:
            raise SpecError(f"attack {text!r} sets its steps twice; write {name} or {family}:steps={values['steps']}")
        values["steps"] = int(counted[2])
    return ATTACKS[family](name, threat, values)
