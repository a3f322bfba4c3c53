"""The networks, measurements and notes of system D.

The source learns inpainting beside the labels or on a frozen classifier, attacks the classifier, and moves images down
the inpainting loss before they are classified. This study fills the missing row of its table, asks the same of every
task without labels, and lets strong and adaptive attacks answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unfool.evaluation.results.charts import Chart
from unfool.evaluation.results.ladder import LadderSection
from unfool.report.pictures.strips import Strip
from unfool.studies import framework as fw
from unfool.studies.auxiliary_reversal.claims import all_claims
from unfool.studies.auxiliary_reversal.page import all_charts, all_strips
from unfool.studies.auxiliary_reversal.scales import PUBLISHED, SCALES, Scale
from unfool.studies.auxiliary_reversal.systems import subjects


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
        shown = [each.ladder for each in subjects(scale) if each.is_plain and each.is_robust]
        return [LadderSection.from_json(results[ladder]["ladder"]) for ladder in shown]
