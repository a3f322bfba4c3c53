# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false, reportMissingTypeStubs=false
"""What an audit leaves: whether a pretext loss sees attacks, whether its gradient leads back, and what it gains."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import TYPE_CHECKING

from unfool.core.files import JsonObject
from unfool.evaluation.intervals import mean_interval
from unfool.evaluation.next_step import NextStep, is_weak
from unfool.evaluation.records import TRANSFER

if TYPE_CHECKING:
    from pandas import DataFrame

NETWORK, DEFENSE, NOISE, VIEWS = "the bare network", "the defense", "noise", "test-time augmentation"
"""The ways of classifying attacked images that an audit compares."""


@dataclass(frozen=True, kw_only=True)
class Gain:
    """How accurate a way of classifying attacked images is, and what it gains over the bare network.

    Args:
        accuracy: The accuracy, a share.
        low: Lower end of its 95 % interval.
        high: Upper end of its 95 % interval.
        difference: The accuracy less that of the bare network.
        least: Lower end of the difference's 95 % interval, Tango's score interval.
        most: Upper end of the difference's 95 % interval.
        images: How many images one prediction sends through a network.
    """

    accuracy: float
    low: float
    high: float
    difference: float
    least: float
    most: float
    images: int


@dataclass(frozen=True, kw_only=True)
class AuditResult:
    """What an audit shows of a defense's pretext loss, on attacked images and the clean ones they were made of.

    Args:
        attack: The attack's name.
        threat: Its threat model.
        auroc: The chance that an attacked image has a higher pretext loss than a clean one; at 0.5 the loss tells
            nothing apart.
        edges: Edges of the histogram's bins, (bins + 1).
        counts: How many images of each kind (clean, attacked, purified) have a pretext loss in each bin.
        means: The mean pretext loss of each kind of image.
        cosines: Cosines between the gradients of the pretext loss and of the cross-entropy at the attacked images, (N).
            Above 0, a step down the one is a step down the other.
        gains: Accuracies of the bare network, the defense, noise and test-time augmentation on the attacked images.
        n: The number of attacked images.
        clean: The accuracy of the bare network on the clean images that they were made of, a share.
        ids: The ids of the attacked images, (N).
        correct: For each way of classifying in ``gains``, whether each attacked image is classified correctly, (N).
        protocol: ``transfer`` where the attacked images were crafted on another system than the bare network; else as
            `Records` name it, ``white-box``.

    Example:
        >>> import torch
        >>> from unfool import Linf, Network, TrunkSpec, audit, defenses
        >>> heads = {"labels": {"kind": "linear", "outputs": 2}, "rotation": {"kind": "linear", "outputs": 4}}
        >>> network = Network.build(TrunkSpec(name="convnet", widths=(4, 8, 8)), heads, classifier="labels").eval()
        >>> images = torch.linspace(0, 1, 2 * 3 * 16 * 16).view(2, 3, 16, 16)
        >>> data = images, network(images).argmax(1)
        >>> defense = defenses.Reverse(network, "rotation", threat=Linf(4/255), steps=1)
        >>> result = audit(defense, data, "fgsm")
        >>> result.to_frame()["way"].tolist()
        ['the bare network', 'the defense', 'noise', 'test-time augmentation']
    """

    attack: str
    threat: str
    auroc: float
    edges: list[float]
    counts: dict[str, list[int]]
    means: dict[str, float]
    cosines: list[float]
    gains: dict[str, Gain]
    n: int
    clean: float
    ids: list[int]
    correct: dict[str, list[bool]]
    protocol: str

    @property
    def next_step(self) -> NextStep:
        """Harden the bare network if it keeps less than half of its clean accuracy; else attack the whole."""
        weak = is_weak(self.clean, self.gains[NETWORK].accuracy)
        return NextStep(action="harden" if weak else "ladder", threat=self.threat)

    @property
    def cosine(self) -> tuple[float, float, float]:
        """The mean cosine and its 95 % normal interval."""
        return mean_interval(self.cosines)

    def sentences(self) -> list[str]:
        """The results in words, one sentence each."""
        mean, low, high = self.cosine
        attacked = "attacked images"
        borrowed: list[str] = []
        if self.protocol == TRANSFER:
            attacked = "transferred images"
            borrowed = [
                f"The attacked images are {TRANSFER.upper()}: they were crafted on another system than {NETWORK}, so "
                f"their accuracies and gains say nothing of an attack on {NETWORK}."
            ]
        sentences = [
            *borrowed,
            f"An attacked image has a higher pretext loss than a clean one with probability {self.auroc:.2f} "
            f"(AUROC; 0.5 tells nothing apart) on {self.n} images; its mean is {self.means['clean']:.3g} on clean, "
            f"{self.means['attacked']:.3g} on attacked and {self.means['purified']:.3g} on purified images.",
            f"The gradients of pretext loss and cross-entropy have a mean cosine of {mean:+.3f} [{low:+.3f}, "
            f"{high:+.3f}] at the attacked images.",
        ]
        for name, gain in self.gains.items():
            sentence = (
                f"On {attacked} the accuracy of {name} is {100 * gain.accuracy:.1f} % [{100 * gain.low:.1f}, "
                f"{100 * gain.high:.1f}]"
            )
            if name != NETWORK:
                sentence += (
                    f", {100 * gain.difference:+.1f} points [{100 * gain.least:+.1f}, {100 * gain.most:+.1f}] over "
                    f"{NETWORK}; one prediction sends {gain.images} images through the network"
                )
            sentences.append(f"{sentence}.")
        return sentences

    def to_json(self) -> JsonObject:
        """The same as JSON takes it; the cosines as mean and interval."""
        return {
            "attack": self.attack,
            "threat": self.threat,
            "protocol": self.protocol,
            "auroc": round(self.auroc, 6),
            "histogram": {"edges": self.edges, "counts": self.counts},
            "means": {name: round(value, 6) for name, value in self.means.items()},
            "cosine": [round(value, 6) for value in self.cosine],
            "gains": {
                name: {key: round(value, 6) for key, value in vars(gain).items()} for name, gain in self.gains.items()
            },
            "n": self.n,
            "ids": self.ids,
            "correct": self.correct,
            "sentences": self.sentences(),
        }

    def to_frame(self) -> DataFrame:
        """The gains as a pandas table, one way of classifying a line; accuracies and differences are shares."""
        import pandas

        return pandas.DataFrame([{"way": name, **vars(gain)} for name, gain in self.gains.items()])

    def _repr_html_(self) -> str:
        sentences = "".join(f"<p>{html.escape(text)}</p>" for text in self.sentences()[: -len(self.gains)])
        return sentences + self.to_frame().to_html(index=False)

    def __repr__(self) -> str:
        gain = self.gains[DEFENSE]
        images = "transferred" if self.protocol == TRANSFER else "attacked"
        return (
            f"AuditResult(AUROC {self.auroc:.2f}, cosine {self.cosine[0]:+.3f}, the defense gains "
            f"{100 * gain.difference:+.1f} points on {self.n} {images} images)"
        )
