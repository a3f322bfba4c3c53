"""Folders of images with one directory per class."""

import pytest
from small_sets import encoded, pictures

from unfool.core.errors import DataError, UnfoolWarning
from unfool.data.catalog import open_table

pytestmark = pytest.mark.filterwarnings("ignore:.*has no splits")


def write(root, counts, seed=0):
    for number, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for index, image in enumerate(pictures(count, seed=100 * seed + number)):
            (root / name / f"{index:03d}.png").write_bytes(encoded(image))


def test_a_plain_folder_gets_a_fixed_stratified_split(tmp_path):
    write(tmp_path / "set", {"cat": 20, "dog": 10, "rare": 1})
    train = open_table(f"folder:{tmp_path / 'set'}", "train")
    test = open_table(f"folder:{tmp_path / 'set'}", "test")
    assert train.classes["label"] == ["cat", "dog", "rare"]
    assert train.labels().bincount().tolist() == [16, 8, 1]
    assert test.labels().bincount(minlength=3).tolist() == [4, 2, 0]
    assert sorted(train.ids.tolist() + test.ids.tolist()) == list(range(31))
    shown = {image.numpy().tobytes() for image in train.images}
    assert not shown & {image.numpy().tobytes() for image in test.images}
    assert open_table(f"folder:{tmp_path / 'set'}", "test").ids.tolist() == test.ids.tolist()


def test_a_cut_into_splits_is_told(tmp_path):
    write(tmp_path / "set", {"cat": 20, "dog": 10, "rare": 1})
    words = r"set has no splits: 6 of its 31 images are taken as test, the others as train; put them into train/ and"
    with pytest.warns(UnfoolWarning, match=words):
        open_table(f"folder:{tmp_path / 'set'}", "test")
    lines = [f"set/cat/{number:03d}.png,cat" for number in range(20)]
    (tmp_path / "set.csv").write_text("\n".join(["path,label", *lines]))
    words = r"set.csv has no column split: 4 of its 20 images are taken as test, the others as train; add the column"
    with pytest.warns(UnfoolWarning, match=words):
        open_table(str(tmp_path / "set.csv"), "train")


@pytest.mark.parametrize(("held", "split"), [("test", "test"), ("val", "validation")])
def test_its_own_splits_are_used(tmp_path, held, split):
    write(tmp_path / "train", {"cat": 3, "dog": 2})
    write(tmp_path / held, {"cat": 1, "dog": 4}, seed=1)
    test = open_table(f"folder:{tmp_path}", "test")
    assert test.split == split
    assert test.labels().tolist() == [0, 1, 1, 1, 1]
    assert open_table(f"folder:{tmp_path}", "train").labels().tolist() == [0, 0, 0, 1, 1]


def test_unlabelled_images_have_no_labels(tmp_path):
    write(tmp_path / "train", {"cat": 2})
    write(tmp_path / "unlabelled", {"anything": 3})
    table = open_table(f"folder:{tmp_path}", "unlabelled")
    assert len(table) == 3
    assert table.columns == {}


def test_damaged_files_are_named(tmp_path):
    write(tmp_path, {"cat": 3})
    (tmp_path / "cat" / "bad.jpg").write_bytes(b"not a picture")
    (tmp_path / "train").mkdir()
    (tmp_path / "cat").rename(tmp_path / "train" / "cat")
    with pytest.warns(UnfoolWarning, match=r"1 of 4 images are corrupt and left out, first: train/cat/bad.jpg \(not"):
        table = open_table(f"folder:{tmp_path}", "train")
    assert len(table) == 3


def test_a_new_file_is_noticed(tmp_path):
    write(tmp_path / "train", {"cat": 2})
    assert len(open_table(f"folder:{tmp_path}", "train")) == 2
    (tmp_path / "train" / "cat" / "new.png").write_bytes(encoded(pictures(1, seed=9)[0]))
    assert len(open_table(f"folder:{tmp_path}", "train")) == 3


def test_what_is_no_folder_of_classes_is_refused(tmp_path):
    with pytest.raises(DataError, match="not a directory"):
        open_table(f"folder:{tmp_path / 'none'}", "train")
    with pytest.raises(DataError, match="no directories"):
        open_table(f"folder:{tmp_path}", "train")
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="no images"):
        open_table(f"folder:{tmp_path}", "train")
    write(tmp_path / "set" / "train", {"cat": 2})
    write(tmp_path / "set" / "test", {"cow": 2})
    with pytest.raises(DataError, match="the class 'cow', which train lacks"):
        open_table(f"folder:{tmp_path / 'set'}", "test")


def test_hidden_names_are_skipped_at_every_depth(tmp_path):
    write(tmp_path / "set", {"cat": 5, "dog": 5})
    copies = tmp_path / "set" / "cat" / "more" / ".ipynb_checkpoints"
    copies.mkdir(parents=True)
    (copies / "000-checkpoint.png").write_bytes((tmp_path / "set" / "cat" / "000.png").read_bytes())
    (tmp_path / "set" / "dog" / "._000.png").write_bytes(b"\0\5\x16\7")
    train, test = (open_table(f"folder:{tmp_path / 'set'}", split) for split in ("train", "test"))
    assert len(train) + len(test) == 10
    shown = {image.numpy().tobytes() for image in train.images}
    assert not shown & {image.numpy().tobytes() for image in test.images}


def test_empty_classes_and_skipped_endings_are_told(tmp_path):
    write(tmp_path / "set", {"cat": 5, "dog": 5})
    (tmp_path / "set" / "empty").mkdir()
    for name in ("photo.jfif", "other.JFIF", "notes.txt", "README"):
        (tmp_path / "set" / "dog" / name).write_bytes(b"x")
    with pytest.warns(UnfoolWarning) as told:
        table = open_table(f"folder:{tmp_path / 'set'}", "train")
    words = [str(warning.message) for warning in told]
    assert any("1 classes are empty and left out: empty" in line for line in words)
    assert any("skipped: .jfif (2), .txt (1), none (1); images end in .bmp" in line for line in words)
    assert table.classes == {"label": ["cat", "dog"]}


def test_what_systems_leave_beside_files_is_no_class(tmp_path):
    write(tmp_path / "set", {"cat": 5, "dog": 5, "__MACOSX/cat": 2, "@eaDir": 1})
    (tmp_path / "set" / "dog" / "Thumbs.db").write_bytes(b"x")
    assert open_table(f"folder:{tmp_path / 'set'}", "train").classes == {"label": ["cat", "dog"]}


def test_a_folder_with_test_images_alone_is_no_class_of_that_name(tmp_path):
    write(tmp_path / "set" / "test", {"cat": 2, "dog": 3})
    test = open_table(f"folder:{tmp_path / 'set'}", "test")
    assert (test.classes["label"], test.labels().tolist()) == (["cat", "dog"], [0, 0, 1, 1, 1])
    with pytest.raises(DataError, match="no train split; it has test"):
        open_table(f"folder:{tmp_path / 'set'}", "train")


@pytest.mark.parametrize(
    ("names", "split"), [(("train", "training"), "train"), (("train", "val", "valid"), "validation"),
                         (("test", "testing"), "test")]
)  # fmt: skip
def test_two_folders_of_a_split_are_named(tmp_path, names, split):
    for seed, name in enumerate(names):
        write(tmp_path / name, {"cat": 2, "dog": 2}, seed)
    with pytest.raises(DataError, match=f"has {names[-2]} and {names[-1]}, which are both its split '{split}'"):
        open_table(f"folder:{tmp_path}", "test")


def test_a_class_that_train_gains_renumbers_a_test_split_that_was_opened_before(tmp_path):
    for seed, split in enumerate(("train", "test")):
        write(tmp_path / split, {"cat": 2, "dog": 2}, seed)
    assert open_table(f"folder:{tmp_path}", "test").labels().tolist() == [0, 0, 1, 1]
    write(tmp_path / "train", {"bee": 2}, seed=3)
    with pytest.warns(UnfoolWarning, match="test has no image of 1 of 3 classes: bee"):
        test = open_table(f"folder:{tmp_path}", "test")
    assert (test.classes["label"], test.labels().tolist()) == (["bee", "cat", "dog"], [1, 1, 2, 2])


def test_what_is_odd_about_a_folder_is_told(tmp_path):
    write(tmp_path / "one", {"golden retriever": 5})
    with pytest.warns(UnfoolWarning, match="one class alone, golden retriever"):
        open_table(f"folder:{tmp_path / 'one'}", "train")
    for seed, split in enumerate(("train", "test")):
        write(tmp_path / "set" / split, {"Кот": 2, "dog": 2}, seed)
    (tmp_path / "set" / "test" / "empty").mkdir()
    (tmp_path / "set" / "test" / "loose.PNG").write_bytes(encoded(pictures(1)[0]))
    with pytest.warns(UnfoolWarning, match=r"1 images lie in no class directory and are left out, first loose\.PNG"):
        table = open_table(f"folder:{tmp_path / 'set'}", "test")
    assert table.classes == {"label": ["dog", "Кот"]}
    (tmp_path / "outer").mkdir()
    (tmp_path / "set").rename(tmp_path / "outer" / "set")
    with pytest.raises(DataError, match=r"holds splits in set; give folder:.*set"):
        open_table(f"folder:{tmp_path / 'outer'}", "test")


def test_links_are_followed_and_circles_are_not(tmp_path):
    write(tmp_path / "elsewhere", {"cat": 5})
    write(tmp_path / "set", {"dog": 5}, seed=1)
    (tmp_path / "set" / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    (tmp_path / "set" / "dog" / "again").symlink_to(tmp_path / "set")
    (tmp_path / "set" / "dog" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    tables = [open_table(f"folder:{tmp_path / 'set'}", split) for split in ("train", "test")]
    assert sum(len(table) for table in tables) == 10
    assert tables[0].labels().bincount().tolist() == [4, 4]


@pytest.mark.parametrize(
    ("name", "words"),
    [("folder:", "no path was given"), ("folder: ", "no path"), ("folder:~no-such-user/x", "home folder of ~no-such")],
)
def test_paths_that_lead_nowhere_are_one_line(name, words):
    with pytest.raises(DataError, match=words):
        open_table(name, "train")
