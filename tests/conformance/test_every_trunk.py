"""What every registered trunk owes its caller; a new trunk is tested here as soon as it is registered."""

import json

import pytest
import torch

from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.models.network import Network
from unfool.models.trunks import TRUNKS, TrunkSpec, build_trunk, empty_trunk
from unfool.models.weights import load_network, save_network

NAMES = tuple(TRUNKS)
EACH = pytest.mark.parametrize("name", NAMES)
SMALL = {"convnet": {"widths": (3, 4, 6)}, "wide-resnet": {"depth": 10, "width": 0.25}}
"""Settings that make a trunk small; any other one that has a width is built at an eighth of it."""


def small(name, channels=3):
    own = TrunkSpec(name=name).settings
    narrow = {"width": own.width / 8} if hasattr(own, "width") else {}
    return TrunkSpec(name=name, channels=channels, **SMALL.get(name, narrow))


def make_images(trunk, count=3):
    side = max(trunk.smallest, 16)
    return Streams(0).uniform(torch.arange(count), (trunk.spec.channels, side, side))


@EACH
def test_its_spec_reads_back_from_a_mapping_and_from_json(name):
    for spec in (TrunkSpec(name=name), small(name)):
        assert TrunkSpec.from_dict(spec.to_dict()) == spec
        assert TrunkSpec.from_dict(json.loads(json.dumps(spec.to_dict()))) == spec
        assert empty_trunk(spec).spec == spec


@EACH
def test_a_setting_that_it_lacks_is_refused(name):
    with pytest.raises(SpecError, match="wdith"):
        TrunkSpec(name=name, wdith=2)


@EACH
@pytest.mark.parametrize("channels", [1, 3])
def test_every_stage_has_the_channels_that_it_declares(name, channels):
    trunk = build_trunk(small(name, channels)).eval()
    images = make_images(trunk)
    assert trunk.stages[-1] == "last"
    assert list(trunk.channels) == trunk.stages
    features = trunk.collect(images, set(trunk.stages))
    for stage in trunk.stages:
        assert features[stage].shape[:2] == (3, trunk.channels[stage])
        assert features[stage].ndim == (2 if stage == "last" else 4)
        assert torch.equal(trunk(images, stage), features[stage])
    with pytest.raises(SpecError, match="stage of trunk"):
        trunk(images, "no-such-stage")


@EACH
def test_images_below_its_least_side_are_refused_and_those_of_it_are_not(name):
    trunk = build_trunk(small(name)).eval()
    side = trunk.smallest
    assert torch.isfinite(trunk(torch.rand(2, 3, side, side))).all()
    if side > 1:
        with pytest.raises(ImagesError, match=f"{side} or more"):
            trunk(torch.rand(2, 3, side - 1, side))


@EACH
def test_its_weights_are_those_of_the_streams_alone(name):
    torch.manual_seed(0)
    state = torch.get_rng_state()
    first, again, other = (build_trunk(small(name), Streams(seed)).state_dict() for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert any(not torch.equal(first[key], other[key]) for key in first)


@EACH
def test_no_image_depends_on_its_batch_mates_in_eval_mode(name):
    trunk = build_trunk(small(name)).eval().double()
    images = make_images(trunk).double()
    torch.testing.assert_close(trunk(images)[1:2], trunk(images[1:2]))


@EACH
def test_a_network_of_it_is_saved_and_loaded(name, tmp_path):
    network = Network.build(small(name), {"labels": {"kind": "linear", "outputs": 3}}, classifier="labels").eval()
    save_network(network, tmp_path / "weights.safetensors")
    images = make_images(network.trunk)
    assert torch.equal(load_network(tmp_path / "weights.safetensors")(images), network(images))
