"""The four lessons."""

from __future__ import annotations

import torch

from unfool.attacks import PGD, Attack, make_attack
from unfool.core.progress import Progress
from unfool.core.streams import Streams
from unfool.core.threat import Linf
from unfool.data.table import Table
from unfool.defenses import Reverse
from unfool.demo.lesson import Bar, Lesson, percent
from unfool.demo.networks import THREAT, Networks, Saturated, training_images
from unfool.evaluation import AdversarialSet, craft
from unfool.evaluation.adaptive.ladder import ladder
from unfool.evaluation.adaptive.purification import purification
from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.evaluation.evaluate import evaluate
from unfool.evaluation.evaluation import Evaluation
from unfool.evaluation.records import Records
from unfool.evaluation.results.claims import FAILS, ClaimResult
from unfool.evaluation.settings import EvaluationSettings
from unfool.evaluation.statistics.comparison import compare_records
from unfool.evaluation.statistics.estimate import Estimate
from unfool.evaluation.statistics.rules import Above, HalfOf
from unfool.evaluation.statistics.verdicts import Case, judge_cases
from unfool.report.accuracy_table import attack_title
from unfool.report.pictures.gallery import fooled_images
from unfool.report.pictures.strips import Strip

ATTACK = PGD(THREAT, steps=20)
REVERSAL_STEPS = 10
_QUICK = EvaluationSettings(threat=THREAT, reliability=False)


def borrowed_examples(networks: Networks, table: Table, progress: Progress) -> Lesson:
    """One network, one budget: examples of another network against its own."""
    lent = craft(networks.lender, table, ATTACK, progress=progress)
    own = craft(networks.contrastive, table, ATTACK, progress=progress)
    results = {
        name: evaluate(network, table, ATTACK, stored_sets={"lender": lent}, settings=_QUICK, name=name)
        for name, network in (("labels", networks.plain), ("labels + contrast", networks.contrastive))
    }
    clean, white, transfer = _three(results["labels + contrast"])
    control = _three(results["labels"])[2]
    difference = compare_records(transfer, control)
    room = Estimate(
        mean=difference.difference,
        low=difference.low,
        high=difference.high,
        detail="Labels + contrast minus labels, both on borrowed examples",
        reach=(-control.accuracy, 1.0 - control.accuracy),
    )
    claims = judge_cases(
        [
            Case(
                id="contrast",
                text="Contrast raises the accuracy on borrowed examples, as published for CIFAR-10",
                estimate=room,
                rule=HalfOf(0.6),
            )
        ]
    )
    return Lesson(
        title="Borrowed examples are no attack",
        sentences=[
            f"The same network, the same budget: it keeps {percent(transfer.accuracy)} of examples that were made for "
            f"another network, and {percent(white.accuracy)} when it is attacked itself."
        ],
        bars=[
            Bar.of("clean images", clean),
            Bar.of("borrowed examples", transfer),
            Bar.of("own examples", white),
        ],
        rows=[row for each in results.values() for row in each.rows if row.attack != "worst-case"],
        claims=claims,
        gallery=fooled_images(
            own, table, networks.contrastive, {"labels + contrast": networks.contrastive, "labels": networks.plain}, 2
        ),
    )


def hardening(networks: Networks, table: Table, few: Table, attack: Attack, progress: Progress) -> Lesson:
    """What adversarial training bought and cost, under the strongest attack."""
    title = attack_title(attack.name)
    named = {"labels": networks.plain, "labels, hardened": networks.hardened}
    clean = [evaluate(network, table, settings=_QUICK, name=name) for name, network in named.items()]
    attacked = [
        evaluate(network, few, attack, settings=_QUICK, name=name, progress=progress) for name, network in named.items()
    ]
    bare, hard = (each.records[1] for each in attacked)
    cost, gain = compare_records(clean[1].records[0], clean[0].records[0]), compare_records(hard, bare)
    estimate = Estimate(
        mean=gain.difference, low=gain.low, high=gain.high, detail=f"Hardened minus plain, under {title}"
    )
    text = f"Training on adversarial examples makes the network more robust ({title})"
    return Lesson(
        title="Hardening: what it buys, and what it costs",
        sentences=[
            f"Trained on attacks it keeps {percent(hard.accuracy)} under {title} where the plain network keeps "
            f"{percent(bare.accuracy)}: {100 * gain.difference:+.0f} points, for {100 * cost.difference:+.1f} on clean "
            "images."
        ],
        bars=[
            Bar.of("plain, clean", clean[0].records[0]),
            Bar.of("hardened, clean", clean[1].records[0]),
            Bar.of(f"plain, {title}", bare),
            Bar.of(f"hardened, {title}", hard),
        ],
        rows=[each.rows[0] for each in clean] + [each.rows[1] for each in attacked],
        claims=judge_cases([Case(id="hardened", text=text, estimate=estimate, rule=Above(0.0))]),
    )


def masking(networks: Networks, table: Table, progress: Progress) -> Lesson:
    """A network that only looks robust, and the report that says so."""
    masked = Saturated(networks.plain).eval()
    settings = EvaluationSettings(threat=THREAT)
    result = evaluate(masked, table, ATTACK, settings=settings, name="labels, logits × 1000", progress=progress)
    true = evaluate(networks.plain, table, ATTACK, settings=_QUICK, name="labels")
    looks, keeps = result.records[1], true.records[1]
    flags = [flag.name for flag in result.reliability.flags] if result.reliability is not None else []
    caught = (
        f"The reliability report doubts it: {', '.join(flags)}." if flags else "The reliability report has no doubt."
    )
    return Lesson(
        title="A number that is not to be believed",
        sentences=[
            f"Multiply a network's logits by a thousand and PGD-20 leaves {percent(looks.accuracy)}; its predictions "
            f"are the same, so what it keeps is at most {percent(keeps.accuracy)}.",
            caught,
        ],
        bars=[Bar.of("what PGD says", looks), Bar.of("what it keeps, at most", keeps)],
        rows=result.rows,
        claims=[
            ClaimResult(
                id="believed",
                text=f"The network with logits × 1000 keeps {percent(looks.accuracy)} under {ATTACK.name}",
                verdict=FAILS,
                evidence=result.doubts or "The same predictions fall to the attack on the network inside.",
            )
        ],
    )


def reversal(networks: Networks, table: Table, few: Table, progress: Progress) -> Lesson:
    """One attacked image moved back down the contrastive loss, and what the ladder says of the defense."""
    network = networks.contrastive
    defense = Reverse(
        network, "contrast", threat=Linf(2 * THREAT.eps), steps=REVERSAL_STEPS, calibrate_on=training_images()
    )
    examples = craft(network, table, ATTACK, progress=progress)
    strip, words = _one_reversed(network, defense, table, examples)
    settings = LadderSettings(threat=THREAT, steps=6, draws=2, targets=1, queries=20, lambdas=(1.0,))
    result = ladder(
        defense,
        few,
        make_attack("apgd-t:steps=20", THREAT),
        settings=settings,
        rungs="bceh",
        name="labels + contrast",
        defended="reverse:contrast",
        progress=progress,
    )
    word = {"helps": "it helps", "fails": "it makes the network easier to fool"}.get(
        result.verdict, "it is not known to help"
    )
    return Lesson(
        title="A reversal, before and after",
        sentences=[
            words,
            f"Replayed examples leave it {percent(result.replayed.accuracy)}; an attacker who knows of it "
            f"{percent(result.worst.accuracy)}, and the bare network keeps {percent(result.static.accuracy)}. The "
            f"ladder's word: {word}.",
        ],
        bars=[
            Bar.of("bare network", result.static),
            Bar.of("reversal, replayed", result.replayed),
            Bar.of("reversal, worst case", result.worst),
        ],
        ladder=result.section(),
        strips=[strip],
    )


def _three(result: Evaluation) -> tuple[Records, Records, Records]:
    """Records on clean images, on its own examples, and on borrowed ones."""
    by_protocol = {
        row.protocol: records
        for row, records in zip(result.rows, result.records, strict=True)
        if row.attack != "worst-case"
    }
    return by_protocol["clean"], by_protocol["white-box"], by_protocol["transfer"]


def _one_reversed(
    network: torch.nn.Module, defense: Reverse, table: Table, examples: AdversarialSet
) -> tuple[Strip, str]:
    """An image that the attack turned, preferably one that the reversal turned back, as a strip and in words."""
    clean, adversarial, names = table.batch().images, examples.images[:], table.classes[examples.column]
    purified = purification(defense, adversarial)
    with torch.no_grad():
        said = network(clean).argmax(1)
    attacked, restored = purified.before.argmax(1), purified.after.argmax(1)
    turned = (said == examples.labels) & (attacked != examples.labels)
    repaired = turned & (restored == examples.labels)
    row = int((repaired if repaired.any() else turned if turned.any() else torch.ones_like(turned)).nonzero()[0])
    label = [names[int(each[row])] for each in (said, attacked, restored)]
    pictures = tuple(
        (f"{word}: {name}", image)
        for word, name, image in zip(
            ("clean", "attacked", "reversed"),
            label,
            (clean[row], adversarial[row], purified.images[row]),
            strict=True,
        )
    )
    caption = f"test image {int(examples.ids[row])}; {examples.attack} at {examples.threat}"
    words = (
        f"A {names[int(examples.labels[row])]} is attacked and read as {label[1]}; moved down the contrastive loss it "
        f"is read as {label[2]}. Of {int(turned.sum())} turned images the reversal turns {int(repaired.sum())} back."
    )
    return Strip(group="One attacked image, reversed", pictures=pictures, caption=caption), words


def drawn(table: Table, count: int) -> Table:
    """``count`` images, the same on every machine."""
    return table if count >= len(table) else table.sample(count, Streams(0))
