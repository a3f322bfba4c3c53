"""Records and stored sets: every figure comes from them, and an edited file is not believed."""

import dataclasses
import json
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_systems import make_network, make_table

from unfool.attacks import make_attack
from unfool.core.borders.checksum import checksum
from unfool.core.errors import DataError, OutputError, WeightsError
from unfool.evaluation import AdversarialSet, Records, classify, craft, identity, load_set, save_set, wilson
from unfool.evaluation.results.rows import Row
from unfool.models.weights import load_tensors, save_tensors

ROW = [
    "model", "seed", "data", "split", "attack", "threat", "protocol", "defense", "settings", "accuracy", "low", "high",
    "loss", "n", "crafted_on", "judged_on", "source_value", "cost",
]  # fmt: skip
"""The contract of the design, name by name."""


def make_records(correct=(True, False, True), **changes):
    count = len(correct)
    values = {
        "attack": "pgd-20",
        "threat": "linf:8/255",
        "data": "cifar10",
        "split": "test",
        "seed": 4,
        "ids": list(range(count)),
        "correct": list(correct),
        "losses": [0.25 * index for index in range(count)],
        "distances": [0.01] * count,
        "crafted_on": "a" * 16,
        "judged_on": "a" * 16,
        "cpu_seconds": 1.23456,
        "model_images": 60,
        "settings": {"steps": 20, "step_size": 2 / 255},
        **changes,
    }
    return Records(**values)


CLEAN = {"attack": "none", "crafted_on": None, "judged_on": None}


@pytest.fixture(scope="module")
def examples():
    return craft(make_network(), make_table(6), make_attack("pgd-2", "linf:8/255"))


def test_a_row_is_the_contract_s():
    row = make_records().row("single-task", seed=7, settings={"loss": "as meant"}, source_value=0.5)
    assert Row.from_json(json.loads(json.dumps(row.to_json()))) == row
    row = row.to_json()
    assert list(row) == ROW
    low, high = wilson(2, 3)
    assert row == {
        "model": "single-task",
        "seed": 7,
        "data": "cifar10",
        "split": "test",
        "attack": "pgd-20",
        "threat": "linf:8/255",
        "protocol": "white-box",
        "defense": "none",
        "settings": {"loss": "as meant"},
        "accuracy": 0.666667,
        "low": round(low, 6),
        "high": round(high, 6),
        "loss": 0.25,
        "n": 3,
        "crafted_on": "a" * 16,
        "judged_on": "a" * 16,
        "source_value": 0.5,
        "cost": {"cpu_seconds": 1.23, "model_images": 60},
    }
    plain = make_records(**CLEAN).row("single-task").to_json()
    assert (plain["protocol"], plain["crafted_on"], plain["judged_on"]) == ("clean", None, None)
    assert (plain["seed"], plain["settings"], plain["source_value"]) == (4, {}, None)
    json.dumps(plain, allow_nan=False)


@given(st.lists(st.booleans(), min_size=1, max_size=300))
def test_figures_are_computed_from_the_records_alone(correct):
    row = make_records(correct).row("any")
    assert row.accuracy == round(correct.count(True) / len(correct), 6)
    assert (row.low, row.high) == tuple(round(end, 6) for end in wilson(correct.count(True), len(correct)))
    assert row.low <= row.accuracy <= row.high
    assert row.n == len(correct)


@given(st.text("0123456789abcdef", min_size=1), st.text("0123456789abcdef", min_size=1))
def test_different_hashes_are_never_white_box(crafted_on, judged_on):
    found = make_records(crafted_on=crafted_on, judged_on=judged_on)
    assert found.protocol == ("white-box" if crafted_on == judged_on else "transfer")
    assert found.row("any").protocol == found.protocol


def test_the_protocol_cannot_be_set():
    with pytest.raises(TypeError):
        make_records(protocol="white-box")
    found = make_records(judged_on="b" * 16)
    with pytest.raises(AttributeError):
        found.protocol = "white-box"
    with pytest.raises(TypeError):
        found.row("any", protocol="white-box")


@pytest.mark.parametrize(
    "changes",
    [
        {"attack": "none"},
        {"attack": "none", "crafted_on": None},
        {"crafted_on": None},
        {"judged_on": None},
        {"crafted_on": None, "judged_on": None},
        {"crafted_on": "", "judged_on": ""},
        {"losses": [0.1, 0.2]},
        {"ids": [1]},
        {"losses": [0.1, 0.2, math.nan]},
        {"distances": [0.1, 0.2, math.inf]},
        {"correct": [1, 0, 1]},
        {"ids": [], "correct": [], "losses": [], "distances": []},
    ],
)
def test_records_that_contradict_themselves_are_refused(changes):
    with pytest.raises(DataError):
        make_records(**changes)


def test_records_come_back_as_they_were_saved(tmp_path):
    for number, records in enumerate((make_records(), make_records(**CLEAN), make_records(zero_gradient=2))):
        path = tmp_path / "deep" / f"{number}.json"
        records.save(path)
        assert Records.load(path) == records
        assert Records.load(path).row("any") == records.row("any")
    assert len(list((tmp_path / "deep").iterdir())) == 3


def edited(path, **changes):
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, **changes}))


@pytest.mark.parametrize(
    "changes",
    [
        {"crafted_on": "b" * 16},
        {"correct": [True, True, True]},
        {"attack": "pgd-7"},
        {"seed": 5},
        {"model_images": 0},
        {"protocol": "white-box"},
        {"checksum": "0" * 32},
        {"checksum": None},
        {"ids": None},
    ],
)
def test_edited_records_are_not_believed(tmp_path, changes):
    path = tmp_path / "records.json"
    make_records(judged_on="b" * 16).save(path)
    edited(path, **changes)
    with pytest.raises(DataError, match="evaluate again"):
        Records.load(path)


@pytest.mark.parametrize(
    "text", ["", "[]", "3", "{", '{"schema_version": 1}', '{"schema_version": "1"}', "\x00\xff", "null"]
)
def test_files_that_hold_no_records_are_refused(tmp_path, text):
    path = tmp_path / "records.json"
    path.write_text(text, encoding="latin-1")
    with pytest.raises(DataError) as error:
        Records.load(path)
    assert "\n" not in str(error.value)


def test_newer_missing_and_unwritable_records_are_told(tmp_path):
    path = tmp_path / "records.json"
    make_records().save(path)
    edited(path, schema_version=3, invented_later=1)
    with pytest.raises(DataError, match="update unfool"):
        Records.load(path)
    with pytest.raises(DataError, match="cannot read"):
        Records.load(tmp_path / "absent.json")
    with pytest.raises(OutputError):
        make_records().save(path / "below a file.json")


@pytest.mark.parametrize(
    ("attack", "follows"), [("pgd-20", True), ("square-500", False), ("autoattack", None), ("worst-case", None)]
)
def test_records_of_the_first_version_are_read_by_the_attacks_name(tmp_path, attack, follows):
    records = make_records(attack=attack, zero_gradient=2)
    records.save(tmp_path / "now.json")
    values = json.loads((tmp_path / "now.json").read_text())
    for name in ("schema_version", "checksum", "follows_gradients"):
        del values[name]
    values["flat"] = values.pop("zero_gradient")
    path = tmp_path / "then.json"
    path.write_text(json.dumps({"schema_version": 1, **values, "seal": checksum(values)}))
    loaded = Records.load(path)
    assert loaded.follows_gradients is follows
    assert dataclasses.replace(loaded, follows_gradients=None) == records
    path.write_text(json.dumps({"schema_version": 1, **values, "seal": checksum({**values, "seed": 9})}))
    with pytest.raises(DataError, match="checksum does not fit"):
        Records.load(path)


# Adversarial sets


def same(left, right):
    for part in dataclasses.fields(AdversarialSet):
        one, two = getattr(left, part.name), getattr(right, part.name)
        equal = torch.equal(one, two) and one.dtype == two.dtype if isinstance(one, torch.Tensor) else one == two
        assert equal, part.name


def test_sets_come_back_bit_for_bit_and_are_judged_the_same(tmp_path, examples):
    save_set(examples, tmp_path / "set.safetensors")
    loaded = load_set(tmp_path / "set.safetensors")
    same(examples, loaded)
    network = make_network()
    assert classify(network, loaded).correct == classify(network, examples).correct
    assert classify(network, loaded).protocol == "white-box"
    assert [path.name for path in tmp_path.iterdir()] == ["set.safetensors"]


@pytest.mark.parametrize("version", [1, 2, 3])
def test_sets_of_earlier_versions_are_read(tmp_path, examples, version):
    save_set(examples, tmp_path / "now.safetensors")
    tensors, manifest = load_tensors(tmp_path / "now.safetensors")
    later = ["schema_version", "adversarial_set", "checksum"]
    later += ["follows_gradients"] * (version < 3) + ["parts"] * (version == 1)
    manifest = {name: value for name, value in manifest.items() if name not in later}
    if version == 1:
        del tensors["by"]
    path = tmp_path / "then.safetensors"
    seal = "checksum" if version > 2 else "seal"
    save_tensors(path, tensors, {"adversarial_set": version, **manifest, seal: checksum(manifest, tensors)})
    loaded = load_set(path)
    if version > 1:
        same(loaded, examples)
    assert loaded.fooled_by_part.tolist() == (examples.fooled_by_part.tolist() if version > 1 else [-1] * 6)
    assert loaded.follows_gradients == [True] * len(loaded.parts)
    assert torch.equal(loaded.images, examples.images)


def rewritten(path, tensors=None, **changes):
    """The file with some of it changed, by someone who knows the format but leaves the checksum."""
    before, metadata = load_tensors(path)
    metadata.pop("schema_version", None)
    metadata = {key: value for key, value in {**metadata, **changes}.items() if value is not ...}
    save_tensors(path, before if tensors is None else tensors(before), metadata)


CHANGES = {
    "whose it is": {"crafted_on": identity(make_network(seed=9))},
    "attack": {"attack": "fgsm"},
    "budget": {"threat": "linf:1/255"},
    "settings": {"settings": {}},
    "labels": {"tensors": lambda t: {**t, "labels": t["labels"].flip(0)}},
    "a pixel": {"tensors": lambda t: {**t, "images": t["images"].index_fill(0, torch.tensor(0), 0.5)}},
    "no images": {"tensors": lambda t: {k: v for k, v in t.items() if k != "images"}},
    "one more tensor": {"tensors": lambda t: {**t, "more": torch.ones(1)}},
    "fewer images": {"tensors": lambda t: {**t, "images": t["images"][:2]}},
    "one more key": {"protocol": "white-box"},
    "no checksum": {"checksum": ...},
    "no mark": {"adversarial_set": ...},
    "newer": {"adversarial_set": 5},
}


@pytest.mark.parametrize("changes", CHANGES.values(), ids=CHANGES)
def test_edited_sets_are_not_believed(tmp_path, examples, changes):
    path = tmp_path / "set.safetensors"
    save_set(examples, path)
    rewritten(path, **changes)
    with pytest.raises(DataError) as error:
        load_set(path)
    assert "\n" not in str(error.value)


def test_rewriting_a_set_unchanged_keeps_it(tmp_path, examples):
    path = tmp_path / "set.safetensors"
    save_set(examples, path)
    rewritten(path)
    same(examples, load_set(path))


def test_truncated_foreign_and_missing_sets_are_told(tmp_path, examples):
    path = tmp_path / "set.safetensors"
    save_set(examples, path)
    path.write_bytes(path.read_bytes()[:-10])
    with pytest.raises(WeightsError):
        load_set(path)
    path.write_bytes(b"\x80\x04pickle")
    with pytest.raises(WeightsError):
        load_set(path)
    with pytest.raises(DataError, match="not a file"):
        load_set(tmp_path / "absent.safetensors")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="not a file"):
        load_set(tmp_path / "empty")


@pytest.mark.parametrize(
    "changes",
    [
        {"images": torch.full((6, 3, 16, 16), 1.5)},
        {"images": torch.full((6, 3, 16, 16), math.nan)},
        {"images": torch.zeros(6, 3, 16, 16, dtype=torch.uint8)},
        {"labels": torch.zeros(6)},
        {"labels": torch.zeros(6, 1, dtype=torch.int64)},
        {"ids": torch.zeros(5, dtype=torch.int64)},
        {"crafted_on": ""},
        {"threat": "linf:-1"},
    ],
)
def test_sets_that_contradict_themselves_are_refused(examples, changes):
    with pytest.raises((DataError, ValueError)):
        dataclasses.replace(examples, **changes)
