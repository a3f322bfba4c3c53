"""unfool: hard-to-fool image classifiers, and un-fooled inputs, through self-supervision.

The names below are the library's front door; each is imported when it is first used, so that ``import unfool`` is free.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unfool.attacks import Attack, ProxySettings, make_attack
    from unfool.core.batch import Batch
    from unfool.core.errors import UnfoolError, UnfoolWarning
    from unfool.core.streams import Streams
    from unfool.core.threat import ThreatModel
    from unfool.data.catalog import open_table
    from unfool.data.table import ImageTable
    from unfool.defenses import Defense, make_defense
    from unfool.evaluation import AdversarialSet, Records, craft, identity, judge, load_set, save_set
    from unfool.evaluation.adaptive.audit import audit
    from unfool.evaluation.adaptive.ladder import Ladder, ladder
    from unfool.evaluation.evaluate import evaluate
    from unfool.evaluation.evaluation import Evaluation
    from unfool.models.foreign import adapt
    from unfool.models.network import Network
    from unfool.models.trunks import TrunkSpec
    from unfool.models.weights import load_network, save_network
    from unfool.studies import run_study
    from unfool.tasks import make_task
    from unfool.training import ProbeSettings, RunConfig, StageConfig, TaskConfig, TrainedRun, open_run, probe, train

__all__ = [
    "AdversarialSet",
    "Attack",
    "Batch",
    "Defense",
    "Evaluation",
    "ImageTable",
    "Ladder",
    "Network",
    "ProbeSettings",
    "ProxySettings",
    "Records",
    "RunConfig",
    "StageConfig",
    "Streams",
    "TaskConfig",
    "ThreatModel",
    "TrainedRun",
    "TrunkSpec",
    "UnfoolError",
    "UnfoolWarning",
    "adapt",
    "audit",
    "craft",
    "evaluate",
    "identity",
    "judge",
    "ladder",
    "load_network",
    "load_set",
    "make_attack",
    "make_defense",
    "make_task",
    "open_run",
    "open_table",
    "probe",
    "run_study",
    "save_network",
    "save_set",
    "train",
]

_ROOMS = {
    "unfool.attacks": ("Attack", "ProxySettings", "make_attack"),
    "unfool.core.batch": ("Batch",),
    "unfool.core.errors": ("UnfoolError", "UnfoolWarning"),
    "unfool.core.streams": ("Streams",),
    "unfool.core.threat": ("ThreatModel",),
    "unfool.data.catalog": ("open_table",),
    "unfool.data.table": ("ImageTable",),
    "unfool.evaluation": ("AdversarialSet", "Records", "craft", "identity", "judge", "load_set", "save_set"),
    "unfool.defenses": ("Defense", "make_defense"),
    "unfool.evaluation.adaptive.audit": ("audit",),
    "unfool.evaluation.evaluate": ("evaluate",),
    "unfool.evaluation.adaptive.ladder": ("Ladder", "ladder"),
    "unfool.evaluation.evaluation": ("Evaluation",),
    "unfool.models.foreign": ("adapt",),
    "unfool.models.network": ("Network",),
    "unfool.models.trunks": ("TrunkSpec",),
    "unfool.models.weights": ("load_network", "save_network"),
    "unfool.studies": ("run_study",),
    "unfool.tasks": ("make_task",),
    "unfool.training": (
        "ProbeSettings",
        "RunConfig",
        "StageConfig",
        "TaskConfig",
        "TrainedRun",
        "open_run",
        "probe",
        "train",
    ),
}
_HOMES = {name: room for room, names in _ROOMS.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'unfool' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
