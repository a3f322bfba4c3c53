"""A miniature of system A, from images to verdict: it can be stopped anywhere, and its rows keep the contract."""

import dataclasses
import hashlib
import io
import json

import pytest
from rich.console import Console

from unfool.core.errors import OutputError, SpecError
from unfool.evaluation import Records
from unfool.studies import STUDIES, run_study
from unfool.studies.contrastive_multitask import ContrastiveMultitask
from unfool.studies.contrastive_multitask.scales import AS_MEANT, Scale, Variant
from unfool.studies.framework import measurements, networks
from unfool.training import StageConfig
from unfool.training.recipes import LABELS

NAME = "contrastive-multitask"
TINY = Scale(
    data={"digits": ("label", "parity")},
    variants=(
        Variant(
            words="convnet 4-8-8",
            trunk="convnet:stem=strided,widths=4-8-8",
            stage=StageConfig(tasks=LABELS, batch_size=128, optimizer="sgd", learning_rate=0.1),
            meant=("digits",),
            adversarial_steps=2,
        ),
    ),
    attacked=20,
)
OTHER = dataclasses.replace(TINY, attacked=21)
MODELS = {"single-task", "simclr multitask", "supervised multitask", "labels on SimCLR views", "PGD-10 training"}


class Stopped(BaseException):
    """Stands for Ctrl-C."""


@pytest.fixture(autouse=True)
def scales(monkeypatch):
    scales = {**ContrastiveMultitask.scales, "tiny": TINY, "other": OTHER}
    monkeypatch.setattr(ContrastiveMultitask, "scales", scales)


def study(out, scale="tiny"):
    return run_study(NAME, scale, out, console=Console(file=io.StringIO()), workers=1).to_json()


def pieces(out):
    """Every file below the models, sets and records with its hash and time."""
    return {
        path.relative_to(out): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns)
        for folder in ("models", "sets", "records")
        for path in (out / folder).rglob("*")
        if path.is_file() and path.name != ".lock"
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ContrastiveMultitask, "scales", {"tiny": TINY})
        return out, study(out)


def test_it_writes_its_json_and_its_page(finished):
    out, result = finished
    written = json.loads((out / "results" / NAME / "tiny.json").read_text())
    assert written == result
    assert list(result)[:6] == ["schema_version", "study", "scale", "data", "seconds", "versions"]
    assert (result["schema_version"], result["study"], result["scale"]) == (1, NAME, "tiny")
    assert result["data"] == {"digits": {"train": 1400, "test": 397, "attacked": 20}}
    page = (out / "report.html").read_text()
    assert page.lstrip().lower().startswith("<!doctype html>")
    assert "single-task" in page
    assert "http://" not in page.replace("http://www.w3.org", "")


def test_rows_keep_the_contract(finished):
    _, result = finished
    rows = result["rows"]
    identities = [
        json.dumps(
            [
                row[key]
                for key in ("model", "seed", "data", "split", "attack", "threat", "protocol", "defense", "settings")
            ]
        )
        for row in rows
    ]
    assert len(set(identities)) == len(rows)
    assert {row["model"] for row in rows} == MODELS
    # five models, one of two seeds, one with two losses; each clean, and by transfer and white-box under four attacks
    assert len(rows) == 7 * (1 + 4 + 4)
    for row in rows:
        clean = row["attack"] == "none"
        assert (row["protocol"] == "clean") == clean
        assert row["n"] == (397 if clean else 20)
        assert 0 <= row["low"] <= row["accuracy"] <= row["high"] <= 1
        assert row["threat"] == "linf:8/255"
        assert row["defense"] == "none"
        assert row["source_value"] is None
        if clean:
            assert (row["crafted_on"], row["judged_on"]) == (None, None)
        else:
            assert (row["crafted_on"] == row["judged_on"]) == (row["protocol"] == "white-box")
    assert {row["attack"] for row in rows} == {"none", "fgsm", "pgd-7", "pgd-20", "pgd-50"}


def test_transfer_rows_are_of_a_single_task_network_s_examples_of_another_seed(finished):
    _, result = finished
    attacked = [row for row in result["rows"] if row["attack"] != "none"]
    singles = {row["seed"]: row["judged_on"] for row in attacked if row["model"] == "single-task"}
    assert sorted(singles) == [0, 1]
    for row in attacked:
        if row["protocol"] == "transfer":
            assert row["crafted_on"] == singles[1 - row["seed"]]
    assert len({row["judged_on"] for row in attacked}) == 7


def test_figures_are_those_of_the_records(finished):
    out, result = finished
    found = sorted((out / "records").rglob("*.json"))
    assert len(found) == len(result["rows"])
    accuracies = sorted((row["attack"], row["protocol"], row["accuracy"]) for row in result["rows"])
    records = [Records.load(path) for path in found]
    assert accuracies == sorted((item.attack, item.protocol, round(item.accuracy, 6)) for item in records)
    assert all(item.ids == records[0].ids for item in records if item.count == records[0].count)


def test_claims_say_which_networks_they_are_about(finished):
    _, result = finished
    claims = {claim["id"]: claim for claim in result["claims"]}
    assert list(claims) == [
        "contrast-digits-as-computed",
        "supervised-digits-as-computed",
        "contrast-digits-transfer",
        "views-digits-transfer",
        "supervised-digits-transfer",
        "contrast-against-supervised-digits-transfer",
        "contrast-digits-white-box",
        "supervised-digits-white-box",
        "contrast-against-supervised-digits-white-box",
        "adversarial-digits-white-box",
    ]
    for claim in claims.values():
        assert "these two networks" in claim["evidence"]
        assert AS_MEANT not in claim["text"]


def test_the_gain_of_contrast_is_beyond_labels_on_the_same_views(finished):
    _, result = finished
    written = {"as written: 0.5 labels + 1 contrast", None}
    kept = {
        (row["model"], row["protocol"], row["attack"]): row["accuracy"]
        for row in result["rows"]
        if row["seed"] == 0 and row["settings"].get("loss") in written
    }
    claims = {claim["id"]: claim["evidence"] for claim in result["claims"]}

    def difference(a, b, attack):
        return f"{100 * (kept[(*a, attack)] - kept[(*b, attack)]):+.1f} points"

    contrast, views, single = "simclr multitask", "labels on SimCLR views", "single-task"
    for claim, a, b, attack in (
        ("contrast-digits-as-computed", (contrast, "transfer"), (single, "white-box"), "pgd-7"),
        ("contrast-digits-transfer", (contrast, "transfer"), (views, "transfer"), "pgd-7"),
        ("contrast-digits-white-box", (contrast, "white-box"), (views, "white-box"), "pgd-50"),
        ("views-digits-transfer", (views, "transfer"), (single, "transfer"), "pgd-7"),
        ("supervised-digits-transfer", ("supervised multitask", "transfer"), (single, "transfer"), "pgd-7"),
        ("adversarial-digits-white-box", ("PGD-10 training", "white-box"), (contrast, "white-box"), "pgd-50"),
    ):
        assert difference(a, b, attack) in claims[claim], claim


def test_its_summary_says_what_was_claimed_and_what_holds(finished):
    _, result = finished
    claims = {claim["id"]: claim for claim in result["claims"]}
    words = {"holds": "holds", "fails": "fails", "undecided": "is undecided"}
    for part in ("contrast-digits-transfer", "contrast-digits-white-box"):
        figure = claims[part]["evidence"].split(": ")[1].split(" between")[0]
        assert f"adds {figure}" in result["summary"]
        assert f": the claim {words[claims[part]['verdict']]}." in result["summary"]
    assert "had been made for a plain classifier" in result["summary"]
    assert "{" not in result["summary"]


def test_reopening_it_makes_nothing_again(finished, monkeypatch):
    out, result = finished
    before = pieces(out)

    def never(*_, **__):
        raise AssertionError("a finished piece was made again")

    monkeypatch.setattr(measurements, "craft", never)
    monkeypatch.setattr(measurements, "classify", never)
    monkeypatch.setattr("unfool.studies.framework.run.write_page", lambda path, page: path)
    again = study(out)
    assert (again["rows"], again["claims"]) == (result["rows"], result["claims"])
    assert pieces(out) == before


def test_it_can_be_stopped_between_any_two_pieces(finished, tmp_path, monkeypatch):
    out, result = finished
    left = {(networks, "train"): 2, (measurements, "craft"): 3, (measurements, "classify"): 5}
    for (module, name), count in left.items():
        own = getattr(module, name)
        calls = []

        def until(*arguments, own=own, calls=calls, count=count, **settings):
            if len(calls) == count:
                raise Stopped
            calls.append(1)
            return own(*arguments, **settings)

        before = pieces(tmp_path) if tmp_path.joinpath("study.json").exists() else {}
        with monkeypatch.context() as patch:
            patch.setattr(module, name, until)
            with pytest.raises(Stopped):
                study(tmp_path)
        assert not (tmp_path / "results").exists()
        after = pieces(tmp_path)
        assert {path: after[path] for path in before} == before
        assert len(after) > len(before)
    monkeypatch.setattr("unfool.studies.framework.run.write_page", lambda path, page: path)
    again = study(tmp_path)
    figures = ("model", "attack", "protocol", "settings", "accuracy", "loss", "crafted_on", "judged_on")
    assert [[row[key] for key in figures] for row in again["rows"]] == [
        [row[key] for key in figures] for row in result["rows"]
    ]
    assert again["claims"] == result["claims"]
    assert pieces(tmp_path).keys() == pieces(out).keys()


def test_a_folder_belongs_to_one_scale_and_one_run(finished):
    out, _ = finished
    before = pieces(out)
    with pytest.raises(OutputError, match="another scale"):
        study(out, "other")
    settings = json.loads((out / "study.json").read_text())
    settings["settings"]["attacked"] = 19
    text = (out / "study.json").read_text()
    (out / "study.json").write_text(json.dumps(settings))
    with pytest.raises(OutputError, match="another settings"):
        study(out)
    (out / "study.json").write_text(text)
    assert pieces(out) == before


def test_two_processes_cannot_share_a_folder(finished):
    from unfool.core.files import folder_lock

    out, _ = finished
    with folder_lock(out), pytest.raises(OutputError, match="in use"):
        study(out)


def test_unknown_names_are_refused_before_anything_is_made(tmp_path):
    with pytest.raises(SpecError, match="did you mean 'tiny'"):
        run_study(NAME, "tinny", tmp_path / "out")
    with pytest.raises(SpecError, match="did you mean 'contrastive-multitask'"):
        run_study("contrastive-multitsk", "demo", tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert NAME in STUDIES


def test_a_tampered_piece_stops_the_study_instead_of_entering_its_table(finished, tmp_path):
    import shutil

    from unfool.core.errors import DataError

    out, _ = finished
    copied = tmp_path / "copy"
    shutil.copytree(out, copied)
    record = next(path for path in (copied / "records").rglob("pgd-7-*-of-*.json"))
    values = json.loads(record.read_text())
    values["crafted_on"] = values["judged_on"]
    record.write_text(json.dumps(values))
    with pytest.raises(DataError, match="evaluate again"):
        study(copied)
