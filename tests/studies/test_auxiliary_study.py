"""A miniature of system D, from images to pictures; its rows keep the contract, and its regimes share a description."""

import dataclasses
import io
import json
from html import unescape

import pytest
from rich.console import Console

from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.evaluation.results.check import check_results
from unfool.studies import STUDIES, run_study
from unfool.studies.auxiliary_reversal import AuxiliaryReversal, systems
from unfool.studies.auxiliary_reversal.scales import ARMS, IN_SHORT, STRONGER, Part, Scale, auxiliary
from unfool.studies.framework import adaptive, measurements
from unfool.tasks import TASKS
from unfool.training import StageConfig
from unfool.training.recipes import LABELS, NORMAL, ROBUST

STAGE = {"steps": 2, "batch_size": 32}
LABELLED = StageConfig(tasks=LABELS, **STAGE)
TILES = {"form": "context-free", "grid": 2, "count": 4, "hidden": 16, "augmentation": "resized-crop"}
KEPT = ("inpainting", "jigsaw", "labels")
TINY = Scale(
    parts=(
        Part(
            data="digits",
            trunk={"name": "context-encoder", "width": 1 / 16},
            trainings={
                NORMAL: LABELLED,
                ROBUST: dataclasses.replace(LABELLED, perturb="fgsm", held_out=140, stop_attack="fgsm"),
            },
            heads=STAGE,
            tasks=(auxiliary("inpainting", width=8, discriminator=4), auxiliary("jigsaw", **TILES)),
            first_only={STRONGER: dataclasses.replace(LABELLED, perturb="pgd-2", held_out=140, stop_attack="fgsm")},
            every=True,
            arms=True,
            alone=LABELLED,
        ),
    ),
    attacked=10,
    strongly=8,
    ladder=LadderSettings(threat="linf:8/255", images=4, steps=2, draws=2, lambdas=(1.0,), precision="bf16"),
    reversal={"steps": 1},
    strongest="pgd-3",
)


def run(out):
    assert "auxiliary-reversal" in STUDIES  # imports every study while all tasks are there
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AuxiliaryReversal, "scales", {"tiny": TINY})
        patch.setattr(TASKS, "_items", {name: TASKS[name] for name in KEPT})
        console = Console(file=io.StringIO())
        return run_study("auxiliary-reversal", "tiny", out, console=console, workers=1).to_json()


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("study")
    return out, run(out)


def rows_of(result, **wanted):
    return [row for row in result["rows"] if all(row.get(key) == value for key, value in wanted.items())]


def test_every_task_stands_in_the_table_in_both_regimes_with_and_without_reversal(finished):
    _, result = finished
    check_results(result)
    for base in (NORMAL, ROBUST):
        for task in ("inpainting", "jigsaw"):
            joint = {"training": IN_SHORT[base], "regime": "joint"}
            first = {"training": IN_SHORT[base], "regime": "classifier first"}
            for model, defense, settings in (
                (f"labels + {task}", "none", joint),
                (f"labels + {task}", f"reverse:{task}", joint),
                ("labels", "none", {"training": IN_SHORT[base]}),
                ("labels", f"reverse:{task}", first),
            ):
                found = {row["attack"]: row for row in rows_of(result, model=model, defense=defense, settings=settings)}
                assert list(found) == ["none", "fgsm", "pgd-2", "pgd-20", "pgd-3"]
                protocols = {row["protocol"] for attack, row in found.items() if attack != "none"}
                assert protocols == ({"white-box"} if defense == "none" else {"transfer"})
                assert [row["n"] for row in found.values()] == [397, 10, 10, 10, 8]


def test_every_reversal_climbs_the_ladder_and_gates_are_the_robust_classifier_s(finished):
    _, result = finished
    adaptive = [row for row in result["rows"] if row["protocol"] == "adaptive"]
    assert {row["model"] for row in adaptive} == {
        f"{model}, {base}"
        for model in ("labels", "labels + inpainting", "labels + jigsaw")
        for base in (NORMAL, ROBUST)
    } | {f"labels, {STRONGER}"}
    gated = [row for row in adaptive if row["defense"].startswith("gate:")]
    assert {(row["model"], row["defense"]) for row in gated} == {
        (f"labels, {base}", f"gate:{task}")
        for base, task in ((ROBUST, "inpainting"), (ROBUST, "jigsaw"), (STRONGER, "inpainting"))
    }
    assert {row["rung"] for row in gated} == {*"cdefg", "worst-case"}


def test_arms_of_the_jigsaw_have_rows_and_claims_of_their_own(finished):
    _, result = finished
    for arm in ARMS:
        settings = {"training": "normal", "regime": "joint", "arm": arm}
        assert len(rows_of(result, model="labels + jigsaw", defense="none", settings=settings)) == 5
    assert sum(claim["id"].startswith("arm-") for claim in result["claims"]) == len(ARMS)


def test_what_a_row_costs_counts_the_reversal_s_views(finished):
    _, result = finished
    settings = {"training": "normal", "regime": "classifier first"}
    (row,) = rows_of(result, model="labels", defense="reverse:jigsaw", attack="none", settings=settings)
    # one step on four tiles, and the classification
    assert row["cost"]["model_images"] == 397 * (4 + 1)


def test_the_arguments_are_judged_on_decoders_of_one_trunk(finished):
    out, result = finished
    path = out / "pretext" / "digits" / "normal" / "classifier-first" / "labels" / "pretext.json"
    found = json.loads(path.read_text())["fillings"]
    assert list(found) == ["", "L2 alone", "adversarial loss alone"]
    assert all(sum(part["count"] for part in parts) == 397 for parts in found.values())
    texts = [claim["text"] for claim in result["claims"]]
    for words in ("The adversarial loss alone fills", "L2 alone fills", "One mask reverses better than several"):
        assert sum(text.startswith(words) for text in texts) == 1
    variants = {row["settings"]["variant"] for row in result["rows"] if "variant" in row["settings"]}
    assert variants == {"L2 alone", "adversarial loss alone", "several masks"}


def test_a_jigsaw_without_augmentation_is_judged_on_moved_images_too(finished):
    out, result = finished
    folder = out / "pretext" / "digits" / "normal"
    assert list(json.loads((folder / "alone" / "jigsaw" / "pretext.json").read_text())["tasks"]) == ["jigsaw"]
    path = folder / "alone-without-augmentation" / "jigsaw" / "pretext.json"
    bare = json.loads(path.read_text())["tasks"]
    assert list(bare) == ["jigsaw", "jigsaw moved by half a block", "jigsaw moved by a block"]
    assert sum("grid that JPEG left" in claim["text"] for claim in result["claims"]) == 1


def test_gates_and_variants_are_judged_clean_on_the_images_of_their_neighbours(finished):
    _, result = finished
    clean = [row for row in result["rows"] if row["attack"] == "none"]
    assert sum(row["defense"].startswith("gate:") or "variant" in row["settings"] for row in clean) == 3 + 3
    assert {row["n"] for row in clean if "variant" not in row["settings"]} == {397}
    assert {row["n"] for row in clean if "variant" in row["settings"]} == {10}


def test_what_the_tasks_learnt_is_shown_beside_what_they_knew_in_training(finished):
    out, result = finished
    (found,) = [chart for chart in result["charts"] if chart["title"] == "What the tasks learnt"]
    held_out, training = ({point[0]: point[1] for point in series["points"]} for series in found["series"])
    assert [series["name"] for series in found["series"]] == ["held out", "in training"]
    moved = {name for name in held_out if "block" in name}
    assert set(training) == set(held_out) - moved
    (name,) = [name for name in training if "alone" in name and "without" not in name]
    lines = (out / "models/digits/normal/alone/jigsaw/metrics.csv").read_text().splitlines()
    shares = [float(line.split(",")[lines[0].split(",").index("accuracy/jigsaw")]) for line in lines[1:]]
    assert training[name] == pytest.approx(sum(shares[-10:]) / len(shares[-10:]), abs=1e-6)


def test_the_page_has_pictures_of_all_three_kinds(finished):
    out, _ = finished
    page = unescape((out / "report.html").read_text())
    pictures = ("masked", "filled", "original", "shuffled", "as predicted", "right order", "attacked: ", "reversed: ")
    for words in ("Regions filled", *pictures):
        assert words in page


def test_asking_again_makes_nothing_again(finished, monkeypatch):
    out, result = finished

    def never(*_, **__):
        raise AssertionError("a finished piece was made again")

    for name in ("craft", "classify"):
        monkeypatch.setattr(measurements, name, never)
    for name in ("audit", "ladder"):
        monkeypatch.setattr(adaptive, name, never)
    monkeypatch.setattr(systems, "pretext_figures", never)
    monkeypatch.setattr("unfool.studies.framework.run.write_page", lambda path, page: path)
    again = run(out)
    assert {**again, "seconds": 0} == {**result, "seconds": 0}
