"""STL-10's binary archive: its byte order, its checksum, and archives that mean harm."""

import hashlib
import io
import tarfile
import urllib.request
from pathlib import Path

import numpy as np
import pytest
import torch

from unfool.core.errors import DataError
from unfool.data.catalog import open_table
from unfool.data.readers import download
from unfool.data.sets import stl10


def pixels(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)


def members() -> dict[str, bytes]:
    """Three small splits in the official layout: channels, then columns, then rows."""
    images = {name: pixels(count, seed) for seed, (name, count) in enumerate([("train", 4), ("test", 2)])}
    images["unlabeled"] = pixels(3, 9)
    files = {f"stl10_binary/{name}_X.bin": value.transpose(0, 1, 3, 2).tobytes() for name, value in images.items()}
    files["stl10_binary/train_y.bin"] = bytes([1, 10, 3, 1])
    files["stl10_binary/test_y.bin"] = bytes([2, 5])
    return files


def write_archive(path: Path, files: dict[str, bytes], links: dict[str, str] | None = None) -> str:
    """Write the archive and give its checksum."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w:gz") as archive:
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def archive(tmp_path, monkeypatch):
    path = tmp_path / "data" / stl10.ARCHIVE
    monkeypatch.setattr(stl10, "SHA256", write_archive(path, members()))
    return path


def test_the_three_splits_read_as_they_were_drawn(archive):
    train = open_table("stl10", "train", data_dir=archive.parent)
    np.testing.assert_array_equal(train.images.numpy(), pixels(4, 0))
    assert train.labels().tolist() == [0, 9, 2, 0]
    assert train.classes["label"][9] == "truck"
    test = open_table("stl10", "test", data_dir=archive.parent)
    np.testing.assert_array_equal(test.images.numpy(), pixels(2, 1))
    unlabelled = open_table("stl10", "unlabelled", data_dir=archive.parent)
    np.testing.assert_array_equal(unlabelled.images.numpy(), pixels(3, 9))
    assert unlabelled.columns == {}


def test_a_finished_store_needs_no_archive(archive):
    first = open_table("stl10", "train", data_dir=archive.parent)
    archive.unlink()
    assert torch.equal(open_table("stl10", "train").images, first.images)


def test_an_altered_or_interrupted_archive_is_refused(archive, cache):
    whole = archive.read_bytes()
    for damaged in (whole[:-1], whole[:-1] + bytes([whole[-1] ^ 1])):
        archive.write_bytes(damaged)
        with pytest.raises(DataError, match="SHA-256"):
            open_table("stl10", "train", data_dir=archive.parent)
    assert not list((cache / "store").glob("*/pixels.bin"))


def everything_below(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_an_archive_cannot_write_anywhere(archive, tmp_path, cache, monkeypatch):
    outside = {"../evil.txt": b"x", str(tmp_path / "evil.txt"): b"x", "stl10_binary/../../evil.txt": b"x"}
    monkeypatch.setattr(stl10, "SHA256", write_archive(archive, outside | members(), {"stl10_binary/l": "/etc"}))
    before = everything_below(tmp_path)
    assert len(open_table("stl10", "train", data_dir=archive.parent)) == 4
    new = everything_below(tmp_path) - before
    assert all(name.startswith("cache") for name in new), new
    assert not any("evil" in name for name in new)


def test_a_link_in_place_of_a_member_is_refused(archive, monkeypatch):
    files = members()
    del files["stl10_binary/train_X.bin"]
    links = {"stl10_binary/train_X.bin": "/etc/passwd"}
    monkeypatch.setattr(stl10, "SHA256", write_archive(archive, files, links))
    with pytest.raises(DataError, match="not a plain file"):
        open_table("stl10", "train", data_dir=archive.parent)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"stl10_binary/train_X.bin": None}, "holds no stl10_binary/train_X.bin"),
        ({"stl10_binary/train_X.bin": b"short"}, "cut off"),
        ({"stl10_binary/train_y.bin": bytes([0, 1, 2, 3])}, "labels outside 1 to 10"),
        ({"stl10_binary/train_y.bin": bytes([1, 2])}, "4 images came for 2 rows of labels"),
    ],
)
def test_an_archive_that_is_not_stl10_is_refused(archive, monkeypatch, change, words):
    files = {name: data for name, data in (members() | change).items() if data is not None}
    monkeypatch.setattr(stl10, "SHA256", write_archive(archive, files))
    with pytest.raises(DataError, match=words):
        open_table("stl10", "train", data_dir=archive.parent)


class Answer(io.BytesIO):
    """What a server sends."""


def serve(monkeypatch, data: bytes | Exception):
    class Opener:
        def open(self, request, timeout):
            assert request.full_url.startswith("https://")
            assert timeout <= 30
            if isinstance(data, Exception):
                raise data
            return Answer(data)

    monkeypatch.setattr(urllib.request, "build_opener", lambda *handlers: Opener())


def test_a_download_is_kept_when_its_checksum_is_right(archive, cache, monkeypatch):
    serve(monkeypatch, archive.read_bytes())
    archive.unlink()
    assert len(open_table("stl10", "test")) == 2
    assert (cache / "downloads" / stl10.ARCHIVE).is_file()


def test_an_interrupted_or_tampered_download_leaves_nothing(archive, cache, monkeypatch):
    whole = archive.read_bytes()
    archive.unlink()
    for sent in (whole[:-5], b"<html>", urllib.error.URLError("no route"), ConnectionResetError("gone")):
        serve(monkeypatch, sent)
        with pytest.raises(DataError, match="by hand") as caught:
            open_table("stl10", "test")
        assert "\n" not in str(caught.value)
    assert not list(cache.rglob("*stl10_binary*"))


def test_http_is_never_used(tmp_path):
    with pytest.raises(DataError, match="https"):
        download.fetch("http://example.org/x", tmp_path / "x", "0")
    request = urllib.request.Request("https://example.org/x")
    with pytest.raises(DataError, match="not https"):
        download._Redirection(True, DataError).redirect_request(request, None, 302, "moved", {}, "http://example.org/x")
