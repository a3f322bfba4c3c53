"""A miniature of system C, from images without labels to verdicts; its rows keep the contract."""

import dataclasses
import io
import json
import re
from html import unescape

import pytest
from rich.console import Console

import unfool.studies.framework.measurements as measurements_module
import unfool.studies.framework.probes as probes_module
import unfool.studies.framework.run as run_module
from unfool.core.streams import Streams
from unfool.data.catalog import open_table
from unfool.evaluation.results.check import check_results
from unfool.evaluation.results.study_result import StudyResult
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import load_network
from unfool.studies import run_study
from unfool.studies.framework import Measured, Results
from unfool.studies.transfer import Transfer
from unfool.studies.transfer.networks import fine_tuned, pretrained
from unfool.studies.transfer.scales import DEMO, PRETRAININGS, Model, Plan
from unfool.training import ProbeSettings

CLEAN, FGSM = "clean images", "FGSM examples"
CONTROL = "no pretraining"

TINY = dataclasses.replace(
    DEMO,
    trunk=TrunkSpec(name="convnet", stem="strided", widths=[4, 8, 8]),
    pretrain={name: dataclasses.replace(stage, epochs=1) for name, stage in DEMO.pretrain.items()},
    head=dataclasses.replace(DEMO.head, steps=2),
    whole=dataclasses.replace(DEMO.whole, steps=2),
    policies=("after:4", "all"),
    attacked=12,
    pgd="pgd-2",
    strongly=6,
    strong="apgd-ce:steps=3",
    probe=ProbeSettings(epochs=2),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Transfer, "scales", {"tiny": TINY})
        return out, run_study("transfer", "tiny", out, console=Console(file=io.StringIO()), workers=1).to_json()


def only(rows, settings, **wanted):
    found = [row for row in rows if row["settings"] == settings and all(row[key] == wanted[key] for key in wanted)]
    assert len(found) == 1, (settings, wanted, len(found))
    return found[0]


def told(share, learnt, moved="the added layer"):
    return {"labels": share, "fine_tuned_on": learnt, "moved": moved}


def test_rows_keep_the_contract(finished):
    out, result = finished
    check_results(result)
    assert json.loads((out / "results" / "transfer" / "tiny.json").read_text()) == result
    for name in PRETRAININGS:
        for share in ("1 %", "10 %", "30 %", "100 %") if name == "simclr" else ("30 %",):
            for learnt in (CLEAN, FGSM):
                clean = only(result["rows"], told(share, learnt), model=name, attack="none")
                assert (clean["n"], clean["protocol"], clean["split"]) == (397, "clean", "test")
                for attack, threat, count in (
                    ("fgsm", "linf:0.05", 12),
                    ("fgsm", "linf:0.1", 12),
                    ("pgd-2", "linf:0.1", 6),
                    ("apgd-ce", "linf:0.1", 6),
                ):
                    row = only(result["rows"], told(share, learnt), model=name, attack=attack, threat=threat)
                    assert (row["n"], row["protocol"]) == (count, "white-box")


def test_source_figures_stand_where_the_source_has_them(finished):
    """Beside both budgets of FGSM, since the source does not state its own."""
    _, result = finished
    rows = result["rows"]
    for threat in TINY.budgets:
        fgsm = {"attack": "fgsm", "threat": threat}
        assert only(rows, told("10 %", FGSM), model="simclr", **fgsm)["source_value"] == 0.36
        assert only(rows, told("30 %", FGSM), model="jigsaw", **fgsm)["source_value"] == 0.29
    assert only(rows, told("100 %", CLEAN, "all layers"), model=CONTROL, attack="none")["source_value"] == 0.68
    assert sum(row["source_value"] is not None for row in rows) == (2 + 2 * 2) * 5 + 2 * 2


def test_fine_tuning_starts_from_the_pretraining_and_moves_what_it_says(finished):
    out, _ = finished
    began = load_network(out / "models" / pretrained(TINY, "simclr", 0).path / "weights.safetensors").state_dict()
    moved = {}
    for trainable in ("heads", "after:4", "all"):
        network = fine_tuned(TINY, Plan(model="simclr", share=0.3, trainable=trainable), 0)
        path = out / "models" / network.path / "weights.safetensors"
        ended = load_network(path).state_dict()
        moved[trainable] = {
            name for name, value in began.items() if name.startswith("trunk") and (value != ended[name]).any()
        }
    assert moved["heads"] == set()
    assert 0 < len(moved["after:4"]) < len(moved["all"])
    assert not any("stem" in name or "block1" in name for name in moved["after:4"])


def test_a_share_of_the_labels_is_drawn_from_the_training_images(finished):
    """1 % of 1,400 digits, at least one of each class: one step of a batch that is smaller than asked."""
    _, result = finished
    share = len(open_table("digits", "train").fraction(0.01, Streams(0)))
    row = only(result["rows"], told("1 %", CLEAN), model="simclr", attack="none")
    assert row["cost"]["model_images"] == 2 * share
    assert only(result["rows"], told("100 %", CLEAN), model="simclr", attack="none")["cost"]["model_images"] == 2 * 64
    # crafting one step and learning from it: two passes for every image
    assert only(result["rows"], told("100 %", FGSM), model="simclr", attack="none")["cost"]["model_images"] == 4 * 64


def test_the_cost_of_supervised_training_follows_from_that_of_the_workflow(finished):
    _, result = finished
    cost = {
        name: only(result["rows"], told("100 %", FGSM, "all layers"), model=name, attack="none")["cost"]["model_images"]
        for name in TINY.baselines
    }
    # ten batches of 128, two views each; then two steps of 64, crafted and learnt from
    pretraining, tuning = 10 * 128 * 2, 2 * 64 * 2
    assert cost[Model.QUARTER] == pytest.approx((pretraining + tuning) / 4, abs=64)
    assert cost[Model.PGD] == pytest.approx(pretraining + tuning, abs=11 * 64 / 2)
    claim = next(claim for claim in result["claims"] if "cost less than" in claim["text"])
    assert claim["verdict"] == "fails"
    assert "2,560 in pretraining and 256 in fine-tuning, against 256" in claim["evidence"]


def test_the_second_data_set_has_its_own_labels(finished):
    out, result = finished
    rows = [row for row in result["rows"] if row["settings"].get("label_column") == "parity"]
    attacks = (
        ("none", "linf:0.1"),
        ("fgsm", "linf:0.05"),
        ("fgsm", "linf:0.1"),
        ("pgd-2", "linf:0.1"),
        ("apgd-ce", "linf:0.1"),
    )
    assert {(row["model"], row["attack"], row["threat"]) for row in rows} == {
        (model, *attack) for model in ("simclr", CONTROL) for attack in attacks
    }
    path = out / "models" / fine_tuned(TINY, Plan(model="simclr", other=True), 0).path
    assert load_network(path / "weights.safetensors").heads["labels"].description["outputs"] == 2


def test_probes_are_of_every_trunk_and_of_random_weights(finished):
    _, result = finished
    rows = [row for row in result["rows"] if "linear_probe" in row["settings"]]
    assert {row["n"] for row in rows} == {397}
    for claim, features, names in zip(
        result["claims"][-2:],
        ("features as they are", "features standardised"),
        ([*PRETRAININGS, "random weights"], ["simclr", "random weights"]),
        strict=True,
    ):
        read = [row for row in rows if row["settings"]["linear_probe"] == f"stage last, {features}"]
        assert sorted((row["model"], row["seed"]) for row in read) == sorted((name, 0) for name in names)
        costs = {row["model"]: row["cost"]["model_images"] for row in read}
        assert (costs["simclr"], costs["random weights"]) == (10 * 128 * 2, 0)
        accuracy = {row["model"]: row["accuracy"] for row in read}
        assert features in claim["text"]
        assert f"{100 * (accuracy['simclr'] - accuracy['random weights']):+.1f} points" in claim["evidence"]


def test_claims_and_charts_are_of_the_rows(finished):
    out, result = finished
    ids = [claim["id"] for claim in result["claims"]]
    budgets = len(TINY.budgets)
    # the first table, few labels, the tasks; cost, baselines; what the source leaves open; the second set; the rest
    assert len(ids) == len(set(ids)) == 2 * (budgets + 2) + budgets + 2 * (budgets + 1) + 3 + 3 + 3 + 2 + 3
    claim = next(item for item in result["claims"] if item["id"].startswith("simclr-jigsaw-fgsm-examples-fgsm-within"))
    fgsm = {"attack": "fgsm", "threat": TINY.budgets[0]}
    accuracy = {
        name: only(result["rows"], told("30 %", FGSM), model=name, **fgsm)["accuracy"] for name in ("simclr", "jigsaw")
    }
    assert TINY.budgets[0] in claim["text"]
    assert f"{100 * (accuracy['simclr'] - accuracy['jigsaw']):+.1f} points" in claim["evidence"]
    assert "half of the claimed 9 points" in claim["evidence"]
    page = unescape((out / "report.html").read_text())
    for chart in result["charts"]:
        assert chart["title"] in page
    points = [
        {series["name"]: {point[0]: point[1] for point in series["points"]} for series in chart["series"]}
        for chart in result["charts"]
    ]
    for threat in TINY.budgets:
        row = only(result["rows"], told("100 %", CLEAN, "all layers"), model=CONTROL, attack="fgsm", threat=threat)
        assert points[0][f"{CONTROL}, {CLEAN}"][threat] == row["accuracy"]
    assert points[0][f"{CONTROL}, {CLEAN}"]["source, not stated"] == 0.23
    for share, words in ((1.0, "1 %"), (30.0, "30 %")):
        row = only(result["rows"], told(words, FGSM), model="simclr", attack="fgsm", threat=TINY.threat)
        assert points[1][f"simclr, {FGSM}"][share] == row["accuracy"]
    assert points[1][f"source, {FGSM}"] == {1.0: 0.29, 10.0: 0.36, 30.0: 0.38, 100.0: 0.40}
    whole = only(result["rows"], told("30 %", FGSM, "all layers"), model="simclr", attack="fgsm", threat=TINY.threat)
    assert points[1][f"simclr, all layers, {FGSM}"] == {30.0: whole["accuracy"]}


def test_the_page_begins_with_what_was_claimed_and_what_holds(finished):
    out, result = finished
    claims = {claim["id"]: claim for claim in result["claims"]}
    assert result["summary"].startswith("Claimed: ")
    page = unescape((out / "report.html").read_text())
    # What is too long to stand above the results is folded.
    assert result["summary"][:300] in page
    assert result["summary"][-300:] in page
    for name in ("scratch-1-clean-images-fgsm-within-linf-0.05", "cost"):
        assert claims[name]["verdict"] in result["summary"]
    assert "not measured" not in result["summary"]
    for images, source in ((CLEAN, 68), (FGSM, 66)):
        control = only(result["rows"], told("100 %", images, "all layers"), model=CONTROL, attack="none")
        share = f"{100 * control['accuracy']:.1f} %"
        assert re.search(f"{share}( of clean test images)? \\(source {source} %\\)", result["summary"])


def test_the_summary_says_how_far_its_figures_reach(finished):
    """One seed compares two networks, and cuts of unlike size decide the figure of the cost; not so at full."""
    _, result = finished
    seeds = "scale small compares pretrainings over three seeds"
    epochs = "3.0 times with the source's own 100 and 50 epochs"
    assert seeds in result["summary"]
    assert epochs in result["summary"]
    loaded = StudyResult.from_json(result)
    measured = [Measured(row=row) for row in loaded.rows]
    results = Results(scale="full", work=None, measured=measured)
    claims = {claim.id: claim for claim in loaded.claims}
    text = Transfer().summary(dataclasses.replace(TINY, seeds=3), results, claims)
    assert seeds not in text
    assert epochs not in text


def test_asking_again_makes_nothing_again(finished, monkeypatch):
    out, result = finished

    def never(*_, **__):
        raise AssertionError("a finished piece was made again")

    for name in ("craft", "classify"):
        monkeypatch.setattr(measurements_module, name, never)
    monkeypatch.setattr(probes_module, "probe", never)
    monkeypatch.setattr(run_module, "write_page", lambda path, page: path)
    monkeypatch.setattr(Transfer, "scales", {"tiny": TINY})
    again = run_study("transfer", "tiny", out, console=Console(quiet=True), workers=1).to_json()
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
