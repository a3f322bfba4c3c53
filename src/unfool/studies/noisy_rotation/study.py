"""The study of system E: its table, charts and notes.

The source pretrains VGG-16 on turned images, clean and perturbed against that very task, and probes its pooling stages.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from unfool.evaluation.results.charts import Chart
from unfool.evaluation.statistics.chart_kinds import bars, lines, point, spread
from unfool.studies import framework as fw
from unfool.studies.noisy_rotation.claims import study_claims
from unfool.studies.noisy_rotation.networks import AttackedProbes, extractor, probes, stages_of
from unfool.studies.noisy_rotation.scales import NOISE, PUBLISHED, ROTATION, SCALES, STAGES, Scale


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
        return [extractor(scale, plan) for plan in scale.pretrainings]

    def measurements(self, scale: Scale, networks: Sequence[fw.NetworkSpec]) -> list[AttackedProbes]:
        return [probes(scale, plan) for plan in scale.pretrainings]

    def claims(self, scale: Scale) -> Iterator[fw.Claim]:
        return study_claims(scale)

    def charts(self, scale: Scale, results: fw.Results) -> Iterator[Chart]:
        """Accuracy by stage, what a gain costs, the source's curves, and what is left under attack."""
        probed = {plan: results[probes(scale, plan)] for plan in scale.pretrainings}
        by_stage = {
            plan.name: [
                spread(place, item.records[stage, "test"]) for place, stage in enumerate(stages_of(scale, plan), 1)
            ]
            for plan, item in probed.items()
        }
        caption = "Mean of the probe's seeds; the bands reach from the lowest to the highest."
        of_resnet = "Those of a ResNet are its stem and its four groups of blocks."
        yield lines("Test accuracy by stage", "stage that is probed", "accuracy", by_stage, f"{caption} {of_resnet}")
        runs = {plan: results.run(extractor(scale, plan)) for plan in probed}
        by_cost = {
            f"{plan.name} ({item.best})": [spread(runs[plan].model_images / 1e6, item.records[item.best, "test"])]
            for plan, item in probed.items()
        }
        caption = (
            "Counted exactly: every image that went forward through the network, crafting of the noise included. Best "
            "stages are chosen on held-out images."
        )
        across = "millions of images through the network in pretraining"
        yield lines("Cost and gain", across, "test accuracy of the best stage", by_cost, caption)
        caption = "Mean of the probe's seeds: train on an epoch's batches, each before its step; test after each epoch."
        for stage in STAGES:
            by_epoch = {
                f"{plan.name}, {split}": [
                    [epoch, round(share, 6)] for epoch, share in enumerate(probed[plan].curves[stage][split], 1)
                ]
                for plan in (ROTATION, NOISE)
                for split in ("train", "test")
            }
            title = f"Train and test accuracy of the probe on {stage}"
            yield lines(title, "epoch of the probe", "accuracy", by_epoch, caption)
        under_attack = {
            threat: [
                point(f"{plan.name} ({item.best})", item.attacked[threat])
                for plan, item in probed.items()
                if plan.attacked
            ]
            for threat in scale.threats
        }
        caption = f"{scale.attack} on {scale.attacked} test images, crafted on the very classifier; 95 % intervals."
        yield bars("Robust accuracy of the best stage", "pretraining", "accuracy under attack", under_attack, caption)
