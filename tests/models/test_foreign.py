"""Classifiers that were not made here: the adapter keeps the contract, and a look tells what does not."""

import copy
import warnings

import numpy as np
import pytest
import torch
from torch import nn

from unfool import adapt, identity
from unfool.core.errors import ImagesError, NonFiniteError, SpecError, UnfoolError, UnfoolWarning
from unfool.models.fast import fast_copy
from unfool.models.foreign import ForeignClassifier
from unfool.models.look import check_classifier
from unfool.models.network import NORMALISATIONS
from unfool.models.outside.preparation import Adaptation

IMAGES = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def test_statistics_may_be_one_number_for_all_channels():
    module = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    expected = adapt(module, mean=[0.5] * 3, std=[0.25] * 3)(IMAGES)
    assert torch.allclose(adapt(module, mean=0.5, std=0.25)(IMAGES), expected)
    assert torch.equal(adapt(module, mean=0, std=1)(IMAGES), adapt(module, mean="0", std="1")(IMAGES))
    assert torch.equal(adapt(module, mean=np.float32(0.5), std=np.float32(0.25))(IMAGES), expected)
    with pytest.raises(SpecError, match=r"std 0.0 is not allowed; .*above 0"):
        adapt(module, mean=0.5, std=0.0)
    for truth in (True, [True], np.bool_(True), np.array([True])):
        with pytest.raises(SpecError, match=r"mean .*True.* is not allowed; give a name or one finite number"):
            adapt(module, mean=truth, std=0.5)


class Small(nn.Module):
    """A third party's classifier: two convolutions with a batch norm, pooling and a linear layer."""

    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 6, 3))
        self.head = nn.Linear(6, 10)
        generator = torch.Generator().manual_seed(7)
        with torch.no_grad():
            for weight in self.parameters():
                weight.copy_(0.4 * torch.randn(weight.shape, generator=generator))

    def forward(self, images):
        return self.head(self.body(images).mean((2, 3)))


class OnlyBuffers(nn.Module):
    """A model whose tensors are buffers."""

    def __init__(self, device):
        super().__init__()
        self.register_buffer("weight", torch.ones(3, device=device))


class Gives(nn.Module):
    """A model that does with images what it was told."""

    def __init__(self, act):
        super().__init__()
        self.act = act

    def forward(self, images):
        return self.act(images)


@pytest.fixture
def small():
    return Small().eval()


def test_without_statistics_the_module_sees_the_images_themselves(small):
    assert torch.equal(adapt(small)(IMAGES), small(IMAGES))


@pytest.mark.parametrize(
    ("mean", "std", "numbers"),
    [
        ("cifar10", "cifar10", NORMALISATIONS["cifar10"]),
        ("none", "none", ((0.0,), (1.0,))),
        ("0.1,0.2,0.3", "1/4, 0.5,2", ((0.1, 0.2, 0.3), (0.25, 0.5, 2.0))),
        ([0.1, 0.2, 0.3], (0.5,), ((0.1, 0.2, 0.3), (0.5,))),
        ("0.5", "imagenet", ((0.5,), NORMALISATIONS["imagenet"][1])),
    ],
)
def test_images_are_normalised(small, mean, std, numbers):
    centre, spread = (torch.tensor(n, dtype=torch.float64).view(1, -1, 1, 1) for n in numbers)
    wanted = copy.deepcopy(small).double()((IMAGES.double() - centre) / spread)
    torch.testing.assert_close(adapt(small, mean, std)(IMAGES).double(), wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("mean", "std", "pieces"),
    [
        ("cifar10", None, ["together"]),
        (None, (0.5,), ["together"]),
        ("cifra10", "cifar10", ["mean 'cifra10'", "did you mean 'cifar10'?"]),
        ("0.5;0.5", "0.5", ["0.5;0.5", "not a number"]),
        ("0.5", "0,1,1", ["std", "above 0"]),
        ([0.5, float("nan")], [1.0], ["mean", "finite"]),
        ([], [1.0], ["mean"]),
        ([0.5, 0.5], [1.0, 1.0, 1.0], ["2", "3"]),
        (3.0, [1.0], ["mean 3 is in the 0–255 scale"]),
    ],
)
def test_statistics_that_make_no_sense(small, mean, std, pieces):
    with pytest.raises(SpecError) as caught:
        adapt(small, mean, std)
    assert all(piece in str(caught.value) for piece in pieces), caught.value


def test_statistics_of_other_channels_are_refused_and_not_broadcast(small):
    with pytest.raises(ImagesError, match=r"\(B, 3, H, W\)"):
        adapt(small, "cifar10", "cifar10")(IMAGES[:, :1])


@pytest.mark.parametrize("value", [3, [1, 2], torch.ones(3)])
def test_only_what_classifies_is_adapted(value):
    with pytest.raises(SpecError, match=r"the model is a \w+, not an nn.Module, a function or an estimator"):
        adapt(value)


@pytest.mark.parametrize("make", [lambda: nn.Conv2d(3, 4, 3, device="meta"), lambda: OnlyBuffers("meta")])
def test_what_is_said_of_a_classifier_lies_beside_its_tensors(make):
    """Meta stands for any other device."""
    adaptation = Adaptation(mean="cifar10", std="cifar10", label_sets=[[0], [1]])
    classifier = ForeignClassifier(make(), adaptation)
    classifier.set_label_sets([[0], [1, 2]])
    assert {buffer.device.type for buffer in classifier.buffers()} == {"meta"}
    assert {buffer.device.type for buffer in ForeignClassifier(nn.Flatten(), adaptation).buffers()} == {"cpu"}


def test_a_class_is_no_model_yet():
    with pytest.raises(SpecError, match=r"the model is the class Linear; give an instance of it, Linear\(...\)"):
        adapt(nn.Linear)


def test_features_are_what_the_named_submodule_gives(small):
    model = adapt(small, "cifar10", "cifar10", features="body.3")
    normal = small.body(model.inputs(IMAGES))
    torch.testing.assert_close(model.features(IMAGES), normal.mean((2, 3)))
    logits = adapt(small, features="head").features(IMAGES)
    assert torch.equal(logits, small(IMAGES))
    assert not small.head._forward_hooks
    assert not small.body[3]._forward_hooks


def test_features_pass_their_gradient(small):
    images = IMAGES.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(adapt(small, features="body").features(images).sum(), images)
    assert gradient.abs().sum() > 0


def test_without_features_the_refusal_says_what_to_do(small):
    with pytest.raises(UnfoolError, match=r"defenses and strength tests that need a representation.*--features"):
        adapt(small).features(IMAGES)


def test_features_that_are_none(small):
    with pytest.raises(SpecError, match=r"features path 'boody'; did you mean 'body'"):
        adapt(small, features="boody")
    with pytest.raises(SpecError, match="stage"):
        adapt(small, features="body").features(IMAGES, "stem")
    twice = nn.Sequential(small.body[:3], small.body[2], nn.Flatten(), nn.LazyLinear(3))
    twice(IMAGES)
    with pytest.raises(SpecError, match="2 outputs"):
        adapt(twice, features="0.2").features(IMAGES)
    flat = Gives(lambda images: images.flatten())
    back = Gives(lambda flattened: flattened.view(len(IMAGES), -1))
    with pytest.raises(SpecError, match=r"\(960,\)"):
        adapt(nn.Sequential(flat, back), features="0").features(IMAGES)
    broken = nn.Sequential(nn.Identity(), Gives(lambda images: 1 / 0))
    with pytest.raises(SpecError, match="ZeroDivisionError"):
        adapt(broken, features="0").features(IMAGES)
    assert not broken[0]._forward_hooks


def test_the_identity_covers_weights_and_normalisation(small):
    first = identity(adapt(small, "cifar10", "cifar10"))
    assert identity(adapt(copy.deepcopy(small), "cifar10", "cifar10")) == first
    assert identity(adapt(small, "cifar100", "cifar100")) != first
    assert identity(adapt(small)) != first
    with torch.no_grad():
        small.head.bias[0] += 1e-3
    assert identity(adapt(small, "cifar10", "cifar10")) != first


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_fast_twin_can_be_made(small, dtype):
    model = adapt(small, "cifar10", "cifar10", features="body")
    model.features(IMAGES)
    twin = fast_copy(model, dtype=dtype)
    wanted = model(IMAGES).detach()
    torch.testing.assert_close(
        twin(IMAGES), wanted, rtol=0, atol=1e-4 if dtype == "fp32" else 0.05 * float(wanted.abs().max())
    )


def test_the_mode_is_the_modules_own(small):
    assert not adapt(small).training
    small.train()
    model = adapt(small)
    assert model.training
    assert not model.eval().module.training


@pytest.mark.parametrize(
    ("act", "error", "pieces"),
    [
        (lambda images: images, ImagesError, ["(5, 3, 8, 8)", "5 images"]),
        (lambda images: images.flatten(1)[:3], ImagesError, ["(3, 192)"]),
        (lambda images: images.flatten(1)[:, :1], ImagesError, ["(5, 1)"]),
        (lambda images: images.flatten(1).argmax(1), ImagesError, ["torch.int64"]),
        (lambda images: (images.flatten(1),), ImagesError, ["tuple"]),
        (lambda images: images.flatten(1) * torch.nan, NonFiniteError, ["NaN"]),
        (lambda images: images.sub_(0.5).flatten(1), ImagesError, ["overwrites"]),
        (lambda images: images.view(7, 7), SpecError, ["Gives", "test_foreign.py:", "RuntimeError"]),
    ],
)
def test_outputs_that_are_no_logits(act, error, pieces):
    with pytest.raises(error) as caught:
        check_classifier(Gives(act).eval(), IMAGES.clone())
    assert all(piece in str(caught.value) for piece in pieces), caught.value
    assert "\n" not in str(caught.value)


def test_an_honest_classifier_passes_without_a_word_and_untouched(small):
    state = torch.random.get_rng_state()
    check_classifier(adapt(small), IMAGES)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(parameter.requires_grad for parameter in small.parameters())


@pytest.mark.parametrize(
    ("model", "piece"),
    [
        (Small(), "Small is in train mode"),
        (Gives(lambda images: images.flatten(1) + torch.rand(192)).eval(), "other outputs each time"),
        (Gives(lambda images: images.flatten(1).softmax(1)).eval(), "gives probabilities"),
    ],
)
def test_what_makes_a_result_doubtful_is_told(model, piece):
    modes = [part.training for part in model.modules()]
    with pytest.warns(UnfoolWarning, match=piece):
        check_classifier(adapt(model), IMAGES)
    assert [part.training for part in model.modules()] == modes


@pytest.mark.parametrize("multi_label", [False, True])
def test_a_sigmoid_where_a_logit_decides_is_told(multi_label):
    def told(act):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_classifier(adapt(Gives(act).eval()), IMAGES, multi_label=multi_label)
        return any("leave out its sigmoid" in str(warning.message) for warning in caught)

    assert told(lambda images: images.mean((1, 2, 3)).sigmoid())
    assert not told(lambda images: images.mean((1, 2, 3)) - 5.0)
    assert told(lambda images: images.flatten(1).sigmoid()) == multi_label
    assert not told(lambda images: images.flatten(1) - 5.0)
