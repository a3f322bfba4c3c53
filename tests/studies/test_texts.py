"""The text of every study, at scales whose results take hours: a text that cannot be filled in would lose the page."""

import pytest

from unfool.report.notes import text_beside, written_notes, written_summary
from unfool.studies import framework as fw


class Anything(float):
    """A result that has every attribute, is every number, and holds two of its kind."""

    verdict = "holds"

    def __getattr__(self, name):
        return self

    def __call__(self, *args, **kwargs):
        return self

    def __getitem__(self, key):
        return self

    def __contains__(self, key):
        return True

    def __iter__(self):
        return iter([Anything(1), Anything(1)])

    def __len__(self):
        return 2


CASES = [(name, scale) for name in fw.STUDIES for scale in fw.STUDIES[name].scales]


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_the_text_of_a_study_can_be_filled_in_at_every_scale(name, scale):
    study = fw.STUDIES[name]
    path, found = text_beside(study), Anything(1)
    found.scale = scale
    values = {"scale": study.scales[scale], "results": found, "classifiers": [found]}
    assert written_summary(path, **values, claims=found)
    assert len(written_notes(path, **values)) > 1
