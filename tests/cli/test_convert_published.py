"""Published wide resnets: a file of their layout becomes a weights file that computes what the published code does."""

import json

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file

from unfool import load_network, open_table
from unfool.core.streams import Streams
from unfool.models.published import detect_layout

BLOCK = (("bn1", "i"), ("conv1", "oi3"), ("bn2", "o"), ("conv2", "oo3"), ("convShortcut", "oi1"))


def published_state(depth=10, width=2, classes=10, channels=3, unused=False):
    """Random weights under the names of the published code, written down from its listing."""
    generator = torch.Generator().manual_seed(depth)
    state = {}

    def convolution(name, outputs, inputs, side):
        spread = (2 / (side * side * inputs)) ** 0.5
        state[f"{name}.weight"] = torch.randn(outputs, inputs, side, side, generator=generator) * spread

    def norm(name, width):
        for key in ("weight", "running_var"):
            state[f"{name}.{key}"] = torch.rand(width, generator=generator) + 0.5
        for key in ("bias", "running_mean"):
            state[f"{name}.{key}"] = torch.randn(width, generator=generator) * 0.3
        state[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def stage(name, inputs, outputs):
        for index in range((depth - 4) // 6):
            sizes = {"i": inputs, "o": outputs}
            for part, shape in BLOCK:
                if part.startswith("bn"):
                    norm(f"{name}.layer.{index}.{part}", sizes[shape])
                elif part != "convShortcut" or inputs != outputs:
                    convolution(f"{name}.layer.{index}.{part}", sizes[shape[0]], sizes[shape[1]], int(shape[2]))
            inputs = outputs

    widths = [16, 16 * width, 32 * width, 64 * width]
    convolution("conv1", 16, channels, 3)
    for index in (1, 2, 3):
        stage(f"block{index}", *widths[index - 1 : index + 1])
        if unused and index == 1:
            stage("sub_block1", *widths[:2])
    norm("bn1", widths[3])
    state["fc.weight"] = torch.randn(classes, widths[3], generator=generator) * 0.1
    state["fc.bias"] = torch.randn(classes, generator=generator) * 0.1
    return state


def published_logits(state, images):
    """The published forward pass in plain functions of float64."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def activated(features, name):
        mean, var, weight, bias = (
            state[f"{name}.{key}"].view(1, -1, 1, 1) for key in ("running_mean", "running_var", "weight", "bias")
        )
        return ((features - mean) / (var + 1e-5).sqrt() * weight + bias).clamp_min(0)

    features = F.conv2d(images.double(), state["conv1.weight"], padding=1)
    for stage in (1, 2, 3):
        blocks = {name.split(".")[2] for name in state if name.startswith(f"block{stage}.")}
        for index in range(len(blocks)):
            name, stride = f"block{stage}.layer.{index}", 2 if stage > 1 and index == 0 else 1
            inner = activated(features, f"{name}.bn1")
            across = state.get(f"{name}.convShortcut.weight")
            kept = features if across is None else F.conv2d(inner, across, stride=stride)
            inner = F.conv2d(inner, state[f"{name}.conv1.weight"], stride=stride, padding=1)
            inner = F.conv2d(activated(inner, f"{name}.bn2"), state[f"{name}.conv2.weight"], padding=1)
            features = kept + inner
    pooled = activated(features, "bn1").mean((2, 3))
    return pooled @ state["fc.weight"].T + state["fc.bias"]


def behind(prefix, state):
    return {prefix + name: tensor for name, tensor in state.items()}


def uncounted(state):
    return {name: tensor for name, tensor in state.items() if not name.endswith("num_batches_tracked")}


def warned(found):
    assert found.code == 0, found.err
    lines = found.err.splitlines()
    assert all(line.startswith("unfool: warning: ") for line in lines)
    return lines


@pytest.mark.parametrize(
    ("settings", "wrap", "pieces"),
    [
        ({}, lambda state: {"state_dict": behind("module.", state), "epoch": 3}, ["'state_dict'", "prefix 'module.'"]),
        ({"depth": 16}, lambda state: {"model": behind("model.", state)}, ["'model'", "prefix 'model.'"]),
        ({"width": 1}, lambda state: behind("module.model.", state), ["prefix 'module.model.'"]),
        ({"unused": True, "classes": 3}, lambda state: state, ["13 tensors sub_block1.*"]),
        ({"channels": 1}, uncounted, []),
    ],
)
def test_the_converted_network_computes_what_the_published_code_does(cli, tmp_path, settings, wrap, pieces):
    state = published_state(**settings)
    torch.save(wrap(state), tmp_path / "theirs.pt")
    out = tmp_path / "ours.safetensors"
    found = cli("convert", tmp_path / "theirs.pt", out, "--json")
    told = warned(found)
    depth, width = settings.get("depth", 10), settings.get("width", 2)
    expected = ["weights_only=True", *pieces, f"carmon2019 (WRN-{depth}-{width}) with ReLU and without normalisation"]
    assert all(piece in line for piece, line in zip(expected, told, strict=True)), told
    network = load_network(out)
    trunk = {"name": "wide-resnet", "channels": settings.get("channels", 3), "depth": depth, "width": float(width)}
    assert network.trunk.spec.to_dict() == trunk
    assert json.loads(found.out)["trunk"] == trunk
    assert json.loads(found.out)["layout"] == "carmon2019"
    size = (4, trunk["channels"], 32, 32)
    images = torch.rand(size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        logits = network.double()(images.double())
    reference = published_logits(state, images)
    assert float(reference.std()) > 0.1
    torch.testing.assert_close(logits, reference, atol=1e-9, rtol=1e-9)


def test_safetensors_of_half_precision_are_read_too(cli, tmp_path):
    state = {name: t.half() if t.is_floating_point() else t for name, t in published_state().items()}
    save_file(state, tmp_path / "theirs.safetensors")
    out = tmp_path / "ours.safetensors"
    (line,) = warned(cli("convert", tmp_path / "theirs.safetensors", out, "--layout", "carmon2019"))
    assert "without normalisation" in line
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    network = load_network(out)
    assert {tensor.dtype for tensor in network.parameters()} == {torch.float32}
    with torch.no_grad():
        torch.testing.assert_close(network.double()(images.double()), published_logits(state, images))


def test_a_converted_network_is_evaluated_by_its_file_alone(cli, tmp_path):
    state, out = published_state(), tmp_path / "ours.safetensors"
    torch.save({"state_dict": behind("module.", state)}, tmp_path / "theirs.pt")
    found = cli("convert", tmp_path / "theirs.pt", out)
    warned(found)
    assert "read as layout carmon2019" in found.out
    found = cli("evaluate", out, "--data", "digits", "--images", "12", "--attack", "fgsm", "--no-reliability", "--json")
    assert found.code == 0, found.err
    clean, attacked = json.loads(found.out)["rows"]
    assert [clean["attack"], attacked["attack"]] == ["none", "fgsm"]
    table = open_table("digits", "test").sample(12, Streams(0).named("attacked images"))
    logits = published_logits(state, table.batch().images)
    assert clean["loss"] == pytest.approx(float(F.cross_entropy(logits, table.labels())), rel=1e-4)
    correct = float((logits.argmax(1) == table.labels()).double().mean())
    assert clean["accuracy"] == pytest.approx(correct, abs=1e-5)
    assert attacked["loss"] > clean["loss"]


def test_names_stay_as_they_are_where_that_is_asked_for_or_no_layout_is_known(cli, tmp_path):
    state, out = published_state(), tmp_path / "plain.safetensors"
    torch.save(state, tmp_path / "theirs.pt")
    warned(cli("convert", tmp_path / "theirs.pt", out, "--layout", "none"))
    assert load_file(out).keys() == state.keys()
    other = {name.replace("block", "layer"): tensor for name, tensor in state.items()}
    torch.save(other, tmp_path / "other.pt")
    warned(cli("convert", tmp_path / "other.pt", out))
    assert load_file(out).keys() == other.keys()
    assert detect_layout(behind("_orig_mod.module.", state)) == "carmon2019"
    assert detect_layout(behind("encoder.", state)) is None


def drop(*names):
    return lambda state: [state.pop(name) for name in names]


@pytest.mark.parametrize(
    ("change", "pieces"),
    [
        (drop("fc.weight", "fc.bias"), ["(WRN-10-2)", "lacks 2: fc.weight, fc.bias", "--layout none"]),
        (drop("block2.layer.0.bn2.running_var"), ["lacks 1: block2.layer.0.bn2.running_var"]),
        (drop("block1.layer.0.convShortcut.weight"), ["lacks 1: block1.layer.0.convShortcut.weight"]),
        (lambda s: s.update(mu=torch.zeros(1, 3, 1, 1)), ["has 1 unexpected: mu"]),
        (lambda s: s.update({"block3.layer.1.bn1.weight": torch.ones(128)}), ["(WRN-16-2)", "lacks"]),
        (lambda s: s.update({"bn1.bias": torch.ones(64)}), ["'bn1.bias' is torch.float32 (64,)", "(128,)"]),
        (lambda s: s.update({"fc.weight": torch.ones(128)}), ["'fc.weight' is", "(128,)", "(128, 128)"]),
        (lambda s: s.update({"fc.weight": torch.ones(())}), ["'fc.weight' is", "()", "(10, 128)"]),
        (lambda s: s.update({"fc.weight": torch.ones(0, 128)}), ["can be built", "outputs"]),
        (lambda s: s.update({"conv1.weight": torch.ones(16, 3, 3, 3, dtype=torch.int64)}), ["torch.int64"]),
        (lambda s: s.update({"block1.layer.9999.bn1.bias": torch.ones(1)}), ["can be built", "depth=60004"]),
        (lambda s: s.update({"block1.layer.0.conv1.weight": torch.ones(9000, 1)}), ["can be built", "width=562.5"]),
        (lambda s: s.update({"fc.bias": torch.full((10,), float("nan"))}), ["'fc.bias' holds NaN"]),
    ],
)
def test_what_does_not_fit_the_layout_is_one_line(cli, tmp_path, change, pieces):
    state = published_state()
    change(state)
    torch.save(state, tmp_path / "theirs.pt")
    found = cli("convert", tmp_path / "theirs.pt", tmp_path / "ours.safetensors")
    complaint = [line for line in found.err.splitlines() if "warning" not in line]
    assert (found.code, found.out, len(complaint)) == (5, "", 1), found.err
    assert all(piece in complaint[0] for piece in ["theirs.pt", *pieces]), complaint
    assert len(complaint[0]) < 500
    assert [path.name for path in tmp_path.iterdir()] == ["theirs.pt"]


@pytest.mark.parametrize(
    ("code", "pieces", "more"),
    [
        (2, ["did you mean 'carmon2019'? allowed: carmon2019, none"], ["--layout", "carmon2018"]),
        (2, ["--model mine.py:build and --layout none"], ["--layout", "none", "--model", "mine.py:build"]),
        (5, ["layout carmon2019 (WRN-28-10)", "lacks", "unexpected: weight"], ["--layout", "carmon2019"]),
    ],
)
def test_layouts_that_are_not_there_or_not_theirs(cli, tmp_path, code, pieces, more):
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "a.pt")
    found = cli("convert", tmp_path / "a.pt", tmp_path / "b.safetensors", *more)
    assert found.code == code
    assert all(piece in found.err.splitlines()[-1] for piece in pieces), found.err
    assert not (tmp_path / "b.safetensors").exists()
