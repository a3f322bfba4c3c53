"""Weights that were damaged, or made to hurt: refused in one line, with bounded memory."""

import random
import resource
import struct
import time
import zipfile

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from unfool.core.errors import SpecError, WeightsError
from unfool.models.checkpoints.archive import read_archive
from unfool.models.checkpoints.reader import read_states
from unfool.models.foreign import load_classifier
from unfool.models.header import CHECKSUM
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import load_network, load_tensors, save_network, save_tensors


@pytest.fixture
def saved(tmp_path):
    network = Network.build(TrunkSpec(name="convnet", widths=(4, 6, 8)), {})
    save_network(network, tmp_path / "weights.safetensors", {"note": "untrained"})
    return tmp_path / "weights.safetensors"


def test_every_flipped_bit_is_refused(saved, tmp_path):
    content, draw = saved.read_bytes(), random.Random(0)
    bits = [draw.randrange(8 * len(content)) for _ in range(60)] + [8 * place + 1 for place in range(8, 900, 30)]
    for bit in bits:
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        (tmp_path / "damaged.safetensors").write_bytes(damaged)
        with pytest.raises(WeightsError):
            load_network(tmp_path / "damaged.safetensors")


def test_flipped_tensors_are_refused_as_weights_of_another_program_too(saved, tmp_path):
    damaged = bytearray(saved.read_bytes())
    damaged[-3] ^= 1
    (tmp_path / "damaged.safetensors").write_bytes(damaged)
    with pytest.raises(WeightsError, match="checksum does not fit"):
        read_states(tmp_path / "damaged.safetensors")


def test_a_file_without_a_checksum_still_loads_and_a_lost_one_is_told(saved, tmp_path):
    tensors, metadata = load_tensors(saved)
    assert "file_checksum" not in metadata
    with safe_open(saved, framework="pt") as file:
        texts = file.metadata()
    assert len(texts.pop(CHECKSUM)) == 32
    save_file(tensors, tmp_path / "lost.safetensors", texts)
    with pytest.raises(WeightsError, match="lost its checksum"):
        load_tensors(tmp_path / "lost.safetensors")
    save_file(tensors, tmp_path / "old.safetensors", {**texts, "schema_version": "1"})
    assert load_tensors(tmp_path / "old.safetensors")[1] == metadata
    with pytest.raises(WeightsError, match="'file_checksum' is unfool's own"):
        save_tensors(tmp_path / "a.safetensors", tensors, {CHECKSUM: "x"})


def pickled(path, code):
    """A checkpoint whose pickle is this code."""
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + code + b".")
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return path


def text(value):
    return b"X" + len(value).to_bytes(4, "little") + value.encode()


ENCODE = b"c_codecs\nencode\n"
FIVE_BYTES = b"\x8a\x05" + (8_000_000_000).to_bytes(5, "little")


@pytest.mark.parametrize(
    "code",
    [
        ENCODE + b"q\x00" + text("a") + text("latin1") + b"\x86R" + (b"q\x01h\x00h\x01" + text("hex") + b"\x86R") * 31,
        b"cbuiltins\nbytearray\n" + FIVE_BYTES + b"\x85R",
        b"}" + text("a") + b"cnumpy\nndarray\n" + FIVE_BYTES + b"\x85\x85Rs",
        b"]q\x00" + text("x" * 1_000_000) + b"q\x01a(" + (ENCODE + b"h\x01" + text("utf-32") + b"\x86R") * 200 + b"l",
    ],
    ids=["doubled", "bytearray", "array", "encoded often"],
)
def test_a_pickle_that_unpacks_to_gigabytes_is_refused(tmp_path, code):
    path = pickled(tmp_path / "a.pt", code)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match="unpacks to far more than its"):
        read_archive(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 700_000
    assert resource.getrlimit(resource.RLIMIT_AS)[0] == resource.RLIM_INFINITY


def test_mappings_that_repeat_each_other_are_looked_into_once(tmp_path):
    state: dict[str, object] = {"t": torch.zeros(1)}
    for _ in range(4):
        state = {str(key): state for key in range(150)}
    torch.save(state, tmp_path / "a.pt")
    started = time.process_time()
    with pytest.warns(UserWarning, match="pickle"):
        assert list(read_states(tmp_path / "a.pt")) == ["0.0.0.0"]
    assert time.process_time() - started < 5


@pytest.mark.parametrize("damage", ["disks", "list"])
def test_a_damaged_zip_archive_is_one_line_wherever_it_is_named(tmp_path, damage):
    path = tmp_path / "weights.pt"
    torch.save({"a": torch.zeros(2)}, path)
    content = bytearray(path.read_bytes())
    if damage == "disks":  # a record that says: one of two disks
        end = content.rindex(b"PK\x05\x06")
        content[end:end] = struct.pack("<4sLQL", b"PK\x06\x07", 1, 0, 2)
    else:
        content[content.rindex(b"PK\x01\x02")] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsError, match="a damaged zip archive"):
        read_states(path)
    with pytest.raises(SpecError, match="a damaged zip archive"):
        load_classifier(str(path))


def rewritten(path, place, value):
    """Change a field of a zip archive's only entry, in its local header and in the directory."""
    content = bytearray(path.read_bytes())
    for start, offset in ((content.find(b"PK\3\4"), place), (content.find(b"PK\1\2"), place + 2)):
        content[start + offset : start + offset + 2] = struct.pack("<H", value)
    path.write_bytes(content)


def claiming(path, numbers):
    """An array of a few bytes whose header claims so many numbers of 8 bytes."""
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({numbers},), }}\n".encode()
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("weight.npy", b"\x93NUMPY\1\0" + struct.pack("<H", len(header)) + header)


def spoiled(path):
    content = bytearray(path.read_bytes())
    content[200:240] = bytes(40)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "change",
    [
        spoiled,
        lambda path: claiming(path, 10**15),
        lambda path: claiming(path, 1 << 29),
        lambda path: rewritten(path, 8, 99),
        lambda path: rewritten(path, 6, 1),
    ],
    ids=["damaged", "8 petabytes", "4 gigabytes", "unknown method", "encrypted"],
)
def test_a_malformed_archive_of_arrays_is_one_line(tmp_path, change):
    path = tmp_path / "arrays.npz"
    np.savez_compressed(path, weight=np.random.default_rng(0).normal(size=(20, 20)))
    change(path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(WeightsError, match=r"save its arrays with numpy\.savez") as caught:
        read_states(path)
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB
