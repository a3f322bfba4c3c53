"""How well a task is done on held-out images: figures of the task itself, over a whole table, and on changed images."""

import pytest
import torch

from unfool.core.errors import DataError
from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.evaluation.intervals import wilson
from unfool.evaluation.pretext.accuracy import pretext_quality
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task

COUNT = 300


def make_table(count=COUNT, side=16):
    ids = torch.arange(count)
    pixels = (Streams(0).uniform(ids, (3, side, side)) * 255).to(torch.uint8)
    return Table(DecodedPixels(pixels), ids, {}, {}, label_column=None, name="noise", split="test")


def make_bound(name, **settings):
    network = Network.build(TrunkSpec(name="convnet", widths=(4, 6, 8)), {}, normalisation="none")
    task = make_task(name, settings)
    task.bind(network, name, {"label": 3}, Streams(0))
    return network.train(), task.train()


def test_loss_and_accuracy_are_the_task_s_own_in_eval_mode():
    network, task = make_bound("rotation", turns="one", augmentation="none")
    table = make_table()
    found = pretext_quality(network, task, table)
    assert network.training
    assert task.training
    network.eval(), task.eval()
    views = task.views(table.batch(), Streams(0).named("pretext"))
    with torch.no_grad():
        outputs = network.features(views.images, views.stage)
        right = int((task.head(outputs).argmax(1) == views.targets).sum())
        loss = float(task.losses(outputs, views).mean())
    assert found.loss == pytest.approx(loss, rel=1e-4)
    assert (found.count, found.accuracy) == (COUNT, right / COUNT)
    assert (found.low, found.high) == wilson(right, COUNT)


def test_a_task_without_answers_has_a_loss_alone():
    network, task = make_bound("inpainting", width=8, side=16, discriminator=0, lambda_adv=0.0)
    found = pretext_quality(network, task, make_table())
    assert found.loss > 0
    assert (found.accuracy, found.low, found.high) == (None, None, None)


def test_changed_images_are_what_the_task_sees():
    network, task = make_bound("rotation", turns="one", augmentation="none")
    whole = pretext_quality(network, task, make_table())
    same = pretext_quality(network, task, make_table(), change=lambda images: images.clone())
    grey = pretext_quality(network, task, make_table(), change=lambda images: torch.full_like(images, 0.5))
    assert same == whole
    assert grey.loss != whole.loss


def test_an_empty_table_is_refused():
    network, task = make_bound("rotation")
    with pytest.raises(DataError, match="no images"):
        pretext_quality(network, task, make_table(0))
