"""Put the tables of measured benchmarks into the README, from the JSON that the benchmarks printed.

    python benchmarks/peers.py --json > results/benchmarks/peers.json
    python benchmarks/autoattack.py --json > results/benchmarks/autoattack.json
    python benchmarks/lean.py --json > results/benchmarks/lean.json
    python benchmarks/tables.py README.md

The table stands between ``<!-- unfool:peers -->`` and ``<!-- /unfool:peers -->``. All three attack the network
``robust``; what is not measured yet is a dash.
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
COLUMNS = ("attack", "unfool", "unfool bf16", "lean", "pyautoattack", "foolbox", "ART", "passes")
NONE = "–"
PEERS = ("pyautoattack", "foolbox")
"""Whose passes ours are compared with: the first that has the attack."""
MOST_FLIPPED = 2
"""Images on which pyautoattack's verdict may differ between two benchmarks of one network."""
NETWORK = "robust"
"""The network of all three benchmarks, as lean.py calls it."""


def peer_rows(peers: dict[str, Any], ensemble: dict[str, Any], lean: dict[str, Any]) -> list[dict[str, str]]:
    """A row for each attack: robust accuracy and time of every tool, and passes, by column."""
    rows = [
        {"attack": name, **{tool: cell(each["robust_accuracy"], each["time_ratio"]) for tool, each in tools.items()},
         "passes": passes_over_peer(tools)}
        for name, tools in peers["attacks"].items()
    ]  # fmt: skip
    for norm, budget in ensemble["budgets"].items():
        key = f"{norm}_robust"
        accuracy = ensemble[f"{key}_robust_accuracy"]
        fp32, bf16 = ensemble[f"{key}_time_ratio_fp32"], ensemble[f"{key}_time_ratio_bf16"]
        # The benchmark measures over pyautoattack; the table over unfool in fp32, as in its other rows.
        row = {
            "attack": f"autoattack {budget}",
            "unfool": cell(accuracy["fp32"], 1.0),
            "unfool bf16": cell(accuracy["bf16"], bf16 / fp32),
            "pyautoattack": cell(accuracy["theirs"], 1 / fp32),
            "passes": f"{ensemble[f'{key}_image_ratio']:.2f}",
        }
        if norm == "linf" and f"{NETWORK}_accuracy" in lean:
            images, others = ensemble["images"], lean[f"{NETWORK}_images"]
            if others != images:
                raise SystemExit(f"lean.json has {others} images, autoattack.json {images}; run both on as many")
            check_same_network(accuracy["theirs"], lean[f"{NETWORK}_accuracy"]["pyautoattack"], images)
            row["lean"] = cell(lean[f"{NETWORK}_accuracy"]["fp32"], lean[f"{NETWORK}_time_fp32"] / fp32)
            row["passes"] += f"; lean {lean[f'{NETWORK}_passes_forward']:.2f}"
        rows.append(row)
    return rows


def cell(accuracy: float, time: float) -> str:
    """Robust accuracy and time."""
    return f"{accuracy:.1f} %, {time:.2f}"


def passes_over_peer(tools: dict[str, dict[str, float]]) -> str:
    """Forward passes of unfool over those of a peer; a dash where passes were not counted."""
    counted = {tool: each["passes_forward"] for tool, each in tools.items() if "passes_forward" in each}
    peer = next((name for name in PEERS if name in counted), None)
    return f"{counted['unfool'] / counted[peer]:.2f}" if peer is not None and "unfool" in counted else NONE


def check_same_network(theirs: float, lean: float, images: int) -> None:
    """Exit where two benchmarks attacked different networks; both accuracies are in percent, of so many images.

    The benchmarks send pyautoattack chunks of other sizes, from which it draws other random numbers.
    """
    allowed = 100 * MOST_FLIPPED / images
    # Both are rounded to two digits or more.
    if abs(theirs - lean) > allowed + 0.01:
        raise SystemExit(
            f"pyautoattack leaves {theirs} % in autoattack.json and {lean} % in lean.json. Its random draws may flip "
            f"{MOST_FLIPPED} of {images} images, {allowed:.2f} points; more means other networks or images; run both "
            "benchmarks with one data directory, lean.py with 256 images"
        )


def markdown(peers: dict[str, Any], ensemble: dict[str, Any], lean: dict[str, Any]) -> str:
    """The table with its caption."""
    rows = peer_rows(peers, ensemble, lean)
    lines = [
        f"Robust accuracy of an adversarially trained network on {peers['images']} images of {peers['data']}, and "
        "CPU time over unfool's in fp32 (one thread, interleaved; lower is better for both). *lean* is the "
        "short attack with its checks; *passes* are images that unfool sends forward through the network, over "
        "those of pyautoattack, or of foolbox where that lacks the attack.",
        "",
        "| " + " | ".join(COLUMNS) + " |",
        "|---" * len(COLUMNS) + "|",
        *("| " + " | ".join(row.get(column, NONE) for column in COLUMNS) + " |" for row in rows),
    ]
    return "\n".join(lines)


def read(name: str) -> dict[str, Any]:
    """What a benchmark printed; nothing where it was not run yet."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def main() -> int:
    parser = argparse.ArgumentParser(description="Put the tables of measured benchmarks into the README.")
    parser.add_argument("readme", type=Path, help="Markdown file with the markers")
    path = parser.parse_args().readme
    text = path.read_text(encoding="utf-8")
    before, found, rest = text.partition(BEGIN)
    _, closed, after = rest.partition(END)
    if not found or not closed:
        parser.error(f"{path} needs a block from {BEGIN} to {END}; write both where the table shall stand")
    write_text(path, f"{before}{BEGIN}\n\n{markdown(read('peers'), read('autoattack'), read('lean'))}\n\n{END}{after}")
    print(f"written: {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
