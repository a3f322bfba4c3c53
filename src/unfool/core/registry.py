"""A table of named things that fills itself on the first look-up: from a package, from entry points, from plugin files.

So a newcomer adds a task or an attack by writing one file; no list elsewhere has to be touched.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

from unfool.core import plugins
from unfool.core.errors import SpecError
from unfool.core.spec import unknown

Item = TypeVar("Item")
Added = TypeVar("Added")


class Registry(Generic[Item]):
    """Items of one kind by name.

    The first look-up imports every module of ``package``, then what installed packages name in the entry-point group
    ``group``, then the plugin files. An entry point that leads to an object and not to a module registers it under the
    entry point's name.

    Args:
        kind: The word for an item in messages, such as "task".
        package: The package whose modules register the library's own items.
        group: The entry-point group. Default: the package's name.
        subclass_of: The class that items are subclasses of, where they are classes.
        instance_of: The class of the items, where they are none.
        functions: Whether items are functions.

    Example:
        >>> from unfool.tasks import TASKS
        >>> "rotation" in TASKS
        True
    """

    def __init__(
        self,
        kind: str,
        package: str,
        group: str | None = None,
        *,
        subclass_of: type | None = None,
        instance_of: type | None = None,
        functions: bool = False,
    ):
        self.kind = kind
        self.package = package
        self.group = group or package
        self.subclass_of = subclass_of
        self.instance_of = instance_of
        self.functions = functions
        self._items: dict[str, Item] = {}
        self._sources: dict[str, str] = {}
        self._aliases: dict[str, str] = {}
        self._loaded = False

    def add(self, name: str) -> Callable[[Added], Added]:
        """Decorator that registers an item under ``name``; SpecError if the name is taken, or for no such item."""

        def register(item: Added) -> Added:
            source = plugins.loading_plugin()
            if source is not None:
                self._load()  # so that a plugin that takes a name of the library is refused, and not the library
            source = source or str(getattr(item, "__module__", None) or "this program")
            taken = self._aliases.get(name, name)
            if taken in self._items:
                raise SpecError(
                    f"{self.kind} {name!r} of {source} is already registered by {self._sources[taken]}; "
                    "choose another name"
                )
            if wrong := self._wrong(item):
                raise SpecError(f"{self.kind} {name!r} of {source} {wrong}")
            # The item keeps its own type: a registered task is still known by its own methods.
            self._items[name] = cast("Item", item)
            self._sources[name] = source
            plugins.note_item(lambda: self._remove(name))
            return item

        return register

    def _wrong(self, item: object) -> str:
        """Why something is no item of this kind, and what to do; empty if it is one."""
        if self.subclass_of is not None:
            if not (isinstance(item, type) and issubclass(item, self.subclass_of)):
                shown = f"the class {item.__name__}" if isinstance(item, type) else f"a {type(item).__name__}"
                return f"is {shown}; register a subclass of {self.subclass_of.__name__}"
            missing = sorted(getattr(item, "__abstractmethods__", ()))
            return f"does not define {', '.join(missing)}, as every {self.kind} must" if missing else ""
        if self.functions:
            return "" if callable(item) else f"is a {type(item).__name__}; register a function"
        if self.instance_of is None or isinstance(item, self.instance_of):
            return ""
        return f"is a {type(item).__name__}; register a {self.instance_of.__name__}"

    def alias(self, alias: str, name: str) -> None:
        """Let the registered ``name`` be written as ``alias`` too; only the name itself is listed and stored."""
        self._aliases[alias] = name
        plugins.note_item(lambda: self._aliases.pop(alias, None))

    def canonical(self, name: str) -> str:
        """The registered name that a name or alias stands for; SpecError with the nearest name for any other."""
        self._load()
        name = self._aliases.get(name, name)
        if name not in self._items:
            raise unknown(self.kind, name, self._items)
        return name

    def aliases(self, name: str) -> list[str]:
        """What ``name`` may be written as besides."""
        self._load()
        return sorted(alias for alias, known in self._aliases.items() if known == name)

    def _remove(self, name: str) -> None:
        self._items.pop(name, None)
        self._sources.pop(name, None)

    def _register_object(self, name: str, item: object) -> None:
        """Register what an entry point leads to, unless it registered itself as it was imported."""
        if not any(item is known for known in self._items.values()):
            self.add(name)(item)

    def _load(self) -> None:
        if self._loaded:
            return
        # Set first, since the modules look things up while they load; taken back if one of them fails.
        self._loaded = True
        try:
            with plugins.outside_plugins():
                for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
                    importlib.import_module(f"{self.package}.{module.name}")
                plugins.load_entry_points(self.group, self._register_object)
                plugins.load_listed_plugins()
        except BaseException:
            self._loaded = False
            raise

    def __getitem__(self, name: str) -> Item:
        return self._items[self.canonical(name)]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._items))

    def __contains__(self, name: object) -> bool:
        self._load()
        return name in self._items or name in self._aliases
