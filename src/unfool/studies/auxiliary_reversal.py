"""System D: when does a self-supervised auxiliary help, and when is its reversal worth anything?

The source learns inpainting beside the labels or on a frozen classifier, attacks the classifier, and moves images down
the inpainting loss before they are classified. This study fills the missing row of its table, asks the same of every
task without labels, and lets strong and adaptive attacks answer.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from unfool.report.curves import Curve
from unfool.studies.auxiliary_charts import charts
from unfool.studies.auxiliary_claims import judge_claims
from unfool.studies.auxiliary_measures import Judged, fillings, fills, in_training, judged_all, learnt
from unfool.studies.auxiliary_networks import Trained, attacks, networks, solvers, trained
from unfool.studies.auxiliary_pictures import strips
from unfool.studies.auxiliary_scales import DEMO, FULL, INPAINTING, MASKS, SMALL, Scale
from unfool.studies.base import STUDIES, Outcome, Study
from unfool.studies.recipes import ROBUST
from unfool.studies.workspace import Workspace
from unfool.training.regimes import CLASSIFIER_FIRST


@STUDIES.add("auxiliary-reversal")
class AuxiliaryReversal(Study):
    """System D, its table filled, and every task beside inpainting."""

    name = "auxiliary-reversal"
    title = "Inpainting, jigsaw and the rest as auxiliaries: what are they, and their reversals, worth?"
    subtitle = (
        "System D: a classifier learns a task without labels too, jointly or afterwards, and an attacked image is "
        "moved down that task's loss. Judged as its authors did (replayed FGSM and PGD-2), then by AutoAttack and by "
        "the adaptive ladder."
    )
    scales: ClassVar[Mapping[str, Any]] = {"demo": DEMO, "small": SMALL, "full": FULL}

    def run(self, scale: str, work: Workspace) -> Outcome:
        settings: Scale = self.scales[scale]
        # A set that cannot be had is refused before anything is trained.
        described = {part.data: _described(settings, part.data, work) for part in settings.parts}
        found, alone = networks(settings), solvers(settings)
        together = sorted([*found, *alone], key=_longest_first)
        work.together([functools.partial(_make, settings, network) for network in together])
        judged = [one for network in found for one in judged_all(settings, network, work)]
        tasks = {network: learnt(network, work) for network in [*found, *alone]}
        training = {network: in_training(network, work) for network in [*found, *alone]}
        regions = {network: fillings(network, work) for network in found if fills(network)}
        reversals = [one.reversal for one in judged if one.reversal is not None]
        return Outcome(
            rows=[row for one in judged for row in one.rows()],
            claims=judge_claims(judged, tasks, regions),
            data=described,
            notes=_notes(scale, settings, judged),
            curves=[Curve(_title(one), work.run_folder(one.path) / "metrics.csv") for one in [*found, *alone]],
            gallery=[],
            ladders=[one.ladder["ladder"] for one in judged if one.ladder is not None and _shown(one)],
            charts=charts(judged, tasks, training, regions),
            strips=strips(settings, [*found, *alone], reversals, work),
        )


def _longest_first(network: Trained) -> tuple[bool, ...]:
    """Trained against attacks before the others, all heads of a frozen trunk before one task; a part with one task has
    the larger images."""
    return network.base != ROBUST, network.regime != CLASSIFIER_FIRST, network.part.every


def _make(settings: Scale, network: Trained, work: Workspace) -> None:
    """A network and all that is measured of it, which is one job: nobody else needs it."""
    if network in solvers(settings):
        trained(network, work)
    else:
        judged_all(settings, network, work)
    learnt(network, work)
    if fills(network):
        fillings(network, work)


def _shown(one: Judged) -> bool:
    """Ladders on the page: those on a robust classifier, whose accuracy a strong attack leaves something of."""
    gated = one.reversal is not None and one.reversal.gate
    return one.network.base == ROBUST and one.network.regime == CLASSIFIER_FIRST and not gated


def _title(network: Trained) -> str:
    return network.path.replace("/", ", ").replace("-", " ")


def _described(settings: Scale, data: str, work: Workspace) -> dict[str, int]:
    train, test = work.table(data, "train"), work.table(data, "test")
    return {"train": len(train), test.split: len(test), "attacked": min(settings.attacked, len(test))}


def _length(stage: Mapping[str, Any]) -> str:
    return f"{stage['steps']} steps" if "steps" in stage else f"{stage.get('epochs', 1)} epochs"


def _ladders(settings: Scale, judged: list[Judged]) -> str:
    """The budget of the ladders, and what they can tell."""
    count = sum(one.ladder is not None for one in judged)
    told = ", ".join(f"{name} {_value(value)}" for name, value in settings.ladder.items())
    # An exact two-sided McNemar test needs six images of one kind, and none of the other, for p < 0.05.
    least = 100 * 6 / settings.laddered
    return (
        f"Ladders: {count} on {settings.laddered} images each, uncorrected for their number; {told}, every other "
        f"budget the ladder's default. No gain below {least:.1f} points can be shown on so few images."
    )


def _value(value: Any) -> str:
    return "/".join(f"{item:g}" for item in value) if isinstance(value, Sequence) else str(value)


def _notes(scale: str, settings: Scale, judged: list[Judged]) -> list[str]:
    """Every deviation from the source, in words, and what the audits say."""
    strongest = list(attacks(settings))[-1]
    steps = settings.reversal.get("steps")
    notes = [
        f"The source states no budgets. Attacks: {settings.threat}, PGD in steps of {settings.step_size}, last "
        "iterates as there (PGD-2 therefore reaches half of eps). Reversals: the same ball and step, "
        f"{steps} steps from a random start, where the source takes 10.",
        "Its table has examples of the bare classifier, replayed on the reversal: all such rows are called transfer "
        "and say nothing about an attacker who knows of the reversal. The ladder does.",
        "The source trained no classifier against attacks; here a second kind is, by FGSM with a random start, since "
        "a normally trained one keeps nothing under a strong attack with or without any auxiliary. The attack moves "
        "the views of the labels alone.",
        "Classifier first: the classifier is trained, its trunk frozen, then the heads of all tasks are trained on it "
        "at once; they share no parameter, so each is as if alone. The rows of labels are that classifier by itself.",
        "Inpainting's discriminator has a tenth of the stage's learning rate; masked pixels show the mean visible "
        f"colour. Several masks are {MASKS} in drawn places.",
        "The jigsaw is the context-free form, 9 tiles. Beside labels its tiles go through batch norm by the running "
        "statistics of whole images, in training as afterwards.",
        f"{strongest[0]} on {strongest[1]} images, PGD on {settings.attacked}, every rung of a ladder on "
        f"{settings.laddered}. One training seed: claims that compare networks say so.",
        _ladders(settings, judged),
        "Cost: a clean row of labels + a task carries the training of both; that of labels alone carries the "
        "classifier's, all heads' that were trained on it, and those of variants. A gate is charged as if every image "
        "triggered it.",
        "Verdicts are one by one, not corrected for their number.",
    ]
    for part in settings.parts:
        lengths = ", ".join(f"{base} {_length(stage)}" for base, stage in part.trainings.items())
        heads = _length(part.heads)
        weights = ", ".join(f"{task} {told.get('weight', 1.0):g}" for task, told in part.tasks.items())
        notes.append(
            f"{part.data}: {part.words}; {lengths}, heads on a frozen trunk {heads}. Weights beside the labels: "
            f"{weights}."
        )
    for one in judged:
        if one.audit is not None and one.reversal is not None and one.reversal.task == INPAINTING and _shown(one):
            notes += [f"Audit of inpainting, {one.network.base}: {words}" for words in one.audit["sentences"]]
    if scale != "full":
        notes.append(f"Scale {scale}: the source's context encoder is wider and its training longer.")
    return notes
