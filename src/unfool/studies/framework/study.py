"""What a study is: a description of networks, of what is measured of them, and of what is claimed about them."""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

from unfool.core.errors import SpecError
from unfool.core.plugins import load_plugin
from unfool.core.registry import Registry
from unfool.core.spec import unknown
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.results.ladder import LadderSection
from unfool.report.curves import Curve
from unfool.report.gallery import GalleryItem
from unfool.report.notes import written_notes
from unfool.report.strips import Strip
from unfool.studies.framework.adaptive import Laddered
from unfool.studies.framework.claims import Claim
from unfool.studies.framework.measurements import Clean, Corrupted, Examples
from unfool.studies.framework.networks import NetworkSpec
from unfool.studies.framework.pieces import Measurement, with_needs
from unfool.studies.framework.results import Published, Results

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
    """

    name: ClassVar[str]
    title: ClassVar[str]
    subtitle: ClassVar[str] = ""
    scales: ClassVar[Mapping[str, Any]]
    published: ClassVar[Published | None] = None

    @abstractmethod
    def networks(self, scale: Scale) -> Sequence[NetworkSpec]:
        """The networks, in the order of the table."""

    @abstractmethod
    def measurements(self, scale: Scale, networks: Sequence[NetworkSpec]) -> Iterable[Measurement]:
        """What is measured of them, in the order of the table."""

    def claims(self, scale: Scale) -> Iterable[Claim]:
        """The claims; one whose evidence was not measured at this scale is left out."""
        return ()

    def charts(self, scale: Scale, results: Results) -> Iterable[Chart]:
        """Charts for the results file and the page."""
        return ()

    def notes(self, scale: Scale, results: Results) -> Iterable[str]:
        """Deviations from the source and remarks, a paragraph each: by default those of the Markdown file beside the
        study's own (``study.md`` beside ``study.py``), a template given ``scale`` and ``results``; then warnings."""
        path = Path(inspect.getfile(type(self))).with_suffix(".md")
        return [*written_notes(path, scale=scale, results=results), *results.masking_notes()]

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
        every = self.measurements(scale, self.networks(scale))
        return [LadderSection.from_json(results[item]["ladder"]) for item in every if isinstance(item, Laddered)]

    def data(self, scale: Scale, results: Results) -> Mapping[str, Mapping[str, int]]:
        """How many images of which set did what: by default those trained on, tested and attacked."""
        counts: dict[str, dict[str, int]] = {}
        for piece in with_needs(self.measurements(scale, self.networks(scale))).values():
            if isinstance(piece, (NetworkSpec, Clean, Corrupted, Examples)):
                trained = isinstance(piece, NetworkSpec)
                table = (piece.learns_from(results.work) if trained else piece.images).table(results.work)
                role = "train" if trained else "attacked" if isinstance(piece, Examples) else table.split
                roles = counts.setdefault(table.name, {"train": 0, table.split: 0})
                roles[role] = max(roles.get(role, 0), len(table))
        return {name: {role: count for role, count in roles.items() if count} for name, roles in counts.items()}

    def describe(self, scale: str) -> str:
        """What a scale trains and measures, in a few words; SpecError for a scale that is not there."""
        settings = self.settings(scale)
        measurements = list(self.measurements(settings, self.networks(settings)))
        pieces = with_needs(measurements).values()
        trained = [piece for piece in pieces if isinstance(piece, NetworkSpec) and piece.trained]
        sets = ", ".join(dict.fromkeys(network.data for network in trained))
        counts = {"network": len(trained), "measurement": len(measurements)}
        networks, measured = (f"{count} {word}{'s' * (count != 1)}" for word, count in counts.items())
        return f"{networks} on {sets}, {measured}"

    def settings(self, scale: str) -> Scale:
        """The settings of a scale; SpecError with the nearest name for one that is not there."""
        if scale not in self.scales:
            raise unknown(f"scale of study {self.name!r}", scale, self.scales)
        return self.scales[scale]


STUDIES: Registry[Callable[[], Any]] = Registry("study", "unfool.studies")


def load_study(name: str) -> Any:
    """The study of that name, or the one that a Python file (``path/to/my_study.py``) defines.

    Raises SpecError for an unknown name, for a file that is not there, defines no study or more than one, and for
    whatever the file itself raises.
    """
    if not name.endswith(".py"):
        return STUDIES[name]()
    path = Path(name)
    module = load_plugin(path)
    own = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, Study) and value.__module__ == module.__name__
    ]
    if len(own) != 1:
        raise SpecError(f"{path} defines {len(own)} studies; define one subclass of unfool.studies.Study in it")
    if not hasattr(own[0], "name"):
        own[0].name = path.stem.replace("_", "-")
    return own[0]()
