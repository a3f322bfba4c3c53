"""System D as data: the source's table written out again, and both regimes from one description of the tasks."""

import dataclasses

import pytest

from unfool.core.threat import ThreatModel
from unfool.studies.auxiliary_reversal.scales import DEMO, FULL, LOSSES, PUBLISHED, SMALL, SOURCE
from unfool.studies.auxiliary_reversal.systems import Subject, subjects
from unfool.studies.framework.recipes import NORMAL, ROBUST
from unfool.training.regimes import REGIMES

ALL = ("contrast", "inpainting", "jigsaw", "rotation")


def test_figures_are_the_source_s_and_its_missing_row_is_missing():
    assert SOURCE == {
        "joint": {"none": (61.25, 44.32), "fgsm": (1.26, 12.61), "pgd-2": (0.02, 2.45)},
        "classifier-first": {"none": (71.42, 55.13), "fgsm": (10.72, 17.35)},
    }
    assert PUBLISHED.figures["labels + inpainting", "reverse:inpainting", "fgsm"] == 12.61
    assert PUBLISHED.figures["labels", "none", "none"] == 71.42
    assert ("labels", "reverse:inpainting", "pgd-2") not in PUBLISHED.figures
    assert len(PUBLISHED.figures) == 10


@pytest.mark.parametrize("settings", [DEMO, SMALL, FULL])
def test_every_task_is_learnt_in_both_regimes_from_the_same_description(settings):
    for part in settings.parts:
        assert part.every == (part is settings.parts[0])
        for base in part.trainings:
            one = Subject(scale=settings, part=part, base=base, regime="classifier-first")
            assert set(one.tasks) == (set(ALL) if part.every else {"jigsaw"})
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
                assert (joint.perturb is not None) == (base == ROBUST)


@pytest.mark.parametrize("settings", [DEMO, SMALL, FULL])
def test_networks_have_a_reversal_for_each_task_and_a_path_of_their_own(settings):
    every = subjects(settings)
    paths = [each.system.path for each in every]
    assert len(set(paths)) == len(paths)
    for network in every:
        if not network.task and network.regime in REGIMES:
            tasks = [network.beside] if network.regime == "joint" else network.tasks
            assert [each.task for each in network.reversals if each.is_plain] == tasks
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


def test_full_has_the_source_s_networks():
    inpainting, jigsaw = FULL.parts
    assert inpainting.trunk == {"name": "context-encoder"}
    assert jigsaw.trunk == {"name": "alexnet", "stem": "stride-2"}
    assert ThreatModel.parse(FULL.threat).eps == pytest.approx(8 / 255)
