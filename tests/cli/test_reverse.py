"""``unfool reverse`` and the defenses of ``unfool evaluate``: what they do, and how they refuse."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from unfool import classify, open_run, open_table
from unfool.cli.commands.reverse import Prediction, ReversedImage
from unfool.core.streams import Streams
from unfool.defenses import make_defense
from unfool.evaluation.results.study_result import StudyResult

SETTINGS = "temperature=0.1,bank=32,drawn=16,steps=2,eps=16/255"
REVERSE = f"reverse:task=contrast,{SETTINGS}"
WRONG_HEAD = ["head 'labels' is {'kind': 'linear'", "which is no head of task", "give head=NAME of a head"]


@pytest.fixture
def files(tmp_path):
    """Two images, one of them larger than what the run was trained on."""
    table = open_table("digits", "test")
    first = np.ascontiguousarray(table.images[0].permute(1, 2, 0).numpy())
    Image.fromarray(first).save(tmp_path / "a.png")
    Image.fromarray(first).resize((80, 64)).save(tmp_path / "b.jpg")
    return tmp_path / "a.png", tmp_path / "b.jpg"


def test_images_are_purified_beside_themselves(cli, parity, files):
    told = cli("reverse", parity, *files, "--defense", REVERSE, "--json")
    assert (told.code, told.err) == (0, ""), told.err
    found = json.loads(told.out)
    assert found["defense"] == REVERSE
    first, second = found["images"]
    assert first["written"] == str(files[0].with_name("a-reversed.png"))
    for one, path in zip((first, second), files, strict=True):
        assert one["image"] == str(path)
        assert one["before"]["name"] in ("even", "odd")
        assert {"name", "probability", "pretext_loss"} == set(one["before"]) == set(one["after"])
        with Image.open(one["written"]) as image:
            assert (image.format, image.size, image.mode) == ("PNG", (32, 32), "RGB")
    with Image.open(files[0]) as before, Image.open(first["written"]) as after:
        moved = np.asarray(after).astype(int) - np.asarray(before).astype(int)
    assert 0 < np.abs(moved).max() <= 16 + 1
    assert first["after"]["pretext_loss"] != first["before"]["pretext_loss"]


def test_images_of_in_batch_negatives_are_cut_by_the_defense_and_never_left_alone(cli, parity, files):
    text = "reverse:task=contrast,negatives=batch,batch_size=2,steps=1"
    more = [files[0].with_name(name) for name in ("c.png", "d.png", "e.png")]
    for path in more:
        path.write_bytes(files[0].read_bytes())
    told = cli("reverse", parity, *files, *more, "--defense", text, "--json")
    assert told.code == 0, told.err
    assert len(json.loads(told.out)["images"]) == 5
    out = files[0].parent / "single"
    told = cli("reverse", parity, files[0], "--defense", text, "--out", out)
    assert (told.code, told.out) == (2, "")
    line = told.err.splitlines()[-1]
    assert "a.png is the only one; give at least 2 images, or set negatives=bank" in line
    assert not list(out.iterdir())


def test_the_data_that_it_is_calibrated_on_may_be_framed_otherwise(cli, parity, files):
    options = ("--data", "digits", "--size", "24", "--crop", "0", "--column", "parity", "--defense", REVERSE)
    told = cli("reverse", parity, files[1], *options, "--json")
    assert told.code == 0, told.err
    (shown,) = json.loads(told.out)["images"]
    with Image.open(shown["written"]) as image:
        assert image.size == (24, 24)
    assert shown["before"]["name"] in ("even", "odd")


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (3.816, 3.926, ", pretext loss 3.926 (it did not fall); written to"),
        (3.816, 3.8, ", pretext loss 3.800; written to"),
        (None, None, "0 (90.0 %) -> 0 (90.0 %); written to"),
    ],
)
def test_a_loss_that_did_not_fall_is_told(before, after, words):
    shares = [Prediction(name="0", probability=0.9, pretext_loss=loss) for loss in (before, after)]
    image = ReversedImage(image="a.png", written="b.png", before=shares[0], after=shares[1])
    assert words in image.line()


def test_what_a_gate_leaves_alone_is_not_called_a_loss_that_did_not_fall(cli, parity, files):
    gates = {
        "rate=0.05,": (False, " (not acted on: it is not above the gate's threshold); written to"),
        "rate=0.99,action=abstain,": (True, "; written to"),
    }
    for settings, (acted, words) in gates.items():
        gate = REVERSE.replace("reverse:", f"gate:{settings}")
        told = cli("reverse", parity, files[0], "--defense", gate)
        assert told.code == 0, told.err
        assert words in told.out
        assert "did not fall" not in told.out
        as_json = cli("reverse", parity, files[0], "--defense", gate, "--json")
        assert json.loads(as_json.out)["images"][0]["acted"] is acted
    plain = cli("reverse", parity, files[0], "--defense", REVERSE, "--json")
    assert "acted" not in json.loads(plain.out)["images"][0]


def test_what_is_shown_is_the_networks_own_word(cli, parity, files, tmp_path):
    out = tmp_path / "purified" / "here"
    told = cli("reverse", parity, files[0], "--defense", REVERSE, "--out", out)
    assert (told.code, told.err) == (0, "")
    (line,) = told.out.splitlines()
    network = open_run(parity).network
    images = open_table("digits", "test").batch(torch.tensor([0])).images
    with torch.no_grad():
        share, index = network(images).softmax(1).max(1)
    name = open_table("digits", "test").classes["parity"][int(index)]
    assert line.startswith(f"{files[0]}: {name} ({100 * float(share):.1f} %), pretext loss ")
    assert line.endswith(f"written to {out / 'a-reversed.png'}")
    assert [path.name for path in out.iterdir()] == ["a-reversed.png"]
    assert not files[0].with_name("a-reversed.png").exists()


def test_the_runs_own_task_is_the_default(cli, parity, files):
    page = files[0].with_name("page.html")
    told = cli("reverse", parity, files[0], "--json", "--page", page)
    assert (told.code, told.err) == (0, "")
    defense = "reverse:task=contrast,head=contrast,temperature=0.1"
    assert json.loads(told.out)["defense"] == defense
    shown = page.read_text(encoding="utf-8")
    assert shown.count('<img src="data:image/png;base64,') == 3
    (before, after) = (json.loads(told.out)["images"][0][when]["name"] for when in ("before", "after"))
    for piece in (defense, f"before: {before}", f"after: {after}", "difference ×", "unfool reverse", "<polyline"):
        assert piece in shown


def test_bad_input_is_one_line_and_writes_nothing(cli, run, parity, files, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / "a.jpg"
    Image.new("RGB", (8, 8)).save(other)
    before = sorted(path.name for path in tmp_path.rglob("*"))
    for code, pieces, arguments in (
        (2, ["no IMAGES"], [parity]),
        (2, ["a-reversed.png", "one by one"], [parity, files[0], other, "--out", tmp_path / "x"]),
        (2, ["no pretext task", "--task contrast"], [run, files[0]]),
        (2, ["'contrast'", "labels"], [run, files[0], "--defense", REVERSE]),
        (2, ["'revers'", "did you mean 'reverse'?"], [parity, files[0], "--defense", "revers:steps=2"]),
        (2, ["'step'", "did you mean 'steps'?"], [parity, files[0], "--defense", "reverse:step=2"]),
        (2, WRONG_HEAD, [parity, files[0], "--defense", "reverse:task=contrast,head=labels"]),
        (2, WRONG_HEAD, [parity, files[0], "--defense", "reverse:task=inpainting,head=labels"]),
        (2, WRONG_HEAD[1:], [parity, files[0], "--defense", "reverse:task=jigsaw,head=contrast"]),
        (3, ["gone.png", "give an image file"], [parity, tmp_path / "gone.png"]),
        (3, ["broken.png", "no image that can be read"], [parity, tmp_path / "broken.png"]),
        (3, ["holds no run"], [tmp_path, files[0]]),
    ):
        told = cli("reverse", *arguments)
        complaint = told.complaint()
        assert told.code == code, complaint
        for piece in pieces:
            assert piece in complaint
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_the_ladder_is_one_flag_with_settings(cli, parity, tmp_path):
    file = tmp_path / "ladder.json"
    few = ("--steps", "2", "--draws", "2", "--lambdas", "1", "--targets", "1", "--queries", "3")
    arguments = ("--defense", REVERSE, "--adaptive", "--attack", "pgd-3", "--images", "6", "--out", file)
    told = cli("evaluate", parity, *arguments, *few)
    assert told.code == 0, told.err
    # Two classes are too few for the targeted DLR loss of rung (h).
    assert "loss dlr-targeted needs 4 classes" in told.err
    for piece in ("(a)", "(b)", "TRANSFER", "(f)", "adaptive", "(g) was not run: the defense has no gate", "replayed"):
        assert piece in told.out
    found = StudyResult.load(file).to_json()
    assert [row["rung"] for row in found["rows"] if "rung" in row] == [*"abcdefhi", "worst-case"]
    assert {row["defense"] for row in found["rows"]} == {"none", REVERSE}
    verdict = found["ladder"]["verdict"]
    assert verdict.upper() in told.out
    assert found["claims"][0]["verdict"] == {"helps": "holds"}.get(verdict, verdict)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ladder.json"]
    page = cli("report", file)
    assert page.code == 0, page.err
    assert 'id="ladder"' in (tmp_path / "ladder.html").read_text(encoding="utf-8")


def test_a_gate_says_what_its_threshold_was_set_on(cli, parity):
    gate = REVERSE.replace("reverse:", "gate:rate=0.1,")
    told = cli("evaluate", parity, "--defense", gate, "--images", "10", "--no-reliability")
    assert told.code == 0
    assert "may have been trained on" in told.err


@pytest.mark.parametrize(
    ("arguments", "pieces"),
    [
        (["--adaptive", "--defense", REVERSE, "--attack", "fgsm", "--attack", "pgd-3"], ["one --attack"]),
        (["--adaptive", "--defense", REVERSE, "--claim", ">=0.5"], ["--claim and --adaptive"]),
        (["--adaptive", "--defense", REVERSE, "--attack", "pdg-3"], ["did you mean 'pgd'?"]),
        (["--defense", "reverse:task=contrst"], ["'contrst'", "did you mean 'contrast'?"]),
        (["--defense", "reverse:task=labels"], ["labels"]),
        (["--defense", "reverse:task=inpainting,head=labels"], WRONG_HEAD),
    ],
)
def test_misuse_of_a_defense_is_one_line(cli, parity, arguments, pieces):
    told = cli("evaluate", parity, "--images", "5", *arguments)
    complaint = told.complaint()
    assert told.code == 2, complaint
    for piece in pieces:
        assert piece in complaint


def test_the_defended_accuracy_is_that_of_the_library(cli, parity):
    """The same text, calibrated on the same images from the same seed, is the same system."""
    told = cli("evaluate", parity, "--defense", REVERSE, "--images", "20", "--no-reliability", "--json", "--seed", "3")
    assert (told.code, told.err) == (0, "")
    network, train = open_run(parity).network, open_table("digits", "train")
    classes = {name: len(names) for name, names in train.classes.items()}
    defense = make_defense(REVERSE, network, classes, data=train, streams=Streams(3).named("defense"))
    chosen = open_table("digits", "test").sample(20, Streams(0).named("attacked images"))
    (row,) = json.loads(told.out)["rows"]
    assert (row["attack"], row["defense"], row["n"]) == ("none", REVERSE, 20)
    assert row["accuracy"] == classify(defense, chosen, column="parity").accuracy
