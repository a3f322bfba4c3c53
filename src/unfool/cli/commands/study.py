"""``unfool study``: repeat one of the source systems, from images to verdicts."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar

import tyro

from unfool.cli.options.cluster import PieceOptions
from unfool.cli.options.shared import DataDir, Device, Json

if TYPE_CHECKING:
    from unfool.evaluation.results.study_result import StudyResult

CATALOGUE = Path(__file__).with_name("studies.json")
"""Title and scales of each study, for help that must not load the studies; `make catalogue` writes it."""


@dataclass(frozen=True, kw_only=True)
class StudyOptions:
    """Which study is run, at which scale, and where."""

    name: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="NAME")]
    """The name of a study, or a Python file (.py) that defines one."""
    scale: Annotated[
        str,
        tyro.conf.arg(
            help="demo: embedded digits, minutes; small: real data sets, on two cores; source: the source's own "
            "settings for a part of its networks, many hours; full: all of the source, on a GPU.",
            metavar="NAME",
        ),
    ] = "demo"
    out: Annotated[Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: runs/NAME-SCALE)")] = None
    """Folder for everything the study makes."""
    base: Annotated[
        Path | None,
        tyro.conf.arg(
            help="Weights that a study starts from in place of a robust classifier of its own (reverse-attack): a "
            "checkpoint in a published layout, as `unfool convert` reads them, a weights file, or zoo:cifar10-robust.",
            metavar="FILE",
            help_behavior_hint="(default: trained here)",
        ),
    ] = None
    data_dir: DataDir = None
    device: Device = "auto"
    json: Json = False


@dataclass(frozen=True, kw_only=True)
class StudyCommand(PieceOptions, StudyOptions):
    """Run a study: train its networks, attack them, and give a verdict on each of its claims.

    Prints the tables and the verdicts, and writes a page. The same command continues a study that was stopped.
    The studies and their scales are listed below; `unfool list studies` also lists those of plugins.
    """

    resumes: ClassVar[bool] = True
    examples: ClassVar[str] = """
  unfool study contrastive-multitask --scale demo --out runs/demo
  unfool study contrastive-multitask --scale small --data-dir ../data --out runs/a-small
  unfool study reverse-attack --scale small --data-dir ../data --out runs/b-small
  unfool study reverse-attack --scale full --base cifar10_rst_adv.pt.ckpt --data-dir ../data --out runs/b-full
  unfool study transfer --scale small --data-dir ../data --out runs/c-small
  unfool study noisy-rotation --scale small --data-dir ../data --out runs/e-small
  unfool study adversarial-training --scale demo --json > results.json
  unfool study my_study.py --scale small --workers 2
  unfool study transfer --scale small --cluster auto --data-dir ../data --out runs/c-small
"""

    @staticmethod
    def more_help() -> str:
        """The studies with their scales."""
        lines = ["studies:"]
        for name, study in json.loads(CATALOGUE.read_text(encoding="utf-8")).items():
            lines += [f"  {name}: {study['title']}", *(f"    {key}: {text}" for key, text in study["scales"].items())]
        return "\n".join(lines)

    def run(self) -> None:
        from unfool.cli.parsing.systems import choose_device
        from unfool.cli.printing import print_json, stderr
        from unfool.studies import run_study

        self.check(self.workers)
        out = self.out or Path("runs") / f"{Path(self.name).stem}-{self.scale}"
        result = run_study(
            self.name,
            self.scale,
            out,
            data_dir=self.data_dir,
            device=choose_device(self.own_device(self.device)),
            console=stderr(),
            executor=self.executor(self.device, self.workers),
            base=self.base or "",
        )
        page = out / "report.html"
        if self.json:
            print_json({**result.to_json(), "page": str(page)})
        else:
            print_study(result, page)


def print_study(result: StudyResult, page: Path) -> None:
    """The tables, each claim with its verdict and evidence, and where the page lies."""
    from unfool.cli.printing import print_claims, print_lines, stdout
    from unfool.report.tables import rich_tables

    console = stdout()
    for table in rich_tables(result):
        console.print(table)
    print_claims(result.claims)
    print_lines([f"page: {page}"])
