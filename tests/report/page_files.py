"""One page of each kind as a file, from stored results: nothing is trained or attacked for them."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from unfool.cli.result_pages import page_of
from unfool.evaluation.crafting.pictures import png
from unfool.evaluation.results.run_details import AttackPicture, RunDetails
from unfool.evaluation.results.study_result import StudyResult
from unfool.report import Page, write_page
from unfool.report.index import write_index
from unfool.report.reversal import ReversedPicture, reversal_page
from unfool.report.sweeps.page import write_sweep_page
from unfool.training.sweeping.result import SweepResult
from unfool.training.sweeping.runs import DIVERGED, FINISHED, STOPPED, SweepRun

TESTS = Path(__file__).parents[1]
RESULTS = TESTS.parent / "results"
KINDS = ("demo", "evaluation", "ladder", "longest", "reversal", "sweep", "index")
RUN = RunDetails(command="unfool evaluate run --attack pgd-5", date="2026-11-29 12:00 UTC", device="cpu")


def write_pages(folder: Path) -> dict[str, Path]:
    """The pages by kind; the index is over the others' results."""
    made = {"demo": _demo(), "evaluation": _evaluation(), "ladder": _ladder(), "longest": _longest()}
    paths = {}
    for name, result in made.items():
        result.save(folder / "all" / f"{name}.json")
        paths[name] = write_page(folder / f"{name}.html", page_of(result))
    paths["reversal"] = write_page(folder / "reversal.html", _reversal())
    paths["sweep"] = write_sweep_page(made_up_sweep(), "runs/sweep", folder / "sweep.html")
    paths["index"] = write_index(folder / "all", page_of)
    return paths


def made_up_sweep(seeds: int = 3, **changes: Any) -> SweepResult:
    """Twelve settings of two fields: four finished, seven stopped early, one diverged."""
    runs = [
        _sweep_run(number, seed, rate, trunk)
        for number, (rate, trunk) in enumerate((rate, trunk) for rate in (0.01, 0.1, 1.0) for trunk in _TRUNKS)
        for seed in range(seeds)
    ]
    values: dict[str, Any] = {
        "config": {"stages": [{"threat": "linf:4/255"}]},
        "vary": {"learning_rate": [0.01, 0.1, 1.0], "trunk": _TRUNKS, "seed": list(range(seeds))},
        "metric": "robust",
        "measured_by": "robust accuracy on 200 images held out from the training set, under pgd-10 at linf:4/255",
        "stop_early": 3,
        "data": "digits",
        "command": "unfool sweep train.yaml --vary learning_rate=0.01,0.1,1 --vary seed=0..2 --stop-early 3",
        "date": "2026-11-29 12:00 UTC",
        "versions": {"unfool": "0.1", "torch": "2.9"},
    }
    return SweepResult(**{**values, "runs": runs, **changes})


_TRUNKS = ["resnet18", "convnet:stem=strided,widths=24-64-128", "wide-resnet:depth=28,width=10", "vgg16<b>"]


def _sweep_run(number: int, seed: int, rate: float, trunk: str) -> SweepRun:
    state = FINISHED if number < 4 else DIVERGED if number == 11 else STOPPED
    steps = 900 if state == FINISHED else 100 * (1 + number % 3)
    score = 0.6 - 0.03 * number + 0.01 * ((seed * 7 + number) % 3)
    return SweepRun(
        values={"learning_rate": rate, "trunk": trunk, "seed": seed},
        seed=seed,
        folder=f"learning-rate-{rate}-trunk-resnet18-seed-{seed}-0123456789{number:02}",
        state=state,
        steps=steps,
        length=900,
        score=None if state == DIVERGED else score,
        curve=[(step, score * step / (step + 60)) for step in range(100, steps + 1, 100)],
        cpu_seconds=12.5 * steps,
        model_images=1100 * steps,
    )


def _golden(name: str) -> Any:
    return json.loads((TESTS / "golden" / f"{name}.json").read_text(encoding="utf-8"))


def _demo() -> StudyResult:
    """The rows of the demo, with the claims of the larger scale."""
    claims = json.loads((RESULTS / "contrastive-multitask" / "small.json").read_text(encoding="utf-8"))["claims"]
    claims[0]["verdict"] = "out of reach"
    rows = _golden("contrastive-multitask")["rows"]
    names = {"study": "contrastive-multitask", "scale": "demo", "summary": "What was claimed, and what holds. " * 4}
    return StudyResult.from_json({"schema_version": 1, **names, "rows": rows, "claims": claims})


def _longest() -> StudyResult:
    return StudyResult.load(RESULTS / "auxiliary-reversal" / "small.json")


def _evaluation() -> StudyResult:
    """The golden evaluation with a curve over eps and pictures."""
    values = _golden("evaluate")["json"]
    attacked = next(row for row in values["rows"] if row["attack"].startswith("pgd"))
    shares = {"linf:2/255": 0.7, "linf:8/255": 0.5, "linf:16/255": 0.25, "linf:0.1": 0.1}
    curve = [
        {**attacked, "threat": eps, "settings": {"curve": "over eps"}, "accuracy": s, "low": s - 0.05, "high": s + 0.05}
        for eps, s in shares.items()
    ]
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(0))
    pair = {"clean": png(image), "adversarial": png((image + 0.03).clamp(0, 1))}
    pictures = [AttackPicture(attack="pgd-5 at linf:0.1", label="3", fooled=fooled, **pair) for fooled in (True, False)]
    stored = {"gallery": [picture.to_json() for picture in pictures], "run": RUN.to_json()}
    doubts = ["more-steps-win: 4 of 48 images fell to PGD only with 25 steps instead of 5; attack with more steps"]
    return StudyResult.from_json({**values, **stored, "rows": [*values["rows"], *curve], "doubts": doubts})


def _ladder() -> StudyResult:
    """The golden ladder, whose pictures are stored as hashes alone, and whose times are not stored."""
    file = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 120, 150)).save(file, format="PNG")
    return StudyResult.from_json(_with_pictures(_golden("ladder")["json"], file.getvalue()))


def _with_pictures(value: Any, file: bytes) -> Any:
    if isinstance(value, dict):
        text = base64.b64encode(file).decode()
        seconds = {"cpu_seconds": 1.5} if "fooled_by" in value else {}
        return {
            **{key: text if key == "png" else _with_pictures(each, file) for key, each in value.items()},
            **seconds,
        }
    return [_with_pictures(each, file) for each in value] if isinstance(value, list) else value


def _reversal() -> Page:
    image = torch.rand(3, 16, 16, generator=torch.Generator().manual_seed(1))
    path = [4.0 - 0.05 * step for step in range(11)]
    pictures = [
        ReversedPicture(
            name=f"a_photograph_with_a_long_name_{number}.png",
            before=image,
            after=(image - 0.02).clamp(0, 1),
            classes=("aeroplane", "bird"),
            probabilities=(0.61, 0.83),
            path=path,
        )
        for number in range(3)
    ]
    return reversal_page(pictures, "runs/robust", "reverse:task=contrast,steps=10", RUN)
