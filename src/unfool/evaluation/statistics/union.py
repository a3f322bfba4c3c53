"""Several threat models at once: an image is robust only if it stands under each of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from unfool.core.config import configured
from unfool.core.errors import DataError, SpecError
from unfool.core.threat import ThreatModel
from unfool.evaluation.records import Records
from unfool.evaluation.statistics.comparison import worst_case

UNION = "union"
"""What rows and records of the union call their attack."""


@configured
class ThreatUnion:
    """Threat models of different norms, in each of which an attacker may choose.

    Args:
        threats: Two or more threat models, one of a norm.

    Raises:
        SpecError: Fewer than two, or two of one norm, of which the larger holds the smaller.

    Example:
        >>> from unfool import ThreatUnion
        >>> union = ThreatUnion.parse("linf:8/255,l2:0.5,l1:12")
        >>> str(union), len(union.threats)
        ('linf:8/255+l2:0.5+l1:12', 3)
    """

    threats: tuple[ThreatModel, ...]

    def __post_init__(self) -> None:
        norms = [threat.norm_name for threat in self.threats]
        if len(norms) < 2:
            raise SpecError(f"a union of {len(norms)} threat models is none; give two or more, linf:8/255,l2:0.5,l1:12")
        twice = next((norm for norm in norms if norms.count(norm) > 1), None)
        if twice is not None:
            raise SpecError(f"a union has two threat models in {twice}, and the larger holds the smaller; give one")

    def __str__(self) -> str:
        return "+".join(map(str, self.threats))

    @classmethod
    def parse(cls, text: str) -> ThreatUnion:
        """Read ``linf:8/255,l2:0.5,l1:12``; ``+`` may stand for the comma. Raises SpecError."""
        return cls(threats=tuple(ThreatModel.parse(part) for part in text.replace("+", ",").split(",")))


def union_of(records: Sequence[Records], union: ThreatUnion, *, right: Sequence[bool] | None = None) -> Records:
    """Union accuracy: one system's records under attack in several threat models, an image right only if it always is.

    The union is to threat models what the worst case is to attacks: the loss is the highest, costs are summed, an image
    counts as fooled in the first threat model in which it fell if it was ``right`` without an attack, and protocol and
    identity are those of a worst case.
    Distances are shares of each threat model's eps, as lengths in different norms cannot be compared. Raises DataError
    as `worst_case` does, for a threat model of the union without records, and for records of any other.
    """
    missing = [str(threat) for threat in union.threats if not any(_is_of(each, threat) for each in records)]
    if missing:
        raise DataError(f"the union {union} has no records at {', '.join(missing)}; attack in each threat model")
    others = [each.threat for each in records if not any(_is_of(each, threat) for threat in union.threats)]
    if others:
        raise DataError(
            f"records at {others[0]} are outside the union {union}; leave them out, or name it in the union"
        )
    whole = worst_case([_within_union(each, str(union)) for each in records], attack=UNION, right=right)
    attacks = [
        {**listed, "attack": each.attack, "threat": each.threat}
        for listed, each in zip(whole.settings["attacks"], records, strict=True)
    ]
    return dataclasses.replace(whole, settings={"attacks": attacks})


def _is_of(records: Records, threat: ThreatModel) -> bool:
    return ThreatModel.parse(records.threat) == threat


def _within_union(records: Records, text: str) -> Records:
    """Records whose threat model is the union, and whose attack is called by the threat model that they are of."""
    eps = ThreatModel.parse(records.threat).eps
    return dataclasses.replace(
        records,
        attack=records.threat,
        threat=text,
        distances=(np.array(records.distances) / eps if eps else np.zeros(records.count)).tolist(),
    )
