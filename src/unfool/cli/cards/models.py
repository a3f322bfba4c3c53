"""``unfool models``: the networks that come with the package, and their cards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from unfool.cli.options.shared import Json

if TYPE_CHECKING:
    from unfool.models.zoo.model_card import Card, Figure

_SHORT = {"autoattack": "AA"}


@dataclass(frozen=True, kw_only=True)
class ModelsCommand:
    """List the networks that come with the package, or show the card of one.

    zoo:NAME stands for one wherever a command takes a run: evaluate, attack, harden, reverse, probe, verify, push.
    """

    name: Annotated[
        tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="[NAME]", help_behavior_hint="(default: all of them)")
    ] = None
    """A network of the package, with or without zoo: before it, hf:OWNER/NAME, or a network's folder: its card."""
    json: Json = False

    examples: ClassVar[str] = """
  unfool models
  unfool models digits-robust
  unfool models --json
"""

    def run(self) -> None:
        from unfool.cli.printing import print_json, print_lines, shared
        from unfool.core.config import to_plain
        from unfool.models.zoo.catalog import folder, names
        from unfool.models.zoo.located import run_folder
        from unfool.models.zoo.model_card import CARD, Card

        with shared():
            if self.name is not None:
                known = str(self.name) in names()
                shown = Card.load((folder(str(self.name)) if known else run_folder(self.name)) / CARD)
                if self.json:
                    print_json(to_plain(shown))
                else:
                    from unfool.report.publishing.model_card import card_text

                    system = f"zoo:{self.name}" if known else str(self.name)
                    print_lines(card_text(shown, system).splitlines())
                return
            cards = {name: Card.load(folder(name) / CARD) for name in names()}
            if self.json:
                print_json({name: to_plain(card) for name, card in cards.items()})
            else:
                self._print(cards)

    def _print(self, cards: dict[str, Card]) -> None:
        from rich import box
        from rich.table import Table

        from unfool.cli.printing import print_lines, stdout

        table = Table(box=box.SIMPLE_HEAD, title="Networks of the package, zoo:NAME", title_justify="left")
        for word in ("NAME", "data", "MB", "weights", "clean %", "attacked %", "under"):
            right = word in ("MB", "weights", "clean %", "attacked %")
            table.add_column(word, justify="right" if right else "left", no_wrap=True)
        table.padding = (0, 1, 0, 0)
        for name, card in cards.items():
            size = f"{card.weights_bytes / 1e6:.2f}"
            figures = (_share(card.clean), _share(card.attacked))
            table.add_row(name, card.data, size, f"{card.parameters / 1000:,.0f} k", *figures, _under(card.attacked))
        stdout().print(table)
        print_lines(
            ["AA: AutoAttack. unfool models NAME shows a card, unfool verify zoo:NAME measures its figures again"]
        )


def _share(figure: Figure | None) -> str:
    if figure is None:
        return "not measured"
    return f"{100 * figure.accuracy:.1f} \\[{100 * figure.low:.1f}, {100 * figure.high:.1f}]"


def _under(figure: Figure | None) -> str:
    """The attack in a few letters, so that the table fits a terminal."""
    if figure is None:
        return ""
    return f"{_SHORT.get(figure.attack, figure.attack)} {figure.threat}"
