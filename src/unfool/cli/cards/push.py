"""``unfool push``: publish a run with its model card, to a folder or to the Hugging Face hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from unfool.cli.options.shared import Json

if TYPE_CHECKING:
    from unfool.models.zoo.model_card import Words

_NONE = "(default: none)"
Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class PushCommand:
    """Publish a run: its recipe, weights and model card, to a repository of the Hugging Face hub or into a folder.

    The figures of the card are taken from results files of `unfool evaluate`, which must name this very network; the
    folder that they were measured on is the one to publish (--half rounds weights, so evaluate what --dir wrote). A
    refusal writes nothing.
    Anyone then checks the card with `unfool verify hf:OWNER/NAME`, and evaluates, attacks or hardens hf:OWNER/NAME as
    any other run. Log in with `hf auth login`; HF_ENDPOINT names another hub.
    """

    system: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A finished run's folder, zoo:NAME or hf:OWNER/NAME."""
    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="OWNER/NAME")]
    """The repository; its last part is what the card calls the network."""
    results: Annotated[
        tyro.conf.UseAppendAction[tuple[Path, ...]],
        tyro.conf.arg(metavar="FILE", help_behavior_hint="(repeatable, default: those that RUN has)"),
    ] = ()
    """What `unfool evaluate RUN --attack NAME --out FILE` wrote; clean rows alone do not say whose they are."""
    words: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: those of RUN's card)")
    ] = None
    """YAML with summary, intended_use, limits and licence: what the card says beside its figures."""
    dir: Annotated[Path | None, tyro.conf.arg(metavar="FOLDER", help_behavior_hint=_NONE)] = None
    """Write the files into this folder, and nothing to the hub."""
    half: Flag = False
    """Round weights to half precision, for a file of half the size."""
    private: Flag = False
    """Make a repository that is created private."""
    json: Json = False

    examples: ClassVar[str] = """
  unfool push runs/digits me/digits --dir published --half
  unfool push published me/digits --results clean.json --results attacked.json
  unfool push zoo:digits me/digits --private
"""

    def run(self) -> None:
        from tempfile import TemporaryDirectory

        from unfool.cli.next_command import command
        from unfool.cli.printing import print_json, print_lines, shared
        from unfool.evaluation.results.study_result import StudyResult
        from unfool.models.zoo import hub
        from unfool.models.zoo.located import run_folder
        from unfool.report.publishing.published_run import publish
        from unfool.training.folder import open_run

        with shared(), TemporaryDirectory() as temporary:
            hub.check_name(self.name)
            results = [StudyResult.load(path) for path in self.results]
            folder = self.dir or Path(temporary)
            card = publish(
                run_folder(self.system), folder, self.name, results=results, words=self._words(), half=self.half
            )
            labelled = getattr(open_run(folder).network, "classifier", "") is not None
            where = str(folder) if self.dir is not None else hub.upload(folder, self.name, private=self.private)
        if self.json:
            print_json({"written": where, "weights_sha256": card.weights_sha256})
        else:
            system = where if self.dir is not None else f"hf:{self.name}"
            print_lines([f"{where}: {card.name}, {card.weights_bytes:,} bytes of weights, with its card"])
            if card.attacked is not None:
                words = ["verify", system]
            elif labelled:
                words = ["evaluate", system, "--attack", "autoattack", "--out", "attacked.json"]
            else:
                words = ["probe", system]
            print_lines([command(words)])

    def _words(self) -> Words | None:
        from unfool.core.borders.yaml_text import read_yaml
        from unfool.core.config import build
        from unfool.core.errors import SpecError
        from unfool.models.zoo.model_card import Words

        if self.words is None:
            return None
        values = read_yaml(self.words, "write summary, intended_use, limits and licence")
        if not isinstance(values, dict):
            raise SpecError(f"{self.words} is no mapping; write summary, intended_use, limits and licence")
        return build(Words, values, str(self.words))
