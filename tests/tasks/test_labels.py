"""Classification on any label column."""

import numpy as np
import pytest
import torch

from unfool.core.batch import Batch
from unfool.core.errors import DataError, SpecError
from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task

CLASSES = {"fine": 5, "coarse": 2}


def make_bound(**values):
    task = make_task("labels", {"column": "fine", **values})
    network = Network.build(TrunkSpec(name="convnet", widths=(3, 4, 6)), {}, normalisation="none")
    task.bind(network, "labels", CLASSES, Streams(0))
    return task, network.eval()


def make_batch(count=6):
    ids = torch.arange(count)
    fine = Streams(3).integers(ids, 5)
    return Batch(
        images=Streams(1).uniform(ids, (3, 12, 12)), ids=ids, columns={"fine": fine, "coarse": fine.clamp(max=1)}
    )


@pytest.mark.parametrize("column", CLASSES)
@pytest.mark.parametrize("count", [1, 3])
def test_the_loss_is_the_mean_cross_entropy_over_views(column, count):
    task, network = make_bound(column=column, views=count)
    batch = make_batch()
    views = task.views(batch, Streams(2))
    with torch.no_grad():
        outputs = network.features(views.images)
        logits = task.head(outputs).double().numpy()
        losses, scores = task.losses(outputs, views), task.scores(outputs, views)
    assert logits.shape == (6 * count, CLASSES[column])
    for image in range(6):
        label = int(batch.columns[column][image])
        rows = [logits[view * 6 + image] for view in range(count)]
        expected = np.mean([np.log(np.exp(row).sum()) - row[label] for row in rows])
        assert np.isclose(float(losses[image]), expected, rtol=1e-5)
        assert np.isclose(float(scores["accuracy"][image]), np.mean([row.argmax() == label for row in rows]))


def test_the_canonical_view_is_the_image_itself():
    task, _ = make_bound(views=3)
    batch = make_batch()
    views = task.views(batch, None)
    assert views.count == 1
    assert torch.equal(views.images, batch.images)
    assert torch.equal(views.targets, batch.columns["fine"])


def test_the_head_is_as_wide_as_the_column_has_classes():
    task, network = make_bound(hidden=7)
    assert network.heads["labels"] is task.head
    assert task.head_for({"last": 6}, CLASSES) == {"kind": "mlp", "inputs": 6, "hidden": 7, "outputs": 5}
    linear = make_task("labels", {"column": "coarse"})
    assert linear.head_for({"last": 6}, CLASSES) == {"kind": "linear", "inputs": 6, "outputs": 2}
    assert linear.needs == ("coarse",)


def test_a_second_task_of_the_same_name_shares_the_head():
    _, network = make_bound()
    head = network.heads["labels"]
    again = make_task("labels", {"column": "fine"})
    again.bind(network, "labels", CLASSES, Streams(9))
    assert again.head is head


def test_columns_that_are_not_there_are_named():
    with pytest.raises(SpecError, match="did you mean 'fine'"):
        make_bound(column="fin")
    task, _ = make_bound()
    bare = make_batch()
    with pytest.raises(DataError, match="without labels"):
        task.views(Batch(images=bare.images, ids=bare.ids), None)


@pytest.mark.parametrize(("key", "value"), [("views", 0), ("hidden", -1), ("views", "many")])
def test_bad_settings_are_refused(key, value):
    with pytest.raises(SpecError, match=key):
        make_task("labels", {key: value})


def test_an_unknown_augmentation_is_named():
    with pytest.raises(SpecError, match="did you mean 'simclr'"):
        make_bound(augmentation="simclrr")
