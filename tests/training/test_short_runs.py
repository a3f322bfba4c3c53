"""Runs of exactly so many steps, on a share of the labels, on several pretext tasks at once."""

import csv
import math

import pytest
import torch
from tiny_runs import make_table, run, stage

from unfool.core.errors import DataError, SpecError
from unfool.data.catalog import open_table
from unfool.data.table import Table
from unfool.training import TaskConfig, cut_held_out, train
from unfool.training.schedule import learning_rate
from unfool.training.selection.early_stopping import EarlyStopping


def log(folder):
    with open(folder / "metrics.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture
def shown(monkeypatch):
    """Ids of each batch that is read from any table, in the order of reading."""
    read = []
    own = Table.batch

    def batch(self, *args, **keywords):
        found = own(self, *args, **keywords)
        read.append(found.ids.tolist())
        return found

    monkeypatch.setattr(Table, "batch", batch)
    return read


@pytest.mark.parametrize("steps", [1, 3, 4, 11])
def test_a_stage_of_so_many_steps_cycles_through_the_images(tmp_path, shown, steps):
    config = run(stage(steps=steps, schedule="cosine"))
    train(config, make_table(48), tmp_path)
    assert len(shown) == steps
    for start in range(0, steps - 3, 4):
        epoch = [row for rows in shown[start : start + 4] for row in rows]
        assert sorted(epoch) == list(range(48))
    last = log(tmp_path)[-1]
    assert (last["step"], float(last["epoch"])) == (str(steps), steps / 4)
    assert float(last["learning_rate"]) == learning_rate(config.stages[0], steps - 1, steps, 4)


def test_whole_epochs_in_steps_are_the_same_run(tmp_path):
    one = train(run(stage(epochs=2, schedule="triangle")), make_table(), tmp_path / "epochs").network.state_dict()
    two = train(run(stage(steps=8, schedule="triangle")), make_table(), tmp_path / "steps").network.state_dict()
    assert all(torch.equal(two[name], value) for name, value in one.items())


def test_epochs_and_steps_are_one_or_the_other():
    with pytest.raises(SpecError, match="steps=3 is not allowed: epochs=2 is given too"):
        stage(epochs=2, steps=3)


@pytest.mark.parametrize("steps", [2, 6])
def test_a_stage_that_ends_within_an_epoch_is_judged_there_too(tmp_path, monkeypatch, steps):
    looks = []
    own = EarlyStopping.evaluate
    monkeypatch.setattr(EarlyStopping, "evaluate", lambda self, epoch: looks.append(epoch) or own(self, epoch))
    made = stage(steps=steps, held_out=12, stop_attack="fgsm", learning_rate=0.1)
    trained = train(run(made, fraction=1.0), make_table(60), tmp_path / "run").network
    assert looks == {2: [1], 6: [1, 2]}[steps]
    fresh = train(run(stage(steps=1, learning_rate=1e-30)), make_table(60), tmp_path / "fresh").network
    weight = "trunk.parts.block1.0.weight"
    assert not torch.equal(trained.state_dict()[weight], fresh.state_dict()[weight])


# A share of the labels


def test_a_run_sees_its_share_of_every_class_and_the_held_out_images(tmp_path, shown):
    table = make_table(400)
    config = run(stage(batch_size=16, held_out=40, stop_attack="fgsm", epochs=2), fraction=0.1, seed=3)
    learnt, held_out = cut_held_out(config, table)
    assert len(held_out) == 40
    counts, left = learnt.labels().bincount(), table.labels().bincount() - held_out.labels().bincount()
    assert counts.tolist() == (left * 0.1).round().int().tolist()
    train(config, table, tmp_path)
    assert {row for rows in shown for row in rows} == set(learnt.ids.tolist()) | set(held_out.ids.tolist())


def test_a_share_smaller_than_a_batch_trains_with_smaller_batches(tmp_path, shown):
    train(run(stage(batch_size=256), fraction=0.01), make_table(400), tmp_path)
    assert [len(rows) for rows in shown] == [4, 4]
    assert [row["images_seen"] for row in log(tmp_path)] == ["4", "8"]


def test_the_share_is_drawn_by_the_seed_and_named_in_the_configuration(tmp_path):
    table = make_table(400)
    one, two = (cut_held_out(run(fraction=0.1, seed=seed), table)[0].ids.tolist() for seed in (0, 1))
    assert one != two
    assert cut_held_out(run(fraction=0.1), table)[0].ids.tolist() == one
    assert "fraction: 0.1" in run(fraction=0.1).to_yaml()


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5, float("nan"), "ten"])
def test_shares_that_are_none_are_refused(fraction):
    with pytest.raises(SpecError, match="fraction="):
        run(fraction=fraction)


def test_a_share_of_nothing_is_refused(tmp_path):
    with pytest.raises(DataError, match="no images to train on"):
        train(run(fraction=0.5), make_table(0), tmp_path / "run")


# Several pretext tasks


def test_contrast_rotation_and_jigsaw_are_learnt_in_one_run(tmp_path):
    """Digits, which have an upright and parts that belong together."""
    tasks = {
        "contrast": TaskConfig(task="contrast", settings={"temperature": 0.2, "size": 16, "augmentation": "crop-flip"}),
        "rotation": TaskConfig(task="rotation", settings={"turns": "one", "augmentation": "none"}),
        "jigsaw": TaskConfig(task="jigsaw", settings={"count": 4}),
    }
    made = stage(tasks, steps=60, batch_size=32, optimizer="sgd", learning_rate=0.1, schedule="triangle")
    table = open_table("digits", "train", size=16)
    trained = train(run(made, data="digits", trunk={"name": "convnet", "widths": [8, 16, 16]}), table, tmp_path)
    rows = log(tmp_path)
    first, *_, before, last = [{name: float(row[f"loss/{name}"]) for name in tasks} for row in rows]
    assert set(trained.network.heads) == set(tasks)
    assert float(rows[0]["loss"]) == pytest.approx(sum(first.values()), rel=1e-5)
    # two augmented views, one turned image, one puzzle
    assert trained.model_images == 60 * 32 * 4
    chance = {"contrast": math.log(2 * 32 - 1), "rotation": math.log(4), "jigsaw": math.log(4)}
    assert all((before[name] + last[name]) / 2 < 0.85 * chance[name] for name in tasks)
