"""System C as data: the source's figures and settings, written out again here as literal numbers."""

import itertools
from types import SimpleNamespace

import pytest

from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.studies.transfer.networks import measured, plans, pretrained
from unfool.studies.transfer.scales import DEMO, FULL, PRETRAININGS, PUBLISHED, SHARES, SMALL, Plan
from unfool.training.trainable import frozen_parts


def source_value(plan, attack):
    """What stands beside a plan's row under an attack, a share."""
    settings = plan.settings | ({"label_column": "label"} if plan.other else {})
    row = SimpleNamespace(model=plan.model, attack=attack, settings=settings)
    return PUBLISHED.of(row)


def pretraining(scale, name):
    return pretrained(scale, name).config


CLEAN, FGSM = "clean images", "FGSM examples"

TABLE = {
    # model, labels: clean and FGSM after clean fine-tuning, the same after adversarial fine-tuning
    ("no pretraining", 1.0): (0.68, 0.23, 0.66, 0.36),
    ("simclr", 0.01): (0.58, 0.26, 0.49, 0.29),
    ("simclr", 0.1): (0.61, 0.32, 0.60, 0.36),
    ("simclr", 0.3): (0.63, 0.33, 0.62, 0.38),
    ("simclr", 1.0): (0.63, 0.35, 0.62, 0.40),
}


@pytest.mark.parametrize(("model", "share"), TABLE)
def test_the_first_table_is_the_source_s(model, share):
    moves = "all" if model == "no pretraining" else "heads"
    plan = {"model": model, "share": share, "trainable": moves}
    found = [
        source_value(Plan(**plan, images=images), attack) for images in (CLEAN, FGSM) for attack in ("none", "fgsm")
    ]
    assert tuple(found) == TABLE[model, share]


def test_the_second_table_is_the_source_s():
    found = {name: source_value(Plan(model=name, share=0.3), "fgsm") for name in PRETRAININGS}
    assert found == {
        "rotation": 0.25,
        "jigsaw": 0.29,
        "simclr": 0.38,
        "simclr + rotation + jigsaw": None,
        "adversarial contrast": None,
    }


@pytest.mark.parametrize(
    "plan",
    [
        Plan(model="rotation", share=0.1),
        Plan(model="rotation", share=0.3, images=CLEAN),
        Plan(model="simclr", share=0.3, trainable="all"),
        Plan(model="simclr", share=1.0, other=True),
        Plan(model="no pretraining", share=1.0, trainable="all", other=True),
    ],
)
def test_nothing_of_the_source_stands_beside_what_it_did_not_do(plan):
    assert source_value(plan, "none") is None
    assert source_value(plan, "fgsm") is None


def test_it_attacked_with_fgsm_alone():
    assert source_value(Plan(model="simclr"), "pgd-20") is None
    assert source_value(Plan(model="simclr", share=0.3), "autoattack") is None


def test_full_has_the_source_s_values():
    assert (FULL.unlabelled, FULL.data, FULL.trunk.name) == ("cifar100", "cifar10", "resnet18")
    for name in PRETRAININGS:
        stages = pretraining(FULL, name).stages
        assert sum(stage.epochs for stage in stages) == 100
        assert {stage.batch_size for stage in stages} == {256}
        rates = [stage.learning_rate for stage in stages]
        # exponential decay: the same factor from each stage to the next
        assert [after / before for before, after in itertools.pairwise(rates)] == pytest.approx([0.63] * 9)
        assert 0.008 < rates[-1] * 0.63 / rates[0] < 0.012
    for stage in (FULL.head, FULL.whole):
        assert (stage.batch_size, stage.epochs) == (128, 50)
    assert (FULL.perturb, FULL.threat, FULL.seeds) == ("fgsm", "linf:8/255", 3)
    contrast = pretraining(FULL, "simclr").stages[0].tasks["contrast"]
    assert contrast.settings.get("augmentation", "simclr") == "simclr"
    assert SHARES == (0.01, 0.1, 0.3, 1.0)


def test_small_is_what_was_asked_for():
    for stage in (SMALL.head, SMALL.whole):
        assert stage.batch_size == 128
        assert 0 < stage.steps <= 1000
    assert SMALL.head.steps == SMALL.whole.steps
    assert (SMALL.unlabelled, SMALL.data, SMALL.threat) == ("cifar100", "cifar10", "linf:8/255")
    assert SMALL.attacked >= 500
    assert (SMALL.strongly, SMALL.strong) == (200, "autoattack")


@pytest.mark.parametrize("scale", [DEMO, SMALL, FULL])
def test_every_pretraining_learns_without_labels(scale):
    learnt = {}
    for name in PRETRAININGS:
        config = pretraining(scale, name)
        learnt[name] = sorted(config.stages[0].tasks)
        assert "labels" not in learnt[name]
        adversarial = {(stage.perturb is not None, stage.adversarial, stage.statistics) for stage in config.stages}
        wanted = (True, "dual-stream", "separate") if name == "adversarial contrast" else (False, "plain", "shared")
        assert adversarial == {wanted}
        assert {stage.threat for stage in config.stages} == {scale.threat}
    assert learnt == {
        "simclr": ["contrast"],
        "rotation": ["rotation"],
        "jigsaw": ["jigsaw"],
        "simclr + rotation + jigsaw": ["contrast", "jigsaw", "rotation"],
        "adversarial contrast": ["contrast"],
    }


@pytest.mark.parametrize("scale", [DEMO, SMALL, FULL])
def test_every_cell_that_was_asked_for_is_there(scale):
    wanted = plans(scale)
    for name in PRETRAININGS:
        for share in (0.01, 0.1, 0.3, 1.0):
            for images in (CLEAN, FGSM):
                seeds = wanted[Plan(model=name, share=share, images=images, trainable="heads")]
                compared = name == "simclr" or (share, images) == (0.3, FGSM)
                assert seeds == (scale.seeds if compared else 1)
    for images in (CLEAN, FGSM):
        assert wanted[Plan(model="no pretraining", images=images, trainable="all")] == scale.seeds
        assert {plan.trainable for plan in wanted if (plan.model, plan.images) == ("simclr", images)} == {
            "heads",
            *scale.policies,
        }
    assert wanted[Plan(model="adversarial contrast", share=0.3, trainable="all")] == 1
    assert wanted[Plan(model="adversarial training, a quarter of the cost", trainable="all")] == 1
    assert {plan.model for plan in wanted if plan.other} == {"simclr", "no pretraining"}
    paths = [next(iter(measured(scale, plan, 0))).path for plan in wanted]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize("scale", [DEMO, SMALL, FULL])
def test_the_policies_fit_the_trunk(scale):
    trunk = Network.build(scale.trunk, {}, streams=Streams(0)).trunk
    frozen = [len(frozen_parts(trunk, moves)) for moves in ("heads", *scale.policies)]
    assert frozen[-1] == 0
    assert all(0 < count < frozen[0] for count in frozen[1:-1])
    # the source names the first ten layers, where a trunk has more
    assert ("after:10" in scale.policies) == (scale is FULL)
