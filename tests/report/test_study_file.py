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


def test_every_part_of_a_results_file_is_read(study):
    shares, cost = {"accuracy": 0.5, "low": 0.4, "high": 0.6}, {"cpu_seconds": 1.5, "model_images": 40}
    chart = {"title": "t", "x": "a", "y": "b", "kind": "line", "caption": "c"}
    rung = {"rung": "a", "title": "static", "attack": "fgsm", "protocol": "transfer", **shares, "n": 8, **cost}
    rung |= {"common": {**shares, "n": 6}, "fooled_by": {"fgsm": 3}, "flat": 1}
    ladder = {"model": "net", "defense": "gate", "threat": "linf:8/255", "verdict": "helps", "sentences": ["It does."]}
    ladder |= {"difference": {"difference": 0.1, "low": 0.05, "high": 0.2, "p_value": 0.01}, "rungs": [rung]}
    ladder |= {"images_per_prediction": 2, "absent": {"g": "no gate"}, "notes": ["Slow."], "examples": []}
    flag = {"name": "chance", "text": "It is random.", "share": 0.5, "images": [3]}
    shown = {"attack": "fgsm", "label": "cat", "fooled": True, "clean": "AAA=", "adversarial": "AQE="}
    test = {"success": 0.9, "low": 0.8, "high": 1.0, "random_success": 0.2, "images": 8, "dropped": 1, "passed": True}
    whole = {
        **study,
        "system": "net",
        "summary": "It holds.",
        "cuts": ["Fewer epochs."],
        "notes": ["A note."],
        "claims": [{**claim, "evidence": ["So it is."]} for claim in study["claims"]],
        "ladder": [ladder],
        "charts": [{**chart, "series": [{"name": "s", "points": [[0, 0.5]]}]}],
        "classes": {"none": [{"name": "cat", **shares, "n": 10}]},
        "corruptions": {**shares, "n": 10, "under": [{"corruption": "fog", "severity": 3, "accuracy": 0.25}]},
        "strength": {"fgsm": {**test, "threshold": 0.85, "text": "passed", "cost": cost}},
        "reliability": {
            "trustworthy": False,
            "flags": [flag],
            "checked": ["chance"],
            "wins": {"square": [3]},
            "images": 8,
            "cost": cost,
        },
        "gallery": [shown],
        "run": {"command": "unfool evaluate net", "date": "2026-01-02", "device": "cpu"},
        "doubts": ["It is random."],
    }
    assert json.loads(json.dumps(StudyResult.from_json(whole).to_json())) == whole
    older = {**study, "ladder": ladder, "cuts": "Fewer epochs.", "deviations": ["Another crop."], "notes": "A note."}
    read = StudyResult.from_json(older)
    assert [section.model for section in read.ladders] == ["net"]
    assert (read.cuts, read.notes) == (["Fewer epochs."], ["Another crop.", "A note."])


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
