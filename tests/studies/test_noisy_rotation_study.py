"""A miniature of system E, from images to verdicts; its rows keep the contract."""

import dataclasses
import io
import json
from html import unescape
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from rich.console import Console

import unfool.studies.framework.probes as probes_module
import unfool.studies.framework.workspace as workspace_module
import unfool.studies.noisy_rotation.networks as networks_module
from unfool.evaluation.results.check import check_results
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.studies import run_study
from unfool.studies.framework import Workspace
from unfool.studies.noisy_rotation import NoisyRotation
from unfool.studies.noisy_rotation.networks import extractor, labelled_images, probes
from unfool.studies.noisy_rotation.scales import (
    DEMO,
    HALF,
    HALF_RESNET,
    NOISE,
    PUBLISHED,
    RANDOM,
    RESNET_STAGES,
    ROTATION,
    SOURCE,
    STAGES,
    WHOLE,
)
from unfool.training import ProbeResult

TRUNKS = {
    WHOLE: TrunkSpec(name="vgg16", width=0.0625),
    HALF: TrunkSpec(name="vgg16", width=0.03125),
    HALF_RESNET: TrunkSpec(name="resnet50", stem="imagenet", width=0.03125),
}
TINY = dataclasses.replace(
    DEMO,
    trunks=TRUNKS,
    pretrain=dataclasses.replace(DEMO.pretrain, epochs=1, batch_size=40),
    times=2,
    noises={"as written": "pgd-1:random_start=false,step_size=0.001", "reaching eps": "fgsm", "labels": "fgsm"},
    probe=dataclasses.replace(DEMO.probe, epochs=3, drop_every=1, seeds=(0, 3)),
    pretrainings=(*SOURCE.pretrainings, ROTATION.on(HALF_RESNET)),
    labelled=30,
    held_out=20,
    attacked=6,
    attack="pgd-2",
)


@pytest.fixture(scope="module")
def small_digits():
    """The workspace's tables, cut to a few images."""
    whole = workspace_module.open_table

    def few(name, split, **where):
        table = whole(name, split, **where)
        return table.subset(torch.arange({"train": 80, "test": 40}[split]))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workspace_module, "open_table", few)
        patch.setattr(NoisyRotation, "scales", {"tiny": TINY})
        yield


@pytest.fixture(scope="module")
def finished(tmp_path_factory, small_digits):
    out = tmp_path_factory.mktemp("study")
    return out, run_study("noisy-rotation", "tiny", out, console=Console(file=io.StringIO()), workers=1).to_json()


def of(rows, **wanted):
    return [row for row in rows if all(row.get(key) == value for key, value in wanted.items())]


def test_rows_keep_the_contract(finished):
    out, result = finished
    check_results(result)
    assert json.loads((out / "results" / "noisy-rotation" / "tiny.json").read_text()) == result
    for plan in TINY.pretrainings:
        for stage in STAGES if "ResNet" not in plan.name else RESNET_STAGES:
            for split, count in (("train", 30), ("test", 40)):
                found = of(result["rows"], model=plan.name, split=split, attack="none", settings={"stage": stage})
                assert [(row["seed"], row["n"], row["protocol"]) for row in found] == [
                    (0, count, "clean"),
                    (3, count, "clean"),
                ]
        attacked = of(result["rows"], model=plan.name, attack="pgd-2")
        if plan not in (ROTATION, NOISE):
            assert not attacked
            continue
        assert [row["threat"] for row in attacked] == ["linf:0.01", "linf:8/255"]
        assert {(row["protocol"], row["n"], row["seed"]) for row in attacked} == {("white-box", 6, 0)}
        assert {row["split"] for row in attacked} == {"test"}
        assert len({row["settings"]["stage"] for row in attacked}) == 1


def test_source_figures_stand_beside_the_two_pretrainings_test_rows_alone(finished):
    _, result = finished
    cited = [row for row in result["rows"] if row["source_value"] is not None]
    assert len(cited) == 2 * 5 * 2
    for row in cited:
        figure = PUBLISHED.figures[row["model"], row["settings"]["stage"]]
        assert row["source_value"] == pytest.approx(figure / 100)
        assert (row["split"], row["attack"]) == ("test", "none")


def test_costs_are_counted(finished):
    """80 images: noise of one step doubles them, so does twice the time; random weights cost nothing."""
    _, result = finished
    cost = {row["model"]: row["cost"]["model_images"] for row in of(result["rows"], split="test", attack="none")}
    assert cost[ROTATION.name] == cost["half width, labels"] == 80
    assert cost[NOISE.name] == cost["rotation, for longer"] == cost["half width, labels + noise"] == 160
    assert cost["random weights"] == 0


def test_curves_are_those_of_both_pretrainings_on_every_stage(finished):
    out, result = finished
    titles = [chart["title"] for chart in result["charts"]]
    page = unescape((out / "report.html").read_text())
    assert all(title in page for title in titles)
    for stage in STAGES:
        chart = next(one for one in result["charts"] if one["title"].endswith(f"probe on {stage}"))
        assert [series["name"] for series in chart["series"]] == [
            f"{plan.name}, {split}" for plan in (ROTATION, NOISE) for split in ("train", "test")
        ]
        for series in chart["series"]:
            assert [point[0] for point in series["points"]] == [1, 2, 3]
            name, split = series["name"].rsplit(", ", 1)
            if split == "test":
                rows = of(result["rows"], model=name, split=split, attack="none", settings={"stage": stage})
                # The last point is what the rows say.
                assert series["points"][-1][1] == pytest.approx(sum(r["accuracy"] for r in rows) / 2, abs=2e-6)


def test_the_probe_s_images_and_those_that_choose_a_stage_are_cut_from_train(finished):
    out, _ = finished
    work = Workspace(out, None, "cpu", Console(quiet=True))
    labelled, held_out, test = (images.table(work) for images in labelled_images(TINY))
    assert (len(labelled), len(held_out), len(test)) == (30, 20, 40)
    assert (labelled.split, held_out.split, test.split) == ("train", "train", "test")
    sets = [set(table.ids.tolist()) for table in (labelled, held_out, test)]
    assert not any(one & other for one in sets for other in sets if one is not other)


def test_the_best_stage_is_the_one_that_is_best_on_held_out_images():
    """Mean of two seeds: 0.45 and 0.5, however good on other images."""

    def judged(held_out):
        shares = {"train": 1 - held_out, "test": 1 - held_out, "held_out": held_out}
        return SimpleNamespace(scores={name: SimpleNamespace(accuracy=share) for name, share in shares.items()})

    shares = {("pool1", 0): 0.7, ("pool1", 3): 0.2, ("pool2", 0): 0.4, ("pool2", 3): 0.6}
    result: Any = SimpleNamespace(
        stages=("pool1", "pool2"), seeds=(0, 3), of=lambda stage, seed: judged(shares[stage, seed])
    )
    assert ProbeResult.best_stage(result) == "pool2"


def test_random_weights_are_those_that_rotation_begins_with(finished):
    out, _ = finished
    work = Workspace(out, None, "cpu", Console(quiet=True))
    random = work.get(extractor(TINY, RANDOM)).network
    begun = Network.build(TRUNKS[WHOLE], {}).trunk.state_dict()
    assert all(torch.equal(value, begun[name]) for name, value in random.trunk.state_dict().items())
    trained = work.get(extractor(TINY, ROTATION)).network.trunk.state_dict()
    assert not torch.equal(trained["parts.pool1.0.weight"], begun["parts.pool1.0.weight"])
    assert not random.training


def test_asking_again_makes_nothing_again(finished, monkeypatch):
    out, result = finished

    def never(*_, **__):
        raise AssertionError("a finished piece was made again")

    monkeypatch.setattr(probes_module, "probe", never)
    for name in ("craft", "classify"):
        monkeypatch.setattr(networks_module, name, never)
    monkeypatch.setattr("unfool.studies.framework.run.write_page", lambda path, page: path)
    again = run_study("noisy-rotation", "tiny", out, console=Console(quiet=True), workers=1).to_json()
    assert {**again, "seconds": 0} == {**result, "seconds": 0}


def test_an_extractor_that_was_trained_again_is_probed_again(finished, monkeypatch):
    out, _ = finished
    path = out / "probes" / f"{probes(TINY, ROTATION).path}.json"
    before = path.read_text()
    path.write_text(before.replace('"extractor": "', '"extractor": "other'))
    crafted = []
    craft = networks_module.craft
    monkeypatch.setattr(networks_module, "craft", lambda *a, **k: crafted.append(a) or craft(*a, **k))
    Workspace(out, None, "cpu", Console(quiet=True)).get(probes(TINY, ROTATION))
    assert len(crafted) == 2
    assert path.read_text() == before
