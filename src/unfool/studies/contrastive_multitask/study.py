"""The networks, measurements and claims of system A.

The source trains three networks (single task; labels + SimCLR; fine + coarse labels) and attacks them with FGSM and
PGD. Its adversarial examples were crafted on the first network and shown to all three, so the figures of the other
two are transfer accuracies. This study reports those, as the source did, and beside them what each network keeps when
it is attacked itself; a gain is what a network keeps beyond its control, which differs from it in one thing alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from unfool.attacks import make_attack
from unfool.report.pictures.gallery import GalleryItem
from unfool.report.plots.curves import Curve
from unfool.studies import framework as fw
from unfool.studies.contrastive_multitask.scales import (
    ADVERSARIAL,
    AS_MEANT,
    AS_WRITTEN,
    ATTACKS,
    PUBLISHED,
    SCALES,
    SIMCLR,
    SINGLE,
    STEP_SIZE,
    SUPERVISED,
    TEMPERATURE,
    THREAT,
    VIEWS,
    Scale,
    Variant,
)
from unfool.training import RunConfig, TaskConfig

CLAIMED = (
    # id, the source's set, model, gain in robust accuracy, what is claimed, of what if not of the model itself
    ("contrast", "cifar10", SIMCLR, 0.60, "contrast adds robust accuracy", ""),
    ("views", "cifar10", VIEWS, 0.60, "SimCLR's views without contrast add robust accuracy", "of contrast"),
    ("supervised", "cifar100", SUPERVISED, 0.25, "a supervised auxiliary adds robust accuracy", ""),
    ("contrast", "cifar100", SIMCLR, 0.42, "contrast adds robust accuracy", ""),
    ("views", "cifar100", VIEWS, 0.42, "SimCLR's views without contrast add robust accuracy", "of contrast"),
)
CONTROLS = {SIMCLR: VIEWS, SUPERVISED: SINGLE, VIEWS: SINGLE, ADVERSARIAL: SIMCLR}
"""What a model is compared with: it differs in the added task alone, or in the views alone."""
WAYS = {
    "as-computed": ("transfer", "white-box", "pgd-7", "as computed: its transfer accuracy less the attacked network's"),
    "transfer": ("transfer", "transfer", "pgd-7", "beyond its control, on examples of another network"),
    "white-box": ("white-box", "white-box", "pgd-50", "beyond its control, each attacked itself"),
}
"""Protocols of a model and of what it is compared with, and the attack. The source's figures are under PGD-7."""


@fw.STUDIES.add("contrastive-multitask")
class ContrastiveMultitask(fw.Study[Scale]):
    """System A, its models and their controls under FGSM and PGD, by transfer as in the source and white-box."""

    name = "contrastive-multitask"
    title = "Contrastive multitask learning: robust, or only never attacked?"
    subtitle = (
        "System A: one network classifies, one also contrasts, one also predicts coarser labels. "
        "Attacked as its authors did (examples crafted on another network) and as they did not (on each itself)."
    )
    scales = SCALES
    published = PUBLISHED

    def networks(self, scale: Scale) -> list[fw.NetworkSpec]:
        """Every network, of each seed the single-task one first."""
        return [
            _network(scale, data, variant, model, loss, seed)
            for data in scale.data
            for variant in scale.variants
            if not variant.sets or data in variant.sets
            for seed in variant.single_seeds
            for model, loss in _models(variant, data, seed, scale.data[data][1])
        ]

    def measurements(self, scale: Scale, networks: Sequence[fw.NetworkSpec]) -> Iterator[fw.Measurement]:
        """Clean, then each attack: with examples of a single-task network of another seed, and on the network."""
        for network in networks:
            yield fw.Clean(system=network, images=fw.Images(data=network.data), threat=THREAT)
            for attack in ATTACKS:
                yield fw.Attacked(system=network, examples=_examples(scale, _crafted_on(network, networks), attack))
                yield fw.Attacked(system=network, examples=_examples(scale, network, attack))

    def claims(self, scale: Scale) -> Iterator[fw.Claim]:
        """The source's claims as it computed them and beyond a control, what views alone add, and what attacks do."""
        trunk = next(variant.words for variant in scale.variants if variant.main)
        for data, (_, auxiliary) in scale.data.items():
            # A set that the source did not use (the demo's digits) borrows the claims of its CIFAR-10 and CIFAR-100.
            known = [entry for entry in CLAIMED if entry[1] == data] or CLAIMED[:3]
            where = {"cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}.get(data, data)
            for way, (*_, attack, words) in WAYS.items():
                gains = {model: _gain(model, way, data, trunk) for model in CONTROLS}
                for name, _, model, claimed, text, of in known:
                    if way == "transfer" or model != VIEWS:
                        text = f"On {where} {text} ({words})"
                        controls = _controls(data, trunk, model, claimed)
                        yield fw.Claim(f"{name}-{data}-{way}", text, gains[model], fw.HalfOf(claimed, of), controls)
                if auxiliary and way != "as-computed":
                    detail = f"Gain of contrast minus gain of the supervised auxiliary, {attack}, {way}"
                    yield fw.Claim(
                        id=f"contrast-against-supervised-{data}-{way}",
                        text=f"On {where} contrast regularises far better than a supervised auxiliary ({words})",
                        evidence=fw.Beyond(first=gains[SIMCLR], second=gains[SUPERVISED], detail=detail),
                        rule=fw.HalfOf(0.17),
                        control=_controls(data, trunk, SIMCLR, 0.42),
                    )
            yield fw.Claim(
                id=f"adversarial-{data}-white-box",
                text=f"On {where} {ADVERSARIAL} of as many model images keeps more than contrast, each attacked itself",
                evidence=_gain(ADVERSARIAL, "white-box", data, trunk),
                rule=fw.Above(0.0),
            )

    def curves(self, scale: Scale, results: fw.Results) -> list[Curve]:
        first = self._first(scale)
        return [Curve(f"{network.data} · {network.model}", network.metrics(results.work)) for network in first]

    def gallery(self, scale: Scale, results: fw.Results) -> list[GalleryItem]:
        """The first images that a single-task network gets right, clean, and wrong under PGD-20."""
        items: list[GalleryItem] = []
        for data in scale.data:
            first = [network for network in self._first(scale) if network.data == data]
            crafted_on = _crafted_on(first[0], self.networks(scale))
            items += results.fooled_images(_examples(scale, crafted_on, "pgd-20"), [crafted_on, *first[1:]], 2)
        return items

    def _first(self, scale: Scale) -> list[fw.NetworkSpec]:
        """One network of each model and data set, with the loss as written."""
        main = {variant.words for variant in scale.variants if variant.main}
        return [
            network
            for network in self.networks(scale)
            if network.seed == 0 and network.key["trunk"] in main and network.key["loss"] != AS_MEANT
        ]


def _models(variant: Variant, data: str, seed: int, auxiliary: str | None) -> list[tuple[str, str]]:
    """The models of one variant and seed, with the words for their loss."""
    models = [(SINGLE, "")]
    if seed in variant.seeds:
        models += [(VIEWS, ""), (SIMCLR, AS_WRITTEN)]
        models += [(SUPERVISED, "")] if auxiliary else []
        models += [(ADVERSARIAL, "")] if variant.adversarial_steps else []
        models += [(SIMCLR, AS_MEANT)] if data in variant.meant and seed == variant.seeds[0] else []
    return models


def _network(scale: Scale, data: str, variant: Variant, model: str, loss: str, seed: int) -> fw.NetworkSpec:
    """One network; both augmented views are classified where there are two."""
    (column, auxiliary), stage = scale.data[data], variant.stage
    labels = {"column": column, "hidden": variant.hidden}
    tasks = {"labels": TaskConfig(task="labels", settings=labels)}
    if model == ADVERSARIAL:
        short = {"epochs": 1, "steps": variant.adversarial_steps, "constant_epochs": 0, "cosine_epochs": 0}
        stage = replace(stage, **short, perturb="pgd-10", threat=THREAT)
    elif model == SUPERVISED:
        tasks["coarse"] = TaskConfig(task="labels", settings={**labels, "column": auxiliary})
    elif model in (SIMCLR, VIEWS):
        views = {**labels, "augmentation": "simclr", "views": 2}
        tasks["labels"] = TaskConfig(task="labels", weight=0.5, settings=views)
    if model == SIMCLR:
        weight = 1.0 if loss == AS_WRITTEN else 0.5
        tasks["contrast"] = TaskConfig(task="contrast", weight=weight, settings={"temperature": TEMPERATURE})
    config = RunConfig(
        data=data, trunk=variant.trunk, stages=(replace(stage, tasks=tasks),), seed=seed, normalisation="none"
    )
    key = {"data": data, "trunk": variant.words, "model": model, "loss": loss, "seed": seed}
    return fw.NetworkSpec(key=key, config=config)


def _crafted_on(network: fw.NetworkSpec, networks: Sequence[fw.NetworkSpec]) -> fw.NetworkSpec:
    """The single-task network of the next seed: it shares neither initial weights nor batches with the network."""
    alike = {**network.key, "model": SINGLE, "loss": ""}
    singles = [item for item in networks if {**alike, "seed": item.seed} == item.key]
    seeds = [item.seed for item in singles]
    return singles[(seeds.index(network.seed) + 1) % len(seeds)]


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


def _controls(data: str, trunk: str, model: str, claimed: float) -> tuple[fw.Control, ...]:
    """Clean rows that must be near the source's: that of the single-task network, and that of the model itself, which
    keeps no more than it gets right: with less than half of the claimed gain it would fail whatever its task does."""
    words = {"data": data, "trunk": trunk, "attack": "none"}
    single, clean = fw.Control({**words, "model": SINGLE}), PUBLISHED.figures.get((data, model, "none"))
    if clean is None:
        return (single,)
    own = {**words, "model": model, "loss": AS_WRITTEN if model == SIMCLR else None}
    return single, fw.Control(own, within=clean / 100 - claimed / 2)


def _gain(model: str, way: str, data: str, trunk: str) -> fw.Difference:
    """What a model keeps beyond its control; as the source computed it, beyond the single-task network."""
    ours, theirs, attack, _ = WAYS[way]
    control = SINGLE if way == "as-computed" else CONTROLS[model]
    a, b = (
        {"model": name, "protocol": protocol, "loss": AS_WRITTEN if name == SIMCLR else None}
        for name, protocol in ((model, ours), (control, theirs))
    )
    detail = f"{model} minus {control} under {attack}, {ours if ours == theirs else f'{ours} minus {theirs}'}"
    return fw.Difference(a=a, b=b, under={"data": data, "trunk": trunk, "attack": attack}, detail=detail)
