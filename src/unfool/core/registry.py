"""A table of named things that fills itself: every module of a package is imported on the first look-up.

So a newcomer adds a task or an attack by writing one file; no list elsewhere has to be touched.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar, cast

from unfool.core.errors import SpecError
from unfool.core.spec import unknown

Item = TypeVar("Item")
Added = TypeVar("Added")


class Registry(Generic[Item]):
    """Maps names to items of one kind; ``kind`` is the word for them in error messages."""

    def __init__(self, kind: str, package: str):
        self.kind = kind
        self.package = package
        self._items: dict[str, Item] = {}
        self._loaded = False

    def add(self, name: str) -> Callable[[Added], Added]:
        """Decorator that files an item under ``name``; a second item of that name is an error."""

        def file(item: Added) -> Added:
            if name in self._items:
                raise SpecError(f"{self.kind} {name!r} is registered twice; choose another name")
            # The item keeps its own type: a task that is filed is still known by its own methods.
            self._items[name] = cast("Item", item)
            return item

        return file

    def _load(self) -> None:
        if not self._loaded:
            # Set first, since the modules look things up while they load; taken back if one of them fails.
            self._loaded = True
            try:
                for module in pkgutil.iter_modules(importlib.import_module(self.package).__path__):
                    importlib.import_module(f"{self.package}.{module.name}")
            except BaseException:
                self._loaded = False
                raise

    def __getitem__(self, name: str) -> Item:
        self._load()
        if name not in self._items:
            raise unknown(self.kind, name, self._items)
        return self._items[name]

    def __iter__(self) -> Iterator[str]:
        self._load()
        return iter(sorted(self._items))

    def __contains__(self, name: str) -> bool:
        self._load()
        return name in self._items
