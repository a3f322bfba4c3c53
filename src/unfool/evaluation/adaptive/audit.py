# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""An audit of a defense before it is used: does its pretext loss see attacks, does its gradient lead back, and does
it bring more than noise or test-time augmentation of the same cost?

Legend: N images, draws averaged over one after another.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unfool.core.errors import DataError, SpecError
from unfool.core.progress import Progress, silent
from unfool.core.streams import Streams
from unfool.data.as_table import TableLike, as_table
from unfool.data.augment import AUGMENTATIONS
from unfool.data.table import Table
from unfool.defenses import Defense, as_defense
from unfool.evaluation.adaptive.audit_result import DEFENSE, NETWORK, NOISE, VIEWS, AuditResult, Gain
from unfool.evaluation.adaptive.settings import AuditSettings
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import BATCH_SIZE, device_of, spans_for
from unfool.evaluation.crafting.chosen_attacks import AttackLike, choose_attack
from unfool.evaluation.crafting.craft import craft
from unfool.evaluation.crafting.proxy import proxy_for
from unfool.evaluation.identity import identity
from unfool.evaluation.intervals import wilson
from unfool.evaluation.reliability.origins import misfit, rows_of
from unfool.evaluation.results.rows import protocol_between
from unfool.evaluation.statistics.paired import PairedCounts, score_interval
from unfool.models.modes import frozen_eval

BINS = 30
TEST_TIME = "crop-flip"
"""The augmentation that test-time averaging uses: it leaves the class alone."""


def audit(
    defense: nn.Module,
    data: TableLike,
    examples: AdversarialSet | AttackLike = "pgd-10",
    *,
    settings: AuditSettings | None = None,
    column: str | None = None,
    progress: Progress = silent,
) -> AuditResult:
    """Audit a defense with a pretext loss on adversarial examples and the clean images they were made of.

    It compares the pretext loss of clean, attacked and purified images, the loss's gradient with that of the
    cross-entropy, and the accuracy of the defense with those of noise and of test-time augmentation, which average the
    network's logits over as many copies as one prediction of the defense sends images through it. Noise is uniform in
    the ball in which the defense moves images; without such a ball it is left out. Behind a gate the defense inside is
    audited.

    Args:
        defense: A `Defense` with a pretext loss, such as `defenses.Reverse`, or a module that declares one.
        data: The clean images: a table that holds those of the examples, or what `as_table` makes one of. The examples
            must have its labels, and lie as far from its images as they say.
        examples: Adversarial examples; or an attack, or its name, which crafts them on the bare network from all images
            of the data. Examples that were crafted on another system are transfer, and the result says so.
        settings: How the defense is audited; default: ``AuditSettings()``.
        column: Label column of the data that an attack reads and that labels are compared with; default: that of the
            examples, or else the table's own choice.
        progress: Called with the images done.

    Returns:
        AUROC, histogram and means of the pretext losses, the gradients' cosines, and the gains.

    Raises:
        SpecError: A defense without a pretext loss, or an unknown attack.
        DataError: A table that lacks an image of the examples, or whose images they were not made from.

    Example:
        >>> import torch
        >>> from unfool import Linf, Network, TrunkSpec, attacks, audit, defenses
        >>> heads = {"labels": {"kind": "linear", "outputs": 2}, "rotation": {"kind": "linear", "outputs": 4}}
        >>> network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), heads, classifier="labels").eval()
        >>> images = torch.linspace(0, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
        >>> data = images, network(images).argmax(1)
        >>> defense = defenses.Reverse(network, "rotation", threat=Linf(4/255), steps=1)
        >>> result = audit(defense, data, attacks.FGSM(Linf(8/255)))
        >>> result.n, sorted(result.means), list(result.gains)[:2]
        (2, ['attacked', 'clean', 'purified'], ['the bare network', 'the defense'])
    """
    purifier = as_defense(defense).purifier
    if purifier.pretext is None:
        raise SpecError(f"{type(defense).__name__} has no pretext loss to audit; give a reversal, or a gate around one")
    settings = settings or AuditSettings()
    table = as_table(data)
    if not isinstance(examples, AdversarialSet):
        attack = choose_attack(examples, settings.threat).attack
        examples = craft(
            purifier.classifier,
            table,
            attack,
            column=column,
            seed=settings.seed,
            proxy=proxy_for(purifier.classifier, settings.precision),
            batch_size=settings.batch_size,
            progress=progress,
        )
    rows = _clean_rows(table, examples, column)
    run = _AuditRun(defense, purifier, Streams(settings.seed).named("audit"), settings.draws)
    device = device_of(purifier)
    with torch.inference_mode(False), torch.no_grad(), frozen_eval(defense):
        for span in spans_for(defense, len(examples), settings.batch_size or BATCH_SIZE):
            clean = table.batch(rows[span], device).images
            attacked, labels, ids = (
                tensor[span].to(device) for tensor in (examples.images, examples.labels, examples.ids)
            )
            run.add(clean, attacked, labels, ids)
            progress("audit", span.stop, len(examples))
    return run.result(examples)


def _clean_rows(table: Table, examples: AdversarialSet, column: str | None) -> Tensor:
    """The rows of the table that hold the clean images of the examples; DataError where it holds others."""
    rows = rows_of(table, examples.ids)
    if (rows < 0).any():
        missing = int(examples.ids[rows < 0][0])
        raise DataError(f"{table!r} lacks image {missing} of the adversarial set; give the images it was crafted from")
    column = column or (examples.column if examples.column in table.columns else None)
    reason = misfit(examples, table, rows, table.labels(column))
    if reason is not None:
        raise DataError(f"{examples!r} was not made from {table!r}: {reason}; give the images it was crafted from")
    return rows


class _AuditRun:
    """An audit underway: per image, pretext losses by kind of image, cosines, and who is right."""

    def __init__(self, defense: nn.Module, purifier: Defense, streams: Streams, draws: int):
        self.defense = defense
        self.purifier = purifier
        self.network = purifier.classifier
        self.streams = streams
        self.draws = draws
        self.images_per_prediction = as_defense(defense).images_per_prediction
        self.losses: dict[str, list[Tensor]] = {"clean": [], "attacked": [], "purified": []}
        self.cosines: list[Tensor] = []
        self.clean: list[Tensor] = []
        ways = (NETWORK, DEFENSE, NOISE, VIEWS) if purifier.threat is not None else (NETWORK, DEFENSE, VIEWS)
        self.correct: dict[str, list[Tensor]] = {name: [] for name in ways}

    def add(self, clean: Tensor, attacked: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Add a batch: images (B, C, H, W), labels and ids (B,)."""
        purified = self.purifier.purified_images(attacked)[: len(attacked)]
        for kind, images in zip(self.losses, (clean, attacked, purified), strict=True):
            self.losses[kind].append(self._pretext(images).cpu())
        self.clean.append((self.network(clean).argmax(1) == labels).cpu())
        for name, logits in self._logits(attacked, ids).items():
            self.correct[name].append((logits.argmax(1) == labels).cpu())
        with torch.enable_grad():
            points = attacked.clone().requires_grad_()
            (pretext_gradient,) = torch.autograd.grad(self._pretext(points).sum(), points)
            cross_entropy = F.cross_entropy(self.network(points), labels, reduction="sum")
            (label_gradient,) = torch.autograd.grad(cross_entropy, points)
        cosines = F.cosine_similarity(pretext_gradient.flatten(1).double(), label_gradient.flatten(1).double())
        self.cosines.append(cosines.cpu())

    def _logits(self, attacked: Tensor, ids: Tensor) -> dict[str, Tensor]:
        """The logits (B, K) of attacked images by every way of classifying them."""
        ball, augment = self.purifier.threat, AUGMENTATIONS[TEST_TIME]
        noise, views = self.streams.named("noise"), self.streams.named("views")
        logits = {
            NETWORK: self.network(attacked),
            DEFENSE: self.defense(attacked),
            VIEWS: self._mean_logits(lambda draw: augment(attacked, ids, views.at(draw))),
        }
        if ball is not None:
            logits[NOISE] = self._mean_logits(lambda draw: ball.sample(attacked, ids, noise.at(draw)))
        return logits

    def _pretext(self, images: Tensor) -> Tensor:
        """Pretext losses (B,), the mean over a few draws of views that are the same for all images."""
        rows = torch.arange(len(images), device=images.device)
        objective = self.purifier.objective(torch.zeros_like(rows), self.streams.named("looks"))
        return torch.stack([objective.losses(images, rows, call) for call in range(self.draws)]).mean(0).float()

    def _mean_logits(self, draw_images: Callable[[int], Tensor]) -> Tensor:
        """The network's mean logits over as many draws as the defense may send images through it."""
        return torch.stack([self.network(draw_images(draw)) for draw in range(self.images_per_prediction)]).mean(0)

    def result(self, examples: AdversarialSet) -> AuditResult:
        """The results of all batches, which held these examples."""
        from sklearn.metrics import roc_auc_score  # here, because it takes long to import

        losses = {kind: torch.cat(parts).double().numpy() for kind, parts in self.losses.items()}
        correct = {name: torch.cat(parts).numpy() for name, parts in self.correct.items()}
        attacked = np.r_[np.zeros(len(losses["clean"])), np.ones(len(losses["attacked"]))]
        edges = np.histogram_bin_edges(np.concatenate(list(losses.values())), BINS)
        return AuditResult(
            attack=examples.attack,
            threat=examples.threat,
            protocol=protocol_between(examples.crafted_on, identity(self.network)),
            auroc=float(roc_auc_score(attacked, np.r_[losses["clean"], losses["attacked"]])),
            edges=[round(float(edge), 6) for edge in edges],
            counts={kind: np.histogram(values, edges)[0].tolist() for kind, values in losses.items()},
            means={kind: float(values.mean()) for kind, values in losses.items()},
            cosines=torch.cat(self.cosines).tolist(),
            gains={
                name: _gain(values, correct[NETWORK], 1 if name == NETWORK else self.images_per_prediction)
                for name, values in correct.items()
            },
            n=len(attacked) // 2,
            ids=examples.ids.tolist(),
            correct={name: values.tolist() for name, values in correct.items()},
            clean=float(torch.cat(self.clean).double().mean()),
        )


def _gain(correct: np.ndarray, bare: np.ndarray, images: int) -> Gain:
    low, high = wilson(int(correct.sum()), len(correct))
    counts = PairedCounts.of(correct, bare)
    least, most = score_interval(counts)
    return Gain(
        accuracy=float(correct.mean()),
        low=low,
        high=high,
        difference=counts.difference,
        least=least,
        most=most,
        images=images,
    )
