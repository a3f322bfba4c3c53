# pyright: reportUnknownVariableType=false, reportUnknownMemberType=false
"""A finished evaluation in one file of a run's folder, so that the same call, made again, need not repeat it.

Figures that belong to images are tensors, for their number has no bound; all else is the file's metadata.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from unfool.core.borders.reading import is_file
from unfool.core.borders.shapes import check_types, of_known_form
from unfool.core.errors import OutputError
from unfool.core.files import JsonObject
from unfool.evaluation.crafting.pictures import AttackPictures
from unfool.evaluation.evaluation import Evaluation
from unfool.evaluation.records import Records
from unfool.evaluation.results.details import ClassAccuracy
from unfool.evaluation.results.reliability import Reliability
from unfool.evaluation.results.rows import Row
from unfool.models.weights import load_tensors, save_tensors

_PER_IMAGE = {
    "ids": torch.int64,
    "correct": torch.bool,
    "losses": torch.float64,
    "distances": torch.float64,
    "labels": torch.int64,
}


def keep(evaluation: Evaluation, path: Path, request: JsonObject, seconds: float) -> None:
    """Write the evaluation that ``request`` describes and that took so many seconds; raises OutputError."""
    tensors: dict[str, Tensor] = {}
    records: list[JsonObject] = []
    for number, each in enumerate(evaluation.records):
        tensors |= {
            f"{number}.{name}": torch.tensor(getattr(each, name), dtype=_PER_IMAGE[name]) for name in _PER_IMAGE
        }
        records.append({key: _plain(value) for key, value in vars(each).items() if key not in _PER_IMAGE})
    for title, pictures in evaluation.pictures.items():
        tensors |= {f"clean.{title}": pictures.clean, f"adversarial.{title}": pictures.adversarial}
    metadata = {
        "request": request,
        "seconds": seconds,
        "name": evaluation.name,
        "rows": [row.to_json() for row in evaluation.rows],
        "records": records,
        "classes": {attack: [asdict(each) for each in classes] for attack, classes in evaluation.classes.items()},
        "reliability": evaluation.reliability.to_json() if evaluation.reliability is not None else None,
        "right_again": evaluation.right_again,
        "defended": evaluation.defended,
        "pictures": {
            title: {"attack": each.attack, "labels": each.labels, "fooled": each.fooled}
            for title, each in evaluation.pictures.items()
        },
    }
    save_tensors(path, tensors, metadata)


def kept(path: Path, request: JsonObject) -> tuple[Evaluation, float] | None:
    """The evaluation of such a ``request`` and its seconds; None if there is no file, or it is of another request.

    Raises WeightsError for a damaged file, OutputError for one of another form.
    """
    if not is_file(path):
        return None
    tensors, metadata = load_tensors(path)
    with of_known_form(path, "remove the file", OutputError):
        if metadata["request"] != request:
            return None
        reliability = metadata["reliability"]
        evaluation = Evaluation(
            name=metadata["name"],
            rows=[Row.from_json(row) for row in metadata["rows"]],
            records=[_records(values, number, tensors, path) for number, values in enumerate(metadata["records"])],
            classes={
                attack: [ClassAccuracy(**each) for each in classes] for attack, classes in metadata["classes"].items()
            },
            reliability=Reliability.from_json(reliability) if reliability else None,
            right_again=dict(metadata["right_again"]),
            defended=metadata["defended"],
            pictures={
                title: AttackPictures(
                    **words, clean=tensors[f"clean.{title}"], adversarial=tensors[f"adversarial.{title}"]
                )
                for title, words in metadata["pictures"].items()
            },
        )
        return evaluation, float(metadata["seconds"])


def _records(values: Mapping[str, Any], number: int, tensors: Mapping[str, Tensor], path: Path) -> Records:
    whole: JsonObject = {**values, **{name: tensors[f"{number}.{name}"].tolist() for name in _PER_IMAGE}}
    check_types(Records, whole, path, "remove the file")
    return Records(**whole)


def _plain(value: Any) -> Any:
    """A value as JSON takes it: the mappings of records need not be dictionaries."""
    return {**value} if isinstance(value, Mapping) else value
