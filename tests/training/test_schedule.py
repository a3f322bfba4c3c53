"""Learning rates at their end points, and the optimizers that get them."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_runs import stage

from unfool.training.schedule import learning_rate, make_optimizer


def rates(schedule, steps):
    config = stage(schedule=schedule, learning_rate=0.4)
    return [learning_rate(config, step, steps) for step in range(steps)]


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
