"""The reliability report: checks of a model and its attacks that show when an accuracy should not be believed.

The checklist is Carlini et al., "On Evaluating Adversarial Robustness", 2019; the flags for random and dynamic models
follow AutoAttack's (Croce & Hein, ICML 2020).
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from unfool.attacks import Attack, ProxySettings
from unfool.attacks.inputs import check_labels
from unfool.core.errors import DataError, SpecError
from unfool.core.progress import Progress, silent
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.as_table import TableLike, as_table
from unfool.data.table import Table
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import device_of
from unfool.evaluation.records import TRANSFER, Records
from unfool.evaluation.reliability import attack_checks, model_checks, output_checks
from unfool.evaluation.reliability.attack_checks import Trial
from unfool.evaluation.reliability.blocked_gradients import blocked_gradients
from unfool.evaluation.reliability.evidence import BLACK_BOX, GRADIENT, NOISE, Evidence, Example, gather
from unfool.evaluation.reliability.finite_differences import wrong_gradients
from unfool.evaluation.reliability.first_points import no_first_point
from unfool.evaluation.reliability.flags import not_checked
from unfool.evaluation.reliability.model_checks import Subject
from unfool.evaluation.reliability.trial_runs import TrialRuns
from unfool.evaluation.results.reliability import ATTACK_CHECKS, MODEL_CHECKS, Flag, Reliability
from unfool.evaluation.results.rows import Cost
from unfool.models.modes import frozen_eval
from unfool.models.outside.black_box import gives_classes_alone, is_black_box

CHECKS = ("start", "stands-at-any-size", "black-box-wins", "more-steps-win", "more-restarts-win")
"""Checks whose attacks are worth running elsewhere, after the first, which runs those that all compare with."""
CHECKED = 64
"""Images that are attacked."""
POOL = 4
"""Clean images looked at for each one attacked, so that enough are classified correctly."""
RANDOM = "the model is random, so that no two passes can be compared"
HALF = (
    "the model computes in 8 to 11 bits, whose roundings hide what a small step changes; check it in single precision "
    "(model.float())"
)
"""Reasons why a check is not run."""


def reliability(
    model: nn.Module,
    data: TableLike,
    *,
    threat: ThreatModel | str,
    column: str | None = None,
    attacks: Sequence[Attack] = (),
    records: Iterable[Records] = (),
    sets: Iterable[AdversarialSet] = (),
    images: int = CHECKED,
    seed: int = 0,
    proxy: ProxySettings | None = None,
    runs: Path | None = None,
    examples: dict[int, Example] | None = None,
    progress: Progress = silent,
) -> Reliability:
    """Check whether accuracies of ``model`` (images in [0,1] → logits) under ``threat`` can be believed.

    Up to ``images`` correctly classified images of the table are attacked, with a small fixed budget. The settings of
    ``attacks`` are checked too. ``records`` and ``sets`` are earlier results: attacks on the model, and examples from
    other systems, which are evaluated as transfer. The model is left as it was. Attacks of the checks search on a
    faster copy of the model where ``proxy`` says how to make it. What they did is kept in the folder ``runs``, and
    found there. Examples of images that they fool within ``threat`` go into ``examples``, by image id.
    Raises SpecError for no images, DataError for an empty table, ImagesError and NonFiniteError as attacks do.
    """
    if images < 1:
        raise SpecError(f"{images} images are not allowed; give 1 or more, such as 64")
    table = as_table(data)
    if not len(table):
        raise DataError("there are no images to check a model on; give a table with at least one")
    threat = ThreatModel.parse(threat) if isinstance(threat, str) else threat
    started = time.process_time()
    run = _Run(progress, runs, proxy)
    run.note("train-mode", model_checks.train_mode(model))
    with torch.inference_mode(False), frozen_eval(model):
        run.look(model, table, threat, column, attacks, records, sets, images, Streams(seed).named("reliability"))
    if examples is not None:
        examples.update(run.evidence.examples)
    return run.result(time.process_time() - started + run.earlier_seconds)


def run_checks(
    model: nn.Module,
    table: Table,
    *,
    threat: ThreatModel,
    column: str | None,
    attacks: Sequence[Attack],
    runs: Path,
    check: str,
    images: int = CHECKED,
    seed: int = 0,
    proxy: ProxySettings | None = None,
) -> None:
    """Run the attacks of one check of `CHECKS` into the folder ``runs``, where `reliability` finds them.

    What earlier evaluations will say is not known here: where it changes which images are attacked, the check is made
    again.
    """
    streams = Streams(seed).named("reliability")
    with torch.inference_mode(False), frozen_eval(model):
        pool, everyone, _, correct = _looked_at(model, table, column, images, streams)
        subject = _attacked(pool, everyone, correct, images, streams)
        if is_black_box(model) or len(subject.ids) < attack_checks.FEWEST_CORRECT:
            return
        trial = Trial(subject, threat, Evidence(), streams.named("attacks"), TrialRuns(runs), proxy)
        if check == "black-box-wins":
            attack_checks.black_box_wins(trial)
        elif check == "stands-at-any-size":
            attack_checks.stands_at_any_size(trial)
        elif check == "more-steps-win":
            attack_checks.more_steps_win(trial, attacks)
        elif check == "more-restarts-win":
            attack_checks.more_restarts_win(trial)


def _looked_at(
    model: nn.Module, table: Table, column: str | None, images: int, streams: Streams
) -> tuple[Table, Subject, Tensor, Tensor]:
    """The images that are looked at, as a table and as a subject, their logits, and which are right."""
    pool = table.sample(min(len(table), POOL * images), streams.named("pool"))
    device = device_of(model)
    batch = pool.batch(device=device)
    labels = pool.labels(column).to(device)
    check_labels(batch.images, labels)
    everyone = Subject(model, batch.images, labels, batch.ids)
    logits = torch.cat([everyone.logits(part) for part in batch.images.split(images)])
    return pool, everyone, logits, logits.argmax(1) == everyone.labels


def _attacked(pool: Table, everyone: Subject, correct: Tensor, images: int, streams: Streams) -> Subject:
    """The images that are attacked: so many of the right ones."""
    chosen = pool.subset(correct.cpu())
    chosen = chosen.sample(min(images, len(chosen)), streams.named("attacked"))
    return everyone.on(torch.isin(everyone.ids, chosen.ids.to(everyone.ids.device)))


class _Run:
    """Runs the checks one by one and collects their flags."""

    def __init__(self, progress: Progress, runs: Path | None, proxy: ProxySettings | None):
        self.progress = progress
        self.runs = runs
        self.proxy = proxy
        self.earlier_seconds = 0.0
        self.flags: list[Flag] = []
        self.checked: list[str] = []
        self.needless: list[str] = []
        self.missed = 0
        self.evidence = Evidence()
        self.images = 0
        self.model_images = 0

    def note(self, name: str, flag: Flag | None) -> None:
        """Record that a check was run, and its flag if it raised one."""
        self.checked.append(name)
        if flag is not None:
            self.flags.append(flag)
        self._tell()

    def miss(self, names: Sequence[str], reason: str) -> None:
        """Record that checks could not be run."""
        self.flags.append(not_checked(names, reason))
        self.missed += len(names)
        self._tell()

    def _tell(self) -> None:
        done = len(self.checked) + len(self.needless) + self.missed
        self.progress("reliability", done, len(MODEL_CHECKS) + len(ATTACK_CHECKS))

    def look(
        self,
        model: nn.Module,
        table: Table,
        threat: ThreatModel,
        column: str | None,
        attacks: Sequence[Attack],
        records: Iterable[Records],
        sets: Iterable[AdversarialSet],
        images: int,
        streams: Streams,
    ) -> None:
        pool, everyone, logits, correct = _looked_at(model, table, column, images, streams)
        sets = list(sets)
        self._model(everyone, logits, correct, attacks, images)
        self.note("no-first-point", no_first_point(model, everyone.ids, correct, attacks, sets))
        own = column or table.label_column
        others = {name: pool.labels(name).to(correct.device) for name in pool.columns if name != own}
        self.note("chance", output_checks.chance(logits, everyone.labels, correct, others))
        subject = _attacked(pool, everyone, correct, images, streams)
        self.images = len(subject.ids)
        gathered = gather(model, table, threat, records, sets, column)
        self.evidence = gathered.evidence
        if is_black_box(model):
            self.miss(ATTACK_CHECKS, "the model gives scores without a gradient: what stands is an upper bound")
            self.model_images += everyone.model_images + gathered.model_images
            return
        if self._settled(subject):
            self.needless = list(ATTACK_CHECKS)
            self._tell()
        elif self.images < attack_checks.FEWEST_CORRECT:
            more = "" if any(flag.name == "chance" for flag in self.flags) else "; give more images"
            reason = (
                f"only {self.images} of {len(pool)} images are classified correctly, and "
                f"{attack_checks.FEWEST_CORRECT} are needed{more}"
            )
            self.miss(ATTACK_CHECKS, reason)
        else:
            trial = Trial(subject, threat, self.evidence, streams.named("attacks"), TrialRuns(self.runs), self.proxy)
            self._attack(trial, gathered.zero_gradient, attacks)
            self.earlier_seconds = trial.earlier_seconds
        self.model_images += everyone.model_images + subject.model_images + gathered.model_images

    def _model(
        self, everyone: Subject, logits: Tensor, correct: Tensor, attacks: Sequence[Attack], images: int
    ) -> None:
        rows = torch.arange(min(images, len(correct)), device=correct.device)
        subject = everyone.on(rows, logits[rows])
        random = model_checks.randomised_output(subject, attacks)
        self.note("randomised-output", random)
        if random is None:
            self.note("batch-dependence", model_checks.batch_dependence(subject))
        else:
            self.miss(["batch-dependence"], RANDOM)
        self.note("dynamic-inference", model_checks.dynamic_inference(subject))
        # Classes alone come as 0 and 1.
        scores = not gives_classes_alone(everyone.model)
        self.note("probabilities", output_checks.probabilities(logits) if scores else None)
        self.note("few-classes", model_checks.few_classes(logits.shape[1], attacks))
        self.note("short-steps", model_checks.short_steps(attacks))
        if not model_checks.normalises(subject.model):
            if len(correct) < model_checks.FEWEST_IMAGES:
                self.miss(["missing-normalisation"], f"{model_checks.FEWEST_IMAGES} images are needed; give more")
            else:
                self.note("missing-normalisation", model_checks.missing_normalisation(everyone, correct, images))
        self.model_images += subject.model_images

    def _settled(self, subject: Subject) -> bool:
        """Whether an attack left nothing right, and gradients fooled each image that would be attacked here.

        No check can then show an accuracy to be too high. Of a model that is random, or depends on batch-mates, an
        attack's own word is not enough.
        """
        changing = {"randomised-output", "batch-dependence"}
        if not self.evidence.none_is_right or any(flag.name in changing for flag in self.flags):
            return False
        return bool(subject.ids.tolist()) and set(subject.ids.tolist()) <= self.evidence.fooled_by(GRADIENT)

    def _attack(self, trial: Trial, zero_gradient: Tensor, attacks: Sequence[Attack]) -> None:
        self.note("vanishing-gradients", attack_checks.vanishing_gradients(trial, zero_gradient))
        self.note("black-box-wins", attack_checks.black_box_wins(trial))
        self.note("noise-wins", attack_checks.noise_wins(trial))
        if self.evidence.compared(TRANSFER):
            self.note("transfer-wins", attack_checks.transfer_wins(trial))
        self.note("stands-at-any-size", attack_checks.stands_at_any_size(trial))
        self.note("more-steps-win", attack_checks.more_steps_win(trial, attacks))
        self.note("more-restarts-win", attack_checks.more_restarts_win(trial))
        random = any(flag.name == "randomised-output" for flag in self.flags)
        blocked = HALF if trial.subject.half else ""
        reasons = {"wrong-gradients": RANDOM if random else blocked, "blocked-gradients": blocked}
        for reason in dict.fromkeys(filter(None, reasons.values())):
            self.miss([name for name in reasons if reasons[name] == reason], reason)
        if not reasons["wrong-gradients"]:
            self.note("wrong-gradients", wrong_gradients(trial.subject, trial.threat))
        if not reasons["blocked-gradients"]:
            streams = trial.streams.named("blocked")
            self.note("blocked-gradients", blocked_gradients(trial.subject, trial.threat, streams))

    def result(self, seconds: float) -> Reliability:
        missed: dict[str, list[int]] = {}
        for kind in (BLACK_BOX, NOISE, TRANSFER):
            missed |= self.evidence.missed_by_gradients(kind)
        return Reliability(
            flags=self.flags,
            checked=self.checked,
            needless=self.needless,
            missed_by_gradients=missed,
            images=self.images,
            cost=Cost(cpu_seconds=round(seconds, 2), model_images=self.model_images),
        )
