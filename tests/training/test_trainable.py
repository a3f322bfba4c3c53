"""Which part of a trunk a stage moves: the rest keeps every bit, statistics too, and costs no gradient."""

import copy

import pytest
import torch
from tiny_runs import contrast, labels, make_table, stage
from torch import nn

from unfool import RunConfig, adapt, train
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.models.foreign_network import foreign_network
from unfool.models.network import Network
from unfool.models.trunks import TRUNKS, TrunkSpec, build_trunk
from unfool.training.stage import Stage
from unfool.training.trainable import frozen_parts

SIDE = 32
SMALL = {
    "convnet": {"widths": (4, 8, 8)},
    "resnet18": {"width": 1 / 16},
    "resnet50": {"width": 1 / 64},
    "wide-resnet": {"depth": 16, "width": 0.25},
}
TRUNK_NAMES = list(TRUNKS)


def small_trunk(name):
    return TrunkSpec(name=name, **SMALL.get(name, {"width": 1 / 16}))


def executed(trunk):
    """Innermost modules in the order in which a forward pass runs them, by name."""
    order = []
    hooks = [
        part.register_forward_hook(lambda *_, name=name: order.append(name))
        for name, part in trunk.named_modules()
        if not list(part.children())
    ]
    with torch.no_grad():
        trunk.eval()(torch.zeros(1, 3, SIDE, SIDE))
    for hook in hooks:
        hook.remove()
    return order


def names_of(trunk, parts):
    """Names of the modules among ``parts`` that have a state."""
    return {name for name, part in trunk.named_modules() if any(part is other for other in parts) and part.state_dict()}


def stateful(trunk, names):
    return {name for name in names if trunk.get_submodule(name).state_dict()}


@pytest.mark.parametrize("name", TRUNK_NAMES)
def test_layers_are_counted_in_the_order_of_a_forward_pass(name):
    trunk = build_trunk(small_trunk(name))
    order = executed(trunk)
    layers = [
        place
        for place, part in enumerate(order)
        if isinstance(trunk.get_submodule(part), (nn.Conv2d, nn.Linear)) and "shortcut" not in part
    ]
    for count in range(1, len(layers)):
        expected = stateful(trunk, order[: layers[count]])
        assert names_of(trunk, frozen_parts(trunk, f"after:{count}")) == expected
    for count in (len(layers), 1000):
        with pytest.raises(SpecError, match=f"it has {len(layers)} layers"):
            frozen_parts(trunk, f"after:{count}")


@pytest.mark.parametrize("name", TRUNK_NAMES)
def test_a_stage_and_all_behind_it_move(name):
    trunk = build_trunk(small_trunk(name))
    for place, first in enumerate(trunk.stages):
        before = {f"parts.{stage}" for stage in trunk.stages[:place]}
        expected = {part for part in stateful(trunk, executed(trunk)) if ".".join(part.split(".")[:2]) in before}
        assert names_of(trunk, frozen_parts(trunk, f"from:{first}")) == expected
    with pytest.raises(SpecError, match="unknown stage of trunk"):
        frozen_parts(trunk, "from:layre2")


@pytest.mark.parametrize(
    ("name", "layers", "stage"),
    [("resnet18", 1, "layer1"), ("resnet18", 5, "layer2"), ("resnet18", 9, "layer3"), ("vgg16", 4, "pool3")],
)
def test_papers_count_as_we_do(name, layers, stage):
    trunk = build_trunk(small_trunk(name))
    assert frozen_parts(trunk, f"after:{layers}") == frozen_parts(trunk, f"from:{stage}")


def test_all_and_heads_are_the_two_ends():
    trunk = build_trunk(small_trunk("vgg16"))
    assert frozen_parts(trunk, "all") == []
    assert names_of(trunk, frozen_parts(trunk, "heads")) == stateful(trunk, executed(trunk))


LEARNT = {
    "clean": ({"labels": labels()}, {}),
    "perturbed": ({"labels": labels()}, {"perturb": "pgd-1", "awp": 0.01}),
    "in two streams": (
        {"contrast": contrast()},
        {"perturb": "pgd-1", "adversarial": "dual-stream", "statistics": "separate"},
    ),
}


@pytest.mark.parametrize(
    ("name", "trainable"),
    [
        ("convnet", "heads"),
        ("convnet", "from:block2"),
        ("convnet", "after:2"),
        ("resnet18", "from:layer4"),
        ("resnet18", "after:10"),
        ("preact-resnet18", "after:3"),
        ("vgg16", "after:11"),
    ],
)
@pytest.mark.parametrize("how", LEARNT)
def test_what_does_not_move_keeps_every_bit_and_what_does_moves(name, trainable, how):
    tasks, more = LEARNT[how]
    network = Network.build(small_trunk(name), {}, streams=Streams(0))
    made = Stage(stage(tasks, trainable=trainable, **more), network, {"label": 4}, Streams(0))
    made.train()
    frozen = names_of(network.trunk, made.frozen)
    moving = stateful(network.trunk, executed(network.trunk)) - frozen
    made.train()
    before = copy.deepcopy(network.trunk.state_dict())
    parameters = [parameter for parameter in made.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.1, momentum=0.9, weight_decay=0.1)
    for step in range(2):
        optimizer.zero_grad()
        made.total(made(make_table(side=SIDE).batch(torch.arange(6)), Streams(step))[0]).backward()
        made.weight_perturbation.undo()
        optimizer.step()
    assert frozen
    after = network.trunk.state_dict()
    for part in frozen:
        module = network.trunk.get_submodule(part)
        assert all(parameter.grad is None for parameter in module.parameters())
        assert all(torch.equal(before[f"{part}.{key}"], after[f"{part}.{key}"]) for key in module.state_dict())
    for part in moving:
        keys = network.trunk.get_submodule(part).state_dict()
        assert any(not torch.equal(before[f"{part}.{key}"], after[f"{part}.{key}"]) for key in keys), part
    assert any(parameter.grad is not None for parameter in network.heads.parameters())
    assert bool(moving) == (trainable != "heads")


@pytest.mark.parametrize("trainable", ["from:block3", "after:4", "heads"])
def test_the_gradient_stops_where_the_moving_part_begins(trainable):
    network = Network.build(small_trunk("convnet"), {}, streams=Streams(0))
    made = Stage(stage(trainable=trainable), network, {"label": 4}, Streams(0))
    made.train()
    reached = {}
    for name, part in network.trunk.parts.items():
        part.register_forward_hook(lambda *args, name=name: reached.update({name: args[2].requires_grad}))
    made(make_table().batch(torch.arange(6)), Streams(0))
    expected = {
        "from:block3": ["block3", "last"],
        "after:4": ["block2", "block3", "last"],
        "heads": [],
    }[trainable]
    assert [name for name, wanted in reached.items() if wanted] == expected


@pytest.mark.parametrize("words", ["head", "from", "from:", "after:", "after:0", "after:-1", "after:x", "", "all:1"])
def test_words_that_say_nothing_are_refused_in_one_line(words):
    with pytest.raises(SpecError, match="write all, heads, from:STAGE") as refusal:
        stage(trainable=words)
    assert "\n" not in str(refusal.value)


class Encoder(nn.Module):
    """Parameters on modules that have parts: positions on the whole, projections on each attention."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, stride=8)
        self.positions = nn.Parameter(torch.zeros(1, 4, 8))
        self.first = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)
        self.second = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.0, batch_first=True)
        self.out = nn.Linear(8, 4)

    def forward(self, images):
        tokens = self.patches(images).flatten(2).transpose(1, 2) + self.positions
        return self.out(self.second(self.first(tokens)).mean(1))


@pytest.mark.parametrize("trainable", ["after:4", "from:second"])
def test_what_lies_on_a_module_with_parts_is_frozen_with_what_is_before(trainable):
    table = make_table(8)
    network = foreign_network(adapt(Encoder()), table.batch().images[:2])
    made = Stage(stage({"labels": labels()}, trainable=trainable), network, {"label": 4}, Streams(0))
    made.choose_trainable()
    moving = {name for name, value in network.module.named_parameters() if value.requires_grad}
    assert {name.split(".")[0] for name in moving} == {"second", "out"}
    assert "second.self_attn.in_proj_weight" in moving or trainable == "after:4"


def test_a_stage_that_trains_nothing_is_refused_in_one_line(tmp_path):
    config = RunConfig(data="made-up", stages=(stage({"labels": labels()}, trainable="heads", steps=1),))
    with pytest.raises(SpecError, match="trainable 'heads' leaves no parameter to train"):
        train(config, make_table(8), tmp_path, model=adapt(Encoder()))


def test_options_of_an_attack_that_training_cannot_use_are_refused():
    for perturb, option in (
        ("pgd-2:restarts=2", "restarts"),
        ("pgd-2:eot_draws=3", "eot_draws"),
        ("pgd-2:goal=best", "goal"),
    ):
        with pytest.raises(SpecError, match=f"sets {option}, and training takes the last point"):
            Stage(
                stage({"labels": labels()}, perturb=perturb),
                Network.build(small_trunk("convnet"), {}),
                {"label": 4},
                Streams(0),
            )


def test_the_goal_that_training_has_may_be_written():
    config = stage({"labels": labels()}, perturb="pgd-2:goal=last")
    made = Stage(config, Network.build(small_trunk("convnet"), {}), {"label": 4}, Streams(0))
    assert made.adversary.engine.steps == 2
