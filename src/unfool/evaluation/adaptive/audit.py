"""An audit of a reversal before it is used: does its pretext loss see attacks, does its gradient lead back, and does
it bring more than noise or test-time augmentation of the same cost?

Legend: N images, draws averaged over one after another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from unfool.core.errors import DataError, SpecError
from unfool.core.streams import Streams
from unfool.data.augment import AUGMENTATIONS
from unfool.data.table import Table
from unfool.defenses import Defense, as_defense
from unfool.evaluation.crafting.adversarial_set import AdversarialSet
from unfool.evaluation.crafting.batches import BATCH_SIZE, device_of, spans
from unfool.evaluation.statistics.intervals import paired_bootstrap, wilson
from unfool.models.modes import frozen_eval

BINS = 30
LOOKS = 4
"""Draws of views that a pretext loss, and its gradient, is averaged over."""
TEST_TIME = "crop-flip"
"""The augmentation that test-time averaging uses: it leaves the class alone."""
NETWORK, DEFENSE, NOISE, VIEWS = "the bare network", "the defense", "noise", "test-time augmentation"


@dataclass(frozen=True, kw_only=True)
class Gain:
    """``accuracy`` of a way to classify attacked images with its interval, and what it gains over the bare network:
    ``difference`` with the paired bootstrap's 95 % interval, ``least`` to ``most``; ``images`` is its counted cost of
    one prediction."""

    accuracy: float
    low: float
    high: float
    difference: float
    least: float
    most: float
    images: int


@dataclass(frozen=True, kw_only=True)
class Audit:
    """``auroc`` is the chance that an attacked image has a higher pretext loss than a clean one (0.5: blind).

    ``edges`` (bins + 1) and ``counts`` by kind are the histogram of the pretext losses of clean, attacked and purified
    images, ``means`` their means. ``cosines`` (N) are those between the gradients of the pretext loss and of the
    cross-entropy at the attacked images: above 0, a step down the one is a step down the other. ``gains`` compare the
    bare network, the defense, noise and test-time augmentation on the attacked images.
    """

    auroc: float
    edges: list[float]
    counts: dict[str, list[int]]
    means: dict[str, float]
    cosines: list[float]
    gains: dict[str, Gain]
    n: int

    @property
    def cosine(self) -> tuple[float, float, float]:
        """The mean cosine and its 95 % normal interval."""
        values = np.array(self.cosines)
        half = 1.96 * values.std(ddof=1) / len(values) ** 0.5 if len(values) > 1 else 1.0
        return float(values.mean()), float(values.mean() - half), float(values.mean() + half)

    def sentences(self) -> list[str]:
        """What was found, one sentence each."""
        mean, low, high = self.cosine
        told = [
            f"An attacked image has a higher pretext loss than a clean one with probability {self.auroc:.2f} "
            f"(AUROC; 0.5 is blind) on {self.n} images; the loss is {self.means['clean']:.3g} clean, "
            f"{self.means['attacked']:.3g} attacked and {self.means['purified']:.3g} purified.",
            f"The gradients of pretext loss and cross-entropy have a mean cosine of {mean:+.3f} [{low:+.3f}, "
            f"{high:+.3f}] at the attacked images.",
        ]
        for name, gain in self.gains.items():
            told.append(
                f"On attacked images {name} keeps {100 * gain.accuracy:.1f} % [{100 * gain.low:.1f}, "
                f"{100 * gain.high:.1f}], {100 * gain.difference:+.1f} points [{100 * gain.least:+.1f}, "
                f"{100 * gain.most:+.1f}] over the bare network, at {gain.images} images a prediction."
            )
        return told

    def to_json(self) -> dict[str, Any]:
        """The same as JSON takes it; the cosines as mean and interval."""
        return {
            "auroc": round(self.auroc, 6),
            "histogram": {"edges": self.edges, "counts": self.counts},
            "means": {name: round(value, 6) for name, value in self.means.items()},
            "cosine": [round(value, 6) for value in self.cosine],
            "gains": {
                name: {key: round(value, 6) for key, value in vars(gain).items()} for name, gain in self.gains.items()
            },
            "n": self.n,
            "sentences": self.sentences(),
        }


def audit(
    defense: nn.Module, table: Table, adversarial: AdversarialSet, *, batch_size: int = BATCH_SIZE, seed: int = 0
) -> Audit:
    """Audit a reversal, or a gate around one, on stored examples and their clean images, which the table holds.

    Noise is uniform in the reversal's own ball; noise and test-time augmentation average the network's logits over as
    many copies as one prediction of the defense sends images through a network. Raises SpecError for a defense without
    a pretext task, DataError where the table lacks an image of the set.
    """
    purifier = as_defense(defense).purifier
    if purifier.pretext is None:
        raise SpecError(f"{type(defense).__name__} has no pretext loss to audit; give a reversal, or a gate around one")
    places = {number: place for place, number in enumerate(table.ids.tolist())}
    missing = [number for number in adversarial.ids.tolist() if number not in places]
    if missing:
        raise DataError(
            f"{table!r} lacks image {missing[0]} of the adversarial set; give the images it was crafted from"
        )
    rows = torch.tensor([places[number] for number in adversarial.ids.tolist()])
    look = _Look(defense, purifier, Streams(seed).named("audit"))
    device = device_of(purifier)
    with torch.inference_mode(False), torch.no_grad(), frozen_eval(defense):
        for span in spans(len(adversarial), batch_size):
            clean = table.batch(rows[span], device).images
            attacked, labels, ids = (
                tensor[span].to(device) for tensor in (adversarial.images, adversarial.labels, adversarial.ids)
            )
            look.at(clean, attacked, labels, ids)
    return look.result()


class _Look:
    """An audit underway: per image, pretext losses by kind of image, cosines, and who is right."""

    def __init__(self, defense: Any, purifier: Defense, streams: Streams):
        self.defense = defense
        self.purifier = purifier
        self.network = purifier.classifier
        self.streams = streams
        self.price = as_defense(defense).images_per_prediction
        self.losses: dict[str, list[Tensor]] = {"clean": [], "attacked": [], "purified": []}
        self.cosines: list[Tensor] = []
        names = (NETWORK, DEFENSE, NOISE, VIEWS) if purifier.threat is not None else (NETWORK, DEFENSE, VIEWS)
        self.right: dict[str, list[Tensor]] = {name: [] for name in names}

    def at(self, clean: Tensor, attacked: Tensor, labels: Tensor, ids: Tensor) -> None:
        """Note a batch: images (B, C, H, W), labels and ids (B,)."""
        purified = self.purifier.purified_images(attacked)[: len(attacked)]
        for kind, images in zip(self.losses, (clean, attacked, purified), strict=True):
            self.losses[kind].append(self._pretext(images).cpu())
        ball, views = self.purifier.threat, AUGMENTATIONS[TEST_TIME]
        noise, turns = self.streams.named("noise"), self.streams.named("views")
        outputs = {
            NETWORK: self.network(attacked),
            DEFENSE: self.defense(attacked),
            VIEWS: self._mean(lambda draw: views(attacked, ids, turns.at(draw))),
        }
        if ball is not None:
            outputs[NOISE] = self._mean(lambda draw: ball.sample(attacked, ids, noise.at(draw)))
        for name, logits in outputs.items():
            self.right[name].append((logits.argmax(1) == labels).cpu())
        with torch.enable_grad():
            moving = attacked.clone().requires_grad_()
            (ours,) = torch.autograd.grad(self._pretext(moving).sum(), moving)
            (theirs,) = torch.autograd.grad(F.cross_entropy(self.network(moving), labels, reduction="sum"), moving)
        self.cosines.append(F.cosine_similarity(ours.flatten(1).double(), theirs.flatten(1).double()).cpu())

    def _pretext(self, images: Tensor) -> Tensor:
        """Pretext losses (B,), the mean over a few draws of views that are the same for all images."""
        rows = torch.arange(len(images), device=images.device)
        objective = self.purifier.objective(torch.zeros_like(rows), self.streams.named("looks"))
        return torch.stack([objective.losses(images, rows, call) for call in range(LOOKS)]).mean(0).float()

    def _mean(self, drawn: Callable[[int], Tensor]) -> Tensor:
        """The network's mean logits over as many draws as the defense may send images through it."""
        return torch.stack([self.network(drawn(draw)) for draw in range(self.price)]).mean(0)

    def result(self) -> Audit:
        """What all batches have shown."""
        losses = {kind: torch.cat(parts).double().numpy() for kind, parts in self.losses.items()}
        right = {name: torch.cat(parts).numpy() for name, parts in self.right.items()}
        attacked = np.r_[np.zeros(len(losses["clean"])), np.ones(len(losses["attacked"]))]
        edges = np.histogram_bin_edges(np.concatenate(list(losses.values())), BINS)
        return Audit(
            auroc=float(roc_auc_score(attacked, np.r_[losses["clean"], losses["attacked"]])),
            edges=[round(float(edge), 6) for edge in edges],
            counts={kind: np.histogram(values, edges)[0].tolist() for kind, values in losses.items()},
            means={kind: float(values.mean()) for kind, values in losses.items()},
            cosines=torch.cat(self.cosines).tolist(),
            gains={
                name: _gain(values, right[NETWORK], 1 if name == NETWORK else self.price)
                for name, values in right.items()
            },
            n=len(attacked) // 2,
        )


def _gain(right: np.ndarray, bare: np.ndarray, images: int) -> Gain:
    low, high = wilson(int(right.sum()), len(right))
    difference, least, most = paired_bootstrap(right, bare)
    return Gain(
        accuracy=float(right.mean()),
        low=low,
        high=high,
        difference=difference,
        least=least,
        most=most,
        images=images,
    )
