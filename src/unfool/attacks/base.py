"""The frame around every attack: it checks what goes in, and trusts nothing that comes out."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from unfool.attacks.best_so_far import Perturbed
from unfool.attacks.ensemble import FINISH, Engine, Memory, Part, run_parts
from unfool.attacks.objective import LabelLoss
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
    """The faster twin of a model that looks for adversarial examples; the model itself confirms every one.

    ``fold`` merges batch norm into convolutions, ``channels_last`` sets the memory order, ``dtype`` is fp32 or bf16.
    """

    fold: bool = True
    channels_last: bool = True
    dtype: str = "fp32"

    def copy(self, model: nn.Module) -> nn.Module:
        """The twin; make it once and use it for all batches."""
        return search_copy(model, fold=self.fold, channels_last=self.channels_last, dtype=self.dtype)

    @property
    def finish(self) -> float:
        """Share of the steps that the model itself takes: bf16's gradients are off in sign on some 4 % of pixels."""
        return 0.1 if self.dtype == "bf16" else 0.0


@dataclass(frozen=True, kw_only=True)
class Attacked:
    """``images`` (B, C, H, W), each inside ball and box; ``losses`` the highest seen (of several parts: the margin of
    the image given), ``fooled`` whether the model errs on the image, ``flat`` whether it stands but never gave a
    gradient, ``by`` the number of the part that fooled it, -1 if none did, ``distances`` in the threat's norm, all
    (B,); ``model_images`` how many images went through the model or its twin."""

    images: Tensor
    losses: Tensor
    fooled: Tensor
    flat: Tensor
    by: Tensor
    distances: Tensor
    model_images: int


@dataclass(frozen=True, kw_only=True)
class Attack:
    """A named attack: one engine with its settings, or several in order, each on what the ones before left standing.

    ``finisher`` goes last where a bf16 twin searched: the model's own steps from the best point of every survivor.
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
        """What ``Attacked.by`` counts: the parts' names, and the finish."""
        return [part.name for part in self.parts] + ([FINISH] if self.finisher is not None else [])

    def __call__(
        self,
        model: nn.Module,
        images: Tensor,
        labels: Tensor,
        *,
        ids: Tensor | None = None,
        streams: Streams | None = None,
        twin: nn.Module | None = None,
        search: ProxySettings | None = None,
        memory: Memory | None = None,
    ) -> Attacked:
        """Attack a model (images in [0,1] → logits) on images (B, C, H, W) with labels (B,).

        ``ids`` (B,) name the images for the random draws (default: their position), ``streams`` the seed (default 0).
        ``search`` turns on a fast twin; pass ``twin=search.copy(model)`` to make it only once. ``memory`` keeps the
        state between parts. The model is attacked in eval mode, and its modes, parameters, ``.grad``, buffers and the
        global random state are given back as they were. Raises ImagesError for images or labels that break the
        contract, NonFiniteError for NaN logits.
        """
        check_images(images)
        check_labels(images, labels)
        # A caller's inference mode would forbid the gradient by the image.
        with torch.inference_mode(False), frozen_eval(model):
            if search is not None and twin is None:
                twin = search.copy(model)
            return self.against(
                LabelLoss(model, labels),
                images,
                ids=ids,
                streams=streams,
                search=LabelLoss(twin, labels) if twin is not None else None,
                finish=search.finish if search is not None else 0.1,
                memory=memory,
            )

    def against(
        self,
        objective: LabelLoss,
        images: Tensor,
        *,
        ids: Tensor | None = None,
        streams: Streams | None = None,
        search: LabelLoss | None = None,
        finish: float = 0.1,
        memory: Memory | None = None,
    ) -> Attacked:
        """The same against any objective on logits, which the caller has prepared: eval mode, frozen parameters.

        ``search`` is a cheaper twin of the objective, ``finish`` the share of the steps that it does not take (of
        several parts: whether the finisher runs at all).
        """
        labels = objective.labels
        if ids is not None and (ids.shape != labels.shape or ids.dtype != torch.int64):
            given = f"{ids.dtype} of shape {tuple(ids.shape)}"
            raise ImagesError(f"ids are {given}; give one int64 number per image, shape ({len(images)},)")
        ids = torch.arange(len(images), device=images.device) if ids is None else ids
        draws = (Streams(0) if streams is None else streams).named(self.name)
        images = images.detach()
        if self.draws > 1:
            objective = objective.drawn(self.draws)
            search = search.drawn(self.draws) if search is not None else None
        if len(self.parts) == 1:
            part = self.parts[0]
            aim = search.with_loss(part.loss) if search is not None else None
            found = part.engine.run(objective.with_loss(part.loss), images, ids, draws, aim, finish)
            by = torch.where(found.fooled, 0, -1)
        else:
            finisher = self.finisher if search is not None and finish > 0 else None
            found, by = run_parts(self.parts, finisher, objective, search, images, ids, draws, memory)
        return self._checked(found, by, images)

    def _checked(self, found: Perturbed, by: Tensor, images: Tensor) -> Attacked:
        """Recompute distance and box from the images themselves: an engine's word is not enough."""
        # Subtracted in float64: the rounding of a half-precision difference is a thousand times the tolerance.
        distances = self.threat.norm(found.images.double() - images.double())
        inside = (
            (distances <= self.threat.eps + TOLERANCE).all() and (found.images >= 0).all() and (found.images <= 1).all()
        )
        if not inside or not torch.isfinite(found.images).all():
            raise ImagesError(f"attack {self.name} left {self.threat} or the box [0,1]; this is a fault of the attack")
        return Attacked(
            images=found.images,
            losses=found.losses,
            fooled=found.fooled,
            flat=found.flat,
            by=by,
            distances=distances,
            model_images=found.model_images,
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
