"""Running a study: its pieces made side by side, then one JSON file and one page computed from what they gave."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

from rich.console import Console

from unfool.core.borders.json_text import read_object
from unfool.core.config import to_plain
from unfool.core.errors import DataError, SpecError
from unfool.core.files import claim_folder, folder_lock
from unfool.core.parallel.clock import SECONDS, study_clock
from unfool.core.parallel.executor import Executor, executor_for
from unfool.core.parallel.graph import jobs_of, missing_pieces, with_needs
from unfool.core.parallel.job import CodeFile, Place
from unfool.core.parallel.local import LocalExecutor
from unfool.core.user_code import imported_below
from unfool.data.folders import data_folder
from unfool.data.readers.by_path import image_sets
from unfool.evaluation.results.study_result import StudyResult
from unfool.evaluation.results.versions import versions
from unfool.report.page import Page, write_page
from unfool.studies.framework.claims import judge
from unfool.studies.framework.results import Results
from unfool.studies.framework.stale import forget_stale
from unfool.studies.framework.study import Study, load_study
from unfool.studies.framework.workspace import Piece, Workspace


def run_study(
    study: str | Study[Any],
    scale: str,
    out: str | Path,
    *,
    data_dir: Path | None = None,
    device: str = "cpu",
    console: Console | None = None,
    workers: int | None = None,
    executor: Executor | None = None,
    base: str | Path = "",
) -> StudyResult:
    """Run a study in a folder: train, attack and measure all that it describes, and judge its claims.

    Writes ``OUT/results/<study>/<scale>.json`` and ``OUT/report.html``. Called again with the same folder, it goes on
    where it was stopped, and only reads a study that is finished.

    Args:
        study: The name of a study, the path of a Python file that defines one, or a study itself. With a name or a
            path, several processes can work side by side.
        scale: One of the study's scales.
        out: Folder for networks, adversarial examples and results. It belongs to one study at one scale.
        data_dir: Folder of the data sets; None: the one that ``UNFOOL_DATA_DIR`` names.
        device: Where networks are trained and attacked, such as ``cpu`` or ``cuda``.
        console: Where progress is shown; None: stderr.
        workers: Processes that work side by side; None: one a core on the CPU, otherwise one.
        executor: What makes the pieces in their place, such as a cluster; None: processes of this machine.
        base: A file of weights that a study which allows it starts from, in place of a classifier of its own.

    Returns:
        Rows, claims with their verdicts, charts and notes, as the JSON file holds them.

    Raises:
        SpecError: The study or scale is unknown, the study's file is wrong, or an executor cannot find the study.
        DataError: A data set is missing or damaged.
        OutputError: The folder is in use, or holds another study.

    Example:
        >>> from unfool.studies import Study
        >>> from unfool.studies.framework import Clean, Images, NetworkSpec
        >>> class Glance(Study):
        ...     name, title = "glance", "What a network learns from eight digits"
        ...     scales = {"tiny": 20}
        ...
        ...     def networks(self, images):
        ...         stage = StageConfig(tasks={"labels": TaskConfig(task="labels")}, steps=1, batch_size=8)
        ...         config = RunConfig(data="digits", trunk="convnet:widths=4-8-8", stages=(stage,))
        ...         return [NetworkSpec(key={"model": "one step"}, config=config)]
        ...
        ...     def measurements(self, images, networks):
        ...         yield Clean(system=networks[0], images=Images(data="digits").sample(images))
        >>> run_study(Glance(), "tiny", "glance")
        StudyResult(glance tiny: 1 rows, 0 claims, 0 charts)
    """
    source = study if isinstance(study, str) else ""
    chosen = load_study(study) if isinstance(study, str) else study
    settings, out = chosen.settings(scale, base), Path(out)
    data_dir = data_folder(data_dir)  # refuses one that is missing before anything is made
    if executor is not None and not source:
        raise SpecError("another executor makes pieces of a study that it finds by name or file; give its name or file")
    executor = executor or executor_for(None, device=device, workers=workers)
    with folder_lock(out):
        file = {"file": str(Path(source).resolve())} if source.endswith(".py") else {}
        owner = {"study": chosen.name, "scale": scale, "settings": to_plain(settings), **file}
        claim_folder(out / "study.json", owner, "study")
        work = Workspace(out, data_dir, device, console or Console(stderr=True))
        try:
            with study_clock(out) as spent:
                result, page = _measure(chosen, source, scale, settings, work, executor, base)
                result = replace(result, seconds=round(spent(), 1))
        except BaseException:
            if not (out / "models").is_dir():
                # Nothing was made, so the folder is free for another study.
                for file in ("study.json", SECONDS):
                    (out / file).unlink(missing_ok=True)
            raise
        result.save(out / "results" / chosen.name / f"{scale}.json")
        write_page(out / "report.html", replace(page, result=result))
    return result


def _measure(
    study: Study[Any], source: str, scale: str, settings: Any, work: Workspace, executor: Executor, base: str | Path
) -> tuple[StudyResult, Page]:
    """All pieces of a study, its results and its page."""
    measurements = study.plan(settings)
    every = with_needs(measurements)
    forget_stale(every, work)
    missing = missing_pieces(measurements, work)
    # Without jobs that go side by side each piece is made below, by what asks for it first.
    if source and missing and executor.workers > 1 and (len(missing) > 1 or not isinstance(executor, LocalExecutor)):
        call = partial(make_piece, source, scale, base)
        own = [CodeFile(Path(source), imported_below(Path(source)))] if source.endswith(".py") else []
        data = {each for name in work.sets for each in image_sets(name, work.data_dir)}
        jobs = jobs_of(missing, work, call, folder=work.out, every=every, files=[*own, base], data=data)
        executor.run(jobs, work.out, work.console, data_dir=work.data_dir)
    results = Results.collect(scale, work, measurements, study.published)
    if forget_stale(every, work):  # A network that was missing has been trained again, and is another.
        results = Results.collect(scale, work, measurements, study.published)
    described = list(study.claims(settings))
    claims = judge(described, results)
    if left_out := {claim.id for claim in described} - {claim.id for claim in claims}:
        work.console.print(f"claims without rows, left out: {', '.join(sorted(left_out))}", soft_wrap=True)
    result = StudyResult(
        study=study.name,
        scale=scale,
        data=study.data(settings, results),
        versions=versions(),
        summary=study.summary(settings, results, {claim.id: claim for claim in claims}),
        cuts=list(study.cuts(scale)),
        notes=list(study.notes(settings, results)),
        rows=results.rows,
        claims=claims,
        charts=list(study.charts(settings, results)),
        ladders=list(study.ladders(settings, results)),
    )
    page = Page(
        title=study.title,
        subtitle=study.subtitle,
        result=result,
        curves=list(study.curves(settings, results)),
        gallery=list(study.gallery(settings, results)),
        strips=list(study.strips(settings, results)),
    )
    return result, page


def make_piece(source: str, scale: str, base: str | Path, path: str, place: Place) -> None:
    """Make one piece of a study, in a worker, which finds the study by its name or file."""
    source, base = (str(place.file(name) if Path(name) in place.files else name) for name in (source, base))
    pieces, work = _open(source, scale, base, place.folder, place.data_dir, place.device)
    work.get(pieces[path])


@lru_cache(maxsize=1)
def _open(
    source: str, scale: str, base: str | Path, out: Path, data_dir: Path | None, device: str
) -> tuple[dict[str, Piece], Workspace]:
    """The study's pieces by path, and its workspace, kept from job to job."""
    study = load_study(source)
    pieces = with_needs(study.plan(study.settings(scale, base)))
    return pieces, Workspace(out, data_dir, device, Console(quiet=True))


def reopen_study(
    out: str | Path, *, data_dir: Path | None = None, device: str = "cpu", console: Console | None = None
) -> Path:
    """Write the JSON file and the page of a finished study again, from what lies in its folder.

    Args:
        out: The folder of the study.
        data_dir: Folder of the data sets; None: the one that ``UNFOOL_DATA_DIR`` names.
        device: Where figures that are not stored are computed, such as ``cpu`` or ``cuda``.
        console: Where progress is shown; None: stderr.

    Returns:
        The path of the JSON file.

    Raises:
        DataError: The folder holds no finished study, or a data set is missing or damaged.
        OutputError: The folder is in use.

    Example:
        >>> from unfool.studies import reopen_study
        >>> try:
        ...     reopen_study("runs/nothing")
        ... except UnfoolError as error:
        ...     print(error)
        runs/nothing holds no study; give the folder of a finished study or its results file
    """
    out = Path(out)
    try:
        held = read_object(out / "study.json", "give the folder of a finished study")
        name, scale, source = str(held["study"]), str(held["scale"]), str(held.get("file", held["study"]))
        base = str(held["settings"].get("base", ""))
    except (DataError, KeyError, TypeError, AttributeError) as error:
        raise DataError(f"{out} holds no study; give the folder of a finished study or its results file") from error
    path = out / "results" / name / f"{scale}.json"
    if not path.is_file():
        raise DataError(f"the study in {out} is not finished; run unfool study {source} --scale {scale} --out {out}")
    run_study(source, scale, out, data_dir=data_dir, device=device, console=console, base=base)
    return path
