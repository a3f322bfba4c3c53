"""Networks that come with the package: found by name wherever runs or weights are read, in half precision."""

import pytest
import torch

from unfool import adapt, load_network, open_run, save_network, zoo
from unfool.core.errors import SpecError, WeightsError
from unfool.models.header import read_header
from unfool.models.published import read_published
from unfool.models.weights import load_into


def test_a_name_stands_for_a_run_and_for_its_weights():
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    run = open_run("zoo:digits")
    assert run.config.data == "digits"
    assert "contrast" in run.network.heads
    with torch.no_grad():
        logits = run.network(images)
        assert torch.equal(logits, load_network("zoo:digits")(images))
        assert torch.equal(logits, zoo.load("digits")(images))


def test_a_study_starts_from_it_as_from_a_file():
    state = read_published("zoo:digits").state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in zoo.load("digits").state_dict().items())


def test_it_is_a_model_from_outside_too():
    images = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.equal(adapt("zoo:digits")(images), zoo.load("digits")(images))


def test_a_path_is_read_however_it_is_spelled(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_network(zoo.load("digits"), "w.safetensors")
    for text in ("./w.safetensors", f"{tmp_path}//w.safetensors", "./../" + tmp_path.name + "/w.safetensors"):
        assert load_network(text).trunk.spec.name == zoo.load("digits").trunk.spec.name
        load_into(zoo.load("digits"), text)
        assert read_published(text).trunk.spec.name == zoo.load("digits").trunk.spec.name


def test_an_unknown_name_is_refused_with_the_nearest():
    for read in (open_run, load_network, zoo.load):
        with pytest.raises(SpecError, match=r"'digit'.*did you mean 'digits'"):
            read("zoo:digit")


def test_weights_in_half_precision_are_the_rounded_ones(tmp_path):
    network = load_network(zoo.folder("digits") / "weights.safetensors")
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1.2345678)
    save_network(network, tmp_path / "half.safetensors", half=True)
    stored = read_header(tmp_path / "half.safetensors").tensors
    assert {dtype for name, (dtype, _) in stored.items() if name.endswith(("weight", "bias"))} == {"F16"}
    again = load_network(tmp_path / "half.safetensors").state_dict()
    for name, tensor in network.state_dict().items():
        exact = not tensor.is_floating_point() or name in ("mean", "std")
        assert torch.equal(again[name], tensor if exact else tensor.half().float()), name


def test_a_weight_too_large_for_half_precision_is_refused(tmp_path):
    network = zoo.load("digits")
    with torch.no_grad():
        next(network.parameters()).fill_(1e6)
    with pytest.raises(WeightsError, match="NaN or infinite"):
        save_network(network, tmp_path / "half.safetensors", half=True)
