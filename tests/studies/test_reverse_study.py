"""A miniature of system B, from images to the ladder's verdict; its rows keep the contract."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from unfool.evaluation.estimates.pretext import false_triggers
from unfool.evaluation.results.check import check_results
from unfool.studies import run_study
from unfool.studies.framework import AtMost, adaptive, measurements
from unfool.studies.framework.recipes import NORMAL, ROBUST
from unfool.studies.reverse_attack import ReverseAttack, classifier
from unfool.studies.reverse_attack.scales import DEMO, head_stage

TINY = dataclasses.replace(
    DEMO,
    trunk={"name": "convnet", "stem": "strided", "widths": [4, 8, 8]},
    robust=dataclasses.replace(DEMO.robust, epochs=1),
    normal=dataclasses.replace(DEMO.normal, epochs=1),
    contrast=head_stage({"hidden": 8, "size": 4}, epochs=1),
    reversal={"steps": 2, "views": 2, "bank": 16, "drawn": 8},
    attacked=16,
    corrupted=4,
    yardstick="pgd-3",
    ladder=dataclasses.replace(DEMO.ladder, images=8, steps=2, lambdas=(1.0,)),
    negatives=(2, 8),
    strong="pgd-50",
)


def run(out, console):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ReverseAttack, "scales", {"tiny": TINY})
        return run_study("reverse-attack", "tiny", out, console=console, workers=1).to_json()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return out, run(out, Console(file=io.StringIO()))


def only(rows, **wanted):
    found = [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]
    assert len(found) == 1, (wanted, len(found))
    return found[0]


def test_rows_keep_the_contract(finished):
    out, result = finished
    check_results(result)
    assert json.loads((out / "results" / "reverse-attack" / "tiny.json").read_text()) == result
    for base in (ROBUST, NORMAL):
        for defense in ("none", "reverse:contrast"):
            only(result["rows"], model=base, defense=defense, attack="none", settings={})
            for threat in TINY.threats.values():
                row = only(result["rows"], model=base, defense=defense, attack="pgd-5", threat=threat, settings={})
                assert row["protocol"] == ("white-box" if defense == "none" else "transfer")
                assert row["n"] == 16
            mean = only(
                result["rows"],
                model=base,
                defense=defense,
                settings={"corruptions": "mean of 15, severity 3"},
            )
            assert mean["low"] <= mean["accuracy"] <= mean["high"]
            assert mean["n"] == 4


def test_source_figures_stand_beside_the_robust_classifier_s_alone(finished):
    _, result = finished
    assert only(result["rows"], model=ROBUST, defense="none", attack="none", settings={})["source_value"] == 0.8969
    reversed_ = only(result["rows"], model=ROBUST, attack="pgd-50", settings={"reversal_steps": 5})
    assert reversed_["source_value"] == 0.7007
    assert all(row["source_value"] is None for row in result["rows"] if row["model"] == NORMAL)


def test_costs_count_the_reversal(finished):
    _, result = finished
    plain = only(result["rows"], model=ROBUST, defense="none", attack="pgd-5", threat="linf:0.15", settings={})
    ours = only(
        result["rows"], model=ROBUST, defense="reverse:contrast", attack="pgd-5", threat="linf:0.15", settings={}
    )
    # two steps on two views more for each of sixteen images
    assert ours["cost"]["model_images"] - plain["cost"]["model_images"] == 16 * 2 * 2


@pytest.mark.parametrize(("words", "letters"), [("reversal alone", "abcdef"), ("gated", "abcdefg")])
def test_the_ladder_s_worst_case_is_above_none_of_its_rungs(finished, words, letters):
    _, result = finished
    rows = [row for row in result["rows"] if row["settings"].get("ladder") == words]
    assert [row["rung"] for row in rows[:-1]] == list(letters)
    worst = rows[-1]
    assert worst["rung"] == "worst-case"
    for row in rows[1:-1]:
        assert worst["accuracy"] <= row["common"]["accuracy"] + 1e-9
    assert {row["protocol"] for row in rows[2:]} == {"adaptive"}
    assert (rows[0]["protocol"], rows[1]["protocol"]) == ("white-box", "transfer")


def test_the_page_has_every_graph(finished):
    out, result = finished
    titles = [chart["title"] for chart in result["charts"]]
    page = (out / "report.html").read_text()
    for title in titles:
        assert title in page
    assert {"Loss functions of the reversal", "Number of negatives"} <= set(titles)
    loss = next(chart for chart in result["charts"] if chart["title"].startswith("Loss"))
    names = [point[0] for point in loss["series"][0]["points"]]
    assert names == ["no reversal", "nt-xent", "first-positive", "multi-positive", "margin", "cosine"]
    negatives = next(chart for chart in result["charts"] if chart["title"] == "Number of negatives")
    assert [point[0] for point in negatives["series"][0]["points"]] == [2, 8]


def test_claims_are_the_ladder_s_and_the_source_s(finished):
    _, result = finished
    texts = [claim["text"] for claim in result["claims"]]
    assert len(texts) == 2 + 4 + 2 + 2 + 2 + 1
    assert all("more robust than it is by itself (pgd-3, linf:0.15)" in text for text in texts[:2])
    assert "by +0.9 points" in texts[2]
    assert "by -0.2 points" in texts[5]
    assert all(claim["verdict"] in ("holds", "fails", "undecided") for claim in result["claims"])
    assert len({claim["id"] for claim in result["claims"]}) == len(texts)


def test_asking_again_makes_nothing_again(finished, monkeypatch):
    out, result = finished

    def never(*_, **__):
        raise AssertionError("a finished piece was made again")

    for name in ("craft", "judge", "judge_corrupted"):
        monkeypatch.setattr(measurements, name, never)
    for name in ("audit", "ladder"):
        monkeypatch.setattr(adaptive, name, never)
    monkeypatch.setattr(classifier, "gate_rates", never)
    again = run(out, Console(quiet=True))
    assert {**again, "seconds": 0} == {**result, "seconds": 0}


def test_the_gate_s_rates_are_measured_and_make_a_claim(finished):
    out, result = finished
    (path,) = (out / "rates").rglob("rates.json")
    rates = json.loads(path.read_text())
    assert (rates["rate"], rates["resamples"], rates["calibrated_on"], rates["evaluated_on"]) == (0.05, 200, 60, 337)
    claim = result["claims"][-1]
    assert f"{rates['mean']:.2%}" in claim["evidence"]
    assert f"{rates['deployed']:.3f} [" in claim["evidence"]


@pytest.mark.parametrize(("deployed", "verdict"), [(0.02, "holds"), (0.045, "undecided"), (0.09, "fails")])
def test_the_gate_s_own_rate_on_fresh_images_decides(deployed, verdict):
    rates = {"rate": 0.05, "calibrated_on": 60, "evaluated_on": 540, "resamples": 200, "mean": 0.04, "kept": 0.95}
    estimate = false_triggers({**rates, "deployed": deployed})
    assert AtMost(0.05).verdict(estimate, AtMost(0.05).p_value(estimate)) == verdict
