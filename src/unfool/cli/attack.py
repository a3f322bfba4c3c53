"""``unfool attack``: craft adversarial examples and keep them with their provenance."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from unfool.cli.options import Column, Data, DataDir, Device, Images, Json, Precision, Seed, System, Threat


@dataclass(frozen=True, kw_only=True)
class AttackCommand:
    """Craft adversarial examples on a network and keep them, to judge other networks on.

    The file holds images, labels, distances and the identity of the attacked network: judged on any other
    (`unfool evaluate --on`), the result is named TRANSFER.
    """

    system: tyro.conf.Positional[System]
    attack: Annotated[str, tyro.conf.arg(metavar="NAME[:KEY=VALUE,..]")]
    """fgsm, pgd-20, or with settings; pgd-20:goal=last gives last iterates, the usual choice for transfer."""
    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Where to write the set (.safetensors)."""
    threat: Threat = "linf:8/255"
    data: Data = None
    column: Column = None
    images: Images = 1000
    precision: Precision = "fp32"
    seed: Seed = 0
    data_dir: DataDir = None
    device: Device = "auto"
    json: Json = False

    examples: ClassVar[str] = """
  unfool attack runs/digits --attack pgd-20 --threat linf:8/255 --images 200 --out pgd.safetensors
  unfool attack runs/a --attack pgd-50:goal=last,step_size=2/255 --threat linf:8/255 --out transfer.safetensors
  unfool attack weights.safetensors --data cifar10 --attack fgsm --threat l2:0.5 --out fgsm.safetensors --json
"""

    def run(self) -> None:
        from unfool.attacks import Search, make_attack
        from unfool.cli.printing import check_writable, print_json, print_lines, stderr
        from unfool.cli.systems import choose_device, open_system
        from unfool.evaluation import craft, judge, save_set
        from unfool.training.progress import progress_bar

        attack = make_attack(self.attack, self.threat)
        system = open_system(self.system, choose_device(self.device))
        table, column = system.images(self.data, self.column, self.images, self.data_dir)
        check_writable(self.out)
        with progress_bar(stderr(), self.attack) as advance:
            examples = craft(
                system.network,
                table,
                attack,
                column=column,
                seed=self.seed,
                search=Search(dtype=self.precision),
                report=lambda done, total: advance(done, total, ""),
            )
        save_set(examples, self.out)
        row = judge(system.network, examples).row(system.name)
        flat = int(examples.flat.sum())
        if self.json:
            print_json({"set": str(self.out), **row, "flat": flat})
            return
        lines = [
            f"{self.out}: {row['n']} {row['data']} {row['split']} images under {row['attack']} at {row['threat']}",
            f"{system.name} keeps {100 * row['accuracy']:.1f} % of them "
            f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]; crafted in {row['cost']['cpu_seconds']:.1f} s of CPU",
        ]
        if flat:
            lines.append(f"not to be believed: the network gave no gradient on {flat} of {row['n']} images")
        print_lines(lines)
