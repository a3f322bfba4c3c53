# pyright: reportUnknownMemberType=false, reportUnknownArgumentType=false
"""The training of a prepared run in its folder: stage by stage from the checkpoint on, to the weights file."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import torch

from unfool.core.errors import NonFiniteError
from unfool.core.processes import joint_batch, summed
from unfool.core.progress import Progress
from unfool.models.foreign_network import ForeignNetwork, save_own_weights
from unfool.models.weights import save_network
from unfool.training.folder import CHECKPOINT, OWN_WEIGHTS, WEIGHTS, check_table
from unfool.training.running.checkpoint import RunState, read_checkpoint, save_checkpoint
from unfool.training.running.log import RunLog, is_logged
from unfool.training.running.prepared import PreparedRun
from unfool.training.running.stage_training import StageTraining
from unfool.training.trackers.tracker import RunTracker, Tracker


class DivergedError(NonFiniteError):
    """A loss or gradient of a run that is not finite, with what the run has cost by then, as its weights would say."""

    # An error comes back from a worker by its message alone; pickle then sets the attributes.
    def __init__(self, message: str, *, cpu_seconds: float = 0.0, model_images: int = 0):
        super().__init__(message)
        self.cpu_seconds, self.model_images = cpu_seconds, model_images


class Trainer:
    """Trains a run in its folder; ``until`` so many steps of all stages together it pauses, None: it does not."""

    def __init__(
        self,
        run: PreparedRun,
        folder: Path,
        *,
        progress: Progress,
        checkpoint_seconds: float,
        track: Sequence[Tracker | RunTracker] = (),
        until: int | None = None,
    ):
        self.run, self.folder, self.track, self.until = run, folder, track, until
        self.progress, self.checkpoint_seconds = progress, checkpoint_seconds
        self.checkpoint = folder / CHECKPOINT / "state.safetensors"

    def finish(self) -> bool:
        """Train what is left of the stages, and write the weights; False where the run pauses before."""
        run = self.run
        # All read the same checkpoint: the first may still be writing it for a run that the others know has stopped.
        run.accelerator.wait_for_everyone()
        saved = read_checkpoint(self.checkpoint) if self.checkpoint.is_file() else None
        if saved is not None:
            check_table(self.folder, saved.table, run.fingerprint)
        state = saved.run_state if saved is not None else RunState()
        log = RunLog(run, self.folder, state, self.track)
        try:
            while state.stage < len(run.stages):
                if self._pauses_before(state.stage, state.step):
                    return False
                training = StageTraining(run, state, saved)
                saved = None
                if not self._train(training, log):
                    return False
                training.selection.finish()
                state.stage, state.step, state.stage_seconds = state.stage + 1, 0, 0.0
        finally:
            log.finish()
        self._write_weights(log, state)
        return True

    def _train(self, training: StageTraining, log: RunLog) -> bool:
        """Train what is left of a stage; False where the run pauses in it."""
        state, clock, tasks = training.state, training.clock, " + ".join(training.stage.tasks)
        title = f"stage {state.stage + 1}/{len(self.run.stages)}: {tasks}"
        last_saved, pause = time.monotonic(), self.checkpoint_seconds
        for step in range(state.step, clock.steps):
            steps = clock.steps_in_all(step)
            try:
                outcome = training.step(step, steps)
            except NonFiniteError as error:
                seconds = log.cpu_seconds * self.run.processes
                raise DivergedError(str(error), cpu_seconds=seconds, model_images=training.model_images) from error
            last = step + 1 == steps
            if self.run.first and (is_logged(step + 1, steps) or outcome.figures):
                log.add(training.row(step + 1, outcome), state.model_images)
            pausing = not last and self._pauses_before(state.stage, step + 1)
            if not last and (pausing or time.monotonic() - last_saved >= pause):
                saving = time.monotonic()
                self._save(training, step + 1, log)
                last_saved = time.monotonic()
                # Those of large networks take seconds, and may not take the time that is there for training.
                pause = self.checkpoint_seconds * max(1.0, last_saved - saving)
            self.progress(title, step + 1, steps, f"loss {outcome.loss:.3f}")
            if last or pausing:
                return last
        return True

    def _pauses_before(self, stage: int, step: int) -> bool:
        """Whether the run pauses before that step of a stage; never before its first, of which no checkpoint tells."""
        return self.until is not None and step > 0 and self.run.steps_before(stage) + step >= self.until

    def _save(self, training: StageTraining, step: int, log: RunLog) -> None:
        """Write a checkpoint after so many steps of the stage, in the first process."""
        if log.metrics is None:
            return
        state = training.state
        state.step, state.lines, state.stage_seconds = step, log.metrics.lines, training.clock.seconds
        # What the other processes have spent is added at the end; until then each counts as the first one.
        state.cpu_seconds = log.cpu_seconds * self.run.processes
        log.metrics.sync()
        selected = training.selection.state()
        save_checkpoint(self.checkpoint, training.stage, training.optimizers, state, self.run.fingerprint, selected)

    def _write_weights(self, log: RunLog, state: RunState) -> None:
        """Write the weights with what training cost, in the first process; all count their time together."""
        run = self.run
        with joint_batch():
            seconds = summed(torch.tensor(log.cpu_seconds, device=run.device))
        run.network.requires_grad_(True)
        if not run.first:
            return
        network = run.network.to("cpu").eval()
        if isinstance(network, ForeignNetwork):
            save_own_weights(network, self.folder / OWN_WEIGHTS)
        cost = {"cpu_seconds": float(seconds), "model_images": state.model_images}
        save_network(network, self.folder / WEIGHTS, {**cost, "table": run.fingerprint})
