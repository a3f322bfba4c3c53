"""``unfool models``: the networks that come with the package, and their cards."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from unfool.cli.options.shared import Json

if TYPE_CHECKING:
    from unfool.models.zoo.model_card import Card


@dataclass(frozen=True, kw_only=True)
class ModelsCommand:
    """List the networks that come with the package, or show the card of one.

    zoo:NAME stands for one wherever a command takes a run: evaluate, attack, harden, reverse, probe, verify, push.
    """

    name: Annotated[
        tyro.conf.Positional[Path | None], tyro.conf.arg(metavar="NAME", help_behavior_hint="(default: all of them)")
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

        table = Table(box=box.SIMPLE_HEAD, title="Networks of the package", title_justify="left")
        for word in ("network", "data", "size", "parameters", "clean %", "attacked %", "by"):
            right = word in ("size", "parameters", "clean %", "attacked %")
            table.add_column(word, justify="right" if right else "left", no_wrap=word != "by")
        for name, card in cards.items():
            figures = [
                f"{100 * each.accuracy:.1f} \\[{100 * each.low:.1f}, {100 * each.high:.1f}]" if each else "not measured"
                for each in (card.clean, card.attacked)
            ]
            attacked = card.attacked
            by = f"{attacked.attack}, {attacked.threat}, n {attacked.images}" if attacked is not None else ""
            size = f"{card.weights_bytes / 1e6:.2f} MB"
            table.add_row(f"zoo:{name}", card.data, size, f"{card.parameters:,}", *figures, by)
        stdout().print(table)
        print_lines(["unfool models NAME shows a card, unfool verify zoo:NAME measures its figures again"])
