"""``unfool sweep``: train a run for every combination of some values, and compare them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from unfool.cli.options.cluster import PieceOptions
from unfool.cli.options.shared import DataDir, Device, Json

if TYPE_CHECKING:
    from unfool.training.sweeping.plan import SweepPlan
    from unfool.training.sweeping.result import SweepResult


@dataclass(frozen=True, kw_only=True)
class SweepCommand(PieceOptions):
    """Train a run for every combination of some values, and say which setting is best and how sure that is.

    Runs are compared on images that are held out from the training set (held_out in the file, or --vary held_out=200),
    never on test images; those that differ in their seed alone are one setting. Each run is a run's folder below --out,
    known by its configuration: the same command goes on where it was stopped, and with more values it trains the new
    runs alone. Writes sweep.json and report.html.
    """

    config: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="FILE.yaml")]
    """YAML of the run that is varied, as `unfool train --config` takes it, or a run's folder."""
    vary: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(
            metavar="FIELD=VALUES",
            help="A field of the file and its values: learning_rate=0.05,0.1 or seed=0..4. Of several stages or tasks: "
            "stages.0.learning_rate, or stages.*.learning_rate for all. Semicolons part values with commas: "
            "'trunk=convnet:stem=strided,widths=4-8-8;resnet18'.",
            help_behavior_hint="(repeatable)",
        ),
    ] = ()
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: runs/NAME-sweep)")] = None
    """The sweep's folder; NAME is that of the file, or of the run's folder."""
    by: Annotated[
        Literal["robust", "clean", "loss"] | None,
        tyro.conf.arg(
            help="What runs are judged by: accuracy on the held-out images, robust (under the stage's stop_attack) or "
            "clean, or the training loss.",
            help_behavior_hint="(default: robust where a stage perturbs, else clean)",
        ),
    ] = None
    stop_early: Annotated[
        int,
        tyro.conf.arg(
            metavar="N",
            help="Stop hopeless settings early: of those that reach 1/N, 1/N², ... of their steps the best one in N "
            "goes on, by the mean over its seeds; 3 is usual.",
            help_behavior_hint="(default: all are finished)",
        ),
    ] = 0
    dry_run: Annotated[
        bool, tyro.conf.arg(help="List the runs and about what they cost, and train none.", help_behavior_hint="")
    ] = False
    data_dir: DataDir = None
    device: Device = "auto"
    json: Json = False

    resumes: ClassVar[bool] = True
    examples: ClassVar[str] = """
  unfool sweep runs/digits/config.yaml --vary learning_rate=0.05,0.1,0.2 --vary seed=0..4 --vary held_out=200
  unfool sweep train.yaml --vary learning_rate=0.01,0.03,0.1,0.3 --vary beta=1,3,6 --stop-early 3 --out runs/trades
  unfool sweep train.yaml --vary 'stages.*.weight_decay=0,5e-4' --by clean --dry-run
  unfool sweep train.yaml --vary seed=0..9 --cluster auto --data-dir ../data --out runs/ten
  unfool sweep train.yaml --vary contrast.temperature=0.1,0.5 --vary seed=0..2 --workers 2 --json > sweep.json
"""

    def run(self) -> None:
        from unfool.cli.parsing.systems import choose_device
        from unfool.cli.parsing.variations import read_variations
        from unfool.cli.printing import stderr
        from unfool.cli.run_details import run_details
        from unfool.core.errors import SpecError
        from unfool.report.sweeps.page import write_sweep_page
        from unfool.training import sweep
        from unfool.training.config import read_config
        from unfool.training.sweeping.plan import plan_sweep

        self.check(self.workers)
        if not self.vary:
            raise SpecError("nothing is varied; give --vary FIELD=VALUES, such as --vary learning_rate=0.05,0.1")
        config, vary = read_config(self.config), read_variations(self.vary)
        plan = plan_sweep(config, vary, data_dir=self.data_dir, metric=self.by, stop_early=self.stop_early)
        if self.dry_run:
            self._list(plan)
            return
        stderr().print(_counted(plan), highlight=False, soft_wrap=True)
        device = choose_device(self.own_device(self.device))
        result = sweep(
            config,
            vary,
            self._folder,
            metric=self.by,
            stop_early=self.stop_early,
            executor=self.executor(self.device, self.workers),
            data_dir=self.data_dir,
            console=stderr(),
        )
        details = run_details(device)
        result = dataclasses.replace(result, command=details.command, date=details.date)
        result.save(self._folder)
        page = write_sweep_page(result, self._folder)
        self._print(result, page)
        result.raise_if_diverged()

    @property
    def _folder(self) -> Path:
        from unfool.core.borders.reading import is_folder

        # Every run's file is called config.yaml: its folder is what tells two runs apart.
        run = self.config.parent if self.config.name == "config.yaml" else self.config
        name = run.resolve().name if run is not self.config or is_folder(run) else run.stem
        return self.out or Path("runs") / f"{name or 'config'}-sweep"

    def _list(self, plan: SweepPlan) -> None:
        """The runs that would be trained, and about what they cost."""
        from unfool.cli.printing import print_json, print_lines
        from unfool.training.sweeping.variation import value_text

        progress = [plan.progress(run, self._folder) for run in plan.runs]
        # What evaluating held-out images takes is in the seconds alone.
        done = [(run, each) for run, each in zip(plan.runs, progress, strict=True) if each.finished]
        rate = sum(each.cpu_seconds for _, each in done) / max(1.0, sum(plan.model_images(run) for run, _ in done))
        behind = [
            plan.model_images(run) * (1 if each.diverged else each.steps / plan.length(run))
            for run, each in zip(plan.runs, progress, strict=True)
        ]
        left = max(0.0, plan.total_images - sum(behind))
        if self.json:
            runs = [{"values": dict(run.values), "folder": run.folder} for run in plan.runs]
            cost = {"model_images": round(plan.total_images), "left": round(left)}
            print_json({"runs": runs, **cost, "cpu_seconds_left": round(left * rate, 1) if done else None})
            return
        words = [", ".join(f"{name}={value_text(value)}" for name, value in run.values.items()) for run in plan.runs]
        lines = [
            f"  {said}: {plan.length(run):,} steps, {plan.model_images(run):,.0f} model images"
            f"{_state(each.finished, each.diverged, each.steps)}"
            for said, run, each in zip(words, plan.runs, progress, strict=True)
        ]
        time = f", about {left * rate:,.0f} s of CPU at the rate of the finished runs" if done else ""
        print_lines([_counted(plan), *lines, f"left: about {left:,.0f} model images{time}"])

    def _print(self, result: SweepResult, page: Path) -> None:
        """The table of settings, which is best and how sure that is, the page and the next command."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        from unfool.cli.printing import print_json, print_lines, stdout
        from unfool.report.sweeps.words import lead_sentence, sweep_headline, sweep_lines, varied

        if self.json:
            print_json({**result.to_json(), "page": str(page)})
            return
        table = Table(box=box.SIMPLE_HEAD)
        for name in varied(result) or ["setting"]:
            table.add_column(escape(name), overflow="fold")
        for name in (f"{result.metric} accuracy" if result.higher else "loss", "95 % interval", "seeds"):
            table.add_column(name, justify="right", no_wrap=True)
        table.add_column("state", overflow="fold")
        for line in sweep_lines(result):
            text = line.text if line.figure is not None else f"({line.text})"
            values = [escape(value) for value in line.values or ("as configured",)]
            table.add_row(*values, text, escape(line.interval), line.seeds, line.state)
        stdout().print(table)
        print_lines([text for text in (sweep_headline(result), lead_sentence(result)) if text])
        print_lines([f"page: {page}", *self._next(result)])

    def _next(self, result: SweepResult) -> list[str]:
        """The line of what to run now: with more seeds where there is one, else the best run on the test images."""
        from unfool.cli.next_command import command
        from unfool.report.sweeps.words import next_evaluation

        lead = result.lead
        if (
            lead is not None
            and lead.seeds == 1
            and not any(text.partition("=")[0].strip() == "seed" for text in self.vary)
        ):
            words = ["sweep", str(self.config), *(word for text in self.vary for word in ("--vary", text))]
            words += ["--vary", "seed=0..4", "--out", str(self._folder)]
            words += ["--by", self.by] if self.by is not None else []
            words += ["--stop-early", str(self.stop_early)] if self.stop_early else []
            return [command([*words, *self._where()])]
        words = next_evaluation(result, self._folder)[1:]
        return [command([*words, *self._where()])] if words else []

    def _where(self) -> list[str]:
        return ["--data-dir", str(self.data_dir)] if self.data_dir is not None else []


def _counted(plan: SweepPlan) -> str:
    """How many runs a sweep has, and what becomes of equal combinations."""
    runs, settings = len(plan.runs), len(plan.settings)
    equal = plan.combinations - runs
    seeds = f" of {settings} setting{'s' if settings > 1 else ''}" if settings < runs else ""
    same = f" ({equal} equal combination{'s' if equal > 1 else ''} left out)" if equal else ""
    early = (
        f", at most {plan.total_images / sum(map(plan.model_images, plan.runs)):.0%} of the work"
        if plan.stop_early
        else ""
    )
    return f"{runs} run{'s' if runs > 1 else ''}{seeds}{same}, judged by {plan.measure.metric}{early}"


def _state(finished: bool, diverged: bool, steps: int) -> str:
    if finished or diverged:
        return " (finished)" if finished else " (diverged)"
    return f" (at step {steps:,})" if steps else ""
