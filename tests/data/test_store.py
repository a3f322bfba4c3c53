"""The decode-once store: whole or absent, verified, built once, and honest about what it left out."""

import hashlib
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from programs import run_calls
from small_sets import encoded, pictures

from unfool.core.errors import DataError, OutputError, UnfoolWarning
from unfool.data.catalog import open_table
from unfool.data.decode import Framing
from unfool.data.sources import Columns, Rows, Source
from unfool.data.store import manifest as manifests
from unfool.data.store.opening import store_key, stored_table


class Counted:
    """A source that counts how often it is read."""

    def __init__(self, images, fingerprint="f"):
        self.images = list(images)
        self.reads = 0
        self.source = Source(fingerprint=fingerprint, read=self.read)

    def read(self) -> Rows:
        self.reads += 1
        labels = np.arange(len(self.images)) % 3
        return Rows(
            images=iter(self.images),
            count=len(self.images),
            columns={"label": labels},
            classes={"label": ["a", "b", "c"]},
        )


def opened(source: Source, cache: Path, **settings):
    framing = Framing(settings.pop("size", None), settings.pop("crop", 1.0))
    return stored_table("set", "train", source, framing=framing, cache=cache, **settings)


def files_of(cache: Path) -> Path:
    (folder,) = [path for path in (cache / "store").iterdir() if path.is_dir()]
    return folder


def test_a_store_gives_back_every_pixel_label_and_id_and_is_read_once(cache):
    pixels = pictures(10)
    counted = Counted(encoded(image) for image in pixels)
    for _ in range(2):
        table = opened(counted.source, cache)
        np.testing.assert_array_equal(table.images.numpy(), pixels.transpose(0, 3, 1, 2))
        assert table.ids.tolist() == list(range(10))
        assert table.labels().tolist() == [row % 3 for row in range(10)]
        assert table.classes == {"label": ["a", "b", "c"]}
    assert counted.reads == 1


def test_the_images_are_mapped_and_writes_never_reach_the_file(cache):
    counted = Counted(encoded(image) for image in pictures(4))
    table = opened(counted.source, cache)
    before = table.images.clone()
    table.images.zero_()
    assert torch.equal(opened(counted.source, cache).images, before)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert "pixels.bin" in maps.read_text()


@pytest.mark.parametrize("change", [{"size": 4}, {"limit": 1}])
def test_sizes_and_limits_have_stores_of_their_own(cache, change):
    counted = Counted(encoded(image) for image in pictures(4))
    opened(counted.source, cache)
    opened(counted.source, cache, **change)
    assert counted.reads == 2


def test_a_changed_source_is_read_again(cache):
    assert opened(Counted([encoded(pictures(1)[0])], "old").source, cache).images.shape[0] == 1
    assert opened(Counted([encoded(image) for image in pictures(2)], "new").source, cache).images.shape[0] == 2


def shorten(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [shorten, flip, Path.unlink])
@pytest.mark.parametrize("name", ["pixels.bin", "manifest.json", "ids.npy", "column-0.npy"])
def test_a_damaged_store_is_found_out_and_built_again(cache, name, damage):
    pixels = pictures(6)
    counted = Counted(encoded(image) for image in pixels)
    opened(counted.source, cache)
    damage(files_of(cache) / name)
    table = opened(counted.source, cache)
    np.testing.assert_array_equal(table.images.numpy(), pixels.transpose(0, 3, 1, 2))
    assert table.labels().tolist() == [0, 1, 2, 0, 1, 2]
    assert counted.reads == 2


def test_every_shard_has_a_checksum_of_its_own(cache, monkeypatch):
    monkeypatch.setattr(manifests, "SHARD_BYTES", 100)
    counted = Counted(encoded(image) for image in pictures(3))
    opened(counted.source, cache)
    manifest = json.loads((files_of(cache) / "manifest.json").read_text())
    assert len(manifest["checksums"]) == -(-3 * 192 // 100)
    flip(files_of(cache) / "pixels.bin")
    opened(counted.source, cache)
    assert counted.reads == 2


def test_corrupt_images_are_counted_told_and_left_out_and_ids_stay(cache):
    good = [encoded(image) for image in pictures(6)]
    broken = Counted([good[0], b"junk", good[2], encoded(pictures(1, 1, 1)[0]), good[4], None])
    for _ in range(2):
        with pytest.warns(UnfoolWarning, match="3 of 6 images are corrupt and left out, first: row 1"):
            table = opened(broken.source, cache)
        assert table.ids.tolist() == [0, 2, 4]
        assert table.labels().tolist() == [0, 2, 1]
        assert table.report["corrupt"] == 3
        assert set(table.report["corrupt_images"]) == {"row 1", "row 3", "row 5"}
    manifest = json.loads((files_of(cache) / "manifest.json").read_text())
    assert manifest["report"]["corrupt"] == 3


def test_conversions_are_counted_and_cmyk_is_told(cache):
    pixels = pictures(4)
    counted = Counted(
        [encoded(pixels[0]), encoded(pixels[1], mode="L"), encoded(pixels[2], "TIFF", "CMYK"), encoded(pixels[3])]
    )
    with pytest.warns(UnfoolWarning, match="1 of 4 images are CMYK"):
        table = opened(counted.source, cache)
    assert table.report["converted"] == {"CMYK": 1, "L": 1}
    assert len(table) == 4


def test_columns_that_are_not_read_are_told_also_from_the_store(cache):
    def read():
        return Rows(images=iter([encoded(pictures(1)[0])]), count=1, others={"score": "double"})

    for _ in range(2):
        table = opened(Source(fingerprint="f", read=read), cache)
        assert table.others == {"score": "double"}
        with pytest.raises(DataError, match=r"no label column 'label'; its other columns are score \(double\)"):
            table.labels("label")


def test_nothing_readable_is_an_error_and_leaves_nothing(cache):
    with pytest.raises(DataError, match="no readable image among its 2"):
        opened(Counted([b"junk", b"junk"]).source, cache)
    assert [path for path in (cache / "store").iterdir() if path.is_dir()] == []


def test_mixed_sizes_need_a_size(cache):
    counted = Counted([encoded(pictures(1, 8, 8)[0]), encoded(pictures(1, 8, 12)[0])])
    with pytest.raises(DataError, match=r"8×8 and of 12×8 .*size="):
        opened(counted.source, cache)
    assert opened(counted.source, cache, size=6).images.shape == (2, 3, 6, 6)


def test_an_interrupted_build_leaves_nothing_and_the_next_one_works(cache):
    def interrupted():
        yield encoded(pictures(1)[0])
        raise KeyboardInterrupt

    source = Source(fingerprint="f", read=lambda: Rows(images=interrupted(), count=2))
    with pytest.raises(KeyboardInterrupt):
        opened(source, cache)
    assert [path for path in (cache / "store").iterdir() if path.is_dir()] == []
    assert len(opened(Counted([encoded(image) for image in pictures(2)]).source, cache)) == 2


def test_what_a_killed_build_left_behind_is_cleared(cache):
    counted = Counted(encoded(image) for image in pictures(2))
    opened(counted.source, cache)
    folder = files_of(cache)
    left = folder.with_name(f".{folder.name}.part")
    left.mkdir()
    (left / "pixels.bin").write_bytes(b"half")
    (folder / "manifest.json").unlink()
    opened(counted.source, cache)
    assert not left.exists()


def test_a_store_of_encoded_images_gives_the_same_table(cache):
    pixels = pictures(7, 9, 12)
    counted = Counted([*(encoded(image) for image in pixels[:5]), pixels[5], pixels[6]])
    decoded = opened(counted.source, cache, size=6)
    kept = opened(counted.source, cache, size=6, limit=100)
    assert sorted(path.name for path in (cache / "store").glob("*/*.bin")) == ["encoded.bin", "pixels.bin"]
    rows = torch.tensor([6, 0, 5, 0])
    assert torch.equal(kept.batch(rows).images, decoded.batch(rows).images)
    assert torch.equal(kept.images, decoded.images)
    assert kept.subset(torch.tensor([3])).shape == (3, 6, 6)


def test_threads_that_open_at_once_build_once(cache):
    counted = Counted(encoded(image) for image in pictures(50))
    start, tables = threading.Barrier(4), []

    def work():
        start.wait()
        tables.append(opened(counted.source, cache))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counted.reads == 1
    assert all(torch.equal(table.images, tables[0].images) for table in tables)


def print_hash(data_dir):
    table = open_table("set", "train", data_dir=data_dir)
    print(len(table), hashlib.sha256(table.images.numpy().tobytes()).hexdigest())


def test_two_processes_that_open_at_once_agree(cache, make_set):
    data_dir = make_set("set", [encoded(image) for image in pictures(60)])
    codes, printed, _ = zip(*run_calls([(print_hash, (data_dir,))] * 2, timeout=120), strict=True)
    assert codes == (0, 0)
    assert printed[0] == printed[1]
    assert printed[0].startswith("60 ")
    assert [path.name for path in (cache / "store").iterdir() if path.name.endswith(".part")] == []


def test_a_cache_that_cannot_be_written_is_one_clear_error(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(OutputError, match="UNFOOL_CACHE_DIR") as caught:
        opened(Counted([encoded(pictures(1)[0])]).source, blocked)
    assert "\n" not in str(caught.value)


def test_keys_are_safe_folder_names():
    key = store_key("folder:/a b/../c", "train", Framing(32), Columns(), 1, "f")
    assert "/" not in key
    assert not key.startswith(".")
    chosen = [
        ("train", Framing(32), Columns()),
        ("test", Framing(32), Columns()),
        ("train", Framing(32, 0.875), Columns()),
    ]
    chosen += [("train", Framing(32), Columns(image="img")), ("train", Framing(32), Columns(labels=("cls",)))]
    assert len({store_key("a", *which, 1, "f") for which in chosen}) == 5
