"""A loss of contrast from outside: one decorated function, then named in a task's settings like any other."""

import pytest
import torch
import torch.nn.functional as F
from test_contrast_queue import make_batch

from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task
from unfool.tasks.contrast_losses import CONTRAST_LOSSES, contrast_loss


@pytest.fixture
def _registered(monkeypatch):
    list(CONTRAST_LOSSES)
    monkeypatch.setattr(CONTRAST_LOSSES, "_items", dict(CONTRAST_LOSSES._items))
    monkeypatch.setattr(CONTRAST_LOSSES, "_sources", dict(CONTRAST_LOSSES._sources))

    @contrast_loss("distance", uses_negatives=False)
    def distance(z_ND, count, temperature, negatives=None, queue=None):
        """The squared distance of two views."""
        first, second = F.normalize(z_ND, dim=1).unflatten(0, (count, -1))[:2]
        return (first - second).square().sum(1)


@pytest.mark.usefixtures("_registered")
def test_a_new_loss_is_the_task_s():
    task = make_task("contrast", {"loss": "distance", "size": 4})
    network = Network.build(TrunkSpec(name="convnet", widths=(3, 4, 6)), {}, normalisation="none").eval()
    task.bind(network, "contrast", {}, Streams(0))
    views = task.views(make_batch(), Streams(0))
    outputs = network.features(views.images)
    cosine = make_task("contrast", {"loss": "cosine", "size": 4})
    cosine.head = task.head
    # Of unit vectors the squared distance is twice one minus the cosine.
    torch.testing.assert_close(task.losses(outputs, views), 2 * cosine.losses(outputs, views))
    assert not task.coupled


def test_an_unknown_loss_is_answered_by_all_there_are():
    with pytest.raises(SpecError, match="did you mean 'cosine'"):
        make_task("contrast", {"loss": "cosin"})
