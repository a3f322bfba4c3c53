"""``unfool attack``: craft adversarial examples and keep them with their provenance."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal

import tyro

from unfool.cli.options.cluster import WorkOptions
from unfool.cli.options.shared import DataOptions, Eps, Json, MachineOptions, ModelOptions, Precision, Threat

if TYPE_CHECKING:
    from unfool.evaluation.results.rows import Row


@dataclass(frozen=True, kw_only=True)
class AttackOptions:
    """The attack."""

    attack: Annotated[
        str,
        tyro.conf.arg(
            help="fgsm, fgsm-rs, pgd-20 (or pgd20), autoattack (or aa), or with settings; pgd-20:goal=last gives "
            "last iterates, usual for transfer.",
            metavar="NAME[:KEY=VALUE,..]",
        ),
    ]
    threat: Threat = None
    norm: Annotated[
        Literal["linf", "l2", "l1", "l0", "all"] | None,
        tyro.conf.arg(
            help="Instead of --threat: its norm, with --eps or with linf:8/255, l2:0.5, l1:12, l0:10; all: the "
            "first three, into FILE with -linf, -l2, -l1 in its name.",
            help_behavior_hint="(default: linf)",
        ),
    ] = None
    eps: Eps = None
    precision: Precision = "fp32"


@dataclass(frozen=True, kw_only=True)
class AttackCommand:
    """Craft adversarial examples on a classifier and write them to a file, to evaluate any classifier on them.

    The file holds images, labels, distances and the identity of the attacked system: evaluated on any other
    (`unfool evaluate --on`), the result is named TRANSFER. Until it is done, FILE.state keeps what is: the same command
    goes on where it was stopped.
    """

    out: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """Where to write the set (.safetensors)."""
    json: Json = False
    model: ModelOptions = field(default_factory=ModelOptions)
    data: DataOptions = field(default_factory=DataOptions)
    attack: AttackOptions
    machine: MachineOptions = field(default_factory=MachineOptions)
    work: WorkOptions = field(default_factory=WorkOptions)

    resumes: ClassVar[bool] = True
    examples: ClassVar[str] = """
  unfool attack runs/digits --attack pgd-20 --threat linf:8/255 --images 200 --out pgd.safetensors
  unfool attack runs/a --attack pgd-50:goal=last,step_size=2/255 --threat linf:8/255 --out transfer.safetensors
  unfool attack weights.safetensors --data cifar10 --attack fgsm --threat l2:0.5 --out fgsm.safetensors --json
  unfool attack --model mine.py:build --data cifar10 --attack autoattack --norm all --out aa.safetensors
"""

    def run(self) -> None:
        from unfool.cli.printing import shared

        with shared():
            self._run()

    def _run(self) -> None:
        from unfool.attacks import make_attack
        from unfool.cli.next_command import next_line
        from unfool.cli.parsing.shared_out import opens_system, sharing_of
        from unfool.cli.parsing.systems import open_system
        from unfool.cli.parsing.threats import read_threats
        from unfool.cli.printing import check_writable, print_json, print_lines, stderr
        from unfool.core.progress_display import progress_bar
        from unfool.evaluation import craft, identity, save_set
        from unfool.evaluation.classify import classify_or_read
        from unfool.evaluation.crafting.batches import BATCH_SIZE, own_batch_size
        from unfool.evaluation.crafting.chosen_attacks import choose_attack
        from unfool.evaluation.crafting.evaluation_folder import attack_folder, clean_folder, discard, judged_folder
        from unfool.evaluation.crafting.proxy import proxy_for
        from unfool.evaluation.crafting.stored_set import is_set_folder
        from unfool.evaluation.next_step import step_after
        from unfool.evaluation.parts.opened import Opened
        from unfool.evaluation.parts.sharing import share_evaluation
        from unfool.evaluation.settings import EvaluationSettings

        options, shared = self.attack, self.work.shared
        threats = read_threats(options.threat, options.norm, options.eps)
        attacks = [make_attack(options.attack, threat) for threat in threats]
        paths = [self._path(attack.threat.norm_name) for attack in attacks]
        system = open_system(self.model, self.work.own_device(self.machine.device))
        table, column = system.images(self.data, self.machine.batch_size)
        for path in paths:
            if not is_set_folder(path):  # which is replaced
                check_writable(path)
        network, batch_size = system.network, self.machine.batch_size
        proxy, size = proxy_for(network, options.precision), own_batch_size(network) or batch_size or BATCH_SIZE
        states = [path.with_suffix(".state") for path in paths]
        written: list[WrittenSet] = []
        for attack, path, state in zip(attacks, paths, states, strict=True):
            home = attack_folder(state, options.attack, attack)
            with progress_bar(stderr(), str(attack.threat)) as progress:
                if shared:
                    chosen = [choose_attack(options.attack, attack.threat)]
                    settings = EvaluationSettings(threat=attack.threat)
                    opens = opens_system(self.model, self.data, [options.attack], settings, batch_size=batch_size)
                    share_evaluation(
                        sharing_of(self.work, opens, state, self.machine.device, system.config),
                        opens,
                        Opened(model=network, table=table, column=column, attacks=chosen),
                        clean=not self.json and path is paths[0],
                        tell_right=False,
                        seed=self.machine.seed,
                        precision=options.precision,
                        batch_size=batch_size,
                        progress=progress,
                    )
                examples = craft(
                    network,
                    table,
                    attack,
                    column=column,
                    seed=self.machine.seed,
                    proxy=proxy,
                    batch_size=batch_size,
                    folder=home,
                    progress=progress,
                )
            save_set(examples, path)
            judged = judged_folder(home, size)
            row = classify_or_read(network, examples, batch_size=size, stored=judged).row(system.name)
            written.append(WrittenSet(path=path, row=row, zero_gradient=int(examples.zero_gradient.sum())))
        if self.json:
            sets = [item.to_json() for item in written]
            print_json({"sets": sets} if options.norm == "all" else sets[0])
        else:
            print_lines(line for item in written for line in item.lines())
            rows = [item.row for item in written]
            worst = min(rows, key=lambda row: row.accuracy)
            stored = clean_folder(states[0], table, column, identity(network), size)
            threat = worst.threat or threats[0]
            clean = classify_or_read(network, table, column=column, threat=threat, batch_size=size, stored=stored).row(
                system.name
            )
            step = step_after([clean, worst])
            print_lines(next_line(step, self.model, self.data, device=self.machine.device))
        # At the very end: until then the same command finds what is done.
        for attack, state in zip(attacks, states, strict=True):
            discard(state, [options.attack], str(attack.threat))

    def _path(self, norm: str) -> Path:
        """Where the set of one norm goes."""
        return self.out.with_name(f"{self.out.stem}-{norm}{self.out.suffix}") if self.attack.norm == "all" else self.out


@dataclass(frozen=True, kw_only=True)
class WrittenSet:
    """A set of adversarial examples that was written, and the accuracy of the attacked classifier on it."""

    path: Path
    row: Row
    zero_gradient: int

    def to_json(self) -> dict[str, object]:
        """The JSON object that --json prints."""
        return {"set": str(self.path), **self.row.to_json(), "flat": self.zero_gradient}

    def lines(self) -> list[str]:
        """What was written, the accuracy, and whether it can be believed."""
        row = self.row
        share = f"{100 * row.accuracy:.1f} % [{100 * row.low:.1f}, {100 * row.high:.1f}]"
        lines = [
            f"{self.path}: {row.n} {row.data} {row.split} images under {row.attack} at {row.threat}",
            f"accuracy of {row.model} on them: {share}; crafted in {row.cost.cpu_seconds or 0.0:.1f} s of CPU",
        ]
        if row.remark is not None:
            lines.append(f"{row.attack}: {row.remark}")
        if self.zero_gradient:
            lines.append(f"not to be believed: the network gave no gradient on {self.zero_gradient} of {row.n} images")
        return lines
