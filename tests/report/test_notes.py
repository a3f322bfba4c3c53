"""Notes written as Markdown paragraphs, with figures filled in."""

import pytest

from unfool.core.errors import DataError
from unfool.report.notes import written_notes, written_summary


def test_each_paragraph_is_a_note_on_one_line(tmp_path):
    path = tmp_path / "study.md"
    path.write_text("First, {{ count }} images\nof ten.\n\n{% if small %}\nOnly when small.\n{% endif %}\n\nLast.\n")
    assert written_notes(path, count=5, small=False) == ["First, 5 images of ten.", "Last."]
    assert written_notes(path, count=5, small=True) == ["First, 5 images of ten.", "Only when small.", "Last."]


def test_what_stands_above_the_line_is_the_summary(tmp_path):
    path = tmp_path / "study.md"
    path.write_text(
        "It {{ claims['gain'] }},\nand more.\n\n{% if no %}Not this.{% endif %}\n\n---\n\nA note --- of two.\n\nLast.\n"
    )
    assert written_summary(path, claims={"gain": "holds"}, no=False) == "It holds, and more."
    assert written_notes(path) == ["A note --- of two.", "Last."]
    path.write_text("A note.")
    assert written_summary(path) == ""
    assert written_notes(path) == ["A note."]


def test_without_a_file_there_are_no_notes(tmp_path):
    assert written_notes(tmp_path / "study.md") == []


@pytest.mark.parametrize(
    "text", ["{{ missing }}", "{% if %}", "{{ count.nothing }}", "{{ '%d and %d' % count }}", "{{ 1 / 0 }}"]
)
def test_a_file_that_cannot_be_filled_in_is_named(tmp_path, text):
    path = tmp_path / "study.md"
    path.write_text(text)
    with pytest.raises(DataError, match=r"study\.md cannot be filled in: .*; mend the file or delete it"):
        written_notes(path, count=1)
