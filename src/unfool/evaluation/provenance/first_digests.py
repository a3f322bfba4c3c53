"""Digests of what passes were seen to write: the first ones count, whatever later passes write there."""

from __future__ import annotations

from weakref import WeakKeyDictionary

from torch import nn


class FirstDigests:
    """Digests by module and attribute, and by the module and name of a global variable."""

    def __init__(self) -> None:
        self._modules: WeakKeyDictionary[nn.Module, dict[str, bytes]] = WeakKeyDictionary()
        self.variables: dict[tuple[str, str], bytes] = {}

    def of_module(self, module: nn.Module) -> dict[str, bytes]:
        """The digests of one module's attributes."""
        return self._modules.setdefault(module, {})

    def keep_changed(self, before: FirstDigests, after: FirstDigests) -> None:
        """Keep the digests from before of everything that has another one, or none, after a pass."""
        for module, digests in before._modules.items():
            later, own = after.of_module(module), self.of_module(module)
            for name in digests.keys() | later.keys():
                if digests.get(name) != later.get(name):
                    own.setdefault(name, digests.get(name, b""))
        for key, digest in before.variables.items():
            if after.variables.get(key) != digest:
                self.variables.setdefault(key, digest)
