"""The page: self-contained, escaped, faithful to the JSON, and clear about what is transfer."""

import base64
import hashlib
import io
import json
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch
from made_up_study import make_row, make_rows, make_study, result
from PIL import Image

from unfool.core.errors import ImagesError, OutputError, SpecError
from unfool.evaluation.crafting.pictures import magnified_difference
from unfool.evaluation.results.study_result import StudyResult
from unfool.report import Curve, GalleryItem, Page, write_page
from unfool.report.pictures.gallery import image_uri

EVIL = "<script>alert('x')</script>\"><img src=http://evil.example/x onerror=alert(1)>"
DOWNLOADS = ("data:text/csv;base64,", "data:application/json;base64,")
VOID = {"meta", "img", "br", "link", "input"}


class Reader(HTMLParser):
    """Tags with their attributes, and the cells of accuracy tables with class and text."""

    def __init__(self, page: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.cells: list[tuple[str, str]] = []
        self.headings: list[str] = []
        self.open: list[str] = []
        self.unclosed: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        attributes = {name: value or "" for name, value in attrs}
        self.tags.append((tag, attributes))
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th"):
            self.cells.append((attributes.get("class", ""), ""))

    def handle_endtag(self, tag):
        while self.open and (last := self.open.pop()) != tag:
            self.unclosed.append(last)

    def handle_data(self, data):
        if "td" in self.open or "th" in self.open:
            kind, text = self.cells[-1]
            self.cells[-1] = (kind, f"{text} {data}".strip())


def item(label="cat", **changes):
    clean = torch.full((3, 8, 8), 0.5)
    adversarial = clean.clone()
    adversarial[0, 2, 3] += 8 / 255
    given = {
        "clean": clean,
        "adversarial": adversarial,
        "label": label,
        "clean_prediction": label,
        "clean_probability": 0.98,
        "adversarial_prediction": "dog",
        "adversarial_probability": 0.871,
        "model": "single-task",
        "caption": "PGD-50",
        "protocol": "white-box",
    }
    return GalleryItem(**{**given, **changes})


def written(tmp_path: Path, *arguments, **keywords) -> str:
    return write_page(tmp_path / "page.html", Page(*arguments, **keywords)).read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    study, folder = make_study(), tmp_path_factory.mktemp("page")
    curve = Curve("run", {"step": [1, 2, 3], "loss": [3.0, 2.0, 1.0]})
    return written(folder, "A title", "What it is", result(study), [curve], [item()], ["A note."])


def test_numbers_are_those_of_the_json(study, full):
    tables = full.partition('id="accuracy"')[2].partition("</section>")[0]
    values = Counter(attrs["value"] for tag, attrs in Reader(tables).tags if tag == "data")
    rows = study["rows"]
    expected = Counter(str(row["accuracy"]) for row in rows)
    expected += Counter(str(row["source_value"]) for row in rows if row["source_value"] is not None)
    assert values == expected
    for row in rows:
        assert f">{100 * row['accuracy']:.1f}</data>" in full
        assert f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]" in full
        if row["source_value"] is not None:
            assert f">{100 * row['source_value']:.2f}</data>" in full
    for word in ("small", "41 min 13 s", "10,000", "torch 2.10.0", "linf:8/255", "A note.", "98 %", "87 %"):
        assert word in full


def test_transfer_never_looks_like_white_box(study, full):
    cells = Reader(full).cells
    transfer = [row for row in study["rows"] if row["protocol"] == "transfer"]
    shown = [text for kind, text in cells if kind == "ours transfer"]
    assert sorted(re.findall(r"[\d.]+", text)[0] for text in shown) == sorted(
        f"{100 * row['accuracy']:.1f}" for row in transfer
    )
    assert all(text.startswith("transfer") for text in shown)
    headers = [text for kind, text in cells if kind == "protocol transfer"]
    assert headers
    assert all(re.match(r"transfer\s+crafted on single-task", text) for text in headers)
    others = [text for kind, text in cells if kind.startswith(("ours", "source")) and "transfer" not in kind]
    assert others
    assert not any("transfer" in text for text in others)
    style = full.split("<style>")[1].split("</style>")[0]
    assert re.search(r"\.accuracy tr > \.transfer \{ background", style)


def test_every_name_is_escaped(study, tmp_path):
    study["rows"] += [
        make_row(EVIL, EVIL, "none", 0.5, split=EVIL, defense=EVIL, settings={EVIL: EVIL}),
        make_row(EVIL, EVIL, "pgd-7", 0.5, split=EVIL, defense=EVIL, settings={EVIL: EVIL}, threat=EVIL),
        make_row(EVIL, EVIL, EVIL, 0.5, protocol="transfer", seed=EVIL, source_model="a"),
    ]
    study["claims"].append({"text": EVIL, "verdict": "holds", "evidence": [EVIL]})
    study |= {"scale": EVIL, "study": EVIL, "data": {EVIL: {EVIL: EVIL}}, "versions": {EVIL: EVIL}, "notes": [EVIL]}
    study |= {"summary": EVIL, "cuts": [EVIL]}
    names = {"clean_prediction": EVIL, "adversarial_prediction": EVIL, "model": EVIL, "caption": EVIL}
    curves = [Curve(EVIL, {"step": [1, 2], "loss": [1, 2], f"accuracy/{EVIL}": [0, 1]}), Curve(EVIL, tmp_path / EVIL)]
    page = written(tmp_path, EVIL, EVIL, result(study), curves, [item(EVIL, **names)], [EVIL])
    reader = Reader(page)
    assert not {"iframe", "object", "embed", "base"} & {tag for tag, _ in reader.tags}
    assert [tag for tag, _ in reader.tags].count("script") == 1
    assert not [name for _, attrs in reader.tags for name in attrs if name.startswith("on")]
    assert page.count("&lt;script&gt;") > 10
    assert all(attrs["src"].startswith("data:image/") for tag, attrs in reader.tags if tag == "img")


def test_nothing_is_loaded_from_anywhere(full):
    reader = Reader(full)
    for _, attributes in reader.tags:
        for name, value in attributes.items():
            if name in ("href", "src", "srcset", "action", "data", "poster", "style"):
                assert value.startswith(("#", "data:image/png;base64,", "data:,", *DOWNLOADS))
    assert not re.search(r"https?://", full)
    style = full.split("<style>")[1].split("</style>")[0]
    assert "url(" not in style
    assert "@import" not in style
    script = full.split("<script>")[1].split("</script>")[0]
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)
    )
    policy = next(a["content"] for t, a in reader.tags if t == "meta" and "content-security" in str(a).lower())
    admitted = [f"style-src 'sha256-{style_hash}'", f"script-src 'sha256-{script_hash}'"]
    assert policy.split("; ")[:4] == ["default-src 'none'", "img-src data:", *admitted]


def test_structure_is_accessible(full):
    reader = Reader(full)
    assert reader.unclosed == []
    assert reader.open == []
    assert [tag for tag, _ in reader.tags].count("h1") == 1
    assert all(attributes.get("alt") for tag, attributes in reader.tags if tag == "img")
    assert all(attributes.get("scope") for tag, attributes in reader.tags if tag == "th")
    ids = [attributes["id"] for _, attributes in reader.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    links = [attributes for tag, attributes in reader.tags if tag == "a"]
    anchors = [attributes["href"][1:] for attributes in links if "download" not in attributes]
    assert set(anchors) <= set(ids)
    assert len(anchors) == 9
    assert all(attributes.get("aria-label") for tag, attributes in reader.tags if tag == "table")
    drawings = [attributes for tag, attributes in reader.tags if tag == "svg" and attributes.get("role") == "img"]
    assert len(drawings) > 5
    assert all(attributes.get("aria-label") for attributes in drawings)


def test_rows_have_as_many_cells_as_the_head(full):
    for table in re.findall(r'<table class="accuracy sorted".*?</table>', full, re.S):
        for body in re.findall(r"<tbody>.*?</tbody>", table, re.S):
            rows = re.findall(r"<tr.*?</tr>", body, re.S)
            counts = [len(re.findall(r"<t[dh]", row)) for row in rows]
            assert counts[0] == 12
            assert all(count == 9 for count in counts[1:])
            assert re.search(rf'class="model" data-c="name" rowspan="{len(rows)}"', body)


def test_seeds_are_told(study, tmp_path):
    study["rows"] += make_rows(1, 0.02)
    page = written(tmp_path, "t", "", result(study))
    assert re.search(r">82\.4</data>\s*<small>\[81\.4, 83\.4\]</small>\s*<small>2 seeds", page)
    assert "<dd>0, 1</dd>" in page
    assert page.count("2 seeds</small>") == len(make_rows())


def test_missing_pieces_leave_no_trace(tmp_path):
    page = written(tmp_path, "Bare", "", result({}))
    assert "<h1>Bare</h1>" in page
    assert not re.search(r"<section|<table|<nav aria-label=\"Sections\">\s*<a", page)
    later = written(tmp_path, "Curve", "", result({}), [Curve("gone", tmp_path / "gone.csv")])
    assert "Not shown: cannot read the training curve" in later
    assert 'id="training"' not in later


def test_a_note_that_is_told_twice_is_shown_once(study, tmp_path):
    page = written(
        tmp_path, "t", "", result({**study, "notes": ["From the file.", "Both."]}), notes=["Both.", "From the page."]
    )
    items = re.findall(r"<li>(.*?)</li>", page.partition('id="notes"')[2])
    assert items == ["From the file.", "Both.", "From the page."]


def test_the_summary_comes_first_and_cuts_are_listed(study, tmp_path):
    results = result({**study, "summary": "It holds.", "cuts": ["One epoch for ten."]})
    assert StudyResult.from_json(results.to_json()) == results
    page = written(tmp_path, "t", "", results)
    main = page.split('<main class="wrap">')[1]
    assert re.match(r'\s*<section id="overview"[^>]*>\s*<p class="headline">The same network', main)
    assert '<p class="summary">It holds.</p>' in main
    plain = written(tmp_path, "t", "", result({"summary": "It holds."}))
    assert '<p class="headline">It holds.</p>' in plain
    assert re.search(r'id="cuts".*<li>One epoch for ten\.</li>', main, re.S)
    assert 'href="#cuts"' in page


def test_a_long_summary_is_folded_at_the_end_of_a_sentence(study, tmp_path):
    sentences = [f"Claim {number} says what it says, and holds." for number in range(40)]
    page = written(tmp_path, "t", "", result({**study, "summary": " ".join(sentences)}))
    above, _, folded = page.partition("<summary>more of what was found</summary>")
    assert [each for each in sentences if each in above] == sentences[:18]
    assert [each for each in sentences if each in folded] == sentences[18:]
    # Without a lesson of its own the page begins with the tally of its claims.
    names = {key: study[key] for key in ("study", "scale", "claims")}
    alone = written(tmp_path, "t", "", result({**names, "summary": " ".join(sentences)}))
    assert re.search(r'<p class="headline">Of \d+ claims [^<]*</p>\s*<p class="summary">Claim 0 says', alone)


def test_lone_surrogates_do_not_stop_the_page(study, tmp_path):
    study["claims"][0]["text"] = json.loads('"bad \\ud800 text"')
    assert "bad ? text" in written(tmp_path, "t", "", result(study))


def test_a_newer_study_is_refused_and_nothing_written(study, tmp_path):
    with pytest.raises(SpecError):
        write_page(tmp_path / "page.html", Page("t", "", result({**study, "schema_version": 9})))
    assert list(tmp_path.iterdir()) == []


def test_an_unwritable_place_is_one_line(study, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        write_page(tmp_path / "file" / "page.html", Page("t", "", result(study)))


def test_images_are_enlarged_pixel_by_pixel():
    image = torch.rand(3, 8, 6, generator=torch.Generator().manual_seed(1))
    uri, width, height = image_uri(image)
    shown = Image.open(io.BytesIO(base64.b64decode(uri.split(",")[1])))
    assert shown.size == (width, height) == (6 * 24, 8 * 24)
    for row, column in ((0, 0), (7, 5), (3, 2)):
        expected = tuple((image[:, row, column] * 255).round().int().tolist())
        block = shown.crop((column * 24, row * 24, column * 24 + 24, row * 24 + 24))
        assert block.getcolors() == [(24 * 24, expected)]


def test_difference_is_magnified_around_grey():
    one = item()
    difference, factor = magnified_difference(one.clean, one.adversarial)
    assert factor == 15
    assert difference[0, 2, 3].item() == pytest.approx(0.5 + 15 * 8 / 255, abs=1e-5)
    assert (difference == 0.5).sum() == difference.numel() - 1
    same, factor = magnified_difference(one.clean, one.clean)
    assert factor == 1
    assert bool((same == 0.5).all())
    inverse, factor = magnified_difference(torch.zeros(1, 4, 4), torch.ones(1, 4, 4))
    assert (factor, inverse.max().item()) == (1, 1.0)


def test_grey_images_and_wrong_shapes():
    grey = item(clean=torch.zeros(1, 8, 8), adversarial=torch.ones(1, 8, 8))
    assert image_uri(grey.clean)[1:] == (192, 192)
    with pytest.raises(ImagesError):
        item(adversarial=torch.zeros(3, 4, 4))
    with pytest.raises(ImagesError):
        item(clean=torch.full((3, 8, 8), 255.0))
    with pytest.raises(SpecError, match="transfer"):
        item(protocol="transfered")


def test_gallery_says_right_and_wrong(full, study, tmp_path):
    assert re.search(r'class="right">cat</b> 98 %\s*<i>right</i>', full)
    assert re.search(r'class="wrong">dog</b> 87 %\s*<i>wrong</i>', full)
    assert "×15" in full
    replayed = written(tmp_path, "t", "", result({**study, "rows": []}), [], [item(protocol="transfer")])
    assert '<span class="tag">transfer</span>' in replayed
