"""Draw the picture of the README from the results of the demo.

unfool demo --out runs/demo
python docs/picture.py runs/demo/results.json    # writes docs/images/borrowed.svg
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

from unfool.core.files import write_text
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.results.study_result import StudyResult

TARGET = Path(__file__).parent / "images" / "borrowed.svg"
COLOURS = ("#8c959f", "#0072B2", "#D55E00")
LEFT, WIDTH, ROW = 190, 420, 40


def svg(chart: Chart) -> str:
    """Horizontal bars with their figures, readable on a light and a dark page."""
    (points,) = chart.series.values()
    lines: list[str] = []
    for place, ((label, share, *_), colour) in enumerate(zip(points, COLOURS, strict=True)):
        y = 14 + ROW * place
        length = max(2.0, WIDTH * share)
        lines += [
            f'<text x="{LEFT - 12}" y="{y + 18}" text-anchor="end" class="t">{escape(label)}</text>',
            f'<rect x="{LEFT}" y="{y}" width="{length:.1f}" height="26" rx="3" fill="{colour}"/>',
            f'<text x="{LEFT + length + 8:.1f}" y="{y + 18}" class="n">{100 * share:.0f} %</text>',
        ]
    height = 14 + ROW * len(points)
    alt = f"{chart.title}: " + ", ".join(f"{label} {100 * share:.0f} %" for label, share, *_ in points)
    style = (
        "text{font:15px system-ui,sans-serif;fill:#1f2328}.n{font-weight:600}"
        "@media (prefers-color-scheme:dark){text{fill:#e6edf3}}"
    )
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {LEFT + WIDTH + 70} {height}" role="img"'
    return "\n".join([f'{head} aria-label="{escape(alt)}">', f"<style>{style}</style>", *lines, "</svg>", ""])


def main(results: str) -> int:
    """Draw the first chart of the results of `unfool demo`."""
    TARGET.parent.mkdir(exist_ok=True)
    write_text(TARGET, svg(StudyResult.load(results).charts[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
