"""The commands, one file each: options in groups, and a ``run`` that calls the library and prints."""

from __future__ import annotations

import importlib
from typing import Any, ClassVar, Protocol

COMMANDS = {
    "demo": "unfool.cli.commands.demo:DemoCommand",
    "study": "unfool.cli.commands.study:StudyCommand",
    "train": "unfool.cli.commands.train:TrainCommand",
    "sweep": "unfool.cli.commands.sweep:SweepCommand",
    "harden": "unfool.cli.commands.harden:HardenCommand",
    "probe": "unfool.cli.commands.probe:ProbeCommand",
    "evaluate": "unfool.cli.commands.evaluate:EvaluateCommand",
    "attack": "unfool.cli.commands.attack:AttackCommand",
    "audit": "unfool.cli.commands.audit:AuditCommand",
    "reverse": "unfool.cli.commands.reverse:ReverseCommand",
    "play": "unfool.cli.commands.play:PlayCommand",
    "models": "unfool.cli.cards.models:ModelsCommand",
    "verify": "unfool.cli.cards.verify:VerifyCommand",
    "push": "unfool.cli.cards.push:PushCommand",
    "convert": "unfool.cli.commands.convert:ConvertCommand",
    "report": "unfool.cli.commands.report:ReportCommand",
    "list": "unfool.cli.commands.listing:ListCommand",
    "doctor": "unfool.cli.commands.doctor:DoctorCommand",
    "completion": "unfool.cli.commands.completion:CompletionCommand",
}
"""Where each command lives; only the one that is asked for is imported."""


class Command(Protocol):
    """A command: a frozen dataclass of its options, with examples for its help.

    One that goes on where it was stopped has ``resumes``, which is true where these options keep what is done;
    ``to_resume`` says which options do.
    """

    examples: ClassVar[str]

    def run(self) -> None:
        """Do it, and print what came of it."""
        ...


def command_class(name: str) -> Any:
    """The class of a command; importing it loads no torch."""
    module, _, cls = COMMANDS[name].partition(":")
    return getattr(importlib.import_module(module), cls)
