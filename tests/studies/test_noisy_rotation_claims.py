"""System E's verdicts against examples computed by hand."""

import dataclasses
import math
from types import SimpleNamespace

import pytest

from unfool.evaluation import Records
from unfool.evaluation.statistics.gains import unpaired
from unfool.studies.framework import Measured, Results, row_of
from unfool.studies.framework.claims import judge
from unfool.studies.noisy_rotation import NoisyRotation
from unfool.studies.noisy_rotation.claims import study_claims
from unfool.studies.noisy_rotation.networks import AttackedStages, extractor, probes
from unfool.studies.noisy_rotation.scales import (
    HALF,
    HALF_RESNET,
    LABELS,
    LONGER,
    NOISE,
    PUBLISHED,
    RANDOM,
    ROBUST_LABELS,
    ROTATION,
    SMALL,
    STAGES,
)

TEST, TRAIN, ATTACKED, SEEDS = 2_000, 1_000, 200, 5


def records(share, count, split="test", attack="none"):
    right = round(share * count)
    crafted = None if attack == "none" else "a"
    return Records(
        attack=attack,
        threat="linf:0.01",
        data="cifar10",
        split=split,
        seed=0,
        ids=list(range(count)),
        correct=[True] * right + [False] * (count - right),
        losses=[1.0] * count,
        distances=[0.0] * count,
        crafted_on=crafted,
        judged_on=crafted,
        cpu_seconds=0.0,
        model_images=count,
    )


def probed(plan, test, train, *, best=None, robust=0.1, images=100):
    """An extractor whose probes have these accuracies by stage, the same for three seeds."""
    by_stage = {}
    for stage, on_test, on_train in zip(STAGES, test, train, strict=True):
        by_stage[stage, "test"] = [records(on_test, TEST)] * SEEDS
        by_stage[stage, "train"] = [records(on_train, TRAIN, "train")] * SEEDS
    attacked = {threat: records(robust, ATTACKED, attack="autoattack") for threat in SMALL.threats}
    best = best or STAGES[test.index(max(test))]
    stages = AttackedStages(records=by_stage, curves={}, best=best, attacked=attacked)
    return stages, SimpleNamespace(cpu_seconds=float(images), model_images=images)


def rotation_on_test(everything):
    """Rotation's records on test images, by stage."""
    return [(stage, every) for (stage, split), every in everything[ROTATION][0].records.items() if split == "test"]


def judge_claims(settings, everything):
    """The claims on these probes and pretrainings."""
    return [claim.to_json() for claim in made(settings, everything)[1]]


def made(settings, everything):
    """The results of these probes and pretrainings, and the claims on them."""
    by_path = {probes(settings, plan).path: stages for plan, (stages, _) in everything.items()}
    runs = {probes(settings, plan).system.path: run for plan, (_, run) in everything.items()}
    work = SimpleNamespace(get=lambda network: runs[network.path])
    rows = [
        row_of(every[0], extractor(settings, ROTATION), {"stage": stage})
        for stage, every in rotation_on_test(everything)
    ]
    rows = [dataclasses.replace(row, source_value=PUBLISHED.of(row)) for row in rows]
    results = Results(scale="small", work=work, measured=[Measured(row=row) for row in rows], by_path=by_path)
    return results, judge(study_claims(settings), results)


CLEAN = (0.487, 0.609, 0.603, 0.599, 0.479)
NOISY = (0.485, 0.601, 0.646, 0.665, 0.549)
CLEAN_TRAIN = (0.95, 0.90, 0.85, 0.80, 0.50)
NOISY_TRAIN = (0.95, 0.90, 0.88, 0.85, 0.58)


@pytest.fixture
def everything():
    """The source's own figures, as if they had been found here."""
    found = {plan: probed(plan, CLEAN, CLEAN_TRAIN) for plan in SMALL.pretrainings}
    found[NOISE] = probed(NOISE, NOISY, NOISY_TRAIN, images=600, robust=0.3)
    found[LONGER] = probed(LONGER, CLEAN, CLEAN_TRAIN, images=600)
    found[RANDOM] = probed(RANDOM, (0.45, 0.45, 0.4, 0.35, 0.25), CLEAN_TRAIN, images=0)
    return found


def verdicts(found):
    return {claim["text"]: claim["verdict"] for claim in judge_claims(SMALL, found)}


def one(found, words):
    (claim,) = [claim for claim in judge_claims(SMALL, found) if words in claim["text"]]
    return claim


def test_the_source_s_own_figures_uphold_its_claims(everything):
    told = verdicts(everything)
    assert len(told) == 1 + 3 + 2 + 3 + 1 + 1 + 2 + 1 + 2 + 1
    for words in ("improves the best extractor", "pool3", "pool4", "stage pool5", "fits its own", "first four stages"):
        assert [verdict for text, verdict in told.items() if words in text] == ["holds"], words
    for stage in ("On pool1, pretraining", "On pool2, pretraining"):
        assert [verdict for text, verdict in told.items() if stage in text] == ["holds"]
    assert one(everything, "test accuracy with noise is above")["verdict"] == "holds"
    assert one(everything, "Pretraining is real")["verdict"] == "holds"
    assert one(everything, "for longer is real too")["verdict"] == "holds"
    assert all(verdict == "holds" for text, verdict in told.items() if "more robust" in text)


def test_nothing_is_said_of_the_source_where_rotation_itself_is_far_from_its_figures(everything):
    """6 points below on pool2, where the source's rotation is best."""
    weak = (0.487, 0.549, 0.603, 0.599, 0.479)
    found = {**everything, ROTATION: probed(ROTATION, weak, CLEAN_TRAIN)}
    assert one(found, "improves the best extractor")["verdict"] == "not reproduced"
    assert one(found, "On pool2, pretraining")["verdict"] == "not reproduced"
    assert one(found, "On pool1, pretraining")["verdict"] == "holds"
    assert "54.9 % here and 60.9 % there" in one(found, "improves the best extractor")["evidence"]


@pytest.mark.parametrize(
    ("weak", "words"),
    [
        ("pool1", ["first four stages overfit"]),
        ("pool2", ["first four stages overfit", "does not justify its cost"]),
        ("pool5", ["first four stages overfit", "fits its own", "test accuracy with noise is above train accuracy"]),
    ],
)
def test_a_claim_on_a_stage_where_rotation_is_far_from_the_source_s_has_no_verdict(everything, weak, words):
    """6 points below on that stage alone, on test images: the source gives no figures of training images."""
    test = [share - 0.06 * (stage == weak) for stage, share in zip(STAGES, CLEAN, strict=True)]
    found = {**everything, ROTATION: probed(ROTATION, test, CLEAN_TRAIN, best="pool2")}
    every = ("first four stages overfit", "does not justify its cost", "fits its own", "accuracy with noise is above")
    lost = [text for text in every if one(found, text)["verdict"] == "not reproduced"]
    assert len(lost) == len(words)
    for text in words:
        claim = one(found, text)
        assert claim["verdict"] == "not reproduced"
        assert f"the control (rotation, {weak}, none)" in claim["evidence"]


def test_claims_say_how_large_a_gain_the_source_claims_and_what_competitive_means(everything):
    best, cost = one(everything, "improves the best extractor"), one(everything, "does not justify its cost")
    assert best["text"].endswith("improves the best extractor, by at least half of the 5.6 points claimed")
    assert one(everything, "stage pool4")["text"].endswith("pool4, by at least half of the 6.6 points claimed")
    assert "less than 2 points worse (the source: -0.8 points)" in one(everything, "On pool2, pretraining")["text"]
    assert "over clean rotation that ran for as long it is at most 2 points" in cost["text"]
    assert "it is less than 2 points worse" in one(everything, "half the channels competes")["text"]


def test_the_gain_is_told_in_points_over_the_probe_s_seeds(everything):
    """Paired, nested: 5.6 points gained, none lost; the variance of the mean is (0.056 - 0.056²) / 2,000."""
    claim = one(everything, "improves the best extractor")
    error = 196 * math.sqrt((0.056 - 0.056**2) / TEST)
    assert f"+5.6 points [{5.6 - error:+.1f}, {5.6 + error:+.1f}] over 5 seeds of the probe" in claim["evidence"]
    assert "66.5 % on pool4" in claim["evidence"]
    assert "60.9 % on pool2" in claim["evidence"]


def test_equal_extractors_uphold_nothing_but_what_equality_does(everything):
    found = {**everything, NOISE: probed(NOISE, CLEAN, CLEAN_TRAIN, images=600)}
    told = verdicts(found)
    assert one(found, "improves the best extractor")["verdict"] == "fails"
    assert [verdict for text, verdict in told.items() if "improves the later stage" in text] == ["fails"] * 3
    assert [verdict for text, verdict in told.items() if "is competitive" in text] == ["holds"] * 2
    assert one(found, "fits its own training images")["verdict"] == "undecided"
    assert one(found, "half the channels competes")["verdict"] == "holds"
    assert one(found, "does not justify its cost")["verdict"] == "holds"
    assert [verdict for text, verdict in told.items() if "more robust" in text] == ["undecided"]


def test_cost_is_judged_against_rotation_that_ran_as_long(everything):
    claim = one(everything, "does not justify its cost")
    assert claim["verdict"] == "fails"
    assert "600 images through the network in pretraining, 6.0 times as many" in claim["evidence"]
    better = (0.5, 0.7, 0.7, 0.7, 0.5)
    found = {**everything, LONGER: probed(LONGER, better, CLEAN_TRAIN, images=600)}
    assert one(found, "does not justify its cost")["verdict"] == "holds"


def test_the_best_stage_is_the_one_that_was_chosen_not_the_best_on_test_images(everything):
    found = {**everything, NOISE: probed(NOISE, NOISY, NOISY_TRAIN, best="pool1")}
    claim = one(found, "improves the best extractor")
    assert "48.5 % on pool1" in claim["evidence"]
    assert claim["verdict"] == "fails"


def test_the_source_s_steps_do_not_reach_its_budget(everything):
    claim = one(everything, "norm of 0.01")
    assert claim["verdict"] == "fails"
    assert "5 steps of 0.001 from the image itself can reach: 0.005" in claim["evidence"]
    further = dataclasses.replace(SMALL, noises={**SMALL.noises, "as written": "pgd-10:step_size=0.001"})
    (claim,) = [claim for claim in judge_claims(further, everything) if "norm of 0.01" in claim["text"]]
    assert claim["verdict"] == "holds"


def test_what_the_source_owes_is_compared_at_the_best_stages(everything):
    better = (0.6, 0.7, 0.7, 0.7, 0.6)
    for plan, words in (
        (NOISE.on(HALF), "half the channels competes"),
        (NOISE.on(HALF_RESNET), "half ResNet-50 competes"),
        (ROBUST_LABELS, "Supervised pretraining under adversarial noise"),
    ):
        found = {**everything, plan: probed(plan, better, CLEAN_TRAIN)}
        assert one(found, words)["verdict"] == "holds"
        worse = {**everything, plan: probed(plan, (0.3,) * 5, CLEAN_TRAIN)}
        assert one(worse, words)["verdict"] == "fails"
    assert LABELS in everything


@pytest.mark.parametrize(("words", "name"), [("is real: ", "rotation"), ("is real too: ", "rotation, for longer")])
def test_a_real_pretraining_needs_ten_points_over_the_best_stage_at_random_weights(everything, words, name):
    """Wherever that is: on pool1 random weights may know more than on the stage that pretraining is best at."""
    for share, verdict in ((0.48, "holds"), (0.505, "undecided"), (0.56, "fails")):
        random = probed(RANDOM, (share, 0.1, 0.1, 0.1, 0.1), CLEAN_TRAIN)
        claim = one({**everything, RANDOM: random}, words)
        assert claim["verdict"] == verdict
        assert f"{name} 60.9 % on pool2, random weights {100 * share:.1f} % on pool1" in claim["evidence"]


def test_the_summary_gives_figures_verdicts_and_how_far_the_controls_are(everything):
    results, claims = made(SMALL, everything)
    text = NoisyRotation().summary(SMALL, results, {claim.id: claim for claim in claims})
    assert "a VGG-16 of 25 % of the width learns so for 3 epochs (the source's for 60)" in text
    told = {claim.id: f"{claim.figure} ({claim.verdict})" for claim in claims}
    late = ("late-pool3", "late-pool4", "late-pool5")
    for name in ("best-stage", *late, "early-pool1", "early-pool2", "cost", "real", "longer-real", "robust"):
        assert told[name] in text, name
    assert "it has 48.7, 60.9, 60.3, 59.9 and 47.9 % here, and 48.7, 60.9, 60.3, 59.9 and 47.9 % there" in text
    assert "under autoattack inside linf:0.01 on 200 images" in text


def test_unpaired_differences_add_the_errors_of_both_sets_of_images_and_of_the_seeds():
    """0.5 against 0.4, 0.5, 0.6: differences 0.1, 0.0, -0.1, spread 0.1; t(2) = 4.302653."""
    ours, theirs = [records(0.5, 100)] * 3, [records(share, 400, "train") for share in (0.4, 0.5, 0.6)]
    found = unpaired(ours, theirs)
    error = math.hypot(1.96 * math.sqrt(0.25 / 102 + 0.25 / 402), 4.302653 * 0.1 / math.sqrt(3))
    assert found.mean == pytest.approx(0.0)
    assert found.high == pytest.approx(error, rel=1e-5)
    single = unpaired(ours[:1], theirs[:1])
    share = 161 / 402
    error = 1.96 * math.sqrt(0.25 / 102 + share * (1 - share) / 402)
    assert single.high - single.mean == pytest.approx(error, rel=1e-4)


def test_overfitting_is_told_by_the_gaps(everything):
    flat = {**everything, ROTATION: probed(ROTATION, CLEAN, (0.49, 0.9, 0.9, 0.9, 0.5))}
    claim = one(flat, "first four stages overfit")
    assert claim["verdict"] != "holds"
    assert "pool1 +0.3, pool2 +29.1" in claim["evidence"]
    assert "pool5 +2.1" in claim["evidence"]
