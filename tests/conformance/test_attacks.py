"""What every registered attack owes its caller; a new attack is tested here as soon as it is registered."""

import copy
import random

import numpy as np
import pytest
import torch

from unfool.attacks import ATTACKS, make_attack
from unfool.core.errors import ImagesError, NonFiniteError, SpecError
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec

NAMES = tuple(ATTACKS)
SHORT = {
    "apgd-ce": {"steps": 8},
    "apgd-dlr": {"steps": 8},
    "apgd-t": {"steps": 6, "targets": 2},
    "fab": {"steps": 6},
    "fab-t": {"steps": 5, "targets": 2},
    "square": {"steps": 40},
    "fmn": {"steps": 10},
    "fmn-t": {"steps": 40},
    "hop-skip-jump": {"steps": 250},
    "ddn": {"steps": 10},
    "sigma-zero": {"steps": 20},
    "autoattack": {"steps": 4, "queries": 12},
}
"""Fewer steps for the long ones; an attack that is not named here runs as it comes."""
THREATS = {"linf": "linf:8/255", "l2": "l2:0.5", "l1": "l1:4", "l0": "l0:12"}
EPS = {"linf": 0.2, "l2": 2.0, "l1": 20.0, "l0": 20.0}
CLASSES = 4
SHAPES = ((3, 12, 12), (1, 9, 14), (4, 10, 9))
DTYPES = (torch.float32, torch.float64, torch.bfloat16)
IN_EACH_NORM = [(name, norm) for name in NAMES for norm in ATTACKS[name].norms]


def make_short(name, threat, options=None):
    return make_attack(name, threat, {**SHORT.get(name, {}), **(options or {})})


def usual_threat(name):
    return THREATS[ATTACKS[name].norms[0]]


def make_network(channels=3, dtype=torch.float32):
    network = Network.build(
        TrunkSpec(name="convnet", channels=channels, widths=(3, 4, 6)),
        {"labels": {"kind": "linear", "outputs": CLASSES}},
        classifier="labels",
        normalisation="none",
    )
    return network.to(dtype).eval()


def make_images(count=4, shape=(3, 12, 12), seed=0, dtype=torch.float32):
    """Images of which some pixels lie on the edge of the box."""
    images = Streams(seed).named("images").uniform(torch.arange(count), shape, -0.2, 1.2).clamp(0.0, 1.0)
    return images.to(dtype), Streams(seed).named("labels").integers(torch.arange(count), CLASSES)


def assert_inside(found, images, threat):
    assert found.images.shape == images.shape
    assert found.images.dtype == images.dtype
    assert torch.isfinite(found.images).all()
    assert float(found.images.min()) >= 0.0
    assert float(found.images.max()) <= 1.0
    lengths = threat.norm(found.images.double() - images.double())
    assert float(lengths.max()) <= threat.eps + 1e-6
    assert torch.allclose(found.distances, lengths)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("name", "norm"), IN_EACH_NORM)
def test_images_stay_inside_ball_and_box(name, norm, shape, dtype):
    """Every shape meets every dtype, and either of them every budget: a Latin square."""
    draws = random.Random(f"{name} {norm} {shape} {dtype}")
    share = (0.01, 0.3, 1.0)[(SHAPES.index(shape) + DTYPES.index(dtype)) % 3]
    eps = max(1, round(EPS[norm] * share)) if norm == "l0" else EPS[norm] * share
    stays_inside(name, ThreatModel(norm, eps), make_network(shape[0], dtype), shape, dtype, draws)


def stays_inside(name, threat, network, shape, dtype, draws):
    seed, count = draws.randint(0, 99), draws.randint(1, 4)
    images, labels = make_images(count, shape, seed, dtype)
    kept = images.clone()
    for options in ({}, {"goal": "best"}) if name in ("fgsm", "pgd") else ({},):
        found = make_short(name, threat, options)(network, images, labels, streams=Streams(seed))
        assert torch.equal(images, kept)
        assert_inside(found, images, threat)
        assert found.fooled.shape == found.zero_gradient.shape == found.losses.shape == (count,)
        assert found.model_images >= count


@pytest.mark.parametrize(("name", "norm"), IN_EACH_NORM)
def test_an_attack_does_harm_and_tells_the_truth(name, norm):
    threat = THREATS[norm]
    images, labels = make_images(16)
    network = make_network()
    with torch.no_grad():
        # Several classes are predicted, or decisions alone would say nothing.
        network.heads["labels"][0].bias.sub_(network(images).mean(0))
        labels = network(images).argmax(1)  # every image is right before
    found = make_short(name, ThreatModel.parse(threat))(network, images, labels)
    with torch.no_grad():
        logits = network(found.images)
        before = torch.nn.functional.cross_entropy(network(images), labels)
    assert torch.equal(found.fooled, logits.argmax(1) != labels)
    assert float(torch.nn.functional.cross_entropy(logits, labels)) > float(before)
    assert float(found.distances.mean()) > 0
    assert int(found.fooled.sum()) == int((found.fooled_by_part >= 0).sum())


@pytest.mark.parametrize(("name", "norm"), IN_EACH_NORM)
def test_zero_budget_returns_the_images_bit_for_bit(name, norm):
    images, labels = make_images()
    found = make_short(name, ThreatModel(norm, 0.0))(make_network(), images, labels)
    assert torch.equal(found.images, images)
    assert found.images is not images
    assert torch.equal(found.distances, torch.zeros(4, dtype=torch.float64))


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_gives_the_same_bits_and_the_global_state_is_left_alone(name):
    images, labels = make_images()
    attack = make_short(name, usual_threat(name))
    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = attack(make_network(), images, labels, streams=Streams(3))
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    torch.manual_seed(2)
    second = attack(make_network(), images, labels, streams=Streams(3))
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.losses, second.losses)


@pytest.mark.parametrize("name", NAMES)
def test_splitting_and_permuting_a_batch_change_nothing(name):
    images, labels = make_images(6, dtype=torch.float64)
    ids = torch.tensor([5, 9, 2, 7, 0, 11])
    network = make_network(dtype=torch.float64)
    attack = make_short(name, ThreatModel(ATTACKS[name].norms[0], EPS[ATTACKS[name].norms[0]] / 2))
    whole = attack(network, images, labels, ids=ids)
    for rows in (torch.tensor([3, 0, 5, 1, 4, 2]), torch.tensor([4]), torch.tensor([1, 2])):
        part = attack(network, images[rows], labels[rows], ids=ids[rows])
        # Convolutions sum in another order for another batch size, hence the tolerance; a lost draw moves every pixel.
        assert torch.allclose(part.images, whole.images[rows], atol=1e-9)
        assert torch.allclose(part.losses, whole.losses[rows], atol=1e-5)
        assert torch.equal(part.fooled, whole.fooled[rows])
    turns = attack(network, images, labels, ids=ids, at_once=4)
    assert torch.allclose(turns.images, whole.images, atol=1e-9)
    for known in ("fooled", "zero_gradient", "fooled_by_part"):
        assert torch.equal(getattr(turns, known), getattr(whole, known))


class FailsMidway(torch.nn.Module):
    """Raises on its second pass, after it has disturbed what it can reach; hard to fool, so that there is a second."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.passes = 0

    def forward(self, images):
        self.passes += 1
        torch.rand(1)
        self.network.mean.add_(0.5)
        self.network.trunk.train()
        if self.passes == 2:
            raise ZeroDivisionError
        return self.network(images) + torch.tensor([10.0, 0.0, 0.0, 0.0])


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_a_model_is_given_back_as_it_was(name, fails):
    images, labels = make_images()[0], torch.zeros(4, dtype=torch.int64)
    network = make_network().train()
    # A batch norm that was frozen on purpose.
    next(part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)).eval()
    first = next(network.parameters())
    first.requires_grad_(False)
    network.heads["labels"][0].weight.grad = gradient = torch.ones(CLASSES, 6)
    before = copy.deepcopy(network.state_dict())
    modes = [part.training for part in network.modules()]
    flags = [parameter.requires_grad for parameter in network.parameters()]
    kept, state = images.clone(), torch.get_rng_state()
    attack = make_short(name, usual_threat(name))
    if fails:
        with pytest.raises(ZeroDivisionError):
            attack(FailsMidway(network), images, labels)
    else:
        attack(network, images, labels)
    assert [part.training for part in network.modules()] == modes
    assert [parameter.requires_grad for parameter in network.parameters()] == flags
    assert network.heads["labels"][0].weight.grad is gradient
    assert torch.equal(gradient, torch.ones(CLASSES, 6))
    assert sum(parameter.grad is not None for parameter in network.parameters()) == 1
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(images, kept)
    assert images.grad is None
    assert not images.requires_grad
    assert torch.equal(torch.get_rng_state(), state)


class Constant(torch.nn.Module):
    """Logits that do not depend on the image; ``connected`` ones have a gradient, of zeros."""

    def __init__(self, connected):
        super().__init__()
        self.connected = connected

    def forward(self, images):
        logits = torch.tensor([1.0, 0.0, 0.0, 0.0]).repeat(len(images), 1)
        return logits + 0 * images.flatten(1).sum(1, keepdim=True) if self.connected else logits


@pytest.mark.parametrize("connected", [False, True])
@pytest.mark.parametrize(("name", "norm"), IN_EACH_NORM)
def test_a_constant_network_is_flagged_and_gives_no_nan(name, norm, connected):
    threat = THREATS[norm]
    images, _ = make_images()
    attack = make_short(name, threat)
    found = attack(Constant(connected), images, torch.zeros(4, dtype=torch.int64))
    # A search that takes no gradient cannot miss it.
    assert bool(found.zero_gradient.all()) == attack.follows_gradients
    assert bool(found.zero_gradient.any()) == bool(found.zero_gradient.all())
    assert not found.fooled.any()
    assert torch.isfinite(found.losses).all()
    assert_inside(found, images, ThreatModel.parse(threat))
    trained = make_short(name, threat)(make_network(), images, torch.zeros(4, dtype=torch.int64))
    assert not trained.zero_gradient.any()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("name", NAMES)
def test_logits_that_are_not_finite_are_an_error(name, value):
    network = make_network()
    with torch.no_grad():
        network.heads["labels"][0].bias[1] = value
    images, labels = make_images()
    with pytest.raises(NonFiniteError, match="NaN or infinite"):
        make_short(name, usual_threat(name))(network, images, labels)


def bad_images():
    images, _ = make_images()
    broken = images.clone()
    broken[1, 0, 3, 3] = float("nan")
    return {
        "0 to 255": (images * 255, "divide by 255"),
        "NaN": (broken, "NaN"),
        "uint8": ((images * 255).to(torch.uint8), "uint8"),
        "NHWC": (images.permute(0, 2, 3, 1), "NHWC"),
        "empty": (images[:0], "empty"),
        "one image": (images[0], "shape"),
        "channels": (torch.cat([images, images[:, :1]], 1), "3"),
    }


@pytest.mark.parametrize("fault", bad_images())
@pytest.mark.parametrize("name", NAMES)
def test_bad_images_are_refused(name, fault):
    images, words = bad_images()[fault]
    labels = torch.zeros(len(images), dtype=torch.int64)
    with pytest.raises(ImagesError, match=words):
        make_short(name, usual_threat(name))(make_network(), images, labels)


@pytest.mark.parametrize("name", NAMES)
def test_an_unknown_setting_is_refused_with_the_nearest(name):
    known = next(iter(make_attack(name, usual_threat(name)).settings))
    with pytest.raises(SpecError, match=f"did you mean '{known}'"):
        make_short(name, usual_threat(name), {known + "x": 1})


@pytest.mark.parametrize("name", NAMES)
def test_a_norm_without_a_form_is_refused_and_those_who_have_one_are_named(name):
    for norm in set(THREATS) - set(ATTACKS[name].norms):
        with pytest.raises(SpecError, match=f"has no form in {norm}.*attacks in {norm} are .*pgd"):
            make_short(name, THREATS[norm])
