"""A command's work in several processes or on a cluster: its system is opened again there from what the user wrote."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol

from rich.console import Console

from unfool.cli.options.cluster import WorkOptions
from unfool.cli.options.shared import DataOptions, ModelOptions
from unfool.cli.parsing.defended import open_defense
from unfool.cli.parsing.images import ReadingOptions, named_set
from unfool.cli.parsing.systems import open_system
from unfool.core.errors import OutputError
from unfool.core.parallel.job import CodeFile, Place
from unfool.core.parallel.sharing import Sharing
from unfool.core.user_code import imported_below
from unfool.data.folders import data_folder
from unfool.data.readers.by_path import image_sets
from unfool.evaluation.parts.opened import Opened
from unfool.evaluation.settings import EvaluationSettings, check_evaluation
from unfool.training import RunConfig
from unfool.training.folder import CONFIG


class Opens(Protocol):
    """Opens something of a command again elsewhere: which images it reads, and which ``files`` of this machine."""

    @property
    def data(self) -> ReadingOptions: ...

    @property
    def files(self) -> tuple[tuple[str, Path | CodeFile], ...]: ...


@dataclass(frozen=True, kw_only=True)
class OpensSystem:
    """Opens the system of a command with its images and attacks, wherever a job is run.

    Args:
        model: The options that name the system.
        data: The options that name its images.
        files: What of these is a file or folder of the asker's machine, by the option, as ``files_of`` lists them.
        attacks: Attacks by their names.
        settings: Settings of the evaluation, of which the attacks' threat models are some.
        defense: A defense before the system.
        seed: Seed of the defense's own draws.
        batch_size: The batch size that was asked for.
    """

    model: ModelOptions
    data: DataOptions
    files: tuple[tuple[str, Path | CodeFile], ...]
    attacks: tuple[str, ...] = ()
    settings: EvaluationSettings = EvaluationSettings()  # noqa: RUF009 - frozen
    defense: str | None = None
    seed: int = 0
    batch_size: int | None = None

    def __call__(self, place: Place) -> Opened:
        data = replace(self.data, data_dir=place.data_dir or self.data.data_dir)
        system = open_system(moved_model(self.model, self.files, place), place.device)
        table, column = system.images(data, self.batch_size)
        network = system.network
        if self.defense is not None:
            network = open_defense(self.defense, system, system.split(data, "train"), self.seed)
        attacks = check_evaluation(self.attacks, self.settings)[1] if self.attacks else []
        return Opened(model=network, table=table, column=column, attacks=attacks)


def opens_system(
    model: ModelOptions,
    data: DataOptions,
    attacks: Sequence[str],
    settings: EvaluationSettings,
    *,
    defense: str | None = None,
    seed: int = 0,
    batch_size: int | None = None,
) -> OpensSystem:
    """What opens the system of a command; whatever runs jobs loads the plugins that are loaded here."""
    return OpensSystem(
        model=model,
        data=data,
        files=tuple(files_of(model)),
        attacks=tuple(attacks),
        settings=settings,
        defense=defense,
        seed=seed,
        batch_size=batch_size,
    )


def files_of(model: ModelOptions) -> Iterator[tuple[str, Path | CodeFile]]:
    """Options that name a file or folder of this machine, with it; of a run's weights file that is the run's folder.

    The model is open already: what its file has imported belongs to it.
    """
    system = model.system
    if system is not None and system.exists():
        yield "system", system.parent if system.is_file() and system.with_name(CONFIG).is_file() else system
    for option in ("weights", "classes"):
        path: Path | None = getattr(model, option)
        if path is not None and path.exists():
            yield option, path
    file = Path((model.model or "").rpartition(":")[0] or "-")
    if file.is_file():
        yield "model", CodeFile(file, imported_below(file))


def sharing_of(work: WorkOptions, opens: Opens, folder: Path, device: str, config: RunConfig | None) -> Sharing:
    """Who shares out a command's work, as its options say; ``config`` is that of the run, if the system is one."""
    name = named_set(opens.data, config)
    return Sharing(
        executor=work.executor(device, work.workers),
        folder=folder,
        # The parts are one piece of work, with one bar, to a user.
        console=Console(file=sys.stderr, highlight=False, force_terminal=False),
        files=tuple(dict.fromkeys(file for _, file in opens.files)),
        data=frozenset() if name is None else image_sets(name, opens.data.data_dir),
        data_dir=data_folder(opens.data.data_dir),
    )


def moved_model(model: ModelOptions, files: Iterable[tuple[str, Path | CodeFile]], place: Place) -> ModelOptions:
    """Options with the ``files`` of the asker's machine where they lie on this one."""
    moved: dict[str, Any] = {}
    for option, file in files:
        path = file.path if isinstance(file, CodeFile) else file
        written, here = getattr(model, option), place.file(path)
        if option == "model":
            moved[option] = f"{here}:{written.rpartition(':')[2]}"
        else:
            moved[option] = here if written == path else here / written.name
    return replace(model, **moved)


@contextmanager
def folder_or_temporary(folder: Path | None) -> Iterator[Path]:
    """The folder that parts land in; where the user gave none, one that goes again."""
    if folder is not None:
        yield folder
        return
    try:
        temporary = TemporaryDirectory(prefix="unfool-parts-")
    except OSError as error:
        raise OutputError(f"no temporary folder can be made: {error.strerror}; set TMPDIR to a writable one") from error
    with temporary as name:
        yield Path(name)
