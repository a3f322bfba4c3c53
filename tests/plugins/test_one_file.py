"""Each thing that one file adds by --plugin is trained, attacked, checked by the reliability report and tabulated."""

import json
from pathlib import Path

import pytest
import yaml
from plugged_command import call

FOLDER = Path(__file__).parent / "files"
TRAIN = {
    "--data": "digits",
    "--trunk": "convnet:stem=strided,widths=8-16-32",
    "--steps": "30",
    "--batch-size": "32",
    "--learning-rate": "0.02",
}
ATTACK = ("--attack", "fgsm")
ADDED = {
    "quarter_turns": (("--task", "labels", "--task", "quarter-turns:turns=2"), ATTACK),
    "random_signs": ((), ("--attack", "random-signs-5")),
    "calmed": ((), (*ATTACK, "--defense", "calmed:steps=1")),
    "stripes": (("--data", "stripes"), ATTACK),
    "patches": (("--trunk", "patches:side=12,features=64", "--steps", "120"), ATTACK),
    "squared_distance": (("--task", "labels", "--task", "contrast:loss=squared-distance,size=4"), ATTACK),
    "half_clean": (("--perturb", "fgsm", "--adversarial", "half-clean"), ATTACK),
}
"""By file: options that train with what it adds, and options that attack what was trained."""


@pytest.mark.parametrize("name", ADDED)
def test_what_one_file_adds_is_trained_attacked_checked_and_tabulated(name, tmp_path):
    files, (trains, attacks) = [FOLDER / f"{name}.py"], ADDED[name]
    usual = [part for option in TRAIN.items() if option[0] not in trains for part in option]
    call(files, "train", *usual, *trains, "--out", tmp_path / "run")
    log = (tmp_path / "run" / "metrics.csv").read_text().splitlines()
    stage = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["stages"][0]
    assert all(f"loss/{task}" in log[0] for task in stage["tasks"])
    words = ("--images", "64", "--threat", "linf:2/255", *attacks)
    out = tmp_path / "results.json"
    printed = call(files, "evaluate", tmp_path / "run", *words, "--out", out).out
    result = json.loads(out.read_text())
    rows = {row["attack"]: row for row in result["rows"]}
    assert set(rows) == {"none", attacks[1]}
    assert rows[attacks[1]]["n"] == 64
    assert rows[attacks[1]]["protocol"] == "white-box"
    assert {"chance", "train-mode", "short-steps"} <= {*result["reliability"]["checked"]}
    assert {"black-box-wins", "more-steps-win"} & {*result["reliability"]["checked"]}
    assert f"{attacks[1]} at linf:2/255" in " ".join(printed.split())
    if name == "calmed":
        assert {row["defense"] for row in result["rows"]} == {"calmed:steps=1"}
