"""``unfool probe``: how much each stage of a run's trunk knows about the classes."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from unfool.cli.options.from_settings import explicit, options_from
from unfool.cli.options.shared import Crop, Data, DataDir, Device, Image, Json, Size

if TYPE_CHECKING:
    from unfool.data.table import Table
    from unfool.evaluation.results.study_result import StudyResult
    from unfool.models.network import Network
    from unfool.training import RunConfig

PROBE = "unfool.training.probing.settings:ProbeSettings"
_NEIGHBOURS = 20


@dataclass(frozen=True, kw_only=True)
class DataOptions:
    """The images that the probes are trained and tested on."""

    data: Data = None
    column: Annotated[
        str | None,
        tyro.conf.arg(metavar="COLUMN", aliases=["--label"], help_behavior_hint="(default: the set's primary column)"),
    ] = None
    """Label column that the probes predict."""
    fraction: Annotated[float, tyro.conf.arg(metavar="SHARE")] = 1.0
    """Share of the training labels to learn from, such as 0.1."""
    size: Size = None
    crop: Crop = None
    image: Image = None
    data_dir: DataDir = None


@options_from(PROBE, without=("neighbours",))
class ProbeOptions:
    """How the linear probes are trained."""

    knn: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Also let the 20 nearest training images vote, by cosine."""


@dataclass(frozen=True, kw_only=True)
class ProbeCommand:
    """Train a linear classifier on each stage of a run's frozen trunk, and show its accuracies.

    All stages are probed from one pass over the images. The defaults are those of the noisy-rotation source. The
    results go to results/probe.json in the run's folder, with the curves of every stage; `unfool report` draws them.
    """

    run_folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="RUN")]
    """A finished run's folder."""
    stages: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ..", help_behavior_hint="(default: all)")] = ()
    """Stages of the trunk, such as pool1 pool5."""
    random: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Probe the same trunk with random weights, as a control (results/probe-random.json)."""
    device: Device = "auto"
    json: Json = False
    data: DataOptions = field(default_factory=DataOptions)
    probe: ProbeOptions = field(default_factory=ProbeOptions)

    examples: ClassVar[str] = """
  unfool probe runs/rotation
  unfool probe runs/rotation --stages pool3 pool5 --knn --epochs 30 --drop-every 8
  unfool probe runs/rotation --data cifar100 --column coarse_label --fraction 0.1
  unfool probe runs/rotation --random
"""

    def run(self) -> None:
        from unfool.cli.parsing.systems import choose_device
        from unfool.cli.printing import check_writable, print_json, stderr
        from unfool.core.config import build
        from unfool.core.progress_display import progress_bar
        from unfool.evaluation.pretext.probe_records import probe_results
        from unfool.training import ProbeSettings, open_run, probe
        from unfool.training.probing.features import probed_stages

        values = explicit(self.probe, without=["knn"]) | {"neighbours": _NEIGHBOURS * self.probe.knn}
        settings = build(ProbeSettings, values, "the probe")
        device = choose_device(self.device)
        run = open_run(self.run_folder)
        stages = probed_stages(run.network.trunk, self.stages or None)
        path = run.folder / "results" / ("probe-random.json" if self.random else "probe.json")
        check_writable(path)
        train, test = (self._table(run.config, split) for split in ("train", "test"))
        with progress_bar(stderr(), str(run.folder)) as advance:
            probed = probe(
                self._network(run.network, run.config) if self.random else run.network,
                self._labelled(train, run.config),
                test,
                stages=stages,
                settings=settings,
                column=self.data.column,
                device=device,
                progress=advance,
            )
        results = probe_results(probed, f"{run.folder}, random weights" if self.random else str(run.folder))
        results.save(path)
        if self.json:
            print_json(results.to_json())
        else:
            _print(results, path)

    def _table(self, config: RunConfig, split: str) -> Table:
        from unfool.cli.parsing.images import open_images

        return open_images(self.data, split, config, columns=[self.data.column], system=str(self.run_folder))

    def _labelled(self, table: Table, config: RunConfig) -> Table:
        from unfool.core.streams import Streams

        data = self.data
        return table.fraction(data.fraction, Streams(config.seed), data.column) if data.fraction != 1 else table

    @staticmethod
    def _network(network: Network, config: RunConfig) -> Network:
        """The run's network before it had learned anything."""
        from unfool.core.streams import Streams
        from unfool.models.network import Network

        return Network.from_architecture(network.architecture, Streams(config.seed))


def _print(results: StudyResult, path: Path) -> None:
    """A line for each stage and seed."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table as RichTable

    from unfool.cli.printing import print_lines, stdout

    rows = results.rows
    several = len({row.seed for row in rows}) > 1
    title = f"{results.system}, probed with {rows[0].data}"
    table = RichTable(box=box.SIMPLE_HEAD, title=escape(title), title_justify="left")
    for name in ("stage", "probe"):
        table.add_column(name)
    for name in ("train %", "95 % interval", "n", "test %", "95 % interval", "n"):
        table.add_column(name, justify="right", no_wrap=True)
    lines: dict[tuple[str, str, int | None], list[str]] = {}
    for row in rows:
        key = row.settings["stage"], row.settings["probe"], row.seed
        cells = lines.setdefault(key, [])
        if row.split != "train" and not cells:
            cells += ["", "", ""]
        low, high = 100 * row.low, 100 * row.high
        cells += [f"{100 * row.accuracy:.1f}", f"[{low:.1f}, {high:.1f}]", str(row.n)]
    for (stage, probe, seed), cells in lines.items():
        table.add_row(stage, f"{probe}, seed {seed}" if several and probe == "linear" else probe, *cells)
    stdout().print(table)
    cost = rows[0].cost
    seconds, images = cost.cpu_seconds or 0.0, cost.model_images or 0
    print_lines([f"cost: {seconds:.1f} s of CPU, {images:,} model images; written to {path}"])
