"""A third party's classifier, one file outside the package, goes through every command; faults are one line."""

import json
import pickle

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from unfool import open_table

CODE = """
import torch
from torch import nn

class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(8)
        self.head = nn.Linear(64, 10)

    def forward(self, images):
        return self.head(self.pool(images).mean(1).flatten(1))

class Certain(Classifier):
    def forward(self, images):
        return super().forward(images).softmax(1)

class Wrong(Classifier):
    def forward(self, images):
        return self.pool(images)

class Failing(Classifier):
    def forward(self, images):
        return self.head(images)

def build():
    return Classifier().eval()

def broken():
    raise RuntimeError("no such luck")
"""


@pytest.fixture(scope="module")
def fitted():
    """Weights by least squares on normalised pixels: one-hot targets, ridge."""
    table = open_table("digits", "train")
    pixels = (table.batch().images.double() - 0.5) / 0.25
    inputs = torch.nn.functional.adaptive_avg_pool2d(pixels, 8).mean(1).flatten(1)
    inputs = torch.cat([inputs, torch.ones(len(inputs), 1)], 1)
    targets = 10 * torch.nn.functional.one_hot(table.labels(), 10).double()
    found = torch.linalg.solve(inputs.T @ inputs + torch.eye(65), inputs.T @ targets).float()
    return {"head.weight": found[:64].T.contiguous(), "head.bias": found[64].contiguous()}


@pytest.fixture
def here(tmp_path, monkeypatch, fitted):
    """A folder with the third party's file and weights, as the working directory."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs.py").write_text(CODE)
    save_file(fitted, tmp_path / "w.safetensors", {"format": "pt"})
    torch.save({"state_dict": {f"module.{name}": tensor for name, tensor in fitted.items()}, "epoch": 3}, "w.pt")
    return tmp_path


NORMAL = ("--mean", "0.5", "--std", "0.25", "--data", "digits")
THEIRS = ("--model", "theirs.py:build", "--weights", "w.safetensors", *NORMAL)


def told(cli, *arguments, code=0):
    found = cli(*arguments)
    assert found.code == code, found.err
    assert code or found.err == ""
    return found.out


def test_evaluate_attack_and_report_take_it_as_it_is(cli, here):
    out = told(
        cli,
        *("evaluate", *THEIRS, "--images", "64", "--attacks", "fgsm", "--attacks", "apgd-ce:steps=5"),
        *("--features", "head", "--strength", "--strict", "--out", "theirs.json"),
    )
    for piece in ("theirs.py:build on digits test", "white-box", "binarization test passed", "no reason for doubt"):
        assert piece in out
    results = json.loads((here / "theirs.json").read_text())
    assert [row["attack"] for row in results["rows"]] == ["none", "fgsm", "apgd-ce", "worst-case"]
    clean, fgsm, apgd, worst = (row["accuracy"] for row in results["rows"])
    assert clean > 0.85
    assert worst <= min(fgsm, apgd) < clean
    assert results["doubts"] == []
    assert results["reliability"]["trustworthy"] is True
    assert results["strength"]["apgd-ce:steps=5"]["passed"] is True
    assert [sum(one["n"] for one in results["classes"][name]) for name in ("none", "worst-case")] == [64, 64]
    told(cli, "report", "theirs.json")
    page = (here / "theirs.html").read_text()
    assert all(piece in page for piece in ("theirs.py:build", "no doubt found", "Accuracy in % by class", "worst-case"))
    told(cli, "attack", *THEIRS, "--images", "20", "--attack", "pgd-3", "--out", "set.safetensors")
    rows = json.loads(told(cli, "evaluate", *THEIRS[:-2], "--on", "set.safetensors", "--json"))["rows"]
    assert [row["protocol"] for row in rows] == ["white-box"]


def test_what_is_not_to_be_believed_is_told_everywhere(cli, here):
    model = ("--model", "theirs.py:Certain", "--weights", "w.safetensors", *NORMAL)
    arguments = ("evaluate", *model, "--images", "30", "--attack", "pgd-2", "--out", "theirs.json")
    found = cli(*arguments, "--strict")
    assert found.code == 9
    *warned, last = found.err.splitlines()
    # It is in train mode too, which is told only where that gives other logits.
    assert [line.partition("Certain ")[2].split(";")[0] for line in warned] == ["gives probabilities"]
    assert last.startswith("unfool: not to be believed, ")
    assert " images under pgd-2 at linf:8/255, not to be believed:" in found.out
    results = json.loads((here / "theirs.json").read_text())
    assert "probabilities" in [flag["name"] for flag in results["reliability"]["flags"]]
    told(cli, "report", "theirs.json")
    page = (here / "theirs.html").read_text()
    assert page.count('<span class="badge fails">not to be believed</span>') == len(results["doubts"]) > 0
    assert cli(*arguments).code == 0
    assert "reliability" not in json.loads(cli(*arguments, "--no-reliability", "--json").out)


def test_without_its_normalisation_it_is_another_classifier(cli, here):
    told(cli, "attack", *THEIRS, "--images", "10", "--attack", "fgsm", "--out", "set.safetensors")
    bare = ("--model", "theirs.py:build", "--weights", "w.safetensors")
    (row,) = json.loads(told(cli, "evaluate", *bare, "--on", "set.safetensors", "--json"))["rows"]
    assert row["protocol"] == "transfer"


def test_convert_makes_weights_that_load_in_silence(cli, here, fitted):
    found = cli("evaluate", "--model", "theirs.py:build", "--weights", "w.pt", *NORMAL, "--images", "9", "--json")
    assert found.code == 0
    pieces = ("weights_only=True", "taken from 'state_dict'", "prefix 'module.'")
    assert all(piece in line for piece, line in zip(pieces, found.err.splitlines(), strict=True))
    assert cli("convert", "w.pt", "new.safetensors", "--model", "theirs.py:build", "--json").code == 0
    assert {name: t.tolist() for name, t in load_file("new.safetensors").items()} == {
        name: t.tolist() for name, t in fitted.items()
    }
    ours = (
        "evaluate",
        "--model",
        "theirs.py:build",
        "--weights",
        "new.safetensors",
        *NORMAL,
        "--images",
        "9",
        "--json",
    )
    rows = json.loads(told(cli, *ours))["rows"]
    assert rows[0]["accuracy"] == json.loads(found.out)["rows"][0]["accuracy"]
    assert cli("convert", "w.pt", "plain.safetensors").code == 0
    assert sorted(load_file("plain.safetensors")) == ["module.head.bias", "module.head.weight"]


def test_the_three_norms_at_once(cli, here):
    arguments = ("attack", *THEIRS, "--images", "5", "--attack", "fgsm", "--norm", "all", "--out", "set.safetensors")
    sets = json.loads(told(cli, *arguments, "--json"))["sets"]
    assert [(row["set"], row["threat"]) for row in sets] == [
        ("set-linf.safetensors", "linf:8/255"),
        ("set-l2.safetensors", "l2:0.5"),
        ("set-l1.safetensors", "l1:12"),
    ]
    assert {path.name for path in here.glob("set*")} == {row["set"] for row in sets}
    row = json.loads(told(cli, *arguments[:-4], "--norm", "l1", "--out", "one.safetensors", "--json"))
    assert (row["set"], row["threat"]) == ("one.safetensors", "l1:12")


def test_an_attack_that_was_stopped_goes_on(cli, here, monkeypatch):
    arguments = ("attack", *THEIRS, "--images", "12", "--batch-size", "5", "--attack", "pgd-2", "--out")
    told(cli, *arguments, "whole.safetensors")

    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("unfool.evaluation.save_set", stopped)
        assert cli(*arguments, "set.safetensors").code == 130
    assert len(list(here.glob("set.state/*/batch-*"))) == 3
    with monkeypatch.context() as patch:
        patch.setattr("unfool.attacks.Attack.__call__", stopped)
        told(cli, *arguments, "set.safetensors")
    assert [path.name for path in here.glob("*.state")] == []
    whole, resumed = load_file("whole.safetensors"), load_file("set.safetensors")
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


class Trap:
    def __reduce__(self):
        return (open, ("sprung", "w"))


@pytest.mark.parametrize(
    ("code", "pieces", "more"),
    [
        (2, ["no file nowhere.py"], ["--model", "nowhere.py:build"]),
        (2, ["'theirs.py'", "path/to/file.py:NAME"], ["--model", "theirs.py"]),
        (2, ["'biuld'", "did you mean 'build'?"], ["--model", "theirs.py:biuld"]),
        (2, ["theirs.py:30: RuntimeError: no such luck", "--debug"], ["--model", "theirs.py:broken"]),
        (2, ["syntax.py:1: SyntaxError"], ["--model", "syntax.py:build"]),
        (2, ["Failing", "theirs.py:24: RuntimeError"], ["--model", "theirs.py:Failing"]),
        (4, ["Wrong", "(8, 3, 8, 8)"], ["--model", "theirs.py:Wrong"]),
        (2, ["features path 'haed'", "did you mean 'head'?"], ["--model", "theirs.py:build", "--features", "haed"]),
        (2, ["need a representation", "--features"], ["--model", "theirs.py:build", "--strength", "--attack", "fgsm"]),
        (2, ["mean 'imagent'", "'imagenet'?"], ["--model", "theirs.py:build", "--mean", "imagent", "--std", "1"]),
        (2, ["together"], ["--model", "theirs.py:build", "--mean", "cifar10"]),
        (2, ["two systems", "run", "theirs.py:build"], ["run", "--model", "theirs.py:build"]),
        (2, ["--weights belongs to --model"], ["run", "--weights", "w.safetensors"]),
        (2, ["no SYSTEM"], []),
        (5, ["nowhere.safetensors"], ["--model", "theirs.py:build", "--weights", "nowhere.safetensors"]),
        (5, ["lacks 1: head.bias"], ["--model", "theirs.py:build", "--weights", "half.safetensors"]),
        (5, ["io.open"], ["--model", "theirs.py:build", "--weights", "trap.pt"]),
        (5, ["is a pickle"], ["--model", "theirs.py:build", "--weights", "trap.safetensors"]),
        (5, ["--model FILE.py:NAME"], ["w.safetensors"]),
        (2, ["claim", "exactly one"], ["--model", "theirs.py:build", "--claim", ">=0.5"]),
        (2, ["curve", "steps=1,10,100"], ["--model", "theirs.py:build", "--attack", "fgsm", "--curve", "stpes=3"]),
        (
            2,
            ["fgsm has no steps", "such as pgd"],
            ["--model", "theirs.py:build", "--attack", "fgsm", "--curve", "steps=5"],
        ),
        (2, ["severities", "6"], ["--model", "theirs.py:build", "--corruptions", "--severity", "6"]),
        (2, ["batch_size", "0"], ["--model", "theirs.py:build", "--batch-size", "0"]),
    ],
)
def test_bad_input_is_one_line(cli, here, fitted, code, pieces, more):
    (here / "syntax.py").write_text("def build(:\n")
    torch.save({"state_dict": Trap()}, "trap.pt")
    (here / "trap.safetensors").write_bytes(pickle.dumps(Trap()))
    save_file({"head.weight": fitted["head.weight"]}, "half.safetensors")
    before = sorted(here.iterdir())
    found = cli("evaluate", *more, "--data", "digits", "--images", "8")
    complaint = [line for line in found.err.splitlines() if "warning" not in line]
    assert (found.code, found.out, len(complaint)) == (code, "", 1), found.err
    assert all(piece in complaint[0] for piece in pieces), complaint
    assert sorted(here.iterdir()) == before


def test_debug_shows_where_in_their_file(cli, here):
    found = cli("evaluate", "--model", "theirs.py:broken", "--data", "digits", "--debug")
    assert found.code == 2
    assert "in broken" in found.err
    assert "Traceback" in found.err


@pytest.mark.parametrize(
    ("code", "pieces", "arguments"),
    [
        (5, ["no weights file nowhere.pt"], ["nowhere.pt", "x.safetensors"]),
        (5, ["io.open", "weights_only=True"], ["trap.pt", "x.safetensors"]),
        (2, ["x.pt", ".safetensors"], ["w.pt", "x.pt"]),
        (6, ["cannot write theirs.py/x.safetensors: theirs.py is a file"], ["w.pt", "theirs.py/x.safetensors"]),
        (5, ["lacks 2", "unexpected"], ["other.pt", "x.safetensors", "--model", "theirs.py:build"]),
    ],
)
def test_convert_refuses(cli, here, code, pieces, arguments):
    torch.save({"state_dict": Trap()}, "trap.pt")
    torch.save(torch.nn.Linear(2, 3).state_dict(), "other.pt")
    before = sorted(here.iterdir())
    found = cli("convert", *arguments)
    complaint = [line for line in found.err.splitlines() if "warning" not in line]
    assert (found.code, found.out, len(complaint)) == (code, "", 1), found.err
    assert all(piece in complaint[0] for piece in pieces), complaint
    assert sorted(here.iterdir()) == before


def test_threat_and_norm_exclude_each_other(cli, here):
    found = cli("attack", *THEIRS, "--attack", "fgsm", "--threat", "l2:1", "--norm", "l2", "--out", "x.safetensors")
    assert found.code == 2
    assert "--threat l2:1 and --norm l2" in found.complaint()


KINDS = """
import json
import numpy as np
import torch
from torch import nn

class Kind(nn.Module):
    def __init__(self, act, held=None, outputs=10):
        super().__init__()
        torch.manual_seed(0)
        self.body, self.act, self.held = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.LazyLinear(outputs)), act, held
        self.body(torch.zeros(1, 3, 32, 32))
        self.calls = 0

    def forward(self, images):
        self.calls += 1
        self.last = self.body(images)
        return self.act(self.last)

def counter(): return Kind(lambda y: y, json).eval()
def nested(): return Kind(lambda y: {"heads": [y * 0, y]}, torch.nn.functional).eval()
def one(): return Kind(lambda y: y, np, 1).eval()
def many(): return Kind(lambda y: y, outputs=1000).eval()
def scores(images): return np.asarray(images).reshape(len(images), -1)[:, :10]
def scripted():
    torch.manual_seed(0)
    return torch.jit.script(nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 10)).eval())
"""


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("name", "attack", "options", "protocol", "told"),
    [
        ("counter", "pgd-2", [], "white-box", ""),
        ("nested", "pgd-2", ["--output", "heads.1"], "white-box", "its output heads.1 is read"),
        ("one", "pgd-2", ["--column", "parity"], "white-box", "one logit as two classes"),
        ("scores", "square-5", [], "score-based", "only score-based attacks"),
        ("scripted", "fgsm", [], "white-box", ""),
    ],
)
def test_kinds_of_models_from_the_command_line(cli, here, name, attack, options, protocol, told):
    (here / "kinds.py").write_text(KINDS)
    model = ["--model", f"kinds.py:{name}", *options, "--data", "digits", "--images", "12"]
    found = cli("evaluate", *model, "--attack", attack, "--no-reliability", "--json")
    assert found.code == 0, found.err
    assert [row["protocol"] for row in json.loads(found.out)["rows"]] == ["clean", protocol]
    assert told in found.err
    crafted = cli("attack", *model, "--attack", attack, "--out", "set.safetensors", "--json")
    assert crafted.code == 0, crafted.err
    replayed = cli("evaluate", *model[:-4], "--on", "set.safetensors", "--no-reliability", "--json")
    assert [row["protocol"] for row in json.loads(replayed.out)["rows"]] == [protocol], replayed.err


def test_more_outputs_than_classes_are_told_with_what_to_do(cli, here):
    (here / "kinds.py").write_text(KINDS)
    found = cli("evaluate", "--model", "kinds.py:many", "--data", "digits", "--images", "40", "--json")
    doubts = json.loads(found.out)["doubts"]
    assert any("of the model's 1,000 outputs: map them" in doubt and "chance" in doubt for doubt in doubts), doubts
    assert not any("give more images" in doubt for doubt in doubts)


def test_statistics_in_the_other_scale_are_refused(cli, here):
    found = cli("evaluate", *THEIRS, "--mean", "127.5", "--std", "63.75")
    assert found.code == 2
    assert "divide mean and std by 255" in found.err


OWN = """
import torch
from torch import nn

class Fixed(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(3072, 10)

    def forward(self, x):
        return self.head(x.reshape(7, -1)) if len(x) == 7 else x.no_such_thing

class Multi(nn.Module):
    def __init__(self):
        super().__init__()
        self.head = nn.Linear(48, 3)

    def forward(self, x):
        return self.head(x.flatten(1) - 0.5)

def fixed():
    torch.manual_seed(0)
    return Fixed().eval()

def multi():
    torch.manual_seed(0)
    return Multi().eval()
"""


def test_a_batch_size_that_no_error_names_is_given_by_batch_size(cli, here):
    """The size is none of the usual ones, and the model's own error does not tell it."""
    (here / "own.py").write_text(OWN)
    command = ("evaluate", "--model", "own.py:fixed", "--data", "digits", "--images", "9", "--no-reliability")
    assert "no_such_thing" in cli(*command).complaint()
    done = cli(*command, "--batch-size", "7", "--attack", "fgsm", "--json")
    assert done.code == 0, done.err
    assert "batches of 7 images alone" in done.err
    assert [row["n"] for row in json.loads(done.out)["rows"]] == [9, 9]


def test_several_labels_per_image_from_a_table_of_paths(cli, here):
    (here / "own.py").write_text(OWN)
    draws = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, 4, 4, 3), dtype=torch.uint8, generator=draws)
    namespace: dict[str, object] = {}
    exec(OWN, namespace)
    with torch.no_grad():
        positive = namespace["multi"]()(pixels.permute(0, 3, 1, 2) / 255) > 0
    lines = ["path,label,split"]
    for number, (image, row) in enumerate(zip(pixels, positive.tolist(), strict=True)):
        Image.fromarray(image.numpy()).save(f"{number}.png")
        words = [word for word, present in zip(("cat", "dog", "owl"), row, strict=True) if present]
        # Every other one is written the other way round; the last one is wrong.
        words = words[::-1] if number % 2 else words
        words = ["dog"] if number == 23 and words != ["dog"] else words or ["none"]
        lines.append(f"{number}.png,{'; '.join(words)},{'train' if number < 12 else 'test'}")
    (here / "set.csv").write_text("\n".join(lines))
    (here / "names.txt").write_text("cat\ndog\nowl\n")
    model = ("--model", "own.py:multi", "--multi-label", "--classes", "names.txt")
    attack = ("--data", "set.csv", "--attack", "pgd-5", "--eps", "0.5", "--no-reliability", "--json")
    rows = json.loads(told(cli, "evaluate", *model, *attack))["rows"]
    assert rows[0]["accuracy"] == pytest.approx(11 / 12, abs=1e-6)
    assert rows[1]["accuracy"] < 0.5
    hard = ("--steps", "1", "--batch-size", "4", "--images", "4", "--attack", "fgsm", "--out", "hard")
    assert "--multi-label --classes names.txt" in told(cli, "harden", *model, "--data", "set.csv", *hard)
    run = ("evaluate", "hard", "--model", "own.py:multi", "--data", "set.csv", "--no-reliability", "--json")
    again = json.loads(told(cli, *run))["rows"][0]["accuracy"]
    assert json.loads(told(cli, *run, "--classes", "names.txt"))["rows"][0]["accuracy"] == again
    weights = ("--weights", "hard/model.safetensors", "--data", "set.csv", "--no-reliability", "--json")
    assert again == json.loads(told(cli, "evaluate", *model, *weights))["rows"][0]["accuracy"]
    complaint = cli("evaluate", *model[:-2], "--data", "set.csv").complaint()
    assert "give --classes FILE" in complaint
    assert "belongs to --model" in cli("evaluate", "hard", "--multi-label").complaint()
