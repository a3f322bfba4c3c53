"""``unfool sweep``: from a file and values to a table, a page and the next command; and its refusals."""

import json
from pathlib import Path

import pytest

from unfool.cli.commands.sweep import SweepCommand
from unfool.cli.parsing.variations import read_variations
from unfool.core.errors import SpecError
from unfool.training import SweepResult

CONFIG = """
data: digits
trunk: "convnet:widths=4-8-8,stem=strided"
fraction: 0.05
stages:
- tasks: {labels: {task: labels, settings: {augmentation: none}}}
  epochs: 4
  batch_size: 30
  optimizer: sgd
  learning_rate: 0.1
  held_out: 40
  stop_attack: fgsm
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("sweep") / "train.yaml"
    path.write_text(CONFIG, encoding="utf-8")
    return path


def test_a_sweep_ends_with_a_table_a_page_and_the_next_command(cli, config, tmp_path):
    out = tmp_path / "swept"
    words = ["sweep", config, "--vary", "learning_rate=0.001,0.1,0.3", "--out", out, "--workers", 1]
    listed = cli(*words, "--dry-run")
    assert listed.out.splitlines()[0] == "3 runs, judged by clean"
    assert listed.out.count(" steps, ") == 3
    assert not out.exists()
    done = cli(*words, "--stop-early", 2)
    assert done.code == 0, done.err
    assert "3 runs, judged by clean, at most" in done.err
    assert done.out.count("stopped early at step") == 2
    result = SweepResult.load(out)
    assert f"{result.best.words} is the one of 3 settings that was trained to the end: " in " ".join(done.out.split())
    assert f"page: {out}/report.html\n" in done.out
    assert done.out.splitlines()[-1].startswith(
        f"next: unfool evaluate {out}/{result.best.runs[0].folder} --attack pgd-20"
    )
    assert result.command.startswith("unfool sweep ")
    page = (out / "report.html").read_text(encoding="utf-8")
    (out / "report.html").unlink()
    assert cli("report", out).out == f"page: {out}/report.html\n"
    assert (out / "report.html").read_text(encoding="utf-8") == page
    assert cli("report", out / "sweep.json", "--out", tmp_path / "p.html").out == f"page: {tmp_path}/p.html\n"
    whole = cli(*words, "--json")
    assert [run["state"] for run in json.loads(whole.out)["runs"]] == ["finished"] * 3
    again = cli(*words)
    assert again.out.splitlines()[-1].startswith(
        f"next: unfool sweep {config} --vary learning_rate=0.001,0.1,0.3 --vary seed=0"
    )
    rated = cli(*words, "--dry-run")
    assert rated.out.count("(finished)") == 3
    assert "left: about 0 model images, about 0 s of CPU at the rate of the finished runs" in rated.out


@pytest.mark.parametrize(
    ("words", "code", "pieces"),
    [
        ([], 2, ["nothing is varied", "--vary FIELD=VALUES"]),
        (["--vary", "learning_rate"], 2, ["'learning_rate'", "FIELD=VALUE"]),
        (["--vary", "learning_rate=0.1,,0.2"], 2, ["empty value"]),
        (["--vary", "learning_rate="], 2, ["empty value"]),
        (["--vary", "seed=4..0"], 2, ["counts down", "0..4"]),
        (["--vary", "seed=0..99999999999999999999"], 2, ["at most 18"]),
        (["--vary", "seed=0..9999"], 2, ["10,000 values"]),
        (["--vary", "learning_rat=0.1"], 2, ["did you mean 'learning_rate'"]),
        (["--vary", "learning_rate=fast"], 2, ["learning_rate=fast", "number"]),
        (["--vary", "augmentation=flip"], 2, ["unknown augmentation 'flip'"]),
        (["--vary", "seed=0..2", "--stop-early", "3"], 2, ["differ in their seed alone"]),
        (["--vary", "seed=0..2", "--by", "speed"], 2, ["--by", "clean, loss, robust"]),
        (["--vary", "seed=0..2", "--workers", "0"], 2, ["--workers 0"]),
        (["--vary", "seed=0..2", "--stop-early", "x"], 2, ["--stop-early"]),
        (["--vary", "seed=0..2", "--dry-run", "--gpu-share", "0.5"], 2, ["--gpu-share 0.5 is for --cluster"]),
        (["--vary", "seed=0..2", "--dry-run", "--no-ship-data"], 2, ["--no-ship-data is for --cluster"]),
        (["--vary", "held_out=100000"], 3, ["leaves none"]),
        (["--vary", "column=labl"], 2, ["labl", "label"]),
    ],
)
def test_what_is_wrong_is_said_before_anything_is_trained(cli, config, tmp_path, words, code, pieces):
    told = cli("sweep", config, *words, "--out", tmp_path / "out")
    assert told.code == code
    for piece in pieces:
        assert piece in told.complaint()
    assert not (tmp_path / "out").exists()


def test_a_sweep_of_which_every_run_diverges_ends_with_the_code_of_a_loss_that_is_not_finite(cli, config, tmp_path):
    words = ["sweep", config, "--vary", "learning_rate=1e30", "--out", tmp_path / "swept", "--workers", 1]
    done = cli(*words)
    assert done.code == 7
    assert done.err.splitlines()[-1].startswith("unfool: every run of the sweep diverged")
    assert "Every run diverged." in done.out
    assert json.loads(cli(*words, "--json").out)["runs"][0]["state"] == "diverged"


def test_a_file_that_is_missing_or_no_run_is_refused(cli, tmp_path):
    assert cli("sweep", tmp_path / "no.yaml", "--vary", "seed=1").code == 3
    (tmp_path / "empty.yaml").write_text("[]")
    assert "key: value" in cli("sweep", tmp_path / "empty.yaml", "--vary", "seed=1").complaint()


def test_a_runs_folder_stands_for_its_file(cli, tmp_path):
    (tmp_path / "config.yaml").write_text(CONFIG, encoding="utf-8")
    listed = cli("sweep", tmp_path, "--vary", "seed=0..1", "--dry-run")
    assert listed.out.startswith("2 runs of 1 setting")


@pytest.mark.parametrize(
    ("file", "folder"),
    [("train.yaml", "train-sweep"), ("runs/base/config.yaml", "base-sweep"), ("runs/base", "base-sweep"),
     ("runs/lr0.1", "lr0.1-sweep"), ("runs/lr0.1/config.yaml", "lr0.1-sweep"), ("lr0.1.yaml", "lr0.1-sweep")],
)  # fmt: skip
def test_sweeps_of_two_runs_have_folders_of_their_own(tmp_path, monkeypatch, file, folder):
    monkeypatch.chdir(tmp_path)
    for run in ("base", "lr0.1"):
        (tmp_path / "runs" / run).mkdir(parents=True)
    assert SweepCommand(config=Path(file), vary=())._folder == Path("runs") / folder


def test_values_are_read_as_they_are_written():
    assert read_variations(["seed=0..2,7", "rate= 0.1 , 1e-3", "seed=9"]) == {
        "seed": [0, 1, 2, "7", "9"],
        "rate": ["0.1", "1e-3"],
    }
    trunks = read_variations(
        ["trunk=convnet:stem=strided,widths=4-8-8;resnet18", "perturb=none;pgd-10:restarts=2,step_size=1/255"]
    )
    assert trunks["trunk"] == ["convnet:stem=strided,widths=4-8-8", "resnet18"]
    assert trunks["perturb"] == [None, "pgd-10:restarts=2,step_size=1/255"]
    assert read_variations(["trunk=convnet:stem=strided,widths=4-8-8;"]) == {
        "trunk": ["convnet:stem=strided,widths=4-8-8"]
    }
    with pytest.raises(SpecError, match="'=3' is not understood"):
        read_variations(["=3"])
