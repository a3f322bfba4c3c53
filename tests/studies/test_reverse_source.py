"""System B as data: the source's figures and settings, written out again here as literal numbers."""

import pytest

from unfool.core.threat import ThreatModel
from unfool.studies.framework.recipes import NORMAL, ROBUST
from unfool.studies.reverse_attack import ReverseAttack
from unfool.studies.reverse_attack.scales import DEMO, FULL, PUBLISHED, SMALL, SOURCE_NORMS, SOURCE_STEPS
from unfool.tasks.contrast import Contrast


def test_figures_are_the_source_s():
    assert SOURCE_NORMS == {"none": 89.69, "l1": 89.64, "l2": 88.71, "linf": 74.08}
    assert SOURCE_STEPS == {5: (74.08, 74.94), 10: (70.23, 71.17), 15: (70.20, 70.96), 50: (70.25, 70.07)}
    assert sorted(PUBLISHED.figures.values()) == sorted(
        [89.69, 89.64, 88.71, 74.08, 70.23, 70.20, 70.25, 74.94, 71.17, 70.96, 70.07]
    )


def run_configs(scale):
    """The runs' configurations by the base classifier's name."""
    return {network.model: network.config for network in ReverseAttack().networks(scale)}


def test_the_preset_is_the_reference_s():
    preset = Contrast.presets["mao2021"]
    assert (preset["norm"], preset["eps"], preset["steps"], preset["step_size"]) == ("linf", "16/255", 40, "2/255")
    assert (preset["views"], preset["temperature"], preset["negatives"]) == (4, 0.2, "batch")
    assert preset["start"] == "random"


def test_full_trains_the_reference_s_head():
    labels, contrast = run_configs(FULL)[ROBUST].stages
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
    assert list(run_configs(settings)) == [ROBUST, NORMAL]
    for base, config in run_configs(settings).items():
        labels, contrast = config.stages
        assert contrast.trainable == "heads"
        assert (labels.perturb is not None) == (base == ROBUST)
        assert (labels.perturb is None) == (base == NORMAL)
        assert config.normalisation == "none"
    for norm, text in settings.threats.items():
        assert ThreatModel.parse(text).norm_name == norm
    assert settings.ladder.images <= settings.attacked
    assert str(settings.ladder.threat) == settings.threats["linf"]


def test_small_is_what_was_asked_for():
    assert (SMALL.attacked, SMALL.strong, SMALL.threats["linf"]) == (500, "pgd-50", "linf:8/255")
    assert (SMALL.reversal["steps"], SMALL.reversal["views"]) == (10, 2)
    assert SMALL.ladder.images >= 200
    assert SMALL.yardstick == "autoattack"
