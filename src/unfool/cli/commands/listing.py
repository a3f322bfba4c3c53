"""``unfool list``: what can be named on the command line, each with a sentence."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Annotated, Any, ClassVar, Literal, Protocol, get_args

import tyro

from unfool.cli.options.shared import Json
from unfool.core.registry import Registry

# fmt: off
Kind = Literal[
    "attacks", "tasks", "losses", "methods", "defenses", "rungs", "data", "corruptions", "trunks", "models", "studies"
]
# fmt: on


@dataclass(frozen=True, kw_only=True)
class Listed:
    """One name, and what it stands for."""

    name: str
    text: str
    aliases: tuple[str, ...] = ()
    """Other names that are understood."""
    scales: Mapping[str, str] = field(default_factory=dict)
    """What each scale of a study trains and measures."""

    def to_json(self) -> dict[str, object]:
        """The JSON object that --json prints; only studies have scales."""
        return {key: value for key, value in asdict(self).items() if key != "scales" or value}

    def lines(self) -> list[tuple[str, str]]:
        """The name with its aliases, and a line for each scale, each with its words."""
        scales = [(f"  --scale {scale}", text) for scale, text in self.scales.items()]
        return [(", ".join((self.name, *self.aliases)), self.text), *scales]


@dataclass(frozen=True, kw_only=True)
class ListCommand:
    """List the attacks, tasks, defenses, data sets, trunks, studies and others that can be named.

    attacks go into --attack and --perturb, tasks into --task, losses into --task contrast:loss=NAME, methods into
    --adversarial, defenses into --defense, data into --data, and trunks into --trunk. rungs are the attacks of
    evaluate --adaptive, corruptions those of evaluate --corruptions, and models the published layouts of weights that
    `unfool convert` reads. studies are run by `unfool study`.
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
            print_json({kind: [entry.to_json() for entry in entries] for kind, entries in names.items()})
        else:
            print_names(
                {kind: [line for entry in entries for line in entry.lines()] for kind, entries in names.items()}
            )


class _Names(Protocol):
    def __iter__(self) -> Iterator[str]: ...

    def __getitem__(self, name: str, /) -> Any: ...


def listed(kind: str) -> Iterator[Listed]:
    """Every registered name of a kind, in alphabetical order, with the first sentence that describes it."""
    registry = _registry(kind)
    for name in sorted(registry):
        aliases = tuple(registry.aliases(name)) if isinstance(registry, Registry) else ()
        item = registry[name]() if kind == "studies" else registry[name]
        scales = {scale: item.describe(scale) for scale in item.scales} if kind == "studies" else {}
        yield Listed(name=name, text=_text(kind, name, item), aliases=aliases, scales=scales)


def _registry(kind: str) -> _Names:
    """The registered items of a kind by name."""
    from unfool.attacks import ATTACKS
    from unfool.data.corruptions import CORRUPTIONS
    from unfool.data.sources import SETS
    from unfool.defenses import DEFENSES
    from unfool.evaluation.adaptive.rung import RUNGS
    from unfool.models.published import LAYOUTS
    from unfool.models.trunks import TRUNKS
    from unfool.studies import STUDIES
    from unfool.tasks import TASKS
    from unfool.tasks.contrast_losses import CONTRAST_LOSSES
    from unfool.training.adversarial.methods import ADVERSARIAL_METHODS

    registries: Mapping[str, _Names] = {
        "attacks": ATTACKS,
        "tasks": TASKS,
        "losses": CONTRAST_LOSSES,
        "methods": ADVERSARIAL_METHODS,
        "defenses": DEFENSES,
        "rungs": RUNGS,
        "data": SETS,
        "corruptions": CORRUPTIONS,
        "trunks": TRUNKS,
        "models": LAYOUTS,
        "studies": STUDIES,
    }
    return registries[kind]


def _text(kind: str, name: str, item: Any) -> str:
    """What a registered item is, in a sentence."""
    match kind:
        case "methods":
            return _sentence(item.description)
        case "rungs":
            return _sentence(f"({item.key}) {item.title}")
        case "corruptions":
            return first_sentence(inspect.getdoc(item.change) or "")
        case "data":
            size = f"{item.size}×{item.size} pixels" if item.size else "images of several sizes"
            labels = f"labels {', '.join(item.label_columns)}" if item.label_columns else "no labels"
            return f"{size}, {labels}; {item.source}"
        case "studies":
            return item.title
        case "attacks":
            return first_sentence(inspect.getdoc(item) or "") + _preset(name)
        case _:
            return first_sentence(inspect.getdoc(item) or "")


_THREATS = {"linf": "linf:8/255", "l2": "l2:0.5", "l1": "l1:12", "l0": "l0:24"}
"""A threat model of each norm, under which an attack's settings are shown."""


def _preset(attack: str) -> str:
    """The settings that an attack's name stands for, where one class has several names."""
    from unfool.attacks import ATTACKS, make_attack

    norms = ATTACKS[attack].norms
    norm = "linf" if "linf" in norms else norms[0]
    settings = re.fullmatch(r"\w+\([^,]*, (.*)\)", repr(make_attack(attack, _THREATS[norm])))
    only = "" if norm == "linf" else f" In {', '.join(norms)} only."
    return only + (f" Here {settings[1]}." if settings else "")


def _sentence(words: str) -> str:
    return f"{words[:1].upper()}{words[1:]}."


def first_sentence(text: str) -> str:
    """A docstring's first sentence on one line, without the marks of code."""
    paragraph = " ".join(text.partition("\n\n")[0].split()).replace("``", "").replace("`", "")
    # A full stop inside a number, a name or an abbreviation ends no sentence.
    return re.split(r"(?<=[^.A-Z]{2}[.])(?=\s+[A-Z])(?<!et al\.)", paragraph, maxsplit=1)[0]
