"""Checkpoints: an optimizer's state comes back whole, or the run is refused."""

from dataclasses import fields

import pytest
import torch
from test_resume import Stopped, same_run, stop_after
from tiny_runs import contrast, inpainting, labels, make_table, run, stage

from unfool.core.errors import WeightsError
from unfool.models.weights import load_tensors, save_tensors
from unfool.training import train
from unfool.training.running.checkpoint import RunState, read_checkpoint

BESIDE = stage({"labels": labels(), "fill": inpainting()})
"""The discriminator's optimizer comes second: its state is that of ``optimizer 1``."""


def stopped(folder, config):
    """The checkpoint of a run after two of its steps: where it is, its tensors and its metadata."""
    with pytest.raises(Stopped):
        train(config, make_table(), folder, progress=stop_after(2), checkpoint_seconds=0)
    path = folder / "checkpoint" / "state.safetensors"
    tensors, metadata = load_tensors(path)
    metadata.pop("schema_version", None)
    return path, tensors, metadata


@pytest.mark.parametrize("lost", ["optimizer 1/", "optimizer/", "optimizer/0/exp_avg", "optimizer 1/2/step"])
def test_an_optimizer_s_state_that_was_lost_is_refused_and_told(tmp_path, lost):
    path, tensors, metadata = stopped(tmp_path, run(BESIDE))
    gone = sorted(name for name in tensors if name.startswith(lost))
    assert gone
    save_tensors(path, {name: value for name, value in tensors.items() if name not in gone}, metadata)
    with pytest.raises(WeightsError, match=f"lacks {len(gone)} entries .*{gone[0]}.*delete the run folder") as refusal:
        train(run(BESIDE), make_table(), tmp_path)
    assert "\n" not in str(refusal.value)


def test_state_that_was_added_or_misshapen_is_refused(tmp_path):
    path, tensors, metadata = stopped(tmp_path, run(BESIDE))
    for tampered, words in (
        ({**tensors, "optimizer 2/0/step": torch.ones(())}, r"adds 1 entries .*optimizer 2/0/step"),
        ({**tensors, "optimizer/0/exp_avg": torch.ones(1)}, "shape"),
    ):
        save_tensors(path, tampered, metadata)
        with pytest.raises(WeightsError, match=words):
            train(run(BESIDE), make_table(), tmp_path)


@pytest.mark.parametrize("state", [None, "optimizer/0/step", [1], {}])
def test_a_file_without_the_list_of_states_is_no_checkpoint(tmp_path, state):
    path, tensors, metadata = stopped(tmp_path, run())
    save_tensors(path, tensors, {**metadata, "state": state})
    with pytest.raises(WeightsError, match="is not a checkpoint of this program"):
        train(run(), make_table(), tmp_path)


@pytest.mark.parametrize("count", [True, -1, "2", None, [2]])
def test_progress_that_is_no_count_is_refused(tmp_path, count):
    path = tmp_path / "state.safetensors"
    good = {"scalars": {}, "state": [], "progress": dict.fromkeys((item.name for item in fields(RunState)), 0)}
    save_tensors(path, {"weight": torch.zeros(1)}, good)
    assert read_checkpoint(path).run_state == RunState(**good["progress"])
    for name in good["progress"]:
        save_tensors(path, {"weight": torch.zeros(1)}, {**good, "progress": {**good["progress"], name: count}})
        with pytest.raises(WeightsError, match="is not a checkpoint of this program"):
            read_checkpoint(path)


@pytest.mark.parametrize(
    ("config", "held"),
    [
        # Of the trunk, what lies behind the stage that is read gets no gradient.
        (run(stage({"fill": inpainting(stage="block1")})), "some"),
        (run(stage(optimizer="sgd", momentum=0.0)), "none"),
        (run(BESIDE), "all"),
        # The head of a later stage is there from the first on.
        (run(BESIDE, stage({"contrast": contrast()}, trainable="heads")), "some"),
    ],
    ids=["a trunk's end without gradients", "without momentum", "a discriminator's beside it", "a later stage's head"],
)
def test_parameters_and_optimizers_without_state_are_resumed_to_the_bit(tmp_path, config, held):
    _, tensors, metadata = stopped(tmp_path / "stopped", config)
    numbers = {name.split("/")[1] for name in tensors if name.startswith("optimizer/")}
    parameters = [name for name in tensors if name.startswith("model/") and name.endswith(("weight", "bias"))]
    moving = [name for name in parameters if "discriminator" not in name]
    assert {"all": len(numbers) == len(moving), "some": 0 < len(numbers) < len(moving), "none": not numbers}[held]
    assert set(metadata["state"]) == {name for name in tensors if name.startswith("optimizer")}
    train(config, make_table(), tmp_path / "stopped")
    train(config, make_table(), tmp_path / "whole")
    same_run(tmp_path / "whole", tmp_path / "stopped")
