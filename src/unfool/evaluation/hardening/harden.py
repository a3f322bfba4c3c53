# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
"""Harden a classifier within a stated time: a short adversarial training of its own weights, measured before and after.

Fine-tuning a trained classifier on examples of its own reaches much of what adversarial training from the start does
(Jeddi et al., "A simple fine-tuning is all you need: towards robust deep learning via adversarial fine-tuning", 2020).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from unfool.attacks import make_attack
from unfool.attacks.ensemble import Part, attack_passes
from unfool.core.borders.checksum import checksum
from unfool.core.errors import DataError, OutputError
from unfool.core.files import JsonObject, write_json
from unfool.core.processes import rank_and_world_size
from unfool.core.progress import Progress, silent
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.as_table import TableLike, as_table
from unfool.data.decode import Framing
from unfool.data.table import Table
from unfool.evaluation.compare import compare
from unfool.evaluation.crafting.chosen_attacks import choose_attack
from unfool.evaluation.crafting.evaluation_folder import discard
from unfool.evaluation.evaluate import evaluate, labelled
from unfool.evaluation.evaluation import Evaluation
from unfool.evaluation.hardening.budget import Budget
from unfool.evaluation.hardening.hardened import Hardened
from unfool.evaluation.hardening.kept import keep, kept
from unfool.evaluation.hardening.plan import AFTER, BEFORE, file_of, state_of
from unfool.evaluation.hardening.settings import HardenSettings
from unfool.evaluation.hardening.subject import Subject
from unfool.evaluation.identity import identity
from unfool.evaluation.results.rows import is_unverified
from unfool.evaluation.results.versions import versions
from unfool.evaluation.settings import EvaluationSettings
from unfool.training import RunConfig, train
from unfool.training.folder import METRICS, OWN_WEIGHTS, WEIGHTS
from unfool.training.metrics import last_step
from unfool.training.schedule import first_of
from unfool.training.trackers.tracker import TrackerLike, check_trackers


def harden(
    model: nn.Module,
    training_images: TableLike,
    test_images: TableLike,
    folder: str | Path,
    *,
    settings: HardenSettings | None = None,
    name: str = "model",
    column: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
    framing: Framing | None = None,
    image: str | None = None,
    device: str = "cpu",
    started: float | None = None,
    progress: Progress = silent,
    track: Sequence[TrackerLike] = (),
) -> Hardened:
    """Fine-tune a classifier on adversarial examples for a stated time, and measure what that bought and cost.

    Args:
        model: The classifier, images (B, C, H, W) in [0,1] → logits, or what `adapt` wraps one in, or a `Network`. It
            is copied and stays as it is.
        training_images: A table, or what `as_table` makes one of: the images that it is fine-tuned on.
        test_images: The same for both evaluations.
        folder: Where the run goes; the same call goes on where it was stopped, and repeats nothing that is finished.
            The hardened weights are ``model.safetensors`` in it, under the model's own names, those of a `Network`
            ``weights.safetensors``.
        settings: Threat model, time, and how it is trained and evaluated; default: ``HardenSettings()``.
        name: What the rows call the classifier.
        column: Label column of both tables; default: their own choice.
        classes: Names of the model's outputs in order, or a file with them, where it has more outputs than the tables
            have classes: labels are matched by name. Default: labels are output numbers; ImageNet's names are tried.
        framing: The size and crop that the images were brought to, for the run's configuration.
        image: The column of the images, for the same.
        device: A device of torch.
        started: When the time began to count, by ``time.monotonic()``; default: now.
        progress: Called with what is being done, and how much of it is done.
        track: Experiment trackers that get the log of training too, as `train` takes them.

    Returns:
        The run, the file of weights, both evaluations and their paired comparisons.

    Raises:
        SpecError: A classifier that cannot be trained, an error inside it as it is first looked at, settings that do
            not go together, or too little time, with the least that makes sense.
        DataError: Tables without labels, or with labels that are none of the classifier's outputs.
        OutputError: A folder that belongs to another run, or that cannot be written.

    Example:
        >>> from unfool import HardenSettings, harden
        >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3 * 8 * 8, 2))
        >>> images, labels = torch.rand(32, 3, 8, 8), [0, 1] * 16
        >>> settings = HardenSettings(threat="linf:2/255", steps=2, batch_size=8, images=8, attack="fgsm")
        >>> hardened = harden(model, (images, labels), (images, labels), "hardened", settings=settings)
        >>> sorted(hardened.comparisons), hardened.weights.name
        (['fgsm at linf:2/255', 'none'], 'model.safetensors')
    """
    settings, track = settings or HardenSettings(), check_trackers(track)
    train_table, test_table = as_table(training_images, split="train"), as_table(test_images)
    label_column = column or train_table.label_column
    if label_column is None:
        raise DataError(f"{train_table.name} has no labels, and hardening needs them; name their column")
    train_table.labels(label_column)
    folder, subject = Path(folder), Subject(model, device)
    test_table = labelled(subject.network, test_table, classes, column)
    train_table = labelled(subject.network, train_table, classes, label_column)
    subject.check_trainable()
    stage, at = subject.stage(settings, train_table, label_column), settings.at or settings.threat
    budget = Budget(settings, _passes(make_attack(settings.attack, at).parts), folder, progress, device, started)
    plan = budget.plan(stage, train_table, subject, len(test_table))
    chosen = test_table.sample(min(plan.images, len(test_table)), Streams(0).named("attacked images"))

    def evaluated(network: nn.Module, when: str, reliability: bool) -> Evaluation:
        file, state = file_of(folder, when), state_of(folder, when)
        request = _request(network, chosen, settings, at, name=name, column=column, reliability=reliability)
        finished = None if is_unverified(request["model"]) else kept(file, request)
        if first_of(float(finished is not None), device):
            if finished is None:
                raise OutputError(f"{file} is there for the first process alone; give a folder that all of them share")
            evaluation, budget.seconds[when] = finished
        else:
            with budget.timed(when) as part:
                evaluation = evaluate(
                    network,
                    chosen,
                    settings.attack,
                    settings=EvaluationSettings(threat=at, seed=settings.seed, reliability=reliability),
                    name=name,
                    column=column,
                    folder=state,
                    progress=part,
                )
            if rank_and_world_size()[0] == 0:
                keep(evaluation, file, request, budget.seconds[when])
        discard(state, [settings.attack], at)
        return evaluation

    framing = framing or Framing()
    run_of = lambda stage: RunConfig(  # noqa: E731
        data=train_table.name,
        stages=(stage,),
        size=framing.size or 0,
        crop=framing.crop,
        image=image,
        seed=settings.seed,
    )
    begun = budget.begun(stage)
    if begun is not None:
        subject.check_folder(run_of(begun), folder)
    before = evaluated(subject.network, BEFORE, reliability=False)
    config = subject.config(run_of(begun or budget.limited(stage, plan, before)), folder)
    with budget.timed("training") as part:
        run = train(config, train_table, folder, model=subject.classifier, device=device, progress=part, track=track)
    after = evaluated(run.network.to(device), AFTER, reliability=plan.reliability)
    hardened = Hardened(
        run=run,
        steps=last_step(folder / METRICS),
        weights=folder / (WEIGHTS if subject.classifier is None else OWN_WEIGHTS),
        before=before,
        after=after,
        comparisons=compare(after, before),
        seconds=dict(budget.seconds),
    )
    write_json(folder / "results" / "hardened.json", hardened.to_json())
    return hardened


def _request(
    network: nn.Module,
    images: Table,
    settings: HardenSettings,
    at: ThreatModel,
    *,
    name: str,
    column: str | None,
    reliability: bool,
) -> JsonObject:
    """All that an evaluation follows from: it is found again by this, and done anew where any of it differs."""
    chosen = choose_attack(settings.attack, at).attack
    request: JsonObject = {
        "model": identity(network),
        "name": name,
        "attack": [chosen.name, dict(chosen.settings), list(chosen.part_names), str(at)],
        "data": [images.name, images.split, column or images.label_column, images.pixel_digest],
        "labels": checksum({}, {"ids": images.ids, "labels": images.labels(column)}),
        "seed": settings.seed,
        "reliability": reliability,
        "versions": versions(),
    }
    # As JSON gives it back: a tuple is a list there.
    return json.loads(json.dumps(request, default=str))


def _passes(parts: Sequence[Part]) -> float:
    """How often an attack sends an image through the network, forward and back; forward alone is a third of that."""
    return sum(attack_passes([part]) * (1.0 if part.follows_gradients else 1 / 3) for part in parts)
