"""Search copies: the same logits, nothing shared, nothing folded that is not certainly adjacent."""

import copy
import pickle

import pytest
import torch
from torch import nn

from unfool.core.errors import SpecError, UnfoolWarning
from unfool.models.fast import fast_copy
from unfool.models.foreign import adapt
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec

SPECS = [
    TrunkSpec(name="resnet18", width=0.125),
    TrunkSpec(name="resnet18", stem="imagenet", width=0.125),
    TrunkSpec(name="convnet", widths=(4, 6, 8)),
    TrunkSpec(name="convnet", stem="strided", widths=(4, 6, 8)),
    TrunkSpec(name="wide-resnet", depth=10, width=0.5),
    TrunkSpec(name="preact-resnet18", width=0.125),
]
LEFT = {"wide-resnet": 3 + 1, "preact-resnet18": 8 + 1}
"""Batch norms that follow a sum: the first of each pre-activation block, and the last of all."""
HEADS = {"labels": {"kind": "linear", "outputs": 5}}


def make_images(count=8):
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def unsettle(module):
    """Random statistics, scales and biases in every batch norm, as after training."""
    generator = torch.Generator().manual_seed(2)
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.copy_(torch.randn(part.num_features, generator=generator) * 0.3)
            part.running_var.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
            if part.affine:
                part.weight.data.copy_(torch.rand(part.num_features, generator=generator) + 0.5)
                part.bias.data.copy_(torch.randn(part.num_features, generator=generator) * 0.3)
    return module


def make_network(spec):
    return unsettle(Network.build(spec, HEADS, classifier="labels")).eval()


def largest(left, right):
    return float((left - right).detach().abs().max())


def count_norms(module):
    return sum(isinstance(part, nn.BatchNorm2d) for part in module.modules())


@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("spec", SPECS)
def test_folded_fp32_copies_give_the_same_logits(spec, channels_last):
    network = make_network(spec)
    twin = fast_copy(network, channels_last=channels_last)
    images = make_images()
    left = LEFT.get(spec.name, 0)
    assert count_norms(network) > 2 * left - 2
    assert count_norms(twin) == left
    assert largest(twin(images), network(images)) <= 1e-4
    assert torch.equal(twin(images).argmax(1), network(images).argmax(1))
    for stage in network.trunk.stages:
        torch.testing.assert_close(twin.features(images, stage), network.features(images, stage), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("spec", SPECS)
def test_bf16_copies_are_close_and_speak_fp32(spec):
    network = make_network(spec)
    twin = fast_copy(network, dtype="bf16")
    images = make_images().requires_grad_(True)
    logits = twin(images)
    expected = network(images)
    first, *others = [part for part in twin.trunk.modules() if isinstance(part, nn.Conv2d)]
    assert first.weight.dtype == torch.float32
    assert {part.weight.dtype for part in others} == {torch.bfloat16}
    assert logits.dtype == twin.features(images).dtype == torch.float32
    spread = largest(expected, expected.mean(1, keepdim=True))
    assert largest(logits, expected) <= 0.05 * spread
    gradients = [torch.autograd.grad(out.logsumexp(1).sum(), images)[0] for out in (logits, expected)]
    assert gradients[0].dtype == torch.float32
    assert float(torch.nn.functional.cosine_similarity(*(g.flatten() for g in gradients), dim=0)) > 0.9


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_the_original_is_neither_changed_nor_shared(dtype):
    network = make_network(SPECS[2]).train()
    network(make_images()).sum().backward()
    before = copy.deepcopy(network.state_dict())
    gradients = {name: parameter.grad.clone() for name, parameter in network.named_parameters()}
    twin = fast_copy(network, dtype=dtype)
    assert not any(part.training for part in twin.modules())
    assert not any(parameter.requires_grad or parameter.grad is not None for parameter in twin.parameters())
    own = {tensor.untyped_storage().data_ptr() for tensor in network.state_dict().values()}
    assert not own & {tensor.untyped_storage().data_ptr() for tensor in twin.state_dict().values()}
    for tensor in twin.state_dict().values():
        tensor.zero_()
    assert network.training
    assert all(parameter.requires_grad for parameter in network.parameters())
    after = network.state_dict()
    assert all(torch.equal(before[name], after[name]) and before[name].dtype == after[name].dtype for name in before)
    assert all(torch.equal(gradients[name], parameter.grad) for name, parameter in network.named_parameters())
    assert not any(part._forward_hooks or part._forward_pre_hooks for part in network.modules())


def test_bf16_copies_survive_pickling():
    twin = fast_copy(make_network(SPECS[2]), dtype="bf16")
    assert torch.equal(pickle.loads(pickle.dumps(twin))(make_images()), twin(make_images()))


class Swapped(nn.Sequential):
    """Runs its children in reverse: its neighbours are not what they seem."""

    def forward(self, images):
        for part in reversed(self):
            images = part(images)
        return images


def shared_norm():
    norm = nn.BatchNorm2d(3)
    return nn.Sequential(nn.Conv2d(3, 3, 3), norm, nn.ReLU(), nn.Conv2d(3, 3, 3), norm)


def hooked():
    module = nn.Sequential(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3))
    module[0].register_forward_hook(lambda _, __, output: output * 2)
    return module


def pooled(scale):
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(3, stride=2, padding=1), nn.BatchNorm2d(4))
    module[2].weight.data[1] = scale
    return module


@pytest.mark.parametrize("scale", [-0.5, 0.0, 0.5])
def test_folding_across_a_max_pool_needs_increasing_maps(scale):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = pooled(scale).eval()
    twin = fast_copy(module)
    assert count_norms(twin) == (0 if scale > 0 else 1)
    torch.testing.assert_close(twin(make_images()), module(make_images()), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("make", "left"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()), 0),
        (lambda: nn.Sequential(nn.Conv2d(3, 6, 3, groups=3, padding=1), nn.BatchNorm2d(6, affine=False)), 0),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4)), 1),
        (lambda: nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3)), 1),
        (lambda: nn.Sequential(nn.ConvTranspose2d(3, 4, 3), nn.BatchNorm2d(4)), 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4, track_running_stats=False)), 1),
        (lambda: Swapped(nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)), 1),
        (lambda: nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4)), 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool2d(2), nn.BatchNorm2d(4)), 1),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.MaxPool2d(2)), 0),
        (shared_norm, 1),
        (hooked, 1),
    ],
)
def test_foreign_modules_fold_only_where_that_is_certain(make, left):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = make()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d) and part.running_mean is not None:
            unsettle(part)
    twin = fast_copy(module)
    assert count_norms(twin) == left
    torch.testing.assert_close(twin(make_images()), module.eval()(make_images()), atol=1e-4, rtol=1e-4)


def test_foreign_bf16_copies_keep_the_digits_of_batch_norms_and_speak_fp32():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = nn.Conv2d(3, 4, 3), nn.ReLU(), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(3600, 5)
    module = unsettle(nn.Sequential(*layers))
    twin = fast_copy(module, dtype="bf16")
    logits, expected = twin(make_images()), module.eval()(make_images())
    assert twin[2].running_mean.dtype == torch.float32
    assert twin[0].weight.dtype == torch.bfloat16
    assert logits.dtype == torch.float32
    assert largest(logits, expected) < 0.05


class Normalised(nn.Module):
    """A user's own network, which normalises its images by buffers, or adds one after its first layer."""

    def __init__(self, shifted=False):
        super().__init__()
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("shift", torch.full((6, 1, 1), 0.1))
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.first = nn.Conv2d(3, 6, 3)
            self.rest = nn.Sequential(nn.ReLU(), nn.Conv2d(6, 4, 3, stride=2), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        self.shifted = shifted

    def forward(self, images):
        if self.shifted:
            return self.rest(self.first(images) + self.shift)
        return self.rest(self.first((images - self.mean) / 0.22))


def first_response(module, images, change):
    """How the output of the first convolution changes with the images."""
    outputs = []
    first = next(part for part in module.modules() if isinstance(part, nn.Conv2d))
    hook = first.register_forward_hook(lambda _, __, output: outputs.append(output.float().flatten()))
    with torch.no_grad():
        module(images), module(images + change)
    hook.remove()
    return outputs[1] - outputs[0]


@pytest.mark.parametrize("kind", ["own", "foreign", "foreign, normalised"])
def test_bf16_copies_see_perturbations_smaller_than_bf16_steps_between_pixel_values(kind):
    module = make_network(SPECS[2]) if kind == "own" else Normalised().eval()
    module = adapt(module, mean="imagenet", std="imagenet") if "," in kind else module
    images = 0.5 + make_images() * 0.49
    change = 0.5 / 255 * (torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(3)) - 0.5).sign()
    exact, twin = (fast_copy(module, dtype=dtype, images=images[:4]) for dtype in ("fp32", "bf16"))
    expected, seen = (first_response(model, images, change) for model in (exact, twin))
    blind = first_response(exact, images.bfloat16().float(), (images + change).bfloat16() - images.bfloat16())
    similarity = torch.nn.functional.cosine_similarity
    assert similarity(blind, expected, dim=0) < 0.8
    assert similarity(seen, expected, dim=0) > 0.9


def test_what_does_not_run_in_bf16_after_an_fp32_layer_gets_its_images_in_bf16_or_stays_in_fp32():
    class OwnWeights(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :4] @ torch.eye(4)

    images, shifted = make_images(), Normalised(shifted=True).eval()
    twin = fast_copy(shifted, dtype="bf16", images=images[:4])
    assert twin.first.weight.dtype == torch.bfloat16
    assert largest(twin(images), shifted(images)) < 0.05
    with pytest.warns(UnfoolWarning, match="does not run in bf16"):
        twin = fast_copy(OwnWeights(), dtype="bf16", images=images[:4])
    assert torch.equal(twin(images), OwnWeights()(images))


def test_a_network_inside_a_foreign_module_keeps_its_heads_in_fp32():
    network = make_network(SPECS[2])
    twin = fast_copy(nn.Sequential(nn.Identity(), network), dtype="bf16")
    assert twin[1].mean.dtype == twin[1].heads["labels"][0].weight.dtype == torch.float32
    assert torch.equal(twin(make_images()), fast_copy(network, dtype="bf16")(make_images()))


def test_options_do_what_they_say():
    network = make_network(SPECS[0])
    assert count_norms(fast_copy(network, fold=False)) == count_norms(network)
    weight = fast_copy(network).trunk.parts["layer1"][0].residual[0].weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    assert fast_copy(network, channels_last=False).trunk.parts["layer1"][0].residual[0].weight.is_contiguous()
    with pytest.raises(SpecError, match="did you mean 'bf16'"):
        fast_copy(network, dtype="fb16")


def test_feature_maps_that_a_pass_left_on_the_module_do_not_stop_the_copy():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))
            self.maps = []

        def forward(self, images):
            self.last = self.body(images)
            self.maps.append({"map": self.last})
            return self.last

    model = Keeps().eval()
    images = torch.rand(2, 3, 2, 2)
    model(images)
    assert torch.equal(fast_copy(model)(images), model(images))
    assert model.last.grad_fn is not None


class Block(nn.Module):
    """A residual block as users write them, with the first convolution's output used twice if ``leaky``."""

    def __init__(self, leaky=False, flat=False):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.conv2, self.bn2 = nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.head = nn.Linear(256 if flat else 4, 5)
        self.leaky, self.flat = leaky, flat
        generator = torch.Generator().manual_seed(0)
        for norm in (self.bn1, self.bn2):
            for tensor in (norm.running_mean, norm.running_var, norm.weight.data, norm.bias.data):
                tensor.copy_(torch.rand(4, generator=generator) + 0.5)

    def forward(self, images):
        first = self.conv1(images)
        inner = self.bn1(first).relu()
        inner = (inner + self.bn2(self.conv2(inner)) + (first if self.leaky else 0)).relu()
        return self.head(inner.view(len(images), -1) if self.flat else inner.mean((2, 3)))


def norms(module):
    return sum(type(part) is nn.BatchNorm2d for part in module.modules())


@pytest.mark.parametrize(("leaky", "flat", "left"), [(False, False, 0), (False, True, 0), (True, False, 2)])
def test_batch_norms_of_any_architecture_are_folded_where_the_logits_stay(leaky, flat, left):
    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = Block(leaky, flat).eval()
    before = model.state_dict()
    fast = fast_copy(model, images=images)
    others = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(fast(others), model(others), atol=1e-4, rtol=1e-4)
    assert (norms(fast), norms(model), norms(fast_copy(model))) == (left, 2, 2)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not any(part._forward_hooks for module in (fast, model) for part in module.modules())


def test_shared_convolutions_and_hooked_ones_are_not_folded():
    class Twice(Block):
        def forward(self, images):
            return self.head(self.bn2(self.conv2(self.bn1(self.conv2(self.bn1(self.conv1(images)))))).mean((2, 3)))

    images = torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    twice, hooked = Twice().eval(), Block().eval()
    assert norms(fast_copy(twice, images=images)) == 2
    hooked.conv1.register_forward_hook(lambda module, inputs, output: output * 2)
    fast = fast_copy(hooked, images=images)
    assert norms(fast) == 1
    torch.testing.assert_close(fast(images), hooked(images), atol=1e-4, rtol=1e-4)


class Strided(nn.Module):
    """Residual blocks whose shortcut takes every second pixel, as in ResNets for CIFAR-10."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.stem, self.down, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, 2, 1), nn.Linear(4, 5)

    def forward(self, images):
        inner = self.stem(images).relu()
        return self.head((self.down(inner) + inner[:, :, ::2, ::2]).relu().mean((2, 3)))


def test_gradients_of_fast_copies_stay_in_the_order_of_channels_last():
    model, images = Strided().eval(), torch.rand(4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    fast = fast_copy(model, images=images)
    assert [name for name, part in fast.named_modules() if part._forward_pre_hooks] == ["down"]
    assert not any(part._forward_pre_hooks for part in model.modules())
    orders = []

    def watch(_, __, output):
        output.register_hook(lambda gradient: orders.append(gradient.is_contiguous(memory_format=torch.channels_last)))

    gradients = []
    for module in (model, fast):
        module.stem.register_forward_hook(watch)
        leaf = images.clone().requires_grad_()
        gradients.append(torch.autograd.grad(module(leaf).logsumexp(1).sum(), leaf)[0])
    torch.testing.assert_close(*gradients, atol=1e-6, rtol=1e-4)
    assert orders[1]


class Odd(Block):
    """A block whose first batch norm is not what it seems, in one of several ways."""

    def __init__(self, way):
        super().__init__()
        self.way, self.rows = way, nn.BatchNorm1d(4)
        self.rows.running_mean.fill_(0.3)
        if way == "temperature":
            self.head.weight.data.mul_(1e-4), self.head.bias.data.zero_()
        if way == "never in eval mode":
            self.bn1.train = lambda mode=True: self.bn1
        if way == "random":
            self.drop = nn.Dropout(0.5)
            self.drop.train = lambda mode=True: self.drop

    def forward(self, images):
        first = self.conv1(images)
        if self.way == "in place":
            first += 1.0
        if self.way == "functional":
            norm = self.bn1
            inner = nn.functional.batch_norm(first, norm.running_mean, norm.running_var, norm.weight, norm.bias)
        else:
            inner = self.bn1(first)
        if self.way == "shared":
            inner = self.bn1(self.conv2(inner.relu()))
        if self.way == "temperature":
            inner = inner + 0.02 * first
        if self.way == "random":
            inner = self.drop(inner)
        return self.head(self.rows(self.bn2(self.conv2(inner.relu())).mean((2, 3))))


@pytest.mark.parametrize(
    "way", ["rows alone", "in place", "functional", "shared", "temperature", "never in eval mode", "random"]
)
def test_batch_norms_that_are_not_what_they_seem_keep_their_logits(way):
    images, others = torch.rand(2, 4, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    model = Odd(way).eval()
    state = torch.random.get_rng_state()
    fast = fast_copy(model, images=images)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert type(fast.rows) is nn.BatchNorm1d
    if way == "rows alone":
        assert norms(fast) == 0
    logits = []
    for module in (model, fast):
        with torch.random.fork_rng(), torch.no_grad():
            torch.manual_seed(1)
            logits.append(module(others))
    torch.testing.assert_close(logits[1], logits[0], atol=0, rtol=1e-3)


def test_outputs_that_are_no_tensor_are_left_to_the_attack_to_refuse():
    class Pair(Block):
        def forward(self, images):
            return super().forward(images), None

    fast = fast_copy(Pair().eval(), images=torch.rand(2, 3, 8, 8))
    assert isinstance(fast(torch.rand(2, 3, 8, 8)), tuple)
