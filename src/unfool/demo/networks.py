"""The networks of the demo: four small ones on embedded digits, and one that only looks robust."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from unfool.core.progress import Progress, renamed
from unfool.core.threat import Linf
from unfool.data.catalog import open_table
from unfool.data.table import Table
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.training import RunConfig, StageConfig, TaskConfig, train

THREAT = Linf(16 / 255)
"""The budget of every attack of the demo."""
_TRUNK = TrunkSpec(name="convnet", stem="strided", widths=(16, 32, 64))
_LABELS = {"labels": TaskConfig(task="labels")}


@dataclass(frozen=True, kw_only=True)
class Networks:
    """Networks by what they learnt; ``lender`` is a plain one from other random weights: it lends examples."""

    lender: Network
    plain: Network
    contrastive: Network
    hardened: Network


def train_networks(folder: Path, epochs: int, progress: Progress) -> Networks:
    """Train the networks, or open those that are finished."""
    table = training_images()
    contrast = {**_LABELS, "contrast": TaskConfig(task="contrast", weight=0.5)}

    def trained(name: str, tasks: dict[str, TaskConfig], seed: int = 0, perturb: str | None = None) -> Network:
        stage = StageConfig(
            tasks=tasks,
            epochs=epochs,
            batch_size=64,
            optimizer="sgd",
            learning_rate=0.1,
            schedule="triangle",
            perturb=perturb,
            threat=THREAT,
        )
        config = RunConfig(data="digits", trunk=_TRUNK, stages=(stage,), seed=seed)
        run = train(config, table, folder / name, progress=renamed(progress, f"train {name}"))
        return run.network.eval()

    return Networks(
        lender=trained("lender", _LABELS, seed=1),
        plain=trained("plain", _LABELS),
        contrastive=trained("contrastive", contrast),
        hardened=trained("hardened", _LABELS, perturb="n-fgsm"),
    )


def training_images() -> Table:
    """The training digits."""
    return open_table("digits", "train")


def test_images() -> Table:
    """The test digits."""
    return open_table("digits", "test")


class Saturated(nn.Module):
    """A network whose logits are multiplied by a thousand: same predictions, and a loss whose gradient vanishes."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits (B, K) of images (B, C, H, W) in [0,1]."""
        return 1000.0 * self.network(images)
