"""What ``unfool study --help`` says of each study: ``python tests/cli/study_catalogue.py`` (make catalogue) writes it.

Help may not load the studies, which need torch; so it reads a file, and a test compares the file with the studies.
"""

import json
from pathlib import Path

from unfool.cli.commands.listing import listed
from unfool.cli.commands.study import CATALOGUE

RESULTS = Path(__file__).parents[2] / "results"


def catalogue():
    """Title and scales of each study; a scale whose results are published says how long it took on two cores."""
    studies = {}
    for study in listed("studies"):
        scales = dict(study.scales)
        for scale in scales:
            file = RESULTS / study.name / f"{scale}.json"
            seconds = json.loads(file.read_text(encoding="utf-8")).get("seconds") if file.is_file() else None
            if seconds:
                scales[scale] += f"; about {round(seconds / 60)} minutes on two cores"
        studies[study.name] = {"title": study.text, "scales": scales}
    return studies


if __name__ == "__main__":
    CATALOGUE.write_text(json.dumps(catalogue(), indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
