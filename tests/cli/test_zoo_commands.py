"""The networks of the package on the command line: listed, shown, checked and published."""

import json
import shlex
import shutil

import pytest

from unfool import load_network, zoo
from unfool.core.errors import DataError
from unfool.evaluation.cards import measuring

WORDS = "summary: Mine.\nintended_use: Trying it.\nlimits: [It is small.]\nlicence: apache-2.0\n"


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(zoo.folder("digits"), tmp_path / "copy")


def test_the_list_names_every_network_with_its_figures(cli):
    told = cli("models")
    assert (told.code, told.err) == (0, "")
    for name in zoo.names():
        assert f" {name} " in told.out
        assert "…" not in told.out
    cards = json.loads(cli("models", "--json").out)
    assert list(cards) == zoo.names()
    assert f"{100 * cards['digits']['clean']['accuracy']:.1f} [" in told.out


def test_a_card_is_shown_by_name_with_and_without_prefix(cli, copy):
    shown = cli("models", "digits")
    assert shown.code == 0
    assert shown.out == (zoo.folder("digits") / "README.md").read_text()
    assert cli("models", "zoo:digits").out == shown.out
    assert json.loads(cli("models", copy, "--json").out)["name"] == "digits"


def test_a_name_that_is_none_is_refused(cli):
    told = cli("models", "zoo:digit")
    assert told.code == 2
    assert "did you mean 'digits'" in told.complaint()
    assert cli("models", "nowhere").code == 3
    for command in ("models", "verify", "evaluate"):
        told = cli(command, "digit")
        assert told.code == 2
        assert "did you mean zoo:digits?" in told.complaint()
    assert cli("evaluate", "zoo:cifar", "--no-reliability").code == 2


def test_verify_says_what_it_checked_and_what_not(cli, copy):
    told = cli("verify", copy / "card.json", "--images", "0")
    assert (told.code, told.err) == (0, "")
    assert told.out.splitlines()[-1] == "card of digits: holds; not checked: accuracies"
    strict = cli("verify", copy, "--images", "0", "--strict")
    assert strict.code == 11
    assert "not checked" in strict.err
    checks = json.loads(cli("verify", copy, "--images", "0", "--json").out)
    assert (checks["card"], checks["verdict"]) == ("digits", "holds")


def test_a_card_whose_images_are_missing_is_checked_in_all_else(cli, monkeypatch):
    def missing(*_):
        raise DataError("the hub cannot be reached; set UNFOOL_DATA_DIR=DIR")

    monkeypatch.setattr(measuring, "split_table", missing)
    told = cli("verify", "zoo:cifar10-plain")
    assert (told.code, told.err) == (0, "")
    (line,) = [line for line in told.out.splitlines() if line.startswith("accuracies")]
    assert "not checked: for want of data" in line
    assert "UNFOOL_DATA_DIR" in line


def test_a_card_that_does_not_hold_ends_with_its_own_code(cli, copy):
    card = copy / "card.json"
    values = json.loads(card.read_text())
    values["clean"]["accuracy"] += 0.01
    card.write_text(json.dumps(values))
    told = cli("verify", copy, "--images", "0")
    assert told.code == 10
    assert told.err.startswith("unfool: card of digits, clean figure: does not hold")
    assert len(told.err.splitlines()) == 1
    values["clean"]["accuracy"] -= 0.01
    values["attacked"]["threat"] = "linf:8/255"
    card.write_text(json.dumps(values))
    told = cli("verify", copy, "--images", "0")
    assert told.code == 10
    assert told.err.count(" at linf:8/255") == told.err.count(" at linf:16/255") == 1


def test_what_has_no_card_has_nothing_to_verify(cli, tmp_path):
    assert cli("verify", tmp_path).code == 3


def test_a_run_is_published_into_a_folder_that_is_a_run(cli, run, tmp_path):
    words, out, results = tmp_path / "words.yaml", tmp_path / "out", tmp_path / "results.json"
    words.write_text(WORDS)
    assert cli("push", run, "me/mine", "--dir", out, "--half", "--words", words).code == 0
    assert (out / "weights.safetensors").stat().st_size < 0.7 * (run / "weights.safetensors").stat().st_size
    cheap = ("--attack", "fgsm", "--threat", "linf:2/255", "--images", "40", "--no-reliability")
    assert cli("evaluate", out, *cheap, "--out", results).code == 0
    told = cli("push", out, "me/mine", "--results", results, "--dir", out)
    assert (told.code, told.err) == (0, "")
    card = json.loads((out / "card.json").read_text())
    assert (card["name"], card["words"]["summary"], card["attacked"]["images"]) == ("mine", "Mine.", 40)
    assert "license: apache-2.0" in (out / "README.md").read_text()
    assert load_network(out / "weights.safetensors").heads.keys() == {"labels"}
    assert cli("verify", out, "--images", "0").code == 0
    # The weights that were not rounded are other ones: their results make no card for these.
    assert cli("push", run, "me/mine", "--results", results, "--dir", tmp_path / "other").code == 3


def test_the_next_command_after_a_push_is_one_that_works(cli, tiny, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (line,) = [line for line in cli("push", run, "me/x", "--dir", "x").out.splitlines() if line.startswith("next: ")]
    assert line == "next: unfool evaluate x --attack autoattack --out attacked.json"
    _, *words = shlex.split(line.removeprefix("next: "))
    cheap = ("--threat", "linf:2/255", "--images", "20", "--no-reliability")
    assert cli(*(word.replace("autoattack", "fgsm") for word in words), *cheap).code == 0
    again = cli("push", "x", "me/x", "--dir", "x", "--results", "attacked.json")
    assert again.out.splitlines()[-1] == "next: unfool verify x"
    assert cli("verify", "x", "--images", "0").code == 0


def test_a_run_without_labels_is_published_and_probed(cli, tiny, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert cli(*tiny, "--task", "rotation", "--steps", "1", "--out", "pretext").code == 0
    told = cli("push", "pretext", "me/x", "--dir", "x")
    assert told.out.splitlines()[-1] == "next: unfool probe x"
    assert json.loads((tmp_path / "x" / "card.json").read_text())["heads"] == ["rotation"]
    assert cli("verify", "x", "--images", "0").code == 0
    assert cli("probe", "x", "--epochs", "1").code == 0


@pytest.mark.parametrize(
    ("words", "piece"),
    [("- a\n", "is no mapping"), ("sumary: x\n", "did you mean 'summary'"), ("limits: 3\n", "limits")],
)
def test_words_that_are_none_are_refused(cli, tmp_path, words, piece):
    (tmp_path / "words.yaml").write_text(words)
    told = cli("push", "zoo:digits", "me/mine", "--dir", tmp_path / "out", "--words", tmp_path / "words.yaml")
    assert told.code == 2
    assert piece in told.complaint()
    assert not (tmp_path / "out" / "card.json").exists()


def test_a_repository_needs_an_owner(cli, tmp_path):
    told = cli("push", "zoo:digits", "mine", "--dir", tmp_path)
    assert told.code == 2
    assert "write OWNER/NAME" in told.complaint()
