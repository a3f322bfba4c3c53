"""Early stopping: on images that nothing learns from, with the best weights kept; and the watch beside it."""

import pytest
import torch
from test_averaging import watched
from test_training import log
from tiny_runs import contrast, labels, make_table, run, stage

from unfool.attacks import make_attack
from unfool.core.errors import DataError, SpecError, UnfoolWarning
from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.models.weights import load_network, load_tensors
from unfool.tasks import TASKS
from unfool.training import train
from unfool.training.selection.early_stopping import EarlyStopping
from unfool.training.stage import Stage

SETTINGS = {"perturb": "pgd-1", "held_out": 12, "stop_attack": "pgd-2", "optimizer": "sgd", "learning_rate": 0.05}


def scripted(monkeypatch, epochs):
    """Let the held-out images (one batch of 12) stand as told: for each epoch after one step, the attack, and clean."""
    told = iter(epochs)

    def judged(self, batch, twin):
        single, robust, *clean = next(told)
        places = torch.arange(len(batch))
        return {"clean": places < (clean or [12])[0], "robust": places < robust, "single_step": places < single}, 0

    monkeypatch.setattr(EarlyStopping, "_correct", judged)


def test_no_stage_learns_from_images_that_any_stage_is_judged_on(tmp_path, monkeypatch):
    table = make_table(48)
    learnt, judged = [], []
    own = EarlyStopping._correct

    def watch(self, batch, twin):
        judged.extend(batch.ids.tolist())
        return own(self, batch, twin)

    monkeypatch.setattr(EarlyStopping, "_correct", watch)
    views = TASKS["labels"].views

    def seen(self, batch, streams):
        learnt.extend(batch.ids.tolist())
        return views(self, batch, streams)

    monkeypatch.setattr(TASKS["labels"], "views", seen)
    train(run(stage(epochs=1), stage(**SETTINGS)), table, tmp_path)
    assert len(set(judged)) == 12
    assert sorted(set(learnt)) == sorted(set(range(48)) - set(judged))
    # every class in proportion, drawn by the seed
    rest, held_out = table.cut(12, Streams(0).named("held out"))
    assert sorted(set(judged)) == sorted(held_out.ids.tolist())
    assert len(rest) == 36


@pytest.mark.parametrize(
    ("epochs", "best"),
    [
        ([(6, 3), (9, 7), (9, 7), (8, 5)], 2),
        ([(6, 3), (9, 7), (9, 7), (8, 8)], 4),
        ([(0, 0, 3), (0, 0, 8), (0, 0, 9), (0, 0, 4)], 3),
    ],
)
def test_the_run_ends_with_the_weights_that_were_best_and_not_with_the_last(tmp_path, monkeypatch, epochs, best):
    scripted(monkeypatch, epochs)
    states = watched(run(stage(**SETTINGS, epochs=4)), tmp_path, monkeypatch)
    found = load_tensors(tmp_path / "weights.safetensors")[0]
    assert len(states) == 1 + 4 * 3
    assert all(torch.equal(states[3 * best][name], value) for name, value in found.items())
    rows = [row for row in log(tmp_path) if row["held_out/robust"]]
    assert [row["step"] for row in rows] == ["3", "6", "9", "12"]
    assert [float(row["held_out/robust"]) * 12 for row in rows] == pytest.approx([robust for _, robust, *_ in epochs])
    assert [float(row["held_out/single_step"]) * 12 for row in rows] == pytest.approx([single for single, *_ in epochs])


@pytest.mark.parametrize("ema", [0.0, 0.5])
def test_what_the_log_says_of_the_best_weights_is_true_of_the_file(tmp_path, ema):
    config = run(stage(**{**SETTINGS, "perturb": "fgsm"}, epochs=4, ema=ema))
    table = make_table(60)
    network = train(config, table, tmp_path).network
    batch = table.cut(12, Streams(0).named("held out"))[1].batch()
    targets = batch.labels("label")
    right = network(batch.images).argmax(1) == targets
    draws = Streams(0).named("early stopping")
    stands = {
        name: right & ~make_attack(attack, "linf:8/255")(
            network, batch.images, targets, ids=batch.ids, streams=draws.named(name)
        ).fooled
        for name, attack in (("robust", "pgd-2"), ("single_step", "fgsm"))
    }  # fmt: skip
    rows = [row for row in log(tmp_path) if row["held_out/robust"]]
    best = max(rows, key=lambda row: (float(row["held_out/robust"]), float(row["held_out/clean"])))
    # One image more or less: the twin that searches may round otherwise than the network.
    for name, stood in {"clean": right, **stands}.items():
        assert float(best[f"held_out/{name}"]) == pytest.approx(float(stood.double().mean()), abs=1.01 / 12)
    assert max(float(row["held_out/clean"]) for row in rows) > 0.3


def test_judging_changes_nothing_but_the_end_and_its_cost_is_counted(tmp_path, monkeypatch):
    counted = []
    own = Network.features_at
    monkeypatch.setattr(
        Network, "features_at", lambda self, images, stages: counted.append(len(images)) or own(self, images, stages)
    )
    settings = {**SETTINGS, "ema": 0.8, "epochs": 2}
    result = train(run(stage(**settings)), make_table(), tmp_path / "counted")
    assert result.model_images == sum(counted) > 2 * 36 * 2
    judged = watched(run(stage(**settings)), tmp_path / "judged", monkeypatch)
    monkeypatch.setattr(EarlyStopping, "evaluate", lambda self, epoch: ({}, 0))
    last_unchecked = watched(run(stage(**settings)), tmp_path / "last_unchecked", monkeypatch)
    assert all(
        torch.equal(left[name], right[name])
        for left, right in zip(judged, last_unchecked, strict=True)
        for name in left
    )


def test_a_stage_without_perturbation_is_judged_by_the_attack_alone(tmp_path):
    train(run(stage(held_out=12, stop_attack="fgsm", epochs=1)), make_table(), tmp_path)
    row = log(tmp_path)[-1]
    assert row["held_out/clean"]
    assert row["held_out/robust"]
    assert not row["held_out/single_step"]


def test_catastrophic_overfitting_is_told_once_in_one_line(tmp_path, monkeypatch):
    scripted(monkeypatch, [(8, 7), (11, 0), (12, 0)])
    with pytest.warns(UnfoolWarning) as told:
        train(run(stage(**SETTINGS, epochs=3)), make_table(), tmp_path)
    (message,) = [str(warning.message) for warning in told]
    assert "\n" not in message
    for words in (
        "catastrophic overfitting in epoch 2",
        "11 of 12",
        "0 of those survive pgd-2",
        "kept (epoch 1, 58.3% robust)",
    ):
        assert words in message
    assert "more steps" in message


@pytest.mark.parametrize("epoch", [(12, 11), (12, 6), (12, 3), (5, 0, 8), (0, 0, 0)])
def test_what_may_be_chance_is_not_told(tmp_path, monkeypatch, epoch):
    scripted(monkeypatch, [epoch, epoch])
    train(run(stage(**SETTINGS)), make_table(), tmp_path)


def test_a_weak_network_is_not_called_overfitted(monkeypatch, tmp_path):
    """Most of what it gets right falls to a single step: nothing was learnt against it."""
    scripted(monkeypatch, [(11, 0, 24), (11, 0, 24)])
    settings = {**SETTINGS, "held_out": 24, "batch_size": 24}
    train(run(stage(**settings)), make_table(), tmp_path)


def test_a_network_that_defeats_one_step_alone_is_caught(tmp_path):
    """A real one: its decision is masked within one step's reach, so that only more steps find the way."""
    made = watched_stopping(tmp_path)
    with pytest.warns(UnfoolWarning, match="catastrophic overfitting in epoch 1"):
        figures, cost = made.evaluate(1)
    assert figures["held_out/clean"] == figures["held_out/single_step"] == 1.0
    assert figures["held_out/robust"] < 0.3
    assert cost > 3 * 40


@pytest.mark.parametrize(
    ("perturb", "own"),
    [("fgsm", True), ("pgd-1:step_size=0.1", True), ("pgd-1:step_size=0.01", False), ("pgd-2", False)],
)
def test_one_full_step_is_the_stage_s_own_or_fgsm(perturb, own):
    config = stage({"labels": labels(augmentation="none")}, perturb=perturb, held_out=12, threat="linf:0.1")
    network = Network.build(run().trunk, {"labels": {"kind": "linear", "outputs": 4}}, classifier="labels")
    made = EarlyStopping(
        Stage(config, network, {"label": 4, "parity": 2}, Streams(0)), make_table(12), Streams(0), torch.device("cpu")
    )
    assert made.attacks["single_step"] == make_attack(perturb if own else "fgsm", "linf:0.1")


def watched_stopping(tmp_path):
    config = stage({"labels": labels(augmentation="none")}, perturb="fgsm", held_out=40, threat="linf:0.1")
    network = load_network(train(run(), make_table(), tmp_path).folder / "weights.safetensors")
    table = make_table(40)
    made = EarlyStopping(
        Stage(config, network, {"label": 4, "parity": 2}, Streams(0)), table, Streams(0), torch.device("cpu")
    )
    made.search = Plain()
    made.network = Folded(table)
    return made


class Plain:
    """No fast twin: the module below is its own."""

    finish = 0.0

    def copy(self, network):
        return network


class Folded(torch.nn.Module):
    """Right at each image and a full step away from it, wrong in between: a loss that a single step jumps over."""

    def __init__(self, table):
        super().__init__()
        self.register_buffer("origins", table.batch().images)
        self.register_buffer("labels", table.labels())

    def forward(self, images):
        # Each image is known by the nearest origin; the distance decides.
        distance = (images[:, None] - self.origins[None]).abs().mean((2, 3, 4))
        nearest = distance.argmin(1)
        away = distance.gather(1, nearest[:, None]).squeeze(1) / 0.1
        # Zero at the image, highest half a step away, zero again at the whole of one.
        doubt = 6.0 * (away + 1e-3) * (1 - away)
        wrong = (self.labels[nearest] + 1) % 4
        logits = torch.nn.functional.one_hot(self.labels[nearest], 4).to(images.dtype)
        return logits + torch.nn.functional.one_hot(wrong, 4) * doubt[:, None]


@pytest.mark.parametrize(
    ("config", "error", "words"),
    [
        (run(stage(held_out=48)), DataError, "leaves none of the 48"),
        (run(stage(held_out=12), stage(held_out=10)), SpecError, "12 and 10"),
        (run(stage({"contrast": contrast()}, held_out=12)), SpecError, "train a labels task"),
        (run(stage(), stage({"contrast": contrast()}, held_out=12)), SpecError, "train a labels task"),
        (run(stage({"fine": labels(), "labels": labels()}, held_out=12), classifier="fine"), None, ""),
    ],
)
def test_stages_that_cannot_be_judged_are_refused_before_anything_is_written(tmp_path, config, error, words):
    if error is None:
        train(config, make_table(), tmp_path / "run")
        return
    with pytest.raises(error, match=words) as refusal:
        train(config, make_table(), tmp_path / "run")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "run").exists()
