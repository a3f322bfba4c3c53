"""Network: normalisation inside, logits independent of batch-mates, described well enough to be rebuilt."""

import copy
import json
import pickle

import pytest
import torch
from torch import nn

from unfool.core.errors import ImagesError, SpecError
from unfool.core.streams import Streams
from unfool.models.heads import build_head
from unfool.models.network import NORMALISATIONS, Network
from unfool.models.trunks import TrunkSpec, build_trunk

CONVNET = TrunkSpec(name="convnet", widths=(4, 6, 8))
RESNET = TrunkSpec(name="resnet18", width=0.125)
HEADS = {"labels": {"kind": "linear", "outputs": 5}, "contrast": {"kind": "mlp", "hidden": 7, "outputs": 3}}
MLP = {"kind": "mlp", "inputs": 8, "hidden": 7, "outputs": 3}


def make_network(spec=CONVNET, **options):
    return Network.build(spec, HEADS, classifier="labels", **options)


def make_images(count=4, pixels=32, channels=3):
    return torch.rand(count, channels, pixels, pixels, generator=torch.Generator().manual_seed(1))


def settle(network):
    """Give the batch norms statistics that are not the identity, and leave eval mode on."""
    network.train()
    for seed in range(3):
        network(torch.rand(16, 3, 32, 32, generator=torch.Generator().manual_seed(seed)))
    return network.eval()


def test_logits_are_head_of_trunk_of_normalised_images():
    network = settle(make_network(normalisation="cifar100"))
    images = make_images()
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in NORMALISATIONS["cifar100"])
    features = network.trunk((images - mean) / std)
    torch.testing.assert_close(network.features(images), features)
    linear = network.heads["labels"][0]
    torch.testing.assert_close(network(images), features @ linear.weight.T + linear.bias)
    assert network.heads["contrast"](features).shape == (4, 3)
    assert network.features(images, "block1").shape == (4, 6, 15, 15)


@pytest.mark.parametrize("spec", [CONVNET, RESNET, TrunkSpec(name="resnet18", stem="imagenet", width=0.125)])
def test_predictions_do_not_depend_on_batch_mates(spec):
    network = settle(make_network(spec))
    images = make_images(13)
    with torch.no_grad():
        together = network(images)
        apart = torch.cat([network(images[index : index + 1]) for index in range(13)])
        shuffled = network(images.flip(0)).flip(0)
    for logits in (apart, shuffled):
        assert float((logits - together).abs().max()) <= 1e-5
        assert torch.equal(logits.argmax(1), together.argmax(1))


def test_architecture_is_json_and_rebuilds_the_network():
    network = make_network(normalisation="imagenet", streams=Streams(5))
    architecture = json.loads(json.dumps(network.architecture))
    assert architecture == network.architecture
    assert architecture["mean"] == list(NORMALISATIONS["imagenet"][0])
    assert architecture["heads"]["labels"] == {"kind": "linear", "inputs": 8, "outputs": 5}
    rebuilt = Network.from_architecture(architecture, Streams(5))
    assert rebuilt.architecture == architecture
    assert rebuilt.state_dict().keys() == network.state_dict().keys()
    state = network.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in rebuilt.state_dict().items())
    other = Network.from_architecture(architecture, Streams(6))
    assert not torch.equal(other.heads["labels"][0].weight, network.heads["labels"][0].weight)


def test_heads_added_later_are_described():
    network = Network(build_trunk(CONVNET), mean=[0.5], std=0.25 * torch.ones(3))
    network.heads["labels"] = build_head({"kind": "linear", "inputs": 8, "outputs": 2})
    with pytest.raises(SpecError, match="no classifier"):
        network(make_images())
    network.classifier = "labels"
    assert network.eval()(make_images()).shape == (4, 2)
    assert network.architecture["mean"] == [0.5, 0.5, 0.5]
    network.heads["foreign"] = nn.Linear(8, 2)
    with pytest.raises(SpecError, match="foreign"):
        _ = network.architecture


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.zeros(2, 1, 32, 32), "takes \\(B, 3, H, W\\)"),
        (torch.zeros(3, 32, 32), "takes \\(B, 3, H, W\\)"),
        (torch.zeros(2, 3, 32, 32, dtype=torch.uint8), "float"),
        (torch.zeros(2, 3, 8, 8), "9 or more"),
        (torch.zeros(2, 3, 32, 32).numpy(), "as_tensor"),
    ],
)
def test_images_that_do_not_fit_are_refused(images, message):
    with pytest.raises(ImagesError, match=message):
        make_network().eval()(images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mean": "cifar"}, "did you mean 'cifar10'"),
        ({"mean": [0.1, 0.2]}, "3 channels"),
        ({"std": [0.1, 0.2, 0.0]}, "above 0"),
        ({"std": [1e-60]}, "above 0"),
        ({"mean": [10**400]}, "3 channels"),
        ({"mean": None}, "3 channels"),
        ({"heads": []}, "mapping"),
        ({"heads": {"a.b": {"kind": "linear", "inputs": 8, "outputs": 2}}}, "cannot be named"),
        ({"heads": {"labels": {"kind": "liner"}}}, "did you mean 'linear'"),
        ({"heads": {"labels": {"kind": "linear", "inputs": 8, "outputs": 0}}}, "outputs of head 'linear' is 0"),
        ({"heads": {"labels": {"kind": "linear", "inputs": 8, "outputs": 2, "hiden": 3}}}, "hiden"),
        ({"heads": {"labels": {"kind": "linear", "inputs": 9, "outputs": 2}}}, "takes 9 inputs"),
        ({"heads": {"labels": 3}}, "mapping"),
        ({"heads": {"mlp": {**MLP, "norm": "bach"}}}, "unknown norm of head 'mlp': 'bach'; did you mean 'batch'"),
        ({"heads": {"mlp": {**MLP, "norm": None}}}, "unknown norm of head 'mlp': 'None'"),
        ({"heads": {"labels": {"kind": "linear", "inputs": 8, "outputs": 2, "norm": "batch"}}}, "setting of head"),
        ({"classifier": "lables"}, "did you mean 'labels'"),
        ({"classifier": {}}, "name of a head"),
        ({"trunk": 3}, "mapping"),
        ({"extra": 1}, "extra"),
    ],
)
def test_malformed_architectures_are_refused(change, message):
    with pytest.raises(SpecError, match=message):
        Network.empty({**make_network().architecture, **change})


def test_a_missing_architecture_key_is_named():
    architecture = make_network().architecture
    del architecture["std"]
    with pytest.raises(SpecError, match="lacks 'std'"):
        Network.from_architecture(architecture)


def test_one_channel_networks_and_float64_work():
    network = Network.build(TrunkSpec(name="convnet", widths=(4, 6, 8), channels=1), HEADS, normalisation="none")
    assert network.eval().features(make_images(channels=1)).shape == (4, 8)
    assert make_network().double().eval()(make_images().double()).dtype == torch.float64


def test_networks_survive_copying_and_pickling():
    network = settle(make_network())
    images = make_images()
    for twin in (copy.deepcopy(network), pickle.loads(pickle.dumps(network))):
        assert torch.equal(twin(images), network(images))
        assert twin.architecture == network.architecture


def test_two_heads_of_equal_shape_start_apart_and_mlp_is_linear_relu_linear():
    network = Network.build(CONVNET, {name: {"kind": "linear", "outputs": 5} for name in ("fine", "coarse")})
    assert not torch.equal(network.heads["fine"][0].weight, network.heads["coarse"][0].weight)
    head = build_head({"kind": "mlp", "inputs": 4, "hidden": 6, "outputs": 2})
    features = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    expected = (features @ head[0].weight.T + head[0].bias).clamp_min(0) @ head[2].weight.T + head[2].bias
    torch.testing.assert_close(head(features), expected)
    assert float(head[0].weight.detach().abs().max()) <= 0.5


def test_a_normed_mlp_has_a_batch_norm_before_its_activation_and_says_so():
    network = Network.build(CONVNET, {"contrast": {"kind": "mlp", "hidden": 6, "outputs": 2, "norm": "batch"}})
    head = network.heads["contrast"]
    description = {"kind": "mlp", "inputs": 8, "hidden": 6, "outputs": 2, "norm": "batch"}
    assert network.architecture["heads"]["contrast"] == description
    rebuilt = Network.from_architecture(network.architecture)
    own = network.state_dict()
    assert all(torch.equal(own[name], tensor) for name, tensor in rebuilt.state_dict().items())
    features = torch.randn(5, 8, generator=torch.Generator().manual_seed(0))
    state = {name: tensor.double() for name, tensor in head.state_dict().items()}
    hidden = features.double() @ state["0.weight"].T + state["0.bias"]
    centred = (hidden - hidden.mean(0)) / (hidden.var(0, unbiased=False) + 1e-5).sqrt()
    expected = centred.clamp_min(0) @ state["3.weight"].T + state["3.bias"]
    torch.testing.assert_close(head(features).double(), expected, atol=1e-4, rtol=1e-4)
    # One pass in train mode has moved the statistics a tenth of the way.
    moved = (hidden - 0.1 * hidden.mean(0)) / (0.9 + 0.1 * hidden.var(0) + 1e-5).sqrt()
    alone = torch.cat([head.eval()(features[row : row + 1]) for row in range(5)]).double()
    torch.testing.assert_close(alone, moved.clamp_min(0) @ state["3.weight"].T + state["3.bias"], atol=1e-4, rtol=1e-4)


def test_the_description_of_a_plain_mlp_is_what_it_was():
    # Weights files and configurations that were written before the norm was a setting stay valid and equal.
    assert build_head(MLP).description == MLP
    assert list(build_head(MLP).state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
