"""Digests of what passes were seen to write: the first ones count, as long as nobody else has written there since."""

from __future__ import annotations

import weakref
from typing import Any, Generic, TypeVar

Key = TypeVar("Key")


class Digests(dict[Key, bytes], Generic[Key]):
    """The digest of each thing as it was first seen, and as a pass last left it."""

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[Key, bytes] = {}
        self.filled: set[Key] = set()
        """What held entries when it was first seen, of which nobody can say who put them there."""

    def counts(self, key: Key, digest: bytes) -> tuple[bytes, bool]:
        """The digest that counts for what now has ``digest``, and whether that is known to be the work of passes."""
        first = self.get(key, digest)
        return first, digest in (first, self._last.get(key))

    def keep_changed(self, before: dict[Key, bytes], after: dict[Key, bytes]) -> None:
        """Keep the digests from before of all that has another one, or none, after a pass."""
        for key in before.keys() | after.keys():
            if before.get(key) != after.get(key):
                self.setdefault(key, before.get(key, b""))
                self._last[key] = after.get(key, b"")


class FirstDigests:
    """Digests by holder and attribute, and by the module and name of a global variable."""

    def __init__(self) -> None:
        self._held: dict[int, tuple[weakref.ref[Any], Digests[str]]] = {}
        self.variables: Digests[tuple[str, str]] = Digests()

    def of_holder(self, holder: object) -> Digests[str]:
        """The digests of the attributes of a module, a class or any other object, as long as it lives."""
        number = id(holder)
        reference, known = self._held.get(number, (None, None))
        if reference is not None and known is not None and reference() is holder:
            return known
        try:
            reference = weakref.ref(holder, lambda _: self._held.pop(number, None))
        except TypeError:  # Some classes know no references: of their instances nothing is kept.
            return Digests()
        known = Digests[str]()
        self._held[number] = (reference, known)
        return known

    def knows(self, holder: object) -> bool:
        """Whether `of_holder` was asked of this very object before."""
        reference, _ = self._held.get(id(holder), (None, None))
        return reference is not None and reference() is holder

    def keep_changed(self, before: FirstDigests, after: FirstDigests) -> None:
        """Keep the digests from before of everything that has another one, or none, after a pass."""
        for reference, digests in list(before._held.values()):
            holder = reference()
            if holder is not None:
                self.of_holder(holder).keep_changed(digests, after.of_holder(holder))
        # A variable that is no longer mentioned was not written by a pass.
        self.variables.keep_changed(before.variables, {**before.variables, **after.variables})
