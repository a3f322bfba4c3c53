"""The names that passes through a system write and read, and whether an attribute of an object is among them."""

from __future__ import annotations

import functools
import types
from dataclasses import dataclass, field

import numpy as np
from torch import Tensor, nn

from unfool.evaluation.provenance.origin import library_of_class
from unfool.evaluation.provenance.python_code import names_of


@dataclass
class Writes:
    """Names that passes write: of a class's own instances, of any object, and variables of modules and closures."""

    own: dict[type, set[str]] = field(default_factory=dict)
    anywhere: set[str] = field(default_factory=set)
    variables: set[str] = field(default_factory=set)
    grown_own: dict[type, set[str]] = field(default_factory=dict)
    grown_anywhere: set[str] = field(default_factory=set)
    """Attributes on which a method such as ``append`` or ``add`` is called: of a tensor, it leaves it as it is."""
    read: set[str] = field(default_factory=set)
    """Names that passes also read, so that what they hold may decide the outputs."""
    read_by: dict[type | None, set[str]] = field(default_factory=dict)
    """The same by the class whose methods read them."""
    set_first: dict[type | None, set[str]] = field(default_factory=dict)
    """Attributes that a class's ``forward`` sets for certain before anything reads them."""
    run: set[types.CodeType] = field(default_factory=set)
    """The code that a pass may run."""

    def covers(self, holder: object, name: str, value: object) -> bool:
        """Whether a pass writes the attribute ``name`` of this object, which is now ``value``."""
        grows = not isinstance(value, (Tensor, np.ndarray, int, float, str, bytes, tuple, frozenset, type(None)))
        if name in self.anywhere or (grows and name in self.grown_anywhere):
            return True
        for kind in type(holder).__mro__:
            if name in self.own.get(kind, ()) or (grows and name in self.grown_own.get(kind, ())):
                return True
            if isinstance(vars(kind).get(name), functools.cached_property):
                return True
        return False

    def reads(self, holder: object, name: str) -> bool:
        """Whether a pass reads an attribute of this object: by the user's code, or by its class's, if a library's."""
        kind = holder if isinstance(holder, type) else type(holder)
        return name in self.read or (library_of_class(kind) is not None and name in _names_in(kind))

    def covers_member(self, kind: type, name: str) -> bool:
        """Whether a pass writes the attribute ``name`` of this class, also through an instance of it."""
        tables = (*self.own.items(), *self.grown_own.items())
        related = (names for other, names in tables if issubclass(other, kind) or issubclass(kind, other))
        return name in self.anywhere or name in self.grown_anywhere or any(name in names for names in related)


@functools.lru_cache(maxsize=1024)
def _names_in(kind: type) -> frozenset[str]:
    """The names that the methods of a library's class mention."""
    methods = (item for base in kind.__mro__ if base not in (object, nn.Module) for item in vars(base).values())
    return frozenset(
        name for item in methods if isinstance(item, types.FunctionType) for name in names_of(item.__code__)
    )
