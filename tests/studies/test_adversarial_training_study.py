"""A miniature of the table of adversarial training: every method, its cost counted, its gap from its own records."""

import dataclasses
import io
import json

import pytest
from rich.console import Console

from unfool.studies import run_study
from unfool.studies.adversarial_training import AdversarialTraining
from unfool.studies.adversarial_training.scales import METHODS, SCALES
from unfool.studies.framework.run import jobs_of, missing_pieces
from unfool.studies.framework.workspace import Workspace

TINY = dataclasses.replace(
    SCALES["demo"],
    trunk="convnet:stem=strided,widths=4-8-8",
    stage=dataclasses.replace(SCALES["demo"].stage, epochs=1, batch_size=32),
    images=64,
    attacked=12,
    attack="pgd-3",
)
NETWORKS = AdversarialTraining().networks(SCALES["small"])


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdversarialTraining, "scales", {"tiny": TINY})
        console = Console(file=io.StringIO())
        return out, run_study("adversarial-training", "tiny", out, console=console, workers=1).to_json()


def test_the_methods_are_the_issue_s():
    names = [network.model for network in NETWORKS]
    plain = ["FGSM-RS", "PGD-10", "TRADES-1", "TRADES-3", "TRADES-6", "MART"]
    assert sorted(names) == sorted([*plain, *(f"{name} + AWP" for name in plain), "PGD-10 + EMA"])
    for network in NETWORKS:
        (stage,) = network.config.stages
        name, _, extra = network.model.partition(" + ")
        assert (stage.awp > 0, stage.ema > 0) == (extra == "AWP", extra == "EMA")
        assert stage.adversarial == {"T": "trades", "M": "mart"}.get(name[0], "plain")
        if name.startswith("TRADES"):
            assert stage.beta == float(name[-1])
        assert (stage.epochs, stage.threat) == (10, "linf:8/255")
        assert stage.perturb == ("fgsm:random_start=true,step_size=10/255" if name == "FGSM-RS" else "pgd-10")
    assert (SCALES["small"].images, SCALES["small"].attack) == (10_000, "pgd-50")
    assert all(METHODS[name] for name in plain)
    assert SCALES["full"].trunk.name == "preact-resnet18"


def test_every_method_has_its_rows(finished):
    _, result = finished
    rows = result["rows"]
    assert {row["model"] for row in rows} == {network.model for network in NETWORKS}
    for network in NETWORKS:
        own = [row for row in rows if row["model"] == network.model]
        assert [(row["attack"], row["split"], row["n"]) for row in own] == [
            ("none", "test", 397),
            ("pgd-3", "test", 12),
            ("pgd-3", "train", 12),
        ]
        assert {row["protocol"] for row in own} == {"clean", "white-box"}


def test_costs_are_counted(finished):
    """Two batches of 32: a step of crafting and one of training each for FGSM-RS, ten and one for PGD."""
    _, result = finished
    cost = {row["model"]: row["cost"]["model_images"] for row in result["rows"] if row["attack"] == "none"}
    assert cost["FGSM-RS"] == 64 * 2
    assert cost["PGD-10"] == 64 * 11
    assert cost["PGD-10 + EMA"] >= cost["PGD-10"]
    assert cost["PGD-10 + AWP"] > cost["PGD-10"]
    assert cost["TRADES-1"] == cost["TRADES-6"] > cost["PGD-10"]
    claim = result["claims"][0]
    assert claim["verdict"] == "holds"
    assert "128 and 704" in claim["evidence"]


def test_claims_and_charts_are_of_the_rows(finished):
    out, result = finished
    assert len(result["claims"]) == 1 + 4 + 6 + 1
    robust = {(row["model"], row["split"]): row["accuracy"] for row in result["rows"] if row["attack"] != "none"}
    told = next(claim for claim in result["claims"] if claim["text"] == "MART is more robust than PGD-10")
    difference = 100 * (robust["MART", "test"] - robust["PGD-10", "test"])
    assert f"{difference:+.1f} points" in told["evidence"]
    gaps, costs = result["charts"]
    assert {series["name"]: len(series["points"]) for series in gaps["series"]} == {
        "training images": 13,
        "test images": 13,
    }
    (points,) = [series["points"] for series in costs["series"]]
    assert dict(points)["FGSM-RS"] == 128 / 1e6
    assert json.loads((out / "results" / "adversarial-training" / "tiny.json").read_text()) == result
    assert "Robust overfitting" in (out / "report.html").read_text()


def test_work_is_shared_out_with_the_longest_first(tmp_path):
    study = AdversarialTraining()
    work = Workspace(tmp_path, None, "cpu", Console(quiet=True))
    missing = missing_pieces(list(study.measurements(TINY, study.networks(TINY))), work)
    jobs = {job.name: job for job in jobs_of(missing, "adversarial-training", "tiny", work)}
    # A network each, then what is measured of it; examples that are not stored are crafted by the job that needs them.
    assert len(jobs) == len(NETWORKS) * (1 + 3)
    training = {network.path: jobs[network.path].cost for network in NETWORKS}
    assert min(training, key=lambda path: training[path]) in ("fgsm-rs", "fgsm-rs-awp")
    assert training["pgd-10"] == 64 * 11
    attacked = [job for name, job in jobs.items() if name.startswith("mart/pgd-3")]
    assert [(job.needs, job.cost) for job in attacked] == [({"mart"}, 12 * (3 + 1))] * 2
