"""Models from elsewhere: whatever they give, take and hold, each is evaluated or refused in one line."""

import json

import pytest
import torch
from outside_models import BARE, IMAGES, LABELS, Gives, Output, Wrapped, body, looked
from torch import nn
from torch.utils.checkpoint import checkpoint

from unfool import adapt, classify, craft, evaluate, make_attack
from unfool.core.errors import ImagesError, SpecError
from unfool.models.foreign import load_classifier
from unfool.models.foreign_network import check_trains
from unfool.models.look import check_classifier
from unfool.models.outside.outputs import set_logits


@pytest.mark.parametrize(
    ("act", "path", "words"),
    [
        (lambda y: Output(None, y), None, "output .logits"),
        (lambda y: {"loss": 0, "logits": y}, None, r"output ['logits']"),
        (lambda y: (y, y.mean()), None, "first of 2 outputs"),
        (lambda y: y[:, :, None, None], None, "map of one pixel"),
        (lambda y: {"heads": [{"a": y * 0}, {"main": y}]}, "heads.1.main", "output heads.1.main"),
        (lambda y: (y * 0, Output(None, y)), "1.logits", "output 1.logits"),
        (lambda y: (y * 0, y), "-1", "output -1"),
        (lambda y: {"loss": None, "out": y}, None, "output ['out']"),
        (lambda y: Output(None, y.detach().numpy().astype(">f4")), None, "output .logits"),
    ],
)
def test_logits_are_found_in_what_a_model_gives_and_told_once(act, path, words):
    model = adapt(Gives(act).eval(), output=path)
    assert torch.equal(model(IMAGES), body()(IMAGES))
    assert [line for line in looked(model) if words in line]


def test_a_path_that_is_not_there_names_what_is():
    with pytest.raises(SpecError, match=r"without 'logit' \(--output logit\); it has logits, aux"):
        adapt(Gives(lambda y: {"logits": y, "aux": y}), output="logit")(IMAGES)
    with pytest.raises(ImagesError, match=r"gave dict of scores, aux, not floating logits.*--output PATH"):
        adapt(Gives(lambda y: {"scores": y, "aux": y}))(IMAGES)


@pytest.mark.parametrize("act", [lambda z: z, lambda z: z[:, 0], lambda z: z[:, :, None, None]])
def test_one_logit_is_a_two_class_network(act):
    model = adapt(Gives(act, outputs=1).eval())
    logits, z = model(IMAGES), body(1)(IMAGES)[:, 0]
    assert logits.shape == (6, 2)
    torch.testing.assert_close(logits.softmax(1)[:, 1], z.sigmoid())
    labels = (z > 0).long()
    ours = nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(ours, nn.functional.binary_cross_entropy_with_logits(z, labels.float()))
    assert make_attack("pgd-10", "linf:0.5")(model, IMAGES, labels).fooled.any()


def test_label_sets_are_fooled_when_the_labels_predicted_are_others():
    sets = [[0], [1, 2], []]
    logits = torch.tensor([[1.0, -1, -2], [-1, 2, 3], [-1, -1, -1], [1, 1, -1], [2, -0.5, 0.1]])
    membership = torch.tensor([[1.0, 0, 0], [0, 1, 1], [0, 0, 0]])
    scores = set_logits(logits, membership)
    assert scores.argmax(1).tolist() == [0, 1, 2, 3, 3]
    predicted = [frozenset(row.nonzero()[:, 0].tolist()) for row in logits > 0]
    for row, found in zip(scores, predicted, strict=True):
        assert [bool(value > 0) for value in row[:3]] == [found == frozenset(labels) for labels in sets]
    model = adapt(Gives(lambda y: y - 0.2, outputs=3).eval(), label_sets=sets)
    assert model(IMAGES).shape == (6, 4)
    attacked = make_attack("pgd-20", "linf:0.5")(model, IMAGES, torch.zeros(6, dtype=torch.int64))
    inner = model.module(attacked.images) > 0
    assert attacked.fooled.tolist() == [row.tolist() != [True, False, False] for row in inner]


def test_layout_and_scale_are_what_the_model_takes():
    seen = []

    class Takes(nn.Module):
        def __init__(self):
            super().__init__()
            self.body = body()

        def forward(self, images):
            seen.append(images)
            return self.body(images.permute(0, 3, 1, 2) / 255)

    logits = adapt(Takes().eval(), layout="nhwc", scale=255)(IMAGES)
    torch.testing.assert_close(logits, body()(IMAGES))
    torch.testing.assert_close(seen[0], IMAGES.permute(0, 2, 3, 1) * 255)
    normal = adapt(body(), [127.5], [63.75], scale=255)(IMAGES)
    torch.testing.assert_close(normal, body()((IMAGES - 0.5) / 0.25))


@pytest.mark.parametrize(
    ("options", "pieces"),
    [
        ({"mean": [127.5], "std": [63.75]}, ["0–255", "divide mean and std by 255 (0.5)", "--scale 255"]),
        ({"mean": [0.5], "std": [0.25], "scale": 255}, ["scale 255", "127.5"]),
        ({"scale": -1.0}, ["scale -1.0", "255"]),
        ({"layout": "hwc"}, ["layout 'hwc'", "nhwc"]),
        ({"batch": 0}, ["batch 0"]),
        ({"label_sets": [["a"]]}, ["label_sets"]),
    ],
)
def test_settings_that_make_no_sense(options, pieces):
    with pytest.raises(SpecError) as caught:
        adapt(body(), **options)
    assert all(piece in str(caught.value) for piece in pieces), caught.value


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_precisions_are_cast_at_the_border(dtype):
    model = adapt(body().to(dtype), [0.5], [0.25])
    logits = model(IMAGES)
    assert logits.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    torch.testing.assert_close(logits.float(), body()((IMAGES - 0.5) / 0.25), atol=0.05, rtol=0.05)
    assert evaluate(model, (IMAGES, LABELS), "pgd-2", settings=BARE).rows[-1].protocol == "white-box"


class Fixed(nn.Module):
    def __init__(self, size, error="exported for batches of {}, got {}"):
        super().__init__()
        self.body, self.size, self.error = body(), size, error

    def forward(self, images):
        if len(images) != self.size:
            raise RuntimeError(self.error.format(self.size, len(images)))
        return self.body(images)


@pytest.mark.parametrize("size", [1, 2, 4, 6, 32])
def test_one_batch_size_is_found_and_padded_to(size):
    model = adapt(Fixed(size).eval())
    assert [line for line in looked(model) if f"batches of {size} images alone" in line]
    for count in (1, 5, 6):
        torch.testing.assert_close(model(IMAGES[:count]), body()(IMAGES[:count]))
    assert evaluate(model, (IMAGES, LABELS), "pgd-3", settings=BARE).rows[-1].protocol == "white-box"
    torch.testing.assert_close(adapt(Fixed(size), batch=size)(IMAGES), body()(IMAGES))


def test_an_odd_batch_size_is_read_from_the_models_own_error_or_given():
    assert [line for line in looked(adapt(Fixed(7).eval())) if "batches of 7 images alone" in line]
    silent = Fixed(7, "another batch size is needed").eval()
    with pytest.raises(
        SpecError, match=r"model Fixed failed at .*test_outside.py:\d+: RuntimeError: another batch size"
    ):
        check_classifier(adapt(silent), IMAGES)
    assert looked(adapt(silent), batches=[7])


def fails_late(inner, images):
    if len(images) == 2:
        raise KeyError("late")
    return inner(images)


class Backward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        return x

    @staticmethod
    def backward(ctx, gradient):
        raise ValueError("no way back")


def test_errors_after_the_look_are_the_models_own_line():
    model = adapt(Wrapped(fails_late).eval())
    assert looked(model) == []
    with pytest.raises(SpecError, match=r"model Wrapped failed at .*test_outside.py:\d+: KeyError: 'late'"):
        classify(model, (IMAGES[:2], LABELS[:2]))
    with pytest.raises(SpecError, match=r"on the way back, failed at .*test_outside.py:\d+: ValueError: no way back"):
        check_classifier(adapt(Wrapped(lambda inner, x: Backward.apply(inner(x))).eval()), IMAGES)
    reentrant = Wrapped(lambda inner, images: checkpoint(inner, images, use_reentrant=True)).eval()
    with pytest.raises(SpecError, match=r"reentrant.*use_reentrant=False"):
        check_classifier(adapt(reentrant), IMAGES)
    plain = Wrapped(lambda inner, images: checkpoint(inner, images, use_reentrant=False)).eval()
    assert looked(adapt(plain)) == []
    assert craft(adapt(plain), (IMAGES, LABELS), "pgd-2").images.shape == IMAGES.shape


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    "make",
    [
        torch.jit.script,
        lambda m: torch.jit.trace(m, IMAGES[:2]),
        lambda m: torch.export.export(m, (IMAGES[:4],), dynamic_shapes=({0: torch.export.Dim("B", max=512)},)),
        lambda m: torch.export.export(m, (IMAGES[:4],)),
        torch.compile,
        nn.DataParallel,
    ],
    ids=["script", "trace", "export", "export-fixed", "compile", "parallel"],
)
def test_scripts_exports_and_wrappers_are_evaluated(make):
    model = adapt(make(body()))
    told = looked(model)
    assert not told or (len(told) == 1 and "batches of 4" in told[0])
    torch.testing.assert_close(model(IMAGES), body()(IMAGES))
    rows = evaluate(model, (IMAGES, LABELS), ["pgd-3"], settings=BARE).rows
    plain = evaluate(body(), (IMAGES, LABELS), ["pgd-3"], settings=BARE).rows
    assert [row.protocol for row in rows] == ["clean", "white-box"]
    assert [row.accuracy for row in rows] == [row.accuracy for row in plain]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_program_files(tmp_path):
    torch.jit.script(body()).save(tmp_path / "a.pt")
    torch.export.save(torch.export.export(body(), (IMAGES,)), tmp_path / "b.pt2")
    for name in ("a.pt", "b.pt2"):
        torch.testing.assert_close(load_classifier(str(tmp_path / name))(IMAGES), body()(IMAGES))
    torch.save(body().state_dict(), tmp_path / "c.pt")
    with pytest.raises(SpecError, match=r"without the code.*--model FILE.py:NAME --weights"):
        load_classifier(str(tmp_path / "c.pt"))
    (tmp_path / "d.pt").write_bytes(b"nothing")
    with pytest.raises(SpecError, match="is no program"):
        load_classifier(str(tmp_path / "d.pt"))
    with pytest.raises(SpecError, match="no file"):
        load_classifier(str(tmp_path / "e.pt2"))


def test_lazy_layers_need_their_weights(tmp_path):
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(10)).eval()
    with pytest.raises(SpecError, match=r"LazyLinear '1' has no weights yet.*--weights"):
        adapt(lazy)
    lazy(IMAGES)
    assert adapt(lazy)(IMAGES).shape == (6, 10)


def in_place(inner, images):
    images -= 0.5
    return inner(images)


def test_a_model_that_works_in_place_gets_images_of_its_own():
    model, before = adapt(Wrapped(in_place).eval()), IMAGES.clone()
    assert looked(model) == []
    assert torch.equal(IMAGES, before)
    torch.testing.assert_close(model(IMAGES), body()(IMAGES - 0.5))
    assert evaluate(model, (IMAGES, LABELS), "pgd-2", settings=BARE).rows[-1].protocol == "white-box"


def test_weights_without_values_and_weights_that_are_no_tensors():
    with torch.device("meta"):
        empty = nn.Linear(2, 2)
    with pytest.raises(SpecError, match=r"weight has a shape and no values \(device meta\)"):
        adapt(empty)

    class Packed(nn.Linear):
        def get_extra_state(self):
            return ("packed",)

    with pytest.raises(SpecError, match="a tuple and no tensor, as quantised layers do"):
        check_trains(adapt(Packed(2, 2)))


def test_features_of_an_average_and_of_a_script_inside():
    average = torch.optim.swa_utils.AveragedModel(body())
    assert adapt(average, features="0").feature_path == "module.0"
    inside = nn.Sequential(torch.jit.script(body())).eval()
    with pytest.raises(SpecError, match="features '0' cannot be had: a TorchScript program"):
        adapt(inside, features="0").features(IMAGES)


@pytest.mark.parametrize(
    ("text", "piece"),
    [
        ("timm:resnet18", "timm"),
        ("torchvision:resnet18", "torchvision"),
        ("hf:./nowhere", "transformers|neither a folder"),
        ("hf:", "names nothing"),
    ],
)
def test_hubs_that_are_not_there_are_refused_in_one_line(text, piece):
    try:
        __import__(text.partition(":")[0].replace("hf", "transformers"))
    except Exception:
        with pytest.raises(SpecError, match=piece) as caught:
            adapt(text)
        assert "\n" not in str(caught.value)
        assert "pip install" in str(caught.value) or "names nothing" in str(caught.value)


@pytest.mark.parametrize("kind", ["resnet", "vit"])
def test_classifiers_of_transformers(tmp_path, kind):
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    if kind == "resnet":
        config = transformers.ResNetConfig(
            embedding_size=4, hidden_sizes=[4, 4], depths=[1, 1], layer_type="basic", num_labels=4
        )
    else:
        config = transformers.ViTConfig(
            hidden_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=8,
            image_size=16,
            patch_size=8,
            num_labels=4,
        )
    torch.manual_seed(0)
    model = transformers.AutoModelForImageClassification.from_config(config).eval()
    model.save_pretrained(tmp_path)
    processor = {
        "do_normalize": True,
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.2, 0.2],
        "size": {"height": 16, "width": 16},
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(processor))
    images = torch.rand(6, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    adapted = adapt(f"hf:{tmp_path}")
    assert (adapted.size, adapted.normalises) == (16, True)
    mean, std = (torch.tensor(processor[key]).view(1, 3, 1, 1) for key in ("image_mean", "image_std"))
    torch.testing.assert_close(adapted(images), model((images - mean) / std).logits)
    assert any("output .logits" in line for line in looked(adapted, images))
    evaluation = evaluate(adapted, (images, LABELS), ["pgd-2"], settings=BARE)
    assert [row.protocol for row in evaluation.rows] == ["clean", "white-box"]
    with pytest.raises(SpecError, match="neither a folder nor OWNER/NAME"):
        adapt("hf:./nowhere")
