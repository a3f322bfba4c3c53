"""What every registered defense owes its caller; a new one is tested here as soon as it is registered."""

import copy
import random

import numpy as np
import pytest
import torch
from small_defenses import CLASSES, SMALL, make_images, make_network, make_table

from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.defenses import DEFENSES, Defense, make_defense
from unfool.evaluation.identity import identity
from unfool.evaluation.reliability.model_checks import train_mode

SHORT = {
    "reverse": {**SMALL, "steps": 3},
    "gate": {**SMALL, "steps": 3, "rate": 0.2},
    "hedge": {"steps": 3},
}
"""Settings that make a defense small; one that is not named here runs as it comes."""
NAMES = tuple(DEFENSES)
CASES = [(name, {}) for name in NAMES] + [
    ("reverse", {"keep": "best", "draws": 2}),
    ("reverse", {"norm": "l2", "eps": 1.0, "start": "image", "redraw": False}),
    ("reverse", {"norm": "l1", "eps": 8, "loss": "margin"}),
    ("reverse", {"loss": "cosine", "precision": "bf16"}),
    ("gate", {"action": "abstain"}),
    ("gate", {"draws": 2, "rate": 0.25}),
    ("hedge", {"norm": "l2", "eps": 1.0, "start": "image"}),
]
EACH = pytest.mark.parametrize(("name", "options"), CASES, ids=[f"{n} {o}" if o else n for n, o in CASES])
ROWS = ([3, 0, 5, 1, 4, 2], [4], [1, 2], [0, 1, 2, 3, 4, 5, 0, 5])


def make(name, options, dtype=torch.float32, data=True):
    network = make_network(dtype)
    given = {**SHORT.get(name, {}), **options}
    return make_defense(name, network, CLASSES, data=make_table() if data else None, settings=given)


@EACH
def test_there_are_finite_logits_for_each_image_and_the_same_every_time(name, options):
    defense = make(name, options)
    images = make_images()
    kept = images.clone()
    torch.manual_seed(1)
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    first = defense(images)
    assert isinstance(defense, Defense)
    assert first.shape in ((6, 4), (6, 5))
    assert first.dtype == torch.float32
    assert torch.isfinite(first).all()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])
    assert random.getstate() == states[2]
    torch.manual_seed(2)
    assert torch.equal(first, defense(images))
    assert torch.equal(first, make(name, options)(images))
    with torch.inference_mode():
        assert torch.equal(first, defense(make_images()))
    assert torch.equal(images, kept)


@EACH
def test_nothing_of_it_looks_as_if_it_were_left_in_train_mode(name, options):
    network = make_network().eval()
    given = {**SHORT.get(name, {}), **options}
    assert train_mode(make_defense(name, network, CLASSES, data=make_table(), settings=given)) is None


@EACH
def test_permuting_splitting_and_padding_change_no_prediction(name, options):
    """In float64: convolutions sum in another order for another batch size, and a sign may magnify that."""
    bf16 = options.get("precision") == "bf16"
    defense = make(name, options, torch.float32 if bf16 else torch.float64)
    assert not defense.batch_dependent
    images = make_images(dtype=torch.float32 if bf16 else torch.float64)
    whole = defense(images)
    clear = whole.topk(2).values.diff().abs().squeeze(1) > 0.05
    assert clear.any()
    for rows in ROWS:
        part = defense(images[rows])
        assert torch.equal(part.argmax(1)[clear[rows]], whole[rows].argmax(1)[clear[rows]])
        if not bf16:
            assert torch.allclose(part, whole[rows], atol=1e-9)


@EACH
def test_numbers_of_images_choose_the_draws(name, options):
    defense = make(name, options, torch.float64 if "precision" not in options else torch.float32)
    images = make_images(dtype=torch.float64 if "precision" not in options else torch.float32)
    zeros = torch.zeros(6, dtype=torch.int64)
    assert torch.equal(defense(images), defense(images, zeros))
    ids = torch.tensor([4, 1, 9, 0, 7, 3])
    if "precision" not in options:
        whole = defense(images, ids)
        assert torch.allclose(defense(images[[4, 2]], ids[[4, 2]]), whole[[4, 2]], atol=1e-9)
    with pytest.raises(ImagesError, match="one int64 number per image"):
        defense(images, ids[:3])


@EACH
def test_the_network_is_left_as_it_was(name, options):
    defense = make(name, options)
    defense.train()
    # A batch norm that was frozen on purpose.
    next(part for part in defense.modules() if isinstance(part, torch.nn.BatchNorm2d)).eval()
    network = defense.classifier
    first = next(network.parameters())
    first.requires_grad_(False)
    network.heads["labels"][0].weight.grad = gradient = torch.ones(4, 8)
    before = copy.deepcopy(defense.state_dict())
    modes = [part.training for part in defense.modules()]
    flags = [parameter.requires_grad for parameter in defense.parameters()]
    name_before = identity(defense)
    images = make_images()
    trained = defense(images)
    assert torch.equal(trained, copy.deepcopy(defense).eval()(images))
    with pytest.raises(ImagesError):
        defense(images[:, :2])
    assert [part.training for part in defense.modules()] == modes
    assert [parameter.requires_grad for parameter in defense.parameters()] == flags
    assert network.heads["labels"][0].weight.grad is gradient
    assert torch.equal(gradient, torch.ones(4, 8))
    assert sum(parameter.grad is not None for parameter in network.parameters()) == 1
    assert all(torch.equal(value, before[key]) for key, value in defense.state_dict().items())
    assert identity(defense) == name_before


@EACH
def test_what_is_calibrated_travels_in_the_state(name, options):
    defense, other = make(name, options), make(name, options)
    with torch.no_grad():
        for tensor in other.state_dict().values():
            if tensor.is_floating_point():
                tensor.mul_(0.9)
    assert identity(defense) != identity(other)
    images = make_images()
    assert not torch.equal(defense(images), other(images))
    other.load_state_dict(defense.state_dict())
    assert torch.equal(defense(images), other(images))
    assert identity(defense) == identity(other) == identity(copy.deepcopy(defense))


@EACH
def test_points_and_logits_are_the_two_halves(name, options):
    defense = make(name, options)
    images = make_images()
    points = defense.purified_images(images)
    assert len(points) % len(images) == 0
    assert float(points.min()) >= 0
    assert float(points.max()) <= 1
    assert torch.equal(defense.logits(points, images).detach(), defense(images))
    assert defense.images_per_prediction >= 1
    redrawn = defense.purified_images(images, None, Streams(5))
    assert torch.equal(redrawn, defense.purified_images(images, None, Streams(5)))


def bad_images():
    images = make_images()
    broken = images.clone()
    broken[1, 0, 3, 3] = float("nan")
    return {"0 to 255": images * 255, "NaN": broken, "uint8": (images * 255).to(torch.uint8), "empty": images[:0]}


@pytest.mark.parametrize("fault", bad_images())
@pytest.mark.parametrize("name", NAMES)
def test_bad_images_are_refused(name, fault):
    with pytest.raises(ImagesError):
        make(name, {})(bad_images()[fault])


@pytest.mark.parametrize("name", NAMES)
def test_settings_that_are_not_known_are_refused(name):
    with pytest.raises(SpecError, match="no-such-setting"):
        make(name, {"no-such-setting": 3})


@pytest.mark.parametrize("name", ["reverse", "gate"])
def test_settings_of_a_reversal_are_refused_with_the_nearest(name):
    with pytest.raises(SpecError, match="did you mean 'steps'"):
        make(name, {"stepss": 3})
    with pytest.raises(SpecError, match="did you mean 'temperature'"):
        make(name, {"temperatur": 3})
    with pytest.raises(SpecError, match="labels label"):
        make_defense(f"{name}:task=labels,head=labels", make_network(), CLASSES, data=make_table())
    with pytest.raises(SpecError, match="no head 'rotation'"):
        make_defense(f"{name}:head=rotation", make_network(), CLASSES, data=make_table())


def test_an_unknown_defense_is_refused_with_the_nearest():
    with pytest.raises(SpecError, match="did you mean 'reverse'"):
        make_defense("revers", make_network(), CLASSES)
