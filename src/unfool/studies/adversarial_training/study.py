"""The methods compared: fast adversarial training (Wong et al., ICLR 2020), N-FGSM (de Jorge et al., NeurIPS 2022), PGD
(Madry et al., ICLR 2018), TRADES (Zhang et al., ICML 2019) and MART (Wang et al., ICLR 2020), with and without
adversarial weight perturbation (Wu et al., NeurIPS 2020) and weight averaging.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from statistics import mean

from unfool.attacks import make_attack
from unfool.evaluation import Records
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.statistics.chart_kinds import bars, spread, training_costs
from unfool.report.plots.curves import Curve
from unfool.studies import framework as fw
from unfool.studies.adversarial_training.scales import ALL, AWP, EMA, FAST, METHODS, NOISY, PGD, SCALES, Scale
from unfool.studies.framework import counted
from unfool.training import RunConfig

LARGEST_SHARE = 0.30
"""What fast adversarial training may cost of PGD's, in images through the network."""
MORE_ROBUST = [
    ("TRADES-6", PGD),
    ("MART", PGD),
    (PGD, FAST),
    (NOISY, FAST),
    ("TRADES-6", "TRADES-1"),
    *((name, name.partition(" + ")[0]) for name in ALL if " + " in name),
]
"""What the papers say of one another: the first is more robust than the second."""


@fw.STUDIES.add("adversarial-training")
class AdversarialTraining(fw.Study[Scale]):
    """The ways to train a robust classifier, attacked alike."""

    name = "adversarial-training"
    title = "Adversarial training: what robustness costs"
    subtitle = "Methods that train a robust classifier, on the same images, trunk and epochs, under the same attack."
    scales = SCALES
    published = fw.Published.beside(__file__, lambda row: (row.data, row.split) == ("cifar10", "test"))

    def networks(self, scale: Scale) -> list[fw.NetworkSpec]:
        return [_network(scale, method, seed) for method in scale.methods for seed in scale.seeds]

    def measurements(self, scale: Scale, networks: Sequence[fw.NetworkSpec]) -> Iterator[fw.Measurement]:
        """Clean test images, then attacked test and training images."""
        for network in networks:
            test = fw.Images(data=scale.data)
            yield fw.Clean(system=network, images=test, threat=scale.threat)
            for images in (test, _training_images(scale)):
                examples = fw.Examples(
                    network=network,
                    attack=make_attack(scale.attack, scale.threat),
                    images=images.sample(scale.attacked, "judged images"),
                    precision=scale.precision,
                )
                yield fw.Attacked(system=network, examples=examples)

    def claims(self, scale: Scale) -> Iterator[fw.Claim]:
        """What the papers say of one another, on these networks."""
        yield fw.Claim(
            id="fast-is-cheap",
            text=f"{FAST} costs at most {LARGEST_SHARE:.2f} of {PGD}",
            evidence=lambda results: self._cost_share(scale, results),
            rule=fw.AtMost(LARGEST_SHARE),
        )
        for better, worse in MORE_ROBUST:
            yield fw.Claim(
                id=f"{better} over {worse}",
                text=f"{better} is more robust than {worse}",
                evidence=lambda results, pair=(better, worse): _compared(results, scale.attack, *pair),
                rule=fw.Above(0.0),
            )

    def _cost_share(self, scale: Scale, results: fw.Results) -> fw.Estimate:
        fast, slow = (results.run(_network(scale, method, scale.seeds[0])).model_images for method in (FAST, PGD))
        return counted(fast / slow, f"{fast:,} and {slow:,} images through the network in training")

    def charts(self, scale: Scale, results: fw.Results) -> list[Chart]:
        series = {
            words: [spread(method, _robust(results, method, split)) for method in scale.methods]
            for words, split in (("training images", "train"), ("test images", "test"))
        }
        several = "Lowest and highest of the training seeds are marked." if len(scale.seeds) > 1 else ""
        caption = f"The distance between the bars of a method is its robust gap. {several or 'With 95 % intervals.'}"
        costs = {network.model: results.run(network).model_images for network in self._first(scale)}
        return [bars("Robust overfitting", "method", "accuracy under attack", series, caption), training_costs(costs)]

    def curves(self, scale: Scale, results: fw.Results) -> list[Curve]:
        return [Curve(network.model, network.metrics(results.work)) for network in self._first(scale)]

    def _first(self, scale: Scale) -> list[fw.NetworkSpec]:
        return [network for network in self.networks(scale) if network.seed == scale.seeds[0]]


def _training_images(scale: Scale) -> fw.Images:
    return fw.Images(data=scale.data, split="train").sample(scale.images, "training images")


def _network(scale: Scale, method: str, seed: int) -> fw.NetworkSpec:
    """A method, with weight perturbation or averaging or neither."""
    name, _, extra = method.partition(" + ")
    extras = {AWP: {"awp": scale.awp}, EMA: {"ema": scale.ema}, "": {}}[extra]
    stage = replace(scale.stage, **METHODS[name], **extras)
    config = RunConfig(data=scale.data, trunk=scale.trunk, stages=(stage,), seed=seed)
    return fw.NetworkSpec(key={"model": method, "seed": seed}, config=config, images=_training_images(scale))


def _robust(results: fw.Results, model: str, split: str) -> list[Records]:
    """Under attack, one a training seed."""
    return list(results.by_seed(model=model, protocol="white-box", split=split).values())


def _mean(records: Iterable[Records]) -> float:
    return mean(item.accuracy for item in records)


def _compared(results: fw.Results, attack: str, better: str, worse: str) -> fw.Estimate | None:
    """Robust test accuracy of two methods, with their clean accuracy and their robust gaps."""
    under = {"protocol": "white-box", "split": "test"}
    difference = fw.Difference(a={"model": better}, b={"model": worse}, under=under, detail=f"Under {attack}")(results)
    if difference is None:
        return None
    pair = (better, worse)
    clean = [f"{100 * _mean(results.by_seed(model=model, protocol='clean').values()):.1f} %" for model in pair]
    gaps = [
        f"{100 * (_mean(_robust(results, model, 'train')) - _mean(_robust(results, model, 'test'))):+.1f}"
        for model in pair
    ]
    more = f"Clean {' and '.join(clean)}, robust gap {' and '.join(gaps)} points."
    return replace(difference, more=more)
