"""What the command line says of a classifier and its data in one line, evaluate and harden say from Python."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from unfool import L2, EvaluationSettings, HardenSettings, Table, adapt, evaluate, harden
from unfool.core.errors import DataError, ImagesError, NonFiniteError, SpecError, UnfoolWarning

SETTINGS = EvaluationSettings(reliability=False)
PLAN = HardenSettings(steps=1, batch_size=4, attack="fgsm", images=4, augmentation="none")


class Linear(nn.Module):
    def __init__(self, outputs=4):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(48, outputs)

    def forward(self, images):
        return self.linear(images.flatten(1))


class Failing(Linear):
    def forward(self, images):
        raise RuntimeError("mat1 and mat2")


class Overwriting(Linear):
    def forward(self, images):
        return super().forward(images.mul_(2))


class Undefined(Linear):
    def forward(self, images):
        return super().forward(images) * float("nan")


class Detached(Linear):
    def forward(self, images):
        return super().forward(images).detach()


class Dropping(Linear):
    def forward(self, images):
        return nn.functional.dropout(super().forward(images), training=self.training)


@pytest.fixture
def table():
    images = torch.rand(8, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return Table.from_tensors(images, [0, 1, 2, 3] * 2, classes=["tench", "parachute", "church", "golf ball"])


@pytest.mark.parametrize("given", [lambda module: module, adapt], ids=["module", "adapted"])
@pytest.mark.parametrize(
    ("module", "error", "words"),
    [
        (Failing, SpecError, r"model Failing failed at .*test_python_checks.py:\d+: RuntimeError: mat1"),
        (Undefined, NonFiniteError, "NaN or infinite logits"),
    ],
)
def test_faults_of_a_model_are_named_before_work_is_spent(table, tmp_path, given, module, error, words):
    with pytest.raises(error, match=words):
        evaluate(given(module().eval()), table, "fgsm", settings=SETTINGS)
    with pytest.raises(error, match=words):
        harden(given(module().eval()), table, table, tmp_path / "run", settings=PLAN)
    assert not (tmp_path / "run").exists()


def test_a_model_that_works_in_place_is_adapted_or_refused(table):
    before = table.images.clone()
    (clean, attacked) = evaluate(adapt(Overwriting().eval()), table, "fgsm", settings=SETTINGS).rows
    assert (clean.protocol, attacked.protocol) == ("clean", "white-box")
    with pytest.raises(ImagesError, match="overwrites the images"):
        evaluate(Overwriting().eval(), table, "fgsm", settings=SETTINGS)
    assert torch.equal(table.images, before)


def test_what_cannot_be_trained_is_not_hardened(table, tmp_path):
    with pytest.warns(UnfoolWarning, match="scores without a gradient"), pytest.raises(SpecError, match="be trained"):
        harden(adapt(Detached().eval()), table, table, tmp_path / "run", settings=PLAN)
    scores = adapt(lambda images: images.reshape(len(images), -1)[:, :4])
    with pytest.raises(SpecError, match="be trained"):
        harden(scores, table, table, tmp_path / "run", settings=PLAN)


def test_labels_are_matched_with_more_outputs_by_name(table, tmp_path):
    names, own = ["church", "golf ball", "parachute", "cat", "tench"], {"church", "golf ball", "parachute", "tench"}
    evaluation = evaluate(Linear(5), table, "fgsm", settings=SETTINGS, classes=names)
    assert {row.name for row in evaluation.classes["none"] if row.n} == own
    with pytest.warns(UnfoolWarning, match="taken for those of ImageNet"):
        thousand = evaluate(Linear(1000), table, "fgsm", settings=SETTINGS)
    assert sum(row.n for row in thousand.classes["none"]) == 8
    hardened = harden(Linear(5), table, table, tmp_path / "run", settings=PLAN, classes=names)
    assert {row.name for row in hardened.after.classes["none"] if row.n} <= own
    with pytest.raises(DataError, match="names 2 outputs and the classifier has 5"):
        evaluate(Linear(5), table, "fgsm", settings=SETTINGS, classes=["a", "b"])


def test_train_mode_is_told_where_it_matters(table):
    with pytest.warns(UnfoolWarning, match="Dropping is in train mode"):
        evaluate(adapt(Dropping()), table, settings=SETTINGS)
    evaluate(adapt(Linear()), table, settings=SETTINGS)  # a warning would be an error here


def test_the_threat_model_may_stand_beside_the_settings(table):
    threats = [
        evaluate(Linear(), table, "fgsm", settings=settings, threat=threat).rows[1].threat
        for settings, threat in (
            (SETTINGS, "l2:0.25"),
            (EvaluationSettings(threat="l2:1/4", reliability=False), L2(0.25)),
        )
    ]
    assert threats == ["l2:0.25", "l2:0.25"]
    with pytest.raises(SpecError, match=r"threat=linf:1/255 and settings with threat=l2:0.5 were given; give one"):
        evaluate(Linear(), table, "fgsm", settings=EvaluationSettings(threat="l2:0.5"), threat="linf:1/255")


def test_one_reason_for_doubt_is_one_reason(table):
    evaluation = replace(evaluate(Linear(), table, settings=SETTINGS), right_again={"fgsm": 1})
    assert repr(evaluation).endswith("; 1 reason for doubt)")
    assert evaluation.next_step.attacks == ("autoattack:version=rand",)
