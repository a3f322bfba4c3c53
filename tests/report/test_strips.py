"""Strips of pictures: shown as given, grouped, escaped, refused in one line, and handed on from a study to its page."""

import base64
import hashlib
import io
import re

import pytest
import torch
from made_up_study import result
from PIL import Image
from test_page import EVIL, Reader, item, written

from unfool.core.errors import ImagesError
from unfool.report.pictures.strips import Strip
from unfool.studies import Study, run_study

BARE = result({})
WORDS = ("masked", "filled", "original")


def strip(group="inpainting", words=WORDS, caption="", shape=(3, 8, 8)):
    random = torch.Generator().manual_seed(len(group))
    return Strip(group=group, pictures=tuple((w, torch.rand(shape, generator=random)) for w in words), caption=caption)


def pictures(page):
    """The section of the page, tags and all."""
    return re.findall(r'<section id="pictures".*?</section>', page, re.S)[0]


def test_a_strip_shows_its_pictures_in_order_with_words_and_caption(tmp_path):
    one = strip(caption="test image 17")
    shown = pictures(written(tmp_path, "t", "", BARE, strips=[one]))
    images = [attributes for tag, attributes in Reader(shown).tags if tag == "img"]
    assert [attributes["alt"] for attributes in images] == [f"inpainting: {words}" for words in WORDS]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", shown) == [*WORDS, "test image 17"]
    for (_, image), attributes in zip(one.pictures, images, strict=True):
        drawn = Image.open(io.BytesIO(base64.b64decode(attributes["src"].split(",")[1])))
        assert drawn.size == (int(attributes["width"]), int(attributes["height"])) == (192, 192)
        expected = (image[:, 5, 2] * 255).round().int().tolist()
        assert drawn.getpixel((2 * 24 + 12, 5 * 24 + 12)) == tuple(expected)


def test_a_strip_without_caption_has_none(tmp_path):
    shown = pictures(written(tmp_path, "t", "", BARE, strips=[strip()]))
    assert shown.count("<figcaption>") == len(WORDS)
    assert shown.count("<figure") == 1 + len(WORDS)


def test_groups_stand_in_the_order_of_their_first_appearance(tmp_path):
    strips = [strip("zebra", ("z1", "z2")), strip("apple", ("a1", "a2")), strip("zebra", ("z3", "z4"))]
    shown = pictures(written(tmp_path, "t", "", BARE, strips=strips))
    assert re.findall(r"<h3>(.*?)</h3>", shown) == ["zebra", "apple"]
    assert re.findall(r"<figcaption>(.*?)</figcaption>", shown) == ["z1", "z2", "z3", "z4", "a1", "a2"]
    assert shown.count('class="strip"') == 3


def test_the_section_comes_after_the_gallery_and_before_the_charts(study, tmp_path):
    chart = {"title": "c", "x": "x", "y": "y", "kind": "line", "series": [{"name": "s", "points": [[0, 1], [1, 2]]}]}
    page = written(tmp_path, "t", "", result({**study, "charts": [chart]}), gallery=[item()], strips=[strip()])
    sections = re.findall(r'<section id="(\w+)"', page)
    assert sections.index("gallery") + 1 == sections.index("pictures") < sections.index("charts")
    links = re.findall(r'<a href="#(\w+)">', page)
    assert links == sections
    assert '<a href="#pictures">Pictures</a>' in page


def test_no_strips_leave_no_section(study, tmp_path):
    page = written(tmp_path, "t", "", result(study))
    assert 'id="pictures"' not in page
    assert 'href="#pictures"' not in page


def test_hostile_words_are_escaped_and_nothing_is_loaded(tmp_path):
    page = written(tmp_path, "t", "", BARE, strips=[strip(EVIL, (EVIL, EVIL), EVIL)])
    reader = Reader(page)
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert not [name for _, attributes in reader.tags for name in attributes if name.startswith("on")]
    assert (
        pictures(page).count("&lt;script&gt;") == 1 + 2 * 2 + 2 + 1
    )  # heading, alts (group and words), words, caption
    images = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert [attributes["alt"] for attributes in images] == [f"{EVIL}: {EVIL}"] * 2
    assert all(attributes["src"].startswith("data:image/png;base64,") for attributes in images)
    assert reader.unclosed == []
    assert reader.open == []
    style = page.split("<style>")[1].split("</style>")[0]
    assert ".strip" in style
    assert base64.b64encode(hashlib.sha256(style.encode()).digest()).decode() in page
    assert not any("style" in attributes for _, attributes in reader.tags)


def test_grey_and_wide_images_are_shown(tmp_path):
    pair = (("grey", torch.zeros(1, 8, 8)), ("wide", torch.ones(3, 4, 16)))
    shown = pictures(written(tmp_path, "t", "", BARE, strips=[Strip(group="g", pictures=pair)]))
    assert re.findall(r'width="(\d+)" height="(\d+)"', shown) == [("192", "192"), ("192", "48")]


@pytest.mark.parametrize(
    ("shape", "told"),
    [
        ((8, 8), r"'masked' .*'inpainting' has shape \(8, 8\); give \(C, H, W\) with 1 or 3 channels"),
        ((1, 3, 8, 8), r"has shape \(1, 3, 8, 8\)"),
        ((2, 8, 8), r"has shape \(2, 8, 8\)"),
        ((8, 8, 3), r"has shape \(8, 8, 3\)"),
        ((3, 0, 8), "empty"),
    ],
)
def test_a_wrong_shape_is_refused_in_one_line(shape, told):
    with pytest.raises(ImagesError, match=told) as refused:
        strip(shape=shape)
    assert "\n" not in str(refused.value)


def test_fewer_than_two_pictures_are_refused():
    with pytest.raises(ImagesError, match=r"strip of 'inpainting' has 1 picture\(s\); give two or more"):
        strip(words=("alone",))
    with pytest.raises(ImagesError, match=r"has 0 picture"):
        strip(words=())


@pytest.mark.parametrize(
    ("image", "told"),
    [
        (torch.full((3, 8, 8), 255.0), "divide by 255"),
        (torch.zeros(3, 8, 8, dtype=torch.uint8), "uint8"),
        (torch.full((3, 8, 8), float("nan")), "NaN"),
        ([[0.0]], "list"),
    ],
)
def test_every_picture_is_checked(image, told):
    with pytest.raises(ImagesError, match=told):
        Strip(group="g", pictures=(("good", torch.zeros(3, 8, 8)), ("bad", image)))


def test_a_study_hands_its_strips_on_to_its_page(tmp_path, monkeypatch):
    class Pictured(Study):
        name, title, scales = "pictured", "Pictured", {"demo": None}

        def networks(self, scale):
            return []

        def measurements(self, scale, networks):
            return []

        def strips(self, scale, results):
            return [strip()]

    monkeypatch.delenv("UNFOOL_DATA_DIR", raising=False)
    result = run_study(Pictured(), "demo", tmp_path)
    assert "strips" not in result.to_json()  # pictures belong to the page, figures to the file
    assert pictures((tmp_path / "report.html").read_text(encoding="utf-8")).count("<img") == len(WORDS)
