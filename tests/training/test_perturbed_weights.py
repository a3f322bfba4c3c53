"""Adversarial weight perturbation against its algorithm written out, and that no trace of it is left."""

import copy

import pytest
import torch
from test_adversarial import PLAIN, in_double
from test_stage import make_stage
from tiny_runs import contrast, make_table, run, stage

from unfool.core.errors import NonFiniteError
from unfool.core.streams import Streams
from unfool.training import train
from unfool.training.running.prepared import PreparedRun
from unfool.training.running.stage_training import StageTraining


@pytest.mark.parametrize("adversarial", ["plain", "trades"])
def test_the_gradient_is_that_at_the_perturbed_weights(adversarial):
    gamma = 0.05
    settings = {"perturb": "pgd-2", "adversarial": adversarial}
    made, batch, _ = in_double(stage(PLAIN, awp=gamma, **settings))
    # The same stage without the perturbation; its weights are moved by hand. Crafting is the same: it came first.
    literal = make_stage(stage(PLAIN, **settings)).double()
    shown = list(literal._view_pairs(batch, Streams(5)))
    fixed = copy.deepcopy(dict(literal.named_buffers()))
    weights = [parameter for parameter in literal.parameters() if parameter.ndim > 1]
    for weight, gradient in zip(
        weights, torch.autograd.grad(literal.total(literal._losses_and_scores(shown)[0]), weights), strict=True
    ):
        weight.data += gamma * weight.norm().detach() / gradient.norm() * gradient
    for name, buffer in literal.named_buffers():
        buffer.copy_(fixed[name])
    expected = literal.total(literal._losses_and_scores(shown)[0])
    expected.backward()

    before = copy.deepcopy(made.network.state_dict())
    found = made.total(made(batch, Streams(5))[0])
    moved = {name: value.clone() for name, value in made.network.state_dict().items()}
    found.backward()
    made.weight_perturbation.undo()
    torch.testing.assert_close(found, expected)
    theirs = dict(literal.network.named_parameters())
    for name, parameter in made.network.named_parameters():
        torch.testing.assert_close(parameter.grad, theirs[name].grad, rtol=1e-6, atol=1e-10)
        length = float((moved[name] - before[name]).norm())
        assert length == pytest.approx(gamma * float(before[name].norm()) if parameter.ndim > 1 else 0.0)
        assert torch.equal(parameter, before[name])
    for name, buffer in literal.network.named_buffers():
        torch.testing.assert_close(made.network.state_dict()[name], buffer)


def test_a_flat_loss_moves_no_weight_and_other_heads_take_no_part():
    made = make_stage(stage(PLAIN, awp=0.5))
    before = copy.deepcopy(made.network.state_dict())
    made.weight_perturbation.climb(made, lambda: 0.0 * made.network.heads["labels"][0].weight.sum())
    after = made.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_frozen_trunk_is_not_perturbed():
    made = make_stage(stage({"contrast": contrast()}, trainable="heads", awp=0.5))
    before = copy.deepcopy(made.network.state_dict())
    losses, _ = made(make_table().batch(torch.arange(8)), Streams(0))
    changed = {name for name, value in made.network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"heads.contrast.0.weight", "heads.contrast.2.weight"}
    made.total(losses).backward()
    made.weight_perturbation.undo()
    after = made.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_weights_are_put_back_when_a_step_fails(tmp_path, monkeypatch):
    held = []

    def fail(self, *_):
        held.append((self.stage, copy.deepcopy(self.stage.network.state_dict())))
        raise NonFiniteError("made up")

    monkeypatch.setattr(StageTraining, "_backward", fail)
    with pytest.raises(NonFiniteError, match="made up"):
        train(run(stage(PLAIN, awp=0.1)), make_table(), tmp_path)
    (failed, perturbed), fresh = held[0], PreparedRun(run(stage(PLAIN)), make_table()).network
    weight = "trunk.parts.stem.0.weight"
    assert torch.equal(failed.network.state_dict()[weight], fresh.state_dict()[weight])
    assert not torch.equal(perturbed[weight], fresh.state_dict()[weight])
