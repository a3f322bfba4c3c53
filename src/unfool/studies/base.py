"""Studies that are not yet described by the framework: each makes its pieces in a workspace by hand."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from rich.console import Console

from unfool.core.files import JsonObject
from unfool.core.spec import unknown
from unfool.evaluation.results.rows import Row
from unfool.evaluation.results.study_result import StudyResult
from unfool.evaluation.results.versions import versions
from unfool.report.curves import Curve
from unfool.report.gallery import GalleryItem
from unfool.report.page import Page
from unfool.report.strips import Strip
from unfool.studies.framework import STUDIES
from unfool.studies.workspace import Workspace

__all__ = ["STUDIES", "Outcome", "Study"]


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a study found: what its JSON file carries, and the curves, gallery and strips that only the page shows."""

    rows: list[JsonObject]
    claims: list[JsonObject]
    data: dict[str, Any]
    notes: list[str]
    curves: list[Curve]
    gallery: list[GalleryItem]
    charts: list[JsonObject] = field(default_factory=list)
    ladders: list[JsonObject] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)


class Study(ABC):
    """One source system. ``scales`` maps the scales' names to their settings (configured dataclasses)."""

    name: ClassVar[str]
    title: ClassVar[str]
    subtitle: ClassVar[str]
    scales: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def run(self, scale: str, work: Workspace) -> Outcome:
        """Make or find every piece and judge the claims."""

    def settings(self, scale: str) -> Any:
        """The settings of a scale."""
        if scale not in self.scales:
            raise unknown(f"scale of study {self.name!r}", scale, self.scales)
        return self.scales[scale]

    def describe(self, scale: str) -> str:
        """Nothing is known of a scale before it is run."""
        return scale

    def measure(self, scale: str, place: Any) -> tuple[StudyResult, Page]:
        """Results and page."""
        work = Workspace(place.out, place.data_dir, place.device, place.console or Console(stderr=True))
        outcome = self.run(scale, work)
        values = {
            "schema_version": 1,
            "study": self.name,
            "scale": scale,
            "data": outcome.data,
            "versions": versions(),
            "notes": outcome.notes,
            "rows": [row.to_json() if isinstance(row, Row) else row for row in outcome.rows],
            "claims": outcome.claims,
        }
        extras = {"ladder": outcome.ladders, "charts": outcome.charts}
        values |= {key: parts for key, parts in extras.items() if parts}
        result = StudyResult.from_json(values)
        pictures = {"curves": outcome.curves, "gallery": outcome.gallery, "strips": outcome.strips}
        return result, Page(title=self.title, subtitle=self.subtitle, result=result, **pictures)
