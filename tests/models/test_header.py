"""Malformed weights files: each a typed error of one line, before any tensor is loaded, in bounded memory."""

import io
import json
import os
import pickle
import tracemalloc

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unfool.core.errors import WeightsError
from unfool.models.header import MAX_HEADER_BYTES, read_header
from unfool.models.weights import load_network, load_tensors, save_tensors


def entry(begin, end, dtype="F32", shape=None):
    return {"dtype": dtype, "shape": [(end - begin) // 4] if shape is None else shape, "data_offsets": [begin, end]}


def build(tensors, size=8, metadata=None):
    """The bytes of a safetensors file with this header and ``size`` zero bytes behind it."""
    metadata = {"schema_version": "1"} if metadata is None else metadata
    text = tensors if isinstance(tensors, bytes) else json.dumps({"__metadata__": metadata, **tensors}).encode()
    return len(text).to_bytes(8, "little") + text + bytes(size)


def saved_by_torch(**options):
    buffer = io.BytesIO()
    torch.save({"weight": torch.zeros(300)}, buffer, **options)
    return buffer.getvalue()


NESTED = b"[" * 100_000
CASES = {
    "zip pickle": (saved_by_torch(), "pickle"),
    "legacy pickle": (saved_by_torch(_use_new_zipfile_serialization=False), "pickle"),
    "plain pickle": (pickle.dumps({"a": list(range(100))}), "pickle"),
    "tiny pickle": (b"\x80\x04N.", "pickle"),
    "empty": (b"", "no whole safetensors file"),
    "seven bytes": (bytes(7), "no whole safetensors file"),
    "huge header": ((1 << 63).to_bytes(8, "little") + b"{}", "no whole safetensors file"),
    "header past the end": ((100).to_bytes(8, "little") + b"{}", "no whole safetensors file"),
    "empty header": (bytes(8), "not valid JSON"),
    "not JSON": (build(b"{'a': 1}"), "not valid JSON"),
    "not UTF-8": (build(b'{"\xff": 1}'), "not valid JSON"),
    "nested": (build(NESTED), "not valid JSON"),
    "NaN": (build(b'{"a": NaN}'), "NaN is not allowed"),
    "a key twice": (build(b'{"a": 1, "a": 2}'), "stands twice"),
    "a list": (build(b"[]"), "no JSON object"),
    "entry not an object": (build({"a": 3}), "lacks dtype"),
    "entry with more": (build({"a": {**entry(0, 8), "code": "x"}}), "lacks dtype"),
    "unknown dtype": (build({"a": entry(0, 8, dtype="F7")}), "dtype 'F7'"),
    "dtype a list": (build({"a": entry(0, 8, dtype=[])}), "has dtype"),
    "negative shape": (build({"a": entry(0, 8, shape=[-1, -2])}), "malformed"),
    "float shape": (build({"a": entry(0, 8, shape=[2.0])}), "malformed"),
    "boolean shape": (build({"a": entry(0, 8, shape=[True, 2])}), "malformed"),
    "many dimensions": (build({"a": entry(0, 8, shape=[1] * 17)}), "malformed"),
    "three offsets": (build({"a": {**entry(0, 8), "data_offsets": [0, 4, 8]}}), "malformed"),
    "negative offset": (build({"a": entry(-8, 0, shape=[2])}), "malformed"),
    "backwards": (build({"a": entry(8, 0, shape=[2])}), "outside"),
    "truncated": (build({"a": entry(0, 8)}, size=7), "truncated"),
    "enormous": (build({"a": entry(0, 1 << 62)}), "outside"),
    "shape too large": (build({"a": entry(0, 8, shape=[1 << 40, 1 << 40])}), "does not fit"),
    "dtype too large": (build({"a": entry(0, 8, dtype="F64", shape=[2])}), "does not fit"),
    "overlap": (build({"a": entry(0, 8), "b": entry(4, 12)}, size=12), "'b' overlaps"),
    "same bytes twice": (build({"a": entry(0, 8), "b": entry(0, 8)}), "overlaps"),
    "gap": (build({"a": entry(0, 4), "b": entry(8, 12)}, size=12), "'b' leaves a gap"),
    "gap at the start": (build({"a": entry(4, 8)}), "leaves a gap"),
    "tail": (build({"a": entry(0, 4)}), "4 bytes after"),
    "metadata a list": (build({}, 0, metadata=[]), "metadata"),
    "metadata not texts": (build({}, 0, metadata={"schema_version": 1}), "metadata"),
    "foreign": (build({"a": entry(0, 8)}, metadata={"format": "pt"}), "no schema_version"),
    "newer": (build({}, 0, metadata={"schema_version": "3"}), "upgrade unfool"),
    "version a word": (build({}, 0, metadata={"schema_version": '"one"'}), "schema_version"),
    "metadata not JSON": (build({}, 0, metadata={"schema_version": "1", "note": "{"}), "'note'"),
    "nested metadata": (build({}, 0, metadata={"schema_version": "1", "note": "[" * 100_000}), "'note'"),
}


@pytest.mark.parametrize("name", CASES)
def test_malformed_files_are_one_line_in_bounded_memory(tmp_path, name):
    content, message = CASES[name]
    path = tmp_path / "weights.safetensors"
    path.write_bytes(content)
    for load in (read_header, load_tensors, load_network):
        tracemalloc.start()
        try:
            with pytest.raises(WeightsError, match=message) as caught:
                load(path)
            assert tracemalloc.get_traced_memory()[1] < 4_000_000
        finally:
            tracemalloc.stop()
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500 + len(str(path))


def test_an_oversized_header_is_not_even_read(tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes((MAX_HEADER_BYTES + 1).to_bytes(8, "little"))
    os.truncate(path, 3_000_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(WeightsError, match="at most 10000000"):
            load_tensors(path)
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_missing_files_folders_and_pipes_are_refused(tmp_path):
    with pytest.raises(WeightsError, match="no weights file"):
        load_network(tmp_path / "missing.safetensors")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(WeightsError, match="not a regular file"):
            load_network(path)


@pytest.mark.parametrize("length", [640, 0x4B50])
def test_honest_headers_whose_length_looks_like_a_pickle_are_read(tmp_path, length):
    path = tmp_path / "weights.safetensors"
    text = json.dumps({"__metadata__": {"schema_version": "1"}, "a": entry(0, 8)}).encode().ljust(length)
    path.write_bytes(build(text))
    assert path.read_bytes()[:2] in (b"\x80\x02", b"PK")
    assert torch.equal(load_tensors(path)[0]["a"], torch.zeros(2))


def test_the_header_tells_names_dtypes_and_shapes(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_tensors(path, {"a": torch.zeros(2, 3), "b": torch.zeros((), dtype=torch.int64)}, {"seed": 7})
    header = read_header(path)
    assert header.tensors == {"a": ("F32", (2, 3)), "b": ("I64", ())}
    assert header.metadata == {"seed": 7}


@settings(max_examples=150, deadline=None)
@given(cut=st.integers(0, 400), flips=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4))
def test_damaged_files_load_or_raise_weights_error(tmp_path_factory, cut, flips):
    path = tmp_path_factory.getbasetemp() / "damaged.safetensors"
    save_tensors(path, {"a": torch.zeros(3, 4), "b": torch.arange(5)}, {"seed": 7})
    content = bytearray(path.read_bytes())
    for at, value in flips:
        content[at % len(content)] = value
    whole = len(content) <= cut or cut == 0
    path.write_bytes(content if whole else content[:cut])
    try:
        tensors, _ = load_tensors(path)
    except WeightsError:
        return
    assert whole
    assert all(bool(torch.isfinite(tensor.double()).all()) for tensor in tensors.values())
