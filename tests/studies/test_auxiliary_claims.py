"""Verdicts of system D from made-up figures: each rule holds, fails and stays undecided where it says so."""

import dataclasses
import math

import numpy as np
import pytest
from scipy.stats import spearmanr
from test_claims import records

from unfool.core.errors import SpecError
from unfool.evaluation.adaptive.audit_result import DEFENSE, NOISE, VIEWS
from unfool.evaluation.estimates.audits import FEWEST, over_augmentation
from unfool.evaluation.results.claims import ClaimResult
from unfool.evaluation.statistics.gains import mean_of, of_mean
from unfool.evaluation.statistics.inference import of_differences
from unfool.evaluation.statistics.paired import PairedCounts, score_interval
from unfool.studies.auxiliary_reversal import AuxiliaryReversal
from unfool.studies.auxiliary_reversal.claims import all_claims, argument_claims, source_claims
from unfool.studies.auxiliary_reversal.scales import SCALES, SMALL
from unfool.studies.auxiliary_reversal.systems import ALONE, UNCHANGED, Subject
from unfool.studies.framework import Measured, Results
from unfool.studies.framework.claims import judge
from unfool.studies.framework.pieces import slug
from unfool.training.recipes import NORMAL

GAINS = ("fgsm", "pgd-2", "none")
"""The attacks that the source's claims are of."""
CIFAR, TILES = SMALL.parts
JIGSAW = Subject(scale=SMALL, part=TILES, base=NORMAL, regime=ALONE, beside="jigsaw")
INPAINTING = Subject(scale=SMALL, part=CIFAR, base=NORMAL, regime="classifier-first")
REVERSED = dataclasses.replace(INPAINTING, task="inpainting")
SYSTEMS = [
    *(dataclasses.replace(INPAINTING, task=task) for task in ("contrast", "inpainting", "jigsaw", "rotation")),
    *(
        dataclasses.replace(INPAINTING, regime="joint", beside=task, task=task)
        for task in ("contrast", "inpainting", "jigsaw", "rotation")
    ),
]


def measured(*rows, **by_path):
    return Results(scale="tiny", work=None, measured=[Measured(row=row) for row in rows], by_path=by_path)


def system(subject, auroc, cosine, replayed, adaptive):
    """An audit of a reversal and a ladder that gave this, by path."""
    audit = {"auroc": auroc, "cosine": [cosine, cosine, cosine], "gains": {"the defense": {"difference": replayed}}}
    return {subject.audit.path: audit, subject.ladder.path: {"ladder": {"difference": {"difference": adaptive}}}}


def judged(claims, results):
    """The verdicts on those claims whose evidence is there, by their ids."""

    def measured_here(claim):
        try:
            return claim.evidence(results) is not None
        except KeyError:
            return False

    return {verdict.id: verdict for verdict in judge(filter(measured_here, claims), results)}


def audits(count, values):
    """What comes of the claims on audits over so many systems with these values, by name."""
    by_path = {}
    for one, value in zip(SYSTEMS, values, strict=False):
        by_path |= system(one, *value)
    claims = judged(all_claims(SYSTEMS[:count]), measured(**by_path))
    return {name: claim for name, claim in claims.items() if name.startswith("audit")}


def test_an_audit_that_ranks_the_gains_foresees_them():
    cosines, gains = [0.1, 0.3, 0.2, 0.6, 0.5, 0.4, 0.9, 0.7], [0.0, 0.02, 0.01, 0.05, 0.06, 0.04, 0.08, 0.07]
    pairs = enumerate(zip(cosines, gains, strict=True))
    claims = audits(8, [(0.5 + 0.01 * place, cosine, gain, -gain) for place, (cosine, gain) in pairs])
    assert len(claims) == 4
    replayed, adaptive = claims["audit-cosine-replayed"], claims["audit-cosine-adaptive"]
    assert (replayed.verdict, adaptive.verdict) == ("holds", "fails")
    rank = spearmanr(cosines, gains).statistic
    spread = 1.96 * math.sqrt((1 + rank**2 / 2) / (len(gains) - 3))
    low, high = (math.tanh(math.atanh(rank) + sign * spread) for sign in (-1, 1))
    assert f"{rank:.3f} [{low:.3f}, {high:.3f}] over 8 systems" in replayed.evidence
    assert "1 of the gains are 0" in replayed.evidence
    assert f"{-spearmanr(cosines, gains).statistic:.3f}" in adaptive.evidence


def test_unrelated_gains_are_undecided_and_few_or_equal_ones_are_no_claim():
    values = [(0.5, 0.1 * place, gain, 0.0) for place, gain in enumerate([0.03, 0.01, 0.04, 0.02, 0.05, 0.0])]
    assert [claim.verdict for claim in audits(6, values).values()] == ["undecided"]
    assert audits(FEWEST - 1, values) == {}


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.19, 0.21, "holds"), (0.16, 0.18, "undecided"), (0.1, 0.16, "fails")]
)
def test_a_jigsaw_trains_from_five_times_chance_on(low, high, verdict):
    share = {"loss": 1.0, "count": 2000, "accuracy": (low + high) / 2, "low": low, "high": high}
    (claim,) = judged(all_claims([JIGSAW]), measured(**{JIGSAW.learnt.path: {"tasks": {"jigsaw": share}}})).values()
    assert claim.verdict == verdict


@pytest.mark.parametrize(
    ("off", "on", "verdict"),
    [(0.89, 0.85, "holds"), (0.3, 0.85, "fails"), (0.5, 0.55, "undecided"), (0.3, 0.30, "holds")],
)
def test_a_jigsaw_that_fails_off_the_grid_and_not_on_it_has_read_the_grid(off, on, verdict):
    network = dataclasses.replace(JIGSAW, regime=UNCHANGED)
    shares = {"jigsaw": 0.9, "jigsaw moved by half a block": off, "jigsaw moved by a block": on}
    tasks = {
        name: {"loss": 1.0, "count": 2000, "accuracy": share, "low": share - 0.02, "high": share + 0.02}
        for name, share in shares.items()
    }
    (claim,) = judged(all_claims([network]), measured(**{network.learnt.path: {"tasks": tasks}})).values()
    assert claim.verdict == verdict
    assert f"{100 * off:.1f} % [{100 * off - 2:.1f}, {100 * off + 2:.1f}] of the same moved by 8" in claim.evidence


def replayed(gained, views, *, rescued=0, count=500):
    """An audit of ``count`` images of which the bare network has none right: a reversal rescues ``gained`` of them
    from image ``rescued`` on, crops and flips the first ``views``, noise a single one."""
    correct = {
        DEFENSE: [rescued <= image < rescued + gained for image in range(count)],
        VIEWS: [image < views for image in range(count)],
        NOISE: [image < 1 for image in range(count)],
    }
    gains = {way: {"difference": sum(right) / count, "accuracy": sum(right) / count} for way, right in correct.items()}
    return {"ids": list(range(count)), "correct": correct, "gains": gains}


def control_claim(*audits):
    """What comes of the claim that compares these systems with crops and flips."""
    by_path = {}
    for one, audited in zip(SYSTEMS, audits, strict=False):
        values = system(one, 0.5, 0.1, 0.02, 0.0)
        values[one.audit.path] |= audited
        by_path |= values
    claims = judged(all_claims(SYSTEMS[: len(audits)]), measured(**by_path))
    (claim,) = [claim for name, claim in claims.items() if name.startswith("controls")]
    return claim


@pytest.mark.parametrize(
    ("views", "verdict"), [([5, 0, 4], "holds"), ([50, 40, 60], "undecided"), ([80, 90, 100], "fails")]
)
def test_reversals_are_compared_with_crops_and_flips_of_their_cost(views, verdict):
    claim = control_claim(*(replayed(50, each) for each in views))
    assert claim.verdict == verdict
    assert "reversals gain +10.0 to +10.0 points" in claim.evidence
    assert f"{min(views) / 5:+.1f} to {max(views) / 5:+.1f}, noise +0.2 to +0.2" in claim.evidence
    assert "in the mean of these 3 systems, on the same images" in claim.evidence


def test_systems_that_agree_do_not_shrink_the_error_of_their_images():
    """Eight equal systems know no more of other images than one of them."""
    one, eight = (control_claim(*[replayed(20, 30, rescued=15)] * count) for count in (1, 8))
    counts = PairedCounts(only_first=5, only_second=15, n=500)
    assert one.figure == "-2.0 points [{:+.1f}, {:+.1f}]".format(*(100 * end for end in score_interval(counts)))
    assert eight.figure == one.figure
    assert eight.p_value == one.p_value


def test_the_mean_of_systems_is_taken_image_by_image():
    """Gains on other images add up; the error is that of the mean over systems of each image."""
    claim = control_claim(replayed(20, 30), replayed(20, 30, rescued=40))
    values = np.zeros(500)
    values[:20], values[20:30], values[40:60] = -0.5, -1, 0.5
    inference = of_differences([values])
    assert claim.figure == of_mean(inference).figure
    assert inference.mean == pytest.approx(-0.02)


def test_a_single_system_has_the_interval_of_its_images():
    """A mean of one system has no spread, which is no certainty."""
    claim = control_claim(replayed(2, 20))
    assert "reversals gain +0.4 points, crops and flips +4.0, noise +0.2" in claim.evidence
    low, high = score_interval(PairedCounts(only_first=0, only_second=18, n=500))
    assert claim.figure == f"-3.6 points [{100 * low:+.1f}, {100 * high:+.1f}]"
    assert claim.p_value == pytest.approx(2 * 0.5**18, rel=0.01)
    assert claim.verdict == "fails"


def test_audits_of_other_images_have_no_mean():
    other = replayed(2, 20) | {"ids": list(range(1, 501))}
    with pytest.raises(SpecError, match="audit all systems on the same images"):
        over_augmentation(replayed(2, 20), other)


def test_a_mean_of_one_value_has_no_interval():
    with pytest.raises(SpecError, match="two or more"):
        mean_of([0.5])


def fillings(**by_loss):
    return measured(**{INPAINTING.learnt.path: {"fillings": by_loss, "tasks": {}}})


@pytest.mark.parametrize(("ratio", "verdict"), [(0.6, "holds"), (0.7, "undecided"), (0.8, "fails")])
def test_an_inpainter_works_below_seven_tenths_of_the_mean_colour_s_error(ratio, verdict):
    parts = [{"ratio": ratio + 0.01 * (-1) ** place, "variety": 0.4, "sharpness": 0.1} for place in range(10)]
    (claim,) = judged(all_claims([INPAINTING]), fillings(**{"": parts})).values()
    assert claim.verdict == verdict


def test_the_arguments_compare_decoders_part_by_part():
    whole = [{"ratio": 0.6, "variety": 0.4 + 0.01 * place, "sharpness": 0.1 + 0.001 * place} for place in range(10)]
    alike = [{**part, "variety": part["variety"] - 0.3} for part in whole]
    sharper = [{**part, "sharpness": part["sharpness"] + 0.05} for part in whole]
    results = fillings(**{"": whole, "adversarial loss alone": alike, "L2 alone": sharper})
    verdicts = {claim.text: claim.verdict for claim in judged(argument_claims([INPAINTING]), results).values()}
    assert verdicts["The adversarial loss alone fills every image alike, more than with L2"] == "holds"
    assert verdicts["L2 alone fills with more blur than with the adversarial loss"] == "fails"


def attacked(subject, **by_attack):
    """Records of a system by attack, under their paths."""
    return {subject.records[name.replace("_", "-")].path: each for name, each in by_attack.items()}


def control(right):
    """The row of the classifier that learnt first, on clean images, beside the source's 71.42 %."""
    clean = records(right, 100 - right, attack="none", crafted_on=None, judged_on=None)
    return dataclasses.replace(clean.row("labels", settings={"training": "normal"}), source_value=0.7142)


def test_the_source_s_table_is_judged_and_its_missing_row_filled():
    bare = {name: records(right, 100 - right) for name, right in (("none", 72), ("fgsm", 20), ("pgd_2", 13))}
    ours = {name: records(right, 100 - right) for name, right in (("none", 60), ("fgsm", 28), ("pgd_2", 24))}
    results = measured(control(72), **attacked(INPAINTING, **bare), **attacked(REVERSED, **ours))
    clean, fgsm, left_out = judged(source_claims([INPAINTING, REVERSED]), results).values()
    assert clean.text.endswith("lowers the accuracy on clean images, by at least half of the 16.3 points claimed")
    assert fgsm.text.endswith("raises the accuracy under FGSM, replayed, by at least half of the 6.63 points claimed")
    assert left_out.text.endswith("raises the accuracy under PGD-2, replayed: the row that the source leaves out")
    assert "-12.0 points" in clean.evidence
    assert (clean.verdict, fgsm.verdict) == ("undecided", "undecided")
    assert "+8.0 points" in fgsm.evidence
    assert "+11.0 points" in left_out.evidence
    assert left_out.verdict == "holds"
    results = measured(control(63), **attacked(INPAINTING, **bare), **attacked(REVERSED, **ours))
    verdicts = judged(source_claims([INPAINTING, REVERSED]), results).values()
    assert {claim.verdict for claim in verdicts} == {"not reproduced"}


def test_a_gain_below_half_of_the_claimed_one_fails_and_the_claim_says_how_much_was_claimed():
    """20 more of 1,000 images: a gain is shown, and so is that it is below half of 6.63 points."""
    bare = {name: records(right, 1000 - right) for name, right in (("none", 720), ("fgsm", 100), ("pgd_2", 100))}
    ours = {name: records(right, 1000 - right) for name, right in (("none", 720), ("fgsm", 110), ("pgd_2", 130))}
    results = measured(control(72), **attacked(INPAINTING, **bare), **attacked(REVERSED, **ours))
    _, fgsm, left_out = judged(source_claims([INPAINTING, REVERSED]), results).values()
    assert fgsm.figure.startswith("+1.0 points [+0.")
    assert (fgsm.verdict, left_out.verdict) == ("fails", "holds")
    assert "by at least half of the 6.63 points claimed" in fgsm.text


def test_the_summary_gives_a_figure_and_a_verdict_for_each_claim_of_the_source():
    gains = [f"source-{regime}-{attack}" for regime in ("joint", "classifier-first") for attack in GAINS]
    names = [*gains, "controls-cifar10-normally-trained", "ladder-one", "ladder-another"]
    figures = {name: f"+{place}.0 points [-1.0, +9.0]" for place, name in enumerate(names)}
    claims = {
        name: ClaimResult(text="", verdict="holds" if name == "ladder-one" else f"verdict {name}", figure=figure)
        for name, figure in figures.items()
    }
    text = AuxiliaryReversal().summary(SMALL, measured(), claims)
    for name in names[:-2]:
        assert text.count(f"{figures[name]} (verdict {name})") == 1
    for claimed in ("11.3 points under FGSM", "2.4 points learnt jointly", "6.6 where", "16.9 and 16.3 points: here"):
        assert claimed in text
    assert "1 of 0 reversals and gates were shown" in text
    assert "linf:8/255" in text


def test_notes_say_how_strong_pgd_2_was_and_where_momentum_is_not_the_papers():
    rows = [
        dataclasses.replace(records(right, 100 - right, attack=attack).row(model), protocol="white-box")
        for model, fgsm, pgd in (("labels", 20, 19), ("labels + inpainting", 20, 22))
        for attack, right in (("fgsm", fgsm), ("pgd-2", pgd))
    ]
    notes = {scale: AuxiliaryReversal().notes(SCALES[scale], measured(*rows)) for scale in ("small", "source")}
    for each in notes.values():
        assert any("starts at the image" in note and "on 1 of 2 networks" in note for note in each)
    assert [any("Nesterov" in note for note in each) for each in notes.values()] == [True, False]


def test_masks_are_compared_where_the_source_s_attacks_leave_something():
    one = {name: records(right, 200 - right) for name, right in (("none", 120), ("fgsm", 60), ("pgd_2", 40))}
    several = dataclasses.replace(REVERSED, change="several masks")
    by_path = attacked(REVERSED, **one) | attacked(several, **{**one, "pgd_2": records(80, 120)})
    (claim,) = judged(argument_claims([several]), measured(**by_path)).values()
    assert claim.verdict == "fails"
    assert "-20.0 points" in claim.evidence
    assert "One centred mask minus 4 drawn ones" in claim.evidence


@pytest.mark.parametrize(("right", "verdict"), [(160, "holds"), (101, "undecided"), (40, "fails")])
def test_arms_are_compared_by_the_classifier_beside_the_jigsaw(right, verdict):
    usual = dataclasses.replace(JIGSAW, regime="joint")
    arms = [dataclasses.replace(usual, arm=arm) for arm in ("last convolution of its own", "far from the original")]
    by_path = attacked(usual, none=records(100, 100))
    for arm in arms:
        by_path |= attacked(arm, none=records(right, 200 - right))
    claims = judged(all_claims([usual, *arms]), measured(**by_path))
    names = [f"arm-{arm}-{JIGSAW.kind}" for arm in ("last-convolution-of-its-own", "far-from-the-original")]
    assert list(claims) == [slug(name) for name in names]
    assert {claim.verdict for claim in claims.values()} == {verdict}
    assert "minus the usual jigsaw, on clean images" in list(claims.values())[1].evidence
