"""Names to tables: where each kind of set is found, what its splits are called, and what the errors say."""

import numpy as np
import pytest
import torch
from small_sets import encoded, pictures, write_parquet

from unfool.core.errors import DataError, SpecError, UnfoolError
from unfool.data.catalog import catalog, open_table
from unfool.data.readers import hub
from unfool.data.sets import digits
from unfool.data.sources import SETS


def files(count: int, seed: int = 0) -> list[bytes | None]:
    return [encoded(image) for image in pictures(count, seed=seed)]


def test_digits_are_embedded_stratified_and_disjoint():
    train, test = open_table("digits", "train"), open_table("digits", "test")
    assert (len(train), len(test)) == (1400, 397)
    assert train.shape == (3, 32, 32)
    assert not set(train.ids.tolist()) & set(test.ids.tolist())
    assert sorted(train.ids.tolist() + test.ids.tolist()) == list(range(1797))
    shares = train.labels().bincount() / 1400 - test.labels().bincount() / 397
    assert shares.abs().max() < 0.003
    assert train.classes["label"] == [str(digit) for digit in range(10)]


def test_digits_show_the_digits_of_scikit_learn():
    from sklearn.datasets import load_digits

    table = open_table("digits", "test")
    original = load_digits()
    small = torch.nn.functional.avg_pool2d(table.images.float(), 4)[:, 0] / 255 * 16
    drawn = torch.from_numpy(original.images)[table.ids]
    assert torch.equal(table.labels(), torch.from_numpy(original.target)[table.ids])
    correlation = torch.corrcoef(torch.stack([small.flatten(), drawn.flatten().float()]))[0, 1]
    assert correlation > 0.9
    assert bool((table.images[:, 0] == table.images[:, 2]).all())


def test_digits_come_from_scikit_learn_itself_where_its_file_lies_elsewhere(monkeypatch):
    usual = open_table("digits", "test")
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    elsewhere = open_table("digits", "test")
    assert torch.equal(elsewhere.images, usual.images)
    assert torch.equal(elsewhere.labels(), usual.labels())


def test_digits_come_in_any_size():
    assert open_table("digits", "test", size=16).shape == (3, 16, 16)


def test_every_folder_in_hub_layout_is_a_set_by_its_name(make_set):
    data = make_set("birds_sub", files(6))
    make_set("birds_sub", files(4, seed=1), split="validation")
    table = open_table("birds_sub", "train", data_dir=data)
    np.testing.assert_array_equal(table.images.numpy(), pictures(6).transpose(0, 3, 1, 2))
    assert (table.name, table.split, table.label_column) == ("birds_sub", "train", "label")
    assert table.classes == {"label": ["cat", "dog"]}
    judged = open_table("birds_sub", "test", data_dir=data)
    assert (judged.split, len(judged)) == ("validation", 4)


def test_the_data_directory_can_come_from_the_environment(make_set, monkeypatch):
    monkeypatch.setenv("UNFOOL_DATA_DIR", str(make_set("birds", files(2))))
    assert len(open_table("birds", "train")) == 2


def test_several_shards_are_read_in_order_and_none_may_be_missing(tmp_path):
    parts = [files(4, seed=seed) for seed in (0, 1)]
    labels = [[0, 1, 0, 1], [1, 1, 1, 0]]
    paths = [tmp_path / "set" / "data" / f"train-{index:05d}-of-00002.parquet" for index in (0, 1)]
    for path, part, column in zip(paths, parts, labels, strict=True):
        write_parquet(path, part, {"label": (column, ["cat", "dog"])})
    table = open_table("set", "train", data_dir=tmp_path)
    expected = np.concatenate([pictures(4, seed=seed) for seed in (0, 1)]).transpose(0, 3, 1, 2)
    np.testing.assert_array_equal(table.images.numpy(), expected)
    assert table.labels().tolist() == labels[0] + labels[1]
    write_parquet(paths[1], parts[1], {"label": (labels[1], ["cat", "dog"]), "wild": (labels[0], ["no", "yes"])})
    with pytest.raises(DataError, match="have different columns"):
        open_table("set", "train", data_dir=tmp_path)
    paths[0].unlink()
    with pytest.raises(DataError, match="lacks shard 00000 of 00002"):
        open_table("set", "train", data_dir=tmp_path)


@pytest.mark.parametrize(
    "second", ["training-00000-of-00001", "train-00000-of-00001-0a1b", "train", "Train", "train-00002-of-00003"]
)
def test_two_files_of_the_same_images_of_a_split_are_named(second, make_set):
    data = make_set("set", files(3))
    make_set("set", files(4, seed=1), split="test")
    write_parquet(data / "set" / f"{second}.parquet", files(4, seed=2), {})
    with pytest.raises(DataError, match="both its split 'train'") as caught:
        open_table("set", "test", data_dir=data)
    assert all(f"{name}.parquet" in str(caught.value) for name in ("train-00000-of-00001", second))


def test_a_replaced_shard_is_noticed(make_set):
    data = make_set("set", files(3))
    open_table("set", "train", data_dir=data)
    make_set("set", files(5, seed=1))
    assert len(open_table("set", "train", data_dir=data)) == 5


def test_every_class_column_is_kept_and_fine_labels_are_primary(make_set):
    labels = {"fine_label": ([0, 2, 1], ["a", "b", "c"]), "coarse_label": ([0, 1, 0], ["x", "y"])}
    table = open_table("c", "train", data_dir=make_set("c", files(3), labels, image="img"))
    assert table.label_column == "fine_label"
    assert table.batch().columns["coarse_label"].tolist() == [0, 1, 0]
    assert table.classes["fine_label"] == ["a", "b", "c"]


def test_labels_that_hide_are_left_out_and_wrong_ones_refused(make_set):
    hidden = make_set("hidden", files(2), {"label": ([-1, -1], ["a", "b"])})
    table = open_table("hidden", "train", data_dir=hidden)
    assert table.label_column is None
    assert table.batch().columns == {}
    with pytest.raises(DataError, match="no labels"):
        table.labels()
    half = make_set("half", files(2), {"label": ([None, 1], ["a", "b"])})
    with pytest.raises(DataError, match="1 labels outside its 2 classes, first in row 0"):
        open_table("half", "train", data_dir=half)


def test_a_set_without_labels_or_test_split_says_so(make_set):
    data = make_set("plain", files(2), {})
    assert open_table("plain", "train", data_dir=data).columns == {}
    with pytest.raises(DataError, match="plain has no test or validation split; it has train"):
        open_table("plain", "test", data_dir=data)
    with pytest.raises(DataError, match="no unlabelled split"):
        open_table("plain", "unlabelled", data_dir=data)


def test_a_parquet_file_that_is_none_or_has_no_images_is_one_line(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    for name in ("broken", "numbers"):
        (tmp_path / name).mkdir()
    (tmp_path / "broken" / "train.parquet").write_bytes(b"PAR1 but not really PAR1")
    pq.write_table(pa.table({"x": [1.5]}), tmp_path / "numbers" / "train.parquet")
    for name, words in (("broken", "cannot read"), ("numbers", "no image column; its columns are x")):
        with pytest.raises(DataError, match=words) as caught:
            open_table(name, "train", data_dir=tmp_path)
        assert "\n" not in str(caught.value)


def test_a_path_inside_a_parquet_file_is_never_followed(tmp_path, make_set):
    import pyarrow.parquet as pq

    secret = tmp_path / "secret.png"
    secret.write_bytes(encoded(pictures(1)[0]))
    data = make_set("sly", files(2))
    path = data / "sly" / "train-00000-of-00001.parquet"
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[1]["image"] = {"bytes": None, "path": str(secret)}
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    with pytest.warns(UserWarning, match="1 of 2 images are corrupt"):
        assert open_table("sly", "train", data_dir=data).ids.tolist() == [0]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("cifar1", "did you mean 'cifar10'"),
        ("birds_sup", "did you mean 'birds_sub'"),
        ("../birds_sub", "unknown data set"),
        ("hub:cifar10", "hub:OWNER/NAME"),
        ("hub:../..", "hub:OWNER/NAME"),
        ("hub:a/b/c", "hub:OWNER/NAME"),
    ],
)
def test_unknown_names_are_refused_with_what_is_allowed(name, words, make_set):
    with pytest.raises(SpecError, match=words):
        open_table(name, "train", data_dir=make_set("birds_sub", files(2)))


def test_unknown_splits_sizes_and_directories_are_refused(tmp_path):
    with pytest.raises(SpecError, match="did you mean 'train'"):
        open_table("digits", "trian")
    with pytest.raises(DataError, match="size 1"):
        open_table("digits", "train", size=1)
    with pytest.raises(DataError, match="does not exist"):
        open_table("digits", "train", data_dir=tmp_path / "nowhere")


@pytest.mark.parametrize("name", [name for name in SETS if SETS[name].source.startswith("hub:")])
def test_every_hub_entry_opens_from_a_folder_of_its_name(name, make_set):
    entry = SETS[name]
    labels = {column: ([0, 1, 0, 1], ["a", "b"]) for column in entry.label_columns}
    make_set(name, files(4), labels, image="img")
    data = make_set(name, files(4), labels, split="valid" if name == "tiny-imagenet" else "test", image="img")
    for split in ("train", "test"):
        table = open_table(name, split, data_dir=data)
        assert tuple(table.columns) == entry.label_columns
        assert table.label_column == entry.label_columns[0]


class Hub:
    """Stands in for the hub: one set in memory, with the splits of Tiny ImageNet."""

    def __init__(self, monkeypatch):
        import datasets

        self.calls = 0
        features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cat", "dog"])})
        rows = {"image": [{"bytes": data, "path": None} for data in files(3)], "label": [1, 0, 1]}
        self.rows = datasets.Dataset.from_dict(rows, features=features)
        monkeypatch.setattr(hub, "hub_reachable", lambda repository: None)
        monkeypatch.setattr(datasets, "get_dataset_split_names", lambda repository: ["train", "valid"])
        monkeypatch.setattr(datasets, "load_dataset", self.load)

    def load(self, repository, split):
        self.calls += 1
        assert (repository, split) in {("owner/name", "valid"), ("zh-plus/tiny-imagenet", "valid")}
        return self.rows


@pytest.mark.parametrize("name", ["hub:owner/name", "tiny-imagenet"])
def test_a_hub_set_is_fetched_once_and_then_needs_no_network(name, monkeypatch):
    server = Hub(monkeypatch)
    first = open_table(name, "test")
    assert first.split == "validation"
    np.testing.assert_array_equal(first.images.numpy(), pictures(3).transpose(0, 3, 1, 2))
    assert first.labels().tolist() == [1, 0, 1]
    assert first.classes == {"label": ["cat", "dog"]}
    monkeypatch.setattr(hub, "hub_reachable", lambda repository: "the hub cannot be reached")
    assert torch.equal(open_table(name, "test").images, first.images)
    assert server.calls == 1


def test_every_text_column_of_a_hub_set_is_numbered_alike_in_all_splits(monkeypatch):
    import datasets

    text, texts = datasets.Value("string"), {"train": ["cat", "dog", "emu"], "test": ["emu", "emu", "dog"]}

    def load(repository, split):
        rows = {"image": [{"bytes": data, "path": None} for data in files(3)]}
        kinds = datasets.Features({"image": datasets.Image(), **dict.fromkeys(["label", "kind_label"], text)})
        return datasets.Dataset.from_dict({**rows, "label": texts[split], "kind_label": texts[split]}, features=kinds)

    monkeypatch.setattr(hub, "hub_reachable", lambda repository: None)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda repository: list(texts))
    monkeypatch.setattr(datasets, "load_dataset", load)
    train, test = (open_table("hub:owner/texts", split) for split in texts)
    assert train.classes == test.classes == {name: ["cat", "dog", "emu"] for name in ("label", "kind_label")}
    assert [test.labels(name).tolist() for name in test.columns] == [[2, 2, 1], [2, 2, 1]]


def test_a_split_of_a_hub_set_with_two_names_is_refused_and_the_others_are_read(monkeypatch):
    import datasets

    monkeypatch.setattr(hub, "hub_reachable", lambda repository: None)
    monkeypatch.setattr(datasets, "get_dataset_split_names", lambda repository: ["train", "valid", "dev"])
    rows = {"image": [{"bytes": data, "path": None} for data in files(2)], "label": [0, 1]}
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    stored = datasets.Dataset.from_dict(rows, features=kinds)
    monkeypatch.setattr(datasets, "load_dataset", lambda repository, split: stored)
    with pytest.raises(DataError, match="has valid and dev, which are both its split 'validation'"):
        open_table("hub:owner/name", "test")
    assert len(open_table("hub:owner/name", "train")) == 2


def test_the_data_directory_goes_before_the_hub(tmp_path, monkeypatch):
    server = Hub(monkeypatch)
    write_parquet(tmp_path / "owner" / "name" / "train.parquet", files(5), {})
    assert len(open_table("hub:owner/name", "train", data_dir=tmp_path)) == 5
    assert server.calls == 0


@pytest.mark.parametrize("name", ["cifar10", "hub:uoft-cs/cifar10"])
def test_without_a_network_the_error_says_what_to_do(name, monkeypatch):
    from huggingface_hub import HfApi

    def unreachable(self, repository, timeout):
        assert timeout <= 10
        raise ConnectionError("no route")

    monkeypatch.setattr(HfApi, "dataset_info", unreachable)
    with pytest.raises(DataError, match=r"cannot be reached .*UNFOOL_DATA_DIR=DIR or --data-dir") as caught:
        open_table(name, "train")
    assert "\n" not in str(caught.value)


def test_the_catalog_tells_what_can_be_had(make_set, monkeypatch):
    monkeypatch.setattr("unfool.data.catalog.hub_reachable", lambda repository: "the hub cannot be reached")
    data = make_set("birds_sub", files(2))
    make_set("cifar10", files(2))
    entries = {entry.name: entry for entry in catalog(data)}
    assert set(entries) == {"digits", "cifar10", "cifar100", "stl10", "tiny-imagenet", "birds_sub"}
    reachable = {name for name, entry in entries.items() if entry.reachable}
    assert reachable == {"digits", "cifar10", "birds_sub"}
    assert "cannot be reached" in entries["cifar100"].where
    assert entries["cifar100"].label_columns == ("fine_label", "coarse_label")


@pytest.mark.parametrize("name", list(SETS))
def test_every_entry_keeps_the_contract_of_the_catalog(name):
    """Runs on any new file in unfool/data/sets by itself."""
    entry = SETS[name]
    assert entry.name == name
    assert entry.source
    reachable, where = entry.available(None)
    assert isinstance(reachable, bool)
    assert where
    splits = entry.splits(None)
    assert "train" in splits
    assert {"test", "validation"} & set(splits)
    assert all(source.fingerprint for source in splits.values())
    if any(source.resident for source in splits.values()):
        table = open_table(name, "train")
        assert table.shape[1:] == (entry.size, entry.size)
        assert tuple(table.columns) == entry.label_columns
        assert int(table.labels().max()) < len(table.classes[entry.label_columns[0]])


def test_every_error_is_the_librarys_own(tmp_path):
    for name in ("folder:" + str(tmp_path / "none"), "folder:" + str(tmp_path), "nothing"):
        with pytest.raises(UnfoolError):
            open_table(name, "train")


@pytest.mark.real_data
@pytest.mark.parametrize(
    ("name", "split", "count", "columns", "side"),
    [
        ("cifar10", "test", 10_000, {"label": 10}, 32),
        ("cifar100", "test", 10_000, {"fine_label": 100, "coarse_label": 20}, 32),
        ("imagenette96_sub", "validation", 1_000, {"label": 10}, 96),
        ("tiny_imagenet_sub40", "validation", 2_000, {"label": 40}, 64),
    ],
)
def test_the_real_sets_open_whole(real_data_dir, name, split, count, columns, side):
    table = open_table(name, "test", data_dir=real_data_dir)
    assert (table.split, len(table), table.shape) == (split, count, (3, side, side))
    assert {column: len(names) for column, names in table.classes.items()} == columns
    assert table.report["corrupt"] == 0
    for column, classes in columns.items():
        assert table.labels(column).unique().tolist() == list(range(classes))
    if name == "cifar10":
        # the published mean of CIFAR-10 is (0.4914, 0.4822, 0.4465) on train; test differs in the third digit
        mean = table.batch().images.mean((0, 2, 3))
        torch.testing.assert_close(mean, torch.tensor([0.4914, 0.4822, 0.4465]), atol=6e-3, rtol=0)
