"""Linear heads on cached features: their training against autograd and torch.optim, their judgement literally."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from tiny_runs import make_table

from unfool.core.errors import NonFiniteError, SpecError
from unfool.core.streams import Streams
from unfool.models.heads import build_head
from unfool.training.probing.features import Split
from unfool.training.probing.heads import Heads
from unfool.training.probing.settings import ProbeSettings

WIDTHS = {"first": 5, "second": 17, "last": 3}
SHORT = {"epochs": 5, "batch_size": 8, "drop_every": 2, "weight_decay": 0.05}


def make_split(count, seed):
    table = make_table(count, seed)
    draws = Streams(seed).named("features")
    labels = table.labels()
    features = {
        name: draws.named(name).normal(table.ids, (width,)) + labels[:, None] * 0.3 for name, width in WIDTHS.items()
    }
    return Split(table=table, features=features, labels=labels)


@pytest.fixture
def train():
    return make_split(43, 0)


@pytest.fixture
def test():
    return make_split(30, 1)


def literal(name, train, test, settings, seed):
    """One head trained by itself in float64, as PyTorch's users would."""
    streams = Streams(seed).named("probe")
    layer = build_head({"kind": "linear", "inputs": WIDTHS[name], "outputs": 4}, streams.named(name))[0].double()
    optimizer = torch.optim.SGD(
        layer.parameters(), settings.learning_rate, settings.momentum, weight_decay=settings.weight_decay
    )
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, settings.drop_every, 0.1)
    inputs, judged = train.features[name].double(), test.features[name].double()
    curves = [], []
    for epoch in range(settings.epochs):
        order = streams.named("order").at(epoch).bits(train.table.ids).argsort()
        right, size = 0, settings.batch_size
        batches = [order[start : start + size] for start in range(0, len(order) - size + 1, size)]
        for rows in batches:
            logits = layer(inputs[rows])
            right += int((logits.argmax(1) == train.labels[rows]).sum())
            optimizer.zero_grad()
            F.cross_entropy(logits, train.labels[rows]).backward()
            optimizer.step()
        schedule.step()
        curves[0].append(right / (len(batches) * size))
        curves[1].append(float((layer(judged).argmax(1) == test.labels).double().mean()))
    return layer, curves


@pytest.mark.parametrize("seed", [0, 3])
def test_heads_are_trained_as_by_autograd_and_torch_optim(train, test, seed):
    settings = ProbeSettings(**SHORT)
    heads = Heads(list(WIDTHS), train, 4, settings, seed)
    heads.learn(train, test)
    for place, name in enumerate(WIDTHS):
        layer, curves = literal(name, train, test, settings, seed)
        torch.testing.assert_close(heads.weights[place].double(), layer.weight.detach(), atol=2e-5, rtol=1e-4)
        torch.testing.assert_close(heads.biases[place].double(), layer.bias.detach(), atol=2e-5, rtol=1e-4)
        # Rounding may tip an image that two classes share.
        np.testing.assert_allclose([row[place] for row in heads.train_curve], curves[0], atol=1 / 40)
        np.testing.assert_allclose([row[place] for row in heads.test_curve], curves[1], atol=1 / 30)


def test_judged_are_all_images_with_their_own_loss(train, test):
    heads = Heads(list(WIDTHS), train, 4, ProbeSettings(**SHORT), 0)
    heads.learn(train, test)
    judged = heads.evaluate(test, "second")
    logits = test.features["second"].numpy() @ heads.weights[1].numpy().T + heads.biases[1].numpy()
    shifted = logits - logits.max(1, keepdims=True)
    losses = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(30), test.labels.numpy()]
    np.testing.assert_allclose(judged.losses.numpy(), losses, rtol=1e-4, atol=1e-6)
    assert judged.correct.tolist() == (logits.argmax(1) == test.labels.numpy()).tolist()
    assert judged.count == 30
    assert judged.accuracy == pytest.approx(judged.correct.sum() / 30)
    assert judged.accuracy == pytest.approx(heads.test_curve[-1][1], abs=1 / 30)
    assert judged.loss == pytest.approx(losses.mean(), rel=1e-5)


def test_a_head_does_not_depend_on_its_neighbours(train, test):
    settings = ProbeSettings(**SHORT)
    together, alone = Heads(list(WIDTHS), train, 4, settings, 0), Heads(["second"], train, 4, settings, 0)
    together.learn(train, test)
    alone.learn(train, test)
    torch.testing.assert_close(together.weights[1], alone.weights[0])
    np.testing.assert_allclose(
        [row[1] for row in together.train_curve], [row[0] for row in alone.train_curve], atol=1 / 40
    )


def test_a_set_smaller_than_a_batch_is_one_batch(train, test):
    heads = Heads(["last"], train, 4, ProbeSettings(epochs=1, batch_size=64), 0)
    heads.learn(train, test)
    (accuracy,) = heads.train_curve[0]
    assert accuracy * 43 == pytest.approx(round(accuracy * 43), abs=1e-4)


def test_progress_is_told_every_epoch(train, test):
    told = []
    Heads(["last"], train, 4, ProbeSettings(**SHORT), 7).learn(train, test, lambda *what: told.append(what))
    assert told == [("heads of seed 7", epoch, 5) for epoch in range(1, 6)]


def test_weights_that_run_away_are_an_error(train, test):
    with pytest.raises(NonFiniteError, match="lower learning_rate, or standardise"):
        Heads(["last"], train, 4, ProbeSettings(learning_rate=1e38, weight_decay=1.0), 0).learn(train, test)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seeds": ()}, "one or more different"),
        ({"seeds": (1, 1)}, "one or more different"),
        ({"seeds": (-1,)}, "one or more different"),
        ({"epochs": 0}, "epochs=0"),
        ({"learning_rate": float("nan")}, "learning_rate"),
        ({"momentum": 1.0}, "momentum"),
        ({"drop_ever": 3}, "did you mean 'drop_every'"),
        ({"precision": "fp16"}, "precision"),
    ],
)
def test_settings_that_make_no_sense_are_refused(values, words):
    with pytest.raises(SpecError, match=words) as refusal:
        ProbeSettings(**values)
    assert "\n" not in str(refusal.value)
