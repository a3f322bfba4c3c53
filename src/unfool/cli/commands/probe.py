"""``unfool probe``: how much each stage of a trunk knows about the classes."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from unfool.cli.options.cluster import WorkOptions
from unfool.cli.options.from_settings import explicit, options_from
from unfool.cli.options.shared import Crop, Data, DataDir, Device, Image, Json, ModelOptions, Size

if TYPE_CHECKING:
    from unfool.evaluation.results.study_result import StudyResult

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
    """Train a linear classifier on each stage of a frozen trunk, and show its accuracies.

    All stages are probed from one pass over the images. The defaults are those of the noisy-rotation source. The
    results of a run go to results/probe.json in its folder, with the curves of every stage; `unfool report` draws them.
    The stages of a classifier of another library (--model) are its submodules: --features, or several in --stages.
    """

    stages: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME ..", help_behavior_hint="(default: all)")] = ()
    """Stages of the trunk, such as pool1 pool5, or submodules of --model, such as layer2 layer4."""
    random: Annotated[bool, tyro.conf.arg(help_behavior_hint="")] = False
    """Probe the same trunk with random weights, as a control (results/probe-random.json)."""
    out: Annotated[
        Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: in the run's folder, if it is one)")
    ] = None
    """Where to write the results (.json)."""
    device: Device = "auto"
    json: Json = False
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    probe: ProbeOptions = field(default_factory=ProbeOptions)
    work: WorkOptions = field(default_factory=WorkOptions)

    examples: ClassVar[str] = """
  unfool probe runs/rotation
  unfool probe runs/rotation --stages pool3 pool5 --knn --epochs 30 --drop-every 8
  unfool probe runs/rotation --data cifar100 --column coarse_label --fraction 0.1
  unfool probe runs/rotation --random
  unfool probe --model net.py:build --weights net.pt --features layer4 --data cifar10 --out probe.json
  unfool probe --model hf:my-model --stages resnet.embedder resnet.encoder --data folder:pets
"""

    def run(self) -> None:
        from unfool.cli.printing import shared

        with shared():
            self._run()

    def _run(self) -> None:
        from unfool.cli.parsing.probed import OpensProbed, open_probed
        from unfool.cli.parsing.shared_out import files_of, folder_or_temporary, sharing_of
        from unfool.cli.parsing.systems import choose_device
        from unfool.cli.printing import check_writable, print_json, stderr
        from unfool.core.config import build
        from unfool.core.progress_display import progress_bar
        from unfool.evaluation.identity import identity
        from unfool.evaluation.pretext.probe_records import probe_results
        from unfool.training import ProbeSettings, probe
        from unfool.training.probing.parts import share_features

        values = explicit(self.probe, without=["knn"]) | {"neighbours": _NEIGHBOURS * self.probe.knn}
        settings = build(ProbeSettings, values, "the probe")
        shared, own_device = self.work.shared, self.work.own_device(self.device)
        opens = OpensProbed(
            model=self.model,
            data=self.data,
            stages=self.stages,
            random=self.random,
        )
        path = self._path()
        if path is not None:
            check_writable(path)
        system, probed = open_probed(opens, own_device)
        stages = self.stages or None
        with ExitStack() as stack:
            parts, advance = None, stack.enter_context(progress_bar(stderr(), system.name))
            if shared:
                parts = stack.enter_context(folder_or_temporary(None))
                opens = replace(opens, identity=identity(probed.network), files=tuple(files_of(self.model)))
                share_features(
                    sharing_of(self.work, opens, parts, self.device, system.config),
                    opens,
                    probed.tables,
                    stages=stages,
                    precision=settings.precision,
                    progress=advance,
                )
            result = probe(
                probed.network,
                probed.tables["train"],
                probed.tables["test"],
                stages=stages,
                settings=settings,
                column=self.data.column,
                device=choose_device(own_device),
                parts=parts,
                progress=advance,
            )
        results = probe_results(result, f"{system.name}, random weights" if self.random else system.name)
        if path is not None:
            results.save(path)
        if self.json:
            print_json(results.to_json())
        else:
            _print(results, path)

    def _path(self) -> Path | None:
        """Where the results go; None where nothing says so."""
        from unfool.training.folder import CONFIG

        run = self.model.system
        if self.out is not None or run is None or not (run / CONFIG).is_file():
            return self.out
        return run / "results" / ("probe-random.json" if self.random else "probe.json")


def _print(results: StudyResult, path: Path | None) -> None:
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
    written = f"; written to {path}" if path is not None else ""
    print_lines([f"cost: {seconds:.1f} s of CPU, {images:,} model images{written}"])
