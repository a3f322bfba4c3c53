"""Several labels of an image are one class, their set, from text, lists and lists of declared classes."""

import datasets
import pytest
import torch
from PIL import Image

from unfool.core.errors import DataError
from unfool.data.classes.label_sets import label_sets, merged_sets
from unfool.data.readers.label_text import text_of_labels
from unfool.data.table import Table

BLANK = Image.new("RGB", (4, 4))


def of_lists(feature, lists):
    features = datasets.Features({"image": datasets.Image(), "labels": datasets.List(feature)})
    return datasets.Dataset.from_dict({"image": [BLANK] * len(lists), "labels": lists}, features)


@pytest.mark.parametrize(
    ("feature", "lists"),
    [
        (datasets.Value("int32"), [[2, 0], [0, 2], [], [1]]),
        (datasets.Value("string"), [["2", "0"], ["0", "2"], [], ["1"]]),
        (datasets.ClassLabel(names=["0", "1", "2"]), [[2, 0], [0, 2], [], [1]]),
    ],
    ids=["numbers", "text", "classes"],
)
def test_lists_are_sets(feature, lists):
    table = Table.from_dataset(of_lists(feature, lists))
    assert table.label_column == "labels"
    assert table.classes["labels"] == ["0;2", "1", "none"]
    assert table.labels().tolist() == [0, 0, 2, 1]


def test_lists_of_something_else_are_no_labels():
    assert Table.from_dataset(of_lists(datasets.Value("float32"), [[0.5]])).columns == {}
    with pytest.raises(DataError, match="lists of float"):
        text_of_labels([0.5], "labels")
    with pytest.raises(DataError, match="without ';'"):
        text_of_labels(["a;b"], "labels")


def test_sets_of_text_are_one_however_they_are_written():
    labels = ["dog; cat", "none", "cat;dog", "bird", "cat ;cat; dog"]
    table = merged_sets(Table.from_tensors(torch.zeros(5, 3, 4, 4), labels), None)
    assert table.classes["label"] == ["bird", "cat;dog", "none"]
    assert table.labels().tolist() == [1, 2, 1, 0, 1]
    outputs = ["dog", "bird", "fish", "cat"]
    assert label_sets(table.classes["label"], outputs, "pets") == [[1], [0, 3], []]
    assert label_sets(["3;1", "none", "0"], None, "pets") == [[1, 3], [], [0]]


@pytest.mark.parametrize(
    ("classes", "outputs", "words"),
    [(["cat"], None, "'cat'; give --classes FILE"), (["cta"], ["cat"], "did you mean 'cat'")],
)
def test_labels_that_are_no_outputs_are_refused(classes, outputs, words):
    with pytest.raises(DataError, match=words):
        label_sets(classes, outputs, "pets")
