"""Results into a repository: all of it or nothing, and only between the markers."""

import json

import pytest
from made_up_study import result

from unfool.core.errors import DataError, OutputError, UnfoolError
from unfool.report import markdown
from unfool.report.publish import publish

BEGIN, END = "<!-- unfool:results contrastive-multitask/small -->", "<!-- /unfool:results -->"


@pytest.fixture
def results(tmp_path, study):
    path = tmp_path / "run" / "small.json"
    path.parent.mkdir()
    path.write_text(json.dumps(study))
    return path


def readme(tmp_path, text):
    path = tmp_path / "README.md"
    path.write_text(text, encoding="utf-8")
    return path


def test_the_file_is_copied_as_it_is(tmp_path, results):
    (copy,) = publish(results, tmp_path / "results", None)
    assert copy == tmp_path / "results" / "contrastive-multitask" / "small.json"
    assert copy.read_bytes() == results.read_bytes()


def test_only_the_block_of_this_study_and_scale_changes(tmp_path, results, study):
    other = "<!-- unfool:results contrastive-multitask/demo -->\nkept\n<!-- /unfool:results -->"
    path = readme(tmp_path, f"# Title é\n{other}\ntext\n{BEGIN}\nold table\n{END}\n\ntail\n{other}\n")
    assert publish(results, None, path) == [path]
    text = path.read_text(encoding="utf-8")
    assert text == f"# Title é\n{other}\ntext\n{BEGIN}\n\n{markdown(result(study))}\n{END}\n\ntail\n{other}\n"
    assert study["claims"][0]["verdict"] in text
    publish(results, None, path)
    assert path.read_text(encoding="utf-8") == text


@pytest.mark.parametrize(
    "text",
    [
        "no markers",
        f"{BEGIN}\nno end",
        f"{END}\n{BEGIN}",
        f"{BEGIN}\n{END}\n{BEGIN}\n{END}",
        f"{BEGIN}\n<!-- unfool:results other/demo -->\n{END}",
        BEGIN.replace("small", "smaller") + END,
    ],
)
def test_missing_markers_change_nothing(tmp_path, results, text):
    path = readme(tmp_path, text)
    with pytest.raises(DataError, match="contrastive-multitask/small") as caught:
        publish(results, tmp_path / "results", path)
    assert "\n" not in str(caught.value)
    assert path.read_text(encoding="utf-8") == text
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("name", ["../../outside", "a/b", "", ".", "..", "/etc", "x\n", None, 3])
@pytest.mark.parametrize("key", ["study", "scale"])
def test_names_that_are_no_words_cannot_leave_the_folder(tmp_path, results, study, key, name):
    results.write_text(json.dumps({**study, key: name}))
    with pytest.raises(DataError, match=key):
        publish(results, tmp_path / "results", None)
    assert not (tmp_path / "results").exists()


def test_a_missing_readme_and_a_file_in_the_way(tmp_path, results):
    with pytest.raises(DataError, match="missing"):
        publish(results, None, tmp_path / "missing.md")
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        publish(results, tmp_path / "file", None)
    results.write_text("{}")
    with pytest.raises(UnfoolError):
        publish(results, tmp_path / "results", None)
