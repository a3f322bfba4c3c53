"""Training: a sequence of stages, each some weighted tasks on a shared network; killed and resumed, bit for bit."""

from unfool.training.config import RunConfig, read_config
from unfool.training.folder import TrainedRun, open_run
from unfool.training.probing.probe import probe
from unfool.training.probing.result import ProbeResult, StageClassifier, StageProbe
from unfool.training.probing.settings import ProbeSettings
from unfool.training.regimes import in_regime
from unfool.training.run import train
from unfool.training.selection.held_out import cut_held_out
from unfool.training.stage_config import StageConfig, TaskConfig
from unfool.training.sweeping.result import SweepResult
from unfool.training.sweeping.sweep import sweep
from unfool.training.trackers.tracker import Tracker

__all__ = [
    "ProbeResult",
    "ProbeSettings",
    "RunConfig",
    "StageClassifier",
    "StageConfig",
    "StageProbe",
    "SweepResult",
    "TaskConfig",
    "Tracker",
    "TrainedRun",
    "cut_held_out",
    "in_regime",
    "open_run",
    "probe",
    "read_config",
    "sweep",
    "train",
]
