# pyright: reportMissingTypeStubs=false, reportUnknownVariableType=false
"""Results as a whole: what a study, an evaluation, a ladder or a probe writes to its file, and what a report shows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pandas import DataFrame

from unfool.core.borders.json_text import read_json
from unfool.core.borders.shapes import of_known_form
from unfool.core.files import JsonObject, write_json
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.results.check import SCHEMA_VERSION, check_results
from unfool.evaluation.results.claims import ClaimResult
from unfool.evaluation.results.details import (
    ClassAccuracy,
    CorruptionSummary,
    read_classes,
    read_corruptions,
    read_mapping,
)
from unfool.evaluation.results.ladder import LadderSection
from unfool.evaluation.results.reliability import BinarizationResult, Reliability
from unfool.evaluation.results.rows import Row, rows_frame, rows_html
from unfool.evaluation.results.run_details import AttackPicture, RunDetails


@dataclass(frozen=True, kw_only=True, repr=False)
class StudyResult:
    """Results of a study, an evaluation, a ladder or a probe: everything that a report shows of them.

    Args:
        study: Name of the study.
        scale: Its scale, such as ``small``.
        system: What was evaluated, where it is no study.
        data: What the images are, by data set.
        seconds: The time it took.
        versions: Versions of program and libraries.
        summary: What was claimed and what holds, in a paragraph.
        cuts: What its scale leaves out of the source's epochs and rows.
        notes: Remarks and deviations.
        rows: The rows of its tables.
        claims: Claims with their verdicts.
        charts: Charts to draw.
        ladders: Adaptive ladders.
        classes: Accuracies by class, by attack.
        corruptions: Accuracies under common corruptions.
        binarization_tests: The outcome of the binarization test, by attack.
        reliability: The reliability report.
        doubts: Reasons not to believe the figures; None where nobody looked for any.
        pictures: A few images before and after an attack.
        run: The command that gave the results, its date and device.

    Raises:
        DataError: Rows that contradict themselves or each other: a result with such rows cannot exist.
        SpecError: An unknown verdict, protocol or kind of chart.

    Example:
        >>> from unfool import StudyResult, classify
        >>> model = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
        >>> row = classify(model, (torch.full((4, 3, 4, 4), 0.5), [0, 0, 1, 0])).row("guess")
        >>> StudyResult.from_json(StudyResult(system="guess", rows=[row]).to_json()).rows[0].accuracy
        0.75
    """

    study: str = ""
    scale: str = ""
    system: str = ""
    data: Mapping[str, Any] = field(default_factory=dict[str, Any])
    seconds: float | None = None
    versions: Mapping[str, str] = field(default_factory=dict[str, str])
    summary: str = ""
    cuts: Sequence[str] = ()
    notes: Sequence[str] = ()
    rows: Sequence[Row] = ()
    claims: Sequence[ClaimResult] = ()
    charts: Sequence[Chart] = ()
    ladders: Sequence[LadderSection] = ()
    classes: Mapping[str, Sequence[ClassAccuracy]] = field(default_factory=dict[str, Sequence[ClassAccuracy]])
    corruptions: CorruptionSummary | None = None
    binarization_tests: Mapping[str, BinarizationResult] = field(default_factory=dict[str, BinarizationResult])
    reliability: Reliability | None = None
    doubts: Sequence[str] | None = None
    pictures: Sequence[AttackPicture] = ()
    run: RunDetails | None = None

    def __post_init__(self) -> None:
        check_results(self.to_json())

    @property
    def schema_version(self) -> int:
        """The layout of the file that `save` writes."""
        return SCHEMA_VERSION

    def to_json(self) -> JsonObject:
        """The results as a results file holds them; what they do not have is left out."""
        head = {"study": self.study, "scale": self.scale, "system": self.system, "data": dict(self.data)}
        head |= {"seconds": self.seconds, "versions": dict(self.versions), "summary": self.summary}
        head |= {"cuts": list(self.cuts), "notes": list(self.notes)}
        ladders = [ladder.to_json() for ladder in self.ladders]
        tail: dict[str, Any] = {
            "ladder": ladders if self.study or len(ladders) > 1 else (ladders or [{}])[0],
            "charts": [chart.to_json() for chart in self.charts],
            "classes": {attack: [each.to_json() for each in classes] for attack, classes in self.classes.items()},
            "corruptions": self.corruptions.to_json() if self.corruptions is not None else None,
            "strength": {attack: test.to_json() for attack, test in self.binarization_tests.items()},
            "reliability": self.reliability.to_json() if self.reliability is not None else None,
            "gallery": [picture.to_json() for picture in self.pictures],
            "run": self.run.to_json() if self.run is not None else None,
        }
        return {
            "schema_version": SCHEMA_VERSION,
            **{key: value for key, value in head.items() if value not in ("", None, {}, [])},
            "rows": [row.to_json() for row in self.rows],
            "claims": [claim.to_json() for claim in self.claims],
            **{key: value for key, value in tail.items() if value},
            **({} if self.doubts is None else {"doubts": list(self.doubts)}),
        }

    @classmethod
    def from_json(cls, values: Any, where: str = "the results") -> StudyResult:
        """The results that `to_json` gave; ``where`` names them in errors, which are those of `check_results`."""
        with of_known_form(where, "give the JSON file that unfool wrote"):
            check_results(values, where)
            ladders: Any = values.get("ladder") or []
            listed: list[Any] = [ladders] if isinstance(ladders, Mapping) else list(ladders)
            reliability, run = read_mapping(values, "reliability"), read_mapping(values, "run")
            return cls(
                **{key: values.get(key) or "" for key in ("study", "scale", "system", "summary")},
                data=values.get("data") or {},
                seconds=values.get("seconds"),
                versions=values.get("versions") or {},
                cuts=_texts(values, "cuts"),
                notes=[*_texts(values, "deviations"), *_texts(values, "notes")],
                rows=[Row.from_json(row) for row in values.get("rows", [])],
                claims=[ClaimResult.from_json(claim) for claim in values.get("claims", [])],
                charts=[Chart.from_json(chart) for chart in values.get("charts", [])],
                ladders=[LadderSection.from_json(ladder) for ladder in listed],
                classes=read_classes(read_mapping(values, "classes")),
                corruptions=read_corruptions(read_mapping(values, "corruptions")),
                binarization_tests={
                    attack: BinarizationResult.from_json(test)
                    for attack, test in read_mapping(values, "strength").items()
                },
                reliability=Reliability.from_json(reliability) if reliability else None,
                doubts=values.get("doubts"),
                pictures=[AttackPicture.from_json(picture) for picture in values.get("gallery") or []],
                run=RunDetails.from_json(run) if run else None,
            )

    def to_frame(self) -> DataFrame:
        """The rows as a pandas table, one line each; accuracies are shares."""
        return rows_frame(self.rows)

    def __repr__(self) -> str:
        name = " ".join(filter(None, (self.study, self.scale, self.system))) or "results"
        return f"StudyResult({name}: {len(self.rows)} rows, {len(self.claims)} claims, {len(self.charts)} charts)"

    def _repr_html_(self) -> str:
        claims = "".join(f"<li><b>{escape(each.verdict)}</b>: {escape(each.text)}</li>" for each in self.claims)
        return rows_html(self.rows) + (f"<ul>{claims}</ul>" if claims else "")

    def save(self, path: str | Path) -> None:
        """Write the results as JSON, whole or not at all; raises OutputError."""
        write_json(path, self.to_json())

    @classmethod
    def load(cls, path: str | Path) -> StudyResult:
        """Read a results file; DataError if it is missing or malformed, SpecError if its schema is newer."""
        return cls.from_json(read_json(path, "give a results file (.json)"), str(path))


def _texts(values: Mapping[str, Any], key: str) -> list[str]:
    texts: Any = values.get(key) or []
    return [texts] if isinstance(texts, str) else [str(text) for text in texts]
