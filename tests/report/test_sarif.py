"""Evaluations as SARIF: the parts of the schema (OASIS, 2.1.0) that services rely on, and what each level means."""

import re
from pathlib import Path

import pytest

from unfool.evaluation.results.claims import ClaimResult
from unfool.evaluation.results.reliability import BinarizationResult, Flag, Reliability
from unfool.evaluation.results.rows import Cost
from unfool.evaluation.results.study_result import StudyResult
from unfool.report.sarif import Place, sarif

COST = Cost(cpu_seconds=0.0, model_images=0)
NOISE = Flag(name="noise-wins", text="random noise fooled 3 of 64 images", share=3 / 64, images=[1, 5, 9])
UNCHECKED = Flag(name="not-checked", text="few images are right")
WEAK = BinarizationResult(
    success=0.4,
    low=0.3,
    high=0.5,
    random_success=0.1,
    images=64,
    dropped=0,
    passed=False,
    threshold=0.95,
    text="FAILED: the attack found 40.0 % [30.0, 50.0] of 64 known examples",
    cost=COST,
)


def result(*claims, flags=(), doubts=(), tests=()):
    checked = Reliability(flags=list(flags), checked=["noise-wins"], missed_by_gradients={}, images=64, cost=COST)
    return StudyResult(
        system="runs/a",
        versions={"unfool": "0.2.0"},
        claims=[ClaimResult(text="Robust accuracy is >=0.45", verdict=verdict, evidence="…") for verdict in claims],
        reliability=checked,
        binarization_tests=dict(tests),
        doubts=[*doubts, *(f"{flag.name}: {flag.text}" for flag in flags), *(test.text for _, test in tests)],
    )


def check_schema(log):
    """What the schema demands of the parts that are used here, written out from its text."""
    assert log["version"] == "2.1.0"
    assert set(log) == {"$schema", "version", "runs"}
    for run in log["runs"]:
        driver = run["tool"]["driver"]
        assert isinstance(driver["name"], str)
        assert re.fullmatch(r"\d+\.\d+\.\d+.*", driver["version"])
        rules = [rule["id"] for rule in driver["rules"]]
        assert len(set(rules)) == len(rules)
        for rule in driver["rules"]:
            assert all(rule[key]["text"] for key in ("shortDescription", "fullDescription", "help"))
            assert rule["defaultConfiguration"]["level"] in ("none", "note", "warning", "error")
        assert run["columnKind"] in ("utf16CodeUnits", "unicodeCodePoints")
        for invocation in run["invocations"]:
            assert isinstance(invocation["executionSuccessful"], bool)
            assert isinstance(invocation["exitCode"], int)
            for notification in invocation["toolExecutionNotifications"]:
                assert notification["message"]["text"]
                assert notification["level"] in ("none", "note", "warning", "error")
                assert rules[notification["associatedRule"]["index"]] == notification["associatedRule"]["id"]
        for item in run["results"]:
            assert rules[item["ruleIndex"]] == item["ruleId"]
            assert item["level"] in ("note", "warning", "error")
            assert item["message"]["text"]
            assert all(isinstance(value, str) for value in item["partialFingerprints"].values())
            assert len(item["locations"]) == 1
            place = item["locations"][0]["physicalLocation"]
            assert place["region"]["startLine"] >= 1
            uri = place["artifactLocation"]["uri"]
            assert re.fullmatch(r"[A-Za-z0-9\-._~:/?#\[\]@!$&'()*+,;=%]+", uri)
            assert not uri.startswith("/")
        prints = [tuple(item["partialFingerprints"].items()) for item in run["results"]]
        assert len(set(prints)) == len(prints)
    return log["runs"][0]


def levels(run):
    return [(item["ruleId"], item["level"]) for item in run["results"]]


@pytest.mark.parametrize(
    ("verdict", "expected"), [("fails", "error"), ("undecided", "warning"), ("out of reach", "warning")]
)
def test_a_claim_that_does_not_hold_is_a_result(verdict, expected):
    run = check_schema(sarif(result(verdict), Place(name="a"), exit_code=10))
    assert levels(run) == [("robust-accuracy", expected)]
    assert run["results"][0]["properties"]["verdict"] == verdict
    assert run["invocations"][0] == {"executionSuccessful": True, "exitCode": 10, "toolExecutionNotifications": []}


def test_a_claim_that_holds_is_a_note_of_the_run_and_no_alert():
    run = check_schema(sarif(result("holds"), Place(name="a")))
    assert run["results"] == []
    (note,) = run["invocations"][0]["toolExecutionNotifications"]
    assert (note["level"], note["message"]["text"]) == ("note", "Robust accuracy is >=0.45. ….")


@pytest.mark.parametrize(("strict", "doubtful"), [(False, "warning"), (True, "error")])
def test_each_reason_for_doubt_is_one_result_of_its_own_rule(strict, doubtful):
    doubts = ["pgd-20: no gradient on 3 of 64 images", "fgsm: no gradient on 2 of 64 images"]
    evaluated = result(flags=[NOISE, UNCHECKED], doubts=doubts, tests=[("pgd-20", WEAK)])
    run = check_schema(sarif(evaluated, Place(name="a"), strict=strict))
    assert levels(run) == [
        ("noise-wins", doubtful),
        ("not-checked", "note"),
        ("binarization-test", doubtful),
        ("doubt", doubtful),
        ("doubt", doubtful),
    ]
    assert run["results"][0]["message"]["text"] == NOISE.text
    assert run["results"][0]["properties"] == {"share": 3 / 64, "images": 3}


def test_fingerprints_stay_when_figures_change():
    first, second = (
        sarif(result(flags=[Flag(name="noise-wins", text=text)]), Place(name="a"))["runs"][0]["results"][0]
        for text in ("3 of 64 images", "4 of 64 images")
    )
    assert first["partialFingerprints"] == second["partialFingerprints"]
    assert first["message"] != second["message"]


def test_places(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for file in (Path("my models/net é.py"), tmp_path / "my models" / "net é.py"):
        location = Place(file=file, line=7).to_json()["physicalLocation"]
        assert location["artifactLocation"] == {"uri": "my%20models/net%20%C3%A9.py", "uriBaseId": "%SRCROOT%"}
        assert location["region"] == {"startLine": 7}
    outside = Place(file=tmp_path.parent / "other.py").to_json()["physicalLocation"]["artifactLocation"]
    assert outside == {"uri": f"file://{tmp_path.parent}/other.py"}
    named = Place(name="hf:owner/name").to_json()
    assert named["physicalLocation"]["artifactLocation"] == {"uri": "hf%3Aowner/name"}
    assert named["logicalLocations"] == [{"name": "hf:owner/name", "kind": "module"}]
