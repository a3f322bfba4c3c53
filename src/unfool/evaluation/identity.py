# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportUnknownLambdaType=false, reportPrivateUsage=false
"""Which system was attacked, and which was evaluated: a hash of all of it, from normalisation to defense."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from weakref import WeakKeyDictionary

from torch import nn

from unfool.attacks.inputs import check_model
from unfool.core.errors import UnfoolWarning
from unfool.evaluation.provenance.fingerprint import Fingerprint, writes_of
from unfool.evaluation.provenance.first_digests import FirstDigests
from unfool.evaluation.provenance.own_network import architecture_of, network_pieces
from unfool.evaluation.provenance.python_code import changes_of_torch
from unfool.evaluation.results.rows import SCORES_MARK, UNVERIFIED_MARK
from unfool.models.outside.black_box import is_black_box

_FIRST_DIGESTS = FirstDigests()
_HELD: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


def identity(system: nn.Module) -> str:
    """Name a system by a hash of everything that decides its outputs, so that results say what they are about.

    Hashed are, part by part: class, every parameter and buffer (name, dtype, shape, bits), hooks, and the settings: a
    Network's architecture, any other module's own attributes, private ones included, so that a defense's number of
    steps counts. The user's own code counts by its content: methods, nested functions, what they close over, the
    global variables and helper modules that they mention or import. A library's code counts by its name and version,
    and by the functions that were put into it. Device, memory order and mode are not hashed, and neither is what a pass
    through the system only writes: counters, lists of feature maps, caches. What it reads again, such as a scale that
    is set at the first pass, counts as it was when the system was first asked for its identity. Of a source of random
    draws its seed counts, and not what was drawn. The faster copy that attacks search on has no part in it: results
    carry the identity of the system that confirmed them.

    Args:
        system: The whole evaluated system, from normalisation to defense.

    Returns:
        Sixteen hex digits, equal for two systems only if they compute the same function from the same numbers. A
        question mark follows where that cannot be told: the system holds something that cannot be read, such as a
        generator or a handle of a C library, its passes read files or other programs, or what passes read was changed
        by somebody between them. Results of equal ones are then named unverified. A tilde follows where it is a black
        box, whose results are named score-based.

    Example:
        >>> from unfool import identity
        >>> model = torch.nn.Linear(2, 2)
        >>> identity(model) == identity(model.eval())
        True
        >>> before = identity(model)
        >>> _ = model.bias.data.add_(1e-3)
        >>> identity(model) == before
        False
    """
    check_model(system)
    held = _HELD.get(system)
    if held is not None:
        return held
    return _name(system)[0]


@contextmanager
def one_identity(system: nn.Module) -> Generator[str, None, None]:
    """The identity of a system, taken now and answered by `identity` until the block ends.

    What the passes of the block change on the system is known from then on as written by passes. Warns, once a
    system, of what cannot be read.
    """
    if system in _HELD:
        yield _HELD[system]
        return
    name, before = _name(system)
    if before is not None and before.unreadable:
        first, more = before.unreadable[0], len(before.unreadable) - 1
        warnings.warn(
            f"{first}{f' (and {more} more)' if more else ''}, which cannot be told from another; "
            "results of this model are named unverified",
            UnfoolWarning,
            stacklevel=3,
        )
    _HELD[system] = name
    try:
        yield name
    finally:
        del _HELD[system]
        if before is not None:
            after = Fingerprint(before.writes, _FIRST_DIGESTS, before.tensors)
            after.of_system(system)
            _FIRST_DIGESTS.keep_changed(before.seen, after.seen)


def _name(system: nn.Module) -> tuple[str, Fingerprint | None]:
    """The identity, and what it was made from; None for a network of unfool's own, whose passes write nothing."""
    architecture = architecture_of(system)
    if architecture is not None and not changes_of_torch():
        digest = hashlib.blake2b(digest_size=8)
        for piece in network_pieces("", system, architecture):
            digest.update(piece)
        return digest.hexdigest(), None
    fingerprint = Fingerprint(writes_of(system), _FIRST_DIGESTS)
    text = fingerprint.of_system(system).hex()[:16]
    mark = UNVERIFIED_MARK if fingerprint.unreadable else SCORES_MARK if is_black_box(system) else ""
    return text + mark, fingerprint
