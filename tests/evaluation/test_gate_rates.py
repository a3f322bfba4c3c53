"""How often clean images trigger a gate, against a loop over sorted losses."""

import json

import numpy as np
import pytest
import torch
from torch import nn

from unfool.core.errors import SpecError
from unfool.data.table import Table
from unfool.defenses import Gate
from unfool.evaluation.pretext.gate_rates import gate_rates


class ByBrightness(Gate):
    """A gate whose loss is an image's mean."""

    def __init__(self, threshold):
        nn.Module.__init__(self)
        self.threshold, self.defense = (
            threshold,
            type("Inner", (), {"classifier": nn.Identity(), "own_batch_size": None})(),
        )

    def losses(self, images):
        return images.mean((1, 2, 3))


def images(count):
    shades = torch.rand(count, generator=torch.Generator().manual_seed(0))
    return Table.from_tensors(shades.view(-1, 1, 1, 1).expand(-1, 1, 2, 2).contiguous(), torch.zeros(count).long())


def test_whole_batches_alone_must_be_enough():
    gate = ByBrightness(0.9)
    gate.defense.own_batch_size = 59
    with pytest.raises(SpecError, match="give at least 118"):
        gate_rates(gate, images(80))
    assert gate_rates(gate, images(118), resamples=2).evaluated_on == 59


def test_each_resample_calibrates_on_some_images_and_counts_on_the_others():
    table = images(300)
    rates = gate_rates(ByBrightness(0.9), table, rate=0.1, resamples=20, seed=1)
    shades, draw, expected = table.batch().images.mean((1, 2, 3)).numpy(), np.random.default_rng(1), []
    for _ in range(20):
        order = draw.permutation(300)
        # of 60 losses the second highest is exceeded by over a tenth of all images with a chance below 5 %
        threshold = np.sort(shades[order[:60]])[-2]
        expected.append((shades[order[60:]] > threshold).mean())
    assert (rates.calibrated_on, rates.evaluated_on, rates.resamples) == (60, 240, 20)
    assert rates.mean == pytest.approx(np.mean(expected), abs=1e-6)
    assert rates.kept == pytest.approx(np.mean(np.array(expected) <= 0.1), abs=1e-6)
    assert rates.deployed == pytest.approx((shades > 0.9).mean(), abs=1e-6)
    assert json.loads(json.dumps(rates.to_json()))["mean"] == rates.mean


def test_too_few_images_are_refused():
    with pytest.raises(SpecError, match="give at least"):
        gate_rates(ByBrightness(0.9), images(40), rate=0.05)


@pytest.mark.parametrize("count", [30, 59])
def test_images_that_leave_none_to_count_on_are_refused(count):
    with pytest.raises(SpecError, match=f"{count} clean images cannot show .* needs 59 of them.*give at least 60"):
        gate_rates(ByBrightness(0.9), images(count), rate=0.05)


@pytest.mark.parametrize(
    ("count", "rate", "calibrated"),
    [
        (60, 0.05, 59),
        (61, 0.05, 59),
        (119, 0.05, 59),
        (120, 0.05, 60),
        (1000, 0.01, 299),
        (300, 0.01, 299),
        (30, 0.1, 29),
    ],
)
def test_a_threshold_is_set_on_as_many_images_as_its_rate_needs(count, rate, calibrated):
    rates = gate_rates(ByBrightness(0.9), images(count), rate=rate, resamples=5)
    assert (rates.calibrated_on, rates.evaluated_on) == (calibrated, count - calibrated)
    assert 0 <= rates.mean <= 1
    assert np.isfinite(list(rates.to_json().values())).all()


@pytest.mark.parametrize(("arguments", "words"), [({"resamples": 0}, "0 resamples"), ({"rate": 1.5}, "rate 1.5")])
def test_bad_requests_are_refused(arguments, words):
    with pytest.raises(SpecError, match=words):
        gate_rates(ByBrightness(0.9), images(100), **arguments)
