"""System B as data: the source's figures and settings, written out again here as literal numbers."""

from dataclasses import replace

import pytest
from test_claims import records

from unfool.core.threat import ThreatModel
from unfool.studies.reverse_attack import ReverseAttack
from unfool.studies.reverse_attack.scales import DEMO, FULL, PUBLISHED, SMALL, SOURCE, SOURCE_STEPS
from unfool.tasks.contrast import Contrast
from unfool.training.recipes import NORMAL, ROBUST


def test_figures_are_the_source_s():
    steps = {5: (74.08, 74.94), 10: (70.23, 71.17), 15: (70.20, 70.96), 50: (70.25, 70.07)}
    assert tuple(steps) == SOURCE_STEPS
    for count, figures in steps.items():
        rows = [(None, *system, f"pgd-{count}", "linf") for system in (("none", None), ("reverse:contrast", 5))]
        assert tuple(PUBLISHED.figures[words] for words in rows) == figures
    assert PUBLISHED.figures[None, "none", None, "pgd-5", "l2"] == 88.71
    first = [87.52, 70.47, 10.58, 6.66]
    later = [89.69, 89.64, 88.71, 74.08, 70.23, 70.20, 70.25, 74.94, 71.17, 70.96, 70.07]
    # The first table stands beside each of its two likely causes.
    assert sorted(PUBLISHED.figures.values()) == sorted(later + 2 * first)
    assert sorted(PUBLISHED.losses.values()) == sorted(2 * [0.5812, 0.8985, 5.0381, 4.3066])


@pytest.mark.parametrize(
    ("threat", "figure"),
    [("linf:8/255", 0.7408), ("l2:8/255", 0.8871), ("l1:8/255", 0.8964), ("l2:0.5", None), ("l1:12", None)],
)
def test_figures_in_l1_and_l2_stand_beside_sets_of_the_source_s_size_alone(threat, figure):
    row = records(20, 20, attack="pgd-5", data="cifar10").row(ROBUST, defense="none")
    assert PUBLISHED.of(replace(row, threat=threat)) == figure


def run_configs(scale):
    """The runs' configurations by the base classifier's name."""
    return {network.model: network.config for network in ReverseAttack().networks(scale)}


def test_the_preset_is_the_reference_s():
    preset = Contrast.presets["mao2021"]
    assert (preset["norm"], preset["eps"], preset["steps"], preset["step_size"]) == ("linf", "16/255", 40, "2/255")
    assert (preset["views"], preset["temperature"], preset["negatives"]) == (4, 0.2, "batch")
    assert (preset["batch_size"], preset["augmentation"]) == (512, "mao2021")
    assert preset["start"] == "random"


@pytest.mark.parametrize("settings", [DEMO, SMALL, SOURCE, FULL])
def test_every_scale_is_the_source_s_protocol(settings):
    assert list(run_configs(settings)) == [ROBUST, *([NORMAL] if settings.normal else [])]
    for base, config in run_configs(settings).items():
        labels, contrast = config.stages
        assert contrast.trainable == "heads"
        # The head learns on the views that the reversal takes.
        assert contrast.tasks["contrast"].settings["augmentation"] == "mao2021"
        assert (labels.perturb is not None) == (base == ROBUST)
        assert (labels.perturb is None) == (base == NORMAL)
        assert config.normalisation == "none"
    for norm, text in settings.threats.items():
        assert ThreatModel.parse(text).norm_name == norm
    assert settings.ladder.images <= settings.attacked
    assert str(settings.ladder.threat) == settings.threats["linf"]


def test_small_is_what_was_asked_for():
    assert (SMALL.attacked, SMALL.reversed, SMALL.threats["linf"]) == (500, 0, "linf:8/255")
    assert (SMALL.reversal["steps"], SMALL.reversal["views"]) == (10, 2)
    assert SMALL.ladder.images >= 200
    assert SMALL.yardstick == "autoattack"
