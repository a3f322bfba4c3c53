"""The tables of pages that a benchmark's JSON fills, by the marker that stands for each."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any


def filled_tables(page: str, results: Path) -> str:
    """A page of Markdown with tables in place of its markers; where nothing was measured yet it says so."""
    for name, table in TABLES.items():
        marker, path = f"<!-- unfool:{name} -->", results / "benchmarks" / f"{name}.json"
        if marker in page:
            absent = f"No measurement lies in `results/benchmarks/{name}.json` yet."
            text = table(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else absent
            page = page.replace(marker, text)
    return page


def _table(head: list[str], words: int, rows: list[list[str]]) -> str:
    """Markdown, whose first columns are words and the others numbers."""
    ruler = "| --- " * words + "| --: " * (len(head) - words) + "|"
    return "\n".join(["| " + " | ".join(head) + " |", ruler, *("| " + " | ".join(row) + " |" for row in rows)])


def _autoattack(values: dict[str, Any]) -> str:
    """Verdicts and cost of both ensembles (`benchmarks/autoattack.py`)."""
    head = ["network", "threat", "agreement", "robust accuracy %, theirs", "fp32", "bf16", "time fp32", "time bf16"]
    rows: list[list[str]] = []
    for network in ("robust", "standard"):
        for norm, threat in values["budgets"].items():
            key = f"{norm}_{network}"
            shares = values[f"{key}_robust_accuracy"]
            ratios = ("time_ratio_fp32", "time_ratio_bf16", "image_ratio")
            cells = [network, threat, f"{100 * values[f'{key}_agreement']:.1f} %"]
            cells += [f"{shares[tool]:.1f}" for tool in ("theirs", "fp32", "bf16")]
            rows.append(cells + [f"{values[f'{key}_{name}']:.2f}" for name in ratios])
    return _table([*head, "passes"], 2, rows)


def _lean(values: dict[str, Any]) -> str:
    """Cost and verdicts of lean over pyautoattack's (`benchmarks/lean.py`)."""
    head = ["network", "images", "robust accuracy %, theirs", "lean", "missed", "passes forward", "backward"]
    rows: list[list[str]] = []
    for name in _names(values, "_passes_forward"):
        shares, differing = values[f"{name}_accuracy"], values[f"{name}_disagreements"]["fp32"]
        cells = [name, str(values[f"{name}_images"]), f"{shares['pyautoattack']:.1f}", f"{shares['fp32']:.1f}"]
        cells.append(str(len(differing["missed"])))
        ratios = ("passes_forward", "passes_backward", "time_fp32", "time_bf16")
        rows.append(cells + [f"{values[f'{name}_{ratio}']:.3f}" for ratio in ratios])
    return _table([*head, "time fp32", "bf16"], 1, rows)


def _masked(values: dict[str, Any]) -> str:
    """What lean ends with on classifiers that hide their gradients (`benchmarks/lean.py --masked`)."""
    head = ["classifier", "escalated", "PGD-20, or the step trained on", "lean", "strongest known"]
    rows = [
        [
            name,
            "yes" if "escalated" in values[f"{name}_remark"] else "no",
            *(f"{values[f'{name}_{key}']:.1f}" for key in ("first", "accuracy", "known")),
        ]
        for name in _names(values, "_known")
    ]
    return _table(head, 2, rows)


def _names(values: dict[str, Any], ending: str) -> list[str]:
    medians = "median"
    return [key.removesuffix(ending) for key in values if key.endswith(ending) and not key.startswith(medians)]


TABLES: dict[str, Callable[[dict[str, Any]], str]] = {"autoattack": _autoattack, "lean": _lean, "masked": _masked}
"""By the name of the benchmark's file, and of the marker."""
