# pyright: reportUnknownMemberType=false, reportUnknownLambdaType=false, reportUnknownArgumentType=false, reportUnknownVariableType=false
"""Harden a classifier within a stated time: a short adversarial training of its own weights, measured before and after.

Fine-tuning a trained classifier on examples of its own reaches much of what adversarial training from the start does
(Jeddi et al., "A simple fine-tuning is all you need: towards robust deep learning via adversarial fine-tuning", 2020).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import nn

from unfool.attacks import make_attack
from unfool.attacks.ensemble import Part, attack_passes
from unfool.core.errors import DataError
from unfool.core.files import write_json
from unfool.core.progress import Progress, silent
from unfool.core.streams import Streams
from unfool.data.as_table import TableLike, as_table
from unfool.data.decode import Framing
from unfool.evaluation.compare import compare
from unfool.evaluation.crafting.evaluation_folder import discard
from unfool.evaluation.evaluate import evaluate, labelled
from unfool.evaluation.evaluation import Evaluation
from unfool.evaluation.hardening.budget import Budget
from unfool.evaluation.hardening.hardened import Hardened
from unfool.evaluation.hardening.plan import AFTER, BEFORE, state_of
from unfool.evaluation.hardening.settings import HardenSettings
from unfool.evaluation.hardening.subject import Subject
from unfool.evaluation.settings import EvaluationSettings
from unfool.training import RunConfig, train
from unfool.training.folder import METRICS, OWN_WEIGHTS, WEIGHTS
from unfool.training.metrics import last_step
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
    keep_evaluations: bool = False,
    progress: Progress = silent,
    track: Sequence[TrackerLike] = (),
) -> Hardened:
    """Fine-tune a classifier on adversarial examples for a stated time, and measure what that bought and cost.

    Args:
        model: The classifier, images (B, C, H, W) in [0,1] → logits, or what `adapt` wraps one in, or a `Network`. It
            is copied and stays as it is.
        training_images: A table, or what `as_table` makes one of: the images that it is fine-tuned on.
        test_images: The same for both evaluations.
        folder: Where the run goes; the same call goes on where it was stopped. The hardened weights are
            ``model.safetensors`` in it, under the model's own names, those of a `Network` ``weights.safetensors``.
        settings: Threat model, time, and how it is trained and evaluated; default: ``HardenSettings()``.
        name: What the rows call the classifier.
        column: Label column of both tables; default: their own choice.
        classes: Names of the model's outputs in order, or a file with them, where it has more outputs than the tables
            have classes: labels are matched by name. Default: labels are output numbers; ImageNet's names are tried.
        framing: The size and crop that the images were brought to, for the run's configuration.
        image: The column of the images, for the same.
        device: A device of torch.
        started: When the time began to count, by ``time.monotonic()``; default: now.
        keep_evaluations: Keep what both evaluations stored, so that the same call finds it, until
            `discard_evaluations`.
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
        with budget.timed(when) as part:
            return evaluate(
                network,
                chosen,
                settings.attack,
                settings=EvaluationSettings(threat=at, seed=settings.seed, reliability=reliability),
                name=name,
                column=column,
                folder=state_of(folder, when),
                progress=part,
            )

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
    if not keep_evaluations:
        discard_evaluations(folder, settings)
    return hardened


def discard_evaluations(folder: str | Path, settings: HardenSettings) -> None:
    """Remove what both evaluations of a finished hardening stored in its folder."""
    for when in (BEFORE, AFTER):
        discard(state_of(Path(folder), when), [settings.attack], str(settings.at or settings.threat))


def _passes(parts: Sequence[Part]) -> float:
    """How often an attack sends an image through the network, forward and back; forward alone is a third of that."""
    return sum(attack_passes([part]) * (1.0 if part.follows_gradients else 1 / 3) for part in parts)
