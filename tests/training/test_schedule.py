"""Learning rates at their end points, and the optimizers that get them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import stage

from unfool.core.errors import SpecError
from unfool.training import schedule
from unfool.training.schedule import StageClock, learning_rate, make_optimizer


def rates(schedule, steps, per_epoch=1, **settings):
    config = stage(schedule=schedule, learning_rate=0.4, **settings)
    return [learning_rate(config, step, steps, per_epoch) for step in range(steps)]


def torch_rates(make, epochs, per_epoch, stepped=lambda epoch: True):
    """The rates of each step under a scheduler of torch, which is stepped after the epochs that ``stepped`` names."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.4)
    scheduler = make(optimizer)
    found = []
    for epoch in range(epochs):
        found += [optimizer.param_groups[0]["lr"]] * per_epoch
        optimizer.step()
        if stepped(epoch):
            scheduler.step()
    return found


def test_a_constant_rate_is_constant():
    assert rates("constant", 5) == [0.4] * 5


def test_cosine_starts_at_the_rate_and_ends_a_step_above_zero():
    found = rates("cosine", 10)
    assert found == [0.4 * (1 + math.cos(math.pi * step / 10)) / 2 for step in range(10)]
    assert found[0] == 0.4
    assert found[5] == pytest.approx(0.2)
    assert 0 < found[-1] < 0.01


def test_triangle_climbs_for_a_fifth_and_falls_to_a_step_above_zero():
    found = rates("triangle", 20)
    assert found[:4] == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert found[4:] == pytest.approx([0.4 * share / 16 for share in range(16, 0, -1)])


@pytest.mark.parametrize(("every", "factor"), [(25, 0.1), (3, 0.5), (1, 1.0), (100, 0.1)])
def test_steps_are_those_of_torch(every, factor):
    expected = torch_rates(lambda made: torch.optim.lr_scheduler.StepLR(made, every, factor), 60, 3)
    assert rates("step", 180, 3, drop_every=every, drop_factor=factor) == pytest.approx(expected, rel=1e-12)


def test_sixty_epochs_divided_by_ten_every_twenty_five():
    found = rates("step", 120, 2, drop_every=25)
    assert found == pytest.approx([0.4] * 50 + [0.04] * 50 + [0.004] * 20)


@pytest.mark.parametrize("decay", [0.95, 0.5, 1.0])
def test_exponential_rates_are_those_of_torch(decay):
    expected = torch_rates(lambda made: torch.optim.lr_scheduler.ExponentialLR(made, decay), 40, 4)
    assert rates("exponential", 160, 4, decay=decay) == pytest.approx(expected, rel=1e-12)


def test_a_cosine_that_ends_before_the_stage_stays_at_its_end():
    falling = rates("cosine", 28, 2, constant_epochs=4, cosine_epochs=10)
    found = rates("cosine", 60, 2, constant_epochs=4, cosine_epochs=10)
    assert found == falling + [0.0] * 32
    assert falling == sorted(falling, reverse=True)
    assert falling[-1] > 0


@pytest.mark.parametrize("fall", [0, 195])
def test_cosine_after_ten_epochs_is_torch_s_stepped_from_the_tenth_epoch_on(fall):
    """The SimCLR code steps its scheduler after an epoch if that epoch's number, counted from 0, is at least 10."""
    expected = torch_rates(
        lambda made: torch.optim.lr_scheduler.CosineAnnealingLR(made, fall or 90), 100, 2, lambda epoch: epoch >= 10
    )
    found = rates("cosine", 200, 2, constant_epochs=10, cosine_epochs=fall)
    assert found == pytest.approx(expected, rel=1e-9)
    assert found[:22] == [0.4] * 22
    assert found[22] < 0.4


def test_cosine_falls_step_by_step_as_torch_s_without_constant_epochs():
    expected = torch_rates(lambda made: torch.optim.lr_scheduler.CosineAnnealingLR(made, 30), 30, 1)
    assert rates("cosine", 30, 3) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("schedule", ["constant", "step", "cosine"])
def test_a_warm_up_rises_linearly_to_the_schedule_and_then_leaves_it_alone(schedule):
    plain, found = rates(schedule, 12, 3, drop_every=3), rates(schedule, 12, 3, drop_every=3, warmup_epochs=2)
    assert found[6:] == plain[6:]
    assert found[:6] == pytest.approx([rate * (step + 1) / 6 for step, rate in enumerate(plain[:6])])


def test_a_stage_that_ends_before_its_constant_epochs_keeps_the_rate():
    assert rates("cosine", 5, 1, constant_epochs=10) == [0.4] * 5


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"schedule": "step", "constant_epochs": 3}, "set schedule to cosine"),
        ({"schedule": "cosine", "cosine_epochs": 3}, "set them too"),
        ({"schedule": "step", "drop_every": 0}, "drop_every"),
        ({"schedule": "exponential", "decay": 1.5}, "decay"),
    ],
)
def test_settings_that_say_nothing_are_refused(settings, words):
    with pytest.raises((SpecError, ValueError), match=words):
        stage(**settings)


@given(st.sampled_from(["constant", "cosine", "triangle"]), st.integers(1, 60))
def test_every_rate_is_positive_and_none_exceeds_the_peak(schedule, steps):
    found = rates(schedule, steps)
    assert all(0 < rate <= 0.4 for rate in found)
    assert max(found) == 0.4
    assert steps < 5 or schedule == "constant" or found[-1] < found[steps // 5]


def test_optimizers_get_the_stage_s_values_and_what_moves():
    parameters = [torch.nn.Parameter(torch.zeros(2)), torch.nn.Parameter(torch.zeros(2), requires_grad=False)]
    adam = make_optimizer(stage(learning_rate=3e-4, weight_decay=1e-4), parameters)
    assert type(adam) is torch.optim.Adam
    assert len(adam.param_groups) == 1
    group = adam.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["betas"]) == (3e-4, 1e-4, (0.9, 0.999))
    assert [id(parameter) for parameter in group["params"]] == [id(parameters[0])]
    sgd = make_optimizer(stage(optimizer="sgd", momentum=0.8, weight_decay=0.5), parameters).param_groups[0]
    assert (sgd["momentum"], sgd["nesterov"], sgd["weight_decay"]) == (0.8, True, 0.5)
    plain = make_optimizer(stage(optimizer="sgd", momentum=0.0), parameters).param_groups[0]
    assert not plain["nesterov"]
    plain = make_optimizer(stage(optimizer="sgd", nesterov=False), parameters).param_groups[0]
    assert (plain["momentum"], plain["nesterov"]) == (0.9, False)


@pytest.mark.parametrize("nesterov", [True, False])
def test_momentum_is_the_literal_formula(nesterov):
    """v ← m·v + g + wd·w; w ← w - lr·(g + wd·w + m·v) with Nesterov, w - lr·v without."""
    weight = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    config = stage(optimizer="sgd", nesterov=nesterov, momentum=0.8, weight_decay=0.1, learning_rate=0.3)
    optimizer = make_optimizer(config, [weight])
    expected, velocity = weight.detach().clone(), torch.zeros(2, dtype=torch.float64)
    for number in range(4):
        gradient = torch.tensor([1.0, 2.0], dtype=torch.float64) / (number + 1)
        decayed = gradient + 0.1 * expected
        velocity = 0.8 * velocity + decayed if number else decayed
        expected = expected - 0.3 * (decayed + 0.8 * velocity if nesterov else velocity)
        weight.grad = gradient
        optimizer.step()
    assert torch.allclose(weight, expected, rtol=1e-12)


@pytest.mark.parametrize("pace", [lambda step: 0.5, lambda step: 1.0 if step < 10 else 0.2])
def test_a_stage_ends_with_its_minutes_at_any_pace(monkeypatch, pace):
    """30 seconds of steps, and the rate falls to nearly nothing at their end."""
    now = 0.0
    monkeypatch.setattr(schedule.time, "monotonic", lambda: now)
    config = stage(schedule="triangle", learning_rate=0.4, minutes=0.5)
    clock = StageClock(config, 1000, 0.0, torch.device("cpu"))
    rates = []
    for step in range(1000):
        steps = clock.steps_in_all(step)
        rates.append(learning_rate(config, step, steps, 1))
        now += pace(step)
        if step + 1 == steps:
            break
    assert 29.0 <= now <= 30.0
    assert max(rates) == pytest.approx(0.4, abs=0.05)
    assert rates[-1] < 0.04


def test_minutes_that_are_longer_than_the_steps_change_nothing(monkeypatch):
    monkeypatch.setattr(schedule.time, "monotonic", lambda: 3.0)
    clock = StageClock(stage(minutes=9.0), 7, 0.0, torch.device("cpu"))
    assert [clock.steps_in_all(step) for step in range(7)] == [7] * 7


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_step_does_not_depend_on_how_gradients_lie_in_memory(optimizer):
    """The fused steps of torch pair values in memory order; a gradient that was set by hand may lie otherwise."""
    weights, gradients = torch.randn(4, 3, 2, 2), [torch.randn(4, 3, 2, 2) for _ in range(3)]
    found = []
    for layout in (torch.contiguous_format, torch.channels_last):
        weight = torch.nn.Parameter(weights.clone(memory_format=layout))
        steps = make_optimizer(stage(optimizer=optimizer, learning_rate=0.1, weight_decay=0.01), [weight])
        for gradient in gradients:
            weight.grad = gradient.clone()
            steps.step()
        found.append(weight.detach())
    assert torch.equal(found[0], found[1])
    default = torch.nn.Parameter(weights.clone())
    peer = {
        "adam": lambda: torch.optim.Adam([default], lr=0.1, weight_decay=0.01),
        "sgd": lambda: torch.optim.SGD([default], lr=0.1, weight_decay=0.01, momentum=0.9, nesterov=True),
    }[optimizer]()
    for gradient in gradients:
        default.grad = gradient.clone()
        peer.step()
    assert torch.allclose(found[0], default, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_parameter_that_is_a_part_of_a_tensor_moves_alone(optimizer):
    """A fused step would write into the columns between, and not into all rows."""
    whole = torch.zeros(4, 6)
    part = torch.nn.Parameter(whole[:, ::2])
    steps = make_optimizer(stage(optimizer=optimizer, learning_rate=0.1), [part])
    part.grad = torch.ones(4, 3)
    steps.step()
    assert (part < 0).all()
    assert not whole[:, 1::2].any()
    dense = make_optimizer(stage(optimizer=optimizer, learning_rate=0.1), [torch.nn.Parameter(torch.zeros(4, 3))])
    assert dense.param_groups[0]["fused"]
