"""unfool: hard-to-fool image classifiers, and un-fooled inputs, through self-supervision.

The names below are the library's front door; each is imported when it is first used, so that ``import unfool`` is free.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # what editors and type checkers see; a test keeps it equal to the names below
    from unfool import attacks as attacks
    from unfool import data as data
    from unfool import defenses as defenses
    from unfool import evaluation as evaluation
    from unfool import models as models
    from unfool import studies as studies
    from unfool import tasks as tasks
    from unfool import training as training
    from unfool.attacks import Attack as Attack
    from unfool.attacks import ProxySettings as ProxySettings
    from unfool.attacks import make_attack as make_attack
    from unfool.core.batch import Batch as Batch
    from unfool.core.errors import UnfoolError as UnfoolError
    from unfool.core.errors import UnfoolWarning as UnfoolWarning
    from unfool.core.plugins import load_plugin as load_plugin
    from unfool.core.streams import Streams as Streams
    from unfool.core.threat import L0 as L0
    from unfool.core.threat import L1 as L1
    from unfool.core.threat import L2 as L2
    from unfool.core.threat import Linf as Linf
    from unfool.core.threat import ThreatModel as ThreatModel
    from unfool.data.as_table import as_table as as_table
    from unfool.data.catalog import open_table as open_table
    from unfool.data.table import Table as Table
    from unfool.defenses import Defense as Defense
    from unfool.defenses import make_defense as make_defense
    from unfool.evaluation import AdversarialSet as AdversarialSet
    from unfool.evaluation import Records as Records
    from unfool.evaluation import classify as classify
    from unfool.evaluation import craft as craft
    from unfool.evaluation import identity as identity
    from unfool.evaluation import load_set as load_set
    from unfool.evaluation import save_set as save_set
    from unfool.evaluation.adaptive.audit import audit as audit
    from unfool.evaluation.adaptive.audit_result import AuditResult as AuditResult
    from unfool.evaluation.adaptive.ladder import ladder as ladder
    from unfool.evaluation.adaptive.ladder_result import LadderResult as LadderResult
    from unfool.evaluation.adaptive.settings import AuditSettings as AuditSettings
    from unfool.evaluation.adaptive.settings import LadderSettings as LadderSettings
    from unfool.evaluation.cards.verification import VerificationSettings as VerificationSettings
    from unfool.evaluation.cards.verifying import verify as verify
    from unfool.evaluation.compare import compare as compare
    from unfool.evaluation.curves import CurvePoints as CurvePoints
    from unfool.evaluation.evaluate import evaluate as evaluate
    from unfool.evaluation.evaluation import Evaluation as Evaluation
    from unfool.evaluation.hardening import HardenSettings as HardenSettings
    from unfool.evaluation.hardening import harden as harden
    from unfool.evaluation.minimum_norms import Distances as Distances
    from unfool.evaluation.minimum_norms import minimum_norms as minimum_norms
    from unfool.evaluation.results.study_result import StudyResult as StudyResult
    from unfool.evaluation.settings import EvaluationSettings as EvaluationSettings
    from unfool.evaluation.statistics.sequential import AccuracyClaim as AccuracyClaim
    from unfool.evaluation.statistics.union import ThreatUnion as ThreatUnion
    from unfool.models import zoo as zoo
    from unfool.models.foreign import adapt as adapt
    from unfool.models.network import Network as Network
    from unfool.models.trunks import TrunkSpec as TrunkSpec
    from unfool.models.weights import load_network as load_network
    from unfool.models.weights import save_network as save_network
    from unfool.studies import run_study as run_study
    from unfool.tasks import make_task as make_task
    from unfool.training import ProbeSettings as ProbeSettings
    from unfool.training import RunConfig as RunConfig
    from unfool.training import StageConfig as StageConfig
    from unfool.training import SweepResult as SweepResult
    from unfool.training import TaskConfig as TaskConfig
    from unfool.training import Tracker as Tracker
    from unfool.training import TrainedRun as TrainedRun
    from unfool.training import open_run as open_run
    from unfool.training import probe as probe
    from unfool.training import sweep as sweep
    from unfool.training import train as train

    __version__: str

_ROOMS = ("attacks", "data", "defenses", "evaluation", "models", "studies", "tasks", "training")
_NAMES = {
    "unfool.attacks": ("Attack", "ProxySettings", "make_attack"),
    "unfool.core.batch": ("Batch",),
    "unfool.core.errors": ("UnfoolError", "UnfoolWarning"),
    "unfool.core.plugins": ("load_plugin",),
    "unfool.core.streams": ("Streams",),
    "unfool.core.threat": ("L0", "L1", "L2", "Linf", "ThreatModel"),
    "unfool.data.as_table": ("as_table",),
    "unfool.data.catalog": ("open_table",),
    "unfool.data.table": ("Table",),
    "unfool.defenses": ("Defense", "make_defense"),
    "unfool.evaluation": ("AdversarialSet", "Records", "classify", "craft", "identity", "load_set", "save_set"),
    "unfool.evaluation.adaptive.audit": ("audit",),
    "unfool.evaluation.adaptive.audit_result": ("AuditResult",),
    "unfool.evaluation.adaptive.ladder": ("ladder",),
    "unfool.evaluation.adaptive.ladder_result": ("LadderResult",),
    "unfool.evaluation.adaptive.settings": ("AuditSettings", "LadderSettings"),
    "unfool.evaluation.cards.verification": ("VerificationSettings",),
    "unfool.evaluation.cards.verifying": ("verify",),
    "unfool.evaluation.compare": ("compare",),
    "unfool.evaluation.curves": ("CurvePoints",),
    "unfool.evaluation.evaluate": ("evaluate",),
    "unfool.evaluation.evaluation": ("Evaluation",),
    "unfool.evaluation.hardening": ("HardenSettings", "harden"),
    "unfool.evaluation.minimum_norms": ("Distances", "minimum_norms"),
    "unfool.evaluation.results.study_result": ("StudyResult",),
    "unfool.evaluation.settings": ("EvaluationSettings",),
    "unfool.evaluation.statistics.sequential": ("AccuracyClaim",),
    "unfool.evaluation.statistics.union": ("ThreatUnion",),
    "unfool.models": ("zoo",),
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
        "SweepResult",
        "TaskConfig",
        "Tracker",
        "TrainedRun",
        "open_run",
        "probe",
        "sweep",
        "train",
    ),
}
_HOMES = {name: module for module, names in _NAMES.items() for name in names}
_FORMER_NAMES = {"judge": "classify"}  # read for one more release, with a warning

__all__ = ["__version__", *_ROOMS, *_HOMES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return importlib.import_module("importlib.metadata").version("unfool")
    if name in _ROOMS:
        return importlib.import_module(f"unfool.{name}")
    if name in _FORMER_NAMES:
        warnings.warn(f"unfool.{name} is unfool.{_FORMER_NAMES[name]} now", DeprecationWarning, stacklevel=2)
        name = _FORMER_NAMES[name]
    if name not in _HOMES:
        # Named, so that Python offers the nearest name.
        raise AttributeError(f"module 'unfool' has no attribute {name!r}", name=name, obj=sys.modules[__name__])
    value = getattr(importlib.import_module(_HOMES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*__all__, *(name for name in globals() if name.startswith("__"))})
