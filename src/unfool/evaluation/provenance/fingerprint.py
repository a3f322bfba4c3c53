"""A system as a digest: every value of it once, whatever refers to it how often."""

from __future__ import annotations

import collections
import functools
import hashlib
import types
from collections.abc import Iterator, Mapping, Set
from typing import Any, TypeVar

from torch import Tensor, nn

from unfool.evaluation.provenance.first_digests import Digests, FirstDigests
from unfool.evaluation.provenance.origin import library_of_class, module_of
from unfool.evaluation.provenance.outside import outside_reads, replaced_around
from unfool.evaluation.provenance.own_network import architecture_of, network_pieces
from unfool.evaluation.provenance.parts import Parts, UnreadableError, class_name, plain_bytes, tensor_pieces
from unfool.evaluation.provenance.python_code import (
    changes_of_torch,
    imported_modules,
    mentioned_globals,
    names_of,
    replaced_functions,
)
from unfool.evaluation.provenance.values import take_apart
from unfool.evaluation.provenance.writes import written_by_passes
from unfool.evaluation.provenance.written_names import Writes
from unfool.models.network import Network

Key = TypeVar("Key", str, tuple[str, str])
_FILLED = (Mapping, Set, list, collections.deque, bytearray)
_MOST_VALUES = 1_000_000
_DEEPEST = 120


def digest_of(*pieces: bytes | memoryview) -> bytes:
    """Sixteen bytes of what the pieces hold, which must tell by themselves where they end."""
    digest = hashlib.blake2b(digest_size=16)
    for piece in pieces:
        digest.update(piece)
    return digest.digest()


class Fingerprint:
    """The digest of one system, and of each attribute of its modules.

    A value is read once: the digest of one that has parts is made of theirs, so that equal values are equal whether
    they are shared or not. What passes write is left out. ``unreadable`` names what cannot be told from another.
    """

    def __init__(self, writes: Writes, first: FirstDigests, tensors: Mapping[tuple[int, int], bytes] | None = None):
        self.writes = writes
        self.first = first
        self.tensors = dict(tensors or {})
        self.seen = FirstDigests()
        self.unreadable: list[str] = []
        self._known: dict[int, bytes] = {}
        self._alive: list[object] = []
        self._above: dict[int, int] = {}
        self._path: list[str] = []
        self._mentioned: list[tuple[str, str, Any]] = []
        self._met: set[tuple[int, str]] = set()
        self._familiar: set[int] = set()
        """Holders that an earlier fingerprint has read: what passes have added to them since was not there."""

    def of_system(self, system: nn.Module) -> bytes:
        """The digest of a system and of the global variables that its code mentions, of helper modules too."""
        pieces = [self.of(system)]
        self._mentioned += [(name, "torch", item) for name, item in changes_of_torch()]
        # Grows while it is read: what a variable holds may mention others.
        for name, module, value in self._mentioned:
            self._path = [module, name]
            first, seen, written = self.first.variables, self.seen.variables, name in self.writes.variables
            digest = self._counted(first, seen, (module, name), value, self.of(value), written)
            pieces.append(digest_of(f"{module} {name}=".encode(), digest))
        self._path = []
        return digest_of(pieces[0], *sorted(pieces[1:]))

    def of(self, value: Any) -> bytes:
        """The digest of a value."""
        plain = plain_bytes(value)
        if plain is not None:
            return digest_of(plain)
        known = self._known.get(id(value))
        if known is not None:
            return known
        if id(value) in self._above:
            return digest_of(f"up {len(self._above) - self._above[id(value)]}".encode())
        # Kept alive, so that no other value gets the same id.
        self._alive.append(value)
        if len(self._alive) > _MOST_VALUES:
            return self._cannot_tell("more values than are counted")
        if len(self._above) > _DEEPEST:
            return self._cannot_tell("nested too deeply")
        self._above[id(value)] = len(self._above)
        try:
            digest = self.compound(value)
        except UnreadableError as error:
            digest = self._cannot_tell(str(error), value)
        except Exception as error:  # The classes of a user's values may do anything when they are read.
            digest = self._cannot_tell(f"a {type(value).__name__} ({type(error).__name__})", value)
        finally:
            del self._above[id(value)]
        self._known[id(value)] = digest
        return digest

    def _cannot_tell(self, what: str, value: object = None) -> bytes:
        self.unreadable.append(f"{'.'.join(self._path[:6]) or 'the model'} is {what}")
        return digest_of(f"unreadable {class_name(value)}".encode())

    def compound(self, value: Any) -> bytes:
        """The digest of a value that has parts."""
        if isinstance(value, Tensor):
            return self._tensor(value)
        architecture = architecture_of(value) if isinstance(value, Network) else None
        if architecture is not None:
            return digest_of(*network_pieces("", value, architecture))
        if isinstance(value, types.FunctionType):
            self._mention(value)
        parts = take_apart(value)
        if parts.attributes and self.first.knows(value):
            self._familiar.add(id(value))
        digests = list(self._parts(value, parts))
        if isinstance(value, nn.Module):
            digests += self._tensors_and_children(value)
        own = digest_of(parts.own)
        return digest_of(own, *(digests if parts.ordered else sorted(digests)))

    def _mention(self, function: types.FunctionType) -> None:
        """Note the global variables of a function, to be read after the system."""
        mentioned = mentioned_globals(function)
        if function.__code__ in self.writes.run:
            mentioned += imported_modules(function) + replaced_around(function)
            for what in outside_reads(function):
                self._cannot_tell(f"code that reads {what}")
        for name, item in mentioned:
            key = (id(function.__globals__), name)
            forgotten = name in self.writes.variables and name not in self.writes.read
            if key not in self._met and not forgotten:
                self._met.add(key)
                self._mentioned.append((name, module_of(function), item))
            if isinstance(item, types.ModuleType):
                for place, other in replaced_functions(item):
                    if place.rpartition(".")[2] in names_of(function.__code__) and (0, place) not in self._met:
                        self._met.add((0, place))
                        self._mentioned.append((place, "replaced", other))

    def _tensor(self, tensor: Tensor) -> bytes:
        # A write in place raises the version.
        key = (id(tensor), -1 if tensor.is_inference() else tensor._version)
        if key not in self.tensors:
            self.tensors[key] = digest_of(class_name(tensor).encode(), *tensor_pieces(tensor))
        attributes = list(self._set_on(tensor))
        return digest_of(self.tensors[key], *attributes) if attributes else self.tensors[key]

    def _set_on(self, tensor: Tensor) -> Iterator[bytes]:
        """The digests of what somebody has set on a tensor as attributes, and of its class, where it is the user's."""
        if library_of_class(type(tensor)) is None:
            yield self._named("class", type(tensor))
        for name, item in sorted(getattr(tensor, "__dict__", {}).items()):
            if not (written := self._written(tensor, name, item)) or self.writes.reads(tensor, name):
                yield self._attribute(tensor, name, item, written)

    def _parts(self, value: Any, parts: Parts) -> Iterator[bytes]:
        for name, item in parts.parts:
            if not parts.attributes:
                yield self._named(name, item)
            elif not (written := self._written(value, name, item)) or self.writes.reads(value, name):
                yield self._attribute(value, name, item, written)

    def _attribute(self, holder: object, name: str, item: Any, written: bool) -> bytes:
        """The digest of an attribute; of one that a pass may write, which another has just added, none."""
        digest = self._named(name, item)
        if not written and not isinstance(holder, nn.Module):
            return digest
        self._path.append(name)
        try:
            first, seen = self.first.of_holder(holder), self.seen.of_holder(holder)
            if written and id(holder) in self._familiar and name not in first.filled:
                first.setdefault(name, b"")
            return self._counted(first, seen, name, item, digest, written)
        finally:
            self._path.pop()

    def _counted(
        self, first: Digests[Key], seen: Digests[Key], key: Key, item: object, digest: bytes, written: bool
    ) -> bytes:
        """The digest that counts for something that has this digest now: of what passes write, the first one.

        What a pass writes and may read again holds what passes left there, or what somebody else did.
        """
        if written and isinstance(item, _FILLED):
            if key not in first and len(item):
                first.filled.add(key)
                return self._cannot_tell("filled by passes or by somebody else")
            return first.setdefault(key, digest)
        if written:
            first.setdefault(key, digest)
        seen[key] = digest
        counted, by_passes = first.counts(key, digest)
        if not by_passes:
            self._cannot_tell("no longer what passes left there")
        return counted

    def _written(self, value: Any, name: str, item: Any) -> bool:
        if isinstance(value, types.ModuleType):
            return name in self.writes.variables
        if isinstance(value, types.FunctionType):
            return name in self.writes.variables or (name in self.writes.anywhere and name in vars(value))
        if isinstance(value, type):
            return not callable(item) and self.writes.covers_member(value, name)
        return self.writes.covers(value, name, item)

    def _named(self, name: str, item: Any) -> bytes:
        self._path.append(name)
        try:
            return digest_of(name.encode("utf-8", "replace"), b"=", self.of(item))
        finally:
            self._path.pop()

    def _tensors_and_children(self, module: nn.Module) -> list[bytes]:
        digests = [self._named(name, tensor) for name, tensor in module.named_parameters(recurse=False)]
        for name, tensor in module.named_buffers(recurse=False):
            written = self.writes.covers(module, name, tensor)
            if not written or self.writes.reads(module, name):
                digests.append(self._attribute(module, name, tensor, written))
        return digests + [self._named(name, child) for name, child in module.named_children()]


class _Finder(Fingerprint):
    """Walks a system without reading tensors, and collects the user's classes and the functions that it holds."""

    def __init__(self):
        super().__init__(Writes(), FirstDigests())
        self.classes: dict[type, None] = {}
        self.functions: dict[types.FunctionType, None] = {}

    def compound(self, value: Any) -> bytes:
        if isinstance(value, (Tensor, Network)) and (isinstance(value, Tensor) or architecture_of(value) is not None):
            return b""
        if isinstance(value, type) and library_of_class(value) is None:
            self.classes[value] = None
        return super().compound(value)

    def _parts(self, value: Any, parts: Parts) -> Iterator[bytes]:
        if not isinstance(value, (type, types.FunctionType, types.ModuleType, property, staticmethod, classmethod)):
            for _, item in parts.parts:
                while isinstance(item, (functools.partial, types.MethodType)):
                    item = item.func if isinstance(item, functools.partial) else item.__func__
                if isinstance(item, types.FunctionType):
                    self.functions[item] = None
        yield from super()._parts(value, parts)


def writes_of(system: nn.Module) -> Writes:
    """What a pass through the system writes."""
    finder = _Finder()
    finder.of_system(system)
    return written_by_passes(finder.classes, finder.functions)
