"""The options of ``unfool train`` for robust training and for starting from a file reach the configuration."""

import torch

from unfool.models.weights import load_network
from unfool.training import open_run


def test_robust_training_is_configured(cli, tiny, tmp_path):
    crafted = ("--perturb", "pgd-1", "--adversarial", "trades", "--beta", "3", "--awp", "0.01")
    ended = ("--ema", "0.9", "--held-out", "640", "--stop-attack", "fgsm")
    told = cli(*tiny, *crafted, *ended, "--out", tmp_path / "run")
    assert (told.code, told.err) == (0, "")
    made = open_run(tmp_path / "run").config.stages[0]
    assert (made.adversarial, made.beta, made.awp, made.ema) == ("trades", 3.0, 0.01, 0.9)
    assert (made.held_out, made.stop_attack) == (640, "fgsm")


def test_a_head_on_a_run_s_frozen_trunk(cli, run, tmp_path):
    more = ("--moves", "heads", "--task", "contrast:size=8", "--batch-size", "640")
    told = cli("train", "--data", "digits", "--start", run / "weights.safetensors", *more, "--out", tmp_path / "head")
    assert told.code == 0, told.err
    made = open_run(tmp_path / "head")
    theirs = load_network(run / "weights.safetensors").state_dict()
    ours = made.network.state_dict()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
    assert made.network.classifier == "labels"
    assert made.config.trunk_spec == open_run(run).config.trunk_spec


def test_options_that_contradict_the_start_are_refused_in_one_line(cli, run, tmp_path):
    start = ("--start", run / "weights.safetensors", "--out", tmp_path / "head")
    for more, word in ((("--trunk", "resnet18"), "trunk"), (("--normalisation", "none"), "normalisation")):
        told = cli("train", "--data", "digits", *start, *more)
        assert told.code == 2
        assert word in told.complaint()
    assert not (tmp_path / "head").exists()
