"""Image sets that are named by a path, and are sent to another machine: read there under the same name."""

import pytest
import torch
from test_folder import write

from unfool.data.catalog import open_table
from unfool.data.readers.by_path import image_sets

pytestmark = pytest.mark.filterwarnings("ignore:.*has no splits", "ignore:.*has no column split")


@pytest.fixture
def named(tmp_path):
    """The names of a folder and of a CSV file of it, on the machine of the asker."""
    own = tmp_path / "asker"
    write(own / "pets", {"cat": 6, "dog": 6})
    (own / "unread.bin").write_text("not part of the set")
    lines = [f"pets/{kind}/{number:03d}.png,{kind}" for kind in ("cat", "dog") for number in range(6)]
    (own / "set.csv").write_text("\n".join(["path,label", *lines]))
    return {"folder": f"folder:{own / 'pets'}", "csv": str(own / "set.csv")}


@pytest.mark.parametrize("kind", ["folder", "csv"])
def test_a_set_named_by_a_path_is_read_from_where_it_was_sent(named, kind, tmp_path):
    here = open_table(named[kind], "test")
    (image_set,) = image_sets(named[kind])
    if kind == "csv":
        names = {path.relative_to(image_set.folder).as_posix() for path in image_set.files()}
        assert len(names) == 13
        assert {"set.csv", "pets/dog/005.png"} < names
    node = tmp_path / "node"
    (node / image_set.place).parent.mkdir(parents=True)
    (tmp_path / "asker").rename(tmp_path / "sent")
    moved = tmp_path / "sent" / image_set.folder.relative_to(tmp_path / "asker")
    (node / image_set.place).symlink_to(moved)
    sent = open_table(named[kind], "test", data_dir=node)
    assert sent.name == here.name
    assert torch.equal(sent.images[:], here.images[:])
    assert torch.equal(sent.labels(), here.labels())


def test_sets_of_the_data_directory_are_named_and_others_are_nobodys(tmp_path):
    (tmp_path / "owner" / "pets").mkdir(parents=True)
    (tmp_path / "words").mkdir()
    found = {name: image_sets(name, tmp_path) for name in ("words", "hub:owner/pets", "digits")}
    assert {name: [each.place for each in sets] for name, sets in found.items()} == {
        "words": ["words"],
        "hub:owner/pets": ["owner/pets"],
        "digits": [],
    }
