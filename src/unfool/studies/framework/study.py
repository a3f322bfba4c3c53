"""What a study is: a description of networks, of what is measured of them, and of what is claimed about them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from unfool.core.errors import SpecError, WeightsError
from unfool.core.plugins import load_plugin
from unfool.core.registry import Registry
from unfool.core.spec import unknown
from unfool.core.user_code import run_user_code
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.results.claims import ClaimResult
from unfool.evaluation.results.ladder import LadderSection
from unfool.evaluation.results.published import Published
from unfool.report.notes import text_beside, written_cuts, written_notes, written_summary
from unfool.report.pictures.gallery import GalleryItem
from unfool.report.pictures.strips import Strip
from unfool.report.plots.curves import Curve
from unfool.studies.framework.adaptive import Laddered
from unfool.studies.framework.claims import Claim
from unfool.studies.framework.measurements import Clean, Corrupted, Examples
from unfool.studies.framework.networks import NetworkSpec
from unfool.studies.framework.pieces import Measurement, with_needs
from unfool.studies.framework.results import Results

Scale = TypeVar("Scale")


class Study(ABC, Generic[Scale]):
    """A study: networks × attacks × defenses at several scales, and claims about differences between their rows.

    ``scales`` maps names to settings (configured dataclasses), which every method is given. Only `networks` and
    `measurements` are needed; everything that they name is trained, crafted and measured by itself, side by side.

    Attributes:
        name: What ``unfool study`` calls it.
        title: The heading of its page.
        subtitle: A sentence or two below it.
        scales: Settings by the scale's name.
        published: The source's figures, set beside the rows that they belong to.

    Example:
        >>> from unfool.studies import Study
        >>> from unfool.studies.framework import Clean, Images, NetworkSpec
        >>> class Widths(Study):
        ...     name, title = "widths", "Is a wider network more accurate?"
        ...     scales = {"tiny": 1, "small": 20}  # epochs
        ...
        ...     def networks(self, epochs):
        ...         stage = StageConfig(tasks={"labels": TaskConfig(task="labels")}, epochs=epochs)
        ...         for width in ("4-8-8", "24-64-128"):
        ...             config = RunConfig(data="digits", trunk=f"convnet:widths={width}", stages=(stage,))
        ...             yield NetworkSpec(key={"model": width}, config=config)
        ...
        ...     def measurements(self, epochs, networks):
        ...         for network in networks:
        ...             yield Clean(system=network, images=Images(data="digits"))
        >>> Widths().describe("small")
        '2 networks on digits, 2 measurements'
    """

    name: ClassVar[str]
    title: ClassVar[str] = "A study"
    subtitle: ClassVar[str] = ""
    scales: ClassVar[Mapping[str, Any]] = {}
    published: ClassVar[Published | None] = None

    @abstractmethod
    def networks(self, scale: Scale) -> Iterable[NetworkSpec]:
        """The networks, in the order of the table."""

    @abstractmethod
    def measurements(self, scale: Scale, networks: Sequence[NetworkSpec]) -> Iterable[Measurement]:
        """What is measured of them, in the order of the table."""

    def plan(self, scale: Scale) -> list[Measurement]:
        """All measurements, of all networks."""
        return list(self.measurements(scale, list(self.networks(scale))))

    def cuts(self, scale: str) -> Sequence[str]:
        """What a scale leaves out of the source's epochs and rows, a sentence each: by default the list of that name in
        ``cuts.yaml`` beside ``study.py``."""
        return written_cuts(text_beside(type(self)), scale)

    def claims(self, scale: Scale) -> Iterable[Claim]:
        """The claims; one whose evidence was not measured at this scale is left out."""
        return ()

    def charts(self, scale: Scale, results: Results) -> Iterable[Chart]:
        """Charts for the results file and the page."""
        return ()

    def summary(self, scale: Scale, results: Results, claims: Mapping[str, ClaimResult]) -> str:
        """What was claimed and what holds, for the top of the page: by default what stands above the line ``---`` of
        ``study.md`` beside ``study.py``, a template given ``scale``, ``results`` and ``claims`` by their id."""
        return written_summary(text_beside(type(self)), scale=scale, results=results, claims=claims)

    def notes(self, scale: Scale, results: Results) -> Iterable[str]:
        """Deviations from the source and remarks, a paragraph each: by default what stands below that line (all of it
        without one), given ``scale`` and ``results``; then warnings."""
        return [*written_notes(text_beside(type(self)), scale=scale, results=results), *results.masking_notes()]

    def gallery(self, scale: Scale, results: Results) -> Iterable[GalleryItem]:
        """Images that fooled a network, for the page."""
        return ()

    def strips(self, scale: Scale, results: Results) -> Iterable[Strip]:
        """Rows of other pictures for the page."""
        return ()

    def curves(self, scale: Scale, results: Results) -> Iterable[Curve]:
        """Training curves for the page: by default those of every trained network."""
        return [
            Curve(" · ".join(str(word) for word in network.key.values()), network.metrics(results.work))
            for network in self.networks(scale)
            if network.trained
        ]

    def ladders(self, scale: Scale, results: Results) -> Iterable[LadderSection]:
        """Adaptive ladders that the page shows as such: by default all that were measured."""
        ladders = [item for item in self.plan(scale) if isinstance(item, Laddered)]
        return [LadderSection.from_json(results[item]["ladder"]) for item in ladders]

    def data(self, scale: Scale, results: Results) -> Mapping[str, Mapping[str, int]]:
        """How many images of which set did what: by default those trained on, tested and attacked."""
        counts: dict[str, dict[str, int]] = {}
        for piece in with_needs(self.plan(scale)).values():
            if isinstance(piece, (NetworkSpec, Clean, Corrupted, Examples)):
                trained = isinstance(piece, NetworkSpec)
                table = (piece.learns_from(results.work) if trained else piece.images).table(results.work)
                role = "train" if trained else "attacked" if isinstance(piece, Examples) else table.split
                roles = counts.setdefault(table.name, {"train": 0, table.split: 0})
                roles[role] = max(roles.get(role, 0), len(table))
        return {name: {role: count for role, count in roles.items() if count} for name, roles in counts.items()}

    def describe(self, scale: str) -> str:
        """What a scale trains and measures, in a few words; SpecError for a scale that is not there."""
        measurements = self.plan(self.settings(scale))
        pieces = with_needs(measurements).values()
        trained = [piece for piece in pieces if isinstance(piece, NetworkSpec) and piece.trained]
        sets = ", ".join(dict.fromkeys(network.data for network in trained))
        counts = {"network": len(trained), "measurement": len(measurements)}
        networks, measured = (f"{count} {word}{'s' * (count != 1)}" for word, count in counts.items())
        return f"{networks} on {sets}, {measured}"

    def settings(self, scale: str, base: str | Path = "") -> Scale:
        """The settings of a scale, with the file of weights that it starts from as their field ``base``.

        SpecError with the nearest name for a scale that is not there, and for a ``base`` where it has no such field;
        WeightsError for one that is no file.
        """
        if scale not in self.scales:
            raise unknown(f"scale of study {self.name!r}", scale, self.scales)
        settings: Any = self.scales[scale]
        if not base:
            return settings
        if not hasattr(settings, "base"):
            raise SpecError(f"study {self.name!r} trains its networks itself; leave --base {base} out")
        if not Path(base).is_file():
            raise WeightsError(f"there is no weights file {base}; check the path of the base")
        return replace(settings, base=str(Path(base).resolve()))


STUDIES: Registry[Callable[[], Any]] = Registry("study", "unfool.studies")


def load_study(name: str) -> Any:
    """Load a study by its name, or the one that a Python file defines.

    Args:
        name: The name of a study, such as ``transfer``, or the path of a file, such as ``path/to/my_study.py``.

    Returns:
        The study.

    Raises:
        SpecError: The name is unknown; the file does not exist, fails, or does not define exactly one study.

    Example:
        >>> from unfool.studies import load_study
        >>> "demo" in load_study("transfer").scales
        True
    """
    if not name.endswith(".py"):
        return STUDIES[name]()
    path, module = Path(name), load_plugin(name)
    own: list[type[Study[Any]]] = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Study) and value.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise SpecError(f"{path} defines {len(own)} studies; define one subclass of unfool.studies.Study in it")
    if not hasattr(own[0], "name"):
        own[0].name = path.stem.replace("_", "-")
    return run_user_code(f"study {path}", own[0])
