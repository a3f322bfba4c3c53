"""System E as data: the source's figures and settings, written out again here as literal numbers."""

import pytest

from unfool.attacks import make_attack
from unfool.models.trunks import TrunkSpec, empty_trunk
from unfool.studies.noisy_rotation.networks import extractor, probes
from unfool.studies.noisy_rotation.scales import (
    DEMO,
    FULL,
    LONGER,
    NOISE,
    PRETRAININGS,
    PUBLISHED,
    REACHES,
    ROTATION,
    SMALL,
    STAGES,
)


def run_config(settings, plan):
    return extractor(settings, plan).config


TABLE = """
                              POOL-1 POOL-2 POOL-3 POOL-4 POOL-5
rotation                        48.7   60.9   60.3   59.9   47.9
rotation + adversarial noise    48.5   60.1   64.6   66.5   54.9
"""
INPUTS = {"pool1": 6400, "pool2": 3200, "pool3": 1024, "pool4": 2048, "pool5": 512}


def test_the_table_is_the_source_s():
    columns, *lines = TABLE.strip().splitlines()
    assert columns.lower().replace("-", "").split() == list(STAGES)
    expected = {}
    for line in lines:
        *words, a, b, c, d, e = line.split()
        figures = zip(STAGES, map(float, (a, b, c, d, e)), strict=True)
        expected |= {(" ".join(words), stage): figure for stage, figure in figures}
    assert expected == PUBLISHED.figures
    assert {ROTATION.name, NOISE.name} == {model for model, _ in PUBLISHED.figures}


def test_full_pretrains_as_the_source_does():
    for plan in (ROTATION, NOISE):
        config = run_config(FULL, plan)
        assert (config.data, FULL.split, config.trunk) == (
            "stl10",
            "unlabelled",
            TrunkSpec(name="vgg16", width=1.0),
        )
        rates = [(stage.epochs, stage.learning_rate) for stage in config.stages]
        assert rates == [(25, 0.1), (25, 0.01), (10, 0.001)]
        for stage in config.stages:
            values = (stage.optimizer, stage.momentum, stage.weight_decay, stage.batch_size, stage.schedule)
            assert values == ("sgd", 0.9, 1e-4, 128, "constant")
            assert (stage.precision, stage.trainable) == ("fp32", "all")


def test_full_probes_as_the_source_does():
    probe = FULL.probe
    assert (probe.epochs, probe.batch_size, probe.learning_rate, probe.drop_every) == (120, 64, 0.1, 30)
    assert (probe.momentum, probe.weight_decay, probe.standardise) == (0.9, 5e-4, False)
    trunk = empty_trunk(FULL.trunk)
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
        assert config.trunk == (settings.half if plan.half else settings.trunk)
        assert 2 * settings.half.settings.width == settings.trunk.settings.width
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
    """A step of crafting takes 0.6 of a step of learning, since it needs no gradient of a weight."""
    for settings in (SMALL, FULL):
        noise = make_attack(run_config(settings, NOISE).stages[0].perturb, settings.threat)
        assert settings.times == pytest.approx(1 + 0.6 * noise.settings["steps"])


def test_small_is_what_was_asked_for():
    assert (SMALL.data, SMALL.labels, SMALL.trunk) == (
        "cifar10",
        ("cifar100", "fine_label"),
        TrunkSpec(name="vgg16", width=0.25),
    )
    assert SMALL.attack == "autoattack"
    assert SMALL.attacked >= 200
    assert len(SMALL.probe.seeds) >= 3
    assert set(SMALL.threats) == {"linf:0.01", "linf:8/255"}


def test_every_pretraining_has_a_path_of_its_own():
    paths = [probes(SMALL, plan).path for plan in PRETRAININGS]
    assert len(set(paths)) == len(PRETRAININGS)
    assert all(" " not in path for path in paths)
