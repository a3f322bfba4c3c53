"""Quality of fillings: figures against NumPy, the two extremes, pictures, and a network left as it was."""

import weakref

import numpy as np
import pytest
import torch

from unfool.core.errors import DataError, SpecError
from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.evaluation.pretext import inpainting as filling_module
from unfool.evaluation.pretext.accuracy import pretext_quality
from unfool.evaluation.pretext.figures import pretext_figures
from unfool.evaluation.pretext.inpainting import filling_qualities, filling_quality, inpainted
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.tasks import make_task

COUNT = 300


def noise(count):
    return (Streams(0).uniform(torch.arange(count), (3, 16, 16)) * 255).to(torch.uint8)


def make_table(count=COUNT, pixels=None):
    ids = torch.arange(count)
    return Table(
        DecodedPixels(noise(count) if pixels is None else pixels),
        ids,
        {},
        {},
        label_column=None,
        name="noise",
        split="test",
    )


def make_bound(name="inpainting"):
    network = Network.build(TrunkSpec(name="convnet", widths=(4, 6, 8)), {}, normalisation="none")
    task = make_task(name)
    task.bind(network, name, {"label": 3}, Streams(0))
    return task.train(), network.train()


def test_figures_are_those_of_numpy_over_the_whole_table():
    task, network = make_bound()
    table = make_table()
    found = filling_quality(network, task, table)
    images = table.batch(torch.arange(COUNT)).images
    views = task.eval().views(table.batch(torch.arange(COUNT)), None)
    network.eval()
    with torch.no_grad():
        fillings = task.fillings(network.features(views.images, views.stage), views).double().numpy()
    there = images.double().numpy()[:, :, 4:12, 4:12]
    visible = np.ones((16, 16), bool)
    visible[4:12, 4:12] = False
    means = images.double().numpy()[:, :, visible].mean(2)[:, :, None, None]
    assert found.count == COUNT
    assert found.l2 == pytest.approx(np.mean((fillings - there) ** 2), rel=1e-4)
    assert found.mean_l2 == pytest.approx(np.mean((means - there) ** 2), rel=1e-4)
    assert found.ratio == pytest.approx(found.l2 / found.mean_l2)
    variances = [np.var(x.reshape(COUNT, -1), axis=0, ddof=1).mean() for x in (fillings, there)]
    assert found.variety == pytest.approx(variances[0] / variances[1], rel=1e-3)
    steps = [sum(np.mean(np.diff(x, axis=axis) ** 2) for axis in (2, 3)) for x in (fillings, there)]
    assert found.sharpness == pytest.approx(steps[0] / steps[1], rel=1e-3)


def test_parts_of_a_table_are_measured_one_by_one():
    task, network = make_bound()
    table = make_table(40)
    parts = filling_qualities(network, task, table, parts=4)
    assert [part.count for part in parts] == [10] * 4
    assert parts[1] == filling_quality(network, task, table.subset(torch.arange(10, 20)))
    figures = pretext_figures(network, {"inpainting": task}, {"": task}, table)
    assert figures["tasks"] == {"inpainting": pretext_quality(network, task, table).to_json()}
    assert [part["count"] for part in figures["fillings"][""]] == [4] * 10
    assert figures["fillings"][""][0]["ratio"] == filling_quality(network, task, table.subset(torch.arange(4))).ratio


def test_what_was_there_is_perfect_and_one_picture_for_all_varies_not_at_all(monkeypatch):
    task, network = make_bound()
    monkeypatch.setattr(type(task), "fillings", lambda self, outputs, views: views.targets.pixels)
    perfect = filling_quality(network, task, make_table())
    assert (perfect.l2, perfect.ratio) == (0, 0)
    assert perfect.variety == pytest.approx(1)
    picture = torch.rand(3, 8, 8)
    monkeypatch.setattr(type(task), "fillings", lambda self, outputs, views: picture.expand(len(outputs), -1, -1, -1))
    same = filling_quality(network, task, make_table())
    assert same.variety == 0
    assert same.ratio > 1


def test_pictures_differ_in_the_region_alone_and_the_network_stays_as_it_was():
    task, network = make_bound()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    images = make_table().batch(torch.arange(4)).images
    found = inpainted(network, task, images)
    assert found.original is images
    assert torch.equal(found.filled[:, :, 4:12, 4:12], found.fillings)
    assert torch.equal(found.pixels, images[:, :, 4:12, 4:12])
    assert torch.equal(found.colours, found.masked[:, :, 4:12, 4:12])
    for shown in (found.masked, found.filled):
        outside = (shown != images).any(1)
        outside[:, 4:12, 4:12] = False
        assert not outside.any()
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert network.training
    assert task.training


def test_other_tasks_and_single_images_are_refused():
    task, network = make_bound("rotation")
    with pytest.raises(SpecError, match="Rotation fills no region"):
        filling_quality(network, task, make_table(3))
    task, network = make_bound()
    with pytest.raises(DataError, match="noise has 1 images"):
        filling_quality(network, task, make_table(1))


def test_of_batches_that_are_done_the_regions_alone_are_kept(monkeypatch):
    task, network = make_bound()
    table = make_table()
    at_once = filling_quality(network, task, table)
    plain, seen = filling_module.inpainted, []

    def watched(*arguments):
        # Those of the batch before last: the last one's may wait to be replaced by this one's.
        assert not any(there() is not None for whole in seen[:-1] for there in whole)
        found = plain(*arguments)
        seen.append([weakref.ref(whole) for whole in (found.masked, found.filled, found.original)])
        return found

    monkeypatch.setattr(filling_module, "inpainted", watched)
    monkeypatch.setattr(filling_module, "BATCH_SIZE", 64)
    in_parts = filling_quality(network, task, table)
    assert len(seen) == 5
    assert vars(in_parts) == pytest.approx(vars(at_once), rel=1e-5)


@pytest.mark.parametrize(
    "pixels",
    [
        torch.full((3, 3, 16, 16), 77, dtype=torch.uint8),
        torch.tensor([10, 77, 200], dtype=torch.uint8)[:, None, None, None].expand(3, 3, 16, 16),
        noise(1).expand(3, 3, 16, 16),
    ],
    ids=["one colour", "a colour each", "one picture"],
)
def test_regions_that_do_not_vary_are_no_measure_of_fillings(pixels):
    task, network = make_bound()
    with pytest.raises(DataError, match="regions of the 3 images of noise do not vary") as refusal:
        filling_quality(network, task, make_table(3, pixels.contiguous()))
    assert "\n" not in str(refusal.value)
