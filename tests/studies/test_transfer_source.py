"""System C as data: the source's figures and settings, written out again here as literal numbers."""

from collections import Counter
from types import SimpleNamespace

import pytest
from scale_fields import flatten

from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.report.notes import text_beside, written_notes
from unfool.studies.transfer import Transfer
from unfool.studies.transfer.networks import fine_tuned, measured, pretrained, runs
from unfool.studies.transfer.scales import DEMO, FULL, PRETRAININGS, PUBLISHED, SHARES, SMALL, SOURCE, Plan
from unfool.training.trainable import frozen_parts


def source_value(plan, attack):
    """What stands beside a plan's row under an attack, a share."""
    settings = plan.settings | ({"label_column": "label"} if plan.other else {})
    row = SimpleNamespace(model=plan.model, attack=attack, settings=settings)
    return PUBLISHED.of(row)


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


NOT_STATED = {
    # optimizers, rates, and what no stage of the study uses
    "optimizer": "adam",
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "nesterov": True,
    "warmup_epochs": 0,
    "constant_epochs": 0,
    "cosine_epochs": 0,
    "drop_every": 30,
    "drop_factor": 0.1,
    "decay": 0.95,
    "steps": 0,
    "trainable": "all",
    "precision": "bf16",
    "perturb": None,
    "threat": "linf:8/255",
    "adversarial": "plain",
    "statistics": "shared",
    "beta": 6.0,
    "awp": 0.0,
    "ema": 0.0,
    "held_out": 0,
    "stop_attack": "pgd-10",
    "tasks.labels.task": "labels",
    "tasks.labels.weight": 1.0,
    "tasks.labels.perturbed": True,
    "tasks.labels.settings": {},
}


def stage(path, **fields):
    """Every field of a stage, by its path in the scale; the task is put in by `pretrained`."""
    return {f"{path}.{name}": value for name, value in {**NOT_STATED, **fields}.items()}


# CIFAR-100 without labels, batches of 256, 100 epochs, an exponential decay; rate and factor are ours
PRETRAINING = {
    "batch_size": 256,
    "epochs": 100,
    "schedule": "exponential",
    "learning_rate": 2e-3,
    "decay": 0.955,
    "weight_decay": 1e-6,
}
OURS = {"perturb": "pgd-5:step_size=2/255", "adversarial": "dual-stream", "statistics": "separate"}
# CIFAR-10, batches of 128, 50 epochs for every share of the labels
FINE_TUNING = {"batch_size": 128, "epochs": 1}
VALUES = {
    "unlabelled": "cifar100",
    "data": "cifar10",
    "other.0": "tiny-imagenet",
    "other.1": "label",
    "size": 32,
    "trunk.name": "resnet18",
    "trunk.channels": 3,
    "trunk.settings.stem": "imagenet",
    "trunk.settings.width": 1.0,
    **stage("pretrain.simclr", **PRETRAINING),
    **stage("pretrain.rotation", **PRETRAINING),
    **stage("pretrain.jigsaw", **PRETRAINING),
    **stage("pretrain.simclr + rotation + jigsaw", **PRETRAINING),
    **stage("pretrain.adversarial contrast", **PRETRAINING, **OURS),
    # NT-Xent and a projector of one hidden layer, as wide as the features; rotation's four turns as in its paper
    "tasks.contrast.temperature": 0.2,
    "tasks.contrast.hidden": 0,
    "tasks.contrast.head_norm": "batch",
    "tasks.rotation.turns": "all",
    "tasks.jigsaw.grid": 3,
    "tasks.jigsaw.count": 30,
    **stage("head", **FINE_TUNING, learning_rate=0.05, schedule="cosine"),
    **stage("whole", **FINE_TUNING, optimizer="sgd", learning_rate=0.1, weight_decay=5e-4, schedule="triangle"),
    **{f"epochs.{place}": 50 for place in range(5)},
    # its discussion leaves more than the added layer for later: all layers, with every share of the labels
    **{f"whole_shares.{place}": share for place, share in enumerate((0.01, 0.1, 0.3, 1.0))},
    # all but the last, the first ten layers: its future work
    "policies.0": "from:layer4",
    "policies.1": "after:10",
    "policies.2": "all",
    "baselines.FGSM-RS training, a quarter of the cost.0": "fgsm-rs",
    "baselines.FGSM-RS training, a quarter of the cost.1": 0.25,
    "baselines.PGD-10 training, the same cost.0": "pgd-10",
    "baselines.PGD-10 training, the same cost.1": 1.0,
    "threat": "linf:8/255",
    **{f"budgets.{place}": f"linf:{2**place}/255" for place in range(4)},
    "seeds": 3,
    "attacked": 10_000,
    "strongly": 1_000,
    "pgd": "pgd-20",
    "strong": "autoattack",
    "probe.epochs": 100,
    "probe.drop_every": 25,
    "probe.batch_size": 64,
    "probe.learning_rate": 0.1,
    "probe.momentum": 0.9,
    "probe.weight_decay": 5e-4,
    "probe.standardise": False,
    "probe.seeds.0": 0,
    "probe.neighbours": 0,
    "probe.precision": "fp32",
    "probe.memory": 4.0,
    "precision": "fp32",
}
CUT = {
    # what is smaller at the scale source, and the words that name it
    "pretrain.simclr.epochs": (36, "36 epochs with SimCLR"),
    "pretrain.simclr.decay": (0.88, "falls to a hundredth in as many"),
    "pretrain.rotation.epochs": (10, "10 with rotation"),
    "pretrain.rotation.decay": (0.631, "falls to a hundredth in as many"),
    "pretrain.jigsaw.epochs": (10, "10 with jigsaw"),
    "pretrain.jigsaw.decay": (0.631, "falls to a hundredth in as many"),
    "pretrain.simclr + rotation + jigsaw.epochs": (4, "4 with all three"),
    "pretrain.simclr + rotation + jigsaw.decay": (0.316, "falls to a hundredth in as many"),
    "tasks.rotation.turns": ("one", "one drawn turn"),
    "other.0": ("tiny_imagenet_sub40", "10,000 images of 40 classes"),
    "epochs.1": (20, "50, 20, 10 and 5 epochs"),
    "epochs.2": (10, "50, 20, 10 and 5 epochs"),
    "epochs.3": (5, "50, 20, 10 and 5 epochs"),
    "epochs.4": (10, "for 10 epochs"),
    "whole_shares.0": (0.3, "all layers move with 30 % of the labels alone, of 1, 10, 30 and 100 %"),
    "seeds": (1, "one training seed"),
    "attacked": (1_000, "1,000 test images"),
    "strongly": (500, "attack 500"),
    "strong": ("apgd-t", "APGD-T, for AutoAttack"),
    "probe.epochs": (24, "24 epochs"),
    "probe.drop_every": (6, "24 epochs"),
    "probe.precision": ("bf16", "bf16"),
    "precision": ("bf16", "bf16"),
}
LEFT_OUT = {
    "pretrain.adversarial contrast.": "Adversarial contrastive pretraining",
    "baselines.FGSM-RS": "FGSM-RS training are left out",
    "whole_shares.": "all layers move with 30 % of the labels alone",
}
FULL_CUT = {
    # what even the largest scale leaves out of 10,000 test images and 32 bits
    "strongly": (1_000, "PGD-20 and AutoAttack attack 1,000 test images, of 10,000"),
    "head.precision": ("bf16", "Training computes in bf16"),
    "whole.precision": ("bf16", "Training computes in bf16"),
    **{f"pretrain.{name}.precision": ("bf16", "Training computes in bf16") for name in PRETRAININGS},
}


def test_every_field_of_full_has_the_source_s_value():
    assert flatten(FULL) == VALUES


def test_every_field_of_source_has_the_source_s_value_or_is_named_as_cut():
    fields = flatten(SOURCE)
    kept = {path: value for path, value in VALUES.items() if not path.startswith(tuple(LEFT_OUT))}
    assert fields == {**kept, **{path: value for path, (value, _) in CUT.items()}}
    named = " ".join(Transfer().cuts("source"))
    missing = [words for words in (*LEFT_OUT.values(), *(words for _, words in CUT.values())) if words not in named]
    assert not missing


def test_what_full_leaves_out_is_named():
    fields, named = flatten(FULL), " ".join(Transfer().cuts("full"))
    assert {path: fields[path] for path in FULL_CUT} == {path: value for path, (value, _) in FULL_CUT.items()}
    assert all(words in named for _, words in FULL_CUT.values())


@pytest.mark.parametrize(("scale", "name", "decay"), [(SMALL, "small", "0.0001"), (SOURCE, "source", "1e-06")])
def test_what_departs_from_the_source_s_formula_or_is_not_stated_there_is_named(scale, name, decay):
    text = " ".join(written_notes(text_beside(Transfer), scale=scale, results=SimpleNamespace(scale=name)))
    assert "batch norm before its ReLU, which the source's formula does not have" in text
    assert f"the temperature of its loss, here 0.2, nor the weight decay of pretraining, here {decay}." in text
    assert "sgd with Nesterov's momentum at 0.1 where more moves" in text
    assert "Its SGD has Nesterov's momentum, where the papers of FGSM-RS" in text
    assert "After SimCLR all layers move too, with 30 % of the labels alone." in text
    assert "Training runs in bf16. Attacks search in bf16" in text


@pytest.mark.parametrize("scale", [SOURCE, FULL])
def test_networks_learn_what_the_scale_says(scale):
    simclr = pretrained(scale, "simclr", 0).config
    assert (simclr.data, simclr.trunk, simclr.fraction) == ("cifar100", scale.trunk, 1.0)
    (stage,) = simclr.stages
    assert stage.tasks["contrast"].settings.get("augmentation", "simclr") == "simclr"
    assert stage.tasks["contrast"].settings.get("loss", "nt-xent") == "nt-xent"
    for share, epochs in zip(SHARES, scale.epochs, strict=False):
        for images, perturb in ((CLEAN, None), (FGSM, "fgsm")):
            network = fine_tuned(scale, Plan(model="simclr", share=share, images=images), 0)
            (stage,) = network.config.stages
            assert (network.start.path, network.config.fraction) == (pretrained(scale, "simclr", 0).path, share)
            assert (stage.epochs, stage.steps, stage.trainable, stage.perturb) == (epochs, 0, "heads", perturb)
            whole = fine_tuned(scale, Plan(model="simclr", share=share, images=images, trainable="all"), 0)
            (stage,) = whole.config.stages
            assert (whole.start.path, whole.config.fraction) == (pretrained(scale, "simclr", 0).path, share)
            assert (stage.epochs, stage.trainable, stage.perturb) == (epochs, "all", perturb)
    control = fine_tuned(scale, Plan(model="no pretraining", trainable="all"), 0)
    assert control.start is None
    assert (control.config.stages[0].epochs, control.config.trunk) == (scale.epochs[3], scale.trunk)
    other = fine_tuned(scale, Plan(model="simclr", other=True), 0).config
    assert (other.data, other.size, other.stages[0].epochs) == (scale.other[0], 32, scale.epochs[4])


def test_small_compares_over_three_seeds_from_pretraining_on():
    for fine_tuning in (SMALL.head, SMALL.whole):
        assert fine_tuning.batch_size == 128
        assert 0 < fine_tuning.steps <= 1000
    assert SMALL.head.steps == SMALL.whole.steps
    assert (SMALL.unlabelled, SMALL.data, SMALL.threat) == ("cifar100", "cifar10", "linf:8/255")
    assert SMALL.budgets == ("linf:1/255", "linf:2/255", "linf:4/255", "linf:8/255")
    assert SMALL.other[0] not in (SMALL.unlabelled, SMALL.data)
    assert SMALL.attacked >= 500
    assert (SMALL.strongly, SMALL.strong, SMALL.seeds) == (200, "autoattack", 3)
    starts = {fine_tuned(SMALL, Plan(model="rotation", share=0.3), seed).start.path for seed in range(SMALL.seeds)}
    assert len(starts) == 3
    seeds = {pretrained(SMALL, "rotation", seed).config.seed for seed in range(SMALL.seeds)}
    assert seeds == {0, 1, 2}


@pytest.mark.parametrize("scale", [DEMO, SMALL, SOURCE, FULL])
def test_every_pretraining_learns_without_labels_in_one_stage(scale):
    learnt = {}
    for name in scale.pretrain:
        (stage,) = pretrained(scale, name, 0).config.stages
        learnt[name] = sorted(stage.tasks)
        wanted = (True, "dual-stream", "separate") if name == "adversarial contrast" else (False, "plain", "shared")
        assert (stage.perturb is not None, stage.adversarial, stage.statistics) == wanted
        assert str(stage.threat) == scale.threat
    every = {
        "simclr": ["contrast"],
        "rotation": ["rotation"],
        "jigsaw": ["jigsaw"],
        "simclr + rotation + jigsaw": ["contrast", "jigsaw", "rotation"],
        "adversarial contrast": ["contrast"],
    }
    assert learnt == {name: every[name] for name in scale.pretrain}


@pytest.mark.parametrize("scale", [DEMO, SMALL, SOURCE, FULL])
def test_every_cell_that_a_claim_compares_is_there(scale):
    wanted = Counter(plan for plan, _ in runs(scale))
    for images in (CLEAN, FGSM):
        for share in SHARES:
            assert wanted[Plan(model="simclr", share=share, images=images)] == scale.seeds
        for name in scale.pretrain:
            assert wanted[Plan(model=name, share=0.3, images=images)] == scale.seeds
        assert wanted[Plan(model="no pretraining", images=images, trainable="all")] == scale.seeds
        for share in scale.whole_shares:
            assert wanted[Plan(model="simclr", share=share, images=images, trainable="all")] == scale.seeds
    for trainable in scale.policies:
        assert Plan(model="simclr", share=0.3, trainable=trainable) in wanted
    adversarial = Plan(model="adversarial contrast", share=0.3, trainable="all")
    assert (adversarial in wanted) == ("adversarial contrast" in scale.pretrain)
    assert all(wanted[Plan(model=name, trainable="all")] == 1 for name in scale.baselines)
    assert {plan.model for plan in wanted if plan.other} == {"simclr", "no pretraining"}
    paths = [next(iter(measured(scale, plan, 0))).path for plan in wanted]
    assert len(set(paths)) == len(paths)


@pytest.mark.parametrize(("scale", "shares", "networks"), [(SMALL, 1, 73), (SOURCE, 1, 23), (FULL, 4, 91)])
def test_all_layers_move_with_every_share_of_the_labels_at_full_alone(scale, shares, networks):
    plans = {(plan.share, plan.images) for plan, _ in runs(scale) if (plan.model, plan.trainable) == ("simclr", "all")}
    assert len(plans) == 2 * shares
    assert {share for share, _ in plans} == (set(SHARES) if shares == 4 else {0.3})
    assert len(runs(scale)) == networks


@pytest.mark.parametrize("scale", [DEMO, SMALL, SOURCE])
def test_the_policies_fit_the_trunk(scale):
    trunk = Network.build(scale.trunk, {}, streams=Streams(0)).trunk
    frozen = [len(frozen_parts(trunk, moves)) for moves in ("heads", *scale.policies)]
    assert frozen[-1] == 0
    assert all(0 < count < frozen[0] for count in frozen[1:-1])
    # the source names the first ten layers, where a trunk has more
    assert ("after:10" in scale.policies) == (scale is SOURCE)
