"""The gate's threshold against the Beta law and by simulation; what it does above it and below."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from small_defenses import CLASSES, SMALL, make_images, make_network, make_reverse, make_table

from unfool.core.errors import DataError, NonFiniteError, SpecError, UnfoolWarning
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.defenses import Gate, make_defense
from unfool.defenses.aware import gate_aware
from unfool.defenses.calibration import calibrate_threshold
from unfool.defenses.gate import gate_losses
from unfool.defenses.pretext import TaskLoss
from unfool.evaluation.pretext.gate_rates import gate_rates


@settings(max_examples=60, deadline=None)
@given(
    count=st.integers(1, 700),
    rate=st.sampled_from([0.01, 0.05, 0.1, 0.3]),
    confidence=st.sampled_from([0.5, 0.9, 0.95]),
)
def test_the_threshold_is_the_lowest_order_statistic_that_the_beta_law_allows(count, rate, confidence):
    losses = torch.from_numpy(np.random.default_rng(count).permutation(count)).double() + 1
    ranks = np.arange(1, count + 1)
    risks = stats.beta.sf(rate, count - ranks + 1, ranks)
    allowed = ranks[risks <= 1 - confidence]
    needed = math.ceil(math.log(1 - confidence) / math.log(1 - rate))
    assert (count >= needed) == (len(allowed) > 0)
    if not len(allowed):
        with pytest.raises(SpecError, match=f"at least {needed}"):
            calibrate_threshold(losses, rate, confidence)
        return
    assert calibrate_threshold(losses, rate, confidence) == allowed[0]


@pytest.mark.parametrize(("count", "rate"), [(59, 0.05), (200, 0.05), (2000, 0.02), (500, 0.2)])
def test_over_resamples_the_rate_is_kept(count, rate):
    """Exponential losses, whose true rate above a threshold is known, for 400 resamples of the clean images."""
    losses = Streams(1).exponential(torch.arange(400), (count,)).double()
    rates = torch.tensor([math.exp(-calibrate_threshold(row, rate)) for row in losses])
    assert float(rates.mean()) <= rate
    assert float((rates <= rate).float().mean()) >= 0.92
    # Not by a threshold that never triggers.
    assert float(rates.mean()) >= rate * 0.3


def test_on_fresh_images_too_the_rate_is_kept():
    """200 resamples of clean and of fresh losses from one pool with ties."""
    pool = (Streams(2).normal(torch.arange(200), (900,)) * 50).round()
    triggers = torch.stack([(row[300:] > calibrate_threshold(row[:300], 0.1)).float().mean() for row in pool])
    assert float(triggers.mean()) <= 0.1
    assert float(triggers.mean()) > 0.02


def test_losses_or_rates_that_make_no_threshold_are_refused():
    with pytest.raises(SpecError, match="at least 59"):
        calibrate_threshold(torch.rand(58), 0.05)
    with pytest.raises(SpecError, match="rate"):
        calibrate_threshold(torch.rand(58), 0.0)
    with pytest.raises(SpecError, match="confidence"):
        calibrate_threshold(torch.rand(58), 0.1, 1.0)
    with pytest.raises(NonFiniteError, match="NaN"):
        calibrate_threshold(torch.tensor([1.0, float("nan")] * 50), 0.1)


def test_it_acts_exactly_above_the_threshold():
    network = make_network(torch.float64)
    defense = make_reverse("steps=3,draws=2", network)
    images = make_images(8, torch.float64)
    losses = Gate(defense, 0.0).losses(images)
    threshold = float(losses.sort().values[4])
    acts = losses > threshold
    assert int(acts.sum()) == 3
    with torch.no_grad():
        static, reversed_logits = network(images), defense(images)
    gate = Gate(defense, threshold)
    expected = torch.where(acts[:, None], reversed_logits, static)
    assert torch.allclose(gate(images), expected, atol=1e-9)
    assert torch.allclose(Gate(defense, math.inf)(images), static, atol=1e-9)
    assert torch.allclose(Gate(defense, -math.inf)(images), reversed_logits, atol=1e-9)
    abstains = Gate(defense, threshold, "abstain")(images)
    assert abstains.shape == (8, 5)
    assert torch.allclose(abstains[:, :4], static)
    assert torch.equal(abstains.argmax(1) == 4, acts)
    assert torch.allclose(abstains[:, 4] - static.amax(1), losses - threshold)


@pytest.mark.filterwarnings("ignore::unfool.core.errors.UnfoolWarning")
def test_in_batch_negatives_are_those_of_the_whole_batch():
    defense = make_reverse("steps=2,negatives=batch", make_network(torch.float64))
    images = make_images(6, torch.float64)
    losses = Gate(defense, 0.0).losses(images)
    gate = Gate(defense, float(losses.sort().values[-2]))
    found, whole = gate(images), defense(images)
    highest = int(losses.argmax())
    assert gate.batch_dependent
    assert torch.allclose(found[highest], whole[highest], atol=1e-9)


@pytest.mark.filterwarnings("ignore:this reversal takes its negatives:unfool.core.errors.UnfoolWarning")
def test_its_threshold_holds_among_the_mates_that_it_is_deployed_among():
    defense = make_reverse("steps=1,negatives=batch,batch_size=64")
    images = make_table(1024 + 512).batch().images
    gate = Gate.calibrated(defense, Table.from_tensors(images[:1034], None), rate=0.05)
    with torch.no_grad():
        one, many = gate.losses(images[1024:1088]), gate.losses(images[1024:])
        assert torch.allclose(one, many[:64])
        assert float((many > gate.threshold).float().mean()) < 0.1
        among_more = gate_losses(gate.defense.pretext, images[1024:])
    assert float((among_more > gate.threshold).float().mean()) > 0.9
    rates = gate_rates(gate, Table.from_tensors(images[1024:], None), resamples=20)
    assert rates.deployed == pytest.approx(float((many > gate.threshold).double().mean()), abs=1e-6)
    with pytest.warns(UnfoolWarning, match="set among 60 images, and its batches have 64"):
        Gate.calibrated(defense, Table.from_tensors(images[:60], None), rate=0.05)


def test_every_image_is_judged_on_the_draws_that_the_threshold_was_set_on():
    gate = Gate(make_reverse(""), 0.0, "abstain")
    images = make_images(4)
    assert torch.equal(gate(images, torch.arange(4) + 7)[:, -1], gate(images)[:, -1])


@pytest.mark.filterwarnings("ignore::unfool.core.errors.UnfoolWarning")
def test_it_is_calibrated_on_any_number_of_images_with_in_batch_negatives(monkeypatch):
    monkeypatch.setattr("unfool.defenses.gate._CHUNK", 100)
    defense = make_reverse("steps=2,negatives=batch")
    assert 0 < Gate.calibrated(defense, make_table(201), rate=0.2, loss_draws=1).threshold < float("inf")


def test_its_losses_are_the_task_s_on_fixed_draws():
    network = make_network()
    defense = make_reverse("", network)
    task = defense.task
    images = make_images().requires_grad_()
    losses = gate_losses(TaskLoss(network, task), images, draws=3, seed=5)
    network.train()
    gate = Gate(defense, 0.0, loss_draws=3, seed=5)
    assert torch.equal(gate.losses(images), losses)
    assert network.training
    network.eval()
    streams = Streams(5).named("gate")
    batch = make_table(6).batch().with_images(images)
    expected = []
    for draw in range(3):
        views = task.views(type(batch)(images=images, ids=torch.zeros(6, dtype=torch.int64)), streams.at(draw))
        expected.append(task.losses(network.features(views.images), views))
    assert torch.allclose(losses, torch.stack(expected).mean(0), atol=1e-5)
    assert torch.autograd.grad(losses.sum(), images)[0].flatten(1).any(1).all()
    assert not torch.equal(losses, gate_losses(TaskLoss(network, task), images, draws=3, seed=6))


def test_making_one_sets_the_threshold_on_images_that_are_not_in_the_bank():
    network, table = make_network(), make_table(140)
    given_settings = {**SMALL, "steps": 2}
    gate = make_defense("gate:rate=0.05", network, CLASSES, data=table, settings=given_settings)
    clean = table.sample(70, Streams(0).named("defense").named("gate"))
    losses = gate.losses(clean.batch().images)
    assert math.isclose(gate.threshold, calibrate_threshold(losses, 0.05), rel_tol=1e-5)
    assert float((losses > gate.threshold).float().mean()) <= 0.05
    rest = table.subset(~torch.isin(table.ids, clean.ids))
    expected = make_defense("reverse", network, CLASSES, data=rest, settings=given_settings)
    assert torch.equal(gate.defense.task.bank, expected.task.bank)
    views = gate.defense.task.settings.views
    assert gate.images_per_prediction == 4 * views + gate.defense.images_per_prediction
    assert (
        make_defense("gate:action=abstain", network, CLASSES, data=table, settings=given_settings).images_per_prediction
        == 4 * views + 1
    )
    with pytest.raises(DataError, match="without images"):
        make_defense("gate", network, CLASSES)
    with pytest.raises(SpecError, match="at least 59"):
        make_defense("gate", network, CLASSES, data=make_table(), settings=given_settings)
    with pytest.raises(SpecError, match="action"):
        make_defense("gate:action=drop", network, CLASSES, data=table)
    with pytest.raises(SpecError, match="action"):
        Gate(gate.defense, 0.0, "drop")


def test_an_aware_attacker_pays_only_above_the_threshold():
    network = make_network()
    defense = make_reverse("steps=2", network)
    images, labels, rows = make_images(), torch.tensor([0, 1, 2, 3, 0, 1]), torch.arange(6)
    losses = Gate(defense, 0.0).losses(images)
    gate = Gate(defense, float(losses.median()))
    with torch.no_grad():
        found = gate_aware(gate, labels, 4.0)(images, rows).losses
        logits = network(images)
    others = logits.scatter(1, labels[:, None], -torch.inf).amax(1)
    margin = others - logits.gather(1, labels[:, None]).squeeze(1)
    assert torch.allclose(found, margin - 4 * (losses - gate.threshold).clamp(min=0), atol=1e-4)
    assert bool((found < margin - 1e-4).any())
    assert bool(torch.isclose(found, margin).any())
