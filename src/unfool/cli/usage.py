"""Arguments to a command object (tyro underneath), and every misuse to one line that names what was meant."""

from __future__ import annotations

import dataclasses
import importlib
import io
import re
import shutil
import sys
import textwrap
from collections.abc import Sequence
from contextlib import redirect_stderr, redirect_stdout, suppress
from importlib.metadata import version
from inspect import getdoc
from itertools import takewhile
from typing import Annotated, Any, ClassVar, Protocol, Union, get_args, get_type_hints

import tyro

from unfool.core.errors import SpecError
from unfool.core.spec import nearest, unknown

COMMANDS = {
    "study": "unfool.cli.commands.study:StudyCommand",
    "train": "unfool.cli.commands.train:TrainCommand",
    "probe": "unfool.cli.commands.probe:ProbeCommand",
    "evaluate": "unfool.cli.commands.evaluate:EvaluateCommand",
    "attack": "unfool.cli.commands.attack:AttackCommand",
    "audit": "unfool.cli.commands.audit:AuditCommand",
    "reverse": "unfool.cli.commands.reverse:ReverseCommand",
    "convert": "unfool.cli.commands.convert:ConvertCommand",
    "report": "unfool.cli.commands.report:ReportCommand",
    "list": "unfool.cli.commands.listing:ListCommand",
    "doctor": "unfool.cli.commands.doctor:DoctorCommand",
    "completion": "unfool.cli.commands.completion:CompletionCommand",
}
"""Where each command lives; only the one that is asked for is imported."""

EPILOG = """\
examples:
  unfool doctor
  unfool study contrastive-multitask --scale demo
  unfool train --data digits --trunk convnet --epochs 8 --out runs/digits
  unfool evaluate runs/digits --attack pgd-20 --threat linf:8/255

`unfool COMMAND --help` shows a command's options and examples; `unfool --version` the version. With --debug, or
UNFOOL_DEBUG=1, an error shows its traceback. Data sets without network: --data-dir DIR, or UNFOOL_DATA_DIR.
With --plugin FILE, or UNFOOL_PLUGINS, a Python file adds tasks, attacks, defenses, data sets, trunks or studies.

exit codes:
  0  done
  2  a command, option, name, number, threat model or model file that is not understood
  3  a data set, run or results file that is missing, unreadable or corrupt
  4  images or labels that break the contract: float NCHW in [0,1], finite, not empty
  5  a weights file that is malformed, unsafe or of another architecture
  6  a folder or file that cannot be written, is in use, or belongs to another configuration
  7  a loss or gradient that is not finite
  8  a device or precision that this machine does not offer
  9  a result that is not to be believed, under --strict
  70 a fault of unfool itself: please report it
  130 interrupted; the same command resumes
  141 the reader of the output closed it early"""

_OPTION = re.compile(r"-[^\d.]")
"""What an option begins with; a negative number is a value."""
_CHOICE = re.compile(
    r"invalid choice '(?P<value>.*)' for argument '(?P<option>.*)'\. Expected one of \((?P<allowed>.*)\)"
)
_MEANT = {"model": "--trunk", "arch": "--trunk", "dataset": "--data", "bs": "--batch-size", "output": "--out"}
"""What options of other programs are called here."""
_STYLE = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)


class Command(Protocol):
    """A command: a frozen dataclass of its options, with examples for its help."""

    examples: ClassVar[str]

    def run(self) -> None:
        """Do it, and print what came of it."""
        ...


def parse(arguments: Sequence[str]) -> Command | None:
    """The command that the arguments describe; None if they asked for help or the version, which is then printed.

    Raises SpecError for everything else that is no command.
    """
    if not arguments:
        raise SpecError(f"no command was given; choose one of {', '.join(COMMANDS)}, or see unfool --help")
    name, rest = arguments[0], list(arguments[1:])
    if name in ("-h", "--help"):
        return _overview()
    if name == "--version":
        print(f"unfool {version('unfool')}")
        return None
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    return _parsed(_command(name), name, rest)


def _command(name: str) -> Any:
    module, _, cls = COMMANDS[name].partition(":")
    return getattr(importlib.import_module(module), cls)


def _overview() -> None:
    description = "Make image classifiers hard to fool, and learn how hard they are."
    try:
        tyro.cli(_every_command(), prog="unfool", description=description, args=["--help"])
    except SystemExit:
        print(f"\n{EPILOG}")


def completion_script(shell: str) -> str:
    """The script that completes commands and options in bash, zsh or fish."""
    script = io.StringIO()
    arguments = ["--tyro-print-completion", shell]
    with redirect_stdout(script), suppress(SystemExit):
        tyro.cli(_every_command(), prog="unfool", args=arguments, config=_STYLE)
    return script.getvalue().rstrip()


def _every_command() -> Any:
    """All commands as the subcommands of one type."""
    commands = {name: _command(name) for name in COMMANDS}
    return Union[  # noqa: UP007 - made from a tuple
        tuple(
            Annotated[cls, tyro.conf.subcommand(name, description=cls.__doc__.splitlines()[0])]
            for name, cls in commands.items()
        )
    ]


def _parsed(cls: Any, name: str, rest: list[str]) -> Command | None:
    if not {"-h", "--help"} & set(rest):
        # Before tyro, which would take the value of an unknown option for something else.
        _check_options(rest, name, _options(cls))
    complaint, shown = io.StringIO(), _LikeStdout()
    # Without the line breaks of the source: paragraphs are wrapped as they are shown.
    description = re.sub(r"(?<!\n)\n(?!\n)", " ", getdoc(cls) or "")
    try:
        with redirect_stderr(complaint), redirect_stdout(shown):
            command, strange = tyro.cli(
                cls, prog=f"unfool {name}", args=rest, config=_STYLE, return_unknown_args=True, description=description
            )
    except SystemExit as end:
        if end.code:
            raise SpecError(f"{_plain(_first_paragraph(complaint.getvalue()))}; see unfool {name} --help") from None
        if {"-h", "--help"} & set(rest):
            print(_wrapped(shown.getvalue(), description), end="")
            more = f"\n{cls.more_help()}\n" if hasattr(cls, "more_help") else ""
            print(f"{more}\nexamples:\n{cls.examples.strip(chr(10))}")
        return None
    if strange:
        raise SpecError(f"unfool {name} does not understand {strange[0]!r}; see unfool {name} --help")
    return command


class _LikeStdout(io.StringIO):
    """Text that looks like stdout to who writes it, so that help keeps its colours and boxes."""

    def __init__(self):
        super().__init__()
        self._stdout = sys.stdout

    def isatty(self) -> bool:
        return self._stdout.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stdout.encoding


def _wrapped(text: str, description: str) -> str:
    """Help with its description wrapped between words, which tyro leaves to the terminal."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 100)
    for paragraph in description.split("\n\n"):
        text = text.replace(paragraph, textwrap.fill(paragraph, width))
    return text


def _check_options(arguments: Sequence[str], name: str, known: Sequence[str]) -> None:
    """Raise SpecError for the first argument that looks like an option and is none of the ``known`` ones."""
    for argument in takewhile(lambda word: word != "--", arguments):
        option = argument.partition("=")[0]
        if not _OPTION.match(option) or option.replace("_", "-") in known:
            continue
        near = _MEANT.get(option.lstrip("-")) or nearest(option, known)
        hint = f"did you mean {near!r}? see" if near in known else "its options are listed by"
        raise SpecError(f"unknown option {option!r} of unfool {name}; {hint} unfool {name} --help")


def _options(cls: Any) -> list[str]:
    """The options of a command, with their other names; what is on by default can only be turned off."""
    known: list[str] = []
    hints = get_type_hints(cls, include_extras=True)
    for field in dataclasses.fields(cls):
        notes = get_args(hints[field.name])[1:]
        if dataclasses.is_dataclass(hints[field.name]):
            known += _options(hints[field.name])
        elif tyro.conf.Positional not in notes:
            known.append(("--no-" if field.default is True else "--") + field.name.replace("_", "-"))
            known += [alias for note in notes for alias in getattr(note, "aliases", None) or ()]
    return known


def _plain(complaint: str) -> str:
    """A complaint of tyro's in this program's words, where it is about a choice."""
    wrong = _CHOICE.search(complaint)
    if wrong is None:
        return complaint
    allowed = sorted(set(re.findall(r"'([^']*)'", wrong["allowed"])) - {"None"})
    near = nearest(wrong["value"], allowed)
    hint = f"did you mean {near!r}? " if near else ""
    return f"{wrong['option']} {wrong['value']!r} is not allowed; {hint}allowed: {', '.join(allowed)}"


def _first_paragraph(box: str) -> str:
    """What tyro says inside its box, from below the title down to the first rule, as one line."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", box)
    lines = [line.strip(" │") for line in text.strip("\n").splitlines()]
    # Where stdout takes no box-drawing characters, the title stands above a rule instead of in the frame.
    below = lines[1:] if lines and lines[0].startswith("╭") else lines[2:]
    rules = (
        number for number, line in enumerate(below) if line.startswith(("╰", "──", "--")) and not line.strip("╰─╯-")
    )
    said = " ".join(" ".join(below[: next(rules, len(below))]).split())
    return said.rstrip(".") or "the arguments are not understood"
