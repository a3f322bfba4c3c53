"""Files of weights in other formats, and files that are none."""

import gzip
import json
import tarfile
import warnings
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from written_checkpoints import MEAN, NET, equal, network, prefixed, written

from unfool.core.errors import WeightsError
from unfool.models.checkpoints.reader import load_weights, read_state


def arrays(path, compressed=False, order="="):
    values = {name: tensor.numpy() for name, tensor in NET.items()}
    values = {name: array.astype(array.dtype.newbyteorder(order)) for name, array in values.items()}
    (np.savez_compressed if compressed else np.savez)(path, **values)
    return path


def parts(path, write=save_file, ending="safetensors"):
    names = list(NET)
    files = {name: f"model-0000{1 + (index > 3)}-of-00002.{ending}" for index, name in enumerate(names)}
    for file in set(files.values()):
        write({name: NET[name] for name in names if files[name] == file}, path.parent / file)
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": files}))
    return path


@pytest.mark.filterwarnings("ignore::unfool.core.errors.UnfoolWarning")
@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("a.npz", arrays),
        ("b.npz", lambda path: arrays(path, compressed=True)),
        ("c.npz", lambda path: arrays(path, order=">")),
        ("model.safetensors.index.json", parts),
        ("model.bin.index.json", lambda path: parts(path, torch.save, "bin")),
        ("a.pth", lambda path: save_file(prefixed("model."), path) or path),
        ("a.pth.tar", lambda path: written(path, {"state_dict": prefixed("module.")})),
    ],
)
def test_other_files_of_weights(tmp_path, name, write):
    module = network()
    load_weights(module, write(tmp_path / name))
    assert equal(module.state_dict(), NET)


def zipped(path, name="model.pt"):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(name, b"x" * 100)


def tarred(path, name):
    with tarfile.open(path, "w") as archive:
        archive.addfile(tarfile.TarInfo(name))


def frozen(path):
    torch.jit.save(torch.jit.freeze(torch.jit.script(network())), path)


LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12\n"


@pytest.mark.filterwarnings("ignore::unfool.core.errors.UnfoolWarning")
@pytest.mark.parametrize(
    ("name", "write", "words"),
    [
        ("a.pth", lambda path: path.write_text("\n <!DOCTYPE html><html>404"), "a web page"),
        ("a.safetensors", lambda path: path.write_text("<html>404</html>"), "a web page"),
        ("a.bin", lambda path: path.write_text(LFS), "git lfs pull"),
        ("b.safetensors", lambda path: path.write_text(LFS), "git lfs pull"),
        ("a.pt", lambda path: path.write_bytes(b""), "empty"),
        ("a.pth", lambda path: path.write_text('{"error": 404}'), "JSON"),
        ("a.pt.gz", lambda path: path.write_bytes(gzip.compress(b"weights")), "gzip; unpack"),
        ("a.zip", zipped, "such as model.pt; unpack"),
        ("a.pt2", lambda path: zipped(path, "x/archive_format"), "torch.export.*--model FILE"),
        ("a.tar", lambda path: tarred(path, "w.pt"), r"tar archive \(w.pt\)"),
        ("a.pth.tar", lambda path: tarred(path, "storages"), "PyTorch's first format"),
        ("a.h5", lambda path: path.write_bytes(b"\x89HDF\r\n"), "HDF5"),
        ("a.npy", lambda path: np.save(path, np.ones(2)), "single NumPy array"),
        ("a.npz", lambda path: np.savez_compressed(path, a=np.zeros(1 << 24)), "unpacks to 134,"),
        ("b.npz", lambda path: np.savez(path, a=np.array([{}])), "no arrays of numbers"),
        ("c.npz", lambda path: np.savez(path, a=np.zeros(2), b=np.array("x")), "'b' is an array of <U1.*leave it out"),
        ("a.pt", frozen, "frozen program.*--model FILE"),
        ("a.pt", lambda path: torch.save(NET, path, pickle_protocol=4), "another pickle protocol"),
        ("c.pt", lambda path: torch.save({"x": NET, "y": np.array([{}])}, path), "needs numpy.dtypes.ObjectDType"),
        ("a", lambda path: path.mkdir(), "a folder; give a file"),
        ("model-00001-of-00002.bin", lambda path: torch.save(NET, path), "of 2 parts; .*model.bin.index.json"),
        ("a.index.json", lambda path: path.write_text('{"weight_map": {"w": "../w.bin"}}'), "not followed"),
        ("b.index.json", lambda path: path.write_text('{"weight_map": {"w": "w.bin"}}'), "does not lie beside it"),
        ("c.index.json", lambda path: path.write_text("[" * 9999), "no weight_map"),
    ],
)
def test_files_that_are_no_weights_are_called_what_they_are(tmp_path, name, write, words):
    write(tmp_path / name)
    with pytest.raises(WeightsError, match=words) as caught:
        load_weights(network(), tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_folder_names_the_file_in_it(tmp_path):
    save_file(NET, tmp_path / "model.safetensors")
    with pytest.raises(WeightsError, match="such as model"):
        read_state(tmp_path)


def test_averages_without_names_are_told(tmp_path):
    shadow = {"decay": 0.99, "shadow_params": list(NET.values())}
    for beside, words in ((shadow, "'ema' holds tensors without names"), ({"a": MEAN}, "'ema' does not fit the model")):
        path = written(tmp_path / "a.pt", {"model": NET, "ema": beside})
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            load_weights(network(), path)
        assert any(words in str(one.message) for one in told)
