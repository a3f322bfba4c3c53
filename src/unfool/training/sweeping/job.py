"""One run of a sweep as a job of an executor, and what its folder says of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import torch

from unfool.core.borders.json_text import read_object
from unfool.core.borders.reading import is_file
from unfool.core.borders.shapes import of_known_form
from unfool.core.errors import OutputError, WeightsError
from unfool.core.files import remove_folder, write_json
from unfool.core.parallel.job import Place
from unfool.data.catalog import open_described
from unfool.data.table import Table
from unfool.models.header import read_header
from unfool.training.config import RunConfig, label_columns
from unfool.training.folder import CHECKPOINT, METRICS, WEIGHTS
from unfool.training.metrics import read_metrics
from unfool.training.run import train_until
from unfool.training.running.trainer import DivergedError
from unfool.training.schedule import stage_length
from unfool.training.sweeping.measure import Line

DIVERGED_FILE = "diverged.json"
"""In the folder of a run whose loss was not finite: the message and the cost, so that it is not trained again."""
_AGAIN = "delete it to start the run again"
_CHECKPOINT_FILE = Path(CHECKPOINT) / "state.safetensors"


def train_job(config: RunConfig, name: str, steps: int, table: Table | None = None) -> Callable[[Place], None]:
    """The call of a job that trains a run, in the folder ``name`` of its place, up to so many steps.

    A ``table`` that is not the catalog's stays in this process.
    """
    return partial(_train, config, name, steps) if table is None else partial(_train_on, table, config, name, steps)


def _train(config: RunConfig, name: str, steps: int, place: Place) -> None:
    columns = tuple(label_columns(config))
    table = _opened(config.data, config.size, config.crop, config.image, columns, place.data_dir)
    _train_on(table, config, name, steps, place)


def _train_on(table: Table, config: RunConfig, name: str, steps: int, place: Place) -> None:
    """Train a run up to so many steps; one that diverges leaves a file that says so."""
    folder = place.folder / name
    if config.start is not None and Path(config.start) in place.files:
        config = dataclasses.replace(config, start=str(place.file(config.start)))
    try:
        with _one_thread():
            train_until(steps, config, table, folder, device=place.device, progress=place.progress)
    except DivergedError as error:
        cost = {"cpu_seconds": error.cpu_seconds, "model_images": error.model_images}
        write_json(folder / DIVERGED_FILE, {"message": str(error), **cost})
        remove_folder(folder / CHECKPOINT)


@contextmanager
def _one_thread() -> Generator[None, None, None]:
    """Inside, PyTorch computes with one thread, as in worker processes: another number sums in another order, and a run
    would depend on where it is trained."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@lru_cache(maxsize=2)
def _opened(
    data: str, size: int, crop: float, image: str | None, columns: tuple[str, ...], data_dir: Path | None
) -> Table:
    """The training images, kept from job to job."""
    return open_described(data, "train", data_dir=data_dir, size=size or None, crop=crop, image=image, columns=columns)


@dataclass(frozen=True, kw_only=True)
class RunProgress:
    """How far a run of a sweep is: its ``steps`` that a checkpoint or its weights hold, and the lines of its log."""

    steps: int = 0
    finished: bool = False
    diverged: bool = False
    lines: Sequence[Line] = ()
    cpu_seconds: float = 0.0
    model_images: int = 0


def read_progress(folder: Path, config: RunConfig, images: int) -> RunProgress:
    """How far the run in a folder is; ``images`` is how many it learns from. Raises OutputError, WeightsError."""
    lengths = [stage_length(stage, images)[0] for stage in config.stages]
    if is_file(folder / DIVERGED_FILE):
        lines = read_metrics(folder / METRICS) if is_file(folder / METRICS) else []
        with of_known_form(folder / METRICS, _AGAIN, OutputError):
            steps = sum(lengths[: int(lines[-1]["stage"])]) + int(lines[-1]["step"]) if lines else 0
        # Of a run that an earlier version trained the file has no cost.
        cost = {"cpu_seconds": 0.0, "model_images": 0, **read_object(folder / DIVERGED_FILE, _AGAIN, error=OutputError)}
        with of_known_form(folder / DIVERGED_FILE, _AGAIN, OutputError):
            return _with_cost(cost, RunProgress(steps=steps, diverged=True, lines=lines))
    finished = is_file(folder / WEIGHTS)
    if not finished and not is_file(folder / _CHECKPOINT_FILE):
        return RunProgress()
    lines = read_metrics(folder / METRICS)
    file = folder / (WEIGHTS if finished else _CHECKPOINT_FILE)
    metadata = read_header(file).metadata
    with of_known_form(file, _AGAIN, WeightsError):
        if finished:
            return _with_cost(metadata, RunProgress(steps=sum(lengths), finished=True, lines=lines))
        state = metadata["progress"]
        steps = sum(lengths[: int(state["stage"])]) + int(state["step"])
        return _with_cost(state, RunProgress(steps=steps, lines=lines[: int(state["lines"])]))


def _with_cost(values: Mapping[str, Any], progress: RunProgress) -> RunProgress:
    """The progress with what it has cost, as a file's header says."""
    seconds, count = float(values["cpu_seconds"]), int(values["model_images"])
    return dataclasses.replace(progress, cpu_seconds=seconds, model_images=count)
