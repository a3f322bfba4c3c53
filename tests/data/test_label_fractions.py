"""A share of the labels holds no image of the test split and none of those held out, for every set of the catalog.

Ids number the images of a split, so two splits of one set may use the same numbers for different images: the images
themselves are compared.
"""

import hashlib
import io
import tarfile

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_sets import encoded, pictures

from unfool.data.catalog import open_table
from unfool.data.sets import stl10
from unfool.data.sources import SETS
from unfool.training import RunConfig, StageConfig, TaskConfig, cut_held_out

TRAIN, TEST = 230, 40


def on_hub(name, make_set):
    """Both splits of a set in hub layout, of three classes in unequal numbers."""
    entry = SETS[name]
    for seed, (split, count) in enumerate([("train", TRAIN), ("valid" if name == "tiny-imagenet" else "test", TEST)]):
        classes = [min(row % 5, 2) for row in range(count)]
        labels = {column: (classes, ["a", "b", "c"]) for column in entry.label_columns}
        root = make_set(name, [encoded(image) for image in pictures(count, seed=seed)], labels, split)
    return root


def stl10_archive(folder, monkeypatch):
    """STL-10's archive with few images, most of one grey with a number of their own in the corner."""
    path = folder / stl10.ARCHIVE
    with tarfile.open(path, "w:gz", compresslevel=1) as archive:
        for seed, (split, count) in enumerate([("train", TRAIN), ("test", TEST)]):
            pixels = np.zeros((count, 3, 96, 96), dtype=np.uint8)
            pixels[:, 0, 0, :4] = np.random.default_rng(seed).integers(0, 256, (count, 4))
            labels = bytes(row % 10 + 1 for row in range(count))
            for member, data in ((f"{split}_X", pixels.tobytes()), (f"{split}_y", labels)):
                info = tarfile.TarInfo(f"stl10_binary/{member}.bin")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    monkeypatch.setattr(stl10, "SHA256", hashlib.sha256(path.read_bytes()).hexdigest())
    return folder


def stand_in(name, make_set, tmp_path, monkeypatch):
    """A data directory with a tiny set of that name; embedded sets need none."""
    if SETS[name].source.startswith("hub:"):
        return on_hub(name, make_set)
    return stl10_archive(tmp_path, monkeypatch) if name == "stl10" else None


def contents(table):
    return [image.tobytes() for image in table.images.numpy()]


def described(name, **values):
    held_out = values.pop("held_out")
    stage = StageConfig(tasks={"labels": TaskConfig(task="labels")}, held_out=held_out)
    return RunConfig(data=name, stages=(stage,), **values)


@pytest.mark.parametrize("name", list(SETS))
def test_a_share_of_the_labels_shares_no_image_with_what_a_run_is_judged_on(name, make_set, tmp_path, monkeypatch):
    data = stand_in(name, make_set, tmp_path, monkeypatch)
    table, judged = (open_table(name, split, data_dir=data) for split in ("train", "test"))
    assert judged.split in ("test", "validation")
    whole, apart = contents(table), set(contents(judged))
    assert len(set(whole)) == len(table), "images of the stand-in must tell each other apart"
    by_id = dict(zip(table.ids.tolist(), whole, strict=True))
    labels = dict(zip(table.ids.tolist(), table.labels().tolist(), strict=True))

    @settings(max_examples=25)
    @given(
        seed=st.integers(0, 2**31),
        held_out=st.integers(0, len(table) // 2),
        share=st.one_of(st.just(0.01), st.floats(0.001, 1.0)),
        larger=st.floats(0.0, 1.0),
    )
    def check(seed, held_out, share, larger):
        run = described(name, seed=seed, held_out=held_out, fraction=share)
        learnt, validation = cut_held_out(run, table)
        ids = learnt.ids.tolist()
        held = [] if validation is None else validation.ids.tolist()
        assert len(held) == held_out
        assert set(ids) <= by_id.keys()
        assert not set(ids) & set(held)
        seen = {by_id[number] for number in ids}
        assert not seen & apart
        assert not seen & {by_id[number] for number in held}
        # Every class has its share of what is not held out, and one image at least.
        left = [labels[number] for number in labels if number not in set(held)]
        for label in set(left):
            expected = max(1, round(left.count(label) * share))
            assert [labels[number] for number in ids].count(label) == expected
        more = share + (1.0 - share) * larger
        assert set(ids) <= set(
            cut_held_out(described(name, seed=seed, held_out=held_out, fraction=more), table)[0].ids.tolist()
        )

    check()
