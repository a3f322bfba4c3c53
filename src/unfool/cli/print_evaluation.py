"""What `unfool evaluate` prints for a person: the table, the verdicts, and every reason for doubt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from unfool.cli.printing import WIDTH, stdout

if TYPE_CHECKING:
    from unfool.evaluation.outcome import Evaluation


def print_evaluation(found: Evaluation) -> None:
    """The rows as one table, what else was asked for, and a line for each reason not to believe the figures."""
    results = found.to_json()
    console = stdout()
    console.print(_table(found.name, found.rows, bool(found.doubts)))
    for claim in results["claims"]:
        console.print(f"[bold]{claim['verdict'].upper()}[/bold]: {escape(claim['evidence'])}")
    if "corruptions" in results:
        console.print(_corruptions(results["corruptions"]))
    for strength in found.strengths.values():
        if strength.passed:
            console.print(escape(strength.text))
    attacked = [row for row in found.rows if row["protocol"] == "white-box"]
    if attacked:
        same = [row for row in attacked if row["threat"] == attacked[-1]["threat"]]
        worst = min(reversed(same), key=lambda row: row["accuracy"])
        share = f"{100 * worst['accuracy']:.1f} % [{100 * worst['low']:.1f}, {100 * worst['high']:.1f}]"
        told = f"{share} of {worst['n']} images stand under {worst['attack']} at {worst['threat']}"
        console.print(escape(told) + (", [bold red]not to be believed[/bold red]:" if found.doubts else "."))
    elif found.doubts:
        console.print("[bold red]not to be believed[/bold red]:")
    for doubt in found.doubts:
        console.print(f"  [red]![/red] {escape(doubt)}")
    if found.reliability is not None and found.reliability.trustworthy:
        checks, images = len(found.reliability.checked), found.reliability.images
        console.print(f"[dim]{checks} checks on {images} images gave no reason for doubt.[/dim]")


def _table(name: str, rows: Sequence[dict[str, Any]], doubted: bool) -> Table:
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
        for part, count in row.get("fooled_by", {}).items():
            said += f"\n  {part} fooled {count}"
        table.add_row(
            escape(said),
            "[yellow]TRANSFER[/yellow]" if row["protocol"] == "transfer" else row["protocol"],
            f"{100 * row['accuracy']:.1f}" + ("?" if row["flat"] or (doubted and row["attack"] != "none") else ""),
            f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]",
            str(row["n"]),
            f"{row['loss']:.3f}",
            f"{row['cost']['cpu_seconds']:.1f}",
            f"{row['cost']['model_images']:,}",
        )
    return table


def _corruptions(found: dict[str, Any]) -> Table:
    """Accuracy in % by corruption and severity, and the mean."""
    mean, low, high = (f"{100 * found[key]:.1f}" for key in ("accuracy", "low", "high"))
    caption = f"mean corruption accuracy {mean} % [{low}, {high}] on {found['n']} images"
    table = Table(box=box.SIMPLE_HEAD, caption=escape(caption), caption_justify="left", width=WIDTH)
    table.add_column("corruption")
    severities = list(dict.fromkeys(one["severity"] for one in found["under"]))
    for severity in severities:
        table.add_column(f"severity {severity}", justify="right")
    shares = {(one["corruption"], one["severity"]): one["accuracy"] for one in found["under"]}
    for name in dict.fromkeys(one["corruption"] for one in found["under"]):
        table.add_row(name, *(f"{100 * shares[name, severity]:.1f}" for severity in severities))
    return table
