"""Black boxes: functions and estimators that give scores alone, attacked by these alone."""

import json

import numpy as np
import pytest
import torch
from outside_models import IMAGES, LABELS, Wrapped, body, detached, looked
from sklearn.linear_model import LogisticRegression, Perceptron
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC

from unfool import EvaluationSettings, adapt, attacks, evaluate, make_attack
from unfool.core.errors import SpecError, UnfoolError
from unfool.core.threat import Linf
from unfool.models.look import check_classifier


class Classes:
    def fit(self, x, y): ...
    def predict(self, x): ...


def linear(images):
    weights = np.random.RandomState(0).randn(192, 4).astype("f4")
    return np.asarray(images).reshape(len(images), -1) @ weights


def of_tensors(images):
    return body()(images.float())


FLAT = IMAGES.flatten(1).numpy()
ESTIMATORS = [
    LogisticRegression().fit(FLAT, LABELS),
    make_pipeline(StandardScaler(), LogisticRegression()).fit(FLAT, LABELS),
    SVC(decision_function_shape="ovr").fit(FLAT, LABELS),
]


@pytest.mark.parametrize("scores", [linear, of_tensors, *ESTIMATORS], ids=["numpy", "torch", "logistic", "pipe", "svc"])
def test_black_boxes_are_attacked_by_their_scores_alone(scores):
    model = adapt(scores)
    assert any("only score-based attacks" in line for line in looked(model))
    labels = model(IMAGES).argmax(1)
    evaluation = evaluate(model, (IMAGES, labels), ["square-30"], settings=EvaluationSettings(threat="linf:0.4"))
    assert [row.protocol for row in evaluation.rows] == ["clean", "score-based"]
    assert "score-based" in json.dumps(evaluation.to_json())
    assert any("without a gradient" in doubt for doubt in evaluation.doubts)
    for name in ("pgd-5", "autoattack", "fgsm"):
        with pytest.raises(SpecError, match=r"follows gradients.*square-1000"):
            evaluate(model, (IMAGES, labels), [name])
        with pytest.raises(SpecError, match="follows gradients"):
            make_attack(name, "linf:8/255")(model, IMAGES, labels)
    assert attacks.Square(Linf(0.4), steps=20)(model, IMAGES, labels).distances.max() <= 0.4 + 1e-6


def raises(error):
    def scores(images):
        raise error

    return scores


def needs_tensors_and_fails(images):
    return images.permute(0, 2, 3, 1) / torch.zeros(7)


@pytest.mark.parametrize(
    ("scores", "error"),
    [
        (raises(IndexError("third")), "IndexError: third"),
        (raises(ValueError("operands could not be broadcast")), "ValueError: operands"),
        (raises(TypeError("unsupported operand")), "TypeError: unsupported"),
        (needs_tensors_and_fails, "RuntimeError: The size of tensor"),
        (lambda images: images.astype("f4").reshape(7, 7), "ValueError: cannot reshape"),
    ],
    ids=["index", "value", "type", "tensors", "reshape"],
)
def test_an_error_of_a_function_is_its_own_and_no_wish_for_tensors(scores, error):
    with pytest.raises(SpecError, match=rf"failed at .*test_black_boxes.py:\d+: {error}"):
        adapt(scores)(IMAGES)


def test_a_function_that_took_arrays_is_not_tried_with_tensors():
    seen = []

    def scores(images):
        seen.append(type(images))
        if len(images) == 2:
            raise TypeError("two")
        return linear(images)

    model = adapt(scores)
    model(IMAGES)
    with pytest.raises(SpecError, match="TypeError: two"):
        model(IMAGES[:2])
    assert seen == [np.ndarray, np.ndarray]
    script = torch.jit.script(body())
    assert torch.equal(adapt(lambda images: script(images))(IMAGES), body()(IMAGES))


def test_a_module_without_a_gradient_is_a_black_box():
    model = adapt(Wrapped(detached).eval())
    assert any("without a gradient" in line for line in looked(model))
    assert model.black_box
    with pytest.raises(SpecError, match="logits without a gradient"):
        check_classifier(Wrapped(detached).eval(), IMAGES)


def test_binary_estimators_and_those_without_scores():
    two = SVC().fit(FLAT, LABELS % 2)
    assert adapt(two)(IMAGES).argmax(1).tolist() == two.predict(FLAT).tolist()
    with pytest.raises(SpecError, match=r"Classes gives classes and no scores"):
        adapt(Classes())
    assert adapt(Perceptron().fit(FLAT, LABELS))(IMAGES).shape == (6, 4)
    with pytest.raises(UnfoolError, match=r"takes 192 features, and an image has 48"):
        adapt(two)(IMAGES[:, :, :4, :4])


@pytest.mark.parametrize(
    "wrapped",
    [
        lambda svc: svc,
        lambda svc: make_pipeline(StandardScaler(), svc),
        lambda svc: GridSearchCV(svc, {"C": [1]}, cv=2),
    ],
    ids=["alone", "pipeline", "search"],
)
def test_scores_of_pairs_of_classes_are_not_taken_for_those_of_classes(wrapped):
    pairs = wrapped(SVC(decision_function_shape="ovo")).fit(np.repeat(FLAT, 2, 0), np.repeat(LABELS % 3, 2))
    with pytest.raises(SpecError, match=r"scores pairs of classes.*set decision_function_shape='ovr'"):
        adapt(pairs)
    two = wrapped(SVC(decision_function_shape="ovo")).fit(np.repeat(FLAT, 2, 0), np.repeat(LABELS % 2, 2))
    assert adapt(two)(IMAGES).argmax(1).tolist() == two.predict(FLAT).tolist()


class Unequal(Classes):
    classes_ = (0, 1, 2, 3)

    def decision_function(self, x):
        return np.zeros((len(x), 6))


def test_scores_that_are_not_one_per_class_are_refused():
    with pytest.raises(UnfoolError, match=r"gives scores of shape \(6, 6\) for 4 classes"):
        adapt(Unequal())(IMAGES)


def test_an_estimator_that_gives_classes_alone_is_sent_to_decision_based_attacks_at_once():
    class Nearest(Classes):
        classes_ = np.arange(4)

        def predict(self, x):
            return np.asarray(x).reshape(len(x), -1).sum(1).astype(int) % 4

    model = adapt(Nearest())
    (line,) = looked(model)
    assert line.endswith("only decision-based attacks, such as hop-skip-jump-1000, run on it")
    for name, how in {"pgd-5": "follows gradients", "square-10": "learns from scores", "autoattack": "follows"}.items():
        with pytest.raises(SpecError, match=rf"{how}.*classes alone.*such as hop-skip-jump-1000"):
            make_attack(name, "linf:8/255")(model, IMAGES, LABELS)
    assert make_attack("hop-skip-jump-20", "linf:8/255")(model, IMAGES, model(IMAGES).argmax(1)).images.shape
