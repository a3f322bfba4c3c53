"""A defense with a gate, and a rung of the ladder, from one file outside the package."""

import json

import pytest

SOURCE = '''
"""Rounds an image to a few levels of grey, more coarsely where it looks rough."""

import torch

from unfool.attacks import make_attack
from unfool.core.config import configured
from unfool.defenses import DEFENSES, Defense, Detector
from unfool.evaluation.adaptive.rung import RUNGS, AdaptiveRung


@configured
class Settings:
    levels: int = 15


class Roughness:
    """How much neighbouring pixels differ."""

    images_per_loss = 0

    def __call__(self, images, ids, streams):
        return images.diff(dim=3).abs().flatten(1).mean(1)


class Rounded(Defense):
    images_per_prediction = 1
    pretext = Roughness()

    def __init__(self, network, levels):
        super().__init__()
        self.network = network
        self.levels = levels

    @property
    def classifier(self):
        return self.network

    @property
    def gate(self):
        return Detector(losses=lambda images: self.pretext(images, None, None), threshold=0.05, images_per_loss=0)

    def purified_images(self, images, ids=None, streams=None, differentiable=False):
        rough = (self.gate.losses(images) > self.gate.threshold).view(-1, 1, 1, 1)
        rounded = (images * self.levels).round() / self.levels
        return torch.where(rough, rounded, images)


@DEFENSES.add("rounded")
def rounded(request):
    """Rounds images that look rough."""
    return Rounded(request.network, request.settings(Settings).levels)


@RUNGS.add("random-search")
class RandomSearch(AdaptiveRung):
    """Square on the defended system."""

    key = "m"
    name = "random-search"
    title = "random search, without a gradient"

    def attack(self, context):
        return make_attack("square:steps=10", context.threat)
'''


@pytest.fixture
def plugin(tmp_path, plugins_undone):
    path = tmp_path / "rounded_defense.py"
    path.write_text(SOURCE)
    return path


def test_a_gated_defense_of_one_file_meets_every_rung_that_of_the_file_among_them(cli, parity, plugin, tmp_path):
    listed = cli("list", "defenses", "--plugin", plugin)
    assert "rounded" in listed.out, listed.err
    assert "Rounds images that look rough." in listed.out
    common = ("--plugin", plugin, "--defense", "rounded:levels=20", "--images", "6")

    file = tmp_path / "ladder.json"
    climbed = cli("evaluate", parity, *common, "--adaptive", "--attack", "fgsm", "--out", file)
    assert climbed.code == 0, climbed.err
    results = json.loads(file.read_text())
    assert [row["rung"] for row in results["rows"] if "rung" in row] == [*"abcdefghim", "worst-case"]
    assert set(results["ladder"]["absent"]) == {"j", "k"}
    titles = [rung["title"] for rung in results["ladder"]["rungs"]]
    assert titles[-2:] == ["random search, without a gradient", "worst of (b) to (m) on each image"]
    assert "(m)" in climbed.out

    wrong = cli("evaluate", parity, "--plugin", plugin, "--defense", "rounded:lewels=2", "--images", "2")
    assert wrong.code == 2
    assert "did you mean 'levels'" in wrong.complaint()
