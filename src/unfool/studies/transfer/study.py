"""The study of system C: its table and charts.

The source pretrains on CIFAR-100 without labels, then trains one added layer on a share of CIFAR-10's labels. The study
repeats both of its tables, adds what its title and its discussion promise, and attacks all of it more strongly too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from unfool.attacks import make_attack
from unfool.evaluation.results.charts import Chart
from unfool.evaluation.statistics.chart_kinds import bars, lines, spread, training_costs
from unfool.report.plots.curves import Curve
from unfool.studies import framework as fw
from unfool.studies.transfer import networks as planned
from unfool.studies.transfer import scales
from unfool.studies.transfer.claims import FGSM, NO_ATTACK, study_claims
from unfool.studies.transfer.networks import WORKFLOW, fine_tuned, pretrained
from unfool.studies.transfer.scales import COMPARED, LEARNS_FROM, SHARES, Model, Plan, Scale


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
        return [fine_tuned(scale, *run) for run in planned.runs(scale)]

    def measurements(self, scale: Scale, networks: Sequence[fw.NetworkSpec]) -> Iterator[fw.Measurement]:
        for run in planned.runs(scale):
            yield from planned.measured(scale, *run)
        for each in planned.probes(scale).values():
            yield from each

    def claims(self, scale: Scale) -> Iterator[fw.Claim]:
        return study_claims(scale)

    def curves(self, scale: Scale, results: fw.Results) -> list[Curve]:
        return [Curve(name, pretrained(scale, name, 0).metrics(results.work)) for name in scale.pretrain]

    def charts(self, scale: Scale, results: fw.Results) -> Iterator[Chart]:
        """Budgets and labels against robustness, tasks, what is trainable, what is learnt without labels, the cost."""
        pgd, strong = (make_attack(attack, scale.threat).name for attack in (scale.pgd, scale.strong))

        def share(place: object, plan: Plan, attack: str, threat: str = "") -> list[object]:
            words = {**planned.words(scale, plan), "attack": attack, "threat": threat or scale.threat}
            return spread(place, results.by_seed(**words).values())

        def published(plan: Plan) -> float:
            return scales.PUBLISHED.figures[scales.cell(plan, FGSM)] / 100

        control = Plan(model=Model.CONTROL, trainable="all")
        series = {
            f"{plan.model}, {images}": [
                *(share(threat, replace(plan, images=images), FGSM, threat) for threat in scale.budgets),
                ["source, not stated", published(replace(plan, images=images))],
            ]
            for images in LEARNS_FROM
            for plan in (WORKFLOW, control)
        }
        caption = "All labels; SimCLR with the added layer alone, without pretraining all layers, both for as long."
        yield bars("Budget of FGSM", "budget", "accuracy under FGSM", series, caption)
        series = {}
        for images in LEARNS_FROM:
            cells = [Plan(model=Model.SIMCLR, share=part, images=images) for part in SHARES]
            source = [[100 * plan.share, published(plan)] for plan in cells]
            scratch = [share(100 * part, replace(control, images=images), FGSM) for part in SHARES]
            series |= {f"simclr, {images}": [share(100 * plan.share, plan, FGSM) for plan in cells]}
            series |= {f"{Model.CONTROL}, 100 %, {images}": scratch, f"source, {images}": source}
            whole = [replace(cells[0], share=part, trainable="all") for part in scale.whole_shares]
            series |= {f"simclr, all layers, {images}": [share(100 * plan.share, plan, FGSM) for plan in whole]}
        axes = "Labels against robustness", "share of the labels in %", "accuracy under FGSM"
        caption = (
            f"FGSM within {scale.threat}; the source does not state its budget. The added layer alone is fine-tuned or "
            "all layers; without pretraining all are, on all labels. Bands: 95 % interval, or lowest to highest seed."
        )
        yield lines(*axes, series, caption)
        compared = {name: Plan(model=name, share=COMPARED) for name in scale.pretrain}
        compared |= {name: Plan(model=name, trainable="all") for name in (Model.CONTROL, *scale.baselines)}
        series = {attack: [share(name, compared[name], attack) for name in compared] for attack in (FGSM, pgd, strong)}
        series["source, FGSM"] = [
            [name, published(Plan(model=name, share=COMPARED))] for name in (Model.ROTATION, Model.JIGSAW, Model.SIMCLR)
        ]
        axes = f"Pretraining tasks, fine-tuned on {scales.PERTURBED}", "pretraining", "accuracy under attack"
        caption = (
            f"Within {scale.threat}. {COMPARED:.0%} of the labels and the added layer alone; those without pretraining "
            "have all labels and train all layers. Whiskers: 95 % interval, or lowest to highest seed."
        )
        yield bars(*axes, series, caption)
        policies = [replace(compared[Model.SIMCLR], trainable=trainable) for trainable in ("heads", *scale.policies)]
        series = {
            name: [share(plan.settings["moved"], plan, attack) for plan in policies]
            for name, attack in (("clean", NO_ATTACK), (FGSM, FGSM), (pgd, pgd), (strong, strong))
        }
        axes = f"What moves in fine-tuning on {scales.PERTURBED}", "what moves", "accuracy"
        yield bars(*axes, series, f"SimCLR, {COMPARED:.0%} of the labels, within {scale.threat}.")
        series = {features: [] for features in (planned.AS_THEY_ARE, planned.STANDARDISED)}
        for (model, features), each in planned.probes(scale).items():
            series[features].append(spread(model, [results[probe].records["last", "test"][0] for probe in each]))
        caption = "A linear layer on each frozen trunk's last stage, trained on all labels. Whiskers: lowest, highest."
        yield bars("What was learnt without labels", "pretraining", "accuracy", series, caption)
        scratch = [
            fine_tuned(scale, Plan(model=name, trainable="all"), 0) for name in (Model.CONTROL, *scale.baselines)
        ]
        parts = {"pretraining": pretrained(scale, Model.SIMCLR, 0), "fine-tuning": fine_tuned(scale, WORKFLOW, 0)}
        costs = {f"simclr: {name}": spec for name, spec in parts.items()} | {spec.model: spec for spec in scratch}
        yield training_costs({name: results.run(spec).model_images for name, spec in costs.items()}, x="run")
