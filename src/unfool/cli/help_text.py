"""Help of the whole program and of a command."""

from __future__ import annotations

import io
import shutil
import sys
import textwrap
from typing import Annotated, Any, Union

import tyro

from unfool.cli.commands import COMMANDS, command_class

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
  3  a data set, run, results file or model card that is missing, unreadable or corrupt
  4  images or labels that break the contract: float NCHW in [0,1], finite, not empty
  5  a weights file that is malformed, unsafe or of another architecture
  6  a folder or file that cannot be written, is in use, or belongs to another configuration
  7  a loss or gradient that is not finite
  8  a device or precision that this machine does not offer
  9  a result that is not to be believed, under --strict
  10 a claim (--claim) or a model card that is shown to be wrong
  11 a claim or a model card that the images could not settle
  12 worker processes or a cluster that cannot be reached, or that were lost too often
  70 a fault of unfool itself: please report it
  130 interrupted; the last line says whether the same command resumes
  141 the reader of the output closed it early"""

STYLE = (tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff, tyro.conf.DisallowNone)
"""How tyro makes options of dataclasses."""


def overview() -> None:
    description = "Make image classifiers hard to fool, and learn how hard they are."
    try:
        tyro.cli(every_command(), prog="unfool", description=description, args=["--help"])
    except SystemExit:
        print(f"\n{EPILOG}")


def every_command() -> Any:
    """All commands as the subcommands of one type."""
    commands = {name: command_class(name) for name in COMMANDS}
    return Union[  # noqa: UP007 - made from a tuple
        tuple(
            Annotated[cls, tyro.conf.subcommand(name, description=cls.__doc__.splitlines()[0])]
            for name, cls in commands.items()
        )
    ]


class LikeStdout(io.StringIO):
    """Text that looks like stdout to who writes it, so that help keeps its colours and boxes."""

    def __init__(self):
        super().__init__()
        self._stdout = sys.stdout

    def isatty(self) -> bool:
        return self._stdout.isatty()

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self._stdout.encoding


def wrapped(text: str, description: str) -> str:
    """Help with its description wrapped between words, which tyro leaves to the terminal."""
    width = min(shutil.get_terminal_size((80, 24)).columns, 100)
    for paragraph in description.split("\n\n"):
        text = text.replace(paragraph, textwrap.fill(paragraph, width))
    return text
