"""Two processes that share every batch train as one process does on the whole of it."""

import csv
import json
from pathlib import Path

import pytest
import torch
from programs import run_program
from tiny_runs import make_table
from two_processes import LONG, NORMED, REFUSED, RUNS, STILL, found, joint_stage, train_long

from unfool.core.errors import UnfoolWarning
from unfool.core.processes import joint_batch, joint_rank_and_world_size
from unfool.core.streams import Streams
from unfool.models.weights import load_tensors
from unfool.tasks.gather import gathered, own_rows
from unfool.training import open_run, train
from unfool.training.processes import warn_of_scripts


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    out = tmp_path_factory.mktemp("together")
    program = Path(__file__).with_name("two_processes.py")
    done = run_program(program, out, UNFOOL_CACHE_DIR=str(out / "cache"))
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return out


def assert_close(ours, theirs, tolerance):
    """Tensors by name, each within a share of its largest value, or of 0.05 where it began at zero."""
    assert ours.keys() == theirs.keys()
    off = {name: float((ours[name] - theirs[name]).abs().max()) for name in ours}
    allowed = {name: tolerance * max(float(value.abs().max()), 0.05) for name, value in ours.items()}
    assert not {name: (off[name], allowed[name]) for name in ours if not off[name] <= allowed[name]}


@pytest.mark.parametrize("name", [*STILL, *NORMED])
def test_losses_gradients_and_statistics_are_those_of_the_joint_batch(together, name):
    made, batch = joint_stage(name)
    losses, _ = made(batch, Streams(3))
    made.total(losses).backward()
    shares = [load_tensors(together / "losses" / f"{name} {number}.safetensors")[0] for number in range(2)]
    ours = found(made, losses)
    assert any(name.startswith("gradient/network.trunk") for name in ours)
    assert any(name.startswith("gradient/network.heads") for name in ours)
    for share in shares:
        joint = {
            key: torch.cat([share[key] for share in shares]) if key.startswith("loss/") else share[key] for key in share
        }
        assert_close(ours, joint, 1e-9)


def test_the_first_process_alone_logs_to_trackers(together):
    assert [json.loads((together / f"tracked {number}.json").read_text()) for number in range(2)] == [[1], []]


def log(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


def same_run(alone, both, tolerance):
    ours, theirs = (
        {name: value.double() for name, value in load_tensors(folder / "weights.safetensors")[0].items()}
        for folder in (alone, both)
    )
    assert_close(ours, theirs, tolerance)
    for mine, other in zip(log(alone), log(both), strict=True):
        assert {name for name, value in mine.items() if value} == {name for name, value in other.items() if value}
        assert all(float(other[name]) == pytest.approx(float(mine[name]), rel=tolerance) for name in mine if mine[name])
    assert open_run(both).model_images == open_run(alone).model_images
    assert sorted(path.name for path in both.iterdir()) == [
        ".lock",
        "config.yaml",
        "metrics.csv",
        "weights.safetensors",
    ]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_two_processes_ends_with_the_weights_and_the_log_of_one(together, tmp_path, name):
    train(RUNS[name], make_table(), tmp_path / "alone")
    same_run(tmp_path / "alone", together / "runs" / name, 3e-3 if "bf16" in name else 5e-4)


@pytest.mark.parametrize("name", LONG)
def test_after_fifty_steps_in_float64_two_processes_still_have_the_weights_of_one(together, tmp_path, name):
    train_long(name, tmp_path / "alone")
    ours, theirs = (
        load_tensors(folder / "weights.safetensors")[0] for folder in (tmp_path / "alone", together / "long" / name)
    )
    assert all(value.dtype == torch.float64 for name, value in ours.items() if name.endswith(("weight", "bias")))
    assert_close(ours, theirs, 1e-9)


def test_two_processes_resume_where_they_were_stopped(together):
    whole, resumed = together / "runs" / next(iter(RUNS)), together / "resumed"
    ours, theirs = (load_tensors(folder / "weights.safetensors")[0] for folder in (whole, resumed))
    assert all(torch.equal(theirs[name], value) for name, value in ours.items())
    assert log(whole) == log(resumed)


def test_batches_that_cannot_be_shared_equally_are_refused_by_all_before_anything_is_written(together):
    told = [json.loads((together / f"refusals {number}.json").read_text()) for number in range(2)]
    assert told[0] == told[1]
    assert told[0].keys() == REFUSED.keys()
    for complaint, size in zip(told[0].values(), (9, 5), strict=True):
        assert complaint.startswith(f"DeviceError: a batch of {size} images cannot be shared equally by 2 processes")
    assert not (together / "refused").exists()


def test_the_command_trains_together_and_prints_once(together):
    first, second = ((together / f"printed {number}.txt").read_text() for number in range(2))
    assert second == ""
    told = json.loads(first)
    assert told["run"] == str(together / "command")
    # One step of 256 digits, of which either process saw half.
    assert told["cost"]["model_images"] == open_run(together / "command").model_images == 256
    assert [row["images_seen"] for row in log(together / "command")] == ["256"]


def test_one_process_is_the_whole_of_its_batch():
    rows = torch.randn(6, 2)
    with joint_batch():
        assert joint_rank_and_world_size() == (0, 1)
        assert gathered(rows, 2) is rows
        assert own_rows(rows) is rows


def test_norms_in_torchscript_are_told_of_in_several_processes_alone():
    scripted = torch.jit.script(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4)))
    warn_of_scripts(scripted, 1)
    with pytest.warns(UnfoolWarning, match="1 batch norms of a TorchScript model"):
        warn_of_scripts(scripted, 2)
