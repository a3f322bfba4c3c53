"""``unfool report FOLDER``: pages of all results in a folder, and an index of them."""

import json
import os

from unfool.evaluation.results.claims import ClaimResult
from unfool.evaluation.results.rows import Row
from unfool.evaluation.results.study_result import StudyResult
from unfool.report import index


def row(attack, accuracy, **more):
    same = {} if attack == "none" else {"crafted_on": "a" * 64, "judged_on": "a" * 64, "threat": "linf:8/255"}
    protocol = "clean" if attack == "none" else "white-box"
    shares = {"accuracy": accuracy, "low": accuracy - 0.05, "high": accuracy + 0.05}
    return Row(
        model="net", data="digits", split="test", attack=attack, protocol=protocol, n=40, **shares, **same, **more
    )


def saved(path, **more):
    StudyResult(rows=[row("none", 0.9), row("pgd-20", 0.25)], **more).save(path)


def test_a_folder_gets_a_page_each_and_an_index(cli, tmp_path):
    claim = ClaimResult(text="It is robust", verdict="out of reach", evidence="At most 17.")
    saved(tmp_path / "a" / "mine.json", system="mine & <b>yours</b>", claims=[claim])
    saved(tmp_path / "theirs.json", system="theirs")
    (tmp_path / "other.json").write_text("[1]")
    (tmp_path / "broken.json").write_text(json.dumps({"schema_version": 1, "rows": 3}))
    told = cli("report", tmp_path)
    assert (told.code, told.out) == (0, f"index: {tmp_path / 'index.html'}\n")
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    for piece in ('href="a/mine.html"', 'href="theirs.html"', "mine &amp; &lt;b&gt;", "1 out of reach", "broken.json"):
        assert piece in text
    assert "90.0\u00a0% of 40 clean images are right, 25.0\u00a0% of 40 under PGD-20 at linf:8/255." in text
    assert "other.json" not in text
    assert "How robust is it?" in (tmp_path / "a" / "mine.html").read_text(encoding="utf-8")


def test_the_index_goes_where_it_is_wanted_and_publishes_nothing(cli, tmp_path):
    saved(tmp_path / "results" / "one.json", system="one")
    out = tmp_path / "site" / "all.html"
    told = cli("report", tmp_path / "results", "--out", out, "--json")
    assert json.loads(told.out) == {"index": str(out)}
    assert 'href="../results/one.html"' in out.read_text(encoding="utf-8")
    assert "--publish" in cli("report", tmp_path / "results", "--publish", tmp_path / "x").complaint()


def test_a_folder_whose_results_are_all_broken_is_one_line(cli, tmp_path):
    (tmp_path / "broken.json").write_text(json.dumps({"schema_version": 1, "rows": 3}))
    told = cli("report", tmp_path)
    assert told.code == 3
    assert "holds no results" in told.complaint()


def test_a_malformed_row_costs_its_own_file_alone(cli, tmp_path):
    saved(tmp_path / "sound.json", system="mine")
    values = json.loads((tmp_path / "sound.json").read_text())
    values["rows"].append({**values["rows"][1], "threat": 5})
    (tmp_path / "bent.json").write_text(json.dumps(values))
    assert cli("report", tmp_path).code == 0
    text = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert 'href="sound.html"' in text
    assert 'href="bent.html"' not in text
    assert "bent.json holds values of another form" in text


def test_the_robust_accuracy_of_a_study_is_that_of_one_system(cli, tmp_path):
    """Systems of one model that differ in a setting are several."""
    rows = [row("pgd-20", share, settings={"training": how}) for how, share in (("normal", 0.1), ("adversarial", 0.3))]
    StudyResult(study="adversarial-training", scale="small", rows=rows).save(tmp_path / "mine.json")
    assert cli("report", tmp_path).code == 0
    assert '<data value="0.3">' in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_results_whose_name_is_no_text_are_linked(cli, tmp_path):
    saved(tmp_path / "sound.json", system="mine")
    (tmp_path / "sound.json").rename(tmp_path / os.fsdecode(b"\xff.json"))
    assert cli("report", tmp_path).code == 0
    assert 'href="%FF.html"' in (tmp_path / "index.html").read_text(encoding="utf-8")


def test_a_folder_that_holds_too_much_is_refused_before_anything_is_written(cli, tmp_path, monkeypatch):
    """Such as the whole disk, whose results would all get pages beside them."""
    monkeypatch.setattr(index, "MOST_ENTRIES", 5)
    saved(tmp_path / "a.json", system="mine")
    for number in range(5):
        (tmp_path / "below" / f"{number}").mkdir(parents=True)
    refused = cli("report", tmp_path)
    assert refused.code == 3
    assert "holds more than 5 files and folders" in refused.complaint()
    assert not list(tmp_path.rglob("*.html"))


def test_hidden_folders_are_not_looked_at(cli, tmp_path):
    saved(tmp_path / ".venv" / "theirs.json", system="theirs")
    saved(tmp_path / "mine.json", system="mine")
    assert cli("report", tmp_path).code == 0
    assert "theirs" not in (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not list((tmp_path / ".venv").glob("*.html"))
