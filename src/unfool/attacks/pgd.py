"""FGSM and PGD in any norm: settings of the projected-gradient engine."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from unfool.attacks.base import ATTACKS, Attack, Settings
from unfool.attacks.engines.projected_gradient import ProjectedGradient
from unfool.attacks.ensemble import Part
from unfool.attacks.problem import CheckedGoal
from unfool.core.config import configured
from unfool.core.errors import SpecError
from unfool.core.geometry import GEOMETRIES
from unfool.core.spec import parse_number
from unfool.core.threat import ThreatModel


def _number(value: Any) -> Any:
    return parse_number(value, "number") if isinstance(value, str) else value


StepSize = Annotated[float, BeforeValidator(_number), Field(ge=0, allow_inf_nan=False)]


@ATTACKS.add("fgsm-rs")
@ATTACKS.add("fgsm")
@configured
class FGSM(Attack):
    """Fast gradient sign method: one step along the gradient, in the threat model's norm.

    x' = project(x + step_size · steepest(∇ loss(x))): in linf the gradient's sign (Goodfellow et al., "Explaining and
    harnessing adversarial examples", ICLR 2015, section 4), in l2 the unit gradient, in l1 the steepest 1 % of the
    values. With a random start and a step of 1.25 eps it is the attack of Wong et al., "Fast is better than free",
    ICLR 2020, algorithm 3; as text ``fgsm-rs``.

    Args:
        step_size: Length of the step in pixel units; default: eps, so that the step reaches the edge of the ball.
        random_start: Start from a uniform draw in the ball, not from the image itself.
        goal: Which point to return: ``"last"``, the one after the step; ``"best"``, of start and end the one that
            fools, or else the one with the higher loss; ``"success"``, as best, but images that are misclassified at
            the start stay there.

    Example:
        >>> import torch
        >>> from unfool import Linf, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> attacks.FGSM(Linf(0.1))(model, images, torch.tensor([0])).images
        tensor([[[[0.5000, 0.6000],
                  [0.5000, 0.4000]]]])
    """

    step_size: StepSize | None = None
    random_start: bool = False
    goal: CheckedGoal = "last"

    preset_defaults = frozenset({"step_size"})
    norms = tuple(GEOMETRIES)

    @classmethod
    def preset(cls, name: str, threat: ThreatModel) -> Settings:
        return {"random_start": True, "step_size": 1.25 * threat.eps} if name == "fgsm-rs" else {}

    @property
    def own_settings(self) -> Settings:
        return {**super().own_settings, "step_size": filled_step(self.step_size, self.threat, 1.0), "steps": 1}

    @property
    def parts(self) -> tuple[Part, ...]:
        engine = ProjectedGradient(
            threat=self.threat,
            steps=1,
            step_size=filled_step(self.step_size, self.threat, 1.0),
            random_start=self.random_start,
            goal=self.goal,
        )
        return (Part(name=self.name, engine=engine),)


@ATTACKS.add("pgd")
@configured
class PGD(Attack):
    """Projected gradient descent on the cross-entropy, in the threat model's norm.

    x ← project(x + step_size · steepest(∇ loss(x))), from a random point of the ball (Madry et al., "Towards deep
    learning models resistant to adversarial attacks", ICLR 2018, section 2.1). The steepest step is the gradient's sign
    in linf, the unit gradient in l2, and in l1 the steepest 1 % of the values.

    Departures from the paper: an image that is fooled leaves the batch at once (``goal="success"``), so that the attack
    costs less and never loses an example that it has found; and each image draws its start by its own id, whatever
    batch it is in.

    Args:
        steps: Gradient steps in each run.
        step_size: Length of a step in pixel units; default: a quarter of eps, which is 2/255 for 8/255.
        random_start: Start from a uniform draw in the ball, not from the image itself.
        restarts: Runs, each from a start of its own. More than one need a random start.
        goal: Which point to return: ``"success"``, the first that fools the model, or else the one with the highest
            loss; ``"best"``, of all points the one that fools with the highest loss; ``"last"``, the last iterate,
            of one run alone.

    Raises:
        SpecError: A setting is not allowed, or there are several restarts without a random start or for the last
            iterate.

    Example:
        >>> import torch
        >>> from unfool import Linf, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> attack = attacks.PGD(Linf(0.1), steps=5, restarts=2)
        >>> attack
        PGD(linf:0.1, steps=5, restarts=2)
        >>> attacked = attack(model, images, torch.tensor([0]))
        >>> attacked.fooled
        tensor([True])
        >>> bool(attacked.distances <= 0.1 + 1e-6)
        True
    """

    steps: int = Field(default=10, ge=0)
    step_size: StepSize | None = None
    random_start: bool = True
    restarts: int = Field(default=1, ge=1)
    goal: CheckedGoal = "success"

    norms = tuple(GEOMETRIES)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.goal == "last" and self.restarts > 1:
            raise SpecError(
                f"restarts={self.restarts} with goal=last would keep the last run alone, and lose what the others "
                "fooled; set restarts=1, or goal=success or best"
            )

    @property
    def default_name(self) -> str:
        return f"{self.registered_name}-{self.steps}"

    @property
    def own_settings(self) -> Settings:
        return {**super().own_settings, "step_size": filled_step(self.step_size, self.threat, 0.25)}

    @property
    def loss(self) -> str:
        """The loss that is climbed, one of `LOSSES`."""
        return "ce"

    @property
    def parts(self) -> tuple[Part, ...]:
        engine = ProjectedGradient(
            threat=self.threat,
            steps=self.steps,
            step_size=filled_step(self.step_size, self.threat, 0.25),
            random_start=self.random_start,
            restarts=self.restarts,
            goal=self.goal,
        )
        return (Part(name=self.name, engine=engine, loss=self.loss),)


@ATTACKS.add("cw-pgd")
@configured
class CWPGD(PGD):
    """Projected gradient descent on the margin of the logits, which saturated probabilities do not hide.

    The loss is max over the other classes of z_j - z_label (Carlini & Wagner, "Towards evaluating the robustness of
    neural networks", S&P 2017, f_6 without its constant), under PGD as in Madry et al., ICLR 2018, section 5.

    Example:
        >>> import torch
        >>> from unfool import Linf, attacks
        >>> model = torch.nn.Flatten()  # four pixels are four logits
        >>> images = torch.tensor([[[[0.6, 0.5], [0.4, 0.3]]]])
        >>> attacks.CWPGD(Linf(0.04), steps=5)(model, images, torch.tensor([0])).losses
        tensor([-0.0200])
    """

    @property
    def loss(self) -> str:
        """The loss that is climbed, one of `LOSSES`."""
        return "margin"


def filled_step(step_size: float | None, threat: ThreatModel, share: float) -> float:
    """The step size, by default a share of eps."""
    return threat.eps * share if step_size is None else step_size
