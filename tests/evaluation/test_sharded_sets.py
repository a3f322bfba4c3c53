"""Adversarial sets in shards: what was made comes back, bit by bit and piece by piece, or is refused."""

import contextlib
import dataclasses
import gc
import shutil
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny_systems import make_network, make_table

from unfool import EvaluationSettings, Linf, attacks, classify, craft, evaluate, load_set, save_set
from unfool.core.borders.checksum import checksum
from unfool.core.errors import DataError, OutputError, UnfoolError
from unfool.evaluation.adaptive.ladder_run import WarmStarts
from unfool.evaluation.crafting import stored_set
from unfool.evaluation.crafting.sharded_images import ImagesInChunks, ShardedImages

COUNT, BATCH = 11, 4
PGD = attacks.PGD(Linf(2 / 255), steps=2)


@pytest.fixture(scope="module")
def crafted():
    return craft(make_network(), make_table(COUNT), PGD, batch_size=BATCH)


@pytest.fixture
def small_shards(monkeypatch):
    """Sets above nothing lie in shards of two images."""
    monkeypatch.setattr(stored_set, "ONE_FILE", 0)
    monkeypatch.setattr(stored_set, "SHARD_BYTES", 2 * 4 * 3 * 16 * 16)


@pytest.fixture
def folder(tmp_path, crafted, small_shards):
    save_set(crafted, tmp_path / "set")
    return tmp_path / "set"


def same(one, other):
    for part in dataclasses.fields(one):
        left, right = getattr(one, part.name), getattr(other, part.name)
        if part.name == "images":
            assert torch.equal(left[:], right[:])
        elif isinstance(left, torch.Tensor):
            assert torch.equal(left, right), part.name
        elif part.name != "cpu_seconds":
            assert left == right, part.name


def test_a_folder_of_shards_gives_back_the_set(folder, crafted):
    assert sorted(path.name for path in folder.iterdir()) == [
        "set.safetensors", *(f"shard-0000{number}.safetensors" for number in range(6))
    ]  # fmt: skip
    loaded = load_set(folder)
    same(loaded, crafted)
    same(load_set(folder / "set.safetensors"), crafted)
    assert isinstance(loaded.images, ShardedImages)
    assert repr(loaded) == repr(crafted)
    assert loaded.successes_per_part == crafted.successes_per_part
    assert loaded.images.shape == crafted.images.shape


ROWS = st.one_of(
    st.slices(COUNT).filter(lambda rows: rows.step != 0).map(lambda rows: slice(rows.start, rows.stop)),
    st.lists(st.integers(-COUNT, COUNT - 1), max_size=8).map(lambda rows: torch.tensor(rows, dtype=torch.int64)),
    st.lists(st.booleans(), min_size=COUNT, max_size=COUNT).map(torch.tensor),
)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(ROWS)
def test_any_rows_are_those_of_the_tensor(folder, crafted, rows):
    assert torch.equal(load_set(folder).images[rows], crafted.images[rows])


@pytest.mark.parametrize("rows", [torch.tensor([COUNT]), torch.tensor([-COUNT - 1])])
def test_rows_that_are_not_there_are_refused(folder, rows):
    with pytest.raises(IndexError):
        load_set(folder).images[rows]


def test_batches_are_all_images_once_and_share_no_memory(folder, crafted):
    for examples in (load_set(folder), crafted):
        parts = list(examples.batches(3))
        assert [len(part) for part in parts] == [3, 3, 3, 2]
        assert torch.equal(torch.cat([part.images for part in parts]), crafted.images[:])
        assert torch.equal(torch.cat([part.labels("label") for part in parts]), crafted.labels)
        parts[0].images.zero_()
        assert torch.equal(examples.images[:1], crafted.images[:1])
        assert int(crafted.images[:1].count_nonzero()) > 0


def test_records_pictures_and_starts_are_those_of_the_set_in_memory(folder, crafted):
    loaded, network = load_set(folder), make_network()
    one, other = (dataclasses.replace(classify(network, each), cpu_seconds=0.0) for each in (crafted, loaded))
    assert one == other
    assert loaded.show(make_table(COUNT), 2).axes
    ids = torch.tensor([7, 2])
    starts = [WarmStarts(each) for each in (crafted, loaded)]
    assert starts[0].checksum == starts[1].checksum
    assert torch.equal(*(each.of(ids, torch.zeros(1)) for each in starts))


def test_a_checksum_in_chunks_is_that_of_the_whole(crafted, monkeypatch):
    monkeypatch.setattr("unfool.evaluation.crafting.sharded_images._CHUNK_BYTES", 2 * 4 * 3 * 16 * 16)
    chunked = ImagesInChunks(crafted.images.shape, lambda rows: crafted.images[rows])
    assert len(list(chunked.chunks())) == 6
    assert checksum({}, {"images": chunked}) == checksum({}, {"images": crafted.images})


def everything(folder):
    """All that a set says."""
    loaded = load_set(folder)
    return {**vars(loaded), "images": loaded.images[:]}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_byte_can_change_what_is_read(folder, crafted, data):
    path = data.draw(st.sampled_from(sorted(folder.iterdir())))
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    changed = bytearray(whole)
    changed[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(changed)
    with contextlib.suppress(UnfoolError):  # else blanks between the words of a header, say
        same(crafted, dataclasses.replace(crafted, **everything(folder)))
    path.write_bytes(whole)


def swapped(folder):
    (folder / "shard-00001.safetensors").rename(folder / "aside")
    (folder / "shard-00002.safetensors").rename(folder / "shard-00001.safetensors")
    (folder / "aside").rename(folder / "shard-00002.safetensors")


def of_another_set(folder):
    other = craft(make_network(), make_table(COUNT), "fgsm", threat="linf:8/255")
    save_set(other, folder.parent / "other")
    shutil.copy(folder.parent / "other" / "shard-00003.safetensors", folder / "shard-00003.safetensors")


FAULTS = {
    "swapped": (swapped, "shard-00001"),
    "removed": (lambda folder: (folder / "shard-00004.safetensors").unlink(), "lacks shard-00004"),
    "repeated": (
        lambda folder: shutil.copy(folder / "shard-00001.safetensors", folder / "shard-00002.safetensors"),
        "shard-00002",
    ),
    "doubled": (
        lambda folder: shutil.copy(folder / "shard-00001.safetensors", folder / "shard-00006.safetensors"),
        "holds shard-00006",
    ),
    "of another set": (of_another_set, "shard-00003"),
    "without its index": (lambda folder: (folder / "set.safetensors").unlink(), "not a file or folder"),
}


@pytest.mark.parametrize(("fault", "words"), FAULTS.values(), ids=FAULTS)
def test_shards_that_do_not_make_up_the_set_are_refused(folder, fault, words):
    fault(folder)
    with pytest.raises(DataError, match=words) as error:
        load_set(folder)
    assert "\n" not in str(error.value)
    assert str(error.value).count("craft it again") <= 1


def test_a_shard_that_goes_or_changes_after_loading_is_refused_where_it_is_read(folder):
    opened = stored_set.open_set(folder)
    swapped(folder)
    opened.images[:2]
    with pytest.raises(DataError, match="shard-00001"):
        opened.images[:3]
    loaded_path = folder / "shard-00000.safetensors"
    loaded_path.unlink()
    with pytest.raises(DataError, match="shard-00000"):
        opened.images[:1]


def test_a_set_takes_the_place_of_a_set_and_of_nothing_else(folder, crafted, monkeypatch):
    save_set(crafted, folder)
    same(load_set(folder), crafted)
    few = dataclasses.replace(crafted, **{name: getattr(crafted, name)[:3] for name in stored_set.TENSORS})
    save_set(few, folder)
    assert len(list(folder.iterdir())) == 3
    monkeypatch.setattr(stored_set, "ONE_FILE", 1 << 28)
    save_set(few, folder)
    assert folder.is_file()
    same(load_set(folder), few)
    monkeypatch.setattr(stored_set, "ONE_FILE", 0)
    save_set(few, folder)
    assert folder.is_dir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OutputError, match="more than an adversarial set"):
        save_set(few, folder)
    assert (folder / "notes.txt").exists()
    assert [path.name for path in folder.parent.iterdir()] == ["set"]


def test_a_folder_stays_until_the_file_in_its_place_is_whole(folder, crafted, monkeypatch):
    def full(path, *rest):
        raise OutputError(f"cannot write {path}: No space left on device; free some space")

    monkeypatch.setattr(stored_set, "ONE_FILE", 1 << 28)
    with monkeypatch.context() as patched:
        patched.setattr(stored_set, "save_tensors", full)
        with pytest.raises(OutputError, match="No space"):
            save_set(crafted, folder)
    same(load_set(folder), crafted)
    save_set(load_set(folder), folder)  # Its images lie in the folder that it replaces.
    assert folder.is_file()
    same(load_set(folder), crafted)
    assert [path.name for path in folder.parent.iterdir()] == ["set"]


def test_batches_of_a_folder_are_the_shards_and_are_linked_not_copied(tmp_path, crafted, small_shards):
    large = craft(make_network(), make_table(COUNT), PGD, batch_size=BATCH, folder=tmp_path / "state", in_memory=0)
    same(large, crafted)
    save_set(large, tmp_path / "set")
    first = tmp_path / "state" / "batch-00000.safetensors"
    assert (tmp_path / "set" / "shard-00000.safetensors").samefile(first)
    shutil.rmtree(tmp_path / "state")
    same(load_set(tmp_path / "set"), crafted)


def test_a_large_set_resumes_and_its_temporary_folder_goes_with_it(tmp_path, crafted, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    large = craft(make_network(), make_table(COUNT), PGD, batch_size=BATCH, in_memory=0)
    same(large, crafted)
    assert len(list(tmp_path.glob("unfool-set-*/batch-*.safetensors"))) == 3
    del large
    gc.collect()
    assert not list(tmp_path.iterdir())
    calls = []

    def stopped(what, done, total, note=""):
        calls.append(done)
        if done > BATCH:
            raise KeyboardInterrupt

    state = tmp_path / "state"
    with pytest.raises(KeyboardInterrupt):
        craft(make_network(), make_table(COUNT), PGD, batch_size=BATCH, folder=state, in_memory=0, progress=stopped)
    before = (state / "batch-00000.safetensors").stat().st_mtime_ns
    same(craft(make_network(), make_table(COUNT), PGD, batch_size=BATCH, folder=state, in_memory=0), crafted)
    assert (state / "batch-00000.safetensors").stat().st_mtime_ns == before


def test_an_evaluation_of_large_sets_is_that_of_small_ones(monkeypatch):
    network, table = make_network(), make_table(24)
    options = EvaluationSettings(threat="linf:2/255", batch_size=BATCH)
    small = evaluate(network, table, ["fgsm", PGD], settings=options)
    monkeypatch.setattr("unfool.evaluation.evaluation_run.ONE_FILE", 1)
    large = evaluate(network, table, ["fgsm", PGD], settings=options)
    for one, other in zip(small.records, large.records, strict=True):
        assert dataclasses.replace(one, cpu_seconds=0.0) == dataclasses.replace(other, cpu_seconds=0.0)
    assert torch.equal(small.pictures["fgsm"].adversarial, large.pictures["fgsm"].adversarial)


def test_a_set_whose_disk_is_full_leaves_nothing(tmp_path, crafted, small_shards, monkeypatch):
    def full(path, *rest):
        if Path(path).name == "shard-00002.safetensors":
            raise OutputError(f"cannot write {path}: No space left on device; free some space")
        return save(path, *rest)

    save = stored_set.save_tensors
    monkeypatch.setattr(stored_set, "save_tensors", full)
    with pytest.raises(OutputError, match="No space"):
        save_set(crafted, tmp_path / "set")
    assert not list(tmp_path.iterdir())
