"""``unfool evaluate``: how accurate is a network, clean and attacked, and on whose examples."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

import tyro

from unfool.cli.options import Column, Data, DataDir, Device, Images, Json, Precision, Seed, System, Threat


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand:
    """Judge a network on clean images, under attack, and on examples that were crafted elsewhere.

    Every accuracy comes with its 95 % Wilson interval and its protocol: clean, white-box, or TRANSFER where the
    examples were crafted on another network. Where a network gave no gradient the result is not to be believed.
    """

    system: tyro.conf.Positional[System]
    attack: Annotated[tyro.conf.UseAppendAction[tuple[str, ...]], tyro.conf.arg(metavar="NAME[:KEY=VALUE,..]")] = ()
    """fgsm, pgd-20, or with settings such as pgd-20:restarts=5."""
    threat: Threat = "linf:8/255"
    on: Annotated[tyro.conf.UseAppendAction[tuple[Path, ...]], tyro.conf.arg(metavar="SET")] = ()
    """A set that `unfool attack` wrote, to be judged on as it is."""
    data: Data = None
    column: Column = None
    images: Images = 1000
    precision: Precision = "fp32"
    seed: Seed = 0
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint="(default: none)")] = None
    """Write the rows as a results file (.json), which `unfool report` shows as a page."""
    data_dir: DataDir = None
    device: Device = "auto"
    json: Json = False

    examples: ClassVar[str] = """
  unfool evaluate runs/digits --attack fgsm --attack pgd-20 --threat linf:8/255
  unfool evaluate weights.safetensors --data cifar10 --attack pgd-50:restarts=5 --threat l2:0.5 --images 500
  unfool evaluate runs/b --on pgd-on-a.safetensors --json
"""

    def run(self) -> None:
        from unfool.attacks import Search, make_attack
        from unfool.cli.printing import check_writable, print_json, stderr
        from unfool.cli.systems import choose_device, open_system
        from unfool.core.config import parse_settings
        from unfool.core.files import write_json
        from unfool.core.threat import ThreatModel
        from unfool.evaluation import craft, judge, load_set
        from unfool.training.progress import progress_bar

        threat = ThreatModel.parse(self.threat)
        attacks = {text: make_attack(text, threat) for text in self.attack}
        system = open_system(self.system, choose_device(self.device))
        sets = {path: load_set(path) for path in self.on}
        if self.out is not None:
            check_writable(self.out)
        rows: list[dict[str, Any]] = []
        if attacks or not sets or self.data is not None or system.config is not None:
            table, column = system.images(self.data, self.column, self.images, self.data_dir)
            clean = judge(system.network, table, column=column, threat=self.threat)
            rows.append(clean.row(system.name) | {"flat": clean.flat})
            for text, attack in attacks.items():
                with progress_bar(stderr(), text) as advance:
                    examples = craft(
                        system.network,
                        table,
                        attack,
                        column=column,
                        seed=self.seed,
                        search=Search(dtype=self.precision),
                        report=lambda done, total, advance=advance: advance(done, total, ""),
                    )
                found = judge(system.network, examples)
                rows.append(found.row(system.name, settings=parse_settings(text)[1]) | {"flat": found.flat})
        for path, examples in sets.items():
            found = judge(system.network, examples)
            rows.append(found.row(system.name, settings={"on": str(path)}) | {"flat": found.flat})
        results = {"schema_version": 1, "system": system.name, "rows": rows, "claims": []}
        if self.out is not None:
            write_json(self.out, results)
        if self.json:
            print_json(results)
        else:
            print_rows(system.name, rows)


def print_rows(name: str, rows: list[dict[str, Any]]) -> None:
    """The rows as one table, and a line for each result that deserves no trust."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    from unfool.cli.printing import stdout

    images = f"{rows[0]['data']} {rows[0]['split']}"
    table = Table(box=box.SIMPLE_HEAD, title=escape(f"{name} on {images}"), title_justify="left")
    table.add_column("attack", overflow="fold")
    for title in ("protocol", "accuracy %", "95 % interval", "n", "loss", "cost: CPU s", "images"):
        table.add_column(title, justify="left" if title == "protocol" else "right", no_wrap=True)
    for row in rows:
        said = row["attack"] if row["attack"] == "none" else f"{row['attack']} at {row['threat']}"
        if f"{row['data']} {row['split']}" != images:
            said += f" on {row['data']} {row['split']}"
        for key, value in row["settings"].items():
            said += f"\n  {key}={value}"
        table.add_row(
            escape(said),
            "[yellow]TRANSFER[/yellow]" if row["protocol"] == "transfer" else row["protocol"],
            f"{100 * row['accuracy']:.1f}" + ("?" if row["flat"] else ""),
            f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
            str(row["n"]),
            f"{row['loss']:.3f}",
            f"{row['cost']['cpu_seconds']:.1f}",
            f"{row['cost']['model_images']:,}",
        )
    console = stdout()
    console.print(table)
    for row in rows:
        if row["flat"]:
            told = f"{row['attack']}: the attacked network gave no gradient on {row['flat']} of {row['n']} images"
            console.print(f"[bold red]not to be believed[/bold red]: {escape(told)}")
