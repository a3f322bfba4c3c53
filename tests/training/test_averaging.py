"""The running average of weights against its recursion in float64."""

import torch
from test_training import hashes, log
from tiny_runs import contrast, make_table, run, stage

from unfool.models.weights import load_tensors
from unfool.training import train
from unfool.training.selection.averaging import Average, holding, snapshot
from unfool.training.selection.weight_selection import WeightSelection

DECAY = 0.7


def watched(config, folder, monkeypatch):
    """Train, and give the network's state at the start of the stage and after each step."""
    states = []
    begin, step = WeightSelection.__init__, WeightSelection.after_step

    def started(self, stage, *more):
        begin(self, stage, *more)
        states.append(snapshot(stage.network))

    def stepped(self, number):
        step(self, number)
        states.append(snapshot(self.stage.network))

    with monkeypatch.context() as patch:
        patch.setattr(WeightSelection, "__init__", started)
        patch.setattr(WeightSelection, "after_step", stepped)
        train(config, make_table(), folder)
    return states


def test_the_run_ends_with_the_recursion_over_its_weights_and_trains_as_without(tmp_path, monkeypatch):
    settings = {"perturb": "pgd-1", "optimizer": "sgd", "epochs": 3}
    plain = watched(run(stage(**settings)), tmp_path / "plain", monkeypatch)
    averaged = watched(run(stage(**settings, ema=DECAY)), tmp_path / "averaged", monkeypatch)
    assert len(plain) == len(averaged) == 1 + 12
    assert all(
        torch.equal(left[name], right[name]) for left, right in zip(plain, averaged, strict=True) for name in left
    )
    found = load_tensors(tmp_path / "averaged" / "weights.safetensors")[0]
    for name, value in plain[0].items():
        expected = value.double()
        for number, state in enumerate(plain[1:]):
            d = min(DECAY, (1 + number) / (10 + number))
            expected = d * expected + (1 - d) * state[name].double()
        if value.is_floating_point():
            torch.testing.assert_close(found[name].double(), expected, rtol=1e-5, atol=1e-6)
        else:
            assert torch.equal(found[name], plain[-1][name])
    assert not torch.equal(found["trunk.parts.stem.0.weight"], plain[-1]["trunk.parts.stem.0.weight"])
    assert log(tmp_path / "plain") == log(tmp_path / "averaged")


def test_a_frozen_trunk_is_averaged_to_itself_and_the_next_stage_goes_on_from_the_average(tmp_path, monkeypatch):
    train(run(stage()), make_table(), tmp_path / "one")
    head = stage({"contrast": contrast()}, trainable="heads", ema=0.9, learning_rate=0.1)
    train(run(stage(), head), make_table(), tmp_path / "two")
    one, two = hashes(tmp_path / "one"), hashes(tmp_path / "two")
    assert {name: two[name] for name in one} == one
    train(run(stage(ema=0.9)), make_table(), tmp_path / "first")
    states = watched(run(stage(ema=0.9), stage(epochs=1)), tmp_path / "both", monkeypatch)
    first = load_tensors(tmp_path / "first" / "weights.safetensors")[0]
    assert all(torch.equal(states[9][name], value) for name, value in first.items())


def test_what_stands_still_is_averaged_to_the_bit():
    layer = torch.nn.Linear(7, 5)
    average = Average(layer, 0.999)
    before = snapshot(layer)
    for step in range(30):
        average.update(layer, step)
    assert all(torch.equal(average.tensors[name], value) for name, value in before.items())


def test_holding_gives_the_module_back_to_the_bit():
    layer = torch.nn.Linear(3, 2)
    before, other = snapshot(layer), {name: value + 1 for name, value in snapshot(layer).items()}
    try:
        with holding(layer, other):
            assert torch.equal(layer.weight, other["weight"])
            raise KeyboardInterrupt
    except KeyboardInterrupt:
        pass
    assert all(torch.equal(layer.state_dict()[name], value) for name, value in before.items())
