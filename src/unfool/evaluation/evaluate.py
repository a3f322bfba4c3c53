"""One call that evaluates a classifier: clean, attacked, on stored examples, and checks whether to believe it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from unfool.attacks.inputs import check_model
from unfool.core.errors import SpecError
from unfool.core.progress import Progress, silent
from unfool.core.threat import ThreatModel
from unfool.data.as_table import TableLike, as_table
from unfool.data.classes.class_map import by_outputs
from unfool.data.table import Table
from unfool.defenses import Defense
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import device_of
from unfool.evaluation.crafting.chosen_attacks import AttackLike, ChosenAttack
from unfool.evaluation.evaluation import Evaluation
from unfool.evaluation.evaluation_run import EvaluationRun
from unfool.evaluation.identity import one_identity
from unfool.evaluation.settings import EvaluationSettings, check_evaluation
from unfool.models.foreign import ForeignClassifier
from unfool.models.look import look_at
from unfool.models.outside.black_box import is_black_box

_LOOKED_AT = 8
"""Images that a classifier of another library is looked at with before it is believed."""


def evaluate(
    model: nn.Module,
    data: TableLike | None = None,
    attacks: AttackLike | Sequence[AttackLike] = (),
    *,
    settings: EvaluationSettings | None = None,
    threat: ThreatModel | str | None = None,
    name: str = "model",
    column: str | None = None,
    classes: Sequence[str] | str | Path | None = None,
    stored_sets: Mapping[str, AdversarialSet] | None = None,
    folder: str | Path | None = None,
    progress: Progress = silent,
) -> Evaluation:
    """Evaluate a classifier on clean images, under each attack, and in the worst case of all attacks on each image.

    Args:
        model: Maps images (B, C, H, W) in [0,1] to logits (B, classes). It is evaluated in eval mode and left as it
            was. Attacks search on a faster copy of it.
        data: A table, or what `as_table` makes one of: ``(images, labels)``, a data set, its name. May be left out
            where ``stored_sets`` are given and ``attacks`` are not.
        attacks: An attack, its name such as ``"pgd-20"`` or ``"autoattack"``, or a sequence of these.
        settings: Threat model, seed, and what else is computed; default: ``EvaluationSettings()``.
        threat: Threat model of attacks that are given by name, such as ``"linf:8/255"``; short for that of
            ``settings``.
        name: What the rows call the model.
        column: Label column of the data; default: the table's own choice.
        classes: Names of the model's outputs in order, or a file with them, where it has more outputs than the data has
            classes: labels are matched by name. Default: labels are output numbers; ImageNet's names are tried.
        stored_sets: Adversarial sets by name, on which the model is evaluated too. One that fits the attacks joins
            their worst case.
        folder: Where finished batches are stored. The same call with the same folder resumes where it was stopped.
        progress: Called with what is being done, and how much of it is done.

    Returns:
        Rows, the records behind them, accuracies by class, and every reason not to believe the figures (``doubts``).

    Raises:
        SpecError: Unknown attacks, attacks of different threat models, a threat model beside another one of the
            settings, nothing to evaluate on, or an error inside the model as it is first looked at, with the model's
            own line.
        DataError: No images, no such labels, or classes that are none of the model's outputs.
        ImagesError: Images or logits that break the contract.
        NonFiniteError: NaN logits.
        OutputError: A folder that holds another evaluation, or that cannot be written.

    Example:
        >>> import torch
        >>> from unfool import EvaluationSettings, evaluate
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> images = torch.full((4, 3, 4, 4), 0.4)
        >>> images[:, 1] = torch.tensor([0.5, 0.9, 0.5, 0.9])[:, None, None]
        >>> settings = EvaluationSettings(threat="linf:0.1", reliability=False)
        >>> evaluation = evaluate(model, (images, [1, 1, 1, 1]), ["fgsm", "pgd-5"], settings=settings)
        >>> for row in evaluation.rows:
        ...     print(row.attack, row.protocol, row.accuracy)
        none clean 1.0
        fgsm white-box 0.5
        pgd-5 white-box 0.5
        worst-case white-box 0.5
    """
    check_model(model)
    settings = _with_threat(settings or EvaluationSettings(), threat)
    threat, chosen = check_evaluation(attacks, settings)
    if data is None and (chosen or not stored_sets):
        raise SpecError("there is nothing to evaluate on; give a table, or stored sets without attacks")
    table = None if data is None else as_table(data)
    for item in chosen:
        item.attack.check_runs_on(model)
    with one_identity(model):
        if table is not None:
            table = labelled(model, table, classes, column)
        run = EvaluationRun(
            model, name, column, settings, threat, Path(folder) if folder is not None else None, progress
        )
        return _evaluated(run, table, chosen, stored_sets or {})


def _with_threat(settings: EvaluationSettings, threat: ThreatModel | str | None) -> EvaluationSettings:
    """The settings with a threat model; SpecError where they have another."""
    if threat is None:
        return settings
    threat = ThreatModel.parse(threat) if isinstance(threat, str) else threat
    if settings.threat not in (None, threat):
        raise SpecError(f"threat={threat} and settings with threat={settings.threat} were given; give one of the two")
    return replace(settings, threat=threat)


def labelled(model: nn.Module, table: Table, classes: Sequence[str] | str | Path | None, column: str | None) -> Table:
    """The table, once the model was looked at on a few of its images, with labels that are numbers of its outputs."""
    if isinstance(model, Defense) or not len(table):
        return table
    outputs = look_at(model, table.batch(torch.arange(min(_LOOKED_AT, len(table))), device_of(model)).images)
    several = isinstance(model, ForeignClassifier) and model.label_sets is not None
    return table if several else by_outputs(table, outputs, classes, column)


def _evaluated(
    run: EvaluationRun, table: Table | None, chosen: Sequence[ChosenAttack], stored_sets: Mapping[str, AdversarialSet]
) -> Evaluation:
    settings = run.settings
    if table is not None:
        run.clean(table)
        # What may be refused comes before what may take hours.
        if settings.binarization_test:
            run.binarization(table, chosen)
        if settings.curve is not None:
            run.curve(table, chosen[0], settings.curve)
        if settings.claim is not None:
            run.claim(table, chosen[0], settings.claim)
        else:
            run.attack(table, chosen)
    run.stored(stored_sets)
    run.worst()
    if table is not None:
        run.by_class(table)
        if settings.corruptions:
            run.corruptions(table)
        if settings.reliability:
            run.check_reliability(table, chosen)
    return Evaluation(
        name=run.name,
        rows=run.rows,
        records=run.records,
        classes=run.classes,
        corrupted=run.corrupted,
        binarization_tests=run.binarization_tests,
        claim=run.settled_claim,
        reliability=run.reliability,
        pictures=run.pictures,
        right_again=run.right_again,
        defended=isinstance(run.model, Defense),
        black_box=is_black_box(run.model),
    )
