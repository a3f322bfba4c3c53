"""Verdicts of system D from made-up figures: each rule holds, fails and stays undecided where it says so."""

import math

import pytest
from scipy.stats import spearmanr
from test_claims import records

from unfool.studies.auxiliary_claims import _controlled, judge_claims
from unfool.studies.auxiliary_foresight import FEWEST, foreseen
from unfool.studies.auxiliary_measures import OFF_THE_GRID, ON_THE_GRID, Judged
from unfool.studies.auxiliary_networks import ALONE, UNCHANGED, Reversal, Trained
from unfool.studies.auxiliary_scales import SMALL
from unfool.studies.auxiliary_source import arguments, of_the_source
from unfool.studies.recipes import NORMAL

CIFAR, TILES = SMALL.parts
JIGSAW = Trained(part=TILES, base=NORMAL, regime=ALONE, task="jigsaw")
INPAINTING = Trained(part=CIFAR, base=NORMAL, regime="classifier-first")


def system(auroc, cosine, replayed, adaptive):
    """A reversal with an audit and a ladder that found this."""
    audit = {"auroc": auroc, "cosine": [cosine, cosine, cosine], "gains": {"the defense": {"difference": replayed}}}
    ladder = {"ladder": {"difference": {"difference": adaptive}}}
    reversal = Reversal(network=INPAINTING, task="inpainting")
    return Judged(network=INPAINTING, records={}, reversal=reversal, audit=audit, ladder=ladder)


def test_an_audit_that_ranks_the_gains_foresees_them():
    cosines, gains = [0.1, 0.3, 0.2, 0.6, 0.5, 0.4, 0.9, 0.7], [0.0, 0.02, 0.01, 0.05, 0.06, 0.04, 0.08, 0.07]
    found = [system(0.5 + 0.01 * place, c, g, -g) for place, (c, g) in enumerate(zip(cosines, gains, strict=True))]
    claims = {claim["text"]: claim for claim in foreseen(found)}
    assert len(claims) == 4
    replayed = next(claim for text, claim in claims.items() if "cosine" in text and "replayed" in text)
    adaptive = next(claim for text, claim in claims.items() if "cosine" in text and "worst" in text)
    assert (replayed["verdict"], adaptive["verdict"]) == ("holds", "fails")
    rank = spearmanr(cosines, gains).statistic
    spread = 1.96 * math.sqrt((1 + rank**2 / 2) / (len(gains) - 3))
    low, high = (math.tanh(math.atanh(rank) + sign * spread) for sign in (-1, 1))
    assert f"{rank:+.2f} [{low:+.2f}, {high:+.2f}] over 8 systems" in replayed["evidence"]
    assert "1 of the gains are 0" in replayed["evidence"]
    assert f"{-spearmanr(cosines, gains).statistic:+.2f}" in adaptive["evidence"]


def test_unrelated_gains_are_undecided_and_few_or_equal_ones_are_no_claim():
    gains = [0.03, 0.01, 0.04, 0.02, 0.05, 0.0]
    found = [system(0.5, 0.1 * place, gain, 0.0) for place, gain in enumerate(gains)]
    assert [claim["verdict"] for claim in foreseen(found)] == ["undecided"]
    assert foreseen(found[: FEWEST - 1]) == []


def judged_tasks(learnt=None, fillings=None):
    return judge_claims([], learnt or {}, fillings or {})


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(0.17, 0.19, "holds"), (0.16, 0.18, "undecided"), (0.1, 0.16, "fails")]
)
def test_a_jigsaw_trains_from_five_times_chance_on(low, high, verdict):
    told = {"loss": 1.0, "count": 2000, "accuracy": (low + high) / 2, "low": low, "high": high}
    (claim,) = judged_tasks({JIGSAW: {"jigsaw": told}})
    assert claim["verdict"] == verdict


@pytest.mark.parametrize(
    ("off", "on", "verdict"),
    [(0.89, 0.85, "holds"), (0.3, 0.85, "fails"), (0.5, 0.52, "undecided"), (0.3, 0.32, "undecided")],
)
def test_a_jigsaw_that_fails_off_the_grid_and_not_on_it_has_read_the_grid(off, on, verdict):
    network = Trained(part=TILES, base=NORMAL, regime=UNCHANGED, task="jigsaw")
    shares = {"jigsaw": 0.9, OFF_THE_GRID: off, ON_THE_GRID: on}
    told = {
        name: {"loss": 1.0, "count": 2000, "accuracy": share, "low": share - 0.02, "high": share + 0.02}
        for name, share in shares.items()
    }
    (claim,) = judged_tasks({network: told})
    assert claim["verdict"] == verdict
    assert f"{100 * off:.1f} % [{100 * off - 2:.1f}, {100 * off + 2:.1f}] of the same moved by 8" in claim["evidence"]


@pytest.mark.parametrize(
    ("views", "verdict"), [([0.01, 0.0], "holds"), ([0.01, 0.05], "undecided"), ([0.04, 0.05], "fails")]
)
def test_a_reversal_is_compared_with_crops_and_flips_of_its_cost(views, verdict):
    found = []
    for gained in views:
        one = system(0.5, 0.1, 0.02, 0.0)
        one.audit["gains"] |= {"noise": {"difference": 0.001}, "test-time augmentation": {"difference": gained}}
        found.append(one)
    (claim,) = _controlled(found)
    assert claim["verdict"] == verdict
    assert "+2.0 to +2.0 points" in claim["evidence"]
    assert f"{100 * min(views):+.1f} to {100 * max(views):+.1f}, noise +0.1 to +0.1" in claim["evidence"]


@pytest.mark.parametrize(("ratio", "verdict"), [(0.6, "holds"), (0.7, "undecided"), (0.8, "fails")])
def test_an_inpainter_works_below_seven_tenths_of_the_mean_colour_s_error(ratio, verdict):
    parts = [{"ratio": ratio + 0.01 * (-1) ** place, "variety": 0.4, "sharpness": 0.1} for place in range(10)]
    (claim,) = judged_tasks(fillings={INPAINTING: {"": parts}})
    assert claim["verdict"] == verdict


def test_the_arguments_compare_decoders_part_by_part():
    whole = [{"ratio": 0.6, "variety": 0.4 + 0.01 * place, "sharpness": 0.1 + 0.001 * place} for place in range(10)]
    alike = [{**part, "variety": part["variety"] - 0.3} for part in whole]
    sharper = [{**part, "sharpness": part["sharpness"] + 0.05} for part in whole]
    told = {"": whole, "adversarial loss alone": alike, "L2 alone": sharper}
    verdicts = {claim["text"]: claim["verdict"] for claim in judged_tasks(fillings={INPAINTING: told})}
    assert verdicts["The adversarial loss alone fills every image alike, more than with L2"] == "holds"
    assert verdicts["L2 alone fills with more blur than with the adversarial loss"] == "fails"


def test_the_source_s_table_is_judged_and_its_missing_row_filled():
    bare = {name: records(right, 100 - right) for name, right in (("none", 72), ("fgsm", 20), ("pgd-2", 13))}
    reversed_ = {name: records(right, 100 - right) for name, right in (("none", 60), ("fgsm", 28), ("pgd-2", 24))}
    network, inpainting = INPAINTING, Reversal(network=INPAINTING, task="inpainting")
    claims = of_the_source(
        [Judged(network=network, records=bare), Judged(network=network, records=reversed_, reversal=inpainting)]
    )
    clean, fgsm, left_out = claims
    assert "lowers the accuracy on clean images (source: -16.29 points)" in clean["text"]
    assert "raises the accuracy under fgsm, replayed (source: +6.63 points)" in fgsm["text"]
    assert "raises the accuracy under pgd-2, replayed: the row that the source leaves out" in left_out["text"]
    assert "+12.0 points" in clean["evidence"]
    assert "+8.0 points" in fgsm["evidence"]
    assert "+11.0 points" in left_out["evidence"]
    assert left_out["verdict"] == "holds"


def test_masks_are_compared_where_the_source_s_attacks_leave_something():
    one = {name: records(right, 200 - right) for name, right in (("none", 120), ("fgsm", 60), ("pgd-2", 40))}
    several = {**one, "pgd-2": records(80, 120)}
    systems = [
        Judged(
            network=INPAINTING,
            records=found,
            reversal=Reversal(network=INPAINTING, task="inpainting", variant=variant),
            audit={"cosine": [cosine, 0.0, 0.1]},
        )
        for found, variant, cosine in ((one, "", 0.043), (several, "several masks", 0.099))
    ]
    (claim,) = arguments(systems, {})
    assert claim["verdict"] == "fails"
    assert "-20.0 points" in claim["evidence"]
    assert "Cosine of the gradients +0.043 with one, +0.099 with several" in claim["evidence"]
