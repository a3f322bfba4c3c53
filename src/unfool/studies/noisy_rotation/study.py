"""The study of system E: its table, charts and notes.

The source pretrains VGG-16 to tell by how much an image was turned, once on clean images and once on images perturbed
against that very task, and probes its five pooling stages. This study repeats that, and adds what the source owes:
random weights, rotation for as long, noise that reaches its budget, an extractor of half the channels, supervised
pretraining with and without noise, and a strong attack on the best probe of each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from unfool.evaluation.results.charts import Chart
from unfool.evaluation.statistics.chart_kinds import bars, lines, point, spread
from unfool.report.curves import Curve
from unfool.studies import framework as fw
from unfool.studies.noisy_rotation.claims import study_claims
from unfool.studies.noisy_rotation.networks import AttackedProbes, extractor, labelled_images, probed, probes
from unfool.studies.noisy_rotation.scales import (
    AS_WRITTEN,
    LABELS_NOISE,
    LONGER,
    NOISE,
    PRETRAININGS,
    PUBLISHED,
    REACHING,
    ROTATION,
    SCALES,
    STAGES,
    Scale,
)


@fw.STUDIES.add("noisy-rotation")
class NoisyRotation(fw.Study[Scale]):
    """System E, every pretraining probed on five stages."""

    name = "noisy-rotation"
    title = "Rotation under adversarial noise: better features, or only dearer ones?"
    subtitle = (
        "System E: VGG-16 learns to tell how far an image was turned, on clean images and on adversarial ones; a "
        "linear probe on each pooling stage then classifies."
    )
    scales = SCALES
    published = PUBLISHED

    def networks(self, scale: Scale) -> list[fw.NetworkSpec]:
        return [extractor(scale, plan) for plan in PRETRAININGS]

    def measurements(self, scale: Scale, networks: Sequence[fw.NetworkSpec]) -> list[AttackedProbes]:
        return [probes(scale, plan) for plan in PRETRAININGS]

    def claims(self, scale: Scale) -> Iterator[fw.Claim]:
        return study_claims(scale)

    def curves(self, scale: Scale, results: fw.Results) -> list[Curve]:
        return [Curve(item.model, item.metrics(results.work)) for item in self.networks(scale) if item.trained]

    def data(self, scale: Scale, results: fw.Results) -> Mapping[str, Mapping[str, int]]:
        """How many images of which set did what."""
        work = results.work
        labelled, held_out, test = (images.table(work) for images in labelled_images(scale))
        counts = {
            scale.data: {
                "pretraining": len(work.table(scale.data, scale.split, scale.size)),
                "train": len(labelled),
                "held out": len(held_out),
                test.split: len(test),
                "attacked": min(scale.attacked, len(test)),
            }
        }
        supervised = scale.labels[0]
        whole = len(work.table(supervised, "train", scale.size))
        counts.setdefault(supervised, {})["supervised pretraining"] = whole
        return counts

    def charts(self, scale: Scale, results: fw.Results) -> Iterator[Chart]:
        """Accuracy by stage, what a gain costs, the source's curves, and what is left under attack."""
        stages = probed(results, scale)
        best = {plan: item.records[item.best, "test"] for plan, item in stages.items()}
        yield lines(
            "Test accuracy by stage",
            "pooling stage that is probed",
            "accuracy",
            {
                plan.name: [spread(place, item.records[stage, "test"]) for place, stage in enumerate(STAGES, 1)]
                for plan, item in stages.items()
            },
            "Mean of the probe's seeds; the bands reach from the lowest to the highest.",
        )
        yield lines(
            "Cost and gain",
            "millions of images through the network in pretraining",
            "test accuracy of the best stage",
            {
                f"{plan.name} ({item.best})": [
                    spread(results.run(extractor(scale, plan)).model_images / 1e6, best[plan])
                ]
                for plan, item in stages.items()
            },
            "Counted exactly: every image that went forward through the network, crafting of the noise included. Best "
            "stages are chosen on held-out images.",
        )
        for stage in STAGES:
            yield lines(
                f"Train and test accuracy of the probe on {stage}",
                "epoch of the probe",
                "accuracy",
                {
                    f"{plan.name}, {split}": [
                        [epoch, round(share, 6)] for epoch, share in enumerate(stages[plan].curves[stage][split], 1)
                    ]
                    for plan in (ROTATION, NOISE)
                    for split in ("train", "test")
                },
                "Mean of the probe's seeds: train on an epoch's batches, each before its step; test after each epoch.",
            )
        yield bars(
            "Robust accuracy of the best stage",
            "pretraining",
            "accuracy under attack",
            {
                threat: [
                    point(f"{plan.name} ({item.best})", item.attacked[threat])
                    for plan, item in stages.items()
                    if plan.attacked
                ]
                for threat in scale.threats
            },
            f"{scale.attack} on {scale.attacked} test images, crafted on the very classifier that is evaluated; with "
            "95 % intervals.",
        )

    def notes(self, scale: Scale, results: fw.Results) -> list[str]:
        """Every deviation from the source, in words, and what a row means."""
        labelled_set, column = scale.labels
        notes = [
            "Each row is one pretrained extractor with a linear probe on one stage; its seeds are those of the probe. "
            "Differences are those of these extractors: each was pretrained once.",
            f"The source's noise starts at the image and takes {scale.noises[AS_WRITTEN]} inside {scale.threat}; the "
            f"noise that reaches eps is {scale.noises[REACHING]}. Both climb the rotation loss of the network as it "
            "is, in eval mode.",
            f"{LONGER.name} is clean rotation for {scale.times} times the epochs: about the time that the noise takes, "
            "whose steps of crafting send more images through the network but need no gradients of weights.",
            f"Supervised pretraining learns {column} of {labelled_set}, under {scale.noises[LABELS_NOISE]} where it is "
            "noisy: none of the classes that are probed.",
            "A stage is called best on images held out of the probe's training set; the source compared its best test "
            "figures. The source states neither its input size nor its augmentation: padded crop and flip here. Its "
            "probe averages a stage to 10×10, 5×5, 2×2, 2×2 and 1×1 places, and so does this one.",
            f"{scale.attack} is aimed at one classifier each: the best stage with the probe of the first seed.",
        ]
        if scale.data != "stl10":
            notes += [
                f"The source's figures are of STL-10, which could not be had. {scale.data} stands in: its own training "
                f"images are what rotation learns from, and the probe sees {scale.labelled:,} of their labels (STL-10 "
                "has 5,000, and 100,000 images without).",
            ]
        if results.scale != "full":
            stage = scale.pretrain[0]
            notes += [
                f"Scale {results.scale}: {scale.words} for the source's VGG-16, {stage.epochs} epochs for 60 with a "
                f"learning rate that rises to {stage.learning_rate} and falls to 0 for one divided by 10 every 25 "
                f"epochs, in bf16; {scale.probe.epochs} epochs of the probe for 120. The source's values stand in "
                "scale full.",
            ]
        return [*notes, *results.masking_notes()]
