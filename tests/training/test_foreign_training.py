"""Classifiers of other libraries train as networks of ours do, and keep their own names."""

import copy

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from unfool.core.errors import DataError, SpecError, WeightsError
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.models.foreign import adapt
from unfool.models.weights import load_network
from unfool.training import RunConfig, StageConfig, TaskConfig, open_run, train
from unfool.training.initial_network import resolve_start


class Small(nn.Module):
    """A user's own classifier."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.ReLU())
        self.out = nn.Linear(4, 3)

    def forward(self, x):
        return self.out(self.body(x).mean((2, 3)))


def small():
    module = Small()
    with torch.no_grad():
        for number, parameter in enumerate(module.parameters()):
            draws = Streams(number).uniform(torch.arange(1), tuple(parameter.shape), -0.5, 0.5)
            parameter.copy_(draws[0])
    return module


TABLE = Table.from_tensors(Streams(0).uniform(torch.arange(24), (3, 8, 8)), [0, 1, 2] * 8, name="noise", split="train")
LABELS = {"labels": TaskConfig(task="labels")}


def config(stage=None, **changed):
    settings = {"tasks": LABELS, "steps": 3, "batch_size": 8, "optimizer": "sgd", "learning_rate": 0.1, **(stage or {})}
    return RunConfig(data="noise", stages=(StageConfig(**settings),), model="Small", **changed)


def test_a_configuration_need_not_name_the_classifier_and_may_name_no_trunk_beside_it():
    stages = (StageConfig(tasks=LABELS, steps=1),)
    resolved = resolve_start(RunConfig(data="noise", stages=stages), adapt(small()))
    assert (resolved.model, resolved.trunk, resolved.normalisation) == ("Small", None, None)
    with pytest.raises(SpecError, match=r"names the trunk convnet, and Small is trained in its place; leave trunk out"):
        resolve_start(RunConfig(data="noise", stages=stages, trunk="convnet:widths=4-8-8"), adapt(small()))


def test_a_run_trains_the_users_own_weights_and_writes_them_under_their_names(tmp_path):
    module = small()
    before = copy.deepcopy(module.state_dict())
    run = train(config(), TABLE, tmp_path / "run", model=module)
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())  # it was copied
    own = load_file(tmp_path / "run" / "model.safetensors")
    assert set(own) == set(before)
    assert not torch.equal(own["out.weight"], before["out.weight"])
    fresh = Small()
    fresh.load_state_dict(own)
    images = TABLE.batch().images
    assert torch.equal(fresh.eval()(images), run.network(images))
    assert repr(run).endswith("run: Small, labels on noise, 24 model images)")


def test_one_step_of_sgd_is_that_of_torch(tmp_path):
    task = {"labels": TaskConfig(task="labels", settings={"augmentation": "none"})}
    stage = {"tasks": task, "steps": 1, "batch_size": 24, "momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    run = train(config(stage), TABLE, tmp_path / "run", model=small())
    module = small().train()
    batch = TABLE.batch()
    nn.functional.cross_entropy(module(batch.images), batch.labels("label")).backward()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter -= 0.1 * parameter.grad
    for name, value in module.state_dict().items():
        torch.testing.assert_close(run.network.module.state_dict()[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "stage",
    [
        {"perturb": "pgd-2", "threat": "linf:2/255"},
        {"perturb": "fgsm", "adversarial": "trades"},
        {"perturb": "fgsm", "adversarial": "mart", "awp": 0.005},
        {"perturb": "fgsm", "adversarial": "dual-stream", "statistics": "separate"},
        {"perturb": "fgsm", "ema": 0.9, "held_out": 6, "stop_attack": "fgsm"},
        {"precision": "bf16"},
    ],
    ids=lambda stage: "-".join(map(str, stage.values())),
)
@pytest.mark.filterwarnings("ignore::unfool.core.errors.UnfoolWarning")
def test_everything_that_training_offers_works(tmp_path, stage):
    run = train(config(stage), TABLE, tmp_path / "run", model=small())
    assert torch.isfinite(run.network(TABLE.batch().images)).all()
    assert type(run.network.module.body[1]) is nn.BatchNorm2d
    assert set(load_file(tmp_path / "run" / "model.safetensors")) == set(Small().state_dict())


def test_heads_of_other_tasks_hang_on_its_features(tmp_path):
    tasks = {**LABELS, "rotation": TaskConfig(task="rotation"), "contrast": TaskConfig(task="contrast")}
    model = adapt(small(), features="body")
    run = train(config({"tasks": tasks}), TABLE, tmp_path / "run", model=model)
    assert run.network.heads["rotation"].description["inputs"] == 4
    again = open_run(tmp_path / "run", model)
    assert torch.equal(again.network.heads["rotation"][0].weight, run.network.heads["rotation"][0].weight)
    with pytest.raises(SpecError, match="give --features"):
        train(config({"tasks": tasks}), TABLE, tmp_path / "other", model=small())


def test_a_stopped_run_goes_on_to_the_same_weights_dropout_included(tmp_path):
    stage = {"steps": 6, "perturb": "fgsm", "ema": 0.9}
    module = small()
    module.out = nn.Sequential(nn.Dropout(), module.out)
    state = torch.get_rng_state()
    whole = train(config(stage), TABLE, tmp_path / "whole", model=module)
    assert torch.equal(torch.get_rng_state(), state)

    class StoppedError(Exception):
        pass

    def stop(words, done, total, detail=""):
        if done == 4:
            raise StoppedError

    with pytest.raises(StoppedError):
        train(config(stage), TABLE, tmp_path / "cut", model=module, progress=stop, checkpoint_seconds=0.0)
    cut = train(config(stage), TABLE, tmp_path / "cut", model=module)
    for name, value in whole.network.state_dict().items():
        assert torch.equal(cut.network.state_dict()[name], value), name


def test_the_code_is_asked_for_and_another_classifier_is_refused(tmp_path):
    train(config(), TABLE, tmp_path / "run", model=small())
    with pytest.raises(WeightsError, match="classifier of another library"):
        load_network(tmp_path / "run" / "weights.safetensors")
    with pytest.raises(SpecError, match="whose code is not in its folder"):
        train(config(), TABLE, tmp_path / "new")
    other = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    with pytest.raises(WeightsError, match="another classifier"):
        open_run(tmp_path / "run", adapt(other))


def test_labels_beyond_its_outputs_are_refused(tmp_path):
    table = Table.from_tensors(TABLE.batch().images, [0, 1, 3] * 8, name="noise", split="train")
    with pytest.raises(DataError, match=r"label 3.*3 outputs"):
        train(config(), table, tmp_path / "run", model=small())
