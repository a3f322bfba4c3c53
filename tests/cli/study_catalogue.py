"""What ``unfool study --help`` says of each study: ``python tests/cli/study_catalogue.py`` (make catalogue) writes it.

Help may not load the studies, which need torch; so it reads a file, and a test compares the file with the studies.
"""

import json
from pathlib import Path

from unfool.cli.commands.listing import listed
from unfool.cli.commands.study import CATALOGUE

RESULTS = Path(__file__).parents[2] / "results"


def catalogue():
    """Title and scales of each study; a scale whose results are published says how long that run took."""
    studies = {}
    for study in listed("studies"):
        scales = dict(study.scales)
        for scale in scales:
            file = RESULTS / study.name / f"{scale}.json"
            published = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
            if published.get("seconds"):
                threads = int(published["versions"]["threads"])
                words = f"{threads} thread{'s' if threads > 1 else ''}"
                scales[scale] += f"; the published run took {round(published['seconds'] / 60)} minutes with {words}"
        studies[study.name] = {"title": study.text, "scales": scales}
    return studies


if __name__ == "__main__":
    CATALOGUE.write_text(json.dumps(catalogue(), indent=1, ensure_ascii=True) + "\n", encoding="utf-8")
