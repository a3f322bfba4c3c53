"""``unfool list`` and ``unfool completion``."""

import ast
import importlib.util
import json
import subprocess
from pathlib import Path
from typing import get_args

import pytest

from unfool.attacks import ATTACKS
from unfool.cli.commands import COMMANDS, command_class
from unfool.cli.commands.listing import Kind, first_sentence
from unfool.cli.commands.study import CATALOGUE
from unfool.cli.completion_script import _FILES_ELSE
from unfool.cli.misuse import options_of
from unfool.models.trunks import TRUNKS
from unfool.studies import STUDIES
from unfool.tasks import TASKS


def test_every_registered_name_has_a_sentence(cli):
    told = cli("list", "--json")
    assert (told.code, told.err) == (0, "")
    listed = json.loads(told.out)
    assert tuple(listed) == get_args(Kind)
    for kind, registry in (("attacks", ATTACKS), ("tasks", TASKS), ("trunks", TRUNKS), ("studies", STUDIES)):
        assert [entry["name"] for entry in listed[kind]] == sorted(registry)
    for kind, entries in listed.items():
        assert entries, kind
        for entry in entries:
            assert len(entry["text"].split()) >= 4, entry


def test_one_kind_is_listed_by_itself_for_a_person(cli):
    told = cli("list", "data")
    assert (told.code, told.err) == (0, "")
    title, *lines = told.out.splitlines()
    assert title == "data"
    assert "  cifar100       32×32 pixels, labels fine_label, coarse_label; hub:uoft-cs/cifar100" in lines
    assert max(map(len, lines)) <= 100


def test_another_kind_is_refused_with_the_nearest(cli):
    complaint = cli("list", "taks").complaint()
    assert "'taks'" in complaint
    assert "did you mean 'tasks'? allowed: attacks, corruptions, data, defenses" in complaint
    assert "None" not in complaint


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("One thing. Another.", "One thing."),
        ("By Khosla et al. (2020), and\nothers. More.\n\nA paragraph.", "By Khosla et al. (2020), and others."),
        ("``pgd-20`` steps of 2.5 pixels. And more.", "pgd-20 steps of 2.5 pixels."),
        ("No stop", "No stop"),
    ],
)
def test_the_first_sentence_of_a_docstring(text, sentence):
    assert first_sentence(text) == sentence


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_hold_every_command_and_option(cli, shell):
    told = cli("completion", shell)
    assert (told.code, told.err) == (0, "")
    for name in COMMANDS:
        assert name in told.out
        for option in options_of(command_class(name)):
            assert option in told.out, (name, option)
    assert "'None'" not in told.out


def test_no_option_is_described_in_broken_lines(cli):
    (line,) = (line for line in cli("completion", "bash").out.splitlines() if line.startswith("COMPLETION_SPEC = "))
    commands = ast.literal_eval(line.partition(" = ")[2])["subcommands"]
    described = [(name, option) for name, command in commands.items() for option in command["options"]]
    assert [(name, option["flags"]) for name, option in described if "\n" in option["description"]] == []


def test_bash_completes_commands_options_and_choices(cli, tmp_path):
    script = tmp_path / "unfool.bash"
    script.write_text(cli("completion", "bash").out)
    assert subprocess.run(["bash", "-n", script], capture_output=True, check=True).stderr == b""

    def completed(*words):
        array = " ".join(f"'{word}'" for word in ("unfool", *words))
        line = f"source {script}; COMP_WORDS=({array}); COMP_CWORD={len(words)}; _tyro_unfool; echo ${{COMPREPLY[@]}}"
        return sorted(subprocess.run(["bash", "-c", line], capture_output=True, text=True, check=True).stdout.split())

    assert completed("tr") == ["train"]
    assert completed("train", "--learn") == ["--learning-rate"]
    assert completed("train", "--optimizer", "s") == ["sgd"]
    assert completed("train", "--optimizer", "") == ["adam", "sgd"]
    assert completed("evaluate", "--att") == ["--attack", "--attacks"]
    assert completed("list", "me") == ["methods"]
    assert completed("study", "rev") == ["reverse-attack"]
    assert completed("study", "reverse-attack", "--sc") == ["--scale"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_files_are_completed_where_no_word_fits(cli, tmp_path, shell):
    script = cli("completion", shell).out
    for written, instead in _FILES_ELSE[shell]:
        assert script.count(instead) >= 1
        assert written not in script.replace(instead, "")
    if shell == "bash":
        (tmp_path / "unfool.bash").write_text(script)
        line = f"source {tmp_path}/unfool.bash; COMP_WORDS=(unfool evaluate ru); COMP_CWORD=2; _tyro_unfool"
        shown = subprocess.run(["bash", "-c", f"{line}; echo ${{#COMPREPLY[@]}}"], capture_output=True, check=True)
        assert shown.stdout == b"0\n"  # so that -o default offers files


def test_the_help_of_study_is_true_of_every_study(cli):
    spec = importlib.util.spec_from_file_location("study_catalogue", Path(__file__).with_name("study_catalogue.py"))
    writer = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(writer)
    assert json.loads(CATALOGUE.read_text(encoding="utf-8")) == writer.catalogue(), "run make catalogue"
    shown = cli("study", "--help").out
    for name, study in writer.catalogue().items():
        assert f"  {name}: {study['title']}" in shown
        for scale, text in study["scales"].items():
            assert f"    {scale}: {text}" in shown
