"""Measurements of weights that were replaced: they say nothing of the weights that took their place."""

from __future__ import annotations

from collections.abc import Mapping

from unfool.core.borders.json_text import read_object
from unfool.core.files import write_json
from unfool.core.parallel.graph import files_of
from unfool.studies.framework.networks import NetworkSpec, identity_of
from unfool.studies.framework.pieces import with_needs
from unfool.studies.framework.workspace import Piece, Workspace

_IDENTITIES = "identities"
"""The folder that says which weights were measured."""
_OWN_CHECKS = ("models", "sets", "results", _IDENTITIES)
"""Folders without measurements, or whose files say themselves which network they are of."""


def forget_stale(pieces: Mapping[str, Piece], work: Workspace) -> bool:
    """Note which weights are there; remove what was measured of others in their place, and say whether there are any.

    Weights that were trained again with the same bits are the same network.
    """
    networks = (each for each in pieces.values() if isinstance(each, NetworkSpec) and each.trained)
    stale = {network.path for network in networks if network.exists(work) and _replaced(network, work)}
    every = frozenset(pieces)
    for path, piece in pieces.items():
        if isinstance(piece, NetworkSpec) or stale.isdisjoint(with_needs([piece])):
            continue
        for file in files_of(work.out, [path], every):
            if file.relative_to(work.out).parts[0] not in _OWN_CHECKS:
                file.unlink(missing_ok=True)
    return bool(stale)


def _replaced(network: NetworkSpec, work: Workspace) -> bool:
    """Whether the weights are others than were noted; they are noted from now on."""
    file, own = work.file(_IDENTITIES, network.path), {"identity": identity_of(network, work)}
    known = read_object(file, "delete it, it is made again") if file.is_file() else None
    if known != own:
        write_json(file, own)
    return known not in (None, own)
