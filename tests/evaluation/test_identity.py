"""Two systems share an identity only if they compute the same function from the same numbers."""

import copy
import functools
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from tiny_systems import HEADS, Defended, Gives, make_network
from torch import nn

from unfool.attacks import ProxySettings
from unfool.core.threat import ThreatModel
from unfool.evaluation import identity
from unfool.models.fast import fast_copy
from unfool.models.weights import load_network, save_network


def flip_last_bit(tensor):
    with torch.no_grad():
        tensor.view(-1)[-1:].view(torch.int32).bitwise_xor_(1)


@pytest.mark.parametrize("name", list(make_network().state_dict()))
def test_one_bit_of_any_weight_or_buffer_is_another_system(name):
    network = make_network()
    before = identity(network)
    value = network.state_dict()[name]
    if value.is_floating_point():
        flip_last_bit(value)
    else:
        value += 1
    assert identity(network) != before
    assert identity(Defended(network)) != identity(Defended(make_network()))


def test_architecture_classifier_and_normalisation_count():
    systems = [
        make_network(),
        make_network(seed=1),
        make_network(widths=(4, 8, 9)),
        make_network(normalisation="cifar100"),
        make_network(normalisation="none"),
        make_network(classifier="other"),
        make_network(classifier=None),
        make_network(heads={"labels": HEADS["labels"]}),
        make_network(heads={"labels": {"kind": "mlp", "hidden": 4, "outputs": 4}}),
    ]
    assert len({identity(system) for system in systems}) == len(systems)
    assert len({identity(Defended(system)) for system in systems}) == len(systems)
    assert all(len(identity(system)) == 16 for system in systems)


@pytest.mark.parametrize(
    "change",
    [
        lambda network: setattr(network, "forward", lambda images: 1000 * type(network).forward(network, images)),
        lambda network: setattr(first_of(network, nn.Conv2d), "forward", lambda features: features[:, :1] * 0),
        lambda network: setattr(first_of(network, nn.Conv2d), "stride", (2, 2)),
        lambda network: setattr(first_of(network, nn.BatchNorm2d), "eps", 1.0),
        lambda network: setattr(network.trunk, "collect", lambda images, stages: {}),
        lambda network: network.trunk.parts.add_module("more", nn.ReLU()),
    ],
)
def test_what_was_replaced_in_a_network_counts(change):
    systems = [make_network(), make_network()]
    change(systems[1])
    assert identity(systems[0]) == identity(make_network()) != identity(systems[1])
    assert identity(Defended(systems[0])) != identity(Defended(systems[1]))


def test_attributes_that_do_not_compare_leave_a_network_readable():
    systems = [make_network(), make_network(), make_network()]
    for factor, system in enumerate(systems[1:], 1):
        first_of(system, nn.Conv2d).mask = factor * torch.ones(3)
    assert len({identity(system) for system in systems}) == 3
    assert not any(identity(system).endswith("?") for system in systems)


def first_of(network, kind):
    return next(part for part in network.modules() if isinstance(part, kind))


def test_equal_networks_are_equal_whatever_mode_memory_flags_or_copy():
    network = make_network()
    expected = identity(network)
    assert identity(make_network()) == expected
    assert identity(copy.deepcopy(network)) == expected
    assert identity(copy.deepcopy(network).train()) == expected
    assert identity(copy.deepcopy(network).to(memory_format=torch.channels_last)) == expected
    assert identity(copy.deepcopy(network).requires_grad_(False)) == expected
    used = copy.deepcopy(network)
    used(torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))).sum().backward()
    assert identity(used) == expected
    if torch.cuda.is_available():
        assert identity(copy.deepcopy(network).cuda()) == expected


def test_a_network_s_identity_is_that_of_its_numbers_in_every_version_of_python_and_on_every_machine():
    network = make_network()
    with torch.no_grad():
        for value in network.state_dict().values():
            value.copy_(torch.arange(value.numel()).view(value.shape) % 64 / 64)
    assert identity(network) == "7faa54a5c99c06d0"


def test_it_survives_a_file_and_another_process(tmp_path):
    network = make_network()
    save_network(network, tmp_path / "weights.safetensors")
    assert identity(load_network(tmp_path / "weights.safetensors")) == identity(network)
    program = (
        "from tiny_systems import *; from unfool.evaluation import identity; print(identity(Defended(make_network())))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=Path(__file__).parent, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == identity(Defended(make_network()))


@dataclass(frozen=True)
class Settings:
    steps: int
    threat: ThreatModel


class Slotted:
    __slots__ = ("rate",)

    def __init__(self, rate):
        self.rate = rate


class Odd(Defended):
    pass


def brighter(by):
    return lambda images: images + by


def shifted(images, by=0.0):
    return images + by


def defended(**settings):
    made = Defended(make_network())
    vars(made).update(settings)
    return made


def test_a_defense_s_settings_count():
    systems = [
        defended(),
        defended(steps=4),
        defended(steps=3.0),
        defended(steps="3"),
        defended(steps=True),
        defended(steps=None),
        defended(_strength=0.1),
        defended(extra=1),
        defended(order=(1, 2)),
        defended(order=[1, 2]),
        defended(order=(2, 1)),
        defended(order=(12,)),
        defended(order={1, 2}),
        defended(bank=torch.zeros(3)),
        defended(bank=torch.ones(3)),
        defended(bank=torch.zeros(3, 1)),
        defended(bank=torch.zeros(3).numpy()),
        defended(by={"a": 1, "b": 2}),
        defended(by={"a": 2, "b": 1}),
        defended(how=Settings(1, ThreatModel.parse("linf:8/255"))),
        defended(how=Settings(2, ThreatModel.parse("linf:8/255"))),
        defended(how=Settings(1, ThreatModel.parse("l2:0.5"))),
        defended(how=Slotted(0.1)),
        defended(how=Slotted(0.2)),
        defended(how=brighter(0.1)),
        defended(how=brighter(0.2)),
        defended(how=lambda images: images),
        defended(how=lambda images: images * 2),
        defended(how=functools.partial(shifted, by=0.1)),
        defended(how=functools.partial(shifted, by=0.2)),
        defended(how=shifted),
        defended(how=torch.relu),
        defended(how=nn.ReLU),
        defended(parts=[make_network(seed=1)]),
        defended(parts=[make_network(seed=2)]),
        Odd(make_network()),
        make_network(),
        nn.Sequential(make_network()),
    ]
    assert len({identity(system) for system in systems}) == len(systems)


def test_equal_settings_made_anew_are_equal():
    def make():
        made = defended(
            how=brighter(0.1),
            by={"b": 2, "a": {3, 1, 2}},
            threat=ThreatModel.parse("linf:8/255"),
            device=torch.device("cpu"),
        )
        made.itself = made
        made.method = made.forward
        return made

    other = make()
    other.by = {"b": 2, "a": {2, 1, 3}}
    other.device = torch.device("cuda")
    assert identity(make()) == identity(other)
    # A pass may go through it in its order.
    other.by = {"a": {2, 1, 3}, "b": 2}
    assert identity(make()) != identity(other)


def test_parameters_buffers_and_hooks_that_no_state_dict_shows_count():
    plain, bank, hooked, other = (Defended(make_network()) for _ in range(4))
    bank.register_buffer("bank", torch.zeros(2), persistent=False)
    hooked.network.register_forward_hook(lambda module, images, logits: logits.round())
    other.network.trunk.parts["block1"].register_forward_pre_hook(lambda module, images: images)
    assert len({identity(system) for system in (plain, bank, hooked, other)}) == 4
    before = identity(bank)
    bank.bank[0] = 1.0
    assert identity(bank) != before


@pytest.mark.parametrize(
    "change",
    [{"stride": 2, "padding": 1}, {"padding": 1}, {"kernel_size": 1}, {"padding": 1, "padding_mode": "circular"}],
)
def test_settings_of_foreign_layers_count(change):
    def make(**settings):
        layer = nn.Conv2d(**{"in_channels": 3, "out_channels": 2, "kernel_size": 3, **settings})
        for parameter in layer.parameters():
            nn.init.zeros_(parameter)
        return nn.Sequential(layer)

    assert identity(make()) == identity(make())
    assert identity(make(**change)) != identity(make())


def test_a_part_that_was_swapped_counts():
    swapped = make_network()
    swapped.trunk.parts["stem"][1] = nn.ReLU()
    assert identity(swapped) != identity(make_network())
    foreign = make_network()
    foreign.heads["labels"] = nn.Linear(8, 4)
    assert identity(foreign) != identity(make_network())


def test_a_network_of_unfool_s_own_keeps_its_identity():
    """Results that are stored name it: it is the same under every version of Python, and of unfool."""
    network = make_network()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(torch.arange(parameter.numel()).view(parameter.shape) / 1024)
    assert identity(network) == "13d7ba042ad04f77"


@pytest.mark.parametrize("settings", [{}, {"fold": False}, {"dtype": "bf16"}, {"fold": False, "dtype": "bf16"}])
def test_fast_twins_that_compute_something_else_are_other_systems(settings):
    """They are never judged; if one were, its result would be transfer."""
    network = make_network()
    twin = fast_copy(network, **settings)
    same = not settings.get("fold", True) and "dtype" not in settings
    assert (identity(twin) == identity(network)) is same
    assert identity(ProxySettings(dtype="bf16").copy(Gives(network.forward))) != identity(Gives(network.forward))
