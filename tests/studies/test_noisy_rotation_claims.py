"""System E's verdicts against examples computed by hand."""

import dataclasses
import math
from types import SimpleNamespace

import pytest

from unfool.evaluation import Records
from unfool.evaluation.statistics.gains import unpaired
from unfool.studies.framework import Measured, Results, row_of
from unfool.studies.framework.claims import judge
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
    by_path = {probes(settings, plan).path: stages for plan, (stages, _) in everything.items()}
    runs = {probes(settings, plan).system.path: run for plan, (_, run) in everything.items()}
    work = SimpleNamespace(get=lambda network: runs[network.path])
    rows = [
        row_of(every[0], extractor(settings, ROTATION), {"stage": stage})
        for stage, every in rotation_on_test(everything)
    ]
    rows = [dataclasses.replace(row, source_value=PUBLISHED.of(row)) for row in rows]
    results = Results(scale="small", work=work, measured=[Measured(row=row) for row in rows], by_path=by_path)
    return [claim.to_json() for claim in judge(study_claims(settings), results)]


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
    for words in ("improves the best extractor", "pool3", "pool4", "pool5 by", "fits its own", "first four stages"):
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


def test_the_gain_is_told_in_points_over_the_probe_s_seeds(everything):
    """Paired, nested: 5.6 points gained, none lost; the variance of the mean is (0.056 - 0.056²) / 2,000."""
    claim = one(everything, "improves the best extractor by 5.6 points")
    error = 196 * math.sqrt((0.056 - 0.056**2) / TEST)
    assert f"+5.6 points [{5.6 - error:+.1f}, {5.6 + error:+.1f}] over 5 seeds of the probe" in claim["evidence"]
    assert "66.5 % on pool4" in claim["evidence"]
    assert "60.9 % on pool2" in claim["evidence"]


def test_equal_extractors_uphold_nothing_but_what_equality_does(everything):
    found = {**everything, NOISE: probed(NOISE, CLEAN, CLEAN_TRAIN, images=600)}
    told = verdicts(found)
    assert one(found, "improves the best extractor")["verdict"] == "fails"
    assert [verdict for text, verdict in told.items() if "helps the later stages" in text] == ["fails"] * 3
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


def test_a_real_pretraining_needs_ten_points_on_the_same_stage(everything):
    for share, verdict in ((0.48, "holds"), (0.505, "undecided"), (0.56, "fails")):
        random = probed(RANDOM, (0.1, share, 0.1, 0.1, 0.1), CLEAN_TRAIN)
        claim = one({**everything, RANDOM: random}, "Pretraining is real: rotation")
        assert claim["verdict"] == verdict
        assert f"rotation 60.9 % on pool2, random weights {100 * share:.1f} % on pool2" in claim["evidence"]


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
