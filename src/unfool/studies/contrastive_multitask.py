"""System A: does a contrastive auxiliary task, trained in parallel, make a classifier robust?

The source trains three networks (single task; labels + SimCLR; fine + coarse labels) and attacks them with FGSM and
PGD. Its adversarial examples were crafted on the first network and shown to all three, so the figures of the other
two are transfer accuracies. This study reports those, as the source did, and beside them what each network keeps when
it is attacked itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from unfool.evaluation import Records
from unfool.report.curves import Curve
from unfool.studies.base import STUDIES, Outcome, Study
from unfool.studies.contrastive_claims import judge_claims
from unfool.studies.contrastive_gallery import gallery
from unfool.studies.contrastive_networks import Trained, crafted, networks_of
from unfool.studies.contrastive_scales import (
    AS_MEANT,
    ATTACKS,
    DEMO,
    FULL,
    SINGLE,
    SMALL,
    SOURCE,
    THREAT,
    Scale,
)
from unfool.studies.workspace import Workspace


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """The records of one network under one attack; ``protocol`` follows from the records themselves."""

    trained: Trained
    records: Records

    def row(self) -> dict[str, Any]:
        table = SOURCE.get(self.trained.data, {}).get(self.trained.model)
        # The source's figures for its second and third model are transfer; nothing of it stands beside white-box ones.
        protocol = "white-box" if self.trained.model == SINGLE else "transfer"
        value = None
        if table is not None and self.trained.comparable and self.records.protocol in ("clean", protocol):
            value = round(table[("none", *ATTACKS).index(self.records.attack)] / 100, 6)
        row = self.records.row(
            self.trained.model, seed=self.trained.seed, settings=self.trained.settings, source_value=value
        ).to_json()
        if self.records.attack == "none":
            run = self.trained.run
            row["cost"] = {"cpu_seconds": round(run.cpu_seconds, 1), "model_images": run.model_images}
        return row


@STUDIES.add("contrastive-multitask")
class ContrastiveMultitask(Study):
    """System A, three models under FGSM and PGD, in the source's transfer protocol and white-box."""

    title = "Contrastive multitask learning: robust, or only never attacked?"
    subtitle = (
        "System A: one network classifies, one also contrasts, one also predicts coarser labels. "
        "Attacked as its authors did (examples crafted on the first network) and as they did not (on each itself)."
    )
    scales: ClassVar[Mapping[str, Any]] = {"demo": DEMO, "small": SMALL, "full": FULL}

    def run(self, scale: str, work: Workspace) -> Outcome:
        settings = self.scales[scale]
        judged: list[Judged] = []
        networks: list[Trained] = []
        for data in settings.data:
            for trained in networks_of(settings, data, work):
                networks.append(trained)
                judged.extend(_judged(settings, trained, networks, work))
        return Outcome(
            rows=[item.row() for item in judged],
            claims=judge_claims(judged),
            data=_described(settings, work),
            notes=_notes(scale, settings, judged),
            curves=[
                Curve(f"{item.data} · {item.model}", work.run_folder(item.path) / "metrics.csv")
                for item in networks
                if item.variant.main and item.seed == 0 and item.loss != AS_MEANT
            ],
            gallery=gallery(networks, work, settings),
        )


def _judged(settings: Scale, trained: Trained, networks: list[Trained], work: Workspace) -> Iterator[Judged]:
    """Clean, then each attack: with the single-task network's examples, as in the source, and on the network."""
    yield Judged(
        trained=trained, records=work.clean(trained.path, trained.run.network, work.table(trained.data, "test"), THREAT)
    )
    for name in ATTACKS:
        if trained.model != SINGLE:
            crafter = next(
                item
                for item in networks
                if (item.data, item.seed, item.variant, item.model)
                == (trained.data, trained.seed, trained.variant, SINGLE)
            )
            transferred = work.judged(
                trained.path,
                trained.run.network,
                lambda name=name, by=crafter: crafted(settings, by, name, work),
                f"{name}-transfer",
            )
            yield Judged(trained=trained, records=transferred)
        own = work.judged(
            trained.path,
            trained.run.network,
            lambda name=name: crafted(settings, trained, name, work),
            f"{name}-white-box",
        )
        yield Judged(trained=trained, records=own)


def _described(settings: Scale, work: Workspace) -> dict[str, Any]:
    described = {}
    for data in settings.data:
        train, test = work.table(data, "train"), work.table(data, "test")
        attacked = min(settings.attacked, len(test))
        described[data] = {"train": len(train), test.split: len(test), "attacked": attacked}
    return described


def _notes(scale: str, settings: Scale, judged: Sequence[Judged]) -> list[str]:
    """Every deviation from the source, in words."""
    notes = [
        "The source's figures for its second and third model are transfer accuracies: their examples were crafted on "
        "the first. PGD that beats FGSM less the more steps it takes is how that shows.",
        "The source's code adds 0.5 × labels + 0.5 + contrast; the constant moves no weight, so as written the loss is "
        "0.5 × labels + 1 × contrast. Rows marked as meant use 0.5 × contrast.",
        "PGD starts at random within the ball, which the source does not state. White-box rows count a success at any "
        "step; examples for transfer, and the single-task network's own rows, are last iterates.",
        "The source does not state the augmentation of its first and third model: padded crop and flip here.",
    ]
    if scale != "full":
        stage = settings.variants[0].stage
        notes.append(
            f"Scale {scale}: {settings.variants[0].words} for the source's ResNet-18, {stage['epochs']} epochs for "
            f"100, SGD at {stage['learning_rate']} for Adam at 0.0003, linear class heads for two-layer ones, bf16 "
            "training; the source's values stand in scale full."
        )
        notes.append(
            "Attacks search in bf16; each success counted was confirmed in fp32, and what bf16 left standing was "
            "finished in fp32."
        )
    flat = sum(item.records.flat > 0 for item in judged)
    if flat:
        notes.append(
            f"In {flat} rows the attacked network gave no gradient on some image that stood: perhaps masked, not robust"
        )
    return notes
