"""``unfool list``: what can be named on the command line, each with a sentence."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, Protocol, cast, get_args

import tyro

from unfool.cli.options.shared import Json

if TYPE_CHECKING:
    from unfool.data.sources import DataSet

Kind = Literal["attacks", "tasks", "defenses", "data", "trunks", "losses", "studies"]


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One name, and what it stands for."""

    name: str
    text: str
    aliases: tuple[str, ...] = ()
    """Other names that are understood."""

    @property
    def title(self) -> str:
        """The name and its aliases."""
        return ", ".join((self.name, *self.aliases))


@dataclass(frozen=True, kw_only=True)
class ListCommand:
    """List the attacks, tasks, defenses, data sets, trunks, losses and studies that can be named.

    attacks go into --attack and --perturb, tasks into --task, losses into --task contrast:loss=NAME, defenses into
    --defense, data into --data, trunks into --trunk, and studies are run by `unfool study`.
    """

    kind: Annotated[
        tyro.conf.Positional[Kind | None],
        tyro.conf.arg(metavar="{" + ",".join(get_args(Kind)) + "}", help_behavior_hint="(default: all of them)"),
    ] = None
    """Which of them."""
    json: Json = False

    examples: ClassVar[str] = """
  unfool list
  unfool list attacks
  unfool list trunks --json
"""

    def run(self) -> None:
        from unfool.cli.printing import print_json, print_names

        kinds = [self.kind] if self.kind is not None else get_args(Kind)
        names = {kind: list(listed(kind)) for kind in kinds}
        if self.json:
            print_json({kind: [asdict(entry) for entry in entries] for kind, entries in names.items()})
        else:
            print_names({kind: {entry.title: entry.text for entry in entries} for kind, entries in names.items()})


def listed(kind: str) -> Iterator[Listed]:
    """Every registered name of a kind, in alphabetical order, with the first sentence that describes it."""
    registry = _registry(kind)
    for name in sorted(registry):
        item = registry[name]
        text = _of_data(cast("DataSet", item)) if kind == "data" else first_sentence(inspect.getdoc(item) or "")
        yield Listed(name=name, text=text, aliases=tuple(getattr(registry, "aliases", lambda name: ())(name)))


class _Names(Protocol):
    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, name: str, /) -> object: ...


def _registry(kind: str) -> _Names:
    """The registered items of a kind by name."""
    from unfool.attacks import ATTACKS
    from unfool.data.sources import SETS
    from unfool.defenses import DEFENSES
    from unfool.models.trunks import TRUNKS
    from unfool.studies import STUDIES
    from unfool.tasks import TASKS
    from unfool.tasks.contrast_losses import CONTRAST_LOSSES

    registries: Mapping[str, _Names] = {
        "attacks": ATTACKS,
        "tasks": TASKS,
        "defenses": DEFENSES,
        "data": SETS,
        "trunks": TRUNKS,
        "losses": CONTRAST_LOSSES,
        "studies": STUDIES,
    }
    return registries[kind]


def _of_data(item: DataSet) -> str:
    """The size and labels of a data set, and where it comes from."""
    size = f"{item.size}×{item.size} pixels" if item.size else "images of several sizes"
    labels = f"labels {', '.join(item.label_columns)}" if item.label_columns else "no labels"
    return f"{size}, {labels}; {item.source}"


def first_sentence(text: str) -> str:
    """A docstring's first sentence on one line, without the marks of code."""
    paragraph = " ".join(text.partition("\n\n")[0].split()).replace("``", "").replace("`", "")
    # A full stop inside a number, a name or an abbreviation ends no sentence.
    return re.split(r"(?<=[^.A-Z]{2}[.])(?=\s+[A-Z])(?<!et al\.)", paragraph, maxsplit=1)[0]
