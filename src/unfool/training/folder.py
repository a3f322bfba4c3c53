"""A run's folder: whose it is, and what a finished one holds.

``config.yaml``, ``metrics.csv``, ``checkpoint/`` while it runs and ``weights.safetensors`` when done.
"""

from __future__ import annotations

import dataclasses
import difflib
import hashlib
from dataclasses import dataclass
from pathlib import Path

from unfool.core.borders.reading import is_file
from unfool.core.errors import DataError, OutputError, WeightsError
from unfool.core.files import write_text
from unfool.core.spec import unknown
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.models.foreign import ForeignClassifier
from unfool.models.foreign_network import load_foreign
from unfool.models.header import read_header
from unfool.models.network import Network
from unfool.models.weights import load_network
from unfool.models.zoo.catalog import WEIGHTS
from unfool.models.zoo.located import run_folder
from unfool.tasks import Task, make_task
from unfool.training.config import CONFIG, RunConfig, read_config

METRICS, CHECKPOINT = "metrics.csv", "checkpoint"
_HOLDERS = {CONFIG: "a run", "study.json": "a study", "sweep.json": "a sweep"}
"""What a folder with such a file holds."""
OWN_WEIGHTS = "model.safetensors"
"""The weights of a classifier of another library, under its own names; beside the run's own ``weights.safetensors``."""


@dataclass(frozen=True, kw_only=True)
class TrainedRun:
    """A finished run.

    Args:
        folder: Where it lies.
        config: What was trained, and how.
        network: The trained network, on the CPU and in eval mode.
        cpu_seconds: CPU time of training, of all processes together.
        model_images: Images that went through the network, perturbations included.

    Example:
        >>> stage = StageConfig(tasks={"rotation": TaskConfig(task="rotation")}, steps=1, batch_size=8)
        >>> config = RunConfig(data="noise", stages=(stage,), trunk="convnet:widths=4-8-8")
        >>> train(config, (torch.rand(8, 3, 16, 16), None), "noise-run")
        TrainedRun(noise-run: convnet, rotation on noise, 32 model images)
    """

    folder: Path
    config: RunConfig
    network: Network
    cpu_seconds: float
    model_images: int

    def __repr__(self) -> str:
        stages = ", then ".join(" + ".join(stage.tasks) for stage in self.config.stages)
        trunk, images = self.config.model or self.network.trunk.spec.name, self.model_images
        return f"TrainedRun({self.folder}: {trunk}, {stages} on {self.config.data}, {images} model images)"

    def task(self, head: str) -> Task:
        """The task of a head as the configuration describes it, bound to the network; SpecError for an unknown head."""
        configs = {name: config for stage in self.config.stages for name, config in stage.tasks.items()}
        if head not in configs:
            raise unknown("head of the run", head, configs)
        task = make_task(configs[head].task, configs[head].settings)
        task.bind(self.network, head, {}, Streams(0))
        return task.eval()


def open_run(folder: str | Path, model: ForeignClassifier | None = None) -> TrainedRun:
    """Read a finished run.

    Args:
        folder: The folder that `train` wrote, or ``zoo:NAME``.
        model: The classifier of another library that the run trained, as `adapt` wraps it; its weights do not matter.

    Returns:
        The run, with its network on the CPU and in eval mode.

    Raises:
        DataError: No finished run there.
        WeightsError: Weights that cannot be trusted, or that are not the configuration's.

    Example:
        >>> stage = StageConfig(tasks={"labels": TaskConfig(task="labels")}, steps=1, batch_size=8)
        >>> config = RunConfig(data="noise", stages=(stage,), trunk="convnet:widths=4-8-8", seed=3)
        >>> _ = train(config, (torch.rand(8, 3, 16, 16), [0, 1] * 4), "noise-run")
        >>> open_run("noise-run").config.seed
        3
    """
    folder = run_folder(folder)
    weights = folder / WEIGHTS
    if not is_file(weights):
        state = "is not finished: resume it with unfool train" if is_file(folder / CONFIG) else "holds no run"
        raise DataError(f"{folder} {state}; give the folder of a finished run (it has a {WEIGHTS})")
    metadata = read_header(weights).metadata
    seconds, count = metadata.get("cpu_seconds", 0.0), metadata.get("model_images", 0)
    if not isinstance(seconds, (int, float)) or not isinstance(count, int):
        raise WeightsError(f"{weights} has a cost that is no number ({seconds!r}, {count!r}); train the run again")
    config = read_config(folder / CONFIG)
    if config.model is not None and model is not None:
        network: Network = load_foreign(model, weights)
    else:
        network = load_network(weights)
    theirs, ours = network.trunk.spec, config.trunk
    if config.model is None and theirs != ours:
        raise WeightsError(
            f"{weights} holds another architecture ({theirs}) than {CONFIG} beside it ({ours}); "
            "put the run's own weights back"
        )
    return TrainedRun(
        folder=folder,
        config=config,
        network=network,
        cpu_seconds=float(seconds),
        model_images=count,
    )


def check_free(folder: Path, what: str, own: str = "") -> None:
    """OutputError for a folder that holds a run, a study or a sweep, where ``what`` is to be stored; the file named
    ``own`` says that it is the caller's."""
    for file, holder in _HOLDERS.items():
        if file != own and is_file(folder / file):
            raise OutputError(f"{folder} holds {holder}; choose another folder for {what}")


def claim_folder(folder: Path, config: RunConfig) -> None:
    """Write the configuration; OutputError, showing the difference, if another one is there.

    The weights that a run starts from are known by their identity: where they lie may change.
    """
    path, text = folder / CONFIG, config.to_yaml()
    if not is_file(path):
        write_text(path, text)
        return
    theirs = read_config(path)
    if theirs.start_identity is not None and theirs.start_identity == config.start_identity:
        theirs = dataclasses.replace(theirs, start=config.start)
    before = theirs.to_yaml()
    if before != text:
        lines = difflib.unified_diff(before.splitlines(), text.splitlines(), lineterm="", n=0)
        changed = [line for line in lines if line[0] in "+-" and not line.startswith(("+++", "---"))]
        raise OutputError(
            f"{folder} belongs to another configuration ({'; '.join(' '.join(line.split()) for line in changed)}); "
            "choose another folder or delete this one"
        )


def table_fingerprint(table: Table) -> str:
    """What a run was trained on, in a few digits: the set's name, split and size, which of its images, which labels,
    and after a dash the pixels."""
    digest = hashlib.blake2b(digest_size=8)
    digest.update(repr((table.name, table.split, table.shape, sorted(table.columns))).encode())
    for values in (table.ids, *(table.columns[name] for name in sorted(table.columns))):
        digest.update(values.contiguous().numpy().tobytes())
    return f"{digest.hexdigest()}-{table.pixel_digest[:16]}"


def check_table(where: Path, stored: object, fingerprint: str) -> None:
    """OutputError if a checkpoint or finished run stores the fingerprint of other images or labels than these.

    One that was stored before pixels were part of it has no dash, and tells of all but those.
    """
    known = fingerprint if "-" in str(stored) else fingerprint.partition("-")[0]
    if stored not in (None, known):
        raise OutputError(
            f"{where} was trained on other images or labels (fingerprint {stored}, these have {fingerprint}); "
            "choose another folder or delete this one"
        )
