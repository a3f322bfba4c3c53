"""Probe, reverse, gate, ladder and audit on a classifier of another library, by the submodule that --features names."""

import json

import pytest
import torch
from PIL import Image

from unfool import open_table
from unfool.cli import main
from unfool.core.streams import Streams
from unfool.models.foreign import load_classifier
from unfool.models.outside.preparation import Adaptation
from unfool.training import ProbeSettings, probe

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(nn.Conv2d(8, 12, 2, 2), nn.BatchNorm2d(12), nn.ReLU())
        self.out = nn.Linear(12, 10)

    def forward(self, x):
        return self.out(self.body(self.stem(x / 255)).mean((2, 3)))

def build():
    torch.manual_seed(0)
    return Net().eval()
"""
REVERSE = "reverse:task=rotation,steps=2"


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "net.py"
    path.write_text(CODE)
    return f"{path}:build"


@pytest.fixture(scope="module")
def run(net, tmp_path_factory):
    """The classifier with a rotation head on its frozen features."""
    folder = tmp_path_factory.mktemp("runs") / "head"
    options = ("--scale", "255", "--features", "body", "--task", "rotation", "--trainable", "heads", "--steps", "2")
    words = ["train", "--model", net, *options, "--batch-size", "32", "--data", "digits", "--out", str(folder)]
    assert main(words) == 0
    return folder


def test_stages_of_a_probe_are_submodules(cli, net):
    model = ("--model", net, "--scale", "255", "--data", "digits", "--fraction", "0.1", "--epochs", "2", "--json")
    done = cli("probe", *model, "--stages", "stem.0", "body", "logits")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["rows"]
    accuracy = {(row["settings"]["stage"], row["split"]): row["accuracy"] for row in rows}
    assert list(accuracy) == [(stage, split) for stage in ("stem.0", "body", "logits") for split in ("train", "test")]
    (named, *_) = json.loads(cli("probe", *model, "--features", "body").out)["rows"]
    assert (named["settings"]["stage"], named["accuracy"]) == ("body", accuracy["body", "train"])


def test_a_probed_stage_is_what_the_submodule_gives(net):
    classifier = load_classifier(net, adaptation=Adaptation(scale=255))
    train, test = (open_table("digits", split).sample(20, Streams(0)) for split in ("train", "test"))
    settings = ProbeSettings(epochs=1)
    result = probe(classifier, train, test, stages=["stem.0", "body"], settings=settings)
    images = test.batch().images
    with torch.no_grad():
        # The convolution's own output, not with the batch norm behind it folded in.
        features = classifier.module.stem[0](images)
        expected = result.of("stem.0").head(features.mean((2, 3)))
        torch.testing.assert_close(result.classifier("stem.0")(images), expected, rtol=1e-4, atol=1e-4)


def test_the_run_knows_how_its_classifier_was_adapted(cli, net, run):
    shared = ("--model", net, "--images", "20", "--attack", "pgd-2", "--no-reliability", "--json")
    alone = json.loads(cli("evaluate", run, *shared).out)["rows"]
    again = cli("evaluate", run, *shared, "--scale", "255", "--features", "body")
    assert [row["accuracy"] for row in json.loads(again.out)["rows"]] == [row["accuracy"] for row in alone]
    plain = json.loads(cli("evaluate", *shared, "--scale", "255", "--data", "digits").out)["rows"]
    assert [row["accuracy"] for row in plain] == [row["accuracy"] for row in alone]  # the heads alone were trained
    assert "was trained with scale 255" in cli("evaluate", run, *shared, "--scale", "2").complaint()
    assert "was trained with features body" in cli("evaluate", run, *shared, "--features", "stem").complaint()
    assert "another mean" in cli("evaluate", run, *shared, "--mean", "127", "--std", "60", "--scale", "255").complaint()


def test_reverse_gate_ladder_and_audit(cli, net, run, tmp_path):
    first = open_table("digits", "test").images[0].permute(1, 2, 0).numpy()
    Image.fromarray(first.copy()).save(tmp_path / "a.png")
    done = cli("reverse", run, tmp_path / "a.png", "--model", net, "--json")
    assert done.code == 0, done.err
    (image,) = json.loads(done.out)["images"]
    assert image["before"]["pretext_loss"] != image["after"]["pretext_loss"]
    few = ("--model", net, "--images", "4", "--attack", "pgd-2")
    for defense in (REVERSE, "gate:task=rotation,steps=1,rate=0.1"):
        done = cli("evaluate", run, *few, "--defense", defense, "--no-reliability", "--json")
        assert done.code == 0, done.err
        assert [row["defense"] for row in json.loads(done.out)["rows"]] == [defense] * 2
    done = cli("audit", run, *few, "--defense", REVERSE, "--json")
    assert json.loads(done.out)["defense"] == REVERSE
    quick = ("--steps", "2", "--draws", "2", "--queries", "2", "--restarts", "1", "--targets", "1", "--lambdas", "1")
    done = cli("evaluate", run, *few, "--defense", REVERSE, "--adaptive", *quick, "--json")
    assert done.code == 0, done.err
    rows = json.loads(done.out)["rows"]
    assert len(rows) > 3
    assert {row["protocol"] for row in rows} >= {"clean", "white-box", "adaptive"}


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (("probe", "--model", "NET", "--data", "digits"), ["--features MODULE.PATH, such as stem, body, out"]),
        (("probe", "--model", "NET", "--data", "digits", "--stages", "bdy"), ["'bdy'; did you mean 'body'?"]),
        (("probe", "--model", "NET", "--features", "body", "--random"), ["--random", "unfool's own"]),
        (("probe",), ["no SYSTEM was given", "--model"]),
        (("evaluate", "--model", "NET", "--data", "digits", "--defense", REVERSE), ["--trainable heads", "give RUN"]),
        (("reverse", "RUN", "a.png", "--features", "body"), ["--features belongs to --model"]),
    ],
)
def test_refusals_say_what_to_do(cli, net, run, arguments, pieces):
    done = cli(*({"NET": net, "RUN": run}.get(word, word) for word in arguments))
    complaint = done.complaint()
    assert all(piece in complaint for piece in pieces), complaint
