"""The networks, measurements and claims of system B.

The source freezes a robust classifier, trains a contrastive head on its features, and at test time moves each image
down the contrastive loss before it is classified. Its examples were crafted on the classifier alone. This study
repeats that, draws the charts that the source left out, and then lets an attacker know the defense.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unfool.evaluation.estimates.audits import over_controls, raised_loss
from unfool.evaluation.estimates.pretext import false_triggers
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.statistics.chart_kinds import bars, histogram, lines, point, rungs
from unfool.evaluation.statistics.gains import SAME_NETWORK, corrupted_gain
from unfool.models.trunks import trunk_spec
from unfool.report.gallery import GalleryItem
from unfool.studies import framework as fw
from unfool.studies.framework.recipes import NORMAL, ROBUST, trunk_words
from unfool.studies.reverse_attack.classifier import RATE, Classifier
from unfool.studies.reverse_attack.scales import LOSSES, PUBLISHED, REVERSE, SCALES, SOURCE_STEPS, STEPS, Scale
from unfool.training import RunConfig

LADDERS = {"reversal": "reversal alone", "gated reversal": "gated"}
"""What claims call the defenses on the ladder, and rows."""
CONTROLS = "does better than noise or test-time augmentation of the same cost"


@fw.STUDIES.add("reverse-attack")
class ReverseAttack(fw.Study[Scale]):
    """System B, with and without the reversal, as the source measured it and by an attacker who knows it."""

    name = "reverse-attack"
    title = "The reverse attack: purified, or only not attacked itself?"
    subtitle = (
        "System B: a classifier with a contrastive head moves an image down the contrastive loss, then classifies it. "
        "Evaluated as its authors did (examples crafted on the classifier alone), and by the adaptive ladder."
    )
    scales = SCALES
    published = PUBLISHED

    def networks(self, scale: Scale) -> list[fw.NetworkSpec]:
        """The base classifiers, each with a contrastive head that learnt on its frozen trunk."""
        trunk = trunk_spec(scale.trunk)
        configs = {
            base: RunConfig(data=scale.data, trunk=trunk, stages=(stage, scale.contrast), normalisation="none")
            for base, stage in ((ROBUST, scale.robust), (NORMAL, scale.normal))
        }
        return [fw.NetworkSpec(key={"data": scale.data, "model": base}, config=configs[base]) for base in configs]

    def measurements(self, scale: Scale, networks: Sequence[fw.NetworkSpec]) -> list[fw.Measurement]:
        robust, _ = classifiers = [Classifier(scale, network) for network in networks]
        return [
            *(item for classifier in classifiers for item in classifier.sets()),
            *robust.variants(),
            *(item for classifier in classifiers for item in classifier.corrupted),
            *(classifier.audited for classifier in classifiers),
            *(robust.ladder(words) for words in LADDERS.values()),
            robust.gate_rates,
        ]

    def claims(self, scale: Scale) -> Iterator[fw.Claim]:
        """The ladders' last word first, then the source's own table, what the audits say, and the gate's rate."""
        robust, normal = self._classifiers(scale)
        by_name = {ROBUST: robust, NORMAL: normal}
        for system, words in LADDERS.items():
            text = f"The {system} makes the {ROBUST} classifier"
            yield robust.ladder(words).claim(f"ladder-{words.split()[0]}", text)
        for steps, (bare, ours) in SOURCE_STEPS.items():
            text = (
                f"{STEPS} steps of reversal change the accuracy under {steps} Linf steps by {ours - bare:+.1f} points "
                "(as the source measured it: examples of the bare classifier, replayed)"
            )
            difference = fw.Difference(
                {"defense": REVERSE, "reversal_steps": STEPS},
                {"defense": "none", "fooled": None},
                {"model": ROBUST, "attack": f"pgd-{steps}", "norm": "linf"},
                detail=f"{ROBUST}, with the reversal minus without",
                pair=SAME_NETWORK,
            )
            rule = fw.HalfOf((ours - bare) / 100) if ours > bare else fw.AtMost(0)
            yield fw.Claim(f"replayed-pgd-{steps}", text, difference, rule)
        for base, each in by_name.items():
            text = f"The reversal makes the {base} classifier more accurate on corrupted images"
            gain = fw.evidence(corrupted_gain, *reversed(each.corrupted))
            yield fw.Claim(f"corruptions: {base}", text, gain, fw.Above(0))
        for base, each in by_name.items():
            text = f"An attack on the {base} classifier raises the contrastive loss"
            yield fw.Claim(f"loss: {base}", text, fw.evidence(raised_loss, each.audited), fw.Above(0.5))
        for base, each in by_name.items():
            text = f"On attacked images of the {base} classifier the reversal {CONTROLS}"
            yield fw.Claim(f"controls: {base}", text, fw.evidence(over_controls, each.audited), fw.Above(0))
        text = f"A gate with a stated false-trigger rate of {RATE:.0%} keeps it on fresh clean images"
        yield fw.Claim("gate-rate", text, fw.evidence(false_triggers, robust.gate_rates), fw.AtMost(RATE))

    def _classifiers(self, scale: Scale) -> list[Classifier]:
        return [Classifier(scale, network) for network in self.networks(scale)]

    def charts(self, scale: Scale, results: fw.Results) -> Iterator[Chart]:
        """The charts that the source announced and did not draw, and those of the audits."""
        robust, _ = classifiers = self._classifiers(scale)
        for system, words in LADDERS.items():
            yield rungs(f"The ladder on the {system}", results[robust.ladder(words)]["ladder"])
        bare = results[robust.attacked(robust.network)]
        losses = [point(loss, results.records(loss=loss)) for loss in LOSSES]
        series = {"accuracy": [point("no reversal", bare), *losses]}
        text = f"The {ROBUST} classifier on {bare.attack} examples at {bare.threat}, crafted on it alone (transfer)."
        yield bars("Loss functions of the reversal", "loss", "accuracy", series, text)
        series = {
            "reversed": [point(drawn, results.records(drawn=drawn)) for drawn in scale.negatives],
            "no reversal": [point(drawn, bare) for drawn in scale.negatives],
        }
        text = f"As above, NT-Xent over negatives from the bank; {bare.attack} at {bare.threat}, transfer."
        yield lines("Number of negatives", "negatives that each image draws", "accuracy", series, text)
        text = f"{scale.corrupted} images under each corruption, severity {scale.severity}, with 95 % intervals."
        for classifier in classifiers:
            series = {
                name: [point(item.settings["corruption"].replace("_", " "), item) for item in results[corrupted]]
                for name, corrupted in zip(("no reversal", "reversed"), classifier.corrupted, strict=True)
            }
            base, audit = classifier.network.model, results[classifier.audited]
            yield bars(f"Common corruptions, {base}", "corruption", "accuracy", series, text)
            yield histogram(f"What the contrastive loss sees, {base}", "contrastive loss", audit)

    def gallery(self, scale: Scale, results: fw.Results) -> list[GalleryItem]:
        """For each classifier and norm the first image that is right when clean and wrong when attacked."""
        sets = [classifier.examples(norm) for classifier in self._classifiers(scale) for norm in scale.threats]
        return [item for examples in sets for item in results.fooled_images(examples, [examples.network], 1)]

    def notes(self, scale: Scale, results: fw.Results) -> list[str]:
        """Every deviation from the source, in words, what a prediction costs, and what the audits say."""
        robust, _ = classifiers = self._classifiers(scale)
        trunk = trunk_words(scale.trunk)
        plain = results[robust.clean(robust.network)].cpu_seconds
        costs = [
            f"One prediction of {system.defense} sends {system.module(results.work).images_per_prediction} images "
            "through the network, all but one of them forward and backward, and took "
            f"{results[robust.clean(system)].cpu_seconds / plain:.0f} times the CPU time of a plain one; the source "
            "says about 40 times, for five steps."
            for system in ((robust.reversal(), robust.preset) if plain > 0 else ())
        ]
        audits = [
            f"Audit, {classifier.network.model}: {text}"
            for classifier in classifiers
            for text in results[classifier.audited]["sentences"]
        ]
        smaller = (
            f"Scale {results.scale}: {trunk}, {scale.robust.perturb} for {scale.robust.epochs} epochs, "
            f"{scale.reversal['steps']} steps of reversal on {scale.reversal['views']} views by default, where the "
            "reference takes 40 on 4."
        )
        return [
            "The source names a WRN-34 and loads Carmon et al.'s WRN-28-10, trained with extra images; here the robust "
            f"classifier is {trunk}, trained without. Images enter it without normalisation, as there.",
            "The source's examples are last iterates of PGD on the classifier alone, and so are those of all rows "
            "called transfer here: they say nothing about an attacker who knows of the reversal. The ladder does.",
            f"The source states no budgets for its L1 and L2 sets: {scale.threats['l1']}, {scale.threats['l2']} here. "
            "A reversal has twice the attack's budget, in the attack's norm, as in the reference.",
            "Negatives come from a fixed bank of training images, so that no prediction depends on batch-mates; the "
            "rows of reverse:mao2021 use the batch, as the reference does, with its 40 steps, 4 views and its loss.",
            "The source's first table (clean 87.52, L1 70.47, L2 10.58, Linf 6.66) is not that of a robust classifier; "
            "the figures beside ours are those of its authors' later one.",
            *costs,
            *audits,
            *([smaller] if results.scale != "full" else []),
        ]
