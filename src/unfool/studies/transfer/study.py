"""The study of system C: its table, charts and notes.

The source pretrains on CIFAR-100 without labels, then trains one added layer on a share of CIFAR-10's labels, on clean
images or on FGSM examples, and attacks with FGSM. This study repeats both of its tables, adds what its title and its
discussion promise (a combination of tasks, further trainable layers, adversarial contrastive pretraining, a second data
set, the cost), and attacks all of it more strongly too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from unfool.attacks import make_attack
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.statistics.chart_kinds import bars, lines, spread, training_costs
from unfool.report.curves import Curve
from unfool.studies import framework as fw
from unfool.studies.transfer import networks as plan_networks
from unfool.studies.transfer import scales
from unfool.studies.transfer.claims import FGSM, NATURAL, by_seed, probe_records, study_claims
from unfool.studies.transfer.networks import AS_THEY_ARE, PROBES, STANDARDISED, WORKFLOW, fine_tuned, pretrained
from unfool.studies.transfer.scales import COMPARED, LEARNS_FROM, PRETRAININGS, SHARES, Model, Plan, Scale


@fw.STUDIES.add("transfer")
class Transfer(fw.Study[Scale]):
    """System C, its two tables and what they left out."""

    name = "transfer"
    title = "Self-supervised transfer: robust with few labels?"
    subtitle = (
        "System C: a trunk is pretrained without labels, one layer is added and trained on a share of the labels. "
        "Attacked as its authors did (FGSM), and by attacks that do not stop after one step."
    )
    published = scales.PUBLISHED
    scales = scales.SCALES

    def networks(self, scale: Scale) -> list[fw.NetworkSpec]:
        return [fine_tuned(scale, *run) for run in plan_networks.runs(scale)]

    def measurements(self, scale: Scale, networks: Sequence[fw.NetworkSpec]) -> list[fw.Measurement]:
        tuned = [item for run in plan_networks.runs(scale) for item in plan_networks.measured(scale, *run)]
        return [*tuned, *(plan_networks.probes(scale, model, features) for model, features in PROBES)]

    def claims(self, scale: Scale) -> Iterator[fw.Claim]:
        return study_claims(scale)

    def curves(self, scale: Scale, results: fw.Results) -> list[Curve]:
        return [Curve(name, pretrained(scale, name).metrics(results.work)) for name in PRETRAININGS]

    def charts(self, scale: Scale, results: fw.Results) -> Iterator[Chart]:
        """Labels against robustness, tasks, what is trainable, what is learnt without labels, and the cost."""
        pgd, strong = (make_attack(attack, scale.threat).name for attack in (scale.pgd, scale.strong))

        def share(place: object, plan: Plan, attack: str) -> list[object]:
            return spread(place, by_seed(results, scale, plan, attack).values())

        for number, images in enumerate(LEARNS_FROM):
            control = Plan(model=Model.CONTROL, images=images, trainable="all")
            cells = {name: [Plan(model=name, share=part, images=images) for part in SHARES] for name in PRETRAININGS}
            series = {f"{name}, FGSM": [share(100 * plan.share, plan, FGSM) for plan in cells[name]] for name in cells}
            series[f"{Model.CONTROL}, 100 %, FGSM"] = [share(100 * part, control, FGSM) for part in SHARES]
            source = [[100 * part, scales.TABLE[Model.SIMCLR, part][2 * number + 1] / 100] for part in SHARES]
            title = f"Labels against robustness, fine-tuned on {images}"
            axes = title, "share of the labels in %", "accuracy under FGSM"
            caption = (
                "The added layer alone is fine-tuned; without pretraining all layers are, for as many steps, on all "
                "labels. Bands: 95 % interval, or lowest to highest seed."
            )
            yield lines(*axes, {**series, "source: simclr, FGSM": source}, caption)
        compared = {name: Plan(model=name, share=COMPARED) for name in PRETRAININGS}
        compared |= {name: Plan(model=name, trainable="all") for name in (Model.CONTROL, Model.QUARTER)}
        series = {attack: [share(name, compared[name], attack) for name in compared] for attack in (FGSM, pgd, strong)}
        series["source, FGSM"] = [[name, value / 100] for name, value in scales.TASKS_TABLE.items()]
        axes = f"Pretraining tasks, fine-tuned on {scales.PERTURBED}", "pretraining", "accuracy under attack"
        caption = (
            f"{COMPARED:.0%} of the labels and the added layer alone; the two without pretraining have all labels and "
            "train all layers. Whiskers: 95 % interval, or lowest to highest seed."
        )
        yield bars(*axes, series, caption)
        simclr = compared[Model.SIMCLR]
        policies = [replace(simclr, trainable=trainable) for trainable in ("heads", *scale.policies)]
        series = {
            name: [share(scales.trained_part(plan.trainable), plan, attack) for plan in policies]
            for name, attack in (("clean", NATURAL), (FGSM, FGSM), (pgd, pgd), (strong, strong))
        }
        axes = f"What moves in fine-tuning on {scales.PERTURBED}", "what moves", "accuracy"
        yield bars(*axes, series, f"SimCLR, {COMPARED:.0%} of the labels.")
        series = {
            features: [spread(name, items) for name, items in probe_records(results, scale, features).items()]
            for features in (AS_THEY_ARE, STANDARDISED)
        }
        caption = (
            "A linear layer on the last stage of each frozen trunk, trained on all labels. Whiskers: lowest, highest."
        )
        yield bars("What was learnt without labels", "pretraining", "accuracy", series, caption)
        runs = {
            "simclr: pretraining": pretrained(scale, Model.SIMCLR),
            "simclr: fine-tuning": fine_tuned(scale, WORKFLOW, 0),
            f"{Model.CONTROL}, as many steps": fine_tuned(scale, Plan(model=Model.CONTROL, trainable="all"), 0),
            Model.QUARTER: fine_tuned(scale, Plan(model=Model.QUARTER, trainable="all"), 0),
        }
        yield training_costs({name: results.run(spec).model_images for name, spec in runs.items()}, x="run")
