"""The verdicts of system C on made-up networks whose accuracies are known."""

from dataclasses import replace
from types import SimpleNamespace

import pytest

from unfool.evaluation import Records
from unfool.studies.framework import Measured, Results
from unfool.studies.framework.claims import judge
from unfool.studies.transfer.claims import study_claims
from unfool.studies.transfer.networks import fine_tuned, pretrained, probes, runs
from unfool.studies.transfer.scales import PRETRAININGS, PUBLISHED, SMALL, Plan

NO_ATTACK, FGSM, STRONG = "none", "fgsm", "autoattack"
WITHIN, AT_TWO = "linf:8/255", "linf:2/255"
ATTACKS = {(NO_ATTACK, WITHIN): 400, (FGSM, AT_TWO): 200, (FGSM, WITHIN): 200, (STRONG, WITHIN): 100}
"""What the networks are attacked with here, and on how many images."""
CLEAN = "clean images"


def records(attack, share, threat=WITHIN):
    """The first images are right; the strong attack has seen every second one of the others' images."""
    count, step = ATTACKS[attack, threat], 2 if attack == STRONG else 1
    right = round(share * count)
    mark = None if attack == NO_ATTACK else "net"
    return Records(
        attack=attack,
        threat=threat,
        data="cifar10",
        split="test",
        seed=0,
        ids=list(range(0, step * count, step)),
        correct=[place < right for place in range(count)],
        losses=[1.0] * count,
        distances=[0.0] * count,
        crafted_on=mark,
        judged_on=mark,
        cpu_seconds=0.0,
        model_images=count,
        labels=[0] * count,
    )


def judged(shares=None, by_model=None, workflow=(700, 300), control=2000, beside_source=False):
    """The study's claims; ``shares`` are (plan, attack) or (plan, attack, threat): accuracy, else 0.4. The source's
    figures stand beside the rows if they are ``beside_source``."""
    measured, trained = [], {}
    for plan, seed in runs(SMALL):
        network = fine_tuned(SMALL, plan, seed)
        trained[network.path] = SimpleNamespace(model_images=control, cpu_seconds=1.0)
        for attack, threat in ATTACKS:
            every = (shares or {}).get((plan, attack), 0.4)
            item = records(attack, (shares or {}).get((plan, attack, threat), every), threat)
            row = item.row(network.model, seed=seed, settings=network.settings)
            figure = PUBLISHED.of(row) if beside_source else None
            measured.append(Measured(row=replace(row, source_value=figure), records=item))
    trained[pretrained(SMALL, "simclr", 0).path] = SimpleNamespace(model_images=workflow[0], cpu_seconds=1.0)
    trained[fine_tuned(SMALL, Plan(model="simclr"), 0).path].model_images = workflow[1]
    accuracies = dict.fromkeys((*PRETRAININGS, "random weights"), 0.5) | (by_model or {})
    for (model, _), probed in probes(SMALL).items():
        for seed, probe in enumerate(probed):
            item, words = (
                records(NO_ATTACK, accuracies[model]),
                {"linear_probe": probe.words["linear_probe"].format(stage="last")},
            )
            measured.append(Measured(row=item.row(model, seed=seed, settings=words), records=item))
    work = SimpleNamespace(get=lambda network: trained[network.path])
    results = Results(scale="small", work=work, measured=measured)
    return [claim.to_json() for claim in judge(study_claims(SMALL), results)]


def verdict(claims, *words):
    found = [claim for claim in claims if all(word in claim["text"] for word in words)]
    assert len(found) == 1, (words, [claim["text"] for claim in found])
    return found[0]["verdict"]


def test_what_makes_no_difference_holds_nowhere_it_must():
    claims = judged()
    assert verdict(claims, "100% of the labels", "clean images", f"fgsm within {WITHIN}") == "fails"
    assert verdict(claims, "costs clean accuracy only marginally", "FGSM examples") == "holds"
    # equal on 100 images is not known to be equal
    assert verdict(claims, "Adversarial contrastive pretraining is enough") == "undecided"
    assert verdict(claims, "overstates") == "undecided"
    assert verdict(claims, "linear probe", "standardised") == "fails"


@pytest.mark.parametrize(
    ("learnt", "share", "attack", "claimed"),
    [(CLEAN, 1.0, FGSM, 12), (CLEAN, 0.3, STRONG, 10), ("FGSM examples", 1.0, FGSM, 4), (CLEAN, 0.01, FGSM, 3)],
)
def test_the_first_table_is_claimed_as_the_source_has_it(learnt, share, attack, claimed):
    """Half of the claim is enough; what is gained is the mean over three seeds."""
    words = (f"{share:.0%} of the labels", f"({learnt}, {attack} within {WITHIN})")
    more = judged({(Plan(model="simclr", share=share, images=learnt), attack): 0.4 + claimed / 100 + 0.05})
    assert verdict(more, *words) in ("holds", "undecided")
    less = judged({(Plan(model="simclr", share=share, images=learnt), attack): 0.3})
    assert verdict(less, *words) == "fails"
    evidence = next(claim["evidence"] for claim in more if all(word in claim["text"] for word in words))
    assert f"half of the claimed {claimed} points" in evidence
    assert f"+{claimed + 5}.0 points" in evidence
    assert "over 3 training seeds" in evidence


def test_each_budget_of_fgsm_has_a_verdict_of_its_own():
    """SimCLR gains 20 points within 2/255 and nothing within 8/255; budgets that were not measured have no verdict."""
    claims = judged({(Plan(model="simclr", images=CLEAN), FGSM, AT_TWO): 0.6})
    words = "100% of the labels", "clean images", "training from scratch"
    assert verdict(claims, *words, f"fgsm within {AT_TWO}") == "holds"
    assert verdict(claims, *words, f"fgsm within {WITHIN}") == "fails"
    assert not any("within linf:4/255" in claim["text"] for claim in claims)


SCRATCH = Plan(model="no pretraining", images=CLEAN, trainable="all")


def test_a_budget_says_nothing_of_the_source_where_the_control_is_not_near_the_source_s():
    """Without pretraining the source keeps 23 % under FGSM: ours 25 % within 2/255, but 2 % within 8/255, within which
    the strong attack searches as well."""
    simclr = Plan(model="simclr", images=CLEAN)
    shares = {(SCRATCH, NO_ATTACK): 0.66, (SCRATCH, FGSM, AT_TWO): 0.25, (SCRATCH, FGSM, WITHIN): 0.02}
    claims = judged({**shares, (simclr, FGSM): 0.5}, beside_source=True)
    words = "100% of the labels", "clean images", "training from scratch"
    assert verdict(claims, *words, f"fgsm within {AT_TWO}") == "holds"
    assert verdict(claims, *words, f"fgsm within {WITHIN}") == "not reproduced"
    assert verdict(claims, "30% of the labels", "clean images", "autoattack") == "not reproduced"
    near = judged({**shares, (SCRATCH, FGSM, WITHIN): 0.25}, beside_source=True)
    assert verdict(near, "30% of the labels", "clean images", "autoattack") != "not reproduced"


@pytest.mark.parametrize(("share", "is_judged"), [(0.64, True), (0.62, False), (0.74, False)])
def test_nothing_is_said_of_the_source_by_a_control_that_is_not_near_on_clean_images(share, is_judged):
    """Without pretraining the source classifies 68 % of clean images after clean images."""
    claims = judged({(SCRATCH, NO_ATTACK): share, (SCRATCH, FGSM): 0.25}, beside_source=True)
    for words in (
        ("100% of the labels", f"({CLEAN}, fgsm within {AT_TWO})"),
        ("30% of the labels", f"({CLEAN}, autoattack within {WITHIN})"),
        ("1% of the labels is enough", f"fgsm within {WITHIN}"),
        ("costs clean accuracy only marginally", f"({CLEAN})"),
    ):
        assert (verdict(claims, *words) != "not reproduced") is is_judged


def test_every_claim_of_the_source_has_a_control_and_no_question_of_our_own_has_one():
    """With 40 % everywhere each control is far from the source's, on clean images or under FGSM."""
    claims = judged(beside_source=True)
    tables = ("scratch-", "marginal-", "few-labels-", "simclr-jigsaw-", "jigsaw-rotation-")
    untold = {claim["id"] for claim in claims if claim["verdict"] == "not reproduced"}
    assert untold == {claim["id"] for claim in claims if claim["id"].startswith(tables)}
    assert any("autoattack" in name for name in untold)
    assert all(not claim.control for claim in study_claims(SMALL) if not claim.id.startswith(tables))


def test_claims_of_the_source_say_how_much_they_ask_for_and_where_the_source_claims_it():
    texts = {claim["id"]: claim["text"] for claim in judged()}
    pair = "simclr-jigsaw-fgsm-examples"
    assert texts[f"{pair}-fgsm-within-linf-8-255"].endswith(f"{WITHIN}), by at least half of the 9 points claimed")
    assert texts[f"{pair}-autoattack-within-linf-8-255"].endswith("by at least half of the 9 points claimed under FGSM")
    assert texts["marginal-clean-images"].endswith("only marginally, at most 5 points (clean images)")
    assert not any("claimed" in text for name, text in texts.items() if name.startswith(("against-", "combination-")))


def test_tasks_are_compared_at_30_percent():
    shares = {(Plan(model=name, share=0.3), FGSM): share for name, share in (("simclr", 0.6), ("jigsaw", 0.4))}
    claims = judged({**shares, (Plan(model="rotation", share=0.3), FGSM): 0.2})
    assert verdict(claims, "SimCLR pretraining is more robust than jigsaw", f"fgsm within {WITHIN}") == "holds"
    assert verdict(claims, "Jigsaw pretraining is more robust than rotation", f"fgsm within {WITHIN}") == "holds"
    assert verdict(claims, "SimCLR pretraining is more robust than jigsaw", "autoattack") == "undecided"


def test_the_workflow_s_cost_is_the_sum_of_its_runs():
    assert verdict(judged(workflow=(700, 300), control=1001), "cost less") == "holds"
    claims = judged(workflow=(700, 300), control=1000)
    assert verdict(claims, "cost less") == "fails"
    # 100 epochs of two views and 50 of two passes, over 50 of two passes
    evidence = next(claim["evidence"] for claim in claims if claim["id"] == "cost")
    assert "With the source's own 100 and 50 epochs on sets of one size it is 3.0." in evidence


def test_nothing_is_as_robust_as_what_keeps_nothing():
    control = Plan(model="no pretraining", trainable="all")
    plan = Plan(model="adversarial contrast", share=0.3, images=CLEAN)
    fallen = judged({(control, STRONG): 0.0, (plan, STRONG): 0.0})
    assert verdict(fallen, "Adversarial contrastive pretraining is enough") == "undecided"
    below = judged({(control, STRONG): 0.4, (plan, STRONG): 0.1})
    assert verdict(below, "Adversarial contrastive pretraining is enough") == "fails"


def test_fgsm_and_the_strong_attack_are_compared_on_the_same_images():
    """FGSM leaves the first 80 of 200 images, of which the strong attack saw every second: 40 of its 100."""
    claims = judged({(Plan(model="simclr", share=0.3), STRONG): 0.1})
    claim = next(claim for claim in claims if "overstates" in claim["text"])
    assert claim["verdict"] == "holds"
    assert "+30.0 points" in claim["evidence"]
    assert "on 100 images" in claim["evidence"]


@pytest.mark.parametrize(("share", "word"), [(0.75, "holds"), (0.66, "undecided"), (0.55, "fails")])
def test_pretraining_is_real_if_the_whole_interval_is_15_points_above_random_weights(share, word):
    claims = judged(by_model={"simclr": share, "random weights": 0.5})
    assert verdict(claims, "linear probe", "as they are") == word


def test_what_moves_decides_the_comparison_with_training_from_scratch():
    moved = Plan(model="simclr", share=0.3, trainable="all")
    for share, word in ((0.7, "holds"), (0.1, "fails")):
        claims = judged({(moved, STRONG): share})
        assert verdict(claims, "SimCLR, all layers moving", "autoattack") == word
        assert verdict(claims, "After SimCLR, moving all layers") == word
