"""Numbers, names, the registry and the image contract: what is read and what is refused."""

import sys
import textwrap

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unfool.core import errors
from unfool.core.batch import Batch, Views, as_images, check_images
from unfool.core.errors import DataError, ImagesError, SpecError, UnfoolError
from unfool.core.registry import Registry
from unfool.core.spec import nearest, parse_number, parse_whole, unknown


def test_whole_numbers_have_at_most_18_digits():
    assert parse_whole("9" * 18, "count") == 10**18 - 1
    for text in ("9" * 19, "", "-1", "1.0", "²", " 1"):
        with pytest.raises(SpecError, match="is no whole number; write digits, at most 18"):
            parse_whole(text, "count")


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0.0), ("0.5", 0.5), (".5", 0.5), ("5.", 5.0), ("8/255", 8 / 255), (" 8 / 255 ", 8 / 255), ("1e-3", 1e-3)],
)
def test_numbers_that_are_read(text, value):
    assert parse_number(text, "eps") == value


@pytest.mark.parametrize(
    "text", ["", "-1", "+1", "nan", "inf", "1/0", "1/0.0", "1e999", "1//2", "1/2/3", "2**3", "0x10", "1_000", "abs(1)"]
)
def test_numbers_that_are_refused(text):
    with pytest.raises(SpecError, match="eps") as caught:
        parse_number(text, "eps")
    assert "\n" not in str(caught.value)


@given(st.floats(0, 1e300))
def test_every_non_negative_float_round_trips(value):
    assert parse_number(repr(value), "eps") == value


def test_unknown_offers_the_nearest_name_and_lists_the_rest():
    assert "did you mean 'rotation'? allowed: contrast, rotation" in str(
        unknown("task", "rotatoin", ["rotation", "contrast"])
    )
    assert "did you mean" not in str(unknown("task", "zzz", ["rotation", "contrast"]))


def test_exit_codes_are_distinct_and_documented():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, UnfoolError)]
    codes = [kind.exit_code for kind in kinds]
    assert len(set(codes)) == len(codes)
    assert errors.INTERRUPTED not in codes
    assert 0 not in codes


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A throw-away package whose modules register themselves."""
    folder = tmp_path / "rooms_for_test"
    folder.mkdir()
    (folder / "__init__.py").write_text(
        "from unfool.core.registry import Registry\nTHINGS = Registry('thing', 'rooms_for_test')\n"
    )
    for name in ("lamp", "chair"):
        (folder / f"{name}_file.py").write_text(
            textwrap.dedent(f"""
            from rooms_for_test import THINGS
            @THINGS.add("{name}")
            class Thing: ...
            """)
        )
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for name in [name for name in sys.modules if name.startswith("rooms_for_test")]:
        del sys.modules[name]


def test_a_registry_fills_itself_on_the_first_look_up(package):
    import rooms_for_test  # pyright: ignore[reportMissingImports]

    assert "rooms_for_test.lamp_file" not in sys.modules
    assert list(rooms_for_test.THINGS) == ["chair", "lamp"]
    assert rooms_for_test.THINGS["lamp"].__name__ == "Thing"
    assert "lamp" in rooms_for_test.THINGS
    assert "lmap" not in rooms_for_test.THINGS
    with pytest.raises(SpecError, match="unknown thing 'lmap'; did you mean 'lamp'"):
        rooms_for_test.THINGS["lmap"]


def test_a_second_item_of_one_name_is_refused(package):
    registry = Registry("thing", "rooms_for_test")
    registry.add("lamp")(object())
    with pytest.raises(SpecError, match="thing 'lamp' of this program is already registered by this program"):
        registry.add("lamp")(object())


def test_an_alias_leads_to_a_name_and_is_not_listed(package):
    registry = Registry("thing", "rooms_for_test")
    registry.alias("light", "lamp")
    lamp = object()
    registry.add("lamp")(lamp)
    assert registry["light"] is lamp
    assert "light" in registry
    assert registry.canonical("light") == registry.canonical("lamp") == "lamp"
    assert registry.aliases("lamp") == ["light"]
    assert list(registry) == ["lamp"]
    with pytest.raises(SpecError, match="'light' of this program is already registered"):
        registry.add("light")(object())
    with pytest.raises(SpecError, match="unknown thing 'lihgt'"):
        registry.canonical("lihgt")


def test_a_module_that_fails_to_import_is_not_forgotten(package):
    (package / "broken_file.py").write_text("raise RuntimeError('broken on purpose')\n")
    import rooms_for_test  # pyright: ignore[reportMissingImports]

    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken on purpose"):
            rooms_for_test.THINGS["lamp"]


GOOD = torch.rand(2, 3, 4, 4, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_good_images_pass_and_stay_as_they_are(dtype):
    images = GOOD.to(dtype).requires_grad_()
    before = images.detach().clone()
    check_images(images)
    assert torch.equal(images, before)
    check_images(torch.tensor([0.0, 1.0, -0.0, 0.5]).view(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (GOOD * 255, "divide by 255"),
        ((GOOD * 255).to(torch.uint8), "divide by 255"),
        ((GOOD * 255).to(torch.int64), "divide by 255"),
        ((GOOD * 65535).to(torch.uint16), "divide by 65535"),
        (GOOD > 0.5, r"give images\.float\(\)$"),
        (GOOD * 2 - 1, "undo the normalisation"),
        (GOOD * 9 - 1, "undo the normalisation"),
        (torch.tensor([0.0, 2.0]).view(1, 1, 1, 2), "undo the normalisation"),
        (torch.tensor([0.0, 2.01]).view(1, 1, 1, 2), "divide by 255"),
        (torch.tensor([-0.04, 1.04]).view(1, 1, 1, 2), r"clamp\(0, 1\), as after bicubic"),
        (torch.tensor([0.0, 1.06]).view(1, 1, 1, 2), "undo the normalisation"),
        (torch.tensor([-0.06, 1.0]).view(1, 1, 1, 2), "undo the normalisation"),
        (GOOD.permute(0, 2, 3, 1).repeat(1, 2, 2, 1), "NHWC"),
        (GOOD[0], "shape"),
        (GOOD[:0], "empty"),
        (GOOD.where(GOOD < 0.9, torch.nan), "NaN"),
        (GOOD.where(GOOD < 0.9, torch.inf), "infinite"),
        (GOOD.where(GOOD < 0.9, -torch.inf), "infinite"),
        (GOOD.numpy(), "ndarray"),
        (None, "NoneType"),
    ],
)
def test_bad_images_are_refused_in_one_line_with_a_remedy(images, words):
    with pytest.raises(ImagesError, match=words) as caught:
        check_images(images)
    assert "\n" not in str(caught.value)
    assert "[0,1]" in str(caught.value)


def test_what_rounding_leaves_beyond_the_box_is_taken_and_the_message_shows_what_is_not():
    above = GOOD.clone()
    above[0, 0, 0, 0], above[0, 0, 0, 1] = 1.0 + 5e-7, -5e-7
    check_images(above)
    assert (as_images(above) - above.clamp(0, 1)).abs().max() == 0
    assert as_images(GOOD) is GOOD
    with pytest.raises(ImagesError, match=r"1\.00001\d*\]"):
        check_images(GOOD.clamp(min=1.00001))


def make_batch():
    return Batch(images=GOOD, ids=torch.tensor([4, 9]), columns={"fine": torch.tensor([1, 0])})


def test_a_batch_hands_out_labels_rows_and_replacements():
    batch = make_batch()
    assert len(batch) == 2
    assert torch.equal(batch.labels("fine"), torch.tensor([1, 0]))
    with pytest.raises(SpecError, match="did you mean 'fine'"):
        batch.labels("fin")
    with pytest.raises(DataError, match="without labels"):
        Batch(images=GOOD, ids=batch.ids).labels("fine")
    row = batch.rows(torch.tensor([1]))
    assert (row.ids.tolist(), row.labels("fine").tolist()) == ([9], [0])
    assert torch.equal(batch.with_images(GOOD / 2).images, GOOD / 2)
    assert batch.with_images(GOOD / 2).ids is batch.ids
    assert batch.to("cpu").columns.keys() == {"fine"}


def test_what_was_made_once_is_shared_but_not_carried_to_other_images():
    batch, calls = make_batch(), []

    def make():
        calls.append(1)
        return GOOD * 1

    assert batch.once(("crop", 2), make) is batch.once(("crop", 2), make)
    assert len(calls) == 1
    batch.with_images(GOOD / 2).once(("crop", 2), make)
    assert len(calls) == 2


def test_views_with_moved_pixels_keep_the_rest():
    views = Views(images=GOOD, count=2, targets="turns", stage="layer3")
    moved = views.with_images(GOOD / 2)
    assert (moved.count, moved.targets, moved.stage) == (2, "turns", "layer3")
    assert torch.equal(moved.images, GOOD / 2)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("--epoch", "--epochs"),
        ("--lr", None),
        ("--mode", "--model"),
        ("moves", None),
        ("Batch_Size", "--batch-size"),
        ("--epsilon", "--eps"),
        ("-h", None),
        ("", None),
    ],
)
def test_only_a_near_name_is_offered(name, near):
    assert nearest(name, ["--epochs", "--trunk", "--model", "--batch-size", "--eps"]) == near


@pytest.mark.parametrize(
    ("name", "near"),
    [("lr", "learning_rate"), ("alpha", "step_size"), ("eps", "threats"), ("epsilon", "threats"), ("n_iter", "steps")],
)
def test_what_other_programs_call_a_setting_leads_to_it(name, near):
    assert nearest(name, ["learning_rate", "step_size", "steps", "threats"]) == near


def test_a_name_of_something_named_stands_behind_a_colon():
    assert str(unknown("scale of study 'mine'", "big", ["small"])).startswith("unknown scale of study 'mine': 'big'; ")


def test_a_name_that_is_allowed_twice_is_listed_once():
    assert str(unknown("set", "x", ["b", "a", "b"])) == "unknown set 'x'; allowed: a, b"
