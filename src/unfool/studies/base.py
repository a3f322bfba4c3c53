"""What a study is, and how one is run: pieces in a workspace, then one JSON file and one page computed from them."""

from __future__ import annotations

import json
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import torch
from rich.console import Console

from unfool.core.config import to_plain
from unfool.core.errors import DataError, OutputError
from unfool.core.files import folder_lock, write_json
from unfool.core.registry import Registry
from unfool.core.spec import unknown
from unfool.data.places import data_folder
from unfool.evaluation.study_result import StudyResult
from unfool.report.curves import Curve
from unfool.report.gallery import GalleryItem
from unfool.report.page import Page, write_page
from unfool.report.strips import Strip
from unfool.studies.clock import SECONDS, study_clock
from unfool.studies.workspace import Workspace

SCHEMA_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a study found: what its JSON file carries, and the curves, gallery and strips that only the page shows."""

    rows: list[dict[str, Any]]
    claims: list[dict[str, Any]]
    data: dict[str, Any]
    notes: list[str]
    curves: list[Curve]
    gallery: list[GalleryItem]
    charts: list[dict[str, Any]] = field(default_factory=list)
    ladders: list[dict[str, Any]] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)


class Study(ABC):
    """One source system. ``scales`` maps the scales' names to their settings (configured dataclasses)."""

    title: ClassVar[str]
    subtitle: ClassVar[str]
    scales: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def run(self, scale: str, work: Workspace) -> Outcome:
        """Make or find every piece and judge the claims."""


STUDIES: Registry[Callable[[], Study]] = Registry("study", "unfool.studies")


def run_study(
    name: str,
    scale: str,
    out: str | Path,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
    console: Console | None = None,
) -> dict[str, Any]:
    """Run a study in a folder, or finish or reopen one that was run there; returns the contents of its JSON file.

    Writes ``OUT/results/<study>/<scale>.json`` and ``OUT/report.html``. Raises SpecError for an unknown study or scale,
    OutputError for a folder in use or of another study, and what data, training and attacks raise.
    """
    study = STUDIES[name]()
    if scale not in study.scales:
        raise unknown(f"scale of study {name!r}", scale, study.scales)
    out = Path(out)
    console = console or Console(stderr=True)
    data_folder(data_dir)  # refuses one that is missing before anything is made
    with folder_lock(out):
        _claim(out, name, scale, to_plain(study.scales[scale]))
        work = Workspace(out, data_dir, device, console)
        try:
            with study_clock(out) as spent:
                outcome = study.run(scale, work)
                seconds = spent()
        except BaseException:
            if not (out / "models").is_dir():
                # Nothing was made, so the folder is free for another study.
                for file in ("study.json", SECONDS):
                    (out / file).unlink(missing_ok=True)
            raise
        result = {
            "schema_version": SCHEMA_VERSION,
            "study": name,
            "scale": scale,
            "data": outcome.data,
            "seconds": round(seconds, 1),
            "versions": versions(),
            "notes": outcome.notes,
            "rows": outcome.rows,
            "claims": outcome.claims,
        }
        extras = {"ladder": outcome.ladders, "charts": outcome.charts}
        result |= {key: values for key, values in extras.items() if values}
        write_json(results_path(out, name, scale), result)
        page = Page(
            title=study.title,
            subtitle=study.subtitle,
            result=StudyResult.from_json(result),
            curves=outcome.curves,
            gallery=outcome.gallery,
            strips=outcome.strips,
        )
        write_page(out / "report.html", page)
    return result


def reopen_study(
    out: str | Path, *, data_dir: Path | None = None, device: str = "cpu", console: Console | None = None
) -> Path:
    """Write a finished study's JSON file and page again from its pieces; the path of the JSON file.

    DataError for a folder that holds no finished study, and what `run_study` raises.
    """
    out = Path(out)
    try:
        held = json.loads((out / "study.json").read_text(encoding="utf-8"))
        name, scale = str(held["study"]), str(held["scale"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{out} holds no study; give the folder of a finished study or its results file") from error
    path = results_path(out, name, scale)
    if not path.is_file():
        raise DataError(f"the study in {out} is not finished; run unfool study {name} --scale {scale} --out {out}")
    run_study(name, scale, out, data_dir=data_dir, device=device, console=console)
    return path


def results_path(out: Path, name: str, scale: str) -> Path:
    """Where a study's JSON lies below its folder, or below the repository's own results."""
    return out / "results" / name / f"{scale}.json"


def versions() -> dict[str, str]:
    """What a result depends on: program, Python, libraries, processor architecture and threads."""
    names = ("unfool", "torch", "accelerate", "numpy")
    found = {name: version(name) for name in names}
    return {
        "python": platform.python_version(),
        **found,
        "machine": platform.machine(),
        "threads": str(torch.get_num_threads()),
    }


def _claim(out: Path, name: str, scale: str, settings: Any) -> None:
    """Refuse a folder that holds another study, another scale, or the same with other settings."""
    path = out / "study.json"
    ours = {"study": name, "scale": scale, "settings": settings}
    if path.is_file():
        try:
            theirs = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise OutputError(f"{path} is not JSON; delete {out} or choose another folder") from error
        if theirs != ours:
            what = next((key for key in ours if theirs.get(key) != ours[key]), "settings")
            raise OutputError(f"{out} holds a study with another {what}; choose another --out or delete that folder")
    else:
        write_json(path, ours)
