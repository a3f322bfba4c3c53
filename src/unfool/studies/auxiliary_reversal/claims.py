"""The claims of system D: the source's own, its arguments, and what strong attacks make of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from unfool.evaluation import Records
from unfool.evaluation.estimates.audits import audit_foresight, over_augmentation
from unfool.evaluation.estimates.pretext import GRID_LOSS, filled, filled_apart, solved, solved_off_the_grid
from unfool.evaluation.statistics.gains import SAME_NETWORK, pair_gain
from unfool.studies import framework as fw
from unfool.studies.auxiliary_reversal import scales
from unfool.studies.auxiliary_reversal.scales import INPAINTING, JIGSAW, SOURCE
from unfool.studies.auxiliary_reversal.systems import AUDITED, CLEAN, UNCHANGED, Subject
from unfool.studies.framework.claims import Evidence
from unfool.studies.framework.recipes import NORMAL
from unfool.training.regimes import CLASSIFIER_FIRST, JOINT

TIMES_CHANCE = 5
"""How far above chance a jigsaw is that trains."""
LEAST_L2 = 0.7
"""Share of the error of filling with the mean colour that a working inpainter stays below."""


def all_claims(subjects: Sequence[Subject]) -> Iterator[fw.Claim]:
    """The source's own, then those on tasks, auxiliaries, audits and reversals."""
    bare, plain = [each for each in subjects if not each.task], [each for each in subjects if each.is_plain]
    yield from source_claims(
        [each for each in subjects if each.kind == f"{scales.SOURCE_DATA}, {NORMAL}" and each.losses]
    )
    yield from argument_claims([each for each in subjects if each.losses[1:]])
    for each in bare:
        if each.losses:
            text = f"The inpainter ({each.who}) has at most {LEAST_L2} of the error of the mean visible colour"
            yield fw.Claim(f"fills: {each.who}", text, fw.evidence(filled, each.learnt), fw.AtMost(LEAST_L2))
    for each in bare:
        if JIGSAW in each.tasks and each.regime != UNCHANGED:
            count = each.config(JIGSAW).settings.get("count", 24)
            text = f"The jigsaw trains ({each.who}): {TIMES_CHANCE} times chance on held-out images"
            share = fw.evidence(solved, each.learnt, JIGSAW, count)
            yield fw.Claim(f"jigsaw: {each.who}", text, share, fw.AtLeast(TIMES_CHANCE / count))
        if JIGSAW in each.tasks:
            text = f"Without augmentation the jigsaw ({each.who}) solves images, not the grid that JPEG left in them"
            yield fw.Claim(
                f"grid: {each.who}", text, fw.evidence(solved_off_the_grid, each.learnt, JIGSAW), fw.AtLeast(-GRID_LOSS)
            )
    for each in bare:
        if each.regime == JOINT:
            alone, attack = replace(each, regime=CLASSIFIER_FIRST, beside=""), list(each.records)[-1]
            text = (
                f"{each.beside.capitalize()} beside the labels ({each.who}) makes the classifier more robust than "
                f"labels alone do ({attack}, {each.scale.threat})"
            )
            pairs = [system.records[name] for name in (attack, CLEAN) for system in (each, alone)]
            yield fw.Claim(f"helps: {each.beside}, {each.who}", text, fw.evidence(_helps, *pairs), fw.Above(0))
    for kind in dict.fromkeys(each.kind for each in plain):
        text = f"On replayed {AUDITED} examples reversals gain more than averaging as many crops and flips ({kind})"
        audits = [each.audit for each in plain if each.kind == kind]
        yield fw.Claim(f"controls: {kind}", text, fw.evidence(over_augmentation, *audits), fw.Above(0))
    both = [item for each in plain for item in (each.audit, each.ladder)]
    for look, words in (("auroc", "sees the attack (AUROC)"), ("cosine", "points back (cosine of the gradients)")):
        for gain, of in (("replayed", "replayed examples"), ("adaptive", "the adaptive worst case")):
            text = f"How well a pretext loss {words} goes with the gain on {of}"
            yield fw.Claim(f"audit: {look}, {gain}", text, fw.evidence(audit_foresight, look, gain, *both), fw.Above(0))
    for each in subjects:
        if each.task and not each.change:
            text = f"The {'gated ' if each.gate else ''}reversal down {each.task} ({each.who}) makes the classifier"
            yield each.ladder.claim(f"ladder: {each.system.defense}, {each.who}", text)


def source_claims(subjects: Sequence[Subject]) -> Iterator[fw.Claim]:
    """The source's table, as it measured it: what its reversal costs and gains, and which regime is more robust."""
    bare = {each.regime: each for each in subjects if not each.task}
    for each in subjects:
        for attack in SOURCE[JOINT] if each.task == INPAINTING and not each.change else ():
            figures = SOURCE[each.regime].get(attack)
            change = 0.0 if figures is None else (figures[1] - figures[0]) / 100
            where = "on clean images" if attack == CLEAN else f"under {attack}, replayed"
            text = f"Reversing down inpainting ({each.who}) {'lowers' if change < 0 else 'raises'} the accuracy {where}"
            text += f" (source: {100 * change:+.2f} points)" if figures else ": the row that the source leaves out"
            gain = _gain(
                each, replace(each, task=""), attack, detail="With the reversal minus without", pair=SAME_NETWORK
            )
            rule = fw.HalfOf(change) if figures else fw.Above(0)
            yield fw.Claim(f"source: {each.regime}, {attack}", text, gain, rule)
    if len(bare) == 2:
        text = "A classifier that was trained first is more robust than one that learnt inpainting jointly (FGSM)"
        gain = _gain(bare[CLASSIFIER_FIRST], bare[JOINT], "fgsm", detail="classifier first minus joint")
        claimed = SOURCE[CLASSIFIER_FIRST]["fgsm"][0] - SOURCE[JOINT]["fgsm"][0]
        yield fw.Claim("source: regimes", text, gain, fw.HalfOf(claimed / 100))


def argument_claims(subjects: Sequence[Subject]) -> Iterator[fw.Claim]:
    """The source's three arguments on inpainting."""
    for each in subjects:
        if not each.task:
            for text, loss, figure in (
                (
                    "The adversarial loss alone fills every image alike, more than with L2",
                    scales.ADVERSARIAL_ALONE,
                    "variety",
                ),
                ("L2 alone fills with more blur than with the adversarial loss", scales.L2_ALONE, "sharpness"),
            ):
                yield fw.Claim(figure, text, fw.evidence(filled_apart, each.learnt, loss, figure), fw.Above(0))
        elif each.change == scales.SEVERAL:
            single = replace(each, change="")
            pairs = [system.records[name] for name in ("pgd-2", "fgsm") for system in (single, each)]
            evidence = fw.evidence(_masks, *pairs, single.audit, each.audit)
            yield fw.Claim("masks", "One mask reverses better than several (pgd-2, replayed)", evidence, fw.Above(0))


def _gain(ours: Subject, theirs: Subject, attack: str, **words: str) -> Evidence:
    """What one system gains over another under an attack."""
    return fw.evidence(pair_gain, ours.records[attack], theirs.records[attack], **words)


def _helps(ours: Records, alone: Records, ours_clean: Records, alone_clean: Records) -> fw.Estimate:
    """What an auxiliary beside the labels gains under attack, and on clean images."""
    return replace(pair_gain(ours, alone), more=f"On clean images {pair_gain(ours_clean, alone_clean).words}.")


def _masks(
    single: Records,
    several: Records,
    single_weak: Records,
    several_weak: Records,
    first: Mapping[str, Any],
    other: Mapping[str, Any],
) -> fw.Estimate:
    """The source has one mask, and says that several would do worse; by records under two attacks, and audits."""
    weak = replace(pair_gain(single_weak, several_weak), pair=SAME_NETWORK).words
    cosines = "Cosine of the gradients {:+.3f} with one, {:+.3f} with several.".format(
        first["cosine"][0], other["cosine"][0]
    )
    detail = f"One centred mask minus {scales.MASKS} drawn ones, so that places change too"
    return replace(pair_gain(single, several), detail=detail, pair=SAME_NETWORK, more=f"Under fgsm {weak}. {cosines}")
