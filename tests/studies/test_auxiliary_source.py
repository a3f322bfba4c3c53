"""System D as data: the source's table and every field of its scales written out again, and both regimes from one
description of the tasks."""

import dataclasses

import pytest
import torch
from scale_fields import flatten
from torch import nn

from unfool.studies.auxiliary_reversal import AuxiliaryReversal
from unfool.studies.auxiliary_reversal.scales import AT_SOURCE, DEMO, FULL, LOSSES, PUBLISHED, SMALL, STRONGER
from unfool.studies.auxiliary_reversal.systems import Subject, subjects
from unfool.tasks import make_task
from unfool.training import StageConfig, TaskConfig
from unfool.training.recipes import NORMAL, ROBUST
from unfool.training.regimes import REGIMES

ALL = ("contrast", "inpainting", "jigsaw", "rotation")
SCALES = [DEMO, SMALL, AT_SOURCE, FULL]

ADAM = {"batch_size": 256, "optimizer": "adam", "learning_rate": 2e-4, "weight_decay": 0.0, "precision": "fp32"}
"""The optimizer of the public code that the source builds on, in fp32 as there; the source states neither schedule nor
batch."""
PGD = {"perturb": "pgd-10", "held_out": 500}


def within(path, values):
    return {f"{path}.{key}": value for key, value in values.items()}


def stage(path, **changed):
    """Every field of a stage: defaults but where something is said."""
    return flatten(StageConfig(tasks={"labels": TaskConfig(task="labels")}), path) | within(path, changed)


def auxiliary(path, task, weight, **settings):
    return within(path, {"task": task, "weight": weight, "perturbed": False, **within("settings", settings)})


def cifar10(second, tasks, **part):
    """Every field of the part that has the source's generator."""
    return within(
        "parts.0",
        {
            "data": "cifar10",
            "size": 0,
            "trunk.name": "gan-encoder",
            "normalisation": "symmetric",
            "arms": False,
            "alone": None,
            **stage(f"trainings.{NORMAL}", **ADAM, epochs=part["epochs"]),
            **stage(f"{second}.{STRONGER}", **ADAM, **PGD, epochs=part["robust"]),
            **within("heads", {**ADAM, "epochs": part["heads"]}),
            **auxiliary(
                "tasks.0", "inpainting", 1.0, form="region", width=4000, discriminator=64, discriminator_rate=1.0
            ),
            **tasks,
        },
    )


ATTACKS = {"step_size": "2/255", "strongest": "autoattack", "reversal.steps": 10}
LADDER = {
    "threat": "linf:8/255",
    "seed": 0,
    "restarts": 1,
    "queries": 100,
    "targets": 3,
    "batch_size": None,
}
SGD = {
    "batch_size": 128,
    "optimizer": "sgd",
    "weight_decay": 5e-4,
    "precision": "fp32",
    "schedule": "cosine",
    "epochs": 70,
}
TILES = {
    "form": "context-free",
    "grid": 3,
    "count": 1000,
    "gap": 0.0,
    "jitter": 0.147,
    "shift": 2,
    "grey": 0.3,
    "hidden": 4096,
    "augmentation": "resized-crop",
}
OTHERS = {
    **auxiliary("tasks.1", "contrast", 0.5, temperature=0.2, size=128, hidden=512),
    **auxiliary("tasks.2", "jigsaw", 0.5, form="whole", grid=3, count=100),
    **auxiliary("tasks.3", "rotation", 0.5),
    "tasks.3.settings": {},
    "every": True,
    "first_only": {},
}
UNCUT = {
    **cifar10("trainings", OTHERS, epochs=100, robust=100, heads=50),
    **within(
        "parts.1",
        {
            "data": "tiny-imagenet",
            "size": 225,
            "trunk.name": "alexnet",
            "trunk.stem": "stride-2",
            "normalisation": "cifar10",
            "every": False,
            "first_only": {},
            "arms": True,
            **stage(f"trainings.{NORMAL}", **SGD, learning_rate=0.02),
            **stage("alone", **SGD, learning_rate=0.01),
            **within("heads", {**ADAM, "learning_rate": 1e-3, "schedule": "triangle", "epochs": 30}),
            **auxiliary("tasks.0", "jigsaw", 0.5, **TILES),
        },
    ),
    **ATTACKS,
    "attacked": 10_000,
    "strongly": 1_000,
    **within("ladder", LADDER),
    **within("ladder", {"images": 1_000, "steps": 50, "draws": 8, "precision": "fp32"}),
    **within("ladder.lambdas", {"0": 0.1, "1": 1.0, "2": 10.0}),
    **within("reversals.contrast", {"views": 4, "bank": 1024, "drawn": 512}),
}
CUT = {
    **cifar10("first_only", {"every": False}, epochs=12, robust=6, heads=4),
    **ATTACKS,
    "attacked": 1_000,
    "strongly": 200,
    **within("ladder", LADDER),
    **within("ladder", {"images": 100, "steps": 10, "draws": 2, "precision": "bf16", "lambdas.0": 1.0}),
    "reversals": {},
}
BF16 = "precision: trainings compute in bf16, where the source has fp32"
NAMED = {
    "parts.1": "no jigsaw",
    "ladder.precision": f"{BF16}; attacks search and the reversal descends in bf16",
    "precision": BF16,
    "parts.0.tasks": "inpainting alone",
    "reversals.contrast": "inpainting alone",
    "every": "inpainting alone",
    STRONGER: "trained by PGD learns first alone",
    "first_only": "trained by PGD learns first alone",
    "epochs": "epochs: 12 of a classifier, alone and beside inpainting, for 100; 6 of one trained by PGD for 100; 4 of",
    "attacked": "attacked: 1,000 test images for 10,000",
    "strongly": "strongly: 200 of them by AutoAttack for 1,000",
    "ladder": "100 images for 1,000, steps 10 for 50, draws 2 for 8, lambdas 1 for 0.1, 1 and 10",
}
"""What each field that is cut is called in the cuts: by the first of these that is a part of its path."""


def in_bf16(fields):
    """The same fields with every training in bf16."""
    trainings = {path: "bf16" for path in fields if path.startswith("parts.") and path.endswith(".precision")}
    return {**fields, **trainings}


def test_every_field_of_full_is_the_source_s_but_for_the_precision_that_it_names():
    assert flatten(FULL) == in_bf16(UNCUT) != UNCUT
    assert any(BF16 in cut for cut in AuxiliaryReversal().cuts("full"))


def test_every_field_of_source_is_the_source_s_or_cut_and_a_cut_says_so():
    fields = flatten(AT_SOURCE)
    assert fields == in_bf16(CUT)
    lacking = [path for path in UNCUT if fields.get(path, "none") != UNCUT[path]]
    assert {"ladder.precision", f"parts.0.trainings.{NORMAL}.precision", "parts.0.heads.precision"} < set(lacking)
    cuts = " ".join(AuxiliaryReversal().cuts("source"))
    for path in lacking:
        words = next(words for part, words in NAMED.items() if part in path)
        assert words in cuts, path


def test_full_names_what_it_leaves_out():
    cuts = " ".join(AuxiliaryReversal().cuts("full"))
    assert FULL.strongly == FULL.ladder.images == 1_000
    assert "1,000 test images by AutoAttack, and by every rung of a ladder, for 10,000" in cuts


def test_figures_are_the_source_s_and_its_missing_row_is_missing():
    joint, first = "labels + inpainting", "labels"
    assert {(*key[:2], key[2], value) for key, value in PUBLISHED.figures.items()} == {
        (model, defense, attack, value)
        for model, attack, bare, reversed in (
            (joint, "none", 61.25, 44.32),
            (joint, "fgsm", 1.26, 12.61),
            (joint, "pgd-2", 0.02, 2.45),
            (first, "none", 71.42, 55.13),
            (first, "fgsm", 10.72, 17.35),
        )
        for defense, value in (("none", bare), ("reverse:inpainting", reversed))
    }


@pytest.mark.parametrize("settings", SCALES)
def test_every_task_is_learnt_in_both_regimes_from_the_same_description(settings):
    for part in settings.parts:
        assert part.every == (part is settings.parts[0] and settings is not AT_SOURCE)
        for base in part.trainings:
            one = Subject(scale=settings, part=part, base=base, regime="classifier-first")
            assert set(one.tasks) == (set(ALL) if part.every else {config.task for config in part.tasks})
            first, heads = one.network.config.stages
            assert list(first.tasks) == ["labels"]
            assert heads.trainable == "heads"
            for task in one.tasks:
                (joint,) = dataclasses.replace(one, regime="joint", beside=task).network.config.stages
                assert joint.tasks == {**first.tasks, task: one.config(task)}
                assert heads.tasks[task] == joint.tasks[task]
                assert (joint.epochs, joint.perturb, joint.learning_rate) == (
                    first.epochs,
                    first.perturb,
                    first.learning_rate,
                )
                assert (joint.perturb is not None) == (base != NORMAL)


@pytest.mark.parametrize("settings", SCALES)
def test_networks_have_a_reversal_for_each_task_and_a_path_of_their_own(settings):
    every = subjects(settings)
    paths = [each.system.path for each in every]
    assert len(set(paths)) == len(paths)
    for network in every:
        if not network.task and network.regime in REGIMES:
            tasks = [network.beside] if network.regime == "joint" else network.tasks
            assert [each.task for each in network.reversals if each.is_plain] == ([] if network.arm else tasks)
            assert [each for each in every if each in network.reversals] == network.reversals
    assert {each.part.data for each in every if each.regime not in REGIMES} == {
        part.data for part in settings.parts if part.alone is not None
    }


def test_the_losses_are_those_of_the_source_s_arguments():
    assert {name: (values["lambda_rec"], values["lambda_adv"]) for name, values in LOSSES.items()} == {
        "L2 alone": (1.0, 0.0),
        "adversarial loss alone": (0.0, 1.0),
    }


def test_small_is_what_was_asked_for():
    assert [part.data for part in SMALL.parts] == ["cifar10", "tiny_imagenet_sub40"]
    assert set(SMALL.parts[0].trainings) == {NORMAL, ROBUST}
    assert (SMALL.threat, SMALL.step_size, SMALL.reversal["steps"]) == ("linf:8/255", "2/255", 10)
    assert (SMALL.attacked, SMALL.strongest) == (500, "autoattack")
    assert SMALL.strongly >= 200
    assert SMALL.ladder.images >= 100
    for part in SMALL.parts:
        (jigsaw,) = [config.settings for config in part.tasks if config.task == "jigsaw"]
        assert (jigsaw["form"], jigsaw["grid"], jigsaw["count"]) == ("context-free", 3, 30)


def test_a_second_kind_of_adversarial_training_is_of_classifiers_that_learn_first():
    for settings in (SMALL, AT_SOURCE):
        stronger = [each for each in subjects(settings) if each.base == STRONGER]
        assert {each.regime for each in stronger} == {"classifier-first"}
        assert {each.task for each in stronger} == {"", "inpainting"}
        assert stronger[0].network.config.stages[0].perturb in ("pgd-7", "pgd-10")


def test_arms_differ_from_the_usual_jigsaw_in_one_setting_and_are_not_reversed():
    arms = [each for each in subjects(SMALL) if each.arm]
    changed = {}
    for each in arms:
        usual = dataclasses.replace(each, arm="").config("jigsaw").settings
        changed[each.arm] = {
            key: value for key, value in each.config("jigsaw").settings.items() if usual.get(key) != value
        }
    assert changed == {
        "last convolution of its own": {"own_convolution": True},
        "far from the original": {"permutations": "original"},
    }


@pytest.mark.parametrize("settings", SCALES)
def test_both_steps_of_pgd_2_end_at_eps_in_every_pixel(settings):
    """Of two classes a linear network's gradient keeps its sign in each pixel, so that two steps of half of eps go all
    the way; from a random start most pixels would end within."""
    (network, *_) = subjects(settings)
    examples = network.records["pgd-2"].examples
    images, labels = torch.full((4, 3, 8, 8), 0.5), torch.arange(4) % 2
    with torch.random.fork_rng():
        torch.manual_seed(0)
        linear = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 2))
    moved = (examples.attack(linear, images, labels).images - images).abs()
    assert torch.allclose(moved, torch.full_like(moved, examples.attack.threat.eps), atol=1e-6)


def test_pgd_2_from_the_image_is_not_taken_for_what_was_crafted_from_a_random_start():
    """Sets and records lie under their paths, which name no setting of an attack."""
    (network, reversal, *_) = subjects(AT_SOURCE)
    names = {attack: each.examples.title for attack, each in network.records.items() if attack != "none"}
    assert names == {
        "fgsm": "fgsm-linf-8-255-test-1000",
        "pgd-2": "pgd-2-linf-8-255-test-1000-from-the-image",
        "pgd-20": "pgd-20-linf-8-255-test-1000",
        "autoattack": "autoattack-linf-8-255-test-200",
    }
    assert reversal.records["pgd-2"].examples == network.records["pgd-2"].examples
    assert reversal.records["pgd-2"].path.endswith("/pgd-2-linf-8-255-test-1000-from-the-image")


def test_the_losses_of_inpainting_are_the_source_s():
    (network, *_) = subjects(AT_SOURCE)
    task = make_task("inpainting", network.config("inpainting").settings)
    assert (task.settings.lambda_rec, task.settings.lambda_adv, task.settings.region) == (0.999, 0.001, 0.5)
    assert (task.settings.place, task.reversal["place"], task.settings.masks) == ("random", "centre", 1)
