"""Images and labels in the forms that users have, and models that write into their input."""

from dataclasses import dataclass

import pytest
import torch
from masking_layers import FailsBackwards
from torch import nn

from unfool.attacks import CustomAttack, Part, Perturbed, make_attack
from unfool.attacks.attacked import checked
from unfool.core.errors import ImagesError, SpecError
from unfool.core.threat import ThreatModel
from unfool.evaluation import classify, craft, identity
from unfool.evaluation.evaluate import evaluate
from unfool.evaluation.settings import EvaluationSettings


def model():
    generator = torch.Generator().manual_seed(0)
    linear = nn.Linear(48, 3)
    with torch.no_grad():
        for parameter in linear.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 5)
    return nn.Sequential(nn.Flatten(), linear).eval()


IMAGES = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 2, 0])


@pytest.mark.parametrize(
    "labels",
    [
        *(LABELS, LABELS.numpy(), LABELS.tolist(), LABELS.int(), LABELS.to(torch.uint8), LABELS.to(torch.uint16)),
        *(LABELS.numpy().astype(kind) for kind in (">i8", ">i2", "u2", "u4", ">u4", "u8")),
    ],
)
def test_labels_of_any_integer_form_give_the_same_examples(labels):
    attack = make_attack("pgd-2", "linf:8/255")
    assert torch.equal(attack(model(), IMAGES, labels).images, attack(model(), IMAGES, LABELS).images)


def test_images_may_be_arrays():
    attack = make_attack("pgd-2", "linf:8/255")
    expected = attack(model(), IMAGES, LABELS).images
    assert torch.equal(attack(model(), IMAGES.numpy(), LABELS.numpy()).images, expected)
    mirrored = attack(model(), IMAGES.flip(3), LABELS).images
    assert torch.equal(attack(model(), IMAGES.numpy()[..., ::-1], LABELS).images, mirrored)
    assert torch.equal(attack(model(), IMAGES.numpy().astype(">f4"), LABELS).images, expected)
    with pytest.raises(ImagesError):
        attack(model(), IMAGES.numpy().astype(object), LABELS)
    with pytest.raises(ImagesError, match=r"^labels are an array of object, .*; give one integer class per image$"):
        attack(model(), IMAGES, LABELS.numpy().astype(object))
    with pytest.raises(ImagesError, match=r"uint8.*divide by 255"):
        attack(model(), (255 * IMAGES).to(torch.uint8).numpy(), LABELS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_images_of_another_precision_become_those_of_a_float_model(dtype):
    attacked = make_attack("pgd-2", "linf:8/255")(model(), IMAGES.to(dtype), LABELS)
    assert attacked.images.dtype == torch.float32
    assert (attacked.images - IMAGES.to(dtype).float()).abs().max() <= 8 / 255 + 1e-6


def test_rounding_beyond_the_box_is_no_error_and_does_not_stay():
    attacked = make_attack("pgd-2", "linf:8/255")(model(), IMAGES.clamp(min=0.9) * 0 + 1.0000002, LABELS)
    assert float(attacked.images.max()) <= 1.0


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@pytest.mark.parametrize("share", [0.5, 0.9999, 1.0001, 1.5, 2.5])
def test_an_attack_that_leaves_its_ball_is_refused_whatever_it_says(norm, share):
    threat = ThreatModel(norm, 0.25)
    direction = torch.ones(3, 4, 4, dtype=torch.float64)
    clean = torch.full((2, 3, 4, 4), 0.2, dtype=torch.float64)
    length = {"linf": 1.0, "l2": 48**0.5, "l1": 48.0}[norm]
    # The first image does not move.
    moved = torch.stack([clean[0], clean[1] + share * threat.eps * direction / length])
    no = torch.zeros(2, dtype=torch.bool)
    claimed = Perturbed(images=moved, losses=torch.zeros(2), fooled=no, zero_gradient=no, model_images=1)
    if share <= 1:
        attacked = checked("mine", threat, claimed, torch.full((2,), -1), clean)
        assert attacked.distances.tolist() == pytest.approx([0.0, share * 0.25], abs=1e-12)
    else:
        with pytest.raises(ImagesError, match="attack mine left"):
            checked("mine", threat, claimed, torch.full((2,), -1), clean)


@pytest.mark.parametrize(
    ("value", "inside"), [(1.0, True), (1.01, False), (0.0, True), (-0.01, False), (float("nan"), False)]
)
def test_an_attack_that_leaves_the_box_is_refused(value, inside):
    clean = torch.full((2, 3, 4, 4), 0.9 if value > 0.5 else 0.1)
    moved = clean.clone()
    moved[1, 2, 3, 3] = value
    no = torch.zeros(2, dtype=torch.bool)
    claimed = Perturbed(images=moved, losses=torch.zeros(2), fooled=no, zero_gradient=no, model_images=1)
    if inside:
        assert checked("mine", ThreatModel("linf", 0.25), claimed, torch.full((2,), -1), clean).distances[0] == 0
    else:
        with pytest.raises(ImagesError, match="attack mine left"):
            checked("mine", ThreatModel("linf", 0.25), claimed, torch.full((2,), -1), clean)


@dataclass(frozen=True)
class Boasts:
    """An engine that moves nothing and calls every image fooled."""

    threat: ThreatModel

    def run(self, problem):
        yes = torch.ones(len(problem.images), dtype=torch.bool)
        return Perturbed(images=problem.images, losses=0.0 * yes, fooled=yes, zero_gradient=~yes, model_images=0)


def test_an_evaluation_classifies_the_examples_whatever_the_attack_says():
    threat = ThreatModel("linf", 8 / 255)
    boasts = CustomAttack(threat, label="boasts", components=(Part(name="boasts", engine=Boasts(threat)),))
    labels = model()(IMAGES).argmax(1)
    assert boasts(model(), IMAGES, labels).fooled.all()
    evaluation = evaluate(model(), (IMAGES, labels), [boasts], settings=EvaluationSettings(reliability=False))
    assert [row.accuracy for row in evaluation.rows] == [1.0, 1.0]


class Overwrites(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = model()

    def forward(self, x):
        return self.inner(x.mul_(2).sub_(1))


def test_a_model_that_writes_into_its_input_never_changes_a_stored_set():
    examples = craft(model(), (IMAGES, LABELS), make_attack("pgd-2", "linf:8/255"))
    before = examples.images.clone()

    class Clones(Overwrites):
        def forward(self, x):
            return super().forward(x.clone())

    assert classify(Overwrites().eval(), examples).correct == classify(Clones().eval(), examples).correct
    assert torch.equal(examples.images, before)


@pytest.mark.filterwarnings("ignore:loss dlr-targeted needs 4 classes")
@pytest.mark.parametrize("text", ["square:steps=5", "pgd-2", "fgsm", "apgd-ce-2", "fab-2", "fmn-t-60", "autoattack"])
def test_a_model_that_writes_into_its_input_cannot_be_attacked_and_hears_why(text):
    images = IMAGES.clone()
    with pytest.raises(ImagesError, match=r"writes into its input.*x.clone\(\)") as caught:
        make_attack(text, "linf:8/255")(Overwrites().eval(), images, LABELS)
    assert "\n" not in str(caught.value)
    with pytest.raises(ImagesError, match="writes into its input"):
        craft(Overwrites().eval(), (images, LABELS), make_attack(text, "linf:8/255"))
    assert torch.equal(images, IMAGES)


class FailsOnTheWayBack(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = model()

    def forward(self, images):
        return self.inner(FailsBackwards.apply(images))


@pytest.mark.filterwarnings("ignore:loss dlr-targeted needs 4 classes")
@pytest.mark.parametrize("text", ["pgd-2", "apgd-t-2", "fab-2", "fab-t-2", "lean", "fmn-t-60", "autoattack"])
def test_an_error_on_the_way_back_is_one_line_of_the_model_s_own(text):
    images = torch.rand(4, 3, 4, 4, generator=torch.Generator().manual_seed(2))
    with pytest.raises(SpecError, match=r"on the way back, failed at .*masking_layers.py:\d+: KeyError: 'mine'"):
        make_attack(text, "linf:0.001")(FailsOnTheWayBack().eval(), images, model()(images).argmax(1))


class GivesMapping(nn.Module):
    """Gives logits as the models of another library do."""

    def forward(self, images):
        return {"logits": images.flatten(1)}


def test_outputs_without_logits_point_to_what_finds_them():
    with pytest.raises(ImagesError, match=r"gave a dict, not floating logits.*unfool\.adapt"):
        make_attack("pgd-2", "linf:8/255")(GivesMapping(), torch.rand(4, 3, 4, 4), LABELS)


@pytest.mark.parametrize(
    "call", [evaluate, classify, lambda model, data: craft(model, data, "fgsm"), lambda model, data: identity(model)]
)
@pytest.mark.parametrize(
    ("wrong", "kind"), [(lambda images: images, "function"), ("resnet18", "str"), (None, "NoneType")]
)
def test_what_is_no_module_is_refused_wherever_a_model_is_taken(call, wrong, kind):
    with pytest.raises(SpecError, match=f"model is a {kind}; give a torch.nn.Module") as error:
        call(wrong, (IMAGES, LABELS))
    assert ("unfool.adapt(model)" in str(error.value)) == (wrong is not None)
