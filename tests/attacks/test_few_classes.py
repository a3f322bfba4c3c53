"""Two or three classes, one logit, and several labels of an image: attacked as any other, with radii that are known."""

import math
import warnings

import pytest
import torch
from torch import nn

from unfool import L2, EvaluationSettings, Linf, adapt, attacks, evaluate, minimum_norms
from unfool.core.errors import ImagesError, UnfoolWarning
from unfool.core.streams import Streams

SIZE = 3 * 4 * 4


class Planes(nn.Module):
    """Logits (B, K) that are linear in the image: each label's boundary is a plane."""

    def __init__(self, count):
        super().__init__()
        self.weights = nn.Parameter(Streams(2).normal(torch.arange(count), (SIZE,)))

    def forward(self, images):
        return (images.flatten(1) - 0.5) @ self.weights.T

    def gaps(self, images):
        """The distance (B, K) of each image from each label's plane, in l2."""
        return self(images).abs().detach().double() / self.weights.detach().double().norm(dim=1)


def images_near_grey(count=5):
    return 0.5 + 0.05 * Streams(4).normal(torch.arange(count), (3, 4, 4))


def test_one_logit_is_attacked_as_two_classes():
    model, images = Planes(1), images_near_grey()
    labels = (model(images)[:, 0] > 0).long()
    exact = model.gaps(images)[:, 0]
    for attack in (
        attacks.FMN(L2(1)),
        attacks.TargetedFMN(L2(1)),
        attacks.DDN(L2(1)),
        attacks.HopSkipJump(L2(1), steps=1000),
    ):
        found = minimum_norms(adapt(model), (images, labels.tolist()), attack).values
        assert found == pytest.approx(exact.tolist(), rel=0.25 if "Hop" in repr(attack) else 0.02)
    eps = float(exact.median())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfoolWarning)
        for name in ("pgd-20", "apgd-t", "fab-t:steps=30", "lean"):
            attacked = attacks.make_attack(name, L2(eps * 1.02))(adapt(model), images, labels)
            assert attacked.fooled.tolist() == (exact <= eps * 1.02).tolist(), name


@pytest.mark.parametrize("labels", [[0, 0, 0, 0, 0], [0, 1, 0, 1, 0]])
def test_a_bare_model_of_one_logit_is_refused_and_not_called_robust(labels):
    model, images = Planes(1), images_near_grey()
    with pytest.raises(ImagesError, match=r"gives one logit.*unfool.adapt\(model\) makes two classes of it"):
        attacks.PGD(L2(0.5))(model, images, torch.tensor(labels))
    with pytest.raises(ImagesError, match=r"one logit|shape"):
        evaluate(model, (images, labels), "fgsm", settings=EvaluationSettings(reliability=False))


@pytest.mark.parametrize("classes", [2, 3])
def test_few_classes_have_their_exact_radii(classes):
    model, images = Planes(classes), images_near_grey()
    logits = model(images).detach().double()
    labels = logits.argmax(1)
    weights = model.weights.detach().double()
    exact = []
    for row, label in zip(logits, labels.tolist(), strict=True):
        others = [k for k in range(classes) if k != label]
        exact.append(min(float((row[label] - row[k]) / (weights[label] - weights[k]).abs().sum()) for k in others))
    assert minimum_norms(model, (images, labels.tolist()), attacks.FMN(Linf(1))).values == pytest.approx(
        exact, rel=0.02
    )
    eps = 1.02 * sorted(exact)[2]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfoolWarning)
        for name in ("apgd-t:steps=40", "apgd-dlr:steps=40", "fab-t:steps=30"):
            attacked = attacks.make_attack(name, Linf(eps))(model, images, labels)
            assert attacked.fooled.tolist() == [radius <= eps for radius in exact], name


def test_several_labels_are_fooled_when_any_of_them_flips():
    model, images = Planes(3), images_near_grey()
    predicted = model(images) > 0
    sets = sorted({tuple(row.nonzero()[:, 0].tolist()) for row in predicted})
    labels = [sets.index(tuple(row.nonzero()[:, 0].tolist())) for row in predicted]
    adapted = adapt(model, label_sets=[list(labels) for labels in sets])
    exact = model.gaps(images).amin(1)
    found = minimum_norms(adapted, (images, labels), attacks.FMN(L2(1)))
    assert found.values == pytest.approx(exact.tolist(), rel=0.02)
    assert not any(map(math.isinf, found.values))
    attacked = attacks.FMN(L2(float(exact.median()) * 1.02))(adapted, images, torch.tensor(labels))
    flipped = ((model(attacked.images) > 0) != predicted).any(1)
    assert torch.equal(attacked.fooled, flipped)
    assert attacked.fooled.sum() == 3


def test_a_ratio_of_logits_that_is_constant_for_sets_of_labels_is_left_out():
    """Of a set's logit m, 0 for any other set and -m for the set with the nearest label flipped, DLR is always 1/2."""
    model, images = Planes(3), images_near_grey()
    predicted = model(images) > 0
    sets = [[k for k in range(3) if number >> k & 1] for number in range(8)]
    labels = torch.tensor([sets.index(row.nonzero()[:, 0].tolist()) for row in predicted])
    adapted, exact = adapt(model, label_sets=sets), model.gaps(images).amin(1)
    eps = float(exact.median()) * 1.02
    for name in ("apgd-dlr:steps=20", "apgd-t:steps=20"):
        with pytest.warns(UnfoolWarning, match="constant where classes are sets of labels"):
            attacked = attacks.make_attack(name, L2(eps))(adapted, images, labels)
        assert attacked.fooled.tolist() == (exact <= eps).tolist(), name
