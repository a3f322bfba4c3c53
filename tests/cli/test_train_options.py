"""The options of ``unfool train`` for robust training and for starting from a file reach the configuration."""

import pytest
import torch

from unfool.models.trunks import TrunkSpec
from unfool.models.weights import load_network
from unfool.training import open_run


def test_robust_training_is_configured(cli, tiny, tmp_path):
    crafted = ("--perturb", "pgd-1", "--adversarial", "trades", "--beta", "3", "--awp", "0.01")
    ended = ("--ema", "0.9", "--held-out", "640", "--stop-attack", "fgsm")
    told = cli(*tiny, *crafted, *ended, "--out", tmp_path / "run")
    assert (told.code, told.err) == (0, "")
    assert f"next: unfool evaluate {tmp_path / 'run'}" in told.out
    made = open_run(tmp_path / "run").config.stages[0]
    assert (made.adversarial, made.beta, made.awp, made.ema) == ("trades", 3.0, 0.01, 0.9)
    assert (made.held_out, made.stop_attack) == (640, "fgsm")


def test_a_head_on_a_run_s_frozen_trunk(cli, run, tmp_path):
    more = ("--trainable", "heads", "--task", "contrast:size=8", "--batch-size", "640")
    told = cli("train", "--data", "digits", "--start", run / "weights.safetensors", *more, "--out", tmp_path / "head")
    assert told.code == 0, told.err
    made = open_run(tmp_path / "head")
    theirs = load_network(run / "weights.safetensors").state_dict()
    ours = made.network.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert made.network.classifier == "labels"
    assert made.config.trunk == open_run(run).config.trunk


def test_few_labels_on_part_of_a_trunk(cli, run, tmp_path):
    start = ("train", "--data", "digits", "--start", run / "weights.safetensors")
    more = ("--fraction", "0.05", "--steps", "3", "--trainable", "from:block3", "--batch-size", "16")
    assert cli(*start, *more, "--out", tmp_path / "few").code == 0
    made = open_run(tmp_path / "few")
    assert (made.config.fraction, made.config.stages[0].steps, made.config.stages[0].epochs) == (0.05, 3, 1)
    assert made.model_images == 3 * 16
    theirs, ours = load_network(run / "weights.safetensors").state_dict(), made.network.state_dict()
    changed = {name.split(".")[2] for name in ours if not torch.equal(ours[name], theirs[name]) and "trunk" in name}
    assert changed == {"block3"}


def test_two_streams_with_statistics_of_their_own_are_configured(cli, tiny, tmp_path):
    more = (
        "--task",
        "contrast:size=8",
        "--perturb",
        "pgd-1",
        "--adversarial",
        "dual-stream",
        "--statistics",
        "separate",
    )
    told = cli(*tiny, *more, "--steps", "1", "--out", tmp_path / "run")
    assert told.code == 0, told.err
    # A network without a classifier cannot be attacked, but probed.
    assert f"next: unfool probe {tmp_path / 'run'}" in told.out
    made = open_run(tmp_path / "run").config.stages[0]
    assert (made.adversarial, made.statistics, made.steps) == ("dual-stream", "separate", 1)


def test_the_classifier_first_then_the_heads_of_the_others(cli, tiny, tmp_path):
    more = ("--task", "labels", "--task", "rotation", "--regime", "classifier-first", "--steps", "1")
    assert cli(*tiny, *more, "--out", tmp_path / "run").code == 0
    stages = open_run(tmp_path / "run").config.stages
    assert [(list(stage.tasks), stage.trainable) for stage in stages] == [(["labels"], "all"), (["rotation"], "heads")]


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--regime", "classifier-first"), "none of them without labels"),
        (("--steps", "3", "--epochs", "2"), "give one of the two"),
        (("--trainable", "from:layer9"), "allowed: block1, block2, block3, last, stem"),
        (("--trainable", "after:7"), "it has 7 layers"),
        (("--trainable", "half"), "write all, heads"),
        (("--fraction", "2"), "fraction=2"),
    ],
)
def test_what_cannot_be_trained_is_told_before_anything_is_written(cli, tiny, tmp_path, more, words):
    told = cli(*tiny, *more, "--out", tmp_path / "run")
    assert told.code == 2
    assert words in told.complaint()
    assert not (tmp_path / "run").exists()


def test_options_that_contradict_the_start_are_refused_in_one_line(cli, run, tmp_path):
    start = ("--start", run / "weights.safetensors", "--out", tmp_path / "head")
    for more, word in ((("--trunk", "resnet18"), "trunk"), (("--normalisation", "none"), "normalisation")):
        told = cli("train", "--data", "digits", *start, *more)
        assert told.code == 2
        assert word in told.complaint()
    assert not (tmp_path / "head").exists()


def test_aliases_are_stored_by_the_registered_name(cli, tiny, tmp_path):
    told = cli(
        *tiny,
        "--task",
        "labels",
        "--task",
        "simclr:size=8",
        "--lr",
        "0.05",
        "--wd",
        "0",
        "--steps",
        "1",
        "--out",
        tmp_path / "a",
    )
    assert told.code == 0, told.err
    stage = open_run(tmp_path / "a").config.stages[0]
    assert (list(stage.tasks), stage.tasks["contrast"].task) == (["labels", "contrast"], "contrast")
    assert (stage.learning_rate, stage.weight_decay) == (0.05, 0.0)


@pytest.mark.parametrize(
    "trunk", [("convnet:widths=4-8-8,stem=strided",), ("convnet:stem=strided", "--widths", "4", "8", "8")]
)
def test_a_trunk_brings_settings_of_its_own(cli, tmp_path, trunk):
    assert cli("train", "--data", "digits", "--trunk", *trunk, "--steps", "1", "--out", tmp_path / "run").code == 0
    spec = TrunkSpec(name="convnet", widths=(4, 8, 8), stem="strided")
    assert open_run(tmp_path / "run").config.trunk == spec


def test_a_setting_that_a_trunk_lacks_is_answered_by_the_nearest(cli, tmp_path):
    told = cli("train", "--data", "digits", "--trunk", "convnet:width=2", "--out", tmp_path / "run")
    assert told.code == 2
    assert "did you mean 'widths'" in told.err
