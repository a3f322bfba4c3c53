"""What every registered data set owes its caller; one that has to be fetched is only looked at from outside."""

import pytest
import torch

from unfool.data.catalog import SPLITS, catalog, open_table
from unfool.data.sources import SETS

NAMES = tuple(SETS)
EMBEDDED = [name for name in NAMES if not SETS[name].source.startswith("hub:") and SETS[name].available(None)[0]]
"""Sets that need neither files nor a network."""


@pytest.fixture(autouse=True)
def _own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("UNFOOL_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.mark.parametrize("name", NAMES)
def test_the_catalog_shows_it(name):
    entry = {entry.name: entry for entry in catalog()}[name]
    assert entry.source
    assert entry.size is None or 2 <= entry.size <= 4096
    assert SETS[name].name == name


@pytest.mark.parametrize("name", EMBEDDED)
def test_its_splits_hold_what_it_declares(name):
    splits = SETS[name].splits(None)
    assert set(splits) <= {*SPLITS, "validation"}
    for split in set(splits) & set(SPLITS):
        table = open_table(name, split)
        side = SETS[name].size
        assert table.shape[0] == 3
        assert side is None or table.shape[1:] == (side, side)
        assert set(table.columns) == (set(SETS[name].label_columns) if split != "unlabelled" else set())
        assert len(table.ids.unique()) == len(table) > 0
        for column, labels in table.columns.items():
            assert 0 <= int(labels.min()) <= int(labels.max()) < len(table.classes[column])


@pytest.mark.parametrize("name", EMBEDDED)
def test_it_is_the_same_every_time(name):
    for split in set(SETS[name].splits(None)) & set(SPLITS):
        first, again = open_table(name, split), open_table(name, split)
        assert torch.equal(first.images, again.images)
        assert torch.equal(first.ids, again.ids)
        assert all(torch.equal(first.columns[key], again.columns[key]) for key in first.columns)


@pytest.mark.parametrize("name", EMBEDDED)
def test_no_image_is_in_two_splits(name):
    tables = [open_table(name, split) for split in set(SETS[name].splits(None)) & {"train", "test"}]
    images = [{image.tobytes() for image in table.images.numpy()} for table in tables]
    if len(images) == 2:
        assert len(images[0] & images[1]) <= 0.01 * len(images[1])
