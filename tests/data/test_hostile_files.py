"""Files of a data set that were made to hurt: bounded before they are read, and refused in one line."""

import io
import json
import os
import time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from unfool.core.errors import DataError, UnfoolWarning
from unfool.data.catalog import open_table, split_sources
from unfool.data.decode import Framing, decode
from unfool.data.folders import cache_folder
from unfool.data.readers import download
from unfool.data.readers import folder as folder_module
from unfool.data.readers.shared_images import compare_splits


def png(*colour, size=(8, 8)):
    buffer = io.BytesIO()
    Image.new("RGB", size, tuple(colour) or (0, 0, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def folder(root, splits):
    """Folders of two classes; a split is given by its images' colours."""
    for split, colours in splits.items():
        for name in "ab":
            (root / split / name).mkdir(parents=True)
            for number, colour in enumerate(colours):
                (root / split / name / f"{number}.png").write_bytes(png(*colour, ord(name)))
    return f"folder:{root}"


@pytest.mark.parametrize("crop", [1.0, 0.875])
@pytest.mark.parametrize("shape", [(2, 30_000), (30_000, 2)])
def test_a_long_image_is_cut_before_it_is_scaled(shape, crop):
    rows = np.random.default_rng(0).integers(0, 255, (shape[1], shape[0], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rows).save(buffer, "PNG")
    started = time.process_time()
    pixels, _ = decode(buffer.getvalue(), Framing(2048, crop))
    assert pixels.shape == (3, 2048, 2048)
    assert time.process_time() - started < 5
    # The middle of the image, as where scaling it whole still fits.
    small, _ = decode(buffer.getvalue(), Framing(32, crop))
    blocks = pixels.reshape(3, 32, 64, 32, 64).mean((2, 4))
    assert abs(blocks - small).mean() < 16


@pytest.mark.parametrize("name", ["train-00000-of-999999999999", f"train-{'1' * 90}-of-{'9' * 90}"])
def test_shard_numbers_are_bounded(tmp_path, name):
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / f"{name}.parquet").write_bytes(b"x")
    with pytest.raises(DataError, match="6 digits allowed"):
        open_table("set", "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    "metadata",
    [
        b"{not json",
        b'{"info": ' + b"[" * 100_000,
        json.dumps({"info": {"features": [1]}}).encode(),
        json.dumps({"info": {"features": {"label": {"_type": "Nope"}}}}).encode(),
        json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "num_classes": 10**8}}}}).encode(),
        json.dumps({"info": {"features": {"label": {"_type": "ClassLabel", "names": 3}}}}).encode(),
    ],
)
def test_bad_metadata_of_a_parquet_file(tmp_path, metadata):
    (tmp_path / "set").mkdir()
    table = pa.table({"image": [{"bytes": png(), "path": None}] * 2, "label": [0, 1]})
    pq.write_table(table.replace_schema_metadata({b"huggingface": metadata}), tmp_path / "set" / "train.parquet")
    with pytest.raises(DataError, match="huggingface metadata") as caught:
        open_table("set", "train", data_dir=tmp_path)
    assert len(str(caught.value)) < 600


def test_a_parquet_file_of_too_many_rows(tmp_path):
    (tmp_path / "set").mkdir()
    count = 20_000_001
    table = pa.table({"label": np.zeros(count, dtype=np.int8), "image": pa.array([b""]).take(np.zeros(count, "i8"))})
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    with pytest.raises(DataError, match="20,000,001 rows, more than the 20,000,000 allowed"):
        open_table("set", "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("content", "bound"),
    [
        (b",".join([b"a"] * 100_000) + b"\n1", "1,000 allowed"),
        (b"path,label\n" + b",\n" * 4_000_000, "6,000,000 allowed"),
        (b"\x00\xff\xfe", "UTF|utf"),
    ],
)
def test_a_csv_file_is_bounded(tmp_path, content, bound):
    (tmp_path / "a.csv").write_bytes(content)
    with pytest.raises(DataError, match=bound):
        open_table(str(tmp_path / "a.csv"), "train")


@pytest.mark.filterwarnings("ignore:.*has no column split")
@pytest.mark.parametrize("path", ["a" * 300 + ".png", "a\\0.png", "/dev/zero", "."])
def test_paths_of_a_csv_file_that_cannot_be(tmp_path, path):
    (tmp_path / "a.csv").write_bytes(f"path,label\n{path},1\nb.png,0\n".encode())
    with pytest.raises(DataError, match=r"do not exist|cannot read|no readable"):
        open_table(str(tmp_path / "a.csv"), "train", size=8)


def test_a_csv_file_must_be_a_regular_file(tmp_path):
    os.mkfifo(tmp_path / "a.csv")
    with pytest.raises(DataError, match="FIFO"):
        open_table(str(tmp_path / "a.csv"), "train")


def test_names_that_are_no_text_are_read(tmp_path):
    root = tmp_path / os.fsdecode(b"pets\xff")
    name = folder(root, {"train": [(n, 0) for n in range(3)], "test": [(n, 1) for n in range(3)]})
    (root / "train" / "a" / os.fsdecode(b"\xfe.png")).write_bytes(b"no image")
    (root / "train" / "a").rename(root / "train" / os.fsdecode(b"\xfd"))
    (root / "test" / "a").rename(root / "test" / os.fsdecode(b"\xfd"))
    with pytest.warns(UnfoolWarning, match="1 of 7 images are corrupt"):
        assert len(open_table(name, "train")) == 6


def test_a_folder_without_a_path_or_of_nobody_is_refused():
    for name in ("folder:", "folder: ", "folder:~nouser/x", "folder:" + "a" * 300):
        with pytest.raises(DataError, match=r"path|home|not a directory"):
            open_table(name, "train")


def test_a_folder_of_other_files_is_not_walked_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(folder_module, "MOST_OTHERS", 20)
    name = folder(tmp_path, {"train": [(1, 1)]})
    for number in range(30):
        (tmp_path / "train" / "a" / f"{number}.txt").touch()
    with pytest.raises(DataError, match="more than the 20 files and folders allowed that are no images"):
        open_table(name, "train")


def test_no_home_folder_is_one_line(monkeypatch):
    for name in ("HOME", "UNFOOL_CACHE_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as for a user without an entry
    with pytest.raises(DataError, match="set UNFOOL_CACHE_DIR"):
        cache_folder()


TRAIN = [(1, 1), (2, 2), (3, 3)]


@pytest.mark.parametrize("how", ["same folder", "link", "hard links", "copies", "one copy"])
def test_a_test_split_that_shares_files_with_train_is_told_with_the_count(tmp_path, how):
    test = {"one copy": [(1, 1), (8, 8), (9, 9)], "copies": TRAIN}.get(how)
    name = folder(tmp_path, {"train": TRAIN, **({"test": test} if test else {})})
    if how in ("same folder", "link"):
        (tmp_path / "test").symlink_to("train" if how == "link" else tmp_path / "train")
    elif how == "hard links":
        for file in sorted((tmp_path / "train").rglob("*.png")):
            target = tmp_path / "test" / file.parent.name / f"other-{file.name}"
            target.parent.mkdir(parents=True, exist_ok=True)
            os.link(file, target)
    count = 2 if how == "one copy" else 6
    with pytest.warns(UnfoolWarning, match=f"{count} of 6 images of test are in train too"):
        open_table(name, "test")


def test_splits_without_common_files_say_nothing_and_equal_pixels_are_counted(tmp_path):
    name = folder(tmp_path, {"train": TRAIN, "test": [(7, 7), (8, 8)], "unlabelled": [(9, 9)]})
    # The same pixels in another file.
    Image.new("RGB", (8, 8), (1, 1, ord("a"))).save(tmp_path / "test" / "a" / "1.bmp")
    Image.new("RGB", (8, 8), (7, 7, ord("a"))).save(tmp_path / "test" / "a" / "2.bmp")
    open_table(name, "test")
    counts = {
        each.split: (each.images, each.repeated, each.in_train) for each in compare_splits(split_sources(name, None))
    }
    assert counts == {"train": (6, 0, 0), "test": (6, 1, 1), "unlabelled": (2, 0, 0)}


class Answer(io.BytesIO):
    """A server's answer that comes a byte at a time."""

    def read1(self, size=-1):
        time.sleep(0.02)
        return super().read(1)


@pytest.mark.parametrize("fault", ["slow", "nonsense"])
def test_a_download_has_a_deadline_and_nonsense_is_refused(tmp_path, monkeypatch, fault):
    class Opener:
        def open(self, address, timeout):
            if fault == "nonsense":
                raise ValueError("unknown url type: 'https://['" + "x" * 10_000)
            return Answer(b"x" * 1000)

    monkeypatch.setattr(download.urllib.request, "build_opener", lambda *_: Opener())
    with pytest.raises(DataError, match="0 seconds allowed" if fault == "slow" else "cannot fetch") as caught:
        download.fetch("https://nowhere.invalid/a", tmp_path / "a", "0" * 64, seconds=0.1)
    assert len(str(caught.value)) < 600
    assert list(tmp_path.iterdir()) == []
