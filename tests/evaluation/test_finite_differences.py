"""Gradients that are not the model's own, and those that are."""

import pytest
import torch
from torch import nn

from unfool import Linf
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.evaluation.reliability.blocked_gradients import probed
from unfool.evaluation.reliability.finite_differences import wrong_gradients
from unfool.evaluation.reliability.model_checks import Subject
from unfool.evaluation.reliability.precision import rounds_float32, unrounded_float32


class Tanh(nn.Module):
    """A smooth network of four logits; ``bend`` says what stands before it."""

    def __init__(self, bend=lambda images: images):
        super().__init__()
        draws = Streams(7)
        self.first = nn.Parameter(draws.normal(torch.arange(20), (48,)) / 3, requires_grad=False)
        self.second = nn.Parameter(draws.named("second").normal(torch.arange(4), (20,)), requires_grad=False)
        self.bend = bend

    def forward(self, images):
        return (self.bend(images).flatten(1) @ self.first.T).tanh() @ self.second.T


def straight_through(images):
    shuffled = images.flip(2)
    return images.detach() + shuffled - shuffled.detach()


def half_seen(images):
    return 0.5 * images + 0.5 * images.detach()


def stairs(images):
    return 0.5 * images + 0.5 * (images * 255).round() / 255


BENT = {"straight-through": straight_through, "half seen": half_seen, "stairs": stairs}


THREAT = Linf(8 / 255)


def flag_of(model, threat=THREAT, count=64):
    ids = torch.arange(count)
    images = Streams(1).uniform(ids, (3, 4, 4))
    with torch.no_grad():
        labels = model(images).argmax(1)
    subject = Subject(model, images, labels, ids)
    flag = wrong_gradients(subject, threat)
    assert subject.model_images == 4 * count
    return flag


@pytest.mark.parametrize("bend", BENT.values(), ids=BENT)
def test_another_functions_gradient_is_flagged(bend):
    flag = flag_of(Tanh(bend))
    assert flag.name == "wrong-gradients"
    assert "of what the gradient says" in flag.text


@pytest.mark.parametrize("threat", ["linf:8/255", "linf:0.3", "l2:0.5", "l1:4", "linf:0.1/255"])
def test_a_smooth_network_is_not_flagged(threat):
    assert flag_of(Tanh(), ThreatModel.parse(threat)) is None


def test_an_input_that_is_clamped_to_the_box_is_not_flagged():
    def clamped(images):
        return images.round().clamp(0, 1) * 0 + images.clamp(0, 1)

    assert flag_of(Tanh(clamped)) is None


def test_a_model_without_gradients_is_left_to_the_check_for_those():
    assert flag_of(Tanh(lambda images: images.detach() + 0 * images)) is None


class Precision(Tanh):
    """Keeps what PyTorch is set to in each pass."""

    def forward(self, images):
        self.rounded = rounds_float32(torch.device("cuda")), rounds_float32(torch.device("cpu"))
        return super().forward(images)


def settings():
    return [each.fp32_precision for each in (torch.backends.cudnn.conv, torch.backends.mkldnn.matmul)]


@pytest.mark.parametrize("precision", ["highest", "medium"])
def test_tf32_is_off_while_gradients_are_compared_with_steps(precision):
    """Convolutions have it on by default, on every GPU; matrix products on request."""
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        own = settings()
        assert rounds_float32(torch.device("cuda"))
        assert rounds_float32(torch.device("cpu")) is (precision == "medium")
        model = Precision()
        assert flag_of(model) is None
        assert model.rounded == (False, False)
        probed(model, Streams(1).uniform(torch.arange(4), (3, 4, 4)), THREAT, Streams(0))
        assert model.rounded == (False, False)
        assert (settings(), torch.get_float32_matmul_precision()) == (own, precision)
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.set_float32_matmul_precision(before)


def test_what_takes_over_a_wider_setting_goes_on_taking_it_over():
    matmul, wider = torch.backends.mkldnn.matmul, torch.backends.mkldnn
    before, own = wider.fp32_precision, matmul.fp32_precision
    try:
        wider.fp32_precision, matmul.fp32_precision = "bf16", "none"
        with unrounded_float32():
            assert matmul.fp32_precision == "ieee"
        assert matmul.fp32_precision == "bf16"
        wider.fp32_precision = "ieee"
        assert matmul.fp32_precision == "ieee"
    finally:
        wider.fp32_precision, matmul.fp32_precision = before, own


def test_settings_are_put_back_after_an_exception():
    own = settings()

    @unrounded_float32()
    def fails():
        assert settings() == ["ieee", "ieee"]
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fails()
    assert settings() == own
