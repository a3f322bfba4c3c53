"""A miniature of system B, from images to the ladder's verdict; its rows keep the contract."""

import dataclasses
import io
import json
import warnings
from html import unescape

import pytest
import torch
from rich.console import Console

from unfool.core.errors import SpecError, UnfoolWarning
from unfool.evaluation.estimates.pretext import false_triggers
from unfool.evaluation.results.check import check_results
from unfool.evaluation.results.claims import VERDICTS, ClaimResult
from unfool.evaluation.results.rows import Row
from unfool.models.network import Network
from unfool.models.published import _published as published_name
from unfool.models.trunks import trunk_spec
from unfool.models.weights import load_network
from unfool.studies import run_study
from unfool.studies.framework import AtMost, Measured, Results, adaptive, measurements, reopen_study
from unfool.studies.reverse_attack import ReverseAttack, aware, classifier
from unfool.studies.reverse_attack.scales import DEMO, SOURCE, head_stage
from unfool.training.recipes import NORMAL, ROBUST

TINY = dataclasses.replace(
    DEMO,
    trunk={"name": "convnet", "stem": "strided", "widths": [4, 8, 8]},
    robust=dataclasses.replace(DEMO.robust, epochs=1),
    normal=dataclasses.replace(DEMO.normal, epochs=1),
    contrast=head_stage({"hidden": 8, "size": 4}, epochs=1),
    reversal={"steps": 2, "views": 2, "bank": 16, "drawn": 8},
    attacked=16,
    reversed=20,
    corrupted=4,
    yardstick="pgd-3",
    ladder=dataclasses.replace(DEMO.ladder, images=8, steps=2, lambdas=(1.0,), targets=1, queries=5),
    negatives=(2, 8),
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
            row = only(result["rows"], model=base, defense=defense, attack="none", settings={})
            assert row["n"] == (397 if defense == "none" else 20)
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
            # Fifteen corruptions, and two steps on two views beside each prediction with the reversal.
            assert mean["cost"]["model_images"] == 15 * 4 * (1 if defense == "none" else 5)


def test_source_figures_stand_beside_the_robust_classifier_s_alone(finished):
    _, result = finished
    assert only(result["rows"], model=ROBUST, defense="none", attack="none", settings={})["source_value"] == 0.8969
    reversed_ = only(result["rows"], model=ROBUST, attack="pgd-50", settings={"reversal_steps": 5})
    assert reversed_["source_value"] == 0.7007
    for cause in ("normalised inputs", "train mode"):
        rows = [row for row in result["rows"] if row["settings"] == {"cause": cause}]
        beside = [(row["attack"], row["threat"], row["source_value"], row.get("source_loss")) for row in rows]
        assert beside == [
            ("none", "linf:0.15", 0.8752, 0.5812),
            ("pgd-5", "linf:0.15", 0.0666, 4.3066),
            ("pgd-5", "l2:1", None, None),
            ("pgd-5", "l1:10", None, None),
        ]
        assert all(row["judged_on"] == row["crafted_on"] for row in rows)
        assert rows[0]["loss"] != only(result["rows"], model=ROBUST, defense="none", attack="none", settings={})["loss"]
    assert all(row["source_value"] is None for row in result["rows"] if row["model"] == NORMAL)


def test_costs_count_the_reversal(finished):
    _, result = finished
    plain = only(result["rows"], model=ROBUST, defense="none", attack="pgd-5", threat="linf:0.15", settings={})
    ours = only(
        result["rows"], model=ROBUST, defense="reverse:contrast", attack="pgd-5", threat="linf:0.15", settings={}
    )
    # two steps on two views more for each of sixteen images
    assert ours["cost"]["model_images"] - plain["cost"]["model_images"] == 16 * 2 * 2


@pytest.mark.parametrize(("words", "letters"), [("reversal alone", "abcdefhi"), ("gated", "abcdefghi")])
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
    page = unescape((out / "report.html").read_text())
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
    claimed = ("by at least half of the 0.86 points claimed", "0.94 points", "0.76 points", "do not raise the accuracy")
    for text, words, steps in zip(texts[2:6], claimed, (5, 10, 15, 50), strict=True):
        assert words in text
        assert f"under PGD-{steps} in Linf" in text
    # The source's classifier has 89.7 % on clean images and 74.1 % under five steps: of what it claims of that one,
    # and of its premises, this one can say nothing. What is asked of the normally trained one it does not claim.
    near = {
        "ladder-reversal",
        "ladder-gated",
        "controls-adversarially-trained",
        "corruptions-normally-trained",
        "loss-normally-trained",
        "controls-normally-trained",
        "gate-rate",
    }
    for claim in result["claims"]:
        assert (claim["verdict"] in ("holds", "fails", "undecided")) == (claim["id"] in near), claim["id"]
        assert (claim["verdict"] == "not reproduced") == (claim["id"] not in near), claim["id"]
    assert len({claim["id"] for claim in result["claims"]}) == len(texts)


def test_asking_again_makes_nothing_again(finished, monkeypatch):
    out, result = finished

    def never(*_, **__):
        raise AssertionError("a finished piece was made again")

    for name in ("craft", "classify", "classify_corrupted"):
        monkeypatch.setattr(measurements, name, never)
    for name in ("audit", "ladder"):
        monkeypatch.setattr(adaptive, name, never)
    monkeypatch.setattr(classifier, "gate_rates", never)
    monkeypatch.setattr("unfool.studies.framework.run.write_page", lambda path, page: path)
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


def test_the_summary_has_each_figure_with_its_verdict(finished):
    _, result = finished
    assert "from 74.08 to 74.94 %" in result["summary"]
    names = [f"replayed-pgd-{steps}" for steps in (5, 10, 15, 50)]
    names += ["ladder-reversal", "ladder-gated", "controls-adversarially-trained"]
    for name in names:
        claim = next(claim for claim in result["claims"] if claim["id"] == name)
        assert f"{claim['figure']} ({claim['verdict']})" in result["summary"]
    clean = only(result["rows"], model=ROBUST, defense="none", attack="none", settings={})
    attacked = only(
        result["rows"], model=ROBUST, defense="none", attack="pgd-5", settings={}, threat=TINY.threats["linf"]
    )
    for words in (
        f"this one has {100 * clean['accuracy']:.1f} % on clean images",
        f"{100 * attacked['accuracy']:.1f} % under PGD-5 for 74.1",
        f"On 16 such examples at {TINY.threats['linf']}",
        "on each of 8 images, less that of the classifier alone under pgd-3",
        "Not reproduced means",
    ):
        assert words in result["summary"]
    # The rule of a claim and its evidence stand with the verdicts.
    assert not any(word in result["summary"] for word in ("Rule", "the opposite", "minus without"))


@pytest.mark.parametrize("verdict", VERDICTS)
def test_the_summary_gives_every_verdict_as_it_is(finished, verdict):
    _, result = finished
    rows = [Measured(row=Row.from_json(values)) for values in result["rows"]]
    claims = {
        claim["id"]: dataclasses.replace(ClaimResult.from_json(claim), verdict=verdict) for claim in result["claims"]
    }
    summary = ReverseAttack().summary(TINY, Results(scale="tiny", work=None, measured=rows), claims)
    assert summary.count(f"({verdict})") == 7
    assert ("Not reproduced means" in summary) == (verdict == "not reproduced")


def test_notes_give_the_first_table(finished):
    _, result = finished
    (table,) = (note for note in result["notes"] if "87.52 (0.5812)" in note)
    row = only(result["rows"], model=ROBUST, threat="linf:0.15", attack="pgd-5", settings={"cause": "train mode"})
    assert f"linf {100 * row['accuracy']:.2f} ({row['loss']:.4f})" in table
    assert sum("times the CPU time of a plain one" in note for note in result["notes"]) == 2
    assert sum(note.startswith("Audit, ") for note in result["notes"]) >= 4


SHAPE_OF_SOURCE = dataclasses.replace(
    TINY,
    normal=None,
    steps=10,
    reversal={**SOURCE.reversal, "steps": 2, "views": 2, "batch_size": 8},
    fixed={**SOURCE.fixed, "steps": 1, "views": 3, "bank": 16, "drawn": 12},
    gated=False,
)


def test_the_source_s_shape_reverses_in_batches_and_climbs_on_a_fixed_function(tmp_path, monkeypatch):
    """Some measurements of each kind, of one classifier, from its in-batch rows to the page."""
    monkeypatch.setattr(ReverseAttack, "scales", {"tiny": SHAPE_OF_SOURCE})
    cut_to_two = aware.on_two_views
    cut_from = []
    monkeypatch.setattr(
        aware, "on_two_views", lambda pretext: (cut_from.append(pretext.images_per_loss), cut_to_two(pretext))[1]
    )
    console = Console(file=io.StringIO())
    result = run_study("reverse-attack", "tiny", tmp_path / "study", console=console, workers=1).to_json()
    check_results(result)
    rows = result["rows"]
    assert {row["model"] for row in rows} == {ROBUST}
    assert only(rows, attack="none", defense="none", settings={})["n"] == 397
    assert only(rows, attack="none", defense="reverse:contrast", settings={})["n"] == 20
    for threat in TINY.threats.values():
        only(rows, attack="pgd-10", defense="reverse:contrast", threat=threat, settings={})
    ladder = [row["rung"] for row in rows if row.get("rung")]
    assert ladder == [*"abcdefhi", "worst-case"]
    # The ladder's defense-aware attack has the reference's two views, whatever the reversal has.
    assert set(cut_from) == {3}
    assert "batches of 8 that belong to the reversal" in " ".join(result["notes"])


def test_it_starts_from_published_weights(tmp_path, monkeypatch):
    """A file in Carmon's layout takes the robust classifier's place; only the head learns, and the trunk stays."""
    heads = {"labels": {"kind": "linear", "outputs": 10}}
    network = Network.build(
        trunk_spec("wide-resnet:depth=10,width=1"), heads, normalisation="none", classifier="labels"
    )
    state = {published_name(name): value for name, value in network.state_dict().items() if name not in ("mean", "std")}
    torch.save({"state_dict": state}, tmp_path / "base.pt")

    def few(study, scale, networks):
        (robust,) = (classifier.Classifier(scale, each) for each in networks)
        return [robust.attacked(robust.network), robust.attacked(robust.reversal())]

    monkeypatch.setattr(ReverseAttack, "scales", {"tiny": SHAPE_OF_SOURCE})
    monkeypatch.setattr(ReverseAttack, "measurements", few)
    for name, empty in (("claims", ()), ("charts", ()), ("notes", ()), ("gallery", ())):
        monkeypatch.setattr(ReverseAttack, name, lambda *_, it=empty: it)
    monkeypatch.setattr(ReverseAttack, "summary", lambda *_: "")
    out, console = tmp_path / "study", Console(file=io.StringIO())
    for _ in range(2):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UnfoolWarning)
            result = run_study(
                "reverse-attack", "tiny", out, console=console, workers=1, base=tmp_path / "base.pt"
            ).to_json()
        assert [row["model"] for row in result["rows"]] == [ROBUST, ROBUST]
        assert reopen_study(out, console=console).is_file()
    trained = load_network(out / "models" / "digits" / "adversarially-trained" / "weights.safetensors")
    assert set(trained.heads) == {"labels", "contrast"}
    before, after = network.state_dict(), trained.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)
    with pytest.raises(SpecError, match="trains its networks itself"):
        run_study("transfer", "demo", tmp_path / "other", base=tmp_path / "base.pt")
