"""Threat models as text: what is read, what is refused and in which words."""

import contextlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unfool import attacks
from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.core.threat import L0, Linf, ThreatModel


@pytest.mark.parametrize(
    ("text", "norm_name", "eps"),
    [
        ("linf:8/255", "linf", 8 / 255),
        ("l2:0.5", "l2", 0.5),
        ("l1:12", "l1", 12.0),
        ("l0:10", "l0", 10.0),
        ("linf:0", "linf", 0.0),
        ("linf:1", "linf", 1.0),
        ("linf:255/255", "linf", 1.0),
        ("l2:.25", "l2", 0.25),
        ("l1:1e2", "l1", 100.0),
        (" linf : 4 / 255 ", "linf", 4 / 255),
    ],
)
def test_reads_norm_and_eps(text, norm_name, eps):
    threat = ThreatModel.parse(text)
    assert (threat.norm_name, threat.eps) == (norm_name, eps)
    assert str(threat) == text.strip()
    assert ThreatModel.parse(str(threat)) == threat


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lnf:8/255", "did you mean 'linf'"),
        ("Linf:8/255", "did you mean 'linf'"),
        ("l3:1", "allowed: l0, l1, l2, linf"),
        ("linf:-1", "negative"),
        ("l2:-0.5", "negative"),
        ("linf:300", "perhaps an eps such as 8/255"),
        ("linf:8", "perhaps linf:8/255 was meant"),
        ("linf:1.01", "0 to 1"),
        ("linf:300/255", "0 to 1"),
        ("linf:nan", "not a number"),
        ("l2:inf", "not a number"),
        ("l2:1e999", "not finite"),
        ("l2:8/0", "not a number"),
        ("linf", "no colon"),
        ("8/255", "no colon"),
        ("", "no colon"),
        ("linf:", "not a number"),
        ("linf:8/255/2", "not a number"),
        ("linf:__import__('os').getpid()", "not a number"),
        ("linf:2**3/255", "not a number"),
        ("linf:8\n/\n255\nx", "not a number"),
        (0.03, "not text"),
        (None, "not text"),
    ],
)
def test_refuses_in_one_clear_line(text, words):
    with pytest.raises(SpecError) as caught:
        ThreatModel.parse(text)
    message = str(caught.value)
    assert words in message
    assert "\n" not in message
    assert caught.value.exit_code == 2


@given(st.sampled_from(["linf", "l2", "l1"]), st.just(0.0) | st.floats(1e-30, 1), st.integers(1, 255))
def test_every_allowed_eps_round_trips(norm_name, decimal, numerator):
    for threat in (ThreatModel(norm_name, decimal), ThreatModel.parse(f"{norm_name}:{numerator}/255")):
        again = ThreatModel.parse(str(threat))
        assert again == threat
        assert hash(again) == hash(threat)


@given(st.text(max_size=20))
def test_any_text_is_read_or_refused(text):
    with contextlib.suppress(SpecError):
        assert math.isfinite(ThreatModel.parse(text).eps)


@pytest.mark.parametrize(
    ("norm_name", "eps"), [("linf", -1.0), ("linf", 1.5), ("l2", -1.0), ("l2", math.nan), ("l1", math.inf)]
)
def test_built_by_hand_it_is_checked_too(norm_name, eps):
    with pytest.raises(SpecError):
        ThreatModel(norm_name, eps)


def test_text_that_says_something_else_is_refused():
    with pytest.raises(SpecError, match="is not linf"):
        ThreatModel("linf", 0.1, "linf:0.2")
    with pytest.raises(SpecError, match="unknown norm"):
        ThreatModel("l3", 1.0)


def test_how_it_was_written_is_no_part_of_equality():
    assert ThreatModel.parse("linf:51/255") == ThreatModel.parse("linf:0.2")
    assert ThreatModel.parse("linf:0.2") != ThreatModel.parse("l2:0.2")


def test_it_cannot_be_changed():
    with pytest.raises(AttributeError):
        ThreatModel.parse("l2:1").eps = 2.0  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize("eps", ["0", "0.1"])
@pytest.mark.parametrize("norm_name", ["linf", "l2", "l1"])
def test_images_that_do_not_match_their_origins_are_refused(norm_name, eps):
    threat = ThreatModel.parse(f"{norm_name}:{eps}")
    origins = torch.rand(2, 3, 4, 4)
    for images in (origins[:1], origins[:, :1], origins[..., :1]):
        with pytest.raises(ImagesError, match="one origin per image"):
            threat.project(images, origins)
        with pytest.raises(ImagesError, match="one origin per image"):
            threat.steepest(images, origins, origins, 0.1)
        with pytest.raises(ImagesError, match="one origin per image"):
            threat.steepest(origins, images, origins, 0.1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("text", ["linf:0.1", "l2:0.5", "l1:3", "l0:3"])
def test_callers_tensors_and_the_global_generator_are_left_alone(text, dtype):
    threat = ThreatModel.parse(text)
    origins = torch.rand(2, 3, 4, 4).to(dtype)
    images, gradient = origins + torch.randn_like(origins), torch.randn_like(origins)
    kept = [tensor.clone() for tensor in (origins, images, gradient)]
    state = torch.get_rng_state()
    threat.project(images, origins)
    threat.steepest(gradient, images, origins, 0.1)
    threat.sample(origins, torch.arange(2), Streams(0))
    threat.norm(gradient)
    threat.steepest(gradient, images, origins, torch.tensor([0.1, 0.2]))
    assert all(torch.equal(now, before) for now, before in zip((origins, images, gradient), kept, strict=True))
    assert torch.equal(torch.get_rng_state(), state)


def test_eps_may_be_a_number_of_numpy_and_is_never_text():
    assert Linf(np.float32(0.5)) == Linf(0.5)
    assert type(Linf(np.float32(0.5)).eps) is float
    with pytest.raises(SpecError, match="is text; give a number, such as 8/255 without quotes"):
        Linf("8/255")


@pytest.mark.parametrize("text", ["l0:0.5", "l0:8/255"])
def test_l0_counts_whole_pixels(text):
    with pytest.raises(SpecError, match="it counts pixels, so give a whole number, such as l0:10"):
        ThreatModel.parse(text)
    assert (repr(L0(10)), str(L0(10))) == ("L0(10)", "l0:10")
    assert ThreatModel.parse("l0:20/2") == L0(10)


def test_l0_allows_no_more_pixels_than_the_image_has():
    origins = torch.rand(2, 3, 4, 5)
    assert torch.equal(L0(20).project(1 - origins, origins), 1 - origins)
    with pytest.raises(ImagesError, match="l0:21 changes more pixels than an image of 4x5 has; give at most l0:20"):
        L0(21).project(origins, origins)
    with pytest.raises(ImagesError, match="give at most l0:20"):
        attacks.PGD(L0(21))(torch.nn.Flatten(), origins, torch.zeros(2, dtype=torch.int64))
