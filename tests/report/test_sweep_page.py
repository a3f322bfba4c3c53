"""The page of a sweep: the best setting, how sure that is, and no figure of a stopped run beside a finished one's."""

import re

import pytest
from page_files import made_up_sweep

from unfool.report.sweeps.page import render_sweep
from unfool.report.sweeps.words import lead_sentence, sweep_headline, sweep_lines, sweep_notes
from unfool.training.sweeping.runs import DIVERGED, FINISHED, STOPPED, SweepRun


def runs_of(scores, state=FINISHED):
    """A run for each score: by setting, and by seed."""
    return [
        SweepRun(
            values={"learning_rate": rate, "seed": seed}, seed=seed, folder=f"{rate}-{seed}", state=state, steps=9,
            length=9, score=score,
        )
        for rate, own in scores.items()
        for seed, score in enumerate(own)
    ]  # fmt: skip


def text_of(page):
    return " ".join(re.sub(r"<[^>]+>", " ", page.partition("<main")[2]).split())


def test_the_page_shows_every_setting_and_escapes_every_name():
    page = render_sweep(made_up_sweep(), "runs/sweep")
    text = text_of(page)
    assert "vgg16<b>" not in page
    assert page.count('data-c="state">stopped early at step') == 7
    for piece in (
        "learning_rate=0.01, trunk=resnet18 is the best of 4 finished settings: 61.0 % robust [58.5, 63.5] % over 3 "
        "seeds.",
        "unfool evaluate runs/sweep/learning-rate-0.01-trunk-resnet18-seed-0-012345678900 --attack pgd-20 --threat",
        "36 runs of 12 settings: 12 finished, 21 stopped early, 3 diverged",
        "4 more settings are in the table",
        "of all steps saved by stopping early",
        "unfool sweep train.yaml --vary",
    ):
        assert piece in text, piece
    (table,) = re.findall(r'<table[^>]*aria-label="settings">.*?</table>', page, re.DOTALL)
    figures = re.findall(r'data-c="figure">(.*?)</td>', table)
    assert sum(figure.startswith("<data") for figure in figures) == 4
    assert all("(" in figure for figure in figures[4:])


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        ({0.1: [0.8], 0.2: [0.7]}, "ahead of the second, learning_rate=0.2, with one seed: another seed may turn"),
        ({0.1: [0.8, 0.81, 0.82], 0.2: [0.7, 0.71, 0.72]}, r"10\.0 points ahead .*better beyond the spread"),
        ({0.1: [0.9, 0.6, 0.7], 0.2: [0.7, 0.7, 0.7]}, r"\[-34\.6, \+41\.3\] over 3 pairs .*do not tell the two apart"),
        ({0.1: [0.9]}, "^$"),
    ],
)
def test_how_sure_the_best_setting_is(scores, words):
    result = made_up_sweep(vary={"learning_rate": list(scores), "seed": [0]}, runs=runs_of(scores))
    assert re.search(words, lead_sentence(result)), lead_sentence(result)


def test_what_is_said_where_only_one_setting_or_none_is_finished():
    runs = runs_of({0.1: [0.8, 0.9]}) + runs_of({0.2: [0.95, 0.99]}, STOPPED)
    result = made_up_sweep(vary={"learning_rate": [0.1, 0.2], "seed": [0, 1]}, runs=runs)
    assert sweep_headline(result).startswith(
        "learning_rate=0.1 is the one of 2 settings that was trained to the end: 85.0 %"
    )
    assert lead_sentence(result) == "By how much it is better at the end is not known: the others were stopped early."
    assert [(line.text, line.figure) for line in sweep_lines(result)][1] == ("97.0 %", None)
    none = made_up_sweep(vary={"learning_rate": [0.1]}, runs=runs_of({0.1: [0.5]}, DIVERGED))
    assert sweep_headline(none) == "Every run diverged."
    assert "Next:" not in text_of(render_sweep(none, "s"))
    assert any("A run diverges" in note for note in sweep_notes(none))


def test_a_loss_is_written_as_a_number_and_the_lower_is_better():
    runs = runs_of({0.1: [2.5, 2.6], 0.2: [1.25, 1.3]})
    result = made_up_sweep(metric="loss", vary={"learning_rate": [0.1, 0.2], "seed": [0, 1]}, runs=runs, stop_early=0)
    assert sweep_headline(result).startswith("learning_rate=0.2 is the best of 2 finished settings: 1.275 [")
    assert "1.275 ahead" in lead_sentence(result)
    assert "1.275" in render_sweep(result, "s")
