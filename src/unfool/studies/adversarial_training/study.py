"""The methods compared: fast adversarial training (Wong et al., ICLR 2020), PGD (Madry et al., ICLR 2018), TRADES
(Zhang et al., ICML 2019) and MART (Wang et al., ICLR 2020), each with and without adversarial weight perturbation (Wu
et al., NeurIPS 2020), one with weight averaging.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from unfool.attacks import make_attack
from unfool.evaluation import Records
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.statistics.chart_kinds import bars, point, training_costs
from unfool.report.curves import Curve
from unfool.studies import framework as fw
from unfool.studies.adversarial_training.scales import AVERAGED, FAST, METHODS, PGD, SCALES, Scale
from unfool.studies.framework import counted
from unfool.training import RunConfig

LARGEST_SHARE = 0.30
"""What fast adversarial training may cost of PGD's, in images through the network."""
MORE_ROBUST = [
    ("TRADES-6", PGD),
    ("MART", PGD),
    (PGD, FAST),
    ("TRADES-6", "TRADES-1"),
    *((f"{method} + AWP", method) for method in METHODS),
    (f"{AVERAGED} + EMA", AVERAGED),
]
"""What the papers say of one another: the first is more robust than the second."""


@fw.STUDIES.add("adversarial-training")
class AdversarialTraining(fw.Study[Scale]):
    """The ways to train a robust classifier, attacked alike."""

    name = "adversarial-training"
    title = "Adversarial training: what robustness costs"
    subtitle = "Methods that train a robust classifier, on the same images, trunk and epochs, under the same attack."
    scales = SCALES

    def networks(self, scale: Scale) -> list[fw.NetworkSpec]:
        variants = [(method, extra) for method in METHODS for extra in ("", "AWP")]
        return [_network(scale, method, extra) for method, extra in [*variants, (AVERAGED, "EMA")]]

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
                id=f"{better} over {worse}".lower().replace(" ", "-"),
                text=f"{better} is more robust than {worse}",
                evidence=lambda results, pair=(better, worse): _compared(results, scale.attack, *pair),
                rule=fw.Above(0.0),
            )

    def _cost_share(self, scale: Scale, results: fw.Results) -> fw.Estimate:
        fast, slow = (results.run(_network(scale, method, "")).model_images for method in (FAST, PGD))
        return counted(fast / slow, f"{fast:,} and {slow:,} images through the network in training")

    def charts(self, scale: Scale, results: fw.Results) -> list[Chart]:
        networks = self.networks(scale)
        series = {
            words: [point(network.model, _robust(results, network.model, split)) for network in networks]
            for words, split in (("training images", "train"), ("test images", "test"))
        }
        caption = "The distance between the bars of a method is its robust gap. With 95 % intervals."
        return [
            bars("Robust overfitting", "method", "accuracy under attack", series, caption),
            training_costs({network.model: results.run(network).model_images for network in networks}),
        ]

    def curves(self, scale: Scale, results: fw.Results) -> list[Curve]:
        plain = [network for network in self.networks(scale) if network.model in METHODS]
        return [Curve(network.model, network.metrics(results.work)) for network in plain]

    def notes(self, scale: Scale, results: fw.Results) -> list[str]:
        return [
            f"{scale.words}, {scale.stage.epochs} epochs, one training seed: differences between methods are those of "
            "these networks.",
            f"All but {FAST} learn from {PGD}. AWP's gamma is {scale.awp}, EMA's decay {scale.ema} a step.",
            f"The robust gap is the accuracy under {scale.attack} on {scale.attacked} training images less that on as "
            "many test images.",
        ]


def _training_images(scale: Scale) -> fw.Images:
    return fw.Images(data=scale.data, split="train").sample(scale.images, "training images")


def _network(scale: Scale, method: str, extra: str) -> fw.NetworkSpec:
    """A method, with weight perturbation or averaging or neither."""
    extras = {"AWP": {"awp": scale.awp}, "EMA": {"ema": scale.ema}, "": {}}[extra]
    config = RunConfig(data=scale.data, trunk=scale.trunk, stages=(replace(scale.stage, **METHODS[method], **extras),))
    model = f"{method} + {extra}" if extra else method
    return fw.NetworkSpec(key={"model": model}, config=config, images=_training_images(scale))


def _robust(results: fw.Results, model: str, split: str) -> Records:
    return results.records(model=model, protocol="white-box", split=split)


def _compared(results: fw.Results, attack: str, better: str, worse: str) -> fw.Estimate | None:
    """Robust test accuracy of two methods, with their clean accuracy and their robust gaps."""
    under = {"protocol": "white-box", "split": "test"}
    difference = fw.Difference(a={"model": better}, b={"model": worse}, under=under, detail=f"Under {attack}")(results)
    if difference is None:
        return None
    clean = [f"{100 * results.records(model=model, protocol='clean').accuracy:.1f} %" for model in (better, worse)]
    gaps = [
        f"{100 * (_robust(results, model, 'train').accuracy - _robust(results, model, 'test').accuracy):+.1f}"
        for model in (better, worse)
    ]
    more = f"Clean {' and '.join(clean)}, robust gap {' and '.join(gaps)} points."
    return replace(difference, more=more)
