"""The demo in small: four lessons, a page, and claims that nobody can decide on digits are no failures."""

import json

import pytest

from unfool import attacks
from unfool.demo import DemoSettings, run_demo
from unfool.demo.networks import THREAT
from unfool.models.trunks import TrunkSpec


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    settings = DemoSettings(
        epochs=3, images=24, strong_attack=attacks.APGD(THREAT, steps=5), strong_images=6, ladder_images=4
    )
    shown = []
    folder = tmp_path_factory.mktemp("demo")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unfool.demo.networks._TRUNK", TrunkSpec(name="convnet", stem="strided", widths=(8, 8, 8)))
        return run_demo(folder, settings=settings, teach=lambda number, lesson: shown.append((number, lesson))), shown


def test_four_lessons_are_taught_in_order(demo):
    demo, shown = demo
    assert [number for number, _ in shown] == [1, 2, 3, 4]
    assert [lesson for _, lesson in shown] == list(demo.lessons)
    for lesson in demo.lessons:
        assert lesson.sentences[0].endswith(".")
        assert all(0 <= bar.low <= bar.accuracy <= bar.high <= 1 for bar in lesson.bars)


def test_the_lessons_say_what_their_records_say(demo):
    borrowed, hardened, masked, reversed_ = demo[0].lessons
    by_label = {bar.label: bar.accuracy for bar in borrowed.bars}
    assert f"{100 * by_label['borrowed examples']:.0f} %" in borrowed.sentences[0]
    assert f"{100 * by_label['own examples']:.0f} %" in borrowed.sentences[0]
    assert {row.protocol for row in borrowed.rows} == {"clean", "white-box", "transfer"}
    assert {row.attack for row in hardened.rows} == {"none", "apgd-ce-5"}
    looks, keeps = (bar.accuracy for bar in masked.bars)
    assert looks >= keeps
    assert reversed_.ladder.verdict in ("helps", "fails", "undecided")
    assert len(reversed_.strips[0].pictures) == 3


def test_a_claim_that_digits_cannot_decide_is_out_of_reach_and_no_failure(demo):
    (claim,) = demo[0].lessons[0].claims
    assert claim.verdict == "out of reach"
    assert "at most +" in claim.sentences[0]


def test_results_and_page_are_written(demo):
    demo, _ = demo
    values = json.loads((demo.page.parent / "results.json").read_text())
    assert len(values["charts"]) == 4
    page = demo.page.read_text()
    for lesson in demo.lessons:
        assert lesson.title in page


def test_the_command_prints_each_lesson_and_the_page(demo, capsys):
    from unfool.cli.commands.demo import print_lesson

    for number, lesson in enumerate(demo[0].lessons, 1):
        print_lesson(number, lesson)
    printed = capsys.readouterr().out
    assert printed.startswith("1. Borrowed examples are no attack\n")
    assert "OUT OF REACH" in printed
    assert "Out of reach here: at most +" in printed
    assert max(len(line) for line in printed.splitlines()) <= 100


def test_the_page_begins_with_the_lessons(demo):
    page = demo[0].page.read_text()
    first = page.index('<section id="')
    assert page[first:].startswith('<section id="lessons"')
    assert page.index(demo[0].lessons[3].title) < page.index('<section id="ladder"')
