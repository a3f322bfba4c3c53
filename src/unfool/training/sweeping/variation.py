# pyright: reportUnknownVariableType=false
"""The runs of a sweep: every combination of the values of some fields, each checked and none twice."""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unfool.core.config import to_plain
from unfool.core.errors import SpecError
from unfool.core.spec import write_number
from unfool.core.threat import ThreatLike, ThreatModel
from unfool.models.trunks.settings import read_texts
from unfool.training.config import RunConfig, run_config
from unfool.training.initial_network import resolve_start
from unfool.training.sweeping.fields import fields_of, named_fields

MOST_RUNS = 1000
"""Runs of one sweep."""
SEED = "seed"

Value = bool | int | float | str | None


def value_text(value: Value) -> str:
    """A value as the command line writes it."""
    return "none" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of a sweep: its ``values`` by the names that were varied, and its ``config``.

    ``identity`` follows from the configuration, and the weights that it starts from, alone; ``folder`` is the run's
    name in the sweep's folder.
    """

    values: Mapping[str, Value]
    config: RunConfig
    identity: str

    @property
    def setting(self) -> tuple[tuple[str, Value], ...]:
        """What the run has in common with its like of other seeds."""
        return tuple((name, value) for name, value in self.values.items() if name != SEED)

    @property
    def folder(self) -> str:
        """The values in words, which may be cut, and the identity."""
        words = "-".join(f"{name.rpartition('.')[2]}-{value_text(value)}" for name, value in self.values.items())
        return f"{re.sub(r'[^A-Za-z0-9.]+', '-', words).strip('-.')[:60].rstrip('-.')}-{self.identity}"


def plan_runs(config: RunConfig, vary: Mapping[str, Iterable[object]]) -> list[PlannedRun]:
    """Every combination of the values, the last field's values first; of two equal configurations the first.

    Raises SpecError for a field that there is not, or that does nothing in any run, a value that it does not take, and
    more than `MOST_RUNS` runs.
    """
    listed = {name: list(values) for name, values in vary.items()}
    fields = {name: named_fields(name, config) for name in listed}
    _check(listed, fields)
    # What is part of another field comes after it: trunk, then trunk.width.
    order = sorted(listed, key=lambda name: fields[name][0].count("."))
    resolved: dict[object, RunConfig] = {}
    runs: dict[str, PlannedRun] = {}
    for combination in itertools.product(*listed.values()):
        by_name = dict(zip(listed, combination, strict=True))
        chosen = _with_values(config, {field: by_name[name] for name in order for field in fields[name]}, by_name)
        key = (chosen.start, chosen.start_identity, chosen.trunk, chosen.normalisation)
        whole = resolved.setdefault(key, chosen if chosen.start is None else resolve_start(chosen))
        chosen = dataclasses.replace(
            chosen, start_identity=whole.start_identity, trunk=whole.trunk, normalisation=whole.normalisation
        )
        own = fields_of(chosen)
        values = {name: _shown(own.get(fields[name][0]), by_name[name]) for name in listed}
        run = PlannedRun(values=values, config=chosen, identity=_identity(chosen))
        runs.setdefault(run.identity, run)
    for name in listed:
        reasons = [_idle(field, run.config) for run in runs.values() for field in fields[name]]
        if all(reasons):
            raise SpecError(f"{name} does nothing {reasons[0]}")
    return list(runs.values())


def _idle(field: str, config: RunConfig) -> str | None:
    """Why a field does nothing in a run; None for one that does something."""
    words = field.split(".")
    return config.stages[int(words[1])].idle(words[2]) if words[0] == "stages" and len(words) == 3 else None


def _check(listed: Mapping[str, Sequence[object]], fields: Mapping[str, Sequence[str]]) -> None:
    if not listed:
        raise SpecError("nothing is varied; name a field with its values, such as learning_rate=0.05,0.1")
    for name, values in listed.items():
        if not values:
            raise SpecError(f"{name} has no values; give at least one, such as {name}=1,2")
    owners: dict[str, str] = {}
    for name, own in fields.items():
        for field in own:
            if field in owners:
                raise SpecError(f"{owners[field]} and {name} are the same field, {field}; give its values once")
            owners[field] = name
    count = math.prod(map(len, listed.values()))
    if count > MOST_RUNS:
        raise SpecError(f"{count:,} runs are too many, at most {MOST_RUNS:,} are allowed; give fewer values")


def _with_values(config: RunConfig, values: Mapping[str, object], by_name: Mapping[str, object]) -> RunConfig:
    """The configuration with other values of some fields; SpecError for one that is not allowed."""
    plain: dict[str, Any] = copy.deepcopy(to_plain(config))
    if "start" in values:
        plain["start_identity"] = None
    for field, value in values.items():
        *above, last = field.split(".")
        here: Any = plain
        for step in above:
            here = here[int(step)] if isinstance(here, list) else here[step]
        if not isinstance(here, dict):
            raise SpecError(f"{field} has no place in {here!r}; vary one of the two")
        # A trunk's settings know numbers from texts by themselves, and a sweep is often written as text.
        here[last] = read_texts({last: value})[last] if above == ["trunk"] and isinstance(value, str) else value
    words = ", ".join(f"{name}={value}" for name, value in by_name.items())
    chosen = run_config(plain, f"the run of {words}")
    # linf:16/510 is linf:8/255: a run is known by what it is, not by how it is written.
    stages = (dataclasses.replace(stage, threat=_written_alike(stage.threat)) for stage in chosen.stages)
    return dataclasses.replace(chosen, stages=tuple(stages))


def _written_alike(threat: ThreatLike) -> ThreatModel:
    """A threat model in the one form in which all equal ones are written."""
    known = threat if isinstance(threat, ThreatModel) else ThreatModel.parse(threat)
    return dataclasses.replace(known, text=f"{known.norm_name}:{write_number(known.eps)}")


def _shown(own: object, written: object) -> Value:
    """A value as results name it: as the configuration holds it, or as it was written where that is a mapping."""
    value = written if isinstance(own, (dict, list, tuple)) or own is None else own
    return value if value is None or isinstance(value, (bool, int, float, str)) else str(value)


def _identity(config: RunConfig) -> str:
    plain: dict[str, Any] = to_plain(config)
    if plain["start_identity"] is not None:
        del plain["start"]  # known by its weights, wherever they lie
    return hashlib.blake2b(json.dumps(plain, sort_keys=True).encode(), digest_size=6).hexdigest()
