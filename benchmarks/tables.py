"""Put the tables of measured benchmarks into the README, from the JSON that the benchmarks printed.

    python benchmarks/peers.py --json > results/benchmarks/peers.json
    python benchmarks/autoattack.py --json > results/benchmarks/autoattack.json
    python benchmarks/tables.py README.md

The table stands between ``<!-- unfool:peers -->`` and ``<!-- /unfool:peers -->``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from unfool.core.files import write_text

RESULTS = Path(__file__).resolve().parent.parent / "results" / "benchmarks"
BEGIN, END = "<!-- unfool:peers -->", "<!-- /unfool:peers -->"
TOOLS = ("unfool", "unfool bf16", "pyautoattack", "foolbox", "ART")


def peer_rows(peers: dict[str, Any], ensemble: dict[str, Any]) -> list[list[str]]:
    """A row for each attack: robust accuracy and time of every tool."""
    rows = []
    for name, tools in peers["attacks"].items():
        cells = [f"{tools[tool]['robust_accuracy']:.1f} %, {tools[tool]['time_ratio']:.2f}" if tool in tools else "–"
                 for tool in TOOLS]  # fmt: skip
        rows.append([name, *cells])
    for norm, budget in ensemble["budgets"].items():
        key = f"{norm}_robust"
        accuracy = ensemble[f"{key}_robust_accuracy"]
        fp32, bf16 = ensemble[f"{key}_time_ratio_fp32"], ensemble[f"{key}_time_ratio_bf16"]
        # The benchmark measures over pyautoattack; the table over unfool in fp32, as in its other rows.
        cells = [
            f"{accuracy['fp32']:.1f} %, 1.00",
            f"{accuracy['bf16']:.1f} %, {bf16 / fp32:.2f}",
            f"{accuracy['theirs']:.1f} %, {1 / fp32:.2f}",
        ]
        rows.append([f"autoattack {budget}", *cells, "–", "–"])
    return rows


def markdown(peers: dict[str, Any], ensemble: dict[str, Any]) -> str:
    """The table with its caption."""
    lines = [
        f"Robust accuracy of an adversarially trained network on {peers['images']} images of {peers['data']}, and "
        "CPU time over unfool's in fp32 (one thread, interleaved; lower is better for both).",
        "",
        "| attack | " + " | ".join(TOOLS) + " |",
        "|---" * (len(TOOLS) + 1) + "|",
        *("| " + " | ".join(row) + " |" for row in peer_rows(peers, ensemble)),
    ]
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(description="Put the tables of measured benchmarks into the README.")
    parser.add_argument("readme", type=Path, help="Markdown file with the markers")
    path = parser.parse_args().readme
    peers, ensemble = (json.loads((RESULTS / f"{name}.json").read_text()) for name in ("peers", "autoattack"))
    text = path.read_text(encoding="utf-8")
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        parser.error(f"{path} needs a block from {BEGIN} to {END}; write both where the table shall stand")
    write_text(path, f"{before}{BEGIN}\n\n{markdown(peers, ensemble)}\n\n{END}{after}")
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
