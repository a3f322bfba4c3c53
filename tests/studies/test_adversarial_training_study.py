"""A miniature of the table of adversarial training: every method, its cost counted, its gap from its own records."""

import dataclasses
import io
import json
from pathlib import Path

import pytest
from rich.console import Console
from scale_fields import flatten

from unfool.core.parallel.graph import jobs_of, missing_pieces
from unfool.evaluation.results.rows import Row
from unfool.evaluation.results.study_result import StudyResult
from unfool.studies import run_study
from unfool.studies.adversarial_training import AdversarialTraining
from unfool.studies.adversarial_training.scales import METHODS, SCALES
from unfool.studies.framework.workspace import Workspace

TINY = dataclasses.replace(
    SCALES["demo"],
    trunk="convnet:stem=strided,widths=4-8-8",
    stage=dataclasses.replace(SCALES["demo"].stage, epochs=1, batch_size=32),
    images=64,
    attacked=12,
    attack="pgd-3",
)
NETWORKS = AdversarialTraining().networks(TINY)
RESULTS = Path(__file__).parents[2] / "results" / "adversarial-training" / "small.json"
PLAIN = ["FGSM-RS", "N-FGSM", "PGD-10", "TRADES-1", "TRADES-3", "TRADES-6", "MART"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AdversarialTraining, "scales", {"tiny": TINY})
        console = Console(file=io.StringIO())
        return out, run_study("adversarial-training", "tiny", out, console=console, workers=1).to_json()


def test_methods_are_trained_with_weight_perturbation_and_averaging():
    names = [network.model for network in NETWORKS]
    assert names == [*PLAIN, *(f"{name} + AWP" for name in PLAIN), "N-FGSM + EMA", "PGD-10 + EMA"]
    for network in NETWORKS:
        (stage,) = network.config.stages
        name, _, extra = network.model.partition(" + ")
        assert (stage.awp, stage.ema) == (0.005 * (extra == "AWP"), 0.995 * (extra == "EMA"))
        assert stage.adversarial == {"T": "trades", "M": "mart"}.get(name[0], "plain")
        if name.startswith("TRADES"):
            assert stage.beta == float(name[-1])
        fast = {"FGSM-RS": "fgsm:random_start=true,step_size=10/255", "N-FGSM": "n-fgsm"}
        assert stage.perturb == fast.get(name, "pgd-10")
    assert list(METHODS) == PLAIN


STAGE = {
    "tasks.labels.task": "labels",
    "tasks.labels.weight": 1.0,
    "tasks.labels.perturbed": True,
    "tasks.labels.settings": {},
    "steps": 0,
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "weight_decay": 5e-4,
    "momentum": 0.9,
    "nesterov": False,
    "constant_epochs": 0,
    "cosine_epochs": 0,
    "warmup_epochs": 0,
    "drop_every": 30,
    "drop_factor": 0.1,
    "decay": 0.95,
    "trainable": "all",
    "precision": "bf16",
    "perturb": None,
    "threat": "linf:8/255",
    "adversarial": "plain",
    "statistics": "shared",
    "beta": 6.0,
    "awp": 0.0,
    "ema": 0.0,
    "held_out": 0,
    "stop_attack": "pgd-10",
}
CIFAR = {
    "data": "cifar10",
    "trunk.channels": 3,
    **{f"stage.{name}": value for name, value in STAGE.items()},
    "images": 50_000,
    "seeds.0": 0,
    "seeds.1": 1,
    "seeds.2": 2,
    "attack": "pgd-50",
    "threat": "linf:8/255",
    "awp": 0.005,
    "ema": 0.995,
}
"""Whole training set, three seeds, plain momentum: what no scale on CIFAR-10 may cut."""


def test_every_field_of_full_and_of_small_is_as_stated():
    full = {
        **CIFAR,
        "words": "PreAct ResNet-18",
        "trunk.name": "preact-resnet18",
        "trunk.settings.width": 1.0,
        "stage.epochs": 100,
        "stage.schedule": "cosine",
        "attacked": 10_000,
        "precision": "fp32",
        **{f"methods.{place}": network.model for place, network in enumerate(NETWORKS)},
    }
    small = {
        **CIFAR,
        "words": "convnet 16-32-64, strided stem",
        "trunk.name": "convnet",
        "trunk.settings.stem": "strided",
        **{f"trunk.settings.widths.{place}": width for place, width in enumerate((16, 32, 64))},
        "stage.epochs": 4,
        "stage.schedule": "triangle",
        "attacked": 4000,
        "precision": "bf16",
        **{
            f"methods.{place}": name
            for place, name in enumerate(("FGSM-RS", "N-FGSM", "N-FGSM + EMA", "PGD-10", "TRADES-6"))
        },
    }
    assert flatten(SCALES["full"]) == full
    assert flatten(SCALES["small"]) == small
    for scale in ("small", "full"):
        networks = AdversarialTraining().networks(SCALES[scale])
        assert {network.seed for network in networks} == {0, 1, 2}
        assert all(network.config.seed == network.seed for network in networks)


CUTS = {
    "small": {
        **dict.fromkeys(
            ("words", "trunk."), "a convnet of 16, 32 and 64 channels with a strided stem, for a PreAct ResNet-18"
        ),
        "stage.epochs": "4 on one triangle, for 15 in the paper of FGSM-RS and 100 with a cosine in full",
        "stage.schedule": "4 on one triangle, for 15 in the paper of FGSM-RS and 100 with a cosine in full",
        "methods.": "five of sixteen",
        "attacked": "4,000 test images of 10,000",
        "precision": "bf16 in training and in the search of PGD-50",
    },
    "full": {},
}
"""What each field of a scale that is not as in `full` is called in the cuts, by the begin of its path."""


@pytest.mark.parametrize("name", CUTS)
def test_what_a_scale_cuts_is_named(name):
    fields, full, cuts = flatten(SCALES[name]), flatten(SCALES["full"]), " ".join(AdversarialTraining().cuts(name))
    cut = {path for path in fields.keys() | full.keys() if fields.get(path) != full.get(path)}
    for path in cut:
        (words,) = {words for begin, words in CUTS[name].items() if path.startswith(begin)}
        assert words in cuts, path
    assert all(any(path.startswith(begin) for path in cut) for begin in CUTS[name])
    # Of both: the papers' own evaluations are stronger, and training computes in bf16.
    assert "PGD-50 from one start" in cuts
    assert "AutoAttack" in cuts
    assert fields["stage.precision"] == "bf16"
    assert "bf16 in training" in cuts


def test_the_figures_of_the_paper_of_fgsm_rs_stand_beside_its_test_rows_alone():
    row = Row(
        model="FGSM-RS", data="cifar10", split="test", attack="none", protocol="clean", accuracy=0.5, low=0, high=1, n=9
    )
    beside = AdversarialTraining.published.of
    assert beside(row) == 0.833
    assert beside(dataclasses.replace(row, attack="pgd-50")) == 0.461
    others = ({"attack": "pgd-20"}, {"split": "train"}, {"data": "digits"}, {"model": "PGD-10"})
    assert [beside(dataclasses.replace(row, **changed)) for changed in others] == [None] * 4
    published = StudyResult.load(RESULTS)
    assert {(row.model, row.attack, row.source_value) for row in published.rows if row.source_value is not None} == {
        ("FGSM-RS", "none", 0.833),
        ("FGSM-RS", "pgd-50", 0.461),
    }


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
    assert len(result["claims"]) == 1 + 5 + 7 + 2
    robust = {(row["model"], row["split"]): row["accuracy"] for row in result["rows"] if row["attack"] != "none"}
    told = next(claim for claim in result["claims"] if claim["text"] == "MART is more robust than PGD-10")
    difference = 100 * (robust["MART", "test"] - robust["PGD-10", "test"])
    assert f"{difference:+.1f} points" in told["evidence"]
    gaps, costs = result["charts"]
    assert {series["name"]: len(series["points"]) for series in gaps["series"]} == {
        "training images": 16,
        "test images": 16,
    }
    (points,) = [series["points"] for series in costs["series"]]
    assert dict(points)["FGSM-RS"] == 128 / 1e6
    assert json.loads((out / "results" / "adversarial-training" / "tiny.json").read_text()) == result
    assert f"FGSM-RS {100 * robust['FGSM-RS', 'test']:.1f} %, N-FGSM" in result["summary"]
    assert "attacked by pgd-3 inside linf:0.1 on 12 test images" in result["summary"]
    for claim in result["claims"]:
        assert f"{claim['text']} ({claim['figure']}, {claim['verdict']})" in result["summary"]
    assert "Robust overfitting" in (out / "report.html").read_text()


def test_work_is_shared_out_with_the_longest_first(tmp_path):
    study = AdversarialTraining()
    work = Workspace(tmp_path, None, "cpu", Console(quiet=True))
    missing = missing_pieces(list(study.measurements(TINY, study.networks(TINY))), work)
    jobs = {job.name: job for job in jobs_of(missing, work, lambda path, place: None)}
    # A network each, then what is measured of it; examples that are not stored are crafted by the job that needs them.
    assert len(jobs) == len(NETWORKS) * (1 + 3)
    training = {network.path: jobs[network.path].cost for network in NETWORKS}
    cheapest = [f"{name}{extra}/0" for name in ("fgsm-rs", "n-fgsm") for extra in ("", "-awp", "-ema")]
    assert min(training, key=lambda path: training[path]) in cheapest
    assert training["pgd-10/0"] == 64 * 11
    attacked = [job for name, job in jobs.items() if name.startswith("mart/0/pgd-3")]
    assert [(job.needs, job.cost) for job in attacked] == [({"mart/0"}, 12 * (3 + 1))] * 2


def test_methods_are_compared_over_training_seeds(tmp_path, monkeypatch):
    several = dataclasses.replace(TINY, methods=("FGSM-RS", "N-FGSM", "PGD-10"), seeds=(0, 1))
    monkeypatch.setattr(AdversarialTraining, "scales", {"several": several})
    monkeypatch.setattr("unfool.studies.framework.run.write_page", lambda path, page: path)
    result = run_study("adversarial-training", "several", tmp_path, console=Console(file=io.StringIO()), workers=1)
    claims = {claim.id: claim for claim in result.claims}
    assert list(claims) == ["fast-is-cheap", "pgd-10-over-fgsm-rs", "n-fgsm-over-fgsm-rs"]
    assert "over 2 training seeds" in claims["n-fgsm-over-fgsm-rs"].evidence
    assert len(result.rows) == 3 * 2 * 3
    (points,) = {len(points) for points in result.charts[0].series.values()}
    assert points == 3
