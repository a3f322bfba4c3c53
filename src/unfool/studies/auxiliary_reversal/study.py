"""The networks, measurements and notes of system D.

The source learns inpainting beside the labels or on a frozen classifier, attacks the classifier, and moves images down
the inpainting loss before they are classified. This study fills the missing row of its table, asks the same of every
task without labels, and lets strong and adaptive attacks answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unfool.evaluation.results.charts import Chart
from unfool.evaluation.results.ladder import LadderSection
from unfool.report.strips import Strip
from unfool.studies import framework as fw
from unfool.studies.auxiliary_reversal.claims import all_claims
from unfool.studies.auxiliary_reversal.page import all_charts, all_strips
from unfool.studies.auxiliary_reversal.scales import INPAINTING, MASKS, PUBLISHED, SCALES, Part, Scale
from unfool.studies.auxiliary_reversal.systems import Subject, subjects
from unfool.studies.framework.recipes import ROBUST, trunk_words
from unfool.training.regimes import CLASSIFIER_FIRST


@fw.STUDIES.add("auxiliary-reversal")
class AuxiliaryReversal(fw.Study[Scale]):
    """System D, its table filled, and every task beside inpainting."""

    name = "auxiliary-reversal"
    title = "Inpainting, jigsaw and the rest as auxiliaries: what are they, and their reversals, worth?"
    subtitle = (
        "System D: a classifier learns a task without labels too, jointly or afterwards, and an attacked image is "
        "moved down that task's loss. Evaluated as its authors did (replayed FGSM and PGD-2), then by AutoAttack and "
        "by the adaptive ladder."
    )
    scales = SCALES
    published = PUBLISHED

    def networks(self, scale: Scale) -> list[fw.NetworkSpec]:
        return [each.network for each in subjects(scale) if not each.task]

    def measurements(self, scale: Scale, networks: Sequence[fw.NetworkSpec]) -> list[fw.Measurement]:
        return [item for each in subjects(scale) for item in each.measurements]

    def claims(self, scale: Scale) -> Iterator[fw.Claim]:
        return all_claims(subjects(scale))

    def charts(self, scale: Scale, results: fw.Results) -> Iterator[Chart]:
        return all_charts(subjects(scale), results)

    def strips(self, scale: Scale, results: fw.Results) -> Iterator[Strip]:
        return all_strips(subjects(scale), results)

    def ladders(self, scale: Scale, results: fw.Results) -> list[LadderSection]:
        """Those on a robust classifier, whose accuracy a strong attack leaves something of."""
        shown = [each.ladder for each in subjects(scale) if _is_robust(each)]
        return [LadderSection.from_json(results[ladder]["ladder"]) for ladder in shown]

    def notes(self, scale: Scale, results: fw.Results) -> list[str]:
        """Every deviation from the source, in words, and what the audits say."""
        ladder, count = scale.ladder, sum(each.task != "" and not each.change for each in subjects(scale))
        images = ladder.images if isinstance(ladder.images, int) else 1
        lambdas = "/".join(f"{value:g}" for value in ladder.lambdas)
        audited = [each for each in subjects(scale) if _is_robust(each) and each.task == INPAINTING]
        return [
            f"The source states no budgets. Attacks: {scale.threat}, PGD in steps of {scale.step_size}, last iterates "
            "as there (PGD-2 therefore reaches half of eps). Reversals: the same ball and step, "
            f"{scale.reversal['steps']} steps from a random start, where the source takes 10.",
            "Its table has examples of the bare classifier, replayed on the reversal: all such rows are called "
            "transfer and say nothing about an attacker who knows of the reversal. The ladder does.",
            "The source trained no classifier against attacks; here a second kind is, by FGSM with a random start, "
            "since a normally trained one keeps nothing under a strong attack with or without any auxiliary. The "
            "attack moves the views of the labels alone.",
            "Classifier first: the classifier is trained, its trunk frozen, then the heads of all tasks are trained on "
            "it at once; they share no parameter, so each is as if alone. Rows of labels are that classifier itself.",
            "Inpainting's discriminator has a tenth of the stage's learning rate; masked pixels show the mean visible "
            f"colour. Several masks are {MASKS} in drawn places.",
            "The jigsaw is the context-free form, 9 tiles. Beside labels its tiles go through batch norm by the "
            "running statistics of whole images, in training as afterwards.",
            f"{scale.strongest} on {min(scale.strongly, scale.attacked)} images, PGD on {scale.attacked}, every rung "
            f"of a ladder on {ladder.images}. One training seed: claims that compare networks say so.",
            # An exact two-sided McNemar test needs six images of one kind, and none of the other, for p < 0.05.
            f"Ladders: {count} on {ladder.images} images each, uncorrected for their number; steps {ladder.steps}, "
            f"draws {ladder.draws}, lambdas {lambdas}, every other budget the ladder's default. No gain below "
            f"{600 / images:.1f} points can be shown on so few images.",
            "Cost: a clean row of labels + a task carries the training of both; that of labels alone carries the "
            "classifier's, all heads' that were trained on it, and those of variants. A gate is charged as if every "
            "image triggered it.",
            "Verdicts are one by one, not corrected for their number.",
            *(_training(part) for part in scale.parts),
            *(
                f"Audit of inpainting, {each.base}: {text}"
                for each in audited
                for text in results[each.audit]["sentences"]
            ),
            *(["The source's context encoder is wider and its training longer."] if results.scale != "full" else []),
        ]


def _is_robust(subject: Subject) -> bool:
    return subject.is_plain and (subject.base, subject.regime) == (ROBUST, CLASSIFIER_FIRST)


def _training(part: Part) -> str:
    """How the networks of a part are trained."""
    stages = {base: (stage.steps, stage.epochs) for base, stage in part.trainings.items()}
    stages["heads on a frozen trunk"] = (part.heads.get("steps", 0), part.heads.get("epochs", 1))
    lengths = [
        f"{name} {f'{steps} steps' if steps else f'{epochs} epochs'}" for name, (steps, epochs) in stages.items()
    ]
    weights = ", ".join(f"{config.task} {config.weight:g}" for config in part.tasks)
    return f"{part.data}: {trunk_words(part.trunk)}; {', '.join(lengths)}. Weights beside the labels: {weights}."
