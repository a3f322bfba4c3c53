"""Parameters with an optimizer of their own: the discriminator of inpainting beside the stage that trains the rest."""

import csv

import pytest
import torch
import torch.nn.functional as F
from tiny_runs import TRUNK, contrast, inpainting, labels, make_table, run, stage

from unfool.core.errors import NonFiniteError
from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import load_tensors
from unfool.tasks.inpainting import Inpainting
from unfool.training import train
from unfool.training.running import task_optimizers
from unfool.training.running.task_optimizers import TaskOptimizers
from unfool.training.schedule import make_optimizer
from unfool.training.stage import Stage

CLASSES = {"label": 4, "parity": 2}


def weights(folder):
    return load_tensors(folder / "weights.safetensors")[0]


def log(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def make_stage(**settings):
    network = Network.build(TrunkSpec.from_dict(TRUNK), {})
    values = {"optimizer": "sgd", "momentum": 0.0, "weight_decay": 0.0, **settings}
    tasks = {"labels": labels(), "fill": inpainting(lambda_adv=0.5)}
    return Stage(stage(tasks, **values), network, CLASSES, Streams(0))


def test_a_group_takes_one_step_of_its_own_down_its_own_losses_and_nothing_else_moves():
    made = make_stage().train()
    made(make_table().batch(torch.arange(12)), Streams(3))
    before = {name: value.clone() for name, value in made.network.state_dict().items()}
    turns, task = TaskOptimizers(made), made.tasks["fill"]
    assert list(turns.optimizers) == ["fill.discriminator"]
    pixels, fillings, _ = task._latest
    own = {f"heads.fill.discriminator.{name}": p for name, p in task.head.discriminator.named_parameters()}
    real, fake = (torch.sigmoid(task.head.discriminator(x)) for x in (pixels, fillings))
    loss = -(real.log() + (1 - fake).log()).mean()
    gradients = torch.autograd.grad(loss, list(own.values()))
    means = turns.step(0.4, 0)
    assert float(means["loss/fill.discriminator"]) == pytest.approx(float(loss.detach()), rel=1e-5)
    for (name, moved), gradient in zip(own.items(), gradients, strict=True):
        torch.testing.assert_close(moved.detach(), before[name] - 0.4 * 0.1 * gradient, rtol=1e-4, atol=1e-7)
        assert moved.grad is None
    others = {name: value for name, value in made.network.state_dict().items() if name not in own}
    assert all(torch.equal(value, before[name]) for name, value in others.items())


def test_three_processes_with_equal_images_step_a_group_as_one_does(monkeypatch):
    moved = []
    for processes in (1, 3):
        monkeypatch.setattr(task_optimizers, "joint_rank_and_world_size", lambda processes=processes: (0, processes))
        monkeypatch.setattr(task_optimizers, "summed", lambda part, processes=processes: part * processes)
        made = make_stage().train()
        made(make_table().batch(torch.arange(12)), Streams(3))
        TaskOptimizers(made).step(0.4, 0)
        moved.append([parameter.detach() for parameter in made.tasks["fill"].head.discriminator.parameters()])
    for one, three in zip(*moved, strict=True):
        torch.testing.assert_close(one, three)


def test_the_stages_own_optimizer_holds_all_the_others():
    made = make_stage()
    there = {id(p) for group in make_optimizer(made.config, made.ungrouped()).param_groups for p in group["params"]}
    own = {id(p) for p in made.tasks["fill"].head.discriminator.parameters()}
    assert there | own == {id(p) for p in made.parameters()}
    assert not there & own


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_at_weight_zero_a_run_equals_one_without_a_discriminator(tmp_path, optimizer):
    found = {}
    for width in (0, 4):
        task = inpainting(lambda_adv=0, discriminator=width)
        config = run(stage({"labels": labels(), "fill": task}, optimizer=optimizer, ema=0.5))
        train(config, make_table(), tmp_path / str(width))
        found[width] = weights(tmp_path / str(width))
    own = {name for name in found[4] if ".discriminator." in name}
    assert len(own) == 8
    assert found[0].keys() == found[4].keys() - own
    assert all(torch.equal(value, found[4][name]) for name, value in found[0].items())
    for left, right in zip(log(tmp_path / "0"), log(tmp_path / "4"), strict=True):
        assert float(right.pop("loss/fill.discriminator")) > 0
        assert left == right


def test_its_weight_changes_the_trunk_and_the_discriminator_tells_regions_from_fillings(tmp_path):
    for weight in (0.0, 0.5):
        task = inpainting(lambda_adv=weight, discriminator_rate=1.0)
        result = train(run(stage({"fill": task}, epochs=6)), make_table(), tmp_path / str(weight))
        # One pass through the trunk a step, whoever learns.
        assert result.model_images == 6 * 48
    one, other = (weights(tmp_path / name) for name in ("0.0", "0.5"))
    assert not torch.equal(one["trunk.parts.block1.0.weight"], other["trunk.parts.block1.0.weight"])
    losses = [float(row["loss/fill.discriminator"]) for row in log(tmp_path / "0.0")]
    assert losses[-1] < losses[0] - 0.1


def test_on_a_frozen_trunk_decoder_and_discriminator_move(tmp_path):
    first = run(stage({"labels": labels()}))
    both = run(stage({"labels": labels()}), stage({"inpainting": inpainting()}, trainable="heads"))
    train(first, make_table(), tmp_path / "first")
    train(both, make_table(), tmp_path / "both")
    before, after = weights(tmp_path / "first"), weights(tmp_path / "both")
    assert all(torch.equal(after[name], value) for name, value in before.items())
    fresh = Stage(both.stages[1], Network.build(TrunkSpec.from_dict(TRUNK), {}), CLASSES, Streams(0)).network
    moved = {
        name for name, value in fresh.named_parameters() if "heads" in name and not torch.equal(after[name], value)
    }
    assert moved == {name for name, _ in fresh.named_parameters() if "heads" in name}


@pytest.mark.parametrize(
    "settings",
    [
        {"perturb": "pgd-2"},
        {"perturb": "pgd-1", "awp": 0.01},
        {"perturb": "pgd-1", "adversarial": "dual-stream", "statistics": "separate"},
    ],
    ids=["plain", "perturbed weights", "dual stream"],
)
def test_perturbed_uphill_it_trains_beside_other_tasks(tmp_path, settings):
    tasks = {"fill": inpainting(masks=2), "contrast": contrast()}
    train(run(stage(tasks, epochs=1, **settings)), make_table(), tmp_path)
    assert all(float(log(tmp_path)[-1][f"loss/{name}"]) > 0 for name in (*tasks, "fill.discriminator"))


def test_a_loss_that_is_not_finite_stops_before_the_group_moves(monkeypatch):
    made = make_stage().train()
    made(make_table().batch(torch.arange(12)), Streams(3))
    before = {name: value.clone() for name, value in made.network.state_dict().items()}
    plain = Inpainting.turn_losses
    monkeypatch.setattr(Inpainting, "turn_losses", lambda self, group: plain(self, group) / 0.0)
    with pytest.raises(NonFiniteError, match=r"fill\.discriminator or its gradient is not finite at step 5"):
        TaskOptimizers(made).step(0.1, 4)
    assert all(torch.equal(value, before[name]) for name, value in made.network.state_dict().items())


def test_what_a_dual_stream_leaves_to_learn_from_is_of_the_moved_views():
    tasks = {"fill": inpainting(masks=2), "contrast": contrast(negatives="queue", bank=50)}
    network = Network.build(TrunkSpec.from_dict(TRUNK), {})
    config = stage(tasks, perturb="pgd-1", adversarial="dual-stream")
    made = Stage(config, network, CLASSES, Streams(0)).train()
    own, seen = made.adversary.features, {}

    def features(group, outputs):
        found = own(group, outputs)
        seen.update(
            {name: (views, *(part[views.stage].detach() for part in found)) for name, views in group.perturbed.items()}
        )
        return found

    made.adversary.features = features
    made(make_table().batch(torch.arange(12)), Streams(3))
    with torch.no_grad():
        views, *both = seen["fill"]
        of_clean, of_moved = (made.tasks["fill"].fillings(found, views) for found in both)
        pixels, fillings, count = made.tasks["fill"]._latest
        views, *both = seen["contrast"]
        pushed = [F.normalize(made.tasks["contrast"].head(found), dim=1) for found in both]
    assert torch.equal(pixels, seen["fill"][0].targets.pixels)
    assert count == 2
    torch.testing.assert_close(fillings, of_moved)
    torch.testing.assert_close(made.tasks["contrast"].bank[:24], pushed[1])
    # Clean and moved views are told apart by more than rounding.
    assert float((of_moved - of_clean).abs().max()) > 1e-3
    assert float((pushed[1] - pushed[0]).abs().max()) > 1e-3
