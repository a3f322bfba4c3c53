"""What every attack is: a threat model and settings, called on a model, images and labels."""

from __future__ import annotations

import dataclasses
import warnings
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeAlias

import torch
from pydantic import PositiveInt
from pydantic.fields import FieldInfo
from torch import Tensor, nn

from unfool.attacks.attacked import Attacked, checked
from unfool.attacks.ensemble import Checkpoint, LearnsFrom, Part, run_alone, run_parts
from unfool.attacks.inputs import Images, Labels, as_ids, as_labels, check_model, readable_images
from unfool.attacks.objective import LabelLoss
from unfool.attacks.problem import Engine, Problem
from unfool.attacks.proxy import ProxySettings
from unfool.core.errors import SpecError, UnfoolWarning
from unfool.core.files import JsonObject
from unfool.core.registry import Registry
from unfool.core.spec import write_number
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.models.modes import frozen_eval
from unfool.models.outside.black_box import gives_classes_alone, is_black_box

Settings: TypeAlias = JsonObject
"""Settings of an attack by name, as records keep them."""

DENSE = ("linf", "l2", "l1")
"""Norms in which all values of an image may change a little."""

_COMMON = ("threat", "label", "eot_draws")
"""Fields of every attack, which are not settings of its own."""


class NoFormError(SpecError):
    """An attack in a norm that it does not work in."""


@dataclass(frozen=True, repr=False)
class Attack(ABC):
    """A configured attack, called on a model and images; the base class of all attacks.

    A subclass is a `configured` class whose fields are its settings, and gives its ``parts``. Registered under a name
    in `ATTACKS`, it is known to `make_attack` and to the command line, and the conformance tests run on it. Its
    docstring describes its own settings; those below are added by themselves.

    Args:
        threat: The allowed perturbations, such as ``Linf(8/255)``.
        label: Name in results and of the random draws; default: the attack's own, such as ``"pgd-20"``.
        eot_draws: For a model that is random: passes that each loss and gradient is averaged over (expectation over
            transformation, Athalye et al., ICML 2018).

    Returns:
        An attack. Called on a model, images (B, C, H, W) in [0,1] and labels (B,), it returns an `Attacked` with images
        (B, C, H, W) inside the threat model, and ``fooled``, ``losses`` and ``distances``, each (B,).

    Raises:
        SpecError: A setting is not allowed.

    Example:
        An attack of one's own; with ``@ATTACKS.add("long-pgd")`` over it, it could be written as text too.

        >>> from unfool.attacks import Part
        >>> from unfool.attacks.engines.projected_gradient import ProjectedGradient
        >>> from unfool.core.config import configured
        >>> @configured
        ... class LongPGD(Attack):
        ...     steps: int = 1000
        ...
        ...     @property
        ...     def parts(self):
        ...         engine = ProjectedGradient(threat=self.threat, steps=self.steps, step_size=self.threat.eps / 10)
        ...         return (Part(name=self.name, engine=engine, loss="margin", learns_from="gradient"),)
        >>> LongPGD(Linf(8/255), steps=500)
        LongPGD(linf:8/255, steps=500)
        >>> LongPGD(Linf(8/255)).follows_gradients
        True
    """

    threat: ThreatModel
    label: str = field(default="", kw_only=True)
    eot_draws: PositiveInt = field(default=1, kw_only=True)

    norms: ClassVar[tuple[str, ...]] = DENSE
    """The norms that the attack works in; in another it is refused."""

    uses_proxy: ClassVar[bool] = True
    """Whether a faster copy of the model, where there is one, drives the search."""

    preset_defaults: ClassVar[frozenset[str]] = frozenset()
    """Settings of a `preset` that text may set to something else; the others are what the name stands for."""

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        # Set on each class, as a dataclass would otherwise generate one that prints every field.
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Attack.__repr__

    def __post_init__(self) -> None:
        if self.threat.norm_name not in self.norms:
            name = self.threat.norm_name
            able = ", ".join(sorted(each for each in ATTACKS if name in ATTACKS[each].norms))
            raise NoFormError(
                f"attack {self.registered_name} has no form in {name}, and {self.threat} was given; "
                f"attacks in {name} are {able}"
            )
        # Engines refuse settings that do not go together; better here than at the first batch.
        _ = self.parts

    @property
    @abstractmethod
    def parts(self) -> tuple[Part, ...]:
        """The engines in order; each attacks the images that those before it did not fool."""

    @classmethod
    def preset(cls, name: str, threat: ThreatModel) -> Settings:
        """The settings that a registered name stands for, where a class is registered under several names."""
        return {}

    @property
    def registered_name(self) -> str:
        """The name in `ATTACKS` that these settings belong to; of a class that is not there, its own in lower case."""
        names = (name for name in ATTACKS if ATTACKS[name] is type(self))
        return next(names, type(self).__name__.lower())

    @property
    def name(self) -> str:
        """Name in results and of the random draws: the label, or by default `default_name`."""
        return self.label or self.default_name

    @property
    def default_name(self) -> str:
        """The registered name, with the number of steps where that is not the default."""
        steps = self._changed.get("steps")
        return self.registered_name if steps is None else f"{self.registered_name}-{steps}"

    @property
    def own_settings(self) -> Settings:
        """The class's own settings by name, defaults that depend on the threat model filled in."""
        return {key: getattr(self, key) for key in self.setting_names() if key != "eot_draws"}

    @property
    def settings(self) -> Settings:
        """What records keep: the own settings, and how many draws are averaged where it is more than one."""
        return {**self.own_settings, **({"eot_draws": self.eot_draws} if self.eot_draws > 1 else {})}

    @property
    def unusual_settings(self) -> Settings:
        """The settings that are neither the default nor said by the name: what tables print beside the name."""
        spelled = self.label if self.label in ATTACKS else self.registered_name
        preset = self.preset(spelled, self.threat)
        return {
            key: value
            for key, value in self._changed.items()
            if preset.get(key, dataclasses.MISSING) != value
            and not (key == "steps" and self.name.endswith(f"-{value}"))
        }

    @classmethod
    def setting_names(cls) -> tuple[str, ...]:
        """Names of the settings: all fields but ``threat`` and ``label``."""
        own = [item.name for item in dataclasses.fields(cls) if item.name not in _COMMON]
        return (*own, "eot_draws")

    @property
    def _changed(self) -> Settings:
        """The settings that are not the class's defaults."""
        defaults = {item.name: item.default for item in dataclasses.fields(self)}
        changed: Settings = {}
        for key in self.setting_names():
            default, value = defaults[key], getattr(self, key)
            if value != (default.default if isinstance(default, FieldInfo) else default):
                changed[key] = value
        return changed

    @property
    def finisher(self) -> Part | None:
        """Runs last under a bf16 proxy: steps of the model itself, from the best point of each image not fooled."""
        return None

    @property
    def averaged_passes(self) -> int:
        """How many passes of a random model each loss and gradient is averaged over."""
        return self.eot_draws

    @property
    def success_passes(self) -> int:
        """How many passes in a row must misclassify an image that counts as fooled: more than one where the model is
        random, which one pass misclassifies by luck."""
        return 1

    @property
    def engine(self) -> Engine:
        """The engine of an attack of one part; of several, the first."""
        return self.parts[0].engine

    @property
    def training_engine(self) -> Engine:
        """The engine that perturbs the views of a training stage: that of the attack, unless training has its own."""
        return self.engine

    @property
    def part_names(self) -> list[str]:
        """Names of the parts, and of the finisher; ``Attacked.fooled_by_part`` is an index into this list."""
        return [part.name for part in self._plan]

    @property
    def learns_from(self) -> list[LearnsFrom]:
        """What each of ``part_names`` learns from the model: ``gradient``, ``scores``, ``decisions`` or ``nothing``."""
        return [part.learns_from for part in self._plan]

    @property
    def follows_gradients(self) -> bool:
        """Whether any part follows gradients, so that a model may mislead it by masking them."""
        return "gradient" in self.learns_from

    @property
    def _plan(self) -> list[Part]:
        return [*self.parts, *([self.finisher] if self.finisher is not None else [])]

    def __repr__(self) -> str:
        changed = [f"{key}={_shown(value)}" for key, value in self._changed.items()]
        label = [f"label={self.label!r}"] if self.label and not self.label.startswith(self.registered_name) else []
        return f"{type(self).__name__}({', '.join([str(self.threat), *changed, *label])})"

    def __call__(
        self,
        model: nn.Module,
        images: Images,
        labels: Labels,
        *,
        ids: Tensor | None = None,
        streams: Streams | None = None,
        proxy: ProxySettings | None = None,
        proxy_model: nn.Module | None = None,
        checkpoint: Checkpoint | None = None,
        others: tuple[Tensor, Tensor] | None = None,
        at_once: int | None = None,
    ) -> Attacked:
        """Attack a model on a batch of images.

        The model is attacked in eval mode. Its modes, parameters, ``.grad``, buffers and the global random state are
        left as they were, also when an exception passes.

        Args:
            model: Maps images in [0,1] to logits (B, classes).
            images: Clean images (B, C, H, W), floating point, in [0,1]; a tensor or a NumPy array, which goes to the
                model's device. Images for a float32 model become float32.
            labels: The images' classes (B,), integers from 0.
            ids: Ids of the images (B,), int64, by which random draws are made; default: their positions.
            streams: Seed of the random draws; default ``Streams(0)``.
            proxy: Turns on a faster copy of the model, on which the attack looks for examples.
            proxy_model: The copy itself, ``proxy.copy(model)``, so that several batches can share it.
            checkpoint: Keeps the state between the parts of an attack.
            others: Other images (M, C, H, W) and their labels (M,), where an attack by decisions may begin.
            at_once: The most images in one group, as many as memory holds; default: all in one. An attack of several
                parts makes new groups after each part, of the images that still stand. A few images may take several
                places in a pass, one for each target class.

        Returns:
            An `Attacked` with the images (B, C, H, W) and what is known of each.

        Raises:
            ImagesError: Images or labels break the contract, or the model's outputs are no logits for them.
            NonFiniteError: The model gave a NaN or infinite loss or gradient.
            SpecError: ``model`` is no module, or cannot be copied for the proxy; or ``at_once`` is below 1.
        """
        if at_once is not None and at_once < 1:
            raise SpecError(f"at_once={at_once} is not allowed; give 1 or more")
        check_model(model)
        self.check_runs_on(model)
        images = readable_images(model, images)
        self.threat.check_fits(images)
        labels = as_labels(images, labels)
        # A caller's inference mode would forbid the gradient by the image.
        with torch.inference_mode(False), frozen_eval(model):
            if proxy is not None and proxy_model is None:
                proxy_model = proxy.copy(model, images[:4])
            by_row = bool(getattr(proxy_model, "by_row", False))
            problem = Problem(
                objective=LabelLoss(model, labels),
                images=images,
                ids=as_ids(images, ids),
                streams=Streams(0) if streams is None else streams,
                proxy_objective=None if proxy_model is None else LabelLoss(proxy_model, labels, by_row=by_row),
                exact_share=proxy.exact_share if proxy is not None else 0.1,
                others=None if others is None else (others[0].to(images), others[1].to(labels)),
                at_once=at_once,
            )
            return self.run(problem, checkpoint)

    def check_runs_on(self, model: nn.Module) -> None:
        """Raise SpecError for a black box that does not give what the attack learns from; warn of steps beyond the
        ball."""
        step, eps = getattr(self, "step_size", None), self.threat.eps
        # From a random start the far side of the ball is two eps away, which one long step may aim at.
        longest = 2 * eps if getattr(self, "random_start", False) and getattr(self, "steps", 1) == 1 else eps
        if step is not None and eps > 0 and step > longest * (1 + 1e-6):
            words = f"{self.name} steps by {step:.4g}, beyond eps {eps:.4g}, so that each step ends at the edge"
            warnings.warn(f"{words}; step sizes are in pixel units, such as 2/255", UnfoolWarning, stacklevel=4)
        if (self.follows_gradients or "scores" in self.learns_from) and gives_classes_alone(model):
            how = "follows gradients" if self.follows_gradients else "learns from scores"
            raise SpecError(
                f"{self.name} {how}, and the model gives classes alone; attack it with a decision-based attack, such "
                "as hop-skip-jump-1000"
            )
        if self.follows_gradients and is_black_box(model):
            raise SpecError(
                f"{self.name} follows gradients, and the model gives scores without one; "
                "attack it with a score-based attack, such as square-1000"
            )

    def run(self, problem: Problem[LabelLoss], checkpoint: Checkpoint | None = None) -> Attacked:
        """Solve a problem that the caller has prepared: model in eval mode, frozen parameters.

        Each part climbs its own loss of the problem's objective. Of several parts, the finisher runs if there is a
        proxy and ``exact_share`` is not 0.
        """
        objective, proxy = problem.objective, problem.proxy_objective if self.uses_proxy else None
        if self.averaged_passes > 1:
            objective = objective.averaged(self.averaged_passes)
            proxy = proxy.averaged(self.averaged_passes) if proxy is not None else None
        if self.success_passes > 1:
            objective = objective.with_success_passes(self.success_passes)
        problem = dataclasses.replace(
            problem,
            objective=objective,
            proxy_objective=proxy,
            images=problem.images.detach(),
            streams=problem.streams.named(self.name),
        )
        parts = self.parts
        if len(parts) == 1:
            loss = parts[0].loss
            problem = dataclasses.replace(
                problem,
                objective=objective.with_loss(loss),
                proxy_objective=proxy.with_loss(loss) if proxy is not None else None,
            )
            perturbed = run_alone(parts[0], problem)
            fooled_by_part = torch.where(perturbed.fooled, 0, -1)
        else:
            finisher = self.finisher if proxy is not None and problem.exact_share > 0 else None
            perturbed, fooled_by_part = run_parts(parts, finisher, problem, checkpoint)
        return checked(self.name, self.threat, perturbed, fooled_by_part, problem.images)


ATTACKS: Registry[type[Attack]] = Registry("attack", "unfool.attacks", subclass_of=Attack)
"""Attack classes by name. ``@ATTACKS.add("mine")`` over a class adds an attack."""


def _shown(value: Any) -> str:
    return write_number(value) if isinstance(value, float) else repr(value)
