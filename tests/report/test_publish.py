"""Results into a repository: the file as it is, or nothing."""

import json

import pytest

from unfool.core.errors import DataError, OutputError, UnfoolError
from unfool.report.publishing.publish import publish


@pytest.fixture
def results(tmp_path, study):
    path = tmp_path / "run" / "small.json"
    path.parent.mkdir()
    path.write_text(json.dumps(study))
    return path


def test_the_file_is_copied_as_it_is(tmp_path, results):
    copy = publish(results, tmp_path / "results")
    assert copy == tmp_path / "results" / "contrastive-multitask" / "small.json"
    assert copy.read_bytes() == results.read_bytes()


@pytest.mark.parametrize("name", ["../../outside", "a/b", "", ".", "..", "/etc", "x\n", None, 3])
@pytest.mark.parametrize("key", ["study", "scale"])
def test_names_that_are_no_words_cannot_leave_the_folder(tmp_path, results, study, key, name):
    results.write_text(json.dumps({**study, key: name}))
    with pytest.raises(DataError, match=key):
        publish(results, tmp_path / "results")
    assert not (tmp_path / "results").exists()


def test_a_file_in_the_way_and_a_file_that_is_no_study(tmp_path, results):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="file"):
        publish(results, tmp_path / "file")
    results.write_text("{}")
    with pytest.raises(UnfoolError):
        publish(results, tmp_path / "results")
    assert not (tmp_path / "results").exists()
