"""One file outside the package adds a task, an attack, a defense, a data set or a trunk, and all of unfool uses it."""

import json
import subprocess
import sys
from pathlib import Path

import plugged_command
import pytest
import yaml

from unfool.cli import main

FOLDER = Path(__file__).parent / "files"
FILES = sorted(FOLDER.glob("*.py"))
TRAIN = [
    *("train", "--data", "stripes", "--trunk", "patches:side=8", "--task", "labels"),
    *("--task", "quarter-turns:turns=2,weight=0.5", "--epochs", "4", "--batch-size", "64", "--learning-rate", "0.02"),
    *("--perturb", "pgd-2", "--threat", "linf:4/255", "--adversarial", "half-clean"),
]


def call(*arguments):
    """Run a command with every plugin file of this folder."""
    return plugged_command.call(FILES, *arguments)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A network of the plugged-in trunk, trained on the plugged-in data by the plugged-in task beside the labels."""
    folder = tmp_path_factory.mktemp("plugged") / "run"
    call(*TRAIN, "--out", folder)
    return folder


def evaluated(run, *arguments):
    text = call("evaluate", run, "--images", 48, "--threat", "linf:4/255", "--json", *arguments).out
    return json.loads(text)


def test_a_task_a_data_set_a_trunk_and_an_adversarial_method_train(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert config["trunk"] == {"name": "patches", "channels": 3, "side": 8, "features": 16}
    assert config["data"] == "stripes"
    assert config["stages"][0]["tasks"]["quarter-turns"]["settings"] == {"turns": 2}
    assert config["stages"][0]["adversarial"] == "half-clean"
    metrics = (run / "metrics.csv").read_text().splitlines()
    assert "loss/quarter-turns" in metrics[0]
    row = evaluated(run)["rows"][0]
    assert row["accuracy"] > 0.9


@pytest.mark.parametrize(
    ("method", "task"),
    [("half-clean", "contrast:loss=squared-distance,size=4"), ("logit-pairing", "labels:augmentation=none,as=labels")],
)
def test_a_loss_of_contrast_and_methods_of_adversarial_training_train(run, tmp_path, method, task):
    options = ("--perturb", "pgd-1", "--adversarial", method, "--steps", "3", "--batch-size", "16")
    call("train", "--data", "stripes", "--trunk", "patches:side=8", "--task", task, *options, "--out", tmp_path / "run")
    stage = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["stages"][0]
    assert stage["adversarial"] == method
    row = evaluated(tmp_path / "run")["rows"][0] if method == "logit-pairing" else None
    assert row is None or 0 <= row["accuracy"] <= 1


def test_a_method_that_is_not_loaded_is_answered_by_those_that_are(capsys, tmp_path):
    options = ("--adversarial", "half-clean", "--perturb", "pgd-1", "--out", str(tmp_path))
    assert main(["train", "--data", "digits", *options]) == 2
    assert "allowed: dual-stream, mart, one-view, plain, trades" in capsys.readouterr().err


def test_settings_of_a_plugged_in_task_are_checked_like_any_others(capsys, tmp_path):
    plugin = ("--plugin", str(FOLDER / "quarter_turns.py"), "--out", str(tmp_path / "run"))
    assert main(["train", "--data", "digits", "--task", "quarter-turns:turn=2", *plugin]) == 2
    assert "did you mean 'turns'" in capsys.readouterr().err


def test_without_its_file_it_is_unknown(run, capsys):
    assert main(["evaluate", str(run)]) != 0
    assert "unknown task 'quarter-turns'" in capsys.readouterr().err


def test_a_black_box_attack_is_tabulated_and_weighed_by_the_reliability_report(run):
    result = evaluated(run, "--attack", "random-signs-5", "--attack", "fgsm")
    rows = {row["attack"]: row for row in result["rows"]}
    assert rows["random-signs-5"]["protocol"] == "white-box"
    assert rows["random-signs-5"]["n"] == 48
    assert rows["worst-case"]["accuracy"] <= rows["random-signs-5"]["accuracy"]
    assert {"black-box-wins", "square-wins"} & {*result["reliability"]["checked"]}
    printed = call("evaluate", run, "--images", 16, "--attack", "random-signs-5", "--no-reliability").out
    assert "random-signs-5 at" in printed


def test_a_black_box_attack_shows_that_gradients_mislead(run):
    """The defense has no gradient, so fgsm does nothing to it, and a search that needs none says so."""
    result = evaluated(run, "--defense", "calmed:steps=1", "--attack", "fgsm", "--attack", "random-signs-40")
    flags = {flag["name"] for flag in result["reliability"]["flags"]}
    assert {"dynamic-inference", "vanishing-gradients"} <= flags
    assert not result["reliability"]["trustworthy"]


def test_a_defense_with_a_pretext_loss_is_evaluated_attacked_adaptively_and_audited(run, tmp_path):
    defense = ("--defense", "calmed:steps=1")
    result = evaluated(run, *defense, "--attack", "fgsm", "--no-reliability")
    assert {row["defense"] for row in result["rows"]} == {"calmed:steps=1"}
    ladder = evaluated(run, *defense, "--adaptive", "--attack", "fgsm")
    rungs = [row["attack"] for row in ladder["rows"] if row["protocol"] == "adaptive"]
    assert len(rungs) >= 3
    audit = tmp_path / "audit.json"
    call("audit", run, *defense, "--images", 16, "--threat", "linf:4/255", "--out", audit)
    means = json.loads(audit.read_text())["means"]
    assert means["purified"] < min(means["clean"], means["attacked"])


def test_an_attack_stores_a_set_that_another_system_is_evaluated_on(run, tmp_path):
    call(
        "attack", run, "--attack", "random-signs-5", "--images", 16, "--threat", "linf:4/255", "--out", tmp_path / "set"
    )
    rows = evaluated(run, "--defense", "calmed", "--on", tmp_path / "set", "--no-reliability")["rows"]
    assert "transfer" in {row["protocol"] for row in rows}


def test_a_study_of_plugged_in_networks_and_attacks_runs_in_other_processes(tmp_path, monkeypatch):
    monkeypatch.setattr("unfool.core.parallel.executor.workers_for", lambda device: 2)
    result = call("study", "hardened-stripes", "--scale", "tiny", "--out", tmp_path)
    results = json.loads((tmp_path / "results" / "hardened-stripes" / "tiny.json").read_text())
    assert {(row["model"], row["attack"]) for row in results["rows"]} == {
        (model, attack) for model in ("normal", "hardened") for attack in ("none", "random-signs-5")
    }
    assert [claim["id"] for claim in results["claims"]] == ["helps"]
    assert "Adversarial training helps against random signs" in result.out
    assert (tmp_path / "report.html").is_file()


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_a_file_is_short(path):
    assert len(path.read_text().splitlines()) <= 60


def test_the_conformance_tests_run_on_a_plugin():
    file = FOLDER / "patches.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/conformance/test_every_trunk.py"]
    done = subprocess.run(
        [*command, "--plugin", str(file), "-k", "patches"],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stdout
    assert done.stdout.count(".") >= 7
