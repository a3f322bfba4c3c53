"""Killed at any moment and resumed: the same weights and the same log, bit for bit."""

from pathlib import Path

import pytest
import torch
from programs import run_program
from tiny_runs import KILLED, contrast, labels, make_table, run, stage

from unfool.core.errors import OutputError
from unfool.data.table import Table
from unfool.models.weights import load_tensors
from unfool.training import open_run, train
from unfool.training.folder import check_table, table_fingerprint
from unfool.training.run import train_until


class Stopped(BaseException):
    """Stands for Ctrl-C."""


def stop_after(steps):
    def count(what, done, total, note):
        nonlocal steps
        steps -= 1
        if not steps:
            raise Stopped

    return count


def contents(folder):
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.name != ".lock")


def same_run(left, right):
    """Equal tensors, equal log, nothing left over; the costs in the metadata may differ."""
    first, second = load_tensors(left / "weights.safetensors")[0], load_tensors(right / "weights.safetensors")[0]
    assert first.keys() == second.keys()
    differing = [name for name in first if not torch.equal(first[name], second[name])]
    assert not differing
    assert (left / "metrics.csv").read_bytes() == (right / "metrics.csv").read_bytes()
    assert contents(left) == contents(right) == ["config.yaml", "metrics.csv", "weights.safetensors"]


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    out = tmp_path_factory.mktemp("killed")
    done = run_program(Path(__file__).with_name("kill_runs.py"), out)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.parametrize("name", KILLED)
def test_kill_minus_nine_after_chosen_steps_changes_no_bit(killed, name):
    same_run(killed / name / "whole", killed / name / "at steps")


@pytest.mark.parametrize("name", KILLED)
def test_kill_minus_nine_at_odd_moments_changes_no_bit(killed, name):
    same_run(killed / name / "whole", killed / name / "at moments")


@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_memory_order_of_wide_layers_survives_a_checkpoint(tmp_path, optimizer):
    config = run(stage(optimizer=optimizer, weight_decay=0.01), trunk={"name": "convnet", "widths": [24, 24, 40]})
    train(config, make_table(), tmp_path / "whole")
    for _ in range(3):
        with pytest.raises(Stopped):
            train(config, make_table(), tmp_path / "stopped", progress=stop_after(2), checkpoint_seconds=0)
    train(config, make_table(), tmp_path / "stopped")
    same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_stopped_before_its_first_checkpoint_starts_again(tmp_path):
    with pytest.raises(Stopped):
        train(run(), make_table(), tmp_path / "stopped", progress=stop_after(3))
    assert contents(tmp_path / "stopped") == ["config.yaml", "metrics.csv"]
    train(run(), make_table(), tmp_path / "stopped")
    train(run(), make_table(), tmp_path / "whole")
    same_run(tmp_path / "whole", tmp_path / "stopped")


def test_a_run_killed_after_its_weights_and_before_its_last_act_is_tidied(tmp_path):
    train(run(), make_table(), tmp_path / "run")
    (tmp_path / "run" / "checkpoint").mkdir()
    (tmp_path / "run" / "checkpoint" / "state.safetensors").write_bytes(b"left over")
    train(run(), make_table(), tmp_path / "run")
    assert contents(tmp_path / "run") == ["config.yaml", "metrics.csv", "weights.safetensors"]


def test_a_finished_run_is_only_opened(tmp_path):
    first = train(run(), make_table(), tmp_path)
    before = {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in tmp_path.iterdir() if path.is_file()}

    def never(*_):
        raise AssertionError("a finished run was trained again")

    again = train(run(), make_table(), tmp_path, progress=never)
    assert {path: (path.read_bytes(), path.stat().st_mtime_ns) for path in before} == before
    assert (again.cpu_seconds, again.model_images) == (first.cpu_seconds, first.model_images)
    assert first.cpu_seconds > 0
    assert again.config == run() == open_run(tmp_path).config
    assert not again.network.training


def test_the_cost_of_a_stopped_run_is_that_of_the_whole_one(tmp_path):
    config = KILLED["perturbed, in parallel"]
    whole = train(config, make_table(), tmp_path / "whole")
    with pytest.raises(Stopped):
        train(config, make_table(), tmp_path / "stopped", progress=stop_after(3), checkpoint_seconds=0)
    assert train(config, make_table(), tmp_path / "stopped").model_images == whole.model_images
    # stage 1: 4 steps of 12 images in 2 shared views, two PGD gradients and the training pass each; stage 2: FGSM's one
    assert whole.model_images == 4 * 24 * 3 + 4 * 12 * 2


@pytest.mark.parametrize(
    ("changed", "shown"),
    [
        (run(seed=1), ["-seed: 0", "+seed: 1"]),
        (run(stage(learning_rate=0.02)), ["learning_rate: 0.01", "learning_rate: 0.02"]),
        (run(stage({"labels": labels(), "contrast": contrast()})), ["contrast:"]),
    ],
)
@pytest.mark.parametrize("finished", [False, True])
def test_another_configuration_is_refused_with_the_difference_shown(tmp_path, changed, shown, finished):
    if finished:
        train(run(), make_table(), tmp_path)
    else:
        with pytest.raises(Stopped):
            train(run(), make_table(), tmp_path, progress=stop_after(2), checkpoint_seconds=0)
    before = contents(tmp_path)
    with pytest.raises(OutputError, match="another configuration") as refusal:
        train(changed, make_table(), tmp_path)
    assert all(words in str(refusal.value) for words in shown)
    assert "batch_size" not in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("finished", [False, True])
def test_other_images_or_labels_are_refused(tmp_path, finished):
    if finished:
        train(run(), make_table(), tmp_path)
    else:
        with pytest.raises(Stopped):
            train(run(), make_table(), tmp_path, progress=stop_after(2), checkpoint_seconds=0)
    repainted = make_table()
    images = repainted.images.clone()
    images[-1, 0, 0, 0] += 1
    repainted = Table.from_tensors(images, repainted.columns, classes=repainted.classes, name="made-up", split="train")
    for other in (make_table().subset(torch.arange(24)), make_table(seed=1), repainted):
        with pytest.raises(OutputError, match="other images or labels"):
            train(run(), other, tmp_path)
    train(run(), make_table(), tmp_path)


def test_a_run_of_an_earlier_version_that_kept_no_digest_of_the_pixels_goes_on(tmp_path):
    own = table_fingerprint(make_table())
    check_table(tmp_path, own.partition("-")[0], own)
    with pytest.raises(OutputError, match="other images or labels"):
        check_table(tmp_path, table_fingerprint(make_table(seed=1)).partition("-")[0], own)


def test_two_runs_in_one_folder_are_refused(tmp_path):
    refusals = []

    def second(what, done, total, note):
        if done == 2:
            with pytest.raises(OutputError, match="in use") as refusal:
                train(run(), make_table(), tmp_path / "run")
            refusals.append(refusal)

    train(run(), make_table(), tmp_path / "run", progress=second)
    train(run(), make_table(), tmp_path / "whole")
    assert len(refusals) == 1
    same_run(tmp_path / "whole", tmp_path / "run")


@pytest.mark.parametrize("pauses", [(3,), (4, 6), (1, 2, 7)])
def test_a_run_that_pauses_ends_with_the_weights_of_one_that_does_not(tmp_path, pauses):
    """At any step, at the end of a stage too: the same bits, and no step is trained twice."""
    table, config = make_table(60), run(stage(epochs=1, held_out=12), stage(epochs=2, held_out=12, ema=0.5))
    train(config, table, tmp_path / "whole")
    steps = []
    for until in pauses:
        for _ in range(2):  # a second call finds nothing to do
            assert not train_until(until, config, table, tmp_path / "paused", progress=lambda *seen: steps.append(seen))
            assert (tmp_path / "paused/checkpoint/state.safetensors").is_file()
            assert len(steps) == (5 if until == 4 else until)
    assert train_until(13, config, table, tmp_path / "paused", progress=lambda *seen: steps.append(seen))
    assert len(steps) == 12
    same_run(tmp_path / "whole", tmp_path / "paused")
