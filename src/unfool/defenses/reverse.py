"""The reverse attack: move an image down a self-supervised loss, and classify what comes out.

Mao et al., "Adversarial Attacks are Reversible with Natural Supervision", ICCV 2021, algorithm 1. Departures: negatives
come from a fixed bank unless in-batch ones are asked for (then a prediction depends on batch-mates), the draws belong
to the defense and, where the caller names the images, to each image, and one pass carries all views of all images.
"""

from __future__ import annotations

import warnings

from torch import nn

from unfool.core.errors import SpecError, UnfoolWarning
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.table import Table
from unfool.defenses.bound_task import bound_task
from unfool.defenses.pretext import TaskLoss
from unfool.defenses.registry import DEFENSES, DefenseRequest
from unfool.defenses.reversal.descent import PretextDescent
from unfool.defenses.reversal.fast_copy import fast_copy_of
from unfool.defenses.reverse_settings import Keep, Precision, ReverseSettings, Start, read_reverse_settings
from unfool.tasks.base import Task


class Reverse(PretextDescent):
    """Descend the pretext task's loss inside a ball around the image, then classify (Mao et al., ICCV 2021).

    x ← project(x - step_size · steepest(∇ loss(views of x))), algorithm 1 of the paper. Departures: negatives of a
    contrastive task come from a fixed bank by default, so that no prediction depends on batch-mates, and all draws
    belong to the defense's seed. The descent runs on a folded copy of the network; the logits are the network's own.

    Called as a module on images (B, C, H, W) in [0,1] it gives logits (B, K).

    Args:
        network: The classifier. It gives ``features(images, stage)`` and has a head for the task.
        task: The pretext task: a registered name (then with the settings of its reversal and of its head), or a task
            such as ``Contrast(Contrast.Settings(negatives="bank"))``. Default: the only task without labels that the
            network has a head for.
        head: The head's name, where it is not called like the task.
        threat: The ball in which an image is moved, such as ``Linf(16/255)``; also as text, ``"linf:16/255"``.
        steps: Gradient steps.
        step_size: The length of a step in the ball's norm, in pixel units. Default: an eighth of eps.
        start: ``"random"``, a uniform draw in the ball, or ``"image"``, the image itself.
        keep: The ``"last"`` iterate, or the ``"best"``: that of lowest loss, for one pass more.
        draws: Reversals of each image; their logits are averaged.
        redraw: Draw fresh views at every step, and not the same at all.
        precision: ``"fp32"`` or ``"bf16"``, in which the descent runs.
        calibrate_on: Images that fill what the task keeps beside its weights, such as the bank of negatives; their
            labels are not read. Give images cut from train that no head was trained on.
        batch_size: How many images are reversed together if negatives are batch-mates; more are cut into such batches,
            so that it does not matter how many a device takes at a time. A single image has a fixed picture of noise
            as its mate. No other reversal reads it.
        seed: The seed of all draws.

    Raises:
        SpecError: For a setting that is not allowed, a task that needs labels, and a head that the network lacks or
            that another task was trained on.
        DataError: For fewer images to calibrate on than the task needs.

    Example:
        >>> import torch
        >>> from unfool import Linf, Network, TrunkSpec, defenses
        >>> heads = {"labels": {"kind": "linear", "outputs": 4}, "rotation": {"kind": "linear", "outputs": 4}}
        >>> network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), heads, classifier="labels").eval()
        >>> defense = defenses.Reverse(network, "rotation", threat=Linf(8/255), steps=3)
        >>> defense
        Reverse(Network, Rotation, linf:8/255, steps=3)
        >>> images = torch.full((2, 3, 16, 16), 0.5)
        >>> defense(images).shape
        torch.Size([2, 4])
        >>> defense.purify(images).losses.shape  # before each step, and after the last
        torch.Size([4, 2])
    """

    purpose = "reverse"

    def __init__(
        self,
        network: nn.Module,
        task: Task | str | None = None,
        *,
        head: str | None = None,
        threat: ThreatModel | str = "linf:16/255",
        steps: int = 40,
        step_size: float | None = None,
        start: Start = "random",
        keep: Keep = "last",
        draws: int = 1,
        redraw: bool = True,
        precision: Precision = "fp32",
        calibrate_on: Table | None = None,
        batch_size: int = 512,
        seed: int = 0,
    ):
        ball = ThreatModel.parse(threat) if isinstance(threat, str) else threat
        checked = ReverseSettings(
            task="",
            steps=steps,
            step_size=ball.eps / 8 if step_size is None else step_size,
            start=start,
            keep=keep,
            draws=draws,
            redraw=redraw,
            precision=precision,
            batch_size=batch_size,
        )
        streams = Streams(seed).named("defense")
        bound = bound_task(network, task, head, streams=streams)
        if bound.needs:
            raise SpecError(
                f"task {type(bound).__name__} needs the labels {', '.join(bound.needs)}, which nobody has at test "
                "time; reverse a task without labels"
            )
        if calibrate_on is not None:
            bound.calibrate(network, calibrate_on, streams)  # type: ignore[arg-type]
        super().__init__(
            network,
            threat=ball,
            steps=checked.steps,
            step_size=checked.step_size or 0.0,
            start=checked.start,
            keep=checked.keep,
            draws=checked.draws,
            seed=seed,
        )
        self.task = bound
        self.redraw = checked.redraw
        self.precision = checked.precision
        self._batch_size = checked.batch_size
        if self.batch_dependent:
            warnings.warn(
                "this reversal takes its negatives from the batch, so its predictions depend on batch-mates; "
                "use negatives=bank for predictions that do not",
                UnfoolWarning,
                stacklevel=2,
            )

    @property
    def batch_dependent(self) -> bool:
        return self.task.coupled

    @property
    def own_batch_size(self) -> int | None:
        return self._batch_size if self.batch_dependent else None

    @property
    def pretext(self) -> TaskLoss:
        """The task's loss on the network itself."""
        return TaskLoss(self.network, self.task)

    @property
    def pretext_proxy(self) -> TaskLoss:
        """The task's loss on the fast copy, in ``precision``."""
        return fast_copy_of(self, self.network, self.task, self.precision)

    def __repr__(self) -> str:
        task = type(self.task).__name__
        return f"Reverse({type(self.network).__name__}, {task}, {self.threat}, steps={self.steps})"


@DEFENSES.add("reverse")
def make_reverse(request: DefenseRequest) -> Reverse:
    """The reverse attack with a task whose head the network carries."""
    own, others = read_reverse_settings(f"defense {request.name!r}", request.values, request.network)
    task = bound_task(
        request.network, own.task, own.head, settings=others, classes=request.classes, streams=request.streams
    )
    if request.images is not None:
        task.calibrate(request.network, request.images, request.streams)  # type: ignore[arg-type]
    return Reverse(
        request.network,
        task,
        threat=own.threat,
        steps=own.steps,
        step_size=own.step_size,
        start=own.start,
        keep=own.keep,
        draws=own.draws,
        redraw=own.redraw,
        precision=own.precision,
        batch_size=own.batch_size,
        seed=request.streams.seed,
    )
