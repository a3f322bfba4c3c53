"""The networks, measurements and claims of system B.

The source freezes a robust classifier, trains a contrastive head on its features, and at test time moves each image
down the contrastive loss before it is classified. Its examples were crafted on the classifier alone. This study
repeats that, draws the charts that the source left out, and then lets an attacker know the defense.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from unfool.evaluation.estimates.audits import over_controls, raised_loss
from unfool.evaluation.estimates.pretext import false_triggers
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.statistics.chart_kinds import bars, histogram, lines, point, rungs
from unfool.evaluation.statistics.gains import SAME_NETWORK, corrupted_gain
from unfool.models.trunks import trunk_spec
from unfool.report.notes import text_beside, written_notes
from unfool.report.pictures.gallery import GalleryItem
from unfool.studies import framework as fw
from unfool.studies.reverse_attack.classifier import RATE, Classifier
from unfool.studies.reverse_attack.networks import PublishedWeights
from unfool.studies.reverse_attack.scales import LOSSES, PUBLISHED, REVERSE, SCALES, SOURCE_STEPS, STEPS, Scale
from unfool.training import RunConfig
from unfool.training.recipes import NORMAL, ROBUST

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
        if scale.base:
            config, words = RunConfig(data=scale.data, stages=(scale.contrast,)), {"data": scale.data, "model": ROBUST}
            start = PublishedWeights(key={**words, "model": "published weights"}, config=config, file=scale.base)
            return [fw.NetworkSpec(key=words, config=config, start=start)]
        shared: dict[str, Any] = {"data": scale.data, "trunk": trunk_spec(scale.trunk), "normalisation": "none"}
        stages = {base: stage for base, stage in ((ROBUST, scale.robust), (NORMAL, scale.normal)) if stage is not None}
        return [
            fw.NetworkSpec(
                key={"data": scale.data, "model": base},
                config=RunConfig(stages=(stages[base], scale.contrast), **shared),
                # Where nothing is held out, nothing watches for overfitting to single steps: so the source of FGSM-RS.
                quiet=not stages[base].held_out,
            )
            for base in stages
        ]

    def measurements(self, scale: Scale, networks: Sequence[fw.NetworkSpec]) -> Iterator[fw.Measurement]:
        robust, *_ = classifiers = [Classifier(scale, network) for network in networks]
        for classifier in classifiers:
            yield from classifier.sets()
        yield from (*robust.first_table(), *robust.variants())
        for classifier in classifiers:
            yield from (*classifier.corrupted, classifier.audited)
        yield from (robust.ladder(words) for words in scale.ladders.values())
        if scale.gated:
            yield robust.gate_rates

    def claims(self, scale: Scale) -> Iterator[fw.Claim]:
        """The ladders' last word first, then the source's own table, what the audits say, and the gate's rate."""
        robust, *_ = classifiers = self._classifiers(scale)
        for system, words in scale.ladders.items():
            text = f"The {system} makes the {ROBUST} classifier"
            yield robust.ladder(words).claim(f"ladder-{words.split()[0]}", text)
        for steps in SOURCE_STEPS:
            bare, ours = ((None, *system, f"pgd-{steps}", "linf") for system in (("none", None), (REVERSE, STEPS)))
            claimed = PUBLISHED.gain(ours, bare)
            raises = "raise" if claimed > 0 else "do not raise"
            text = (
                f"{STEPS} steps of reversal {raises} the accuracy under PGD-{steps} in Linf, as the source measured it"
            )
            text += " (replayed examples of the bare classifier)"
            under = {"model": ROBUST, "attack": f"pgd-{steps}", "norm": "linf"}
            plain = {"defense": "none", "cause": None, "ladder": None}
            words = {"detail": f"{ROBUST}, with the reversal minus without", "pair": SAME_NETWORK}
            gain = fw.Difference({"defense": REVERSE, "reversal_steps": STEPS}, plain, under, **words)
            rule = fw.HalfOf(claimed) if claimed > 0 else fw.AtMost(0)
            yield fw.Claim(f"replayed-pgd-{steps}", text, gain, rule, fw.Control({**under, **plain}))
        for each in classifiers:
            base = each.network.model
            text = f"The reversal makes the {base} classifier more accurate on corrupted images"
            gain = fw.evidence(corrupted_gain, *reversed(each.corrupted))
            yield fw.Claim(f"corruptions: {base}", text, gain, fw.Above(0), _clean(base))
            text = f"An attack on the {base} classifier raises the contrastive loss"
            yield fw.Claim(f"loss: {base}", text, fw.evidence(raised_loss, each.audited), fw.Above(0.5), _clean(base))
            # Of noise and augmentation the source claims nothing: as the ladders, that is judged on this classifier.
            text = f"On attacked images of the {base} classifier the reversal {CONTROLS}"
            yield fw.Claim(f"controls: {base}", text, fw.evidence(over_controls, each.audited), fw.Above(0))
        if scale.gated:
            text = f"A gate with a stated false-trigger rate of {RATE:.0%} keeps it on fresh clean images"
            yield fw.Claim("gate-rate", text, fw.evidence(false_triggers, robust.gate_rates), fw.AtMost(RATE))

    def _classifiers(self, scale: Scale) -> list[Classifier]:
        return [Classifier(scale, network) for network in self.networks(scale)]

    def charts(self, scale: Scale, results: fw.Results) -> Iterator[Chart]:
        """The charts that the source announced and did not draw, and those of the audits."""
        robust, *_ = classifiers = self._classifiers(scale)
        for system, words in scale.ladders.items():
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
        """Deviations from the source, what a prediction costs, and what the audits say."""
        notes = written_notes(
            text_beside(type(self)), scale=scale, results=results, classifiers=self._classifiers(scale)
        )
        return [*notes, *results.masking_notes()]


def _clean(base: str) -> fw.Control:
    """A classifier by itself on clean images; of the normally trained one the source has no figure."""
    words = {"model": base, "defense": "none", "attack": "none"}
    return fw.Control({**words, "cause": None, "corruptions": None, "ladder": None})
