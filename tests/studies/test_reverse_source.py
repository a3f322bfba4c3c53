"""System B as data: the source's figures and settings, written out again here as literal numbers."""

import pytest

from unfool.core.threat import ThreatModel
from unfool.studies.recipes import NORMAL, ROBUST
from unfool.studies.reverse_networks import run_config
from unfool.studies.reverse_scales import BASES, DEMO, FULL, SMALL, SOURCE_NORMS, SOURCE_STEPS, STEPS
from unfool.tasks.contrast import Contrast


def test_figures_are_the_source_s():
    assert SOURCE_NORMS == {"none": 89.69, "l1": 89.64, "l2": 88.71, "linf": 74.08}
    assert SOURCE_STEPS == {5: (74.08, 74.94), 10: (70.23, 71.17), 15: (70.20, 70.96), 50: (70.25, 70.07)}
    assert tuple(SOURCE_STEPS) == STEPS


def test_the_preset_is_the_reference_s():
    preset = Contrast.presets["mao2021"]
    assert (preset["norm"], preset["eps"], preset["steps"], preset["step_size"]) == ("linf", "16/255", 40, "2/255")
    assert (preset["views"], preset["temperature"], preset["negatives"]) == (4, 0.2, "batch")
    assert preset["start"] == "random"


def test_full_trains_the_reference_s_head():
    labels, contrast = run_config(FULL, ROBUST).stages
    assert FULL.trunk == {"name": "wide-resnet", "depth": 28, "width": 10}
    assert (contrast.epochs, contrast.batch_size, contrast.optimizer, contrast.learning_rate) == (
        201,
        1024,
        "adam",
        1e-4,
    )
    head = contrast.tasks["contrast"].settings
    assert (head["temperature"], head["hidden"], head["size"], head["head_norm"]) == (0.2, 256, 16, "batch")
    assert labels.perturb is not None
    assert (FULL.reversal["steps"], FULL.reversal["views"]) == (40, 4)


@pytest.mark.parametrize("settings", [DEMO, SMALL, FULL])
def test_every_scale_is_the_source_s_protocol(settings):
    for base in BASES:
        config = run_config(settings, base)
        labels, contrast = config.stages
        assert contrast.trainable == "heads"
        assert (labels.perturb is not None) == (base == ROBUST)
        assert (labels.perturb is None) == (base == NORMAL)
        assert config.normalisation == "none"
    for norm, text in settings.threats.items():
        assert ThreatModel.parse(text).norm_name == norm
    assert settings.laddered <= settings.attacked


def test_small_is_what_was_asked_for():
    assert (SMALL.attacked, SMALL.strong, SMALL.threats["linf"]) == (500, "pgd-50", "linf:8/255")
    assert (SMALL.reversal["steps"], SMALL.reversal["views"]) == (10, 2)
    assert SMALL.laddered >= 200
    assert SMALL.yardstick == "autoattack"
