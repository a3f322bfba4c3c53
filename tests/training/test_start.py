"""Starting from a weights file: what is taken over, what stays to the bit, and which file it was."""

import pytest
import torch
import yaml
from test_resume import Stopped, same_run, stop_after
from test_training import hashes
from tiny_runs import TRUNK, contrast, labels, make_table, run, stage

from unfool.core.errors import OutputError, SpecError, WeightsError
from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import load_network, save_network
from unfool.training import RunConfig, read_config, train
from unfool.training.initial_network import initial_network

HEAD = stage({"contrast": contrast()}, trainable="heads", learning_rate=0.1, weight_decay=0.1, epochs=1)


def begun(path, *stages, **settings):
    return RunConfig(data="made-up", stages=stages or (HEAD,), start=str(path), **settings)


@pytest.fixture
def base(tmp_path):
    train(run(), make_table(), tmp_path / "base")
    return tmp_path / "base" / "weights.safetensors"


@pytest.mark.parametrize("settings", [{}, {"awp": 0.1, "ema": 0.9}, {"perturb": "pgd-1"}])
def test_a_head_is_trained_on_a_classifier_that_stays_as_it_is_to_the_bit(tmp_path, base, settings):
    head = stage({"contrast": contrast()}, trainable="heads", learning_rate=0.1, weight_decay=0.1, **settings)
    made = train(begun(base, head), make_table(), tmp_path / "head")
    before, after = hashes(base.parent), hashes(tmp_path / "head")
    assert {name: after[name] for name in before} == before
    assert len(after) == len(before) + 4
    assert made.network.classifier == "labels"


def test_the_configuration_tells_trunk_normalisation_and_identity_of_the_start(tmp_path, base):
    made = train(begun(base), make_table(), tmp_path / "head")
    written = yaml.safe_load((tmp_path / "head" / "config.yaml").read_text())
    assert written["start"] == str(base)
    assert len(written["start_identity"]) == 16
    assert written["trunk"] == TrunkSpec.from_dict(TRUNK).to_dict()
    assert written["normalisation"] == "cifar10"
    assert made.config == read_config(tmp_path / "head" / "config.yaml")
    # the file's cost and place are no part of it
    save_network(load_network(base), tmp_path / "copy.safetensors")
    again = train(begun(tmp_path / "copy.safetensors"), make_table(), tmp_path / "again")
    assert again.config.start_identity == made.config.start_identity
    assert hashes(tmp_path / "again") == hashes(tmp_path / "head")


def test_training_goes_on_from_the_weights_of_the_file(tmp_path, base):
    made = train(begun(base, stage(learning_rate=1e-12, epochs=1)), make_table(), tmp_path / "more")
    theirs = load_network(base).state_dict()
    for name, value in made.network.named_parameters():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-6)


def test_stopped_and_resumed_it_is_the_same_run(tmp_path, base):
    train(begun(base), make_table(), tmp_path / "whole")
    for _ in range(2):
        with pytest.raises(Stopped):
            train(begun(base), make_table(), tmp_path / "stopped", progress=stop_after(2), checkpoint_seconds=0)
    train(begun(base), make_table(), tmp_path / "stopped")
    same_run(tmp_path / "whole", tmp_path / "stopped")


def test_other_weights_under_the_same_path_are_another_run(tmp_path, base):
    made = train(begun(base), make_table(), tmp_path / "head")
    train(run(seed=1), make_table(), tmp_path / "other")
    base.write_bytes((tmp_path / "other" / "weights.safetensors").read_bytes())
    with pytest.raises(OutputError, match=r"another configuration.*start_identity"):
        train(begun(base), make_table(), tmp_path / "head")
    with pytest.raises(WeightsError, match="other weights"):
        train(made.config, make_table(), tmp_path / "elsewhere")
    assert not (tmp_path / "elsewhere").exists()


def test_a_run_whose_start_was_moved_is_found_and_resumed(tmp_path, base):
    train(begun(base), make_table(), tmp_path / "whole")
    with pytest.raises(Stopped):
        train(begun(base), make_table(), tmp_path / "stopped", progress=stop_after(2), checkpoint_seconds=0)
    moved = base.parent.rename(tmp_path / "moved") / base.name
    train(begun(moved), make_table(), tmp_path / "stopped")
    same_run(tmp_path / "whole", tmp_path / "stopped")
    found = train(begun(moved), make_table(), tmp_path / "whole")
    assert found.config.start == str(base)


def test_a_normalisation_without_a_name_is_taken_over(tmp_path):
    network = Network.build(TrunkSpec.from_dict(TRUNK), {"labels": {"kind": "linear", "outputs": 4}})
    network.mean.fill_(0.25)
    network.classifier = "labels"
    save_network(network, tmp_path / "own.safetensors")
    made = train(begun(tmp_path / "own.safetensors"), make_table(), tmp_path / "head")
    assert made.config.normalisation is None
    assert made.network.mean.flatten().tolist() == [0.25] * 3
    with pytest.raises(SpecError, match="a mean and deviation of its own"):
        train(begun(tmp_path / "own.safetensors", normalisation="none"), make_table(), tmp_path / "no")


def test_the_files_own_classifier_stays_where_the_run_names_none(tmp_path):
    heads = {"classes": {"kind": "linear", "outputs": 4}}
    network = Network.build(
        TrunkSpec.from_dict(TRUNK), heads, classifier="classes", normalisation="none", streams=Streams(3)
    )
    save_network(network, tmp_path / "foreign.safetensors")
    assert train(begun(tmp_path / "foreign.safetensors"), make_table(), tmp_path / "a").network.classifier == "classes"
    tuned = begun(tmp_path / "foreign.safetensors", stage({"classes": labels()}), classifier="classes")
    assert train(tuned, make_table(), tmp_path / "b").config.normalisation == "none"


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"trunk": {"name": "convnet", "widths": [4, 8, 9]}}, SpecError, "leave it out"),
        ({"normalisation": "none"}, SpecError, "cifar10; leave it out"),
        ({"stages": (stage({"labels": labels(column="parity")}),)}, SpecError, "different heads"),
        ({"start": "nowhere.safetensors"}, WeightsError, "nowhere"),
    ],
)
def test_what_does_not_fit_the_file_is_refused_before_anything_is_written(tmp_path, base, settings, error, words):
    values = {"data": "made-up", "stages": (HEAD,), "start": str(base), **settings}
    with pytest.raises(error, match=words) as refusal:
        train(RunConfig(**values), make_table(), tmp_path / "head")
    assert "\n" not in str(refusal.value)
    assert not (tmp_path / "head").exists()


def test_an_identity_without_a_start_is_refused():
    with pytest.raises(SpecError, match="set start"):
        RunConfig(data="made-up", stages=(HEAD,), start_identity="0" * 16)


def test_without_a_start_the_weights_are_drawn_from_the_run_s_streams():
    config = run()
    for seed in (1, 2):
        expected = Network.build(config.trunk, {}, normalisation="cifar10", streams=Streams(seed)).state_dict()
        drawn = initial_network(config, Streams(seed)).state_dict()
        assert drawn.keys() == expected.keys()
        assert all(torch.equal(drawn[name], expected[name]) for name in expected)
    first, second = (next(initial_network(config, Streams(seed)).parameters()) for seed in (1, 2))
    assert not torch.equal(first, second)
