"""Options made from settings classes: what is read from the source is what the classes are."""

import dataclasses
import importlib
import re
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
import tyro
from pydantic.fields import FieldInfo

from unfool.cli.commands import command_class
from unfool.cli.commands.audit import AUDIT
from unfool.cli.commands.evaluate import EVALUATION, LADDER
from unfool.cli.commands.harden import SETTINGS as HARDEN
from unfool.cli.commands.probe import PROBE
from unfool.cli.commands.train import RUN, STAGE
from unfool.cli.misuse import options_of
from unfool.cli.options import settings_fields
from unfool.cli.options.cluster import ClusterOptions
from unfool.cli.options.from_settings import LOOKS, explicit, options_from
from unfool.cli.options.settings_fields import REQUIRED, read_fields

SETTINGS = (STAGE, RUN, PROBE, EVALUATION, LADDER, AUDIT, HARDEN)


def actual(settings):
    """Default and annotation of each field of a settings class, as Python has them."""
    module, _, name = settings.partition(":")
    cls = getattr(importlib.import_module(module), name)
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        info = field.default if isinstance(field.default, FieldInfo) else None
        default = info.default if info is not None else field.default
        yield field.name, hints[field.name], default, (info.description if info is not None else None) or ""


@pytest.mark.parametrize("settings", SETTINGS)
def test_fields_are_read_from_the_source_as_they_are(settings):
    read = read_fields(settings)
    assert list(read) == [name for name, *_ in actual(settings)]
    for name, annotation, default, description in actual(settings):
        field = read[name]
        if field.default is not REQUIRED:
            assert field.default == default, name
        assert field.description == description, name
        choices = next((kind for kind in (annotation, *get_args(annotation)) if get_origin(kind) is Literal), None)
        if choices is not None:
            assert field.type == choices, name
        elif annotation in (int, float, str, bool):
            assert field.type is annotation, name


def test_every_field_with_a_look_of_its_own_exists():
    assert set(LOOKS) <= {name for settings in SETTINGS for name in read_fields(settings)}


def test_every_setting_of_a_stage_is_an_option_of_train():
    options = options_of(command_class("train"))
    for name, field in read_fields(STAGE).items():
        # What is true by default can only be turned off.
        option = f"--{'no-' if field.default is True else ''}{name.replace('_', '-')}"
        assert (option in options) == (name != "tasks")


def test_a_new_field_is_an_option_without_another_line(tmp_path, monkeypatch):
    source = settings_fields._PACKAGE / "training" / "stage_config.py"
    before, mark, after = source.read_text(encoding="utf-8").partition("    steps: int")
    assert mark
    new = '    patience: int = Field(default=7, ge=1, description="Epochs ``without`` gain " "beside held_out.")\n'
    (tmp_path / "training").mkdir()
    (tmp_path / "training" / "stage_config.py").write_text(before + new + mark + after, encoding="utf-8")
    monkeypatch.setattr(settings_fields, "_PACKAGE", tmp_path)

    @options_from(STAGE, without=["tasks"])
    class Options:
        """All of a stage."""

    options = tyro.cli(Options, args=["--patience", "3", "--optimizer", "sgd"])
    assert explicit(options) == {"patience": 3, "optimizer": "sgd"}
    (note,) = get_type_hints(Options, include_extras=True)["patience"].__metadata__
    assert (note.help, note.metavar, note.help_behavior_hint) == (
        *("Epochs without gain beside --held-out.", "N", "(default: 7)"),
    )


def test_what_is_given_is_kept_apart_from_what_is_not():
    @options_from(STAGE, only=["epochs", "schedule"])
    class Options:
        """Some of a stage."""

        width: int = 3

    assert explicit(Options()) == {}
    assert explicit(Options(epochs=1)) == {"epochs": 1}
    assert explicit(Options(epochs=1, width=4), without=["epochs"]) == {"width": 4}


def test_help_says_a_default_once_and_what_turns_off_as_such(cli):
    for command in ("train", "harden", "audit", "evaluate", "probe"):
        shown = " ".join(cli(command, "--help").out.replace("│", " ").split())
        for option in re.split(r" (?=--[a-z])", shown):
            assert option.count("default:") <= 1, (command, option)
    assert "--no-nesterov Plain momentum of sgd" in " ".join(cli("train", "--help").out.replace("│", " ").split())


@pytest.mark.parametrize(
    ("cluster", "device", "own"),
    [(None, "cuda", "cuda"), ("auto", "cuda", "auto"), ("auto", "cpu", "cpu"), ("auto", "auto", "auto")],
)
def test_a_gpu_is_asked_of_a_cluster_by_a_machine_that_has_none(cluster, device, own):
    assert ClusterOptions(cluster=cluster).own_device(device) == own
