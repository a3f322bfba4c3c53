"""A network trained on the spot, robust enough that attacks of different strength can be told apart."""

import os

import pytest
from torch import Tensor

from unfool.core.streams import Streams
from unfool.data.catalog import open_table
from unfool.data.table import Table
from unfool.models.network import Network
from unfool.training import RunConfig, StageConfig, TaskConfig, train


def train_robust(table: Table, folder, threat: str, step_size: str, **values) -> Network:
    stage = StageConfig(
        tasks={"labels": TaskConfig(task="labels")},
        optimizer="sgd",
        schedule="triangle",
        precision="bf16",
        perturb=f"fgsm:random_start=true,step_size={step_size}",
        threat=threat,
        **values,
    )
    trunk = {"name": "convnet", "stem": "strided", "widths": [12, 16, 24]}
    return train(RunConfig(data=table.name, stages=(stage,), trunk=trunk), table, folder).network.eval()


@pytest.fixture(scope="session")
def robust_digits(tmp_path_factory) -> tuple[Network, Tensor, Tensor, Tensor]:
    """(network, images, labels, ids): trained on the embedded digits, 96 others to attack."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNFOOL_CACHE_DIR", str(cache))
        patch.delenv("UNFOOL_DATA_DIR", raising=False)
        table, test = open_table("digits", "train"), open_table("digits", "test")
        settings = {"epochs": 3, "batch_size": 50, "learning_rate": 0.1}
        network = train_robust(table, cache / "run", "linf:0.1", "0.125", **settings)
    batch = test.sample(96, Streams(0)).batch()
    return network, batch.images, batch.labels("label"), batch.ids


@pytest.fixture(scope="session")
def robust_cifar(tmp_path_factory) -> tuple[Network, Tensor, Tensor, Tensor]:
    """(network, images, labels, ids): trained briefly on real CIFAR-10, 512 test images to attack."""
    folder = os.environ.get("UNFOOL_DATA_DIR")
    if not folder or not os.path.isdir(os.path.join(folder, "cifar10")):
        pytest.skip("needs real CIFAR-10: set UNFOOL_DATA_DIR to a directory that has cifar10 in hub layout")
    table = open_table("cifar10", "train", data_dir=folder).sample(20_000, Streams(0))
    settings = {"epochs": 2, "batch_size": 200, "learning_rate": 0.1}
    network = train_robust(table, tmp_path_factory.mktemp("cifar"), "linf:8/255", "10/255", **settings)
    batch = open_table("cifar10", "test", data_dir=folder).sample(512, Streams(0)).batch()
    return network, batch.images, batch.labels("label"), batch.ids
