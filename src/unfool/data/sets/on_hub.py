"""The sets that come from the Hugging Face hub as they are: CIFAR-10, CIFAR-100 (Krizhevsky 2009), Tiny ImageNet."""

from __future__ import annotations

from unfool.data.readers.hub import hub_splits
from unfool.data.sources import SETS, DataSet, split_of


def _file(name: str, repository: str, size: int, label_columns: tuple[str, ...], test: str = "test") -> None:
    names = {"train": "train", split_of(test) or test: test}
    SETS.add(name)(
        DataSet(
            name=name,
            source=f"hub:{repository}",
            size=size,
            label_columns=label_columns,
            splits=lambda data_dir: hub_splits(repository, names),
        )
    )


_file("cifar10", "uoft-cs/cifar10", 32, ("label",))
_file("cifar100", "uoft-cs/cifar100", 32, ("fine_label", "coarse_label"))
_file("tiny-imagenet", "zh-plus/tiny-imagenet", 64, ("label",), test="valid")
