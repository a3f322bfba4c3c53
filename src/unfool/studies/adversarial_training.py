"""Ways to train a robust classifier side by side: what they cost, what they keep, and how far they overfit.

Fast adversarial training (Wong et al., ICLR 2020), PGD (Madry et al., ICLR 2018), TRADES (Zhang et al., ICML 2019) and
MART (Wang et al., ICLR 2020), each with and without adversarial weight perturbation (Wu et al., NeurIPS 2020), one
with weight averaging. Every other study takes its robust classifiers from here.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import Field

from unfool.attacks import ProxySettings, make_attack
from unfool.core.config import configured
from unfool.core.streams import Streams
from unfool.data.table import Table
from unfool.evaluation import Records
from unfool.report.curves import Curve
from unfool.studies.base import STUDIES, Outcome, Study
from unfool.studies.claims import ABOVE_ZERO, FAILS, HOLDS, gain
from unfool.studies.recipes import SHORT
from unfool.studies.workspace import Workspace
from unfool.training import RunConfig, StageConfig, TaskConfig, TrainedRun

FAST, PGD = "FGSM-RS", "PGD-10"
_PGD = {"perturb": "pgd-10"}
METHODS: dict[str, dict[str, Any]] = {
    FAST: {"perturb": "fgsm:random_start=true,step_size=10/255"},
    PGD: _PGD,
    "TRADES-1": {**_PGD, "adversarial": "trades", "beta": 1.0},
    "TRADES-3": {**_PGD, "adversarial": "trades", "beta": 3.0},
    "TRADES-6": {**_PGD, "adversarial": "trades", "beta": 6.0},
    "MART": {**_PGD, "adversarial": "mart", "beta": 5.0},
}
"""Stage settings by name; the number after TRADES is beta."""
AVERAGED = PGD
"""The method that is also trained with weight averaging."""
LARGEST_SHARE = 0.30
"""What fast adversarial training may cost of PGD's, in images through the network."""


@configured
class Scale:
    """``images`` of the training set, the stage that all methods share, the attack that judges, and on how many images
    of the test set and as many of the training set; ``awp`` and ``ema`` where they are switched on."""

    data: str
    words: str
    trunk: dict[str, Any]
    stage: dict[str, Any]
    images: int = Field(ge=1)
    judged: int = Field(ge=1)
    attack: str = "pgd-50"
    threat: str = "linf:8/255"
    awp: float = 0.005
    ema: float = 0.995
    precision: str = "bf16"


DEMO = Scale(
    data="digits",
    words="convnet 8-16-32",
    trunk={"name": "convnet", "stem": "strided", "widths": [8, 16, 32]},
    stage={**SHORT, "epochs": 6, "threat": "linf:0.1"},
    images=1000,
    judged=100,
    attack="pgd-20",
    threat="linf:0.1",
)
SMALL = Scale(
    data="cifar10",
    words="convnet 16-32-64, strided stem",
    trunk={"name": "convnet", "stem": "strided", "widths": [16, 32, 64]},
    stage={**SHORT, "epochs": 10},
    images=10_000,
    judged=500,
)
FULL = Scale(
    data="cifar10",
    words="PreAct ResNet-18",
    trunk={"name": "preact-resnet18"},
    stage={**SHORT, "epochs": 100, "schedule": "cosine"},
    images=50_000,
    judged=10_000,
    precision="fp32",
)


@dataclass(frozen=True, kw_only=True)
class Method:
    """One row of the table: a method, with weight perturbation or averaging or neither."""

    name: str
    extra: str = ""

    @property
    def words(self) -> str:
        return f"{self.name} + {self.extra}" if self.extra else self.name

    def config(self, settings: Scale) -> RunConfig:
        stage = {**settings.stage, **METHODS[self.name]}
        if self.extra == "AWP":
            stage["awp"] = settings.awp
        elif self.extra == "EMA":
            stage["ema"] = settings.ema
        return RunConfig(
            data=settings.data,
            trunk=settings.trunk,
            stages=(StageConfig(tasks={"labels": TaskConfig(task="labels")}, **stage),),
        )


ROWS = [Method(name=name, extra=extra) for name in METHODS for extra in ("", "AWP")] + [
    Method(name=AVERAGED, extra="EMA")
]


@dataclass(frozen=True, kw_only=True)
class Judged:
    """One method's run, and its records: clean and attacked test images, attacked training images."""

    method: Method
    run: TrainedRun
    clean: Records
    test: Records
    train: Records

    @property
    def gap(self) -> float:
        """Robust accuracy on training images less that on test images."""
        return self.train.accuracy - self.test.accuracy

    def rows(self) -> Iterator[dict[str, Any]]:
        cost = {"cpu_seconds": round(self.run.cpu_seconds, 1), "model_images": self.run.model_images}
        yield self.clean.row(self.method.words, seed=0).to_json() | {"cost": cost}
        for records in (self.test, self.train):
            yield records.row(self.method.words, seed=0).to_json()


@STUDIES.add("adversarial-training")
class AdversarialTraining(Study):
    """The ways to train a robust classifier, judged alike."""

    name = "adversarial-training"
    title = "Adversarial training: what robustness costs"
    subtitle = (
        "Methods that train a robust classifier, on the same images, trunk and epochs, judged by the same attack."
    )
    scales: ClassVar[Mapping[str, Any]] = {"demo": DEMO, "small": SMALL, "full": FULL}

    def run(self, scale: str, work: Workspace) -> Outcome:
        settings: Scale = self.scales[scale]
        # The longest first, so that the processes end together.
        work.together([functools.partial(_judge, settings, method) for method in sorted(ROWS, key=_is_fast)])
        judged = [_judge(settings, method, work) for method in ROWS]
        train, test = work.table(settings.data, "train"), work.table(settings.data, "test")
        return Outcome(
            rows=[row for one in judged for row in one.rows()],
            claims=claims({one.method: one for one in judged}),
            data={settings.data: {"train": min(settings.images, len(train)), test.split: len(test)}},
            notes=[
                f"{settings.words}, {settings.stage['epochs']} epochs, one training seed: differences between methods "
                "are those of these networks.",
                f"All but {FAST} learn from {PGD}. AWP's gamma is {settings.awp}, EMA's decay {settings.ema} a step.",
                f"The robust gap is the accuracy under {settings.attack} on {settings.judged} training images less "
                "that on as many test images.",
            ],
            curves=[
                Curve(one.method.words, work.run_folder(_path(one.method)) / "metrics.csv")
                for one in judged
                if not one.method.extra
            ],
            gallery=[],
            charts=[_gaps(judged), _costs(judged)],
        )


def _is_fast(method: Method) -> tuple[bool, bool]:
    return method.name == FAST, not method.extra


def _path(method: Method) -> str:
    return method.words.lower().replace(" + ", "-")


def _judge(settings: Scale, method: Method, work: Workspace) -> Judged:
    name, whole = _path(method), work.table(settings.data, "train")
    table = whole.sample(min(settings.images, len(whole)), Streams(0).named("training images"))
    run = work.trained(name, method.config(settings), table)
    test = work.table(settings.data, "test")
    return Judged(
        method=method,
        run=run,
        clean=work.clean(name, run.network, test, settings.threat),
        test=_attacked(settings, name, run, test, "test", work),
        train=_attacked(settings, name, run, table, "train", work),
    )


def _attacked(settings: Scale, name: str, run: TrainedRun, table: Table, split: str, work: Workspace) -> Records:
    return work.judged(
        name,
        run.network,
        lambda: work.adversarial(
            f"{name}-{split}",
            run,
            table.sample(min(settings.judged, len(table)), Streams(0).named("judged images")),
            make_attack(settings.attack, settings.threat),
            seed=0,
            proxy=ProxySettings(dtype=settings.precision),
            keep=False,
        ),
        f"{split}-{settings.attack}",
    )


def claims(judged: Mapping[Method, Judged]) -> list[dict[str, Any]]:
    """What the papers say of one another, on these networks."""
    fast, slow = judged[Method(name=FAST)].run.model_images, judged[Method(name=PGD)].run.model_images
    found = [
        {
            "text": f"{FAST} costs at most {LARGEST_SHARE:.2f} of {PGD}",
            "verdict": HOLDS if fast <= LARGEST_SHARE * slow else FAILS,
            "evidence": f"{fast:,} and {slow:,} images through the network in training: {fast / slow:.3f}.",
        }
    ]
    plain = [
        ("TRADES-6", PGD, "is more robust than"),
        ("MART", PGD, "is more robust than"),
        (PGD, FAST, "is more robust than"),
        ("TRADES-6", "TRADES-1", "is more robust than"),
    ]
    found += [_compared(judged[Method(name=a)], judged[Method(name=b)], words) for a, b, words in plain]
    found += [
        _compared(judged[Method(name=name, extra="AWP")], judged[Method(name=name)], "is more robust than")
        for name in METHODS
    ]
    averaged = judged[Method(name=AVERAGED, extra="EMA")]
    return [*found, _compared(averaged, judged[Method(name=AVERAGED)], "is more robust than")]


def _compared(first: Judged, second: Judged, words: str) -> dict[str, Any]:
    found = gain([first.test], [second.test])
    return {
        "text": f"{first.method.words} {words} {second.method.words}",
        "verdict": found.above(),
        "evidence": f"Under {first.test.attack}: {found.words()}; clean {100 * first.clean.accuracy:.1f} % and "
        f"{100 * second.clean.accuracy:.1f} %, robust gap {100 * first.gap:+.1f} and {100 * second.gap:+.1f} points. "
        f"{ABOVE_ZERO}",
    }


def _gaps(judged: list[Judged]) -> dict[str, Any]:
    series = [
        {"name": name, "points": [[one.method.words, *_share(getattr(one, part))] for one in judged]}
        for name, part in (("training images", "train"), ("test images", "test"))
    ]
    return {
        "title": "Robust overfitting",
        "x": "method",
        "y": "accuracy under attack",
        "kind": "bars",
        "series": series,
        "caption": "The distance between the bars of a method is its robust gap. With 95 % intervals.",
    }


def _costs(judged: list[Judged]) -> dict[str, Any]:
    points = [[one.method.words, one.run.model_images / 1e6] for one in judged]
    return {
        "title": "Cost",
        "x": "method",
        "y": "millions of images through the network",
        "kind": "bars",
        "series": [{"name": "training", "points": points}],
        "caption": "Counted exactly: every image that went forward through the network in training, crafting included.",
    }


def _share(records: Records) -> list[float]:
    low, high = records.interval()
    return [round(value, 6) for value in (records.accuracy, low, high)]
