"""What a run's log says of it: the figure that a sweep judges by, at any step, on images that it did not learn from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from unfool.core.errors import SpecError
from unfool.core.spec import unknown
from unfool.training.config import RunConfig
from unfool.training.running.log import is_logged
from unfool.training.schedule import stage_length
from unfool.training.stage_config import StageConfig

ROBUST, CLEAN, LOSS = "robust", "clean", "loss"
METRICS = (ROBUST, CLEAN, LOSS)
"""Accuracy on the held-out images, under the stage's ``stop_attack`` or clean; the training loss."""

_SMOOTHED = 10
"""Lines of the log over which the training loss is averaged."""

Line = Mapping[str, float]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """How the runs of a sweep are judged: by ``metric``, in the stage of that number.

    An accuracy is that of the weights that the stage would end with: the most robust so far, of equals the higher clean
    accuracy (see `training.selection.early_stopping`).
    """

    metric: str
    stage: int

    @property
    def higher(self) -> bool:
        """Whether a higher figure is better."""
        return self.metric != LOSS

    def measured_steps(self, config: RunConfig, images: int) -> list[int]:
        """The steps, of all stages together, after which there is a figure; ``images`` are those learnt from."""
        lengths = [stage_length(stage, images) for stage in config.stages]
        before = sum(steps for steps, _ in lengths[: self.stage])
        steps, per_epoch = lengths[self.stage]
        if self.higher:
            measured = sorted({*range(per_epoch, steps, per_epoch), steps})
        else:  # the loss of the first step is that of weights which have learnt nothing
            measured = [step for step in range(min(2, steps), steps + 1) if is_logged(step, steps)]
        return [before + step for step in measured]

    def curve(self, lines: Sequence[Line], config: RunConfig, images: int) -> list[tuple[int, float]]:
        """The figure after each step at which it was measured, of all stages together."""
        before = sum(stage_length(stage, images)[0] for stage in config.stages[: self.stage])
        own = [line for line in lines if line["stage"] == self.stage]
        points: list[tuple[int, float]] = []
        if self.higher:
            best = (-1.0, -1.0)
            for line in own:
                if "held_out/robust" in line:
                    best = max(best, (line["held_out/robust"], line["held_out/clean"]))
                    points.append((before + int(line["step"]), best[0] if self.metric == ROBUST else best[1]))
            return points
        losses = [line["loss"] for line in own]
        for number, line in enumerate(own):
            recent = losses[max(0, number + 1 - _SMOOTHED) : number + 1]
            points.append((before + int(line["step"]), sum(recent) / len(recent)))
        return points


def measure_of(metric: str | None, configs: Iterable[RunConfig]) -> Measure:
    """How runs of these configurations are judged; by robust accuracy where none is named and a stage perturbs, else
    by clean.

    Raises SpecError for an unknown metric, for an accuracy where no images are held out, and where what is varied
    changes what is measured.
    """
    configs = list(configs)
    holding = [[n for n, stage in enumerate(config.stages) if stage.held_out] for config in configs]
    if metric is None:
        perturbs = any(stage.perturb is not None for config in configs for stage in config.stages)
        metric = ROBUST if perturbs else CLEAN
    if metric not in METRICS:
        raise unknown("metric", metric, METRICS)
    if metric == LOSS:
        return Measure(metric=metric, stage=len(configs[0].stages) - 1)
    if not all(holding):
        raise SpecError(
            f"runs are judged by {metric} accuracy on images that none learns from, and no stage holds any out; set "
            "held_out of the stage that trains the classifier, such as held_out=200, or judge by the training loss "
            f"({LOSS})"
        )
    stages = {stages[-1] for stages in holding}
    if len(stages) > 1:
        raise SpecError("runs hold images out in different stages; let the same stage of each hold some out")
    measure = Measure(metric=metric, stage=stages.pop())
    names = ["held_out", *(("stop_attack", "threat") if metric == ROBUST else ())]
    for name in names:
        values = {str(getattr(config.stages[measure.stage], name)) for config in configs}
        if len(values) > 1:
            otherwise = ", or judge by clean" if name != "held_out" else ""
            raise SpecError(
                f"{name} decides what {metric} accuracy is measured on, and the runs have "
                f"{' and '.join(sorted(values))}; give it one value{otherwise}"
            )
    return measure


def rungs_of(
    measure: Measure, runs: Sequence[tuple[RunConfig, int]], settings: int, factor: int
) -> list[tuple[int, ...]]:
    """The steps at which each run pauses to be judged, as many for each: where it is first measured after a share of
    1 / factorᵏ of its steps, as often as the settings can be divided by the factor.

    ``runs`` are configurations with the number of images that they learn from. Raises SpecError for runs that cannot be
    compared on the way: of different lengths, limited to minutes, or measured at their end alone.
    """
    _check_lengths([config for config, _ in runs])
    measured = [measure.measured_steps(config, images) for config, images in runs]
    totals = [sum(stage_length(stage, images)[0] for stage in config.stages) for config, images in runs]
    rungs: list[list[int]] = []
    after = totals
    depth = max(1, sum(factor**k <= settings for k in range(1, 20)))
    for k in range(1, depth + 1):
        here = [
            next((step for step in steps if step >= total / factor**k), total)
            for steps, total in zip(measured, totals, strict=True)
        ]
        if all(step < later for step, later in zip(here, after, strict=True)):
            rungs.insert(0, here)
            after = here
    if not rungs:
        raise SpecError(
            "runs are measured at their end alone, so that none can be stopped early; give them more epochs"
        )
    return list(zip(*rungs, strict=True))


def _check_lengths(configs: Sequence[RunConfig]) -> None:
    if any(stage.minutes for config in configs for stage in config.stages):
        raise SpecError("a stage limited to minutes has no number of steps to stop it at; set minutes to 0")
    lengths = {", then ".join(map(_length, config.stages)) for config in configs}
    if len(lengths) > 1:
        raise SpecError(
            f"runs are stopped early where equally long ones are better, and these have "
            f"{' and '.join(sorted(lengths)[:2])}; vary the length in a sweep of its own, or stop none early"
        )


def _length(stage: StageConfig) -> str:
    return f"{stage.steps} steps of {stage.batch_size} images" if stage.steps else f"{stage.epochs} epochs"
