"""frozen_eval(): whatever happens inside, the module and the global random state come back as they were."""

import copy

import pytest
import torch
from torch import nn

from unfool.models.modes import frozen_eval


def make_module():
    module = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(0.5), nn.Flatten(), nn.Linear(8, 2))
    module.train()
    module[1].eval()
    module[0].weight.requires_grad_(False)
    module[4].weight.grad = torch.full((2, 8), 0.5)
    module.register_buffer("bank", torch.tensor([1.0, float("nan")]))
    return module


def disturb(module):
    """Everything a careless attack does."""
    assert not any(part.training for part in module.modules())
    assert not any(parameter.requires_grad for parameter in module.parameters())
    assert all(parameter.grad is None for parameter in module.parameters())
    module.train()
    for parameter in module.parameters():
        parameter.requires_grad_(True)
    module(torch.rand(4, 1, 4, 4)).sum().backward()
    module[4].weight.grad.mul_(3)
    module.bank.fill_(7.0)
    module[1].running_mean = torch.ones(2)
    torch.manual_seed(123)


@pytest.mark.parametrize("fails", [False, True])
def test_everything_is_as_before(fails):
    module = make_module()
    before = copy.deepcopy(module.state_dict())
    gradient, kept = module[4].weight.grad, module[4].weight.grad.clone()
    buffers = dict(module.named_buffers())
    modes = [part.training for part in module.modules()]
    flags = [parameter.requires_grad for parameter in module.parameters()]
    state = torch.random.get_rng_state()
    try:
        with frozen_eval(module):
            disturb(module)
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert [part.training for part in module.modules()] == modes
    assert [parameter.requires_grad for parameter in module.parameters()] == flags
    assert module[4].weight.grad is gradient
    assert torch.equal(gradient, kept)
    assert [name for name, parameter in module.named_parameters() if parameter.grad is not None] == ["4.weight"]
    assert all(buffer is buffers[name] for name, buffer in module.named_buffers())
    after = module.state_dict()
    assert all(torch.equal(before[name].nan_to_num(9), after[name].nan_to_num(9)) for name in before)
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_graph_of_the_caller_survives():
    # Crafting happens between a forward and its backward: buffers that the graph saved must not be written to.
    module = make_module()
    loss = module(torch.rand(4, 1, 4, 4)).sum()
    with frozen_eval(module):
        module(torch.rand(2, 1, 4, 4))
    loss.backward()
    assert module[4].bias.grad is not None


def test_it_nests():
    module = make_module()
    with frozen_eval(module):
        with frozen_eval(module):
            module.train()
        assert not any(part.training for part in module.modules())
    assert module.training
    assert not module[1].training
