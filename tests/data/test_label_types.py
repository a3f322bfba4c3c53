"""Label columns of every type and name, in Parquet files, CSV files, data sets and tensors."""

import io
import math

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from small_sets import encoded, pictures

from unfool.core.errors import DataError, SpecError, UnfoolWarning
from unfool.data.catalog import open_table
from unfool.data.readers.csv_file import images_of_csv
from unfool.data.readers.labels import class_numbers
from unfool.data.table import Table

FILES = [encoded(image) for image in pictures(4)]

pytestmark = pytest.mark.filterwarnings("ignore:.*has no splits", "ignore:.*has no column split")


def write(root, columns, splits=("train", "test"), **images):
    images = images or {"image": FILES}
    for split in splits:
        part = {name: values[split] if isinstance(values, dict) else values for name, values in columns.items()}
        data = {name: [{"bytes": data, "path": None} for data in files] for name, files in images.items()}
        root.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table({**data, **part}), root / f"{split}-00000-of-00001.parquet")


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        *((pa.array([0, 1, 0, 2], getattr(pa, kind)()), [0, 1, 0, 2], ["0", "1", "2"]) for kind in (
            "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64")),
        (pa.array([0.0, 1.0, 0.0, 2.0]), [0, 1, 0, 2], ["0", "1", "2"]),
        (pa.array([0, 1, 0, 2], pa.float32()), [0, 1, 0, 2], ["0", "1", "2"]),
        (pa.array([True, False, True, True]), [1, 0, 1, 1], ["False", "True"]),
        (pa.array(["dog", "cat", "dog", "emu"]), [1, 0, 1, 2], ["cat", "dog", "emu"]),
        (pa.array(["dog", "cat", "dog", "emu"]).dictionary_encode(), [1, 0, 1, 2], ["cat", "dog", "emu"]),
        (pa.array(["3", "1", "2.0", "0"]), [3, 1, 2, 0], ["0", "1", "2", "3"]),
        (pa.array(["01", "1", "10", "2"]), [0, 1, 2, 3], ["01", "1", "10", "2"]),
        (pa.array(np.array([0, 1, 0, 2], np.float16)), [0, 1, 0, 2], ["0", "1", "2"]),
    ],
    ids=lambda value: str(value.type) if isinstance(value, pa.Array) else "",
)  # fmt: skip
def test_labels_of_any_type_are_classes(tmp_path, labels, numbers, names):
    write(tmp_path / "set", {"label": labels})
    table = open_table("set", "train", data_dir=tmp_path)
    assert table.labels().tolist() == numbers
    assert table.labels().dtype == torch.int64
    assert table.classes == {"label": names}


def test_text_is_numbered_alike_in_all_splits(tmp_path):
    labels = {"train": ["cat", "dog", "emu", "dog"], "test": ["emu", "emu", "dog", "emu"]}
    write(tmp_path / "set", {"label": labels})
    train, test = (open_table("set", split, data_dir=tmp_path) for split in ("train", "test"))
    assert train.classes == test.classes == {"label": ["cat", "dog", "emu"]}
    assert test.labels().tolist() == [2, 2, 1, 2]


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (pa.array([0.5, 1.0, 0.0, 2.0]), "has label 0.5; give whole class numbers"),
        (pa.array([0, 1, None, 1], pa.uint8()), "1 labels outside its 2 classes, first in row 2"),
        (pa.array([0.0, 1.0, float("nan"), 1.0]), r"first in row 2 \(no label\)"),
        (pa.array([0, 1, -2, 1]), r"first in row 2 \(label -2\)"),
        (pa.array(["cat", "", "dog", None]), r"2 labels outside its 2 classes, first in row 1 \(no label\)"),
        (pa.array([0, 1, 10**8, 1]), "label 100000000, more than the 100,000 classes"),
        (pa.array([0, 1, 2**63, 1], pa.uint64()), "label 9223372036854775808"),
    ],
)
def test_what_are_no_classes_is_one_line(tmp_path, labels, words):
    write(tmp_path / "set", {"label": labels})
    with pytest.raises(DataError, match=words) as caught:
        open_table("set", "train", data_dir=tmp_path)
    assert "\n" not in str(caught.value)


def test_any_column_can_be_named_and_the_message_lists_them(tmp_path):
    write(tmp_path / "set", {"cls": [1, 0, 1, 0], "breed": ["a", "b", "b", "b"], "weight": [1.5, 2.5, 3.5, 4.5]})
    table = open_table("set", "train", data_dir=tmp_path)
    with pytest.raises(
        DataError, match=r"no label column 'label'; its other columns are cls \(int64\), breed \(string"
    ):
        table.labels("label")
    with pytest.raises(DataError, match=r"weight \(double\): name one with --label NAME"):
        table.subset(torch.arange(2)).labels()
    named = open_table("set", "train", data_dir=tmp_path, labels="cls")
    assert named.labels().tolist() == [1, 0, 1, 0]
    both = open_table("set", "train", data_dir=tmp_path, labels=("breed", "cls"))
    assert (both.label_column, both.labels("cls").tolist()) == ("breed", [1, 0, 1, 0])
    assert both.labels().tolist() == [0, 1, 1, 1]
    with pytest.raises(DataError, match=r"no column 'clss'; its columns are image \(struct with bytes\), cls"):
        open_table("set", "train", data_dir=tmp_path, labels="clss")
    with pytest.raises(SpecError, match="unknown label column 'cls'; allowed: label, parity"):
        open_table("digits", "train", labels="cls")


def test_a_named_column_goes_before_the_usual_one(tmp_path):
    write(tmp_path / "set", {"label": [0, 0, 0, 1], "other": [3, 2, 1, 0]})
    table = open_table("set", "test", data_dir=tmp_path, labels="other")
    assert (table.label_column, table.labels().tolist()) == ("other", [3, 2, 1, 0])
    assert table.labels("label").tolist() == [0, 0, 0, 1]


def test_the_column_of_images_is_the_usual_one_or_the_named_one(tmp_path):
    depth, image = ([encoded(np.full((8, 8, 3), value, np.uint8))] * 4 for value in (0, 200))
    write(tmp_path / "set", {"label": [0, 1, 0, 1]}, depth_map=depth, image=image)
    assert int(open_table("set", "train", data_dir=tmp_path).images.max()) == 200
    assert int(open_table("set", "train", data_dir=tmp_path, image="depth_map").images.max()) == 0
    write(tmp_path / "two", {"label": [0, 1, 0, 1]}, left=depth, right=image)
    with pytest.raises(DataError, match="several columns that may be the images, left, right; name one with --image"):
        open_table("two", "train", data_dir=tmp_path)
    assert int(open_table("two", "train", data_dir=tmp_path, image="right").images.max()) == 200
    with pytest.raises(DataError, match=r"'label' of .* holds int64 and no images"):
        open_table("two", "train", data_dir=tmp_path, image="label")
    with pytest.raises(DataError, match="one column of images"):
        open_table("digits", "train", image="pixels")


def parquet(root, image, **types):
    (root / "set").mkdir()
    table = pa.table({"image": pa.array([image] * 2, **types), "label": pa.array([0, 1])})
    for split in ("train", "test"):
        pq.write_table(table, root / "set" / f"{split}.parquet")
    return open_table("set", "train", data_dir=root)


PIXELS = pictures(1)[0]


@pytest.mark.parametrize("layout", [lambda p: p, lambda p: p.transpose(2, 0, 1), lambda p: p[:, :, 0]])
def test_nested_lists_of_whole_numbers_are_images(tmp_path, layout):
    table = parquet(tmp_path, layout(PIXELS).tolist())
    expected = PIXELS.transpose(2, 0, 1) if layout(PIXELS).ndim == 3 else np.stack([PIXELS[:, :, 0]] * 3)
    np.testing.assert_array_equal(table.images[1].numpy(), expected)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        ("photos/1.png", r"image \(string\).*CSV file with columns path and label"),
        ((PIXELS / 255).tolist(), "lists of floats.*Table.from_tensors"),
        ((PIXELS.astype(int) + 1000).tolist(), "first: row 0 .*pixels from 0 to 255"),
        ({"bytes": None, "path": "/etc/hostname"}, r"no readable image among its 2, first: row 0 \(no bytes\)"),
        (b"<html>", r"first: row 0 \(not one of PNG"),
    ],
)
def test_other_images_are_one_line(tmp_path, image, words):
    with pytest.raises(DataError, match=words) as caught:
        parquet(tmp_path, image)
    assert "\n" not in str(caught.value)


def test_columns_of_one_name_are_refused(tmp_path):
    image = pa.array([{"bytes": data, "path": None} for data in FILES])
    table = pa.Table.from_arrays([image, pa.array([0, 1, 0, 1]), pa.array([1, 1, 1, 1])], ["image", "label", "label"])
    (tmp_path / "set").mkdir()
    pq.write_table(table, tmp_path / "set" / "train.parquet")
    with pytest.raises(DataError, match="label"):
        open_table("set", "train", data_dir=tmp_path)


def test_a_hugging_face_set_in_memory_has_the_same_choice():
    from datasets import Dataset

    rows = {"scan": [Image.open(io.BytesIO(data)) for data in FILES], "kind": ["b", "a", "b", "b"]}
    table = Table.from_dataset(Dataset.from_dict(rows), image="scan", labels="kind")
    assert table.labels().tolist() == [1, 0, 1, 1]
    assert table.classes == {"kind": ["a", "b"]}
    with pytest.raises(DataError, match="has no named columns"):
        Table.from_dataset([(torch.zeros(3, 4, 4), 0)], labels="kind")


@pytest.mark.parametrize(
    ("labels", "numbers", "names"),
    [
        ([True, False, True], [1, 0, 1], ["False", "True"]),
        (np.array([2, 0, 1], np.uint8), [2, 0, 1], ["0", "1", "2"]),
        (torch.tensor([2.0, 0.0, 1.0]), [2, 0, 1], ["0", "1", "2"]),
        (["b", "a", "b"], [1, 0, 1], ["a", "b"]),
        (["1", "0", "2"], [1, 0, 2], ["0", "1", "2"]),
        (torch.tensor([[1], [0], [2]]), [1, 0, 2], ["0", "1", "2"]),
    ],
)
def test_tensors_take_the_same_labels(labels, numbers, names):
    table = Table.from_tensors(torch.zeros(3, 3, 4, 4), labels)
    assert (table.labels().tolist(), table.classes) == (numbers, {"label": names})


@pytest.mark.parametrize(
    "labels", [[1, None, 0], ["b", "", "a"], np.array(["b", None, "a"], object), [1.0, math.nan, 0.0]]
)
def test_a_label_that_is_missing_is_named_by_its_row(labels):
    with pytest.raises(DataError, match="has no label in row 1"):
        Table.from_tensors(torch.zeros(3, 3, 4, 4), labels)


@pytest.mark.parametrize(
    "labels", [[1, -2, 0], np.array([1, -2, 0]), torch.tensor([1, -2, 0]), torch.tensor([[1], [-2], [0]])]
)
def test_a_negative_label_is_no_missing_one(labels):
    with pytest.raises(DataError, match="label -2; number the classes from 0"):
        Table.from_tensors(torch.zeros(3, 3, 4, 4), labels)


def test_known_names_number_texts():
    numbers, names = class_numbers(["emu", "cat", None], "label", ["emu", "dog", "cat"])
    assert (numbers.tolist(), names) == ([0, 2, -1], ["emu", "dog", "cat"])
    with pytest.raises(DataError, match="'cow', which is none of its 2 classes"):
        class_numbers(["cow"], "label", ["emu", "dog"])


def csv_of(root, header, rows):
    (root / "pictures").mkdir(exist_ok=True)
    for index, data in enumerate(FILES):
        (root / "pictures" / f"{index}.png").write_bytes(data)
    (root / "set.csv").write_text("\n".join([header, *rows]) + "\n")
    return str(root / "set.csv")


def test_a_csv_file_names_images_and_labels(tmp_path):
    rows = ["pictures/2.png,cat,test", "pictures/0.png,dog,train", "pictures/1.png,cat,train"]
    name = csv_of(tmp_path, "path,label,split", rows)
    train, test = open_table(name, "train"), open_table(name, "test")
    np.testing.assert_array_equal(train.images.numpy(), pictures(4)[[0, 1]].transpose(0, 3, 1, 2))
    assert (train.labels().tolist(), test.labels().tolist()) == ([1, 0], [0])
    assert train.classes == test.classes == {"label": ["cat", "dog"]}
    assert (train.ids.tolist(), test.ids.tolist()) == ([1, 2], [0])


PLAIN = [f"pictures/{row}.png,{row % 2}" for row in range(4)]


def as_they_come(root, text, name="set.csv"):
    csv_of(root, "", [])
    (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
    return str(root / name)


@pytest.mark.parametrize(
    "text",
    [
        "\n".join(PLAIN),
        "\ufeffpath,label\r\n" + "\r\n".join(PLAIN),
        "path;label\n" + "\n".join(PLAIN).replace(",", ";"),
        "path\tlabel\n" + "\n".join(PLAIN).replace(",", "\t"),
        "path, label\n" + "\n".join(PLAIN).replace(",", " , "),
        "path,label\n" + "\n".join(f'"{row}.0"'.replace(",", '","') for row in PLAIN),
        "Path,Label\n" + "\n".join(PLAIN).replace("/", "\\"),
        "id,img,label\n" + "\n".join(f"{row},{line}" for row, line in enumerate(PLAIN)),
    ],
    ids=["no header", "BOM", "semicolons", "tabs", "spaces", "quotes", "Windows", "other columns"],
)
@pytest.mark.parametrize("name", ["set.csv", "set.TSV"])
def test_csv_files_as_they_come(tmp_path, text, name):
    tables = [open_table(as_they_come(tmp_path, text, name), split) for split in ("train", "test")]
    labels = {int(i): int(label) for table in tables for i, label in zip(table.ids, table.labels(), strict=True)}
    assert labels == {0: 0, 1: 1, 2: 0, 3: 1}
    shown = {int(i): image for table in tables for i, image in zip(table.ids, table.images, strict=True)}
    np.testing.assert_array_equal(shown[3].numpy(), pictures(4)[3].transpose(2, 0, 1))


def test_a_column_of_splits_is_known_in_any_case_and_pictures_that_change_are_read_again(tmp_path):
    name = csv_of(tmp_path, "path,label,Split", ["pictures/0.png,0,Train", "pictures/1.png,1,VAL"])
    assert open_table(name, "train").ids.tolist() == [0]
    assert open_table(name, "test").split == "validation"
    (tmp_path / "pictures" / "0.png").write_bytes(encoded(np.full((8, 8, 3), 7, np.uint8)))
    assert int(open_table(name, "train").images.max()) == 7


@pytest.mark.parametrize(("column", "image"), [("path", None), ("scan", "scan")])
@pytest.mark.parametrize("ending", ["", ".jfif"])
def test_pictures_without_a_known_ending_that_change_are_read_again(tmp_path, column, image, ending):
    name = csv_of(tmp_path, f"{column},label,split", [f"pictures/{row}{ending},{row},train" for row in range(2)])
    for row in range(2):
        (tmp_path / "pictures" / f"{row}.png").rename(tmp_path / "pictures" / f"{row}{ending}")
    assert [path.name for path in images_of_csv(tmp_path / "set.csv")] == [f"0{ending}", f"1{ending}"]
    assert int(open_table(name, "train", image=image).images[1].max()) != 7
    (tmp_path / "pictures" / f"1{ending}").write_bytes(encoded(np.full((8, 8, 3), 7, np.uint8)))
    assert int(open_table(name, "train", image=image).images[1].max()) == 7


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\npictures/0.png,-1\npictures/1.png,1", "has label -1; number the classes from 0"),
        ("path,label\npictures/\u00fc.png,1".encode("latin-1"), r"no UTF-8 text \(byte 20\)"),
        (b"", "cannot read .* as CSV"),
    ],
)
def test_other_csv_files_are_one_line(tmp_path, text, words):
    with pytest.raises(DataError, match=words):
        open_table(as_they_come(tmp_path, text), "train")
    with pytest.raises(DataError, match="there is no file"):
        open_table(str(tmp_path / "none.csv"), "train")


@pytest.mark.filterwarnings("ignore:.*images of test are in train too")
@pytest.mark.parametrize(
    ("header", "more", "stratified_by"),
    [
        ("file,kind", "", "kind"),
        ("file,kind,grade_label", ",0", "grade_label"),
        ("file,kind,class", ",0", "class"),
        ("file,kind_label,grade", ",0", "kind_label"),
        ("file,kind,grade", ",0", None),
    ],
)
def test_the_cut_of_a_csv_file_follows_from_it_alone(tmp_path, header, more, stratified_by):
    kinds = ["cat" if row < 15 else "dog" if row < 25 else "emu" for row in range(30)]
    name = csv_of(tmp_path, header, [f"pictures/{row % 4}.png,{kind}{more}" for row, kind in enumerate(kinds)])
    words = "" if stratified_by else ", whatever their classes, as no column is called label"
    message = f"6 of its 30 images are taken as test, the others as train{words}; add the column"
    _, kind, *others = header.split(",")
    cuts = []
    for column in (kind, *others):
        with pytest.warns(UnfoolWarning, match=message):
            cuts.append(open_table(name, "test", labels=column))
    # Whatever column a call names, it tests on no image that another call trains on.
    assert all(torch.equal(cut.ids, cuts[0].ids) for cut in cuts)
    assert (cuts[0].labels(kind).bincount().tolist() == [3, 2, 1]) is (stratified_by == kind)


@pytest.mark.filterwarnings("ignore:.*images of test are in train too")
def test_a_column_of_a_csv_file_that_hardly_repeats_is_no_class(tmp_path):
    name = csv_of(tmp_path, "file,price", [f"pictures/{row % 4}.png,{row}" for row in range(30)])
    with pytest.warns(UnfoolWarning, match="6 of its 30 images are taken as test, the others as train, whatever"):
        assert len(open_table(name, "test")) == 6


def test_a_csv_file_without_splits_is_cut_like_a_folder(tmp_path):
    name = csv_of(tmp_path, "file,cls", [f"pictures/{row % 4}.png,{row % 2}" for row in range(10)])
    with pytest.warns(UnfoolWarning, match="2 of 2 images of test are in train too"):
        train, test = (open_table(name, split, labels="cls") for split in ("train", "test"))
    assert (len(train), len(test)) == (8, 2)
    assert sorted(train.ids.tolist() + test.ids.tolist()) == list(range(10))
    assert train.labels().bincount().tolist() == [4, 4]


@pytest.mark.parametrize(
    ("header", "rows", "words"),
    [
        ("path,label", ["pictures/9.png,0"], "1 of 1 files that .* names do not exist"),
        ("a,label", ["pictures/0.png,0"], r"no column of paths; its columns are a \(text\), label"),
        ("path,file,label", ["x,pictures/0.png,0"], "several columns that may be paths, path, file"),
        ("path,label,split", ["pictures/0.png,0,somewhere"], "split 'somewhere'; allowed: train"),
        ("path,label", [], "no rows"),
        ("path,label", ["pictures/0.png,0", "pictures/1.png,"], "labels only some rows"),
    ],
)
def test_a_csv_file_that_does_not_fit_is_one_line(tmp_path, header, rows, words):
    with pytest.raises(DataError, match=words) as caught:
        open_table(csv_of(tmp_path, header, rows), "train")
    assert "\n" not in str(caught.value)
