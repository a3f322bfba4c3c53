"""A stage: one trunk pass for each set of views, weights as stated, and crafting that leaves no trace."""

import copy

import pytest
import torch
from tiny_runs import TRUNK, contrast, labels, make_table, stage

from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task
from unfool.training import TaskConfig
from unfool.training.stage import Stage

CLASSES = {"label": 4, "parity": 2}


def make_stage(config, seed=0):
    network = Network.build(TrunkSpec.from_dict(TRUNK), {}, streams=Streams(seed))
    made = Stage(config, network, CLASSES, Streams(seed))
    made.train()
    return made


def weighted(task, weight, **settings):
    return TaskConfig(task=task, weight=weight, settings=settings)


def passes(made, batch):
    """Sizes of the batches that went through the trunk during one forward pass of a stage."""
    sizes = []
    hook = made.network.trunk.parts["stem"].register_forward_pre_hook(lambda _, args: sizes.append(len(args[0])))
    made(batch, Streams(0))
    hook.remove()
    return sizes


TILES = {"form": "context-free", "grid": 2, "count": 4, "hidden": 16}


@pytest.mark.parametrize("perturb", [None, "pgd-1"])
def test_tiles_leave_no_trace_in_the_statistics_of_images_but_in_their_own(perturb):
    def statistics(tasks):
        made = make_stage(stage(tasks, perturb=perturb))
        made(make_table(side=40).batch(torch.arange(8)), Streams(0))
        found = made.network.trunk.state_dict().items()
        return {name: value.clone() for name, value in found if "running" in name}

    jigsaw = weighted("jigsaw", 1e-9, **TILES)
    alone, beside, tiles = ({"labels": labels()}, {"labels": labels(), "jigsaw": jigsaw}, {"jigsaw": jigsaw})
    first, both = statistics(alone), statistics(beside)
    assert all(torch.allclose(both[name], value, atol=1e-6) for name, value in first.items())
    fresh = make_stage(stage(alone)).network.trunk.state_dict()
    assert all(not torch.equal(value, fresh[name]) for name, value in statistics(tiles).items())


@pytest.mark.parametrize(
    ("tasks", "sizes"),
    [
        ({"labels": labels()}, [8]),
        ({"labels": labels(), "parity": labels(column="parity")}, [8]),
        ({"labels": labels(augmentation="simclr", views=2), "contrast": contrast()}, [16]),
        ({"labels": labels(), "contrast": contrast()}, [8, 16]),
        (
            {
                "labels": labels(augmentation="simclr", views=3),
                "parity": labels(column="parity"),
                "contrast": contrast(views=3),
                "other": contrast(views=2),
            },
            [8, 16, 24],
        ),
    ],
)
def test_tasks_with_the_same_views_share_a_trunk_pass(tasks, sizes):
    made = make_stage(stage(tasks))
    assert sorted(passes(made, make_table().batch(torch.arange(8)))) == sizes
    assert made.model_images == sum(sizes)


def test_shared_passes_give_the_losses_of_separate_ones():
    tasks = {"labels": labels(augmentation="simclr", views=2), "contrast": contrast()}
    batch = make_table().batch(torch.arange(8))
    together, _ = make_stage(stage(tasks))(batch, Streams(3))
    for name, task in tasks.items():
        alone, _ = make_stage(stage({name: task}))(batch.with_images(batch.images), Streams(3))
        torch.testing.assert_close(alone[name], together[name])


def test_weights_enter_the_loss_as_stated():
    tasks = {"labels": weighted("labels", 0.5), "contrast": weighted("contrast", 3.0, size=6)}
    made = make_stage(stage(tasks))
    losses, _ = made(make_table().batch(torch.arange(8)), Streams(0))
    assert {name: tuple(values.shape) for name, values in losses.items()} == {"labels": (8,), "contrast": (8,)}
    expected = 0.5 * losses["labels"].double().mean() + 3.0 * losses["contrast"].double().mean()
    torch.testing.assert_close(made.total(losses).double(), expected)
    head = made.network.heads["labels"][0].weight
    (gradient,) = torch.autograd.grad(made.total(losses), head, retain_graph=True)
    (own,) = torch.autograd.grad(losses["labels"].mean(), head)
    torch.testing.assert_close(gradient, 0.5 * own)


def test_scores_tell_the_accuracy_of_the_network_itself():
    made = make_stage(stage({"labels": labels(augmentation="none")}))
    made.network.classifier = "labels"
    batch = make_table().batch(torch.arange(16))
    _, scores = made(batch, Streams(0))
    right = made.network(batch.images).argmax(1) == batch.labels("label")
    assert scores["accuracy/labels"].tolist() == right.float().tolist()


@pytest.mark.parametrize("perturb", [None, "pgd-2"])
def test_heads_that_move_alone_leave_the_trunk_bitwise_unchanged(perturb):
    made = make_stage(stage(trainable="heads", perturb=perturb))
    before = copy.deepcopy(made.network.trunk.state_dict())
    head = made.network.heads["labels"][0].weight.detach().clone()
    moving = [parameter for parameter in made.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(moving, lr=0.1, weight_decay=0.1)
    for step in range(2):
        optimizer.zero_grad()
        made.total(made(make_table().batch(torch.arange(12)), Streams(step))[0]).backward()
        optimizer.step()
    after = made.network.trunk.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not torch.equal(head, made.network.heads["labels"][0].weight)


def test_a_later_stage_moves_the_trunk_again_and_no_stale_gradient_is_left():
    made = make_stage(stage(trainable="heads"))
    other = Stage(stage(), made.network, CLASSES, Streams(0))
    other.train()
    other.total(other(make_table().batch(torch.arange(12)), Streams(0))[0]).backward()
    assert all(parameter.grad is not None for parameter in made.network.trunk.parameters())
    made.choose_trainable()
    assert all(p.grad is None and not p.requires_grad for p in made.network.trunk.parameters())
    other.choose_trainable()
    assert all(parameter.requires_grad for parameter in made.network.parameters())


@pytest.mark.parametrize("perturb", ["fgsm", "pgd-3"])
def test_crafting_moves_no_statistics_beyond_the_training_pass(perturb):
    made = make_stage(stage({"labels": labels(augmentation="none")}, perturb=perturb))
    twin = copy.deepcopy(made)
    seen = []
    made.network.trunk.parts["stem"].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    made(make_table().batch(torch.arange(12)), Streams(0))
    twin.network.trunk.train()
    twin.network.trunk(seen[-1])
    expected, found = twin.network.state_dict(), made.network.state_dict()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    counts = [int(value) for name, value in found.items() if name.endswith("num_batches_tracked")]
    assert counts == [1] * 6
    assert len(seen) == {"fgsm": 2, "pgd-3": 4}[perturb]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_perturbed_views_climb_the_stage_s_loss_inside_the_ball(precision):
    tasks = {"labels": labels(augmentation="simclr", views=2), "contrast": contrast()}
    batch = make_table().batch(torch.arange(8))
    made = make_stage(stage(tasks, perturb="pgd-5", threat="linf:8/255", precision=precision))
    shown = []
    for name in tasks:
        task = made.tasks[name]
        task.losses = lambda outputs, views, name=name, own=task.losses: shown.append(views) or own(outputs, views)
    losses, _ = made(batch, Streams(0))
    # The first reading is of the random start inside the ball; the last two are of what is trained on.
    clean = {name: task.views(batch, Streams(0)).images for name, task in made.tasks.items()}
    final = shown[-1].images
    assert final is shown[-2].images
    assert float((final - clean["labels"]).abs().max()) <= 8 / 255 + 1e-6
    assert 0.0 <= float(final.min()) <= float(final.max()) <= 1.0
    assert not final.requires_grad
    plain = make_stage(stage(tasks, precision=precision))
    made.eval(), plain.eval()
    harder = made.total(made(batch, Streams(0))[0])
    easier = plain.total(plain(batch, Streams(0))[0])
    assert harder > easier
    assert all(values.dtype == torch.float32 for values in losses.values())


def test_perturbing_gives_every_parameter_its_mode_and_flag_back():
    made = make_stage(stage(perturb="pgd-2"))
    made.network.trunk.parts["block1"].eval()
    made(make_table().batch(torch.arange(8)), Streams(0))
    assert not any(part.training for part in made.network.trunk.parts["block1"].modules())
    assert all(part.training for part in made.network.trunk.parts["block2"].modules())
    assert all(parameter.requires_grad for parameter in made.parameters())


def test_separate_sets_of_views_are_perturbed_from_draws_of_their_own():
    """Two tasks whose views are equal images but different tensors: their random starts must not coincide."""
    made = make_stage(stage({"a": labels(augmentation="none"), "b": labels(augmentation="none")}, perturb="pgd-1"))
    batch = make_table().batch(torch.arange(8))
    own = made.tasks["b"].views
    made.tasks["b"].views = lambda batch, streams: own(batch.with_images(batch.images.clone()), streams)
    seen = []
    made.network.trunk.parts["stem"].register_forward_pre_hook(lambda _, args: seen.append(args[0].detach()))
    made(batch, Streams(0))
    assert len(seen) == 4
    assert not torch.equal(seen[0], seen[2])


def test_bf16_computes_the_trunk_in_bf16_and_the_losses_in_fp32():
    """Contrast at a small temperature: a product of similarities in bf16 would be off by tenths."""
    tasks = {"contrast": TaskConfig(task="contrast", settings={"temperature": 0.02, "size": 6})}
    made = make_stage(stage(tasks, precision="bf16"))
    seen, heads = [], []
    made.network.trunk.parts["stem"][0].register_forward_hook(lambda _, __, output: seen.append(output.dtype))
    made.network.heads["contrast"].register_forward_hook(lambda _, args, output: heads.append((args[0], output)))
    batch = make_table().batch(torch.arange(12))
    losses, _ = made(batch, Streams(0))
    made.total(losses).backward()
    assert seen == [torch.bfloat16]
    features, projected = heads[0]
    assert features.dtype == projected.dtype == torch.float32
    views = made.tasks["contrast"].views(batch, Streams(0))
    exact = copy.deepcopy(made.tasks["contrast"]).double().losses(features.detach().double(), views)
    torch.testing.assert_close(losses["contrast"].double(), exact.double(), rtol=1e-4, atol=1e-4)
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in made.parameters())


def test_the_loss_is_that_of_the_task_on_the_network_s_own_features():
    made = make_stage(stage({"labels": labels(augmentation="none")}))
    made.eval()
    made.network.classifier = "labels"
    batch = make_table().batch(torch.arange(8))
    losses, _ = made(batch, Streams(0))
    expected = torch.nn.functional.cross_entropy(made.network(batch.images), batch.labels("label"), reduction="none")
    torch.testing.assert_close(losses["labels"], expected)


def test_two_stages_cannot_share_a_head_of_different_shape():
    network = Network.build(TrunkSpec.from_dict(TRUNK), {}, streams=Streams(0))
    Stage(stage(), network, CLASSES, Streams(0))
    Stage(stage(trainable="heads"), network, CLASSES, Streams(0))
    with pytest.raises(SpecError, match="different heads"):
        Stage(stage({"labels": labels(column="parity")}), network, CLASSES, Streams(0))


def test_a_task_of_the_stage_is_the_registered_one():
    made = make_stage(stage({"anything": contrast()}))
    assert type(made.tasks["anything"]) is type(make_task("contrast"))
    assert made.tasks["anything"].head is made.network.heads["anything"]
