"""Everything that makes a table, without a changed pixel; and one line for everything that does not."""

from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, Image
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from unfool.core.errors import DataError, ImagesError, SpecError, UnfoolWarning
from unfool.core.streams import Streams
from unfool.data.as_table import as_table
from unfool.data.table import Table

BYTES = (Streams(0).uniform(torch.arange(6), (3, 8, 10)) * 256).to(torch.uint8)
LABELS = torch.tensor([0, 1, 2, 2, 1, 0])
FLOATS = BYTES.float() / 255


class Items(torch.utils.data.Dataset):
    """A map-style data set with a transform, as torchvision's are."""

    classes = ("cat", "dog", "emu")

    def __init__(self, transform, labels=(0, 1, 2, 2, 1, 0)):
        self.transform, self.labels = transform, labels

    def __len__(self):
        return len(BYTES)

    def __getitem__(self, row):
        return self.transform(BYTES[row]), self.labels[row]


class Streamed(IterableDataset):
    def __iter__(self):
        return iter(zip(FLOATS, LABELS.tolist(), strict=True))


class Mapped(Items):
    def __init__(self):
        super().__init__(lambda image: image)

    def __getitem__(self, row):
        return {"pixel_values": BYTES[row], "labels": self.labels[row]}


class Failing(Items):
    def __init__(self):
        super().__init__(lambda image: image.no_such)


def picture(image):
    return PIL.Image.fromarray(image.permute(1, 2, 0).numpy())


def hugging_face():
    features = Features({"image": Image(), "label": ClassLabel(names=["cat", "dog", "emu"])})
    return Dataset.from_dict({"image": [picture(i) for i in BYTES], "label": LABELS.tolist()}, features=features)


FORMS = {
    "bytes": lambda: (BYTES, LABELS),
    "floats": lambda: (FLOATS, LABELS),
    "list": lambda: [FLOATS, LABELS.tolist()],
    "float64": lambda: (FLOATS.double(), LABELS.to(torch.uint8)),
    "arrays": lambda: (BYTES.numpy(), LABELS.numpy().astype(np.int32)),
    "strided": lambda: (np.asfortranarray(FLOATS.numpy())[::1], LABELS),
    "gradients": lambda: (FLOATS.clone().requires_grad_(), LABELS),
    "tensor data set": lambda: TensorDataset(FLOATS, LABELS),
    "items of floats": lambda: Items(lambda image: image.float() / 255),
    "items of bytes": lambda: Items(lambda image: image, labels=list(LABELS)),
    "items of pictures": lambda: Items(picture),
    "items of arrays": lambda: Items(lambda image: image.permute(1, 2, 0).numpy()),
    "stream": lambda: Streamed(),
    "subset": lambda: torch.utils.data.Subset(Items(picture), range(6)),
    "loader": lambda: DataLoader(Items(lambda image: image.float() / 255), batch_size=4),
    "hugging face": hugging_face,
    "table": lambda: Table.from_tensors(BYTES, LABELS),
    "list of tensors": lambda: (list(FLOATS), LABELS),
    "list of pictures": lambda: ([picture(image) for image in BYTES], LABELS.tolist()),
    "items of mappings": lambda: Mapped(),
    "loader of mappings": lambda: DataLoader(Mapped(), batch_size=4),
    "loader of single items": lambda: DataLoader(TensorDataset(FLOATS, LABELS), batch_size=None),
    "loader of lists": lambda: DataLoader(
        Items(picture), batch_size=4, collate_fn=lambda b: tuple(zip(*b, strict=True))
    ),
    "column of labels": lambda: (FLOATS, LABELS[:, None]),
}


@pytest.mark.parametrize("form", FORMS)
def test_images_and_labels_arrive_unchanged(form):
    table = as_table(FORMS[form]())
    batch = table.batch()
    assert torch.equal(batch.images, FLOATS)
    assert batch.images.dtype == torch.float32
    assert not batch.images.requires_grad
    assert table.images.dtype == torch.uint8  # a quarter of the memory, where nothing is lost
    assert torch.equal(batch.labels("label"), LABELS)
    assert batch.labels("label").dtype == torch.int64
    assert table.ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert table.label_column == "label"


@pytest.mark.parametrize("form", ["items of pictures", "loader", "hugging face"])
def test_class_names_come_along(form):
    assert as_table(FORMS[form]()).classes == {"label": ["cat", "dog", "emu"]}


def test_floats_between_the_bytes_keep_their_values():
    images = Streams(1).uniform(torch.arange(4), (1, 5, 5))
    table = Table.from_tensors(images, [0, 0, 1, 1])
    assert torch.equal(table.batch().images, images)
    assert torch.equal(table.subset(torch.tensor([2])).batch().images, images[2:3])
    table.batch().images.zero_()
    assert torch.equal(table.batch().images, images)


def test_columns_ids_and_names_are_the_callers():
    table = Table.from_tensors(
        BYTES,
        {"fine_label": LABELS, "parity": LABELS % 2},
        ids=LABELS.new_tensor([9, 4, 5, 6, 7, 8]),
        classes={"parity": ["even", "odd"]},
        name="mine",
        split="train",
    )
    assert (table.name, table.split, table.label_column) == ("mine", "train", "fine_label")
    assert table.classes == {"fine_label": ["0", "1", "2"], "parity": ["even", "odd"]}
    assert table.ids.tolist() == [9, 4, 5, 6, 7, 8]
    assert repr(table) == "Table('mine', 'train', 6 images of 3×8×10, labels: fine_label, parity)"


def test_a_name_opens_the_split_that_the_caller_wants():
    assert len(as_table("digits")) == 397
    assert len(as_table("digits", split="train")) == 1400
    with pytest.raises(SpecError, match="did you mean 'digits'"):
        as_table("digit")


def test_images_without_labels_are_a_table_only_when_said_so():
    assert Table.from_tensors(BYTES).label_column is None
    with pytest.raises(ImagesError, match=r"give \(images, labels\)"):
        as_table(BYTES)


def collated(collate, **settings):
    """A loader of pairs (FLOATS, LABELS) with a collate function of the user's own."""
    return DataLoader(TensorDataset(FLOATS, LABELS), collate_fn=collate, **settings)


def uneven(items):
    """A batch of images that are cut to the height of its first label plus 4."""
    images, labels = (torch.stack(part) for part in zip(*items, strict=True))
    return images[:, :, : 4 + int(labels[0])], labels


REFUSED = {
    "batches of two sizes": (
        lambda: collated(uneven, batch_size=2),
        DataError,
        "image 2 is .* resize them to one size",
    ),
    "batches of an image": (lambda: collated(lambda items: (items[0][0], 1)), DataError, "labels that are a int; make"),
    "batches of a scalar": (lambda: collated(lambda items: items[0]), DataError, "that are a single number; make its"),
    "batches of numbers": (lambda: collated(lambda items: (1, [2])), DataError, "images that are a int; make it yield"),
    "batches of objects": (
        lambda: collated(lambda items: (np.array([None, 1]), [0, 1])),
        DataError,
        "image 0 is in an array of object",
    ),
    "an array of objects": (
        lambda: (np.array([image.numpy() for image in FLOATS] + [None], dtype=object)[:6], LABELS),
        DataError,
        "images are an array of object, which .* give one array of uint8 or float32",
    ),
    "an array of text": (lambda: (np.array(["a.png"] * 6), LABELS), DataError, "images are an array of <U5"),
    "0 to 255 floats": (lambda: (BYTES.float(), LABELS), ImagesError, "divide by 255"),
    "beyond by resizing": (lambda: (FLOATS * 1.02 - 0.01, LABELS), ImagesError, r"clamp\(0, 1\)"),
    "normalised loader": (lambda: DataLoader(TensorDataset(FLOATS * 4 - 2, LABELS)), ImagesError, "undo the normal"),
    "labels that are NaN": (lambda: (BYTES, torch.tensor([0, 1, float("nan")] * 2)), DataError, "no label in row 2"),
    "items that fail": (Failing, SpecError, "item 0 of the data set failed at .*test_as_table.py:[0-9]+: Attr"),
    "a loader that fails": (lambda: DataLoader(Items(picture)), SpecError, "the DataLoader failed.*default_collate"),
    "items of two modes": (
        lambda: Items(lambda image: picture(image).convert("L" if image.sum() % 2 else "RGB")),
        DataError,
        "convert them to one number of channels",
    ),
    "one-hot items": (lambda: Items(picture, labels=list(torch.eye(6))), DataError, "use argmax"),
    "a path": (lambda: Path(__file__).parent, DataError, "is given as text; write 'folder:"),
    "draws": (
        lambda: DataLoader(Items(picture), sampler=WeightedRandomSampler(torch.ones(6), 6)),
        DataError,
        "shuffles",
    ),
    "shuffled batches": (
        lambda: DataLoader(Items(picture), batch_sampler=BatchSampler(RandomSampler(range(6)), 2, False)),
        DataError,
        "shuffles",
    ),
    "normalised": (lambda: (FLOATS * 2 - 1, LABELS), ImagesError, "undo the normalisation"),
    "NHWC floats": (lambda: (FLOATS.permute(0, 2, 3, 1), LABELS), ImagesError, r"use permute\(0, 3, 1, 2\)"),
    "NHWC bytes": (lambda: (BYTES.permute(0, 2, 3, 1).numpy(), LABELS), ImagesError, r"use permute\(0, 3, 1, 2\)"),
    "whole numbers": (lambda: (BYTES.long(), LABELS), ImagesError, "torch.int64"),
    "no batch dimension": (lambda: (BYTES[0], LABELS[0]), ImagesError, "add or drop a dimension"),
    "no image": (lambda: (BYTES[:0], LABELS[:0]), ImagesError, "empty batch"),
    "NaN": (lambda: (FLOATS / 0, LABELS), ImagesError, "NaN"),
    "a list of files": (lambda: (["a.png"], [0]), ImagesError, "torch.as_tensor"),
    "too few labels": (lambda: (BYTES, LABELS[:5]), DataError, r"shape \(5,\) for 6 images"),
    "one-hot labels": (lambda: (BYTES, torch.eye(3)[LABELS]), DataError, r"argmax\(1\)"),
    "labels between classes": (lambda: (BYTES, LABELS / 2), DataError, r"label 0.5; give whole class numbers"),
    "negative labels": (lambda: (BYTES, LABELS - 1), DataError, "number the classes from 0"),
    "labels that are lists": (lambda: (BYTES, [[0], [1, 2]] * 3), DataError, "give one label a row"),
    "labels of several kinds": (
        lambda: (BYTES, [1, "cat", None] * 2),
        DataError,
        "are NoneType, int, str; give class numbers, text or bool",
    ),
    "ids for labels": (lambda: (BYTES, LABELS + 10**8), DataError, "100,000 classes"),
    "three values": (lambda: (BYTES, LABELS, 1), DataError, "3 values"),
    "a number": (lambda: 3, DataError, "a int is no set of images"),
    "nothing": (lambda: None, DataError, "NoneType"),
    "an object": (object, DataError, "a object is no set of images"),
    "items without labels": (lambda: TensorDataset(FLOATS), DataError, r"give a pair|give \(image, label\)"),
    "sizes that differ": (lambda: [(FLOATS[0], 0), (FLOATS[1, :, :4], 1), 3], DataError, "3 values"),
    "items of flat images": (lambda: Items(lambda image: image.flatten()), ImagesError, r"\(C, H, W\)"),
    "items with float labels": (lambda: Items(picture, labels=[0.5] * 6), DataError, "whole class numbers"),
    "a loader that shuffles": (lambda: DataLoader(Items(picture), shuffle=True), DataError, "give its dataset"),
    "several splits": (lambda: DatasetDict({"test": hugging_face()}), DataError, "give one of them"),
    "a column of text": (lambda: Dataset.from_dict({"text": ["a"]}), DataError, "no image column"),
}


@pytest.mark.parametrize("form", REFUSED)
def test_anything_else_is_refused_in_one_line(form):
    data, error, words = REFUSED[form]
    with pytest.raises(error, match=words) as caught:
        as_table(data())
    assert "\n" not in str(caught.value)


def test_what_a_loader_drops_is_told():
    with pytest.warns(UnfoolWarning, match="drops the last 2 of 6 images"):
        table = as_table(DataLoader(TensorDataset(FLOATS, LABELS), batch_size=4, drop_last=True))
    assert len(table) == 4
    assert len(as_table(DataLoader(TensorDataset(FLOATS, LABELS), batch_size=3, drop_last=True))) == 6


def test_arrays_of_the_other_byte_order_are_the_same_images():
    for images, labels in ((FLOATS.numpy(), LABELS.numpy()), (BYTES.numpy(), LABELS.numpy())):
        swapped = images.astype(images.dtype.newbyteorder(">")), labels.astype(">i4")
        items = list(zip(*swapped, strict=True))
        for table in (Table.from_tensors(*swapped), as_table(items)):
            assert torch.equal(table.images, BYTES)
            assert torch.equal(table.labels(), LABELS)


def test_a_transform_that_is_not_applied_is_told():
    with pytest.warns(UnfoolWarning, match="transform of the data set is not applied"):
        as_table(hugging_face().with_transform(lambda batch: batch))


def test_a_data_set_of_several_sizes_is_refused():
    sizes = [(FLOATS[0], 0), (FLOATS[1, :, :4], 1)]

    class Uneven(Items):
        def __len__(self):
            return 2

        def __getitem__(self, row):
            return sizes[row]

    with pytest.raises(DataError, match="resize them to one size"):
        as_table(Uneven(None))


@pytest.mark.parametrize("ids", [torch.zeros(6, dtype=torch.int64), torch.arange(5)])
def test_ids_must_tell_images_apart(ids):
    with pytest.raises(DataError, match="number of its own"):
        Table.from_tensors(BYTES, LABELS, ids=ids)


def test_a_list_of_two_items_is_a_data_set_and_a_pair_is_not():
    images, labels = torch.rand(2, 3, 4, 4), torch.tensor([1, 0])
    for form in ([(images[0], 1), (images[1], 0)], [images, labels], (images, labels)):
        table = as_table(form)
        assert torch.equal(table.batch(torch.arange(2)).images, images)
        assert torch.equal(table.labels(), labels)
