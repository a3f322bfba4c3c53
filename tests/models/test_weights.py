"""Weights files: bit-exact round trips, whole or absent, wrong architectures and NaN named."""

import json
import os
import resource
import subprocess
import sys

import pytest
import torch

from unfool.core.errors import OutputError, SpecError, WeightsError
from unfool.core.streams import Streams
from unfool.models.foreign import adapt
from unfool.models.foreign_network import foreign_network, load_foreign
from unfool.models.header import read_header
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import load_into, load_network, load_tensors, save_network, save_tensors

SPECS = [TrunkSpec(name="resnet18", stem="imagenet", width=0.125), TrunkSpec(name="convnet", widths=(4, 6, 8))]
HEADS = {"labels": {"kind": "linear", "outputs": 5}, "contrast": {"kind": "mlp", "hidden": 7, "outputs": 3}}


def make_network(spec=SPECS[1], seed=0, **options):
    return Network.build(spec, HEADS, classifier="labels", streams=Streams(seed), **options)


def make_images(count=4):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def same(left, right):
    return left.keys() == right.keys() and all(
        torch.equal(left[name], right[name]) and left[name].dtype == right[name].dtype for name in left
    )


@pytest.mark.parametrize("spec", SPECS)
def test_networks_come_back_bit_for_bit(tmp_path, spec):
    network = make_network(spec, normalisation="cifar100")
    network(make_images(8))
    path = tmp_path / "new" / "weights.safetensors"
    state = torch.random.get_rng_state()
    save_network(network.to(memory_format=torch.channels_last), path, {"task": "labels", "steps": [1, 2.5, None]})
    loaded = load_network(path)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert same(loaded.state_dict(), network.state_dict())
    assert loaded.architecture == network.architecture
    assert not any(part.training for part in loaded.modules())
    assert all(parameter.requires_grad and not parameter.is_meta for parameter in loaded.parameters())
    torch.testing.assert_close(loaded(make_images()), network.eval()(make_images()))
    assert read_header(path).metadata["steps"] == [1, 2.5, None]
    assert sorted(item.name for item in path.parent.iterdir()) == ["weights.safetensors"]


def test_load_into_copies_and_keeps_the_parameters_themselves(tmp_path):
    path = tmp_path / "weights.safetensors"
    source, target = make_network(seed=1), make_network(seed=2)
    save_network(source, path)
    parameters = [id(parameter) for parameter in target.parameters()]
    load_into(target, path)
    assert same(target.state_dict(), source.state_dict())
    assert [id(parameter) for parameter in target.parameters()] == parameters
    assert target.training


def test_loaded_tensors_outlive_their_file(tmp_path):
    path = tmp_path / "set.safetensors"
    save_tensors(path, {"images": torch.arange(100_000.0)})
    tensors, _ = load_tensors(path)
    os.truncate(path, 16)
    assert torch.equal(tensors["images"], torch.arange(100_000.0))


def test_any_layout_and_dtype_comes_back(tmp_path):
    base = torch.arange(24.0).view(2, 3, 4)
    tensors = {
        "transposed": base.transpose(0, 2),
        "slice": base[1],
        "again": base[1],
        "scalar": torch.tensor(3),
        "empty": torch.zeros(0, 4),
        "pixels": torch.arange(256).to(torch.uint8),
        "flags": torch.tensor([True, False]),
        **{
            str(dtype): torch.ones(2).to(dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16, torch.int32)
        },
    }
    path = tmp_path / "tensors.safetensors"
    save_tensors(path, tensors, {"seed": 3, "name": "ä\n<b>"})
    found, metadata = load_tensors(path)
    assert same(found, tensors)
    assert metadata == {"seed": 3, "name": "ä\n<b>"}


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (lambda: make_network(TrunkSpec(name="convnet", widths=(4, 6, 9))), r"trunk.widths is \[4, 6, 8\] in the file"),
        (lambda: make_network(SPECS[0]), "trunk.name is 'convnet' in the file, 'resnet18' in the network"),
        (lambda: make_network(normalisation="none"), "mean is"),
        (lambda: Network.build(SPECS[1], {"labels": HEADS["labels"]}, classifier="labels"), "heads.contrast is"),
        (lambda: Network.build(SPECS[1], HEADS, classifier=None), "classifier is 'labels' in the file, None in the"),
        (
            lambda: Network.build(SPECS[1], {**HEADS, "labels": {"kind": "linear", "outputs": 6}}, classifier="labels"),
            "heads.labels.outputs is 5 in the file, 6 in the network",
        ),
    ],
)
def test_another_architecture_is_refused_and_the_difference_named(tmp_path, other, message):
    path = tmp_path / "weights.safetensors"
    save_network(make_network(), path)
    network = other()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    with pytest.raises(WeightsError, match=message):
        load_into(network, path)
    assert same(network.state_dict(), before)


def retold(path, change):
    """Write the file again with its tensors and metadata changed by ``change``, as an ill-willed tool could."""
    tensors, metadata = load_tensors(path)
    change(tensors, metadata)
    save_tensors(path, tensors, metadata)


def drop(tensors, _):
    del tensors["heads.labels.0.bias"]


def add(tensors, _):
    tensors["extra"] = torch.zeros(1)


def reshape(tensors, _):
    tensors["heads.labels.0.bias"] = torch.zeros(6)


def recast(tensors, _):
    tensors["heads.labels.0.bias"] = tensors["heads.labels.0.bias"].double()


def renormalise(tensors, _):
    tensors["std"] = torch.full((1, 3, 1, 1), 0.5)


def widen(_, metadata):
    metadata["architecture"]["trunk"] = {"name": "resnet18", "width": 32.0}
    metadata["architecture"]["classifier"] = None


def misname(_, metadata):
    metadata["architecture"]["trunk"]["name"] = "convnt"


def deepen(_, metadata):
    metadata["architecture"]["trunk"] = json.loads("[" * 500 + "]" * 500)


def crowd(_, metadata):
    metadata["architecture"]["heads"] = {str(index): HEADS["labels"] for index in range(100_000)}


def forget(_, metadata):
    del metadata["architecture"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (drop, "lacks 1 tensors of its architecture: heads.labels.0.bias"),
        (add, "1 tensors that its architecture lacks: extra"),
        (reshape, r"'heads.labels.0.bias' is F32 \(6,\); its architecture has F32 \(5,\)"),
        (recast, "F64"),
        (renormalise, "'std' contradicts"),
        (widen, "lacks"),
        (misname, "did you mean 'convnet'"),
        (deepen, "mapping"),
        (crowd, "100000 heads"),
        (forget, "no architecture"),
    ],
)
def test_files_that_contradict_themselves_are_refused(tmp_path, change, message):
    path = tmp_path / "weights.safetensors"
    save_network(make_network(), path)
    retold(path, change)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match=message) as caught:
        load_network(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 700
    # The widened trunk would take 46 GB, and 100,000 heads several.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak < 200_000


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_nan_and_infinity_are_named_on_saving(tmp_path, value, dtype):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(b"old")
    with pytest.raises(WeightsError, match=r"'trunk\.stem'"):
        save_tensors(path, {"good": torch.zeros(2), "trunk.stem": torch.tensor([0.0, value], dtype=dtype)})
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_nan_is_named_on_loading_and_nothing_is_copied(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_network(make_network(seed=1), path)
    content = bytearray(path.read_bytes())
    bias = make_network(seed=1).state_dict()["heads.labels.0.bias"].numpy().tobytes()
    at = bytes(content).index(bias)
    content[at : at + 4] = b"\x00\x00\xc0\x7f"
    path.write_bytes(content)
    target = make_network(seed=2)
    before = {name: tensor.clone() for name, tensor in target.state_dict().items()}
    for load in (lambda: load_network(path), lambda: load_into(target, path)):
        with pytest.raises(WeightsError, match=r"'heads.labels.0.bias' holds NaN"):
            load()
    assert same(target.state_dict(), before)


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({}, {"when": object()}, "JSON cannot hold"),
        ({}, {"loss": float("nan")}, "JSON cannot hold"),
        ({}, {"schema_version": 1}, "unfool's own"),
        ({}, {"log": "x" * 9_000_000}, "too long"),
        ({"z": torch.zeros(1, dtype=torch.complex64)}, {}, "complex64; allowed"),
    ],
)
def test_what_could_not_be_read_back_is_not_written(tmp_path, tensors, metadata, message):
    with pytest.raises(WeightsError, match=message):
        save_tensors(tmp_path / "t.safetensors", tensors, metadata)
    assert list(tmp_path.iterdir()) == []


def test_reserved_metadata_and_foreign_heads_are_refused(tmp_path):
    network = make_network()
    with pytest.raises(WeightsError, match="architecture"):
        save_network(network, tmp_path / "w.safetensors", {"architecture": {}})
    network.heads["foreign"] = torch.nn.Linear(8, 2)
    with pytest.raises(SpecError, match="foreign"):
        save_network(network, tmp_path / "w.safetensors")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float16, torch.bfloat16])
def test_a_network_that_could_not_be_read_back_is_not_written(tmp_path, dtype, half):
    with pytest.raises(WeightsError, match=rf"tensor 'mean' is {dtype}.*call network.float\(\).*half=True"):
        save_network(make_network().to(dtype), tmp_path / "w.safetensors", half=half)
    network = make_network()
    network.heads["labels"].to(dtype)
    with pytest.raises(WeightsError, match=r"tensor 'heads\.labels.*float32"):
        save_network(network, tmp_path / "w.safetensors", half=half)
    assert list(tmp_path.iterdir()) == []
    save_network(network.float(), tmp_path / "w.safetensors", half=half)
    assert load_network(tmp_path / "w.safetensors").classifier == "labels"


def test_a_classifier_of_another_library_is_stored_in_its_own_precision(tmp_path):
    model = adapt(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).half())
    images = torch.rand(2, 3, 2, 2)
    save_network(foreign_network(model, images), tmp_path / "w.safetensors")
    assert torch.equal(load_foreign(model, tmp_path / "w.safetensors")(images), model(images))


def test_a_module_of_another_library_is_no_network_to_save(tmp_path):
    with pytest.raises(SpecError, match="a Flatten is no network of unfool's own; write its state dict"):
        save_network(torch.nn.Flatten(), tmp_path / "weights.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_folder_in_the_place_of_the_file_is_an_output_error(tmp_path):
    (tmp_path / "w.safetensors").mkdir()
    with pytest.raises(OutputError):
        save_tensors(tmp_path / "w.safetensors", {"a": torch.zeros(1)})
    assert [item.name for item in tmp_path.iterdir()] == ["w.safetensors"]


FULL_DISK = """
import resource, signal, sys, torch
from unfool.core.errors import OutputError
from unfool.models.weights import save_tensors
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
try:
    save_tensors(sys.argv[1], {"a": torch.zeros(1_000_000)})
except OutputError:
    sys.exit(6)
"""


def test_a_full_disk_leaves_the_old_file_whole_and_no_litter(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.ones(3)})
    before = path.read_bytes()
    done = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], capture_output=True, text=True, check=False)
    assert done.returncode == 6, done.stderr
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
