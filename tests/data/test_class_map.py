"""Labels by the names of a network's outputs."""

import json

import pytest
import torch

from unfool.core.errors import DataError
from unfool.data.classes.class_map import imagenet_classes, map_classes, names_of_outputs
from unfool.data.classes.names_file import read_class_names
from unfool.data.table import Table

IMAGENETTE = ["tench", "English springer", "cassette player", "chain saw", "church", "French horn", "garbage truck",
              "gas pump", "golf ball", "parachute"]  # fmt: skip
NUMBERS = [0, 217, 482, 491, 497, 566, 569, 571, 574, 701]


def table(classes, labels=None):
    labels = list(range(len(classes))) if labels is None else labels
    return Table.from_tensors(torch.rand(len(labels), 3, 4, 4), labels, classes=classes)


def test_imagenette_is_known_by_names_and_by_wordnet_ids():
    assert len(set(imagenet_classes())) == 1000
    assert [line[:9] for line in imagenet_classes()] == sorted(line[:9] for line in imagenet_classes())
    by_name = map_classes(table(IMAGENETTE), imagenet_classes())
    assert by_name.labels().tolist() == NUMBERS
    ids = [imagenet_classes()[number][:9] for number in NUMBERS]
    for spelled in (ids, [f"{wordnet}_{name}" for wordnet, name in zip(ids, IMAGENETTE, strict=True)]):
        assert map_classes(table(spelled), imagenet_classes()).labels().tolist() == NUMBERS
    assert by_name.classes["label"][217].startswith("n02102040 English springer")


def test_images_ids_and_other_columns_stay():
    labels = {"label": [1, 0, 1], "other": [0, 1, 2]}
    before = Table.from_tensors(
        torch.rand(3, 3, 4, 4), labels, classes={"label": ["cat", "dog"]}, ids=torch.tensor([7, 3, 5])
    )
    after = map_classes(before, ["dog", "emu", "cat"])
    assert after.labels().tolist() == [0, 2, 0]
    assert after.labels("other").tolist() == [0, 1, 2]
    assert torch.equal(after.images, before.images)
    assert torch.equal(after.ids, before.ids)
    assert before.labels().tolist() == [1, 0, 1]


@pytest.mark.parametrize(
    ("classes", "outputs", "words"),
    [
        (["cat", "cow"], ["cat", "dog"], r"class 'cow' of tensors is none of the 2 outputs \(cat, dog, …\)"),
        (["crane"], ["crane, bird", "crane, machine"], "may be several outputs"),
    ],
)
def test_a_class_of_no_output_or_of_several_is_one_line(classes, outputs, words):
    with pytest.raises(DataError, match=words) as caught:
        map_classes(table(classes), outputs)
    assert "\n" not in str(caught.value)


def test_imagenet_is_only_guessed_for_a_thousand_outputs_and_known_classes():
    assert names_of_outputs(table(IMAGENETTE), 1000) == imagenet_classes()
    assert names_of_outputs(table(IMAGENETTE), 1001) is None
    assert names_of_outputs(table(["tench", "unheard of"]), 1000) is None
    assert names_of_outputs(Table.from_tensors(torch.rand(2, 3, 4, 4)), 1000) is None


@pytest.mark.parametrize(
    "text",
    [
        "cat\ndog\n\n",
        json.dumps(["cat", "dog"]),
        json.dumps({"0": "cat", "1": "dog"}),
    ],
)
def test_files_of_class_names(tmp_path, text):
    (tmp_path / "names").write_text(text)
    assert read_class_names(tmp_path / "names") == ["cat", "dog"]


def test_the_index_of_keras_keeps_both_names(tmp_path):
    (tmp_path / "names").write_text(json.dumps({"1": ["n02", "dog"], "0": ["n01", "cat"]}))
    assert read_class_names(tmp_path / "names") == ["n01, cat", "n02, dog"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.txt", "\ufeffcat\r\ndog\r\n"),
        ("a.txt", "1: dog\n0: cat\n"),
        ("a.txt", "0 cat\n1 dog\n"),
        ("a.csv", "index,name\n0,cat\n1,dog\n"),
        ("a.csv", 'name;index\n"dog";1\n"cat";0\n'),
        ("a.yaml", "- cat\n- dog\n"),
        ("a.yml", "nc: 2\nnames: {0: cat, 1: dog}\n"),
        ("a.json", '{"dog": 1, "cat": 0}'),
        ("config.json", '{"model_type": "vit", "id2label": {"0": "cat", "1": "dog"}}'),
    ],
)
def test_files_of_class_names_as_they_come(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    assert read_class_names(tmp_path / name) == ["cat", "dog"]


def test_names_that_begin_with_other_numbers_stay(tmp_path):
    (tmp_path / "names").write_text("3 of hearts\n7 of clubs\n")
    assert read_class_names(tmp_path / "names") == ["3 of hearts", "7 of clubs"]
    assert map_classes(table(["golden_retriever"]), ["cat", "Golden-Retriever"]).labels().tolist() == [1]


@pytest.mark.parametrize("text", ["", "cat\n\ndog", "[1, 2]", '{"0": "cat", "2": "dog"}', "[", "[" * 5000, '{"0": 3}'])
def test_other_files_are_one_line(tmp_path, text):
    (tmp_path / "names").write_text(text)
    with pytest.raises(DataError) as caught:
        read_class_names(tmp_path / "names")
    assert "\n" not in str(caught.value)
    with pytest.raises(DataError, match="cannot read"):
        read_class_names(tmp_path / "none")
