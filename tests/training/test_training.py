"""Whole runs: they learn, they repeat themselves to the bit, and they stop before damage is done."""

import csv
import errno
import hashlib
import math
import os
import threading

import pytest
import torch
from tiny_runs import contrast, labels, make_table, run, stage

import unfool.models.weights as weights_module
from unfool.core.batch import Views
from unfool.core.config import configured
from unfool.core.errors import DataError, DeviceError, NonFiniteError, OutputError, SpecError, WeightsError
from unfool.models.header import read_header
from unfool.models.weights import load_network, load_tensors
from unfool.tasks import TASKS, Task
from unfool.training import TaskConfig, open_run, train
from unfool.training.metrics import Metrics


def hashes(folder):
    tensors = load_tensors(folder / "weights.safetensors")[0]
    return {name: hashlib.sha256(value.numpy().tobytes()).hexdigest() for name, value in tensors.items()}


def log(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize(
    "config",
    [
        run(stage(precision="bf16")),
        run(stage({"labels": labels(augmentation="simclr", views=2), "contrast": contrast()}, perturb="pgd-1")),
    ],
)
def test_same_seed_twice_gives_the_same_hashes(tmp_path, config):
    state = torch.random.get_rng_state()
    train(config, make_table(), tmp_path / "one")
    assert torch.equal(torch.random.get_rng_state(), state)
    torch.rand(3)
    train(config, make_table(), tmp_path / "two", checkpoint_seconds=0)
    assert hashes(tmp_path / "one") == hashes(tmp_path / "two")
    assert (tmp_path / "one" / "metrics.csv").read_bytes() == (tmp_path / "two" / "metrics.csv").read_bytes()


def test_another_seed_gives_other_weights_everywhere(tmp_path):
    train(run(), make_table(), tmp_path / "one")
    train(run(seed=1), make_table(), tmp_path / "two")
    one, two = hashes(tmp_path / "one"), hashes(tmp_path / "two")
    trained = [name for name in one if name not in ("mean", "std") and "num_batches" not in name]
    assert all(one[name] != two[name] for name in trained)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_run_learns_what_the_images_say(tmp_path, precision):
    table = make_table(96)
    config = run(
        stage(optimizer="sgd", learning_rate=0.05, epochs=12, schedule="triangle", precision=precision),
    )
    network = train(config, table, tmp_path).network
    batch = table.batch()
    with torch.no_grad():
        accuracy = float((network(batch.images).argmax(1) == batch.labels("label")).float().mean())
    assert accuracy > 0.7
    rows = log(tmp_path)
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"])
    assert rows[-1]["step"] == "96"
    assert float(rows[-1]["epoch"]) == 12.0
    assert float(rows[-1]["accuracy/labels"]) > float(rows[0]["accuracy/labels"])


def test_every_epoch_shows_every_image_once_in_another_order(tmp_path, monkeypatch):
    table = make_table(48)
    shown = []
    own = table.batch
    monkeypatch.setattr(table, "batch", lambda rows, device: shown.append(rows.tolist()) or own(rows, device))
    train(run(stage(epochs=3), stage(epochs=1)), table, tmp_path)
    epochs = [[row for rows in shown[start : start + 4] for row in rows] for start in range(0, 16, 4)]
    assert all(sorted(epoch) == list(range(48)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 4


def test_the_augmentation_of_an_image_changes_from_epoch_to_epoch(tmp_path, monkeypatch):
    views = []
    own = TASKS["labels"].views

    def watched(self, batch, streams):
        made = own(self, batch, streams)
        views.append({int(i): image.sum().item() for i, image in zip(batch.ids, made.images, strict=True)})
        return made

    monkeypatch.setattr(TASKS["labels"], "views", watched)
    train(run(stage({"labels": labels(augmentation="simclr")}, epochs=2)), make_table(12), tmp_path)
    first, second = views
    assert all(first[i] != second[i] for i in range(12))


def test_a_frozen_trunk_comes_out_of_a_second_stage_unchanged(tmp_path):
    train(run(), make_table(), tmp_path / "one")
    second = stage({"contrast": contrast()}, trainable="heads", weight_decay=0.1, learning_rate=0.1)
    train(run(stage(), second), make_table(), tmp_path / "two")
    one, two = hashes(tmp_path / "one"), hashes(tmp_path / "two")
    assert {name: two[name] for name in one} == one
    assert sorted(two.keys() - one.keys()) == [
        f"heads.contrast.{layer}.{kind}" for layer in (0, 2) for kind in ("bias", "weight")
    ]


def test_batches_are_never_larger_than_the_table(tmp_path):
    train(run(stage(batch_size=256)), make_table(10), tmp_path)
    assert [row["images_seen"] for row in log(tmp_path)] == ["10", "20"]


def test_the_network_has_the_classifier_that_was_asked_for(tmp_path):
    tasks = {"fine": labels(), "parity": labels(column="parity")}
    assert train(run(stage(tasks), classifier="parity"), make_table(), tmp_path / "a").network.classifier == "parity"
    assert train(run(stage({"contrast": contrast()})), make_table(), tmp_path / "b").network.classifier is None


# What goes wrong


@configured
class NoSettings:
    pass


class Faulty(Task):
    """Classifies until step 3; then its loss, or its gradient, is not finite."""

    Settings = NoSettings
    kind = "loss"
    seen: list

    def head_for(self, channels, classes):
        return {"kind": "linear", "inputs": channels["last"], "outputs": 4}

    def views(self, batch, streams):
        return Views(images=batch.images, targets=batch.labels("label"))

    def losses(self, outputs, views):
        weight = self.head[0].weight
        type(self).seen.append((weight, weight.detach().clone()))
        values = torch.nn.functional.cross_entropy(self.head(outputs), views.targets, reduction="none")
        if len(self.seen) < 3:
            return values
        return values / 0.0 if self.kind == "loss" else values + (0.0 * weight.sum()).abs().sqrt()


@pytest.fixture(params=["loss", "gradient"])
def faulty(request, monkeypatch):
    iter(TASKS)
    monkeypatch.setitem(TASKS._items, "faulty", Faulty)
    monkeypatch.setattr(Faulty, "kind", request.param)
    monkeypatch.setattr(Faulty, "seen", [], raising=False)
    return Faulty


def test_a_loss_or_gradient_that_is_not_finite_stops_before_the_step(tmp_path, faulty):
    config = run(stage({"faulty": TaskConfig(task="faulty")}))
    with pytest.raises(NonFiniteError, match="step 3") as error:
        train(config, make_table(), tmp_path, checkpoint_seconds=0)
    assert faulty.kind in str(error.value)
    moving, at_third_step = faulty.seen[2]
    assert torch.equal(moving.detach(), at_third_step)
    assert not torch.equal(faulty.seen[1][1], at_third_step)
    saved = load_tensors(tmp_path / "checkpoint" / "state.safetensors")[0]
    assert torch.equal(saved["model/network.heads.faulty.0.weight"], at_third_step)
    assert not (tmp_path / "weights.safetensors").exists()


def test_an_absurd_learning_rate_ends_in_an_error_and_not_in_weights(tmp_path):
    with pytest.raises((NonFiniteError, WeightsError)) as error:
        train(run(stage(optimizer="sgd", learning_rate=1e38, epochs=4)), make_table(), tmp_path)
    assert "\n" not in str(error.value)
    assert not (tmp_path / "weights.safetensors").exists()


def full_disk(monkeypatch, number):
    """From the ``number``-th file on, a disk that takes a hundred bytes and no more."""
    own, calls = weights_module.save_file, []

    def save_file(tensors, path, metadata):
        calls.append(path)
        if len(calls) < number:
            return own(tensors, path, metadata)
        path.write_bytes(b"x" * 100)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(weights_module, "save_file", save_file)


def test_a_full_disk_leaves_the_old_checkpoint_whole_and_no_litter(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        full_disk(patch, 3)
        with pytest.raises(OutputError, match="No space left"):
            train(run(), make_table(), tmp_path / "run", checkpoint_seconds=0)
    left = [path.name for path in (tmp_path / "run" / "checkpoint").iterdir()]
    assert left == ["state.safetensors"]
    assert read_header(tmp_path / "run" / "checkpoint" / left[0]).metadata["progress"]["step"] == 2
    train(run(), make_table(), tmp_path / "run")
    train(run(), make_table(), tmp_path / "whole")
    assert hashes(tmp_path / "run") == hashes(tmp_path / "whole")


def test_a_disk_that_fills_up_under_the_log_is_told_in_one_line(tmp_path):
    metrics = Metrics(tmp_path / "metrics.csv", ["step"], 0)
    metrics.path.unlink()
    metrics.path.symlink_to("/dev/full")
    with pytest.raises(OutputError, match=r"metrics\.csv: No space left"):
        metrics.add({"step": 1})
    assert metrics.lines == 0


def test_a_resumed_log_keeps_the_checkpoint_s_lines_and_no_other(tmp_path):
    path = tmp_path / "metrics.csv"
    metrics = Metrics(path, ["step", "loss", "accuracy/labels"], 0)
    for step in range(3):
        metrics.add({"step": step, "loss": step / 3})
    with open(path, "a") as file:
        file.write("3,0.9")
    again = Metrics(path, ["step", "loss", "accuracy/labels"], 2)
    again.add({"step": 2, "accuracy/labels": 0.5})
    assert path.read_text() == f"step,loss,accuracy/labels\n0,0.0,\n1,{1 / 3!r},\n2,,0.5\n"
    assert again.lines == 3
    with pytest.raises(OutputError, match="has 3 lines, the checkpoint 4"):
        Metrics(path, ["step"], 4)
    path.unlink()
    with pytest.raises(OutputError, match="cannot read"):
        Metrics(path, ["step"], 4)


def test_a_folder_that_cannot_be_written_is_told_and_left_alone(tmp_path):
    (tmp_path / "file").write_text("here first")
    with pytest.raises(OutputError, match="cannot write"):
        train(run(), make_table(), tmp_path / "file" / "run")
    assert (tmp_path / "file").read_text() == "here first"


@pytest.mark.parametrize(
    ("config", "table", "error"),
    [
        (run(stage({"labels": labels(column="fine")})), make_table(), SpecError),
        (run(stage(), stage({"labels": labels(column="parity")})), make_table(), SpecError),
        (run(data="digits"), make_table(), DataError),
        (run(), make_table().subset(torch.arange(0)), DataError),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(tmp_path, config, table, error):
    with pytest.raises(error) as refusal:
        train(config, table, tmp_path / "run")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "no such thing", "meta:x"])
def test_a_device_that_is_not_there_is_refused_before_anything_is_written(tmp_path, device):
    with pytest.raises(DeviceError, match="is not offered"):
        train(run(), make_table(), tmp_path / "run", device=device)
    assert not (tmp_path / "run").exists()


def test_a_batch_of_one_is_too_small_for_contrast_and_leaves_no_weights(tmp_path):
    from unfool.core.errors import ImagesError

    with pytest.raises(ImagesError, match="at least 2"):
        train(run(stage({"contrast": contrast()}, batch_size=1)), make_table(4), tmp_path)
    assert not (tmp_path / "weights.safetensors").exists()


def test_a_checkpoint_that_was_tampered_with_is_refused(tmp_path):
    class StopError(Exception):
        pass

    def stop(what, done, total, note):
        if done == 2:
            raise StopError

    with pytest.raises(StopError):
        train(run(), make_table(), tmp_path, progress=stop, checkpoint_seconds=0)
    path = tmp_path / "checkpoint" / "state.safetensors"
    tensors, metadata = load_tensors(path)
    metadata.pop("schema_version", None)

    def refused(tensors, metadata, words):
        weights_module.save_tensors(path, tensors, metadata)
        with pytest.raises(WeightsError, match=words):
            train(run(), make_table(), tmp_path)

    name = "model/network.heads.labels.0.weight"
    refused({key: value for key, value in tensors.items() if key != name}, metadata, "lacks")
    refused({**tensors, name: tensors[name][:1]}, metadata, "shape")
    refused({**tensors, "optimizer/999/exp_avg": torch.ones(1)}, metadata, "delete")
    refused(tensors, {**metadata, "progress": {"stage": 0}}, "not a checkpoint")
    refused(tensors, {**metadata, "progress": {**metadata["progress"], "step": "many"}}, "not a checkpoint")
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(WeightsError):
        train(run(), make_table(), tmp_path)


def test_open_run_says_what_is_missing(tmp_path):
    with pytest.raises(DataError, match="holds no run"):
        open_run(tmp_path)
    (tmp_path / "config.yaml").write_text(run().to_yaml())
    with pytest.raises(DataError, match="not finished"):
        open_run(tmp_path)


def test_open_run_gives_the_weights_that_were_saved(tmp_path):
    trained = train(run(), make_table(), tmp_path)
    state = load_network(tmp_path / "weights.safetensors").state_dict()
    assert all(torch.equal(value, state[name]) for name, value in trained.network.state_dict().items())
    metadata = read_header(tmp_path / "weights.safetensors").metadata
    assert math.isclose(metadata["cpu_seconds"], trained.cpu_seconds)


def test_a_run_gives_its_tasks_as_they_were_learnt_on_their_heads(tmp_path):
    turned = TaskConfig(task="rotation", settings={"augmentation": "none", "turns": "one"})
    trained = train(run(stage(), stage({"turned": turned}, trainable="heads", epochs=1)), make_table(12), tmp_path)
    task = trained.task("turned")
    assert task.head is trained.network.heads["turned"]
    assert (task.settings.augmentation, task.settings.turns, task.training) == ("none", "one", False)
    with pytest.raises(SpecError, match="did you mean 'turned'"):
        trained.task("turn")


def test_the_log_has_a_column_for_every_score_that_a_task_declares(tmp_path, monkeypatch):
    kind = TASKS["labels"]
    monkeypatch.setattr(kind, "scores", lambda self, outputs, views: {"margin": outputs.flatten(1).mean(1)})
    with pytest.raises(SpecError, match="gives the score 'margin' and declares accuracy; add it to score_names"):
        train(run(), make_table(12), tmp_path / "refused")
    monkeypatch.setattr(kind, "score_names", ("accuracy", "margin"))
    config = run(stage(), stage({"other": labels(), "labels": labels()}, epochs=1))
    train(config, make_table(12), tmp_path / "run")
    rows = log(tmp_path / "run")
    assert [name for name in rows[0] if "/" in name and "loss" not in name] == [
        "accuracy/labels", "margin/labels", "accuracy/other", "margin/other"
    ]  # fmt: skip
    assert (rows[0]["margin/labels"] != "", rows[0]["margin/other"], rows[0]["accuracy/labels"]) == (True, "", "")
    assert rows[-1]["margin/other"] != ""


def test_training_leaves_threads_and_environment_alone(tmp_path):
    before = dict(os.environ), torch.get_num_threads(), threading.active_count()
    train(run(), make_table(12), tmp_path)
    assert (dict(os.environ), torch.get_num_threads(), threading.active_count()) == before
