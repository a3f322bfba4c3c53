"""The playground without its page: what attacks and reversals make of a picture, and what is refused."""

import dataclasses
import io
import struct
import zlib
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from PIL import Image

from unfool import L2, Linf, make_defense, zoo
from unfool.core.errors import DataError, SpecError
from unfool.core.streams import Streams
from unfool.evaluation.adaptive.purification import purification
from unfool.playground.budgets import BUDGETS, budget_of
from unfool.playground.pictures import MOST_UPLOADED, pictures_of
from unfool.playground.play import Playground
from unfool.playground.systems import PlaygroundSystem

SYSTEM, OTHER = "zoo:digits", "zoo:digits-robust"
BUDGET = Linf(16 / 255)


@pytest.fixture(scope="module")
def picture(play):
    return pictures_of(play.system(SYSTEM))[3]


@pytest.fixture(scope="module")
def outcome(play, picture):
    return play.attack(SYSTEM, picture, BUDGET, 10)


def test_every_class_of_the_digits_has_a_picture(play):
    pictures = pictures_of(play.system(SYSTEM))
    assert [picture.label for picture in pictures] == list(range(10))
    assert all(play.picture(SYSTEM, each.key).image.equal(each.image) for each in pictures)


def test_an_attack_stays_in_its_budget_and_changes_what_the_network_sees(play, picture, outcome):
    network = play.system(SYSTEM).network
    difference = outcome.attacked.image - outcome.clean.image
    assert outcome.clean.image.equal(picture.image)
    assert difference.abs().max() <= BUDGET.eps + 1e-6
    assert outcome.distance == pytest.approx(float(difference.abs().max()), abs=1e-6)
    with torch.no_grad():
        both = network(torch.stack([outcome.clean.image, outcome.attacked.image])).softmax(1)
    assert torch.allclose(both, torch.stack([outcome.clean.probabilities, outcome.attacked.probabilities]), atol=1e-5)
    assert outcome.clean.top == picture.label == outcome.label
    assert outcome.fooled
    assert both.argmax(1).tolist() == [outcome.clean.top, outcome.attacked.top]


def test_the_path_leads_from_the_picture_to_the_attacked_one(outcome):
    assert len(outcome.path) == outcome.steps + 1
    assert torch.allclose(outcome.path[0], outcome.clean.probabilities, atol=1e-5)
    assert torch.allclose(outcome.path.sum(1), torch.ones(11))
    lowest = outcome.path[:, outcome.label].min()
    assert outcome.attacked.probabilities[outcome.label] == pytest.approx(float(lowest), abs=1e-4)


def test_a_borrowed_example_is_the_lenders_own_one(play, picture):
    borrowed = play.attack(SYSTEM, picture, BUDGET, 10, OTHER)
    lent = play.attack(OTHER, picture, BUDGET, 10)
    assert borrowed.attacked.image.equal(lent.attacked.image)
    assert borrowed.borrowed
    assert borrowed.crafted_on == OTHER
    own = play.attack(SYSTEM, picture, BUDGET, 10)
    assert borrowed.attacked.probabilities[picture.label] > own.attacked.probabilities[picture.label]
    assert play.lenders(SYSTEM) == [OTHER]
    assert play.lenders("natural") == []


def test_a_reversal_lowers_the_pretext_loss_and_is_the_registered_defense(play, outcome):
    reversal = play.reverse(SYSTEM, "contrast", outcome)
    assert len(reversal.losses) == 21
    assert reversal.losses[-1] < 0.5 * reversal.losses[0]
    system = play.system(SYSTEM)
    few = system.calibration.sample(1200, Streams(0).named("playground"))
    settings = {"task": "contrast", "steps": 20, "eps": 48 / 255, "redraw": False, "rate": 0.05}
    gate = make_defense("gate", system.network, {"label": 10, "parity": 2}, data=few, settings=settings)
    purified = purification(gate.purifier, outcome.attacked.image[None])
    assert reversal.reversed.image.equal(purified.images[0])
    assert torch.equal(reversal.reversed.probabilities, purified.after[0])
    word = reversal.gate
    assert word.threshold == gate.threshold
    with torch.no_grad():
        losses = gate.losses(torch.stack([outcome.clean.image, outcome.attacked.image]))
    assert [word.clean, word.attacked] == pytest.approx(losses.tolist(), abs=1e-4)
    assert word.stops_attacked == (float(losses[1]) > gate.threshold)


def test_a_network_without_a_pretext_head_is_not_reversed(play):
    picture = pictures_of(play.system("natural"))[0]
    outcome = play.attack("natural", picture, BUDGET, 1)
    with pytest.raises(SpecError, match="unknown pretext head of natural 'contrast'"):
        play.reverse("natural", "contrast", outcome)


def test_a_task_that_needs_images_is_offered_where_there_are_some(play):
    digits = play.system(SYSTEM)
    assert digits.pretext_heads == ["contrast"]
    assert dataclasses.replace(digits, calibration=None).pretext_heads == []
    several = PlaygroundSystem(
        name="several", network=zoo.load("cifar10-multitask"), classes=[str(n) for n in range(10)], shape=(3, 32, 32)
    )
    assert several.pretext_heads == ["rotation", "inpainting"]
    others = Playground({"several": lambda: several})
    outcome = others.attack("several", pictures_of(several)[0], BUDGET, 1)
    reversal = others.reverse("several", "rotation", outcome)
    assert reversal.losses[-1] < reversal.losses[0]
    assert reversal.gate is None


def test_natural_images_have_the_photographs_and_unknown_classes(play):
    pictures = pictures_of(play.system("natural"))
    assert [picture.key for picture in pictures] == ["photo-china", "photo-flower"]
    outcome = play.attack("natural", pictures[0], L2(0.5), 2)
    assert pictures[0].image.shape == (3, 32, 32)
    assert not outcome.known
    assert outcome.label == outcome.clean.top


def test_what_users_see_does_not_depend_on_each_other(play):
    pictures = pictures_of(play.system(SYSTEM))[:4]
    alone = [play.attack(SYSTEM, each, BUDGET, 3).attacked.image for each in pictures]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(lambda each: play.attack(SYSTEM, each, BUDGET, 3).attacked.image, pictures * 2))
    assert all(image.equal(alone[place % 4]) for place, image in enumerate(together))


def test_an_upload_is_brought_to_the_size_of_the_network(play, tmp_path):
    Image.new("RGB", (300, 200), (10, 200, 30)).save(tmp_path / "green.png")
    picture = play.upload(SYSTEM, tmp_path / "green.png")
    assert picture.image.shape == (3, 32, 32)
    assert picture.label is None
    assert torch.allclose(picture.image[:, 5, 5], torch.tensor([10, 200, 30]) / 255)


def bomb() -> bytes:
    """A small PNG that declares 30,000 × 30,000 pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 30_000, 30_000, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")


def truncated() -> bytes:
    file = io.BytesIO()
    Image.effect_noise((64, 64), 50).save(file, format="PNG")
    return file.getvalue()[:200]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"not an image", r"bad\.png is no image that can be read"),
        (b"", r"bad\.png is no image that can be read"),
        (bomb(), "pixels"),
        (truncated(), r"bad\.png is no image that can be read"),
        (b"\x89PNG" + bytes(MOST_UPLOADED), r"more than the 8,388,608 allowed"),
    ],
    ids=["text", "empty", "bomb", "truncated", "long"],
)
def test_a_bad_upload_is_refused_in_one_line(play, tmp_path, content, said):
    (tmp_path / "bad.png").write_bytes(content)
    with pytest.raises(DataError, match=said) as caught:
        play.upload(SYSTEM, tmp_path / "bad.png")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("norm", BUDGETS)
def test_a_place_on_a_slider_is_a_threat_model(norm):
    budget = budget_of(norm)
    assert budget.threat(budget.start).norm_name == norm
    assert str(budget_of("linf").threat(8)) == "linf:8/255"
    with pytest.raises(SpecError, match="not allowed here"):
        budget.threat(budget.most + 1)


def test_what_there_is_not_is_refused_with_what_there_is(play, picture):
    with pytest.raises(SpecError, match=r"'zoo:digit'.*did you mean 'zoo:digits'"):
        play.system("zoo:digit")
    with pytest.raises(SpecError, match="unknown picture"):
        play.picture(SYSTEM, "../../etc/passwd")
    with pytest.raises(SpecError, match="unknown lender"):
        play.attack(SYSTEM, picture, BUDGET, 5, "natural")
    with pytest.raises(SpecError, match="1000 steps are not allowed; give 1 to 100"):
        play.attack(SYSTEM, picture, BUDGET, 1000)
    with pytest.raises(SpecError, match="unknown norm"):
        budget_of("l3")
    with pytest.raises(SpecError, match="no system to play with"):
        Playground({})
