"""Verdicts of system D from made-up figures: each rule holds, fails and stays undecided where it says so."""

import pytest
from scipy.stats import spearmanr

from unfool.studies.auxiliary_claims import judge_claims
from unfool.studies.auxiliary_foresight import FEWEST, foreseen
from unfool.studies.auxiliary_measures import Judged
from unfool.studies.auxiliary_networks import ALONE, ON_THE_GRID, Reversal, Trained
from unfool.studies.auxiliary_scales import NORMAL, SMALL

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
    assert f"{spearmanr(cosines, gains).statistic:+.2f}" in replayed["evidence"]
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


@pytest.mark.parametrize(("moved", "verdict"), [(0.9, "holds"), (0.3, "fails")])
def test_a_jigsaw_that_fails_on_moved_images_has_read_the_grid(moved, verdict):
    network = Trained(part=TILES, base=NORMAL, regime=ON_THE_GRID, task="jigsaw")
    still = {"loss": 1.0, "count": 2000, "accuracy": 0.9, "low": 0.88, "high": 0.92}
    shifted = {**still, "accuracy": moved, "low": moved - 0.02, "high": moved + 0.02}
    (claim,) = judged_tasks({network: {"jigsaw": still, "shifted": shifted}})
    assert claim["verdict"] == verdict


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
