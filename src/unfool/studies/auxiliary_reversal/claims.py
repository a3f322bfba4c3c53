"""The claims of system D: the source's own, its arguments, and what strong attacks make of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from unfool.evaluation.estimates.audits import audit_predicts_gain, over_augmentation
from unfool.evaluation.estimates.pretext import GRID_LOSS, filled, filled_apart, solved, solved_off_the_grid
from unfool.evaluation.statistics.gains import SAME_NETWORK, pair_gain
from unfool.studies import framework as fw
from unfool.studies.auxiliary_reversal import scales
from unfool.studies.auxiliary_reversal.scales import INPAINTING, JIGSAW, PUBLISHED, REVERSED
from unfool.studies.auxiliary_reversal.systems import AUDITED, CLEAN, UNCHANGED, Subject
from unfool.studies.framework.claims import Evidence
from unfool.training.recipes import NORMAL
from unfool.training.regimes import CLASSIFIER_FIRST, JOINT

TIMES_CHANCE = 5
"""How far above chance a jigsaw is that trains."""
NEAR = 0.08
"""How far a classifier's clean accuracy may be from that of the source's."""
LEAST_L2 = 0.7
"""Share of the error of filling with the mean colour that a working inpainter stays below."""


def all_claims(subjects: Sequence[Subject]) -> Iterator[fw.Claim]:
    """The source's own, then those on tasks, auxiliaries, audits and reversals."""
    bare = [each for each in subjects if not each.task]
    plain = [each for each in subjects if each.is_plain]
    source = f"{scales.SOURCE_DATA}, {NORMAL}"
    yield from source_claims([each for each in subjects if each.kind == source and each.losses])
    yield from argument_claims([each for each in subjects if each.losses[1:]])
    yield from task_claims(bare)
    for each in bare:
        if each.arm:
            yield arm_claim(each)
        elif each.regime == JOINT:
            alone, attack = replace(each, regime=CLASSIFIER_FIRST, beside=""), each.scale.strongest
            text = f"{each.beside.capitalize()} beside the labels ({each.who}) makes the classifier more robust than "
            text += f"labels alone do ({attack}, {each.scale.threat})"
            gain = _gain(each, alone, attack, f"With {each.beside} minus without")
            yield fw.Claim(f"helps: {each.beside}, {each.who}", text, gain, fw.Above(0))
    for kind in dict.fromkeys(each.kind for each in plain):
        text = f"On replayed {AUDITED} examples reversals gain more than averaging as many crops and flips ({kind})"
        audits = [each.audit for each in plain if each.kind == kind]
        yield fw.Claim(f"controls: {kind}", text, fw.evidence(over_augmentation, *audits), fw.Above(0))
    both = [item for each in plain for item in (each.audit, each.ladder)]
    for look, words in (("auroc", "sees the attack (AUROC)"), ("cosine", "points back (cosine of the gradients)")):
        for gain, of in (("replayed", "replayed examples"), ("adaptive", "the adaptive worst case")):
            text = f"How well a pretext loss {words} goes with the gain on {of}"
            yield fw.Claim(
                f"audit: {look}, {gain}", text, fw.evidence(audit_predicts_gain, look, gain, *both), fw.Above(0)
            )
    for each in subjects:
        if each.task and not each.change:
            text = f"The {'gated ' if each.gate else ''}reversal down {each.task} ({each.who}) makes the classifier"
            yield each.ladder.claim(f"ladder: {each.system.defense}, {each.who}", text)


def source_claims(subjects: Sequence[Subject]) -> Iterator[fw.Claim]:
    """The source's table, as it measured it: what its reversal costs and gains, and which regime is more robust."""
    bare = {each.regime: each for each in subjects if not each.task}
    for each in subjects:
        for attack in (CLEAN, "fgsm", "pgd-2") if each.task == INPAINTING and not each.change else ():
            rows = [(each.network.model, defense, attack) for defense in (REVERSED, "none")]
            claimed = PUBLISHED.gain(*rows) if rows[0] in PUBLISHED.figures else None
            replayed = f"raises the accuracy under {attack.upper()}, replayed"
            words = "lowers the accuracy on clean images" if attack == CLEAN else replayed
            text = f"Reversing down inpainting ({each.who}) {words}"
            text += "" if claimed else ": the row that the source leaves out"
            gain = _gain(each, replace(each, task=""), attack, "With the reversal minus without", pair=SAME_NETWORK)
            rule = fw.HalfOf(claimed) if claimed else fw.Above(0)
            yield fw.Claim(f"source: {each.regime}, {attack}", text, gain, rule, _control(each))
    if len(bare) == 2:
        text = "A classifier that was trained first is more robust under FGSM than one that learnt inpainting jointly"
        gain = _gain(bare[CLASSIFIER_FIRST], bare[JOINT], "fgsm", "classifier first minus joint")
        first, joint = ((bare[regime].network.model, "none", "fgsm") for regime in (CLASSIFIER_FIRST, JOINT))
        rule = fw.HalfOf(PUBLISHED.gain(first, joint))
        yield fw.Claim("source: regimes", text, gain, rule, _control(bare[JOINT]))


def _control(each: Subject) -> fw.Control:
    """The network itself on clean images, whose accuracy the source reports."""
    words = {"data": each.part.data, "model": each.network.model, "defense": "none", "attack": CLEAN}
    return fw.Control({**words, "training": scales.IN_SHORT[each.base]}, within=NEAR)


def argument_claims(subjects: Sequence[Subject]) -> Iterator[fw.Claim]:
    """The source's three arguments on inpainting."""
    alike = "The adversarial loss alone fills every image alike, more than with L2"
    blurred = "L2 alone fills with more blur than with the adversarial loss"
    kinds = ((alike, scales.ADVERSARIAL_ALONE, "variety"), (blurred, scales.L2_ALONE, "sharpness"))
    for each in subjects:
        for text, loss, figure in () if each.task else kinds:
            yield fw.Claim(figure, text, fw.evidence(filled_apart, each.learnt, loss, figure), fw.Above(0))
        if each.change == scales.SEVERAL:
            detail = f"One centred mask minus {scales.MASKS} drawn ones, so that places change too"
            gain = _gain(replace(each, change=""), each, "pgd-2", detail, pair=SAME_NETWORK)
            yield fw.Claim("masks", "One mask reverses better than several (PGD-2, replayed)", gain, fw.Above(0))


def task_claims(bare: Sequence[Subject]) -> Iterator[fw.Claim]:
    """That inpainters fill, and that jigsaws train, on images and not on the grid of JPEG."""
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
            share = fw.evidence(solved_off_the_grid, each.learnt, JIGSAW)
            yield fw.Claim(f"grid: {each.who}", text, share, fw.AtLeast(-GRID_LOSS))


def arm_claim(each: Subject) -> fw.Claim:
    """What the source leaves to be tested: which layers the jigsaw shares, and which permutations it tells apart."""
    usual = replace(each, arm="")
    text = f"The classifier beside a jigsaw is better if {scales.ARM_WORDS[each.arm]} ({usual.who})"
    gain = _gain(each, usual, CLEAN, f"{each.arm} minus the usual jigsaw, on clean images")
    return fw.Claim(f"arm: {each.arm}, {each.kind}", text, gain, fw.Above(0))


def _gain(ours: Subject, theirs: Subject, attack: str, detail: str, **words: str) -> Evidence:
    """What one system gains over another under an attack."""
    return fw.evidence(pair_gain, ours.records[attack], theirs.records[attack], detail=detail, **words)
