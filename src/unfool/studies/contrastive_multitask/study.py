"""The networks, measurements and claims of system A.

The source trains three networks (single task; labels + SimCLR; fine + coarse labels) and attacks them with FGSM and
PGD. Its adversarial examples were crafted on the first network and shown to all three, so the figures of the other
two are transfer accuracies. This study reports those, as the source did, and beside them what each network keeps when
it is attacked itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from unfool.attacks import make_attack
from unfool.report.curves import Curve
from unfool.report.gallery import GalleryItem
from unfool.studies import framework as fw
from unfool.studies.contrastive_multitask.scales import (
    AS_MEANT,
    AS_WRITTEN,
    ATTACKS,
    CIFAR,
    PUBLISHED,
    SCALES,
    SIMCLR,
    SINGLE,
    STEP_SIZE,
    SUPERVISED,
    THREAT,
    Scale,
    Variant,
)
from unfool.training import RunConfig, TaskConfig

CLAIMED = (
    # id, the source's set, model, gain in robust accuracy, the source's sentence
    ("contrast", "cifar10", SIMCLR, 0.60, "contrast adds about 60 points of robust accuracy"),
    ("supervised-100", "cifar100", SUPERVISED, 0.25, "a supervised auxiliary adds about 25 points of robust accuracy"),
    ("contrast-100", "cifar100", SIMCLR, 0.42, "contrast adds about 42 points of robust accuracy"),
)
PROTOCOLS = {
    "transfer": ("pgd-7", "as the source measured it: examples of another network"),
    "white-box": ("pgd-50", "attacked itself"),
}
"""The source's own figures are under PGD-7, by transfer; white-box is judged by the strongest attack that was run."""


@fw.STUDIES.add("contrastive-multitask")
class ContrastiveMultitask(fw.Study[Scale]):
    """System A, three models under FGSM and PGD, in the source's transfer protocol and white-box."""

    name = "contrastive-multitask"
    title = "Contrastive multitask learning: robust, or only never attacked?"
    subtitle = (
        "System A: one network classifies, one also contrasts, one also predicts coarser labels. "
        "Attacked as its authors did (examples crafted on the first network) and as they did not (on each itself)."
    )
    scales = SCALES
    published = PUBLISHED

    def networks(self, scale: Scale) -> list[fw.NetworkSpec]:
        """Every network; of each group the single-task one first, for the others need its examples."""
        return [
            _network(data, variant, model, loss, seed, scale.data[data])
            for data in scale.data
            for variant in scale.variants
            if not variant.sets or data in variant.sets
            for seed in variant.seeds
            for model, loss in _models(variant, data, seed, scale.data[data][1])
        ]

    def measurements(self, scale: Scale, networks: Sequence[fw.NetworkSpec]) -> list[fw.Measurement]:
        """Clean, then each attack: with the single-task network's examples, as in the source, and on the network."""
        return [item for network in networks for item in _measured(scale, network, networks)]

    def claims(self, scale: Scale) -> Iterator[fw.Claim]:
        """The source's claims, each judged twice: as the source measured it, and white-box."""
        trunk = next(variant.words for variant in scale.variants if variant.main)
        for data, (_, auxiliary) in scale.data.items():
            known = [entry for entry in CLAIMED if entry[1] == data]
            # A set that the source did not use (the demo's digits) borrows the claims of its CIFAR-10 and CIFAR-100.
            for protocol, (attack, way) in PROTOCOLS.items():
                under = {"data": data, "trunk": trunk, "attack": attack}
                gains = {
                    model: _gain(model, protocol, under) for model in (SIMCLR, *([SUPERVISED] if auxiliary else []))
                }
                for name, source, model, claimed, text in known or CLAIMED[:2]:
                    where = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}[source] if known else data
                    yield fw.Claim(
                        id=f"{name}-{data}-{protocol}",
                        text=f"On {where} {text} ({way})",
                        evidence=gains[model],
                        rule=fw.HalfOf(claimed),
                    )
                if auxiliary:
                    yield fw.Claim(
                        id=f"contrast-against-supervised-{data}-{protocol}",
                        text=f"On {data} contrast regularises far better than a supervised auxiliary ({way})",
                        evidence=fw.Beyond(
                            first=gains[SIMCLR],
                            second=gains[SUPERVISED],
                            detail=f"gain of contrast minus gain of the supervised auxiliary, {attack}, {protocol}",
                        ),
                        rule=fw.HalfOf(0.17),
                    )

    def curves(self, scale: Scale, results: fw.Results) -> list[Curve]:
        main = {variant.words for variant in scale.variants if variant.main}
        return [
            Curve(f"{network.data} · {network.model}", network.metrics(results.work))
            for network in self.networks(scale)
            if network.seed == 0 and network.key["trunk"] in main and network.key["loss"] != AS_MEANT
        ]

    def gallery(self, scale: Scale, results: fw.Results) -> list[GalleryItem]:
        """The first images that the single-task network gets right, clean, and wrong under PGD-20; seed 0."""
        items: list[GalleryItem] = []
        for data in scale.data:
            shown = [
                network
                for network in self.networks(scale)
                if (network.data, network.key["trunk"], network.seed) == (data, scale.variants[0].words, 0)
                and network.key["loss"] != AS_MEANT
            ]
            items += results.fooled_images(_examples(scale, shown[0], "pgd-20"), shown, 2)
        return items


def _models(variant: Variant, data: str, seed: int, auxiliary: str | None) -> list[tuple[str, str]]:
    """The models of one variant and seed, with the words for their loss."""
    models = [(SINGLE, ""), (SIMCLR, AS_WRITTEN), *([(SUPERVISED, "")] if auxiliary else [])]
    return models + ([(SIMCLR, AS_MEANT)] if data in variant.meant and seed in variant.meant_seeds else [])


def _network(
    data: str, variant: Variant, model: str, loss: str, seed: int, columns: tuple[str, str | None]
) -> fw.NetworkSpec:
    """One of the three models; both augmented views are classified where there are two."""
    labels = {"column": columns[0], "hidden": variant.hidden}
    tasks = {"labels": TaskConfig(task="labels", settings=labels)}
    if model == SUPERVISED:
        tasks["coarse"] = TaskConfig(task="labels", settings={**labels, "column": columns[1]})
    elif model == SIMCLR:
        views = {**labels, "augmentation": "simclr", "views": 2}
        temperature = {"temperature": variant.temperature}
        tasks = {
            "labels": TaskConfig(task="labels", weight=0.5, settings=views),
            "contrast": TaskConfig(task="contrast", weight=1.0 if loss == AS_WRITTEN else 0.5, settings=temperature),
        }
    config = RunConfig(
        data=data,
        trunk=variant.trunk,
        stages=(replace(variant.stage, tasks=tasks),),
        seed=seed,
        normalisation=data if data in CIFAR else "cifar10",
    )
    key = {"data": data, "trunk": variant.words, "model": model, "loss": loss, "seed": seed}
    return fw.NetworkSpec(key=key, config=config)


def _examples(scale: Scale, network: fw.NetworkSpec, attack: str) -> fw.Examples:
    """One attack on one network. Examples meant for transfer are last iterates, as the source's are."""
    values = {} if attack == "fgsm" else {"step_size": STEP_SIZE}
    single = network.model == SINGLE
    return fw.Examples(
        network=network,
        attack=make_attack(attack, THREAT, {**values, "goal": "last"} if single else values),
        images=fw.Images(data=network.data).sample(scale.attacked),
        seed=network.seed,
        precision=scale.precision,
        kept=single,
    )


def _measured(scale: Scale, network: fw.NetworkSpec, networks: Sequence[fw.NetworkSpec]) -> Iterator[fw.Measurement]:
    yield fw.Clean(system=network, images=fw.Images(data=network.data), threat=THREAT)
    group = {**network.key, "model": SINGLE, "loss": ""}
    single = next(item for item in networks if item.key == group)
    for attack in ATTACKS:
        if network != single:
            yield fw.Attacked(system=network, examples=_examples(scale, single, attack))
        yield fw.Attacked(system=network, examples=_examples(scale, network, attack))


def _gain(model: str, protocol: str, under: dict[str, str]) -> fw.Difference:
    """A model's robust accuracy less that of the single-task network attacked itself."""
    return fw.Difference(
        a={"model": model, "protocol": protocol, "loss": AS_WRITTEN if model == SIMCLR else None},
        b={"model": SINGLE, "protocol": "white-box"},
        under=under,
        detail=f"{model} minus {SINGLE} under {under['attack']}, {protocol}",
    )
