"""The page of one evaluation: doubts before the figures, corruptions and classes after them, all escaped."""

import re

import pytest
from made_up_study import result

from unfool.core.errors import DataError
from unfool.report import Page
from unfool.report.page import render

EVIL = "<script>alert(1)</script>"
RESULTS = {
    "schema_version": 1,
    "system": "theirs.py:build",
    "rows": [],
    "doubts": [f"probabilities: leave out {EVIL}", "square-wins: 3 of 64 images"],
    "reliability": {"trustworthy": False, "checked": ["train-mode", "probabilities"], "images": 64},
    "strength": {"pgd-20": {"text": "binarization test passed: pgd-20 found 64"}},
    "corruptions": {
        "accuracy": 0.625,
        "low": 0.5,
        "high": 0.75,
        "n": 40,
        "under": [
            {"corruption": name, "severity": severity, "accuracy": share}
            for name, severity, share in (("fog", 1, 0.9), ("fog", 3, 0.35), ("snow", 1, 0.8), ("snow", 3, 0.45))
        ],
    },
    "classes": {
        "none": [{"name": "cat", "accuracy": 0.9}, {"name": EVIL, "accuracy": 0.7}],
        "worst-case": [{"name": "cat", "accuracy": 0.125}],
    },
}


def shown(**changes):
    page = render(Page(title="Results", subtitle="", result=result({**RESULTS, **changes})))
    return " ".join(re.sub(r"<[^>]+>", " ", page.partition("<main")[2]).split()), page


def test_everything_is_shown_and_escaped():
    text, page = shown()
    assert EVIL not in page
    assert page.count('class="badge fails"') == 2
    for piece in (
        "not to be believed probabilities: leave out",
        "not to be believed square-wins: 3 of 64 images",
        "binarization test passed",
        "2 checks on 64 images: train-mode, probabilities.",
        "Mean corruption accuracy 62.5 % [50.0, 75.0] on 40 images.",
        "1 3 fog 90.0 35.0 snow 80.0 45.0",
        "clean worst-case cat 90.0 12.5",
        "70.0 –",
    ):
        assert piece in text, text
    assert page.index('id="reliability"') < page.index('id="details"')


def test_without_doubts_it_says_what_was_looked_at():
    text, page = shown(doubts=[])
    assert "no doubt found" in text
    assert "badge fails" not in page.partition("<main")[2]


def test_nothing_is_said_where_nobody_looked():
    bare = {"doubts": [], "reliability": None, "strength": {}, "corruptions": None, "classes": {}}
    _, page = shown(**bare)
    assert 'id="reliability"' not in page
    assert 'id="details"' not in page
    assert "#reliability" not in page.partition("</style>")[2]


@pytest.mark.parametrize(
    "changes",
    [
        {"doubts": "a text"},
        {"doubts": [3]},
        {"reliability": ["flags"]},
        {"reliability": {"trustworthy": True}},
        {"strength": {"pgd-20": {"passed": True}}},
        {"strength": {"pgd-20": "passed"}},
        {"corruptions": {"accuracy": 0.5}},
        {"corruptions": {"accuracy": 0.5, "low": 0.4, "high": 0.6, "under": [{"corruption": "fog", "accuracy": 90}]}},
        {"corruptions": {"accuracy": None, "low": 0.4, "high": 0.6, "under": []}},
        {"classes": [1]},
        {"classes": {"none": {"cat": 0.5}}},
        {"classes": {"none": [{"name": "cat", "accuracy": True}]}},
    ],
)
def test_malformed_results_are_one_line(changes):
    with pytest.raises(DataError) as caught:
        shown(**changes)
    assert "of the results" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_results_come_back_as_they_were():
    typed = result(RESULTS)
    assert result(typed.to_json()) == typed
    assert [each.name for each in typed.classes["worst-case"]] == ["cat"]
    assert typed.corruptions.under[1].severity == 3
    assert typed.doubts == RESULTS["doubts"]
