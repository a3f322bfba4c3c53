"""Heads of tiles: every tile by itself first, then all of one image in the order of their places."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from unfool.core.errors import SpecError, WeightsError
from unfool.core.streams import Streams
from unfool.models.heads import build_head
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import load_network, save_network

SIZES = {"tiles": 4, "inputs": 5, "features": 3, "hidden": 7, "outputs": 6}
PLAIN = {"kind": "tiles", **SIZES}
OWN = {"kind": "tile-convolution", **SIZES, "channels": 8}
WHOLE = {"kind": "whole-tiles", "tiles": 4, "inputs": 5, "outputs": 6}
PUZZLE = {"permutations": "original", "gap": 0.3, "jitter": 0.0}


def draw(*shape):
    return Streams(1).normal(torch.arange(shape[0]), shape[1:]).double()


def joined(rows, weights, images):
    """What the linear layers give for features of tiles, tile-major, (T·B, D): a loop over images and places."""
    first, first_bias, second, second_bias, last, last_bias = weights
    found = []
    for image in range(images):
        places = []
        for place in range(len(rows) // images):
            places.append(np.maximum(first @ rows[place * images + image] + first_bias, 0))
        found.append(last @ np.maximum(second @ np.concatenate(places) + second_bias, 0) + last_bias)
    return np.stack(found)


def parts_of(head):
    return [parameter.detach().numpy() for name, parameter in head.named_parameters()]


def test_the_features_of_an_images_tiles_are_joined_in_the_order_of_their_places():
    head = build_head(PLAIN, Streams(2)).double().eval()
    features = draw(4 * 3, 5)
    with torch.no_grad():
        found = head(features).numpy()
    np.testing.assert_allclose(found, joined(features.numpy(), parts_of(head), 3), rtol=1e-12)


def test_an_own_convolution_stands_before_the_same_layers():
    head = build_head(OWN, Streams(2)).double().eval()
    features = draw(4 * 3, 5, 4, 4)
    kernel, scale, shift, *weights = parts_of(head)
    assert kernel.shape == (8, 5, 3, 3)
    assert (scale == 1).all()
    assert (shift == 0).all()
    convolved = F.conv2d(features, torch.from_numpy(kernel), padding=1) / (1 + 1e-5) ** 0.5
    pooled = convolved.clamp_min(0).reshape(12, 8, 2, 2, 2, 2).amax((3, 5)).flatten(1)
    with torch.no_grad():
        found = head(features).numpy()
    np.testing.assert_allclose(found, joined(pooled.numpy(), weights, 3), rtol=1e-9)
    # Fewer positions than the pooling gives are no fault: the trunk may leave a single one of a small tile.
    assert head(features[:, :, :1, :1]).shape == (3, 6)


def test_the_head_of_the_whole_image_is_a_linear_layer():
    head, linear = (build_head({**sizes, "inputs": 5, "outputs": 6}) for sizes in (WHOLE, {"kind": "linear"}))
    features = draw(3, 5).float()
    assert torch.equal(head(features), linear(features))


@pytest.mark.parametrize("puzzle", [{}, PUZZLE], ids=["before", "with its puzzle"])
@pytest.mark.parametrize("description", [PLAIN, OWN, WHOLE])
def test_a_weights_file_gives_the_head_back(description, puzzle, tmp_path):
    description = {**description, **puzzle}
    trunk = TrunkSpec(name="convnet", widths=(3, 4, 6))
    network = Network.build(trunk, {"puzzle": {**description, "inputs": 6}}).eval()
    save_network(network, tmp_path / "a.safetensors")
    again = load_network(tmp_path / "a.safetensors")
    assert again.heads["puzzle"].description == {**description, "inputs": 6}
    features = draw(8, 6, 2, 2).float() if "channels" in description else draw(8, 6).float()
    assert torch.equal(again.eval().heads["puzzle"](features), network.heads["puzzle"](features))


@pytest.mark.parametrize("description", [PLAIN, OWN])
@pytest.mark.parametrize("key", ["tiles", "features", "hidden"])
def test_sizes_that_are_missing_or_wrong_are_refused(description, key):
    with pytest.raises(SpecError, match=f"{key} of head '{description['kind']}' is 0; give a whole number"):
        build_head({**description, key: 0})
    with pytest.raises(SpecError, match=f"{key} of head '{description['kind']}' is None"):
        build_head({name: value for name, value in description.items() if name != key})


@pytest.mark.parametrize("description", [PLAIN, OWN, WHOLE])
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("permutations", "orignal", "unknown permutations of head 'KIND': 'orignal'; did you mean 'original'"),
        ("permutations", ["original"], "unknown permutations of head 'KIND': \"\\['original'\\]\""),
        ("gap", 1.0, "gap of head 'KIND' is 1.0; give a number from 0 to below 1"),
        ("gap", -0.1, "gap of head 'KIND' is -0.1; give a number"),
        ("gap", float("nan"), "gap of head 'KIND' is nan; give a number"),
        ("gap", "0.1", "gap of head 'KIND' is '0.1'; give a number"),
        ("jitter", True, "jitter of head 'KIND' is True; give a number"),
        ("jitter", None, "jitter of head 'KIND' is None; give a number"),
        ("jitter", 10**400, "jitter of head 'KIND' is 1000"),
        ("grid", 2, "unknown setting of head 'KIND': 'grid'"),
    ],
)
def test_a_puzzle_that_is_wrong_is_refused(description, key, value, message):
    with pytest.raises(SpecError, match=message.replace("KIND", description["kind"])):
        build_head({**description, **PUZZLE, key: value})


@pytest.mark.parametrize("description", [PLAIN, OWN, WHOLE])
def test_half_a_puzzle_is_refused(description):
    with pytest.raises(SpecError, match="gives gap, jitter of its puzzle and not permutations; give all of"):
        build_head({**description, "gap": 0.1, "jitter": 0.1})


def test_a_file_whose_puzzle_is_wrong_is_refused(tmp_path):
    network = Network.build(TrunkSpec(name="convnet", widths=(3, 4, 6)), {"puzzle": {**WHOLE, **PUZZLE, "inputs": 6}})
    network.heads["puzzle"].description["gap"] = 2
    save_network(network, tmp_path / "a.safetensors")
    with pytest.raises(WeightsError, match="cannot be built: gap of head 'whole-tiles' is 2; give a number"):
        load_network(tmp_path / "a.safetensors")


def test_a_linear_head_carries_no_puzzle():
    with pytest.raises(SpecError, match="unknown setting of head 'linear': 'permutations'"):
        build_head({"kind": "linear", "inputs": 5, "outputs": 6, **PUZZLE})
