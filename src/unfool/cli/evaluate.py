"""``unfool evaluate``: how accurate is a classifier, clean and attacked, and are the figures to be believed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from unfool.cli.options import BatchSize, Json, Precision, Preset, Seed, SystemOptions, Threat

_NONE = "(default: none)"
Flag = Annotated[bool, tyro.conf.arg(help_behavior_hint="")]


@dataclass(frozen=True, kw_only=True)
class EvaluateCommand(SystemOptions):
    """Judge a classifier on clean images, under attack, and on examples that were crafted elsewhere.

    Every accuracy comes with its 95 % interval and its protocol: clean, white-box, or TRANSFER where the examples were
    crafted on another system. A reliability report on a few images says when the figures are not to be believed.
    """

    attack: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(metavar="NAME[:KEY=VALUE,..]", aliases=["--attacks"], help_behavior_hint="(repeatable)"),
    ] = ()
    """fgsm, pgd-20, apgd-ce, autoattack, or with settings such as pgd-20:restarts=5."""
    threat: Threat = "linf:8/255"
    on: Annotated[
        tyro.conf.UseAppendAction[tuple[Path, ...]],
        tyro.conf.arg(metavar="SET", help_behavior_hint="(repeatable)"),
    ] = ()
    """A set that `unfool attack` wrote, to be judged on as it is."""
    defense: Annotated[str | None, tyro.conf.arg(metavar="NAME[:KEY=VALUE,..]", help_behavior_hint=_NONE)] = None
    """Put a defense before the classifier: reverse:task=contrast,steps=10, or gate:rate=0.05,task=contrast."""
    preset: Preset = None
    adaptive: Flag = False
    """Climb the adaptive ladder: attack --defense knowing it, beside the classifier by itself under --attack."""
    strict: Flag = False
    """End with exit code 9 if there is any reason not to believe the figures."""
    reliability: Flag = True
    """Leave out the report on reliability."""
    strength: Flag = False
    """Test the attacks on adversarial examples that are known to be there."""
    claim: Annotated[str | None, tyro.conf.arg(metavar="'>=SHARE'", help_behavior_hint=_NONE)] = None
    """Stop the one attack as soon as this claim about robust accuracy, such as '>=0.45', is settled."""
    alpha: Annotated[float, tyro.conf.arg(metavar="RATE")] = 0.05
    """Error rate of --claim."""
    curve: Annotated[str | None, tyro.conf.arg(metavar="eps=..|steps=..", help_behavior_hint=_NONE)] = None
    """Accuracy under the one attack over eps=2/255,4/255,8/255 or over steps=1,10,100."""
    corruptions: Flag = False
    """Judge under the fifteen common corruptions as well."""
    severity: Annotated[
        tyro.conf.UseAppendAction[tuple[int, ...]],
        tyro.conf.arg(metavar="1..5", help_behavior_hint="(repeatable, default: all five)"),
    ] = ()
    """Severity of --corruptions."""
    precision: Precision = "fp32"
    seed: Seed = 0
    batch_size: BatchSize = None
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", help_behavior_hint=_NONE)] = None
    """Write a results file (.json), which `unfool report` shows as a page."""
    state: Annotated[
        Path | None, tyro.conf.arg(metavar="DIR", help_behavior_hint="(default: FILE.state of --out, until it is done)")
    ] = None
    """Keep the attacks here as they go on, so that the same command resumes where it was stopped."""
    json: Json = False

    examples: ClassVar[str] = """
  unfool evaluate runs/digits --attack fgsm --attack pgd-20 --threat linf:8/255
  unfool evaluate weights.safetensors --data cifar10 --attack pgd-50:restarts=5 --threat l2:0.5 --images 500
  unfool evaluate --model mine.py:build --weights w.safetensors --data cifar10 --attacks autoattack --out mine.json
  unfool evaluate --model mine.py:build --mean imagenet --std imagenet --data folder:pets --attack apgd-ce --strict
  unfool evaluate runs/a --attack autoattack --claim '>=0.45' --alpha 0.01
  unfool evaluate runs/a --attack pgd-20 --curve eps=2/255,4/255,8/255 --corruptions --severity 3
  unfool evaluate runs/b --on pgd-on-a.safetensors --json
  unfool evaluate runs/b --defense reverse:task=contrast,steps=10 --on pgd-on-b.safetensors --no-reliability
  unfool evaluate runs/b --defense reverse:task=contrast,steps=10 --adaptive --images 100 --out ladder.json
"""

    def run(self) -> None:
        from unfool.cli.printing import shared

        with shared():
            if self.adaptive:
                self._climb()
            else:
                self._evaluate()

    @property
    def _defense(self) -> str | None:
        from unfool.cli.defended import with_preset

        return with_preset(self.defense, self.preset)

    def _evaluate(self) -> None:
        from unfool.cli.print_evaluation import print_evaluation
        from unfool.cli.printing import check_writable, print_json, stderr
        from unfool.cli.systems import open_system
        from unfool.core.files import write_json
        from unfool.core.progress_display import progress_bar
        from unfool.evaluation import load_set
        from unfool.evaluation.crafting.evaluation_folder import forget
        from unfool.evaluation.evaluate import check_evaluation, evaluate

        settings = {
            "threat": self.threat,
            "seed": self.seed,
            "precision": self.precision,
            "batch_size": self.batch_size,
            "claim": self.claim,
            "alpha": self.alpha,
            "curve": self.curve,
            "corruptions": self.corruptions,
            "strength": self.strength,
            "reliability": self.reliability,
            **({"severities": self.severity} if self.severity else {}),
        }
        check_evaluation(self.attack, settings)
        system = open_system(self)
        sets = {str(path): load_set(path) for path in self.on}
        if self.out is not None:
            check_writable(self.out)
        table, column = None, self.column
        if self.attack or not sets or self.data is not None or system.config is not None:
            table, column = system.images(self)
        for examples in sets.values():
            system.check(examples.images)
        judged = system.network
        if self._defense is not None:
            from unfool.cli.defended import open_defense, training_images

            judged = open_defense(self._defense, system, training_images(system, self.data, self.data_dir), self.seed)
        state = self.state or (self.out.with_suffix(".state") if self.out is not None else None)
        with progress_bar(stderr(), system.name) as advance:
            found = evaluate(
                judged,
                table,
                self.attack,
                name=system.name,
                column=column,
                on=sets,
                folder=state,
                report=advance,
                **settings,
            )
        if self._defense is not None:
            found = replace(found, rows=[replace(row, defense=self._defense) for row in found.rows])
        if self.out is not None:
            write_json(self.out, found.to_json())
        if state is not None and self.state is None:
            forget(state, self.attack, self.threat)
        if self.json:
            print_json(found.to_json())
        else:
            print_evaluation(found)
        self._believe(found.doubts)

    def _climb(self) -> None:
        from unfool.attacks import make_attack
        from unfool.cli.defended import open_defense, training_images
        from unfool.cli.print_evaluation import print_ladder
        from unfool.cli.printing import check_writable, print_json, stderr
        from unfool.cli.systems import open_system
        from unfool.core.files import write_json
        from unfool.core.progress_display import progress_bar
        from unfool.evaluation.adaptive.ladder import forget_ladder, ladder

        attack = self._yardstick()
        make_attack(attack, self.threat)
        system = open_system(self)
        if self.out is not None:
            check_writable(self.out)
        table, column = system.images(self)
        text = self._defense or ""
        defense = open_defense(text, system, training_images(system, self.data, self.data_dir), self.seed)
        state = self.state or (self.out.with_suffix(".state") if self.out is not None else None)
        with progress_bar(stderr(), system.name) as advance:
            found = ladder(
                defense,
                table,
                threat=self.threat,
                attack=attack,
                name=system.name,
                defended=text,
                column=column,
                precision=self.precision,
                batch_size=self.batch_size,
                seed=self.seed,
                folder=state,
                report=advance,
            )
        if self.out is not None:
            write_json(self.out, found.to_json())
        if state is not None and self.state is None:
            forget_ladder(state)
        if self.json:
            print_json(found.to_json())
        else:
            print_ladder(found)
        self._believe(found.doubts)

    def _yardstick(self) -> str:
        """The attack of rung (a); SpecError for options that say nothing about a ladder."""
        from unfool.core.errors import SpecError

        if self._defense is None:
            raise SpecError("--adaptive attacks a defense; give --defense reverse:task=contrast or another one")
        if len(self.attack) > 1:
            raise SpecError(f"--adaptive compares with one attack, not {len(self.attack)}; give one --attack or none")
        for name in ("on", "strength", "claim", "curve", "corruptions", "severity"):
            if getattr(self, name):
                raise SpecError(f"--{name} and --adaptive cannot be combined; run unfool evaluate once for each")
        return self.attack[0] if self.attack else "autoattack"

    def _believe(self, doubts: Sequence[str]) -> None:
        """Under --strict, fail if there is a doubt."""
        from unfool.core.errors import ReliabilityError

        if self.strict and doubts:
            more = f" (and {len(doubts) - 1} more)" if len(doubts) > 1 else ""
            raise ReliabilityError(f"not to be believed, {doubts[0]}{more}")
