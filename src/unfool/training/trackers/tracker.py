# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingTypeStubs=false, reportMissingImports=false
"""Trackers as accelerate has them: trackio, tensorboard, mlflow and wandb, or one's own."""

from __future__ import annotations

import importlib.util
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, cast

from pydantic import Field

from unfool.core.config import build, configured
from unfool.core.errors import SpecError


class RunTracker(Protocol):
    """What accelerate's ``GeneralTracker`` and its subclasses are to a run."""

    @property
    def name(self) -> str: ...

    def start(self) -> None: ...

    def store_init_configuration(self, values: dict[str, Any]) -> None: ...

    def log(self, values: dict[str, Any], step: int | None = None) -> None: ...

    def finish(self) -> None: ...


@configured
class Tracker:
    """An experiment tracker that a run is also logged to.

    Raises:
        SpecError: for a tracker that is not known.

    Example:
        >>> from unfool.training import Tracker
        >>> Tracker(name="tensorboard").project
        'unfool'
    """

    name: Literal["trackio", "tensorboard", "mlflow", "wandb"] = Field(description="Which tracker.")
    project: str = Field(
        default="unfool", min_length=1, description="Project of the run (mlflow: experiment; tensorboard has none)."
    )
    run: str | None = Field(default=None, description="What the tracker calls the run; default: the folder's name.")


_PARTS = ("name", "start", "store_init_configuration", "log", "finish")

TrackerLike: TypeAlias = "str | Tracker | RunTracker"
"""A tracker, its name alone, or a tracker of one's own: a started-by-us ``accelerate.tracking.GeneralTracker``."""


def check_trackers(track: Sequence[TrackerLike]) -> list[Tracker | RunTracker]:
    """The trackers that are meant; SpecError for one that is not known, is named twice, or whose package is missing."""
    if isinstance(track, str):
        raise SpecError(f"track is the text {track!r}; give a list of trackers, such as [{track!r}]")
    if not isinstance(track, Sequence):  # pyright: ignore[reportUnnecessaryIsInstance] - callers need not be typed
        raise SpecError(f"track is of type {type(track).__name__}; give a list of trackers, such as ['tensorboard']")
    trackers = [_known(item) for item in track]
    names = [str(tracker.name) for tracker in trackers]
    for tracker in trackers:
        if names.count(str(tracker.name)) > 1:
            raise SpecError(f"tracker {tracker.name} is named twice; name it once")
        if isinstance(tracker, Tracker) and importlib.util.find_spec(tracker.name) is None:
            raise SpecError(
                f"tracker {tracker.name} needs a package that is not installed; run pip install {tracker.name}"
            )
    return trackers


def _known(item: object) -> Tracker | RunTracker:
    """A tracker, by its name alone too; SpecError for a value that is none."""
    if isinstance(item, str):
        return build(Tracker, {"name": item}, "track")
    if isinstance(item, Tracker):
        return item
    if isinstance(item, type) or not all(hasattr(item, part) for part in _PARTS):
        raise SpecError(
            f"track holds {' '.join(repr(item).split())[:80]}, which is no tracker; give a name such as 'tensorboard', "
            "a Tracker, or an accelerate GeneralTracker"
        )
    return cast("RunTracker", item)


def started(item: Tracker | RunTracker, folder: Path, known: str | None, step: int) -> tuple[RunTracker, str]:
    """The tracker at work, and its own name for the run; ``known`` is the run to go on with, ``step`` its next one."""
    tracker, token = _tracker_of(item, folder, known, step)
    tracker.start()
    if isinstance(item, Tracker) and item.name == "mlflow":
        # Its server names a new run itself.
        active: Any = cast("Any", tracker).tracker
        token = str(active.info.run_id)
    return tracker, token


def _tracker_of(item: Tracker | RunTracker, folder: Path, known: str | None, step: int) -> tuple[RunTracker, str]:
    token = known or secrets.token_hex(4)
    if not isinstance(item, Tracker):
        return item, token
    from accelerate import tracking

    run = item.run or folder.resolve().name or "run"
    if item.name == "tensorboard":
        return tracking.TensorBoardTracker(item.name, folder, purge_step=step), token
    if item.name == "mlflow":
        return tracking.MLflowTracker(item.project, run_id=known, run_name=run), token
    if item.name == "wandb":
        return tracking.WandBTracker(item.project, id=token, name=run, resume="allow"), token

    class Trackio(tracking.TrackioTracker):
        """trackio, whose run is closed as the module closes it: else it speaks on stdout when the process ends."""

        def store_init_configuration(self, values: dict[str, Any]) -> None:
            config: Any = self.run.config
            config.update(values)

        def finish(self) -> None:
            import trackio

            trackio.finish()

    return Trackio(item.project, name=f"{run}-{token}", resume="allow", embed=False), token
