"""System E as data: the source's figures and settings, written out again here as literal numbers."""

import pytest

from unfool.attacks import make_attack
from unfool.models.trunks import TrunkSpec, empty_trunk, trunk_spec
from unfool.studies.noisy_rotation import expense
from unfool.studies.noisy_rotation_networks import run_config
from unfool.studies.noisy_rotation_scales import (
    DEMO,
    FULL,
    HALF,
    LONGER,
    NOISE,
    PRETRAININGS,
    RANDOM,
    REACHES,
    ROBUST_LABELS,
    ROTATION,
    SMALL,
    SOURCE,
    STAGES,
)
from unfool.training.probing.settings import ProbeSettings

TABLE = """
                              POOL-1 POOL-2 POOL-3 POOL-4 POOL-5
rotation                        48.7   60.9   60.3   59.9   47.9
rotation + adversarial noise    48.5   60.1   64.6   66.5   54.9
"""
INPUTS = {"pool1": 6400, "pool2": 3200, "pool3": 1024, "pool4": 2048, "pool5": 512}


def test_the_table_is_the_source_s():
    columns, *lines = TABLE.strip().splitlines()
    assert columns.lower().replace("-", "").split() == list(STAGES)
    found = {}
    for line in lines:
        *words, a, b, c, d, e = line.split()
        found[" ".join(words)] = tuple(map(float, (a, b, c, d, e)))
    assert found == SOURCE
    assert {ROTATION.name, NOISE.name} == set(SOURCE)


def test_full_pretrains_as_the_source_does():
    for plan in (ROTATION, NOISE):
        config = run_config(FULL, plan)
        assert (config.data, FULL.split, config.trunk) == ("stl10", "unlabelled", {"name": "vgg16", "width": 1.0})
        rates = [(stage.epochs, stage.learning_rate) for stage in config.stages]
        assert rates == [(25, 0.1), (25, 0.01), (10, 0.001)]
        for stage in config.stages:
            values = (stage.optimizer, stage.momentum, stage.weight_decay, stage.batch_size, stage.schedule)
            assert values == ("sgd", 0.9, 1e-4, 128, "constant")
            assert (stage.precision, stage.trainable) == ("fp32", "all")


def test_full_probes_as_the_source_does():
    probe = ProbeSettings(**FULL.probe)
    assert (probe.epochs, probe.batch_size, probe.learning_rate, probe.drop_every) == (120, 64, 0.1, 30)
    assert (probe.momentum, probe.weight_decay, probe.standardise) == (0.9, 5e-4, False)
    trunk = empty_trunk(TrunkSpec.from_dict(FULL.trunk))
    assert {stage: trunk.channels[stage] * trunk.probe_sizes[stage] ** 2 for stage in STAGES} == INPUTS
    assert FULL.labelled + FULL.held_out == 5000


def test_the_noise_is_the_source_s_and_the_other_one_reaches_its_eps():
    """Five steps of 0.001 from the image itself end at 0.005; 5 × 0.0025 do not."""
    for settings in (DEMO, SMALL, FULL):
        assert settings.threat == "linf:0.01"
        texts = [run_config(settings, plan).stages[0].perturb or "" for plan in (NOISE, REACHES)]
        written, reaching = (make_attack(text, "linf:0.01").settings for text in texts)
        assert (written["steps"], written["step_size"], written["random_start"]) == (5, 0.001, False)
        assert (reaching["steps"], reaching["random_start"]) == (5, True)
        assert reaching["steps"] * reaching["step_size"] > 0.01


@pytest.mark.parametrize("settings", [DEMO, SMALL, FULL])
def test_pretrainings_differ_in_what_they_say_alone(settings):
    rotation = run_config(settings, ROTATION)
    for plan in PRETRAININGS:
        if plan.task is None:
            continue
        config = run_config(settings, plan)
        assert config.trunk == trunk_spec(settings.half if plan.half else settings.trunk)
        assert 2 * settings.half["width"] == settings.trunk["width"]
        for stage, clean in zip(config.stages, rotation.stages, strict=True):
            assert (stage.perturb is None) == (plan.noise is None)
            assert stage.epochs == clean.epochs * (settings.times if plan is LONGER else 1)
            assert (stage.learning_rate, stage.batch_size) == (clean.learning_rate, clean.batch_size)
            (task,) = stage.tasks.values()
            if plan.task == "rotation":
                assert (config.data, task.task, task.settings) == (settings.data, "rotation", {"turns": "one"})
            else:
                assert (config.data, task.settings["column"]) == settings.labels
                assert config.data != settings.data or task.settings["column"] != "label"


def test_longer_computes_for_about_as_long_as_the_noise():
    """Five steps of crafting take the time of three of learning, so four times as long does it all."""
    for settings in (SMALL, FULL):
        assert settings.times == 4
        assert expense(settings, ROTATION) == 1
        assert expense(settings, NOISE) == pytest.approx(4)
        assert expense(settings, LONGER) == pytest.approx(4)
        assert expense(settings, RANDOM) == 0
        assert expense(settings, HALF) == pytest.approx(2)
        assert expense(settings, ROBUST_LABELS) > 1


def test_small_is_what_was_asked_for():
    assert (SMALL.data, SMALL.labels, SMALL.trunk) == (
        "cifar10",
        ("cifar100", "fine_label"),
        {"name": "vgg16", "width": 0.25},
    )
    assert SMALL.attack == "autoattack"
    assert SMALL.attacked >= 200
    assert len(SMALL.seeds) >= 3
    assert set(SMALL.threats) == {"linf:0.01", "linf:8/255"}


def test_names_are_paths_of_their_own():
    assert len({plan.path for plan in PRETRAININGS}) == len(PRETRAININGS)
    assert all(" " not in plan.path and "/" not in plan.path for plan in PRETRAININGS)
