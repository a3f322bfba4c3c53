"""The ``next:`` line names one command that works as it is copied, and only where there is something to do."""

import re
import shlex

import pytest
import torch

from unfool.cli.next_command import attack_options

CODE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(8)
        self.out = nn.Linear(64, 10)

    def forward(self, images):
        return self.out(self.pool(images).mean(1).flatten(1))

def build():
    return Net().eval()

def scores(images):
    return images.reshape(len(images), 3, 4, 8, 4, 8).mean((1, 3, 5))[:, :, :3].reshape(len(images), -1)[:, :10]
"""
FEW = ("--images", "40", "--no-reliability")


def learnt(cli, folder, *tasks):
    """A run whose accuracy is above chance; results at chance are not to be believed, and name no next step."""
    short = ("--epochs", "4", "--learning-rate", "0.01", "--batch-size", "64")
    trained = cli(
        "train", "--data", "digits", "--trunk", "convnet:stem=strided,widths=8-16-16", *tasks, *short, "--out", folder
    )
    assert trained.code == 0, trained.err
    return folder


def steps(out):
    return [line for line in out.splitlines() if line.startswith("next: ")]


@pytest.fixture(scope="module")
def fitted():
    """Weights by least squares on pixels that were normalised; they classify well and are easily fooled."""
    from unfool import open_table

    table = open_table("digits", "train")
    inputs = torch.nn.functional.adaptive_avg_pool2d((table.batch().images.double() - 0.5) / 0.25, 8).mean(1).flatten(1)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    targets = 10 * torch.nn.functional.one_hot(table.labels(), 10).double()
    solved = torch.linalg.solve(inputs.T @ inputs + torch.eye(65), inputs.T @ targets).float()
    return {"module.out.weight": solved[:64].T.contiguous(), "module.out.bias": solved[64].contiguous()}


@pytest.fixture
def theirs(tmp_path, monkeypatch, fitted):
    """The options of a classifier whose files lie in a folder with a space in its name."""
    folder = tmp_path / "my nets"
    folder.mkdir()
    monkeypatch.chdir(tmp_path)
    (folder / "net.py").write_text(CODE)
    torch.save({"state_dict": fitted, "other": {"epoch": 3}}, folder / "it's.pt")
    model = ("--model", "my nets/net.py:build", "--weights", "my nets/it's.pt", "--key", "state_dict")
    return (*model, "--mean", "0.5", "--std", "0.25", "--data", "digits")


def test_what_is_weak_is_hardened_by_the_line_as_it_stands(cli, theirs, tmp_path):
    done = cli("evaluate", *theirs, "--attack", "fgsm", "--threat", "linf:24/255", *FEW)
    (line,) = steps(done.out)
    assert "--weights 'my nets/it'\"'\"'s.pt' --key state_dict" in line
    assert done.out.splitlines()[-1] == line
    program, *words = shlex.split(line.removeprefix("next: "))
    assert (program, words[0], words[-4:]) == ("unfool", "harden", ["--threat", "linf:24/255", "--out", "hardened"])
    plan = ("--steps", "3", "--batch-size", "16", "--images", "20", "--attack", "fgsm")
    hardened = cli(*words, *plan)
    assert hardened.code == 0, hardened.err
    (line,) = steps(hardened.out)
    words = shlex.split(line.removeprefix("next: unfool "))
    assert words[words.index("--weights") + 1] == "hardened/model.safetensors"
    again = cli(*(word.replace("autoattack", "fgsm") for word in words), *FEW)
    assert again.code == 0, again.err
    assert "--out hardened-2" in steps(again.out)[0]


@pytest.mark.parametrize("command", ["attack", "norm all"])
def test_attack_names_it_too(cli, theirs, command):
    threat = ("--norm", "all") if command == "norm all" else ("--threat", "linf:24/255")
    done = cli("attack", *theirs, "--attack", "fgsm", *threat, "--images", "20", "--out", "set.safetensors")
    (line,) = steps(done.out)
    assert re.search(r"--threat (linf:24/255|l\w+:[\d/.]+) --out hardened$", line)


def test_nothing_is_said_of_what_stands_of_black_boxes_and_in_json(cli, theirs):
    stands = cli("evaluate", *theirs, "--attack", "fgsm", "--threat", "linf:1/255", *FEW)
    scores = ("--model", "my nets/net.py:scores", "--data", "digits", "--attack", "square-10", *FEW)
    as_json = cli("evaluate", *theirs, "--attack", "fgsm", "--threat", "linf:24/255", *FEW, "--json")
    unattacked = cli("evaluate", *scores[:4], *FEW)
    for done in (stands, cli("evaluate", *scores), as_json, unattacked):
        assert done.code == 0, done.err
        assert steps(done.out) == []


def test_without_an_attack_nothing_is_said_of_robustness_and_one_is_named(cli, theirs):
    done = cli("evaluate", *theirs, *FEW)
    assert "No attack was given, so this says nothing about robustness." in done.out.splitlines()
    (line,) = steps(done.out)
    assert line.endswith("--images 40 --threat linf:8/255 --attack autoattack")
    attacked = cli("evaluate", *theirs, "--attack", "fgsm", "--threat", "linf:24/255", *FEW)
    assert "No attack" not in attacked.out


def test_examples_of_other_systems_are_no_attack_on_this_one(cli, theirs, run):
    made = cli(
        "attack", run, "--attack", "fgsm", "--threat", "linf:1/255", "--images", "20", "--out", "set.safetensors"
    )
    assert made.code == 0, made.err
    done = cli("evaluate", *theirs, "--on", "set.safetensors", *FEW)
    assert "TRANSFER" in done.out
    assert "no attack on this one was given, so a high accuracy says nothing" in " ".join(done.out.split())
    (line,) = steps(done.out)
    assert line.endswith("--images 40 --threat linf:1/255 --attack autoattack")
    both = cli("evaluate", *theirs, "--on", "set.safetensors", "--attack", "fgsm", "--threat", "linf:1/255", *FEW)
    assert "no attack on this one" not in " ".join(both.out.split())
    assert steps(both.out) == []


def test_a_random_model_is_attacked_as_its_flag_says(cli, theirs, tmp_path):
    with open(tmp_path / "my nets/net.py", "a", encoding="utf-8") as code:
        code.write("""
class Noisy(Net):
    def forward(self, images):
        return super().forward(images + 0.2 * torch.randn_like(images))

def noisy():
    return Noisy().eval()
""")
    theirs = [word.replace(":build", ":noisy") for word in theirs]
    done = cli("evaluate", *theirs, "--attack", "fgsm", "--threat", "linf:24/255", "--images", "40")
    assert "autoattack:version=rand" in " ".join(done.out.split())
    (line,) = steps(done.out)
    assert line.endswith("--attack autoattack:version=rand")
    name = "autoattack:version=rand,draws=2,steps=5"
    averaged = cli("evaluate", *theirs, "--attack", name, "--threat", "linf:24/255", "--images", "40")
    flag = " ".join(averaged.out.split()).partition("! randomised-output: ")[2].partition("!")[0]
    assert "an attack that sees one draw is misled; evaluate it on several seeds" in flag


def test_a_run_is_hardened_by_its_folder(cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = learnt(cli, tmp_path / "run", "--task", "labels")
    weak = cli("evaluate", run, "--attack", "pgd-5", "--threat", "linf:0.2", *FEW)
    (line,) = steps(weak.out)
    plan = ("--steps", "2", "--batch-size", "16", "--images", "20", "--attack", "fgsm")
    hardened = cli(*shlex.split(line.removeprefix("next: unfool ")), *plan)
    assert hardened.code == 0, hardened.err
    assert steps(hardened.out) == ["next: unfool evaluate hardened --attack autoattack --threat linf:0.2"]
    assert cli("evaluate", "hardened", "--images", "20", "--no-reliability").code == 0


def test_a_defense_that_stands_is_attacked_as_a_whole(cli, tmp_path):
    parity = learnt(cli, tmp_path / "run", "--task", "labels:column=parity", "--task", "contrast:weight=0.1")
    defense = ("--defense", "reverse:task=contrast,steps=1")
    stands = cli("evaluate", parity, *defense, "--attack", "fgsm", "--threat", "linf:0.001", *FEW)
    ladder = f"next: unfool evaluate {parity} --images 40 --threat linf:0.001 {' '.join(defense)} --adaptive"
    assert steps(stands.out) == [ladder]
    audited = cli("audit", parity, *defense, "--threat", "linf:0.001", "--attack", "fgsm", "--images", "20")
    assert steps(audited.out) == [ladder.replace("--images 40", "--images 20")]


def test_after_hardening_the_strongest_attacks_of_the_norm_are_named():
    assert attack_options("linf:8/255") == ["--attack", "autoattack"]
    assert attack_options("l0:10") == ["--attack", "sigma-zero", "--attack", "square"]
