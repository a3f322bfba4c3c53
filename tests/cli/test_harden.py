"""A classifier of another library is trained and hardened from the command line, and loaded by its own code."""

import json

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from unfool import open_table

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU())
        self.out = nn.Linear(512, 10)

    def forward(self, x):
        return self.out(self.body(x).flatten(1))

def build():
    torch.manual_seed(0)
    return Net().eval()
"""
PLAN = ("--batch-size", "64", "--data", "digits")


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    path = tmp_path_factory.mktemp("own") / "net.py"
    path.write_text(CODE)
    return f"{path}:build"


@pytest.fixture
def trained(net, cli, tmp_path):
    folder = tmp_path / "own"
    options = ("--epochs", "3", "--optimizer", "sgd", "--lr", "0.1", "--features", "body", "--task", "labels")
    done = cli("train", "--model", net, *PLAN, *options, "--task", "rotation:weight=0.1", "--out", folder)
    assert (done.code, done.out.splitlines()[-1]) == (
        0,
        f"next: unfool evaluate {folder} --model {net} --features body --attack pgd-20 --threat linf:8/255",
    )
    return folder


def test_a_run_of_another_classifier_is_evaluated_with_its_code(cli, net, trained):
    table = open_table("digits", "test")
    done = cli("evaluate", trained, "--model", net, "--features", "body", "--images", "397", "--json")
    (row,) = json.loads(done.out)["rows"]
    namespace: dict[str, object] = {}
    exec(CODE, namespace)
    own: nn.Module = namespace["build"]()
    own.load_state_dict(load_file(trained / "model.safetensors"))
    right = own(table.batch().images).argmax(1) == table.labels()
    assert row["accuracy"] == pytest.approx(float(right.float().mean()), abs=1e-6)
    assert row["accuracy"] > 0.5
    assert "classifier of another library" in cli("evaluate", trained).complaint()


def test_hardening_from_the_command_line(cli, net, trained, tmp_path):
    weights = trained / "model.safetensors"
    options = ("--threat", "linf:4/255", "--steps", "40", "--images", "100", "--attack", "pgd-5", "--lr", "0.05")
    command = ("harden", "--model", net, "--weights", weights, *PLAN, *options, "--out", tmp_path / "hard")
    done = cli(*command)
    assert done.code == 0, done.err
    assert f"{tmp_path / 'hard' / 'model.safetensors'}: the hardened weights" in done.out.replace("\n", "")
    assert "next: unfool evaluate --model" in done.out
    stored = json.loads(cli(*command, "--json").out)
    accuracy = {
        (which, row["attack"]): row["accuracy"] for which in ("before", "after") for row in stored[which]["rows"]
    }
    assert accuracy["after", "pgd-5"] > accuracy["before", "pgd-5"]
    assert load_file(tmp_path / "hard" / "model.safetensors").keys() == load_file(weights).keys()
    assert torch.isfinite(load_file(tmp_path / "hard" / "model.safetensors")["out.weight"]).all()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ("harden", "--data", "digits", "--out", "x"),
            "no SYSTEM was given; give a run's folder, a weights file or --model",
        ),
        (("train", "--data", "digits", "--mean", "0.5", "--out", "x"), "--mean belongs to --model"),
        (("train", "--data", "digits", "--trunk", "convnet", "--model", "NET", "--out", "x"), "--trunk and --model"),
        (("harden", "--model", "NET", "--data", "digits", "--minutes", "0", "--out", "x"), "minutes"),
        (("harden", "--model", "NET", "--out", "x"), "give --data"),
    ],
)
def test_what_does_not_go_together_is_one_line(cli, net, arguments, words, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert words in cli(*(net if word == "NET" else word for word in arguments)).complaint()
