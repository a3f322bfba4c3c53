"""Weights of other programs: no code in them runs, nothing is loaded by halves, and every guess is told."""

import argparse
import collections
import datetime
import os
import re
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from written_checkpoints import MEAN, NET, STATE, ZEROS, equal, network, prefixed, read, written

from unfool.core.errors import SpecError, UnfoolWarning, WeightsError
from unfool.models.checkpoints.candidates import find_states
from unfool.models.checkpoints.reader import load_state, load_weights, read_state

PICKLE = "read with weights_only=True"


@pytest.mark.parametrize("metadata", [None, {"format": "pt"}, {"schema_version": "99"}])
def test_safetensors_of_any_program(tmp_path, metadata):
    save_file(STATE, tmp_path / "a.safetensors", metadata)
    assert equal(read(tmp_path / "a.safetensors"), STATE)


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("wrap", "keys"),
    [
        (lambda state: state, None),
        (lambda state: collections.OrderedDict(state), None),
        (lambda state: {"state_dict": state, "epoch": 3, "optimizer": {"lr": 0.1}}, "state_dict"),
        (lambda state: {"model": {"state_dict": state}}, "model.state_dict"),
        (lambda state: {"net": state, "acc": 94.1}, "net"),
        (lambda state: {"model_state_dict": state}, "model_state_dict"),
    ],
)
def test_checkpoints_are_unwrapped_and_it_is_told(tmp_path, wrap, keys, zipped):
    path = written(tmp_path / "a.pt", wrap(STATE), _use_new_zipfile_serialization=zipped)
    assert equal(read(path, PICKLE, *([f"taken from {keys!r}"] if keys else [])), STATE)


def test_arrays_of_another_byte_order_are_read_by_their_values():
    state = {"weight": np.arange(3, dtype=">f4"), "count": np.array(7, dtype=">i8"), "epoch": 3}
    [found] = find_states(Path("a.pt"), state).values()
    assert {name: (tensor.tolist(), tensor.dtype) for name, tensor in found.items()} == {
        "weight": ([0.0, 1.0, 2.0], torch.float32),
        "count": (7, torch.int64),
    }


def test_parameters_are_read_as_plain_tensors(tmp_path):
    found = read(written(tmp_path / "a.pth", dict(nn.Linear(2, 3).named_parameters())), PICKLE)
    assert not any(tensor.requires_grad for tensor in found.values())


class Trap:
    def __reduce__(self):
        return (open, ("sprung", "w"))


@pytest.mark.parametrize("override", ["0", "1"])
@pytest.mark.parametrize("value", [Trap(), {"state_dict": STATE, "args": Trap()}, {"model": nn.Linear(2, 3)}])
def test_a_pickle_with_more_than_values_is_refused_and_never_run(tmp_path, monkeypatch, value, override):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", override)
    written("a.pt", value)
    tries = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *given, **more: tries.append(more) or load(*given, **more))
    with pytest.raises(WeightsError, match=r"a\.pt is refused: it needs (_?io.open|torch.nn.*Linear).*state_dict"):
        read_state("a.pt")
    assert [more["weights_only"] for more in tries] == [True]
    assert [path.name for path in tmp_path.iterdir()] == ["a.pt"]


CYCLE: dict = {}
CYCLE["state_dict"] = CYCLE


@pytest.mark.parametrize(
    ("value", "piece"),
    [
        (torch.ones(3), "holds a Tensor, not a state dict"),
        ({}, "an empty mapping"),
        ({"epoch": 3, "model": {"loss": 0.1}}, "no tensors under ['epoch', 'model']"),
        ({3: torch.ones(2)}, "under '3'"),
        (CYCLE, "no tensors under ['state_dict'], not a state dict"),
        ({"a": torch.ones(1).expand(1_000_000)}, "claims to be larger"),
        ({"a": torch.ones(2, device="meta")}, "without values"),
        ({"a": torch.eye(2).to_sparse()}, "sparse"),
        ({"a": torch.tensor([1.0, torch.nan])}, "NaN"),
    ],
)
def test_what_is_no_state_dict(tmp_path, value, piece):
    path = written(tmp_path / "a.pt", value)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfoolWarning)
        with pytest.raises(WeightsError, match=re.escape(piece)) as caught:
            read_state(path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x02", b"no checkpoint at all", b"\x80\x04\x95\x00."])
def test_malformed_checkpoints(tmp_path, content):
    (tmp_path / "a.pt").write_bytes(content)
    with pytest.raises(WeightsError, match=r"a\.pt is refused") as caught:
        read_state(tmp_path / "a.pt")
    assert "\n" not in str(caught.value)
    # PyTorch's own message advises to load the file without protection.
    assert "False" not in str(caught.value)


def test_files_that_are_not_there_or_not_what_they_are_called(tmp_path):
    with pytest.raises(WeightsError, match="no weights file"):
        read_state(tmp_path / "a.pt")
    written(tmp_path / "a.safetensors", STATE)
    with pytest.raises(WeightsError, match=r"is a pickle.*unfool convert"):
        read_state(tmp_path / "a.safetensors")


def loaded(state, module=None):
    module = nn.Linear(2, 3) if module is None else module
    return load_state(module, state, Path("w.pt")), module


def test_a_fitting_state_is_copied():
    used, module = loaded({name: tensor.half() for name, tensor in STATE.items()})
    assert equal(module.state_dict(), STATE)
    assert used.keys() == STATE.keys()


@pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.module.", "module._orig_mod.", "module.model."])
def test_a_prefix_of_all_names_is_left_out_and_told(prefix):
    with pytest.warns(UnfoolWarning, match=f"prefix '{prefix}'"):
        used, module = loaded({prefix + name: tensor for name, tensor in STATE.items()})
    assert equal(module.state_dict(), STATE)
    assert equal(used, STATE)


def test_a_prefix_that_the_module_itself_has_is_kept():
    wrapped = nn.Module()
    wrapped.module = nn.Linear(2, 3)
    used, module = loaded({f"module.{name}": tensor for name, tensor in STATE.items()}, wrapped)
    assert equal(module.module.state_dict(), STATE)
    assert list(used) == ["module.weight", "module.bias"]


@pytest.mark.parametrize(
    ("change", "pieces"),
    [
        (lambda s: s.pop("bias"), ["lacks 1: bias"]),
        (lambda s: s.update(scale=s.pop("bias")), ["lacks 1: bias", "has 1 unexpected: scale"]),
        (lambda s: s.update({f"block.{n}": torch.ones(1) for n in range(9)}), ["9 unexpected", "block.0", "6 more"]),
        (lambda s: s.update({"module.weight": s.pop("weight")}), ["lacks 1: weight", "module.weight"]),
        (lambda s: s.update(weight=torch.ones(2, 3)), ["'weight'", "(2, 3)", "(3, 2)"]),
        (
            lambda s: s.update(weight=torch.ones(9, 2), bias=torch.ones(9)),
            ["(9, 2)", "(3, 2)", "(1 more differ: bias)"],
        ),
        (lambda s: s.update(bias=torch.ones(3, dtype=torch.int64)), ["'bias'", "torch.int64", "torch.float32"]),
        (lambda s: s.clear(), ["lacks 2: weight, bias"]),
    ],
)
def test_a_state_that_does_not_fit_is_refused_whole(change, pieces):
    state, module = dict(STATE), nn.Linear(2, 3)
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    change(state)
    with pytest.raises(WeightsError) as caught:
        loaded(state, module)
    assert all(piece in str(caught.value) for piece in ["w.pt", *pieces]), caught.value
    assert equal(module.state_dict(), before)


def test_a_module_with_loading_code_of_its_own():
    class Own(nn.Linear):
        def set_extra_state(self, state):
            raise RuntimeError("never")

        def get_extra_state(self):
            return {"epoch": 3}

    with pytest.raises(WeightsError, match="cannot be loaded into the model"):
        loaded(STATE, Own(2, 3))


def averaged():
    return torch.optim.swa_utils.AveragedModel(network(3.0)).state_dict()


@pytest.mark.parametrize(
    "value",
    [
        {"state_dict": NET, "best": np.float64(0.9), "history": np.arange(3), "args": argparse.Namespace(lr=0.1)},
        averaged(),
        {"model_ema": averaged()},
        {"ema_state_dict": NET},
        {"params": NET, "when": datetime.datetime(2026, 1, 1)},
        [NET, 3],
        [{"state_dict": NET}],
        {"epoch": 3, **NET},
        {"state_dict": NET, "optimizer": {"state": {0: {"exp_avg": torch.ones(4, 3, 3, 3)}}}},
        {"state_dict": NET, "model": NET},
        {"state_dict": prefixed("encoder.")},
        {"state_dict": prefixed("module.backbone.body.")},
        {"model": prefixed("module.model.") | prefixed("module.attacker.model.") | {"module.normalizer.mean": MEAN}},
        {name: tensor for name, tensor in NET.items() if "num_batches" not in name},
        {name: tensor.numpy() for name, tensor in NET.items()},
        {**prefixed("model."), "model_ema": 0.99},
        {**NET, "total_ops": torch.zeros(1), "0.total_params": torch.zeros(1)},
        {"checkpoint": {"model": {"state_dict": NET}}},
        {"state_dict": NET, "names": np.array(["cat", "dog"]), "since": np.array(["2026-01-01"], "datetime64[D]")},
        {**NET, "1.num_batches_tracked": torch.tensor(0.0)},
        {"state_dict": prefixed("_orig_mod.module."), "rng": np.random.RandomState(0).get_state()},
        {"a.b": prefixed("attacker.")},
    ],
    ids=range(22),
)
def test_checkpoints_as_people_have_them(tmp_path, value):
    path, module = written(tmp_path / "a.pt", value), network()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfoolWarning)
        load_weights(module, path)
    assert all(torch.allclose(module.state_dict()[name], tensor, atol=1e-2) for name, tensor in NET.items())


@pytest.mark.parametrize("wrap", [lambda n: nn.Sequential(nn.Identity(), n), lambda n: nn.DataParallel(n)])
@pytest.mark.parametrize("prefix", ["", "module.", "encoder."])
def test_a_wrapped_model_takes_the_weights_of_what_it_wraps(tmp_path, wrap, prefix):
    path, module = written(tmp_path / "a.pt", prefixed(prefix)), wrap(network())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfoolWarning)
        load_weights(module, path)
    assert equal(dict(zip(NET, module.state_dict().values(), strict=True)), NET)


def test_buffers_of_a_wrapper_stay_and_are_told(tmp_path):
    class Normalized(nn.Module):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.full((3,), 0.5))
            self.net = network()

    module = Normalized()
    with pytest.warns(UnfoolWarning, match=r"(pickle|put before|stay as the model has them, such as mean)"):
        load_weights(module, written(tmp_path / "a.pt", NET))
    assert torch.equal(module.mean, torch.full((3,), 0.5))
    assert torch.equal(module.net[3].weight, NET["3.weight"])


@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, torch.rand(1, 3, 4, 4))])
@pytest.mark.filterwarnings("ignore")
def test_the_weights_of_a_script_are_read_and_its_code_is_not_run(tmp_path, monkeypatch, make):
    make(network(3.0)).save(tmp_path / "a.pt")
    monkeypatch.setattr(torch.jit, "load", None)
    module = network()
    load_weights(module, tmp_path / "a.pt")
    assert equal(module.state_dict(), {**NET, "1.num_batches_tracked": module.state_dict()["1.num_batches_tracked"]})


@pytest.mark.filterwarnings("ignore::unfool.core.errors.UnfoolWarning")
@pytest.mark.parametrize(
    ("value", "key"),
    [
        ({"a.b": NET, "c": ZEROS}, "a.b"),
        ({"runs": [{"ema.v2": NET}, ZEROS]}, "runs.0.ema.v2"),
        ({3: NET, 4: ZEROS}, "3"),
        ({"last": {"state_dict": NET}, "best": ZEROS}, "last"),
    ],
)
def test_keys_are_found_whatever_their_names(tmp_path, value, key):
    module = network()
    load_weights(module, written(tmp_path / "a.pt", value), key=key)
    assert equal(module.state_dict(), NET)


BOTH = {"state_dict": ZEROS, "ema_state_dict": NET}


@pytest.mark.filterwarnings("ignore::unfool.core.errors.UnfoolWarning")
def test_weights_and_their_average_in_one_file_are_a_question(tmp_path):
    path, module = written(tmp_path / "a.pt", BOTH), network()
    with pytest.raises(SpecError, match=r"2 sets of weights: 'state_dict', 'ema_state_dict', which all fit.*--key"):
        load_weights(module, path)
    with pytest.raises(SpecError, match=r"2 sets of weights.*--key"):
        read_state(path)
    assert torch.equal(module[3].weight, network()[3].weight)
    assert equal(load_weights(module, path, key="ema_state_dict"), NET)
    assert equal(module.state_dict(), NET)
    with pytest.raises(SpecError, match=r"ema_state_dit.*did you mean 'ema_state_dict'"):
        load_weights(module, path, key="ema_state_dit")
    listed = written(tmp_path / "b.pt", [BOTH["state_dict"], {"net": NET}])
    assert equal(load_weights(module, listed, key="1.net"), NET)


@pytest.mark.filterwarnings("ignore::unfool.core.errors.UnfoolWarning")
def test_two_encoders_under_prefixes_are_a_question(tmp_path):
    zeros = {name: tensor * 0 for name, tensor in NET.items()}
    path = written(tmp_path / "a.pt", prefixed("encoder_q.") | prefixed("encoder_k.", zeros))
    with pytest.raises(SpecError, match=r"'encoder_q.', 'encoder_k.', with different values.*--prefix"):
        load_weights(network(), path)
    module = network()
    load_weights(module, path, prefix="encoder_q.")
    assert equal(module.state_dict(), NET)
    assert equal(read_state(path, prefix="encoder_q"), read_state(path, prefix="encoder_q."))
    assert read_state(path, prefix="encoder_k.").keys() == NET.keys()
    with pytest.raises(SpecError, match=r"begins with 'encoder_x.'; they begin with encoder_k., encoder_q."):
        read_state(path, prefix="encoder_x.")


@pytest.mark.filterwarnings("ignore::unfool.core.errors.UnfoolWarning")
def test_of_several_networks_the_one_that_fits_is_taken(tmp_path):
    path = written(tmp_path / "a.pt", {"student": NET, "teacher": nn.Linear(2, 3).state_dict()})
    module = network()
    load_weights(module, path)
    assert equal(module.state_dict(), NET)
    with pytest.raises(WeightsError, match="none of which fits the model: 'student' does not fit the model, it has"):
        load_weights(nn.Sequential(nn.PReLU(), nn.PReLU()), path)


def test_compressed_entries_are_refused_before_they_are_unpacked(tmp_path):
    written(tmp_path / "a.pt", {"a": torch.zeros(1_000_000)})
    with (
        zipfile.ZipFile(tmp_path / "a.pt") as plain,
        zipfile.ZipFile(tmp_path / "b.pt", "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for name in plain.namelist():
            out.writestr(name, plain.read(name))
    with pytest.raises(WeightsError, match=r"compressed entries, which unpack to 4,"):
        read_state(tmp_path / "b.pt")


def test_what_is_no_regular_file_is_refused_before_it_is_read(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="no regular file"):
        read_state(tmp_path / "a.pt")


@pytest.mark.filterwarnings("ignore")
def test_lazy_layers_take_their_shapes_from_the_file(tmp_path):
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    load_weights(lazy, written(tmp_path / "a.pt", nn.Sequential(nn.Flatten(), nn.Linear(12, 10)).state_dict()))
    assert lazy(torch.rand(2, 3, 2, 2)).shape == (2, 10)


@pytest.mark.parametrize(
    ("weight", "words"),
    [
        (torch.full((2, 3), 1e300, dtype=torch.float64), "is torch.float64 and holds values beyond torch.float32"),
        (torch.zeros(2, 3).to(torch.float8_e4m3fn), "is torch.float8_e4m3fn, which cannot be computed with; allowed: "),
        (torch.zeros(2, 3, dtype=torch.complex64), r"is torch.complex64 \(2, 3\); the model has torch.float32"),
        (torch.quantize_per_tensor(torch.zeros(2, 3), 0.1, 0, torch.qint8), "is torch.qint8, which cannot be"),
    ],
)
def test_values_that_the_module_cannot_hold_are_refused(weight, words):
    module = nn.Linear(3, 2)
    before = module.weight.detach().clone()
    with pytest.raises(WeightsError, match=words) as caught:
        load_state(module, {"weight": weight, "bias": torch.ones(2)}, "file")
    assert "\n" not in str(caught.value)
    assert module.weight.equal(before)
    assert module.bias.ne(1).all()


@pytest.mark.filterwarnings("ignore:.*is a pickle")
def test_of_two_states_of_numbers_that_are_only_stored_none_is_read(tmp_path):
    weight = torch.zeros(2, 3).to(torch.float8_e4m3fn)
    torch.save({name: {"weight": weight, "bias": torch.ones(2)} for name in ("model", "ema")}, tmp_path / "a.pt")
    with pytest.raises(WeightsError, match="float8_e4m3fn, which cannot be computed with"):
        load_weights(nn.Linear(3, 2), tmp_path / "a.pt")


def test_whole_numbers_that_the_module_cannot_hold_are_refused():
    module = nn.Module()
    module.register_buffer("order", torch.zeros(2, dtype=torch.uint8))
    load_state(module, {"order": torch.tensor([7, 255])}, "file")
    assert module.order.tolist() == [7, 255]
    with pytest.raises(WeightsError, match=r"'order' is torch\.int64 and holds values beyond torch\.uint8"):
        load_state(module, {"order": torch.tensor([7, 256])}, "file")
