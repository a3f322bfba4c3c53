"""Results are read only when they can be trusted: one clear line otherwise."""

import json
from typing import Any

import pytest
from made_up_study import make_row

from unfool.core.errors import DataError, SpecError
from unfool.evaluation.results.check import check_results
from unfool.evaluation.results.details import read_classes
from unfool.evaluation.results.study_result import StudyResult


def test_a_good_file_is_read(study, tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps(study))
    assert StudyResult.load(path).to_json() == study


def test_a_newer_schema_is_refused(study, tmp_path):
    path = tmp_path / "small.json"
    path.write_text(json.dumps({**study, "schema_version": 2}))
    with pytest.raises(SpecError, match=r"small\.json has schema_version 2.*upgrade"):
        StudyResult.load(path)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", '{"rows": []}', '{"schema_version": NaN}', '{"schema_version": true}', "[" * 100_000],
    ids=["empty", "cut", "list", "null", "no version", "nan", "flag", "deep"],
)
def test_malformed_files_give_one_line(text, tmp_path):
    path = tmp_path / "results.json"
    path.write_text(text)
    with pytest.raises(DataError, match=r"results\.json") as caught:
        StudyResult.load(path)
    assert "\n" not in str(caught.value)


def test_missing_and_binary_files(tmp_path):
    with pytest.raises(DataError, match="cannot read"):
        StudyResult.load(tmp_path / "absent.json")
    (tmp_path / "binary.json").write_bytes(b"\x80\x04\x95\xff")
    with pytest.raises(DataError, match="it is not UTF-8"):
        StudyResult.load(tmp_path / "binary.json")


BROKEN: dict[str, dict[str, Any]] = {
    "accuracy": {"accuracy": 81.4},
    "outside": {"low": 0.9, "high": 0.95},
    "accuracy False": {"accuracy": False},
    "source_value": {"source_value": 58.61},
    "n 0": {"n": 0},
    "settings": {"settings": ["stem"]},
    "model None": {"model": None},
    "cost": {"cost": 3.0},
    "protocol": {"protocol": "whitebox"},
    "only none is clean": {"protocol": "clean"},
}


@pytest.mark.parametrize("message", BROKEN)
def test_broken_rows_are_named(study, message):
    study["rows"][1].update(BROKEN[message])
    with pytest.raises((DataError, SpecError), match=f"row 1 .*{message}|{message}.* in row 1|row 1.*{message}"):
        check_results(study)


def test_a_transfer_row_cannot_call_itself_white_box(study):
    row = next(row for row in study["rows"] if row["protocol"] == "transfer")
    row["protocol"] = "white-box"
    row["settings"] = {"other": True}
    with pytest.raises(DataError, match="called white-box, but crafted_on and judged_on name different systems"):
        check_results(study)


def test_a_white_box_row_cannot_call_itself_transfer(study):
    row = next(row for row in study["rows"] if row["protocol"] == "white-box")
    row["protocol"] = "transfer"
    with pytest.raises(DataError, match="called transfer, but crafted_on and judged_on name the same system"):
        check_results(study)


@pytest.mark.parametrize("name", ["crafted_on", "judged_on"])
def test_provenance_is_required(study, name):
    next(row for row in study["rows"] if row["protocol"] == "white-box")[name] = None
    with pytest.raises(DataError, match="does not say what its images were crafted and evaluated on"):
        check_results(study)


def test_rows_that_agree_in_all_but_their_figures_are_refused(study):
    study["rows"].append(make_row("single-task", "cifar10", "pgd-7", 0.5))
    with pytest.raises(DataError, match=r"rows 2 and \d+ .*agree in all but their figures"):
        check_results(study)


def test_an_unknown_verdict_names_the_nearest(study):
    study["claims"][0]["verdict"] = "hold"
    with pytest.raises(SpecError, match="did you mean 'holds'"):
        check_results(study)


def test_what_a_class_does_not_say_is_not_made_up():
    (one,) = read_classes({"none": [{"name": "cat", "accuracy": 0.5}]})["none"]
    assert (one.name, one.accuracy, one.low, one.high, one.n) == ("cat", 0.5, 0.0, 1.0, 0)


@pytest.mark.parametrize("ladder", [3, [{}, 3], [3, {}]])
def test_ladders_are_objects(study, ladder):
    with pytest.raises(DataError, match="ladder of the results is no object"):
        check_results({**study, "ladder": ladder})
