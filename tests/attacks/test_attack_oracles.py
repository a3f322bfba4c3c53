"""Other people's attacks on our networks, without a wrapper, and our attacks beside theirs."""

import warnings

import foolbox
import pyautoattack
import pytest
import torch
from small_models import make_batch, make_network
from torch import nn

from unfool.attacks import make_attack
from unfool.evaluation.intervals import wilson


def foreign():
    """A plain module, so that both sides run the same kernels and even vanishing gradients have the same sign."""
    generator = torch.Generator().manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 6, 3), nn.Tanh(), nn.Conv2d(6, 6, 3, stride=2), nn.Tanh(), nn.Flatten())
    model.append(nn.Linear(96, 4)).eval()
    for parameter in model.parameters():
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.3)
    return model


def theirs(model, attack, images, labels, eps):
    wrapped = foolbox.models.pytorch.PyTorchModel(model, bounds=(0.0, 1.0), device="cpu")
    return attack(wrapped, images, labels, epsilons=eps)[1]


@pytest.mark.parametrize("eps", [2 / 255, 0.1])
@pytest.mark.parametrize("make_model", [foreign, make_network])
def test_fgsm_gives_the_images_of_foolbox(make_model, eps):
    model = make_model()
    images, labels, _ = make_batch(model, 32)
    expected = theirs(model, foolbox.attacks.LinfFastGradientAttack(random_start=False), images, labels, eps)
    ours = make_attack("fgsm", f"linf:{eps!r}")(model, images, labels).images
    assert float((ours - expected).abs().max()) <= 1e-6


@pytest.mark.parametrize("make_model", [foreign, make_network])
@pytest.mark.parametrize("steps", [1, 5])
def test_pgd_gives_the_images_of_foolbox(make_model, steps):
    model = make_model()
    images, labels, _ = make_batch(model, 32)
    attack = foolbox.attacks.LinfPGD(abs_stepsize=0.003, steps=steps, random_start=False)
    expected = theirs(model, attack, images, labels, 0.01)
    values = {"steps": steps, "step_size": 0.003, "random_start": False, "goal": "last"}
    ours = make_attack("pgd", "linf:0.01", values)(model, images, labels).images
    assert float((ours - expected).abs().max()) <= 1e-6


@pytest.mark.parametrize("steps", [1, 5])
def test_pgd_in_l2_gives_the_images_of_foolbox(steps):
    model = foreign()
    # Away from the edge of the box, where foolbox and we both only clamp.
    images, labels, _ = make_batch(model, 32)
    images = images * 0.6 + 0.2
    attack = foolbox.attacks.L2PGD(abs_stepsize=0.1, steps=steps, random_start=False)
    expected = theirs(model, attack, images, labels, 0.25)
    values = {"steps": steps, "step_size": 0.1, "random_start": False, "goal": "last"}
    ours = make_attack("pgd", "l2:0.25", values)(model, images, labels).images
    assert float((ours - expected).abs().max()) <= 1e-5


def correct(model, images, labels):
    with torch.no_grad():
        return int((model(images).argmax(1) == labels).sum())


def apgd_ce(network, images, labels, eps):
    attack = pyautoattack.AutoAttack(network, norm="Linf", eps=eps, seed=0, version="custom", attacks=["apgd-ce"])
    attack.apgd.n_restarts = 1
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return attack.run_standard_evaluation(images, labels, batch_size=len(images))[0]


def assert_in_order(network, images, labels, ids, threat, eps):
    """PGD-10 ≥ PGD-50 ≥ APGD-CE in robust accuracy, and PGD-50 near APGD-CE."""
    count = len(images)
    ours = {
        steps: correct(network, make_attack(f"pgd-{steps}", threat)(network, images, labels, ids=ids).images, labels)
        for steps in (10, 50)
    }
    adversarial = apgd_ce(network, images, labels, eps)
    assert float((adversarial - images).abs().max()) <= eps + 1e-6
    apgd = correct(network, adversarial, labels)
    # From a start that both share, the longer passes through every point of the shorter.
    shared = [make_attack(f"pgd-{steps}:random_start=false", threat) for steps in (10, 50)]
    shorter, longer = (attack(network, images, labels, ids=ids).fooled for attack in shared)
    assert not (shorter & ~longer).any()
    assert wilson(apgd, count)[0] <= ours[50] / count <= wilson(apgd, count)[1]
    # None of it would mean much on a network that always falls, or never.
    clean = correct(network, images, labels)
    assert 0.1 * count < ours[10] < clean - 0.05 * count
    weaker = make_attack("fgsm:random_start=true,step_size=1/255", threat)(network, images, labels, ids=ids)
    assert correct(network, weaker.images, labels) > ours[50]


def test_pgd_50_lies_between_pgd_10_and_apgd(robust_digits):
    network, images, labels, ids = robust_digits
    assert_in_order(network, images, labels, ids, "linf:0.1", 0.1)


@pytest.mark.real_data
def test_pgd_50_lies_between_pgd_10_and_apgd_on_cifar10(robust_cifar):
    network, images, labels, ids = robust_cifar
    assert len(images) >= 500
    assert_in_order(network, images, labels, ids, "linf:8/255", 8 / 255)


def test_foolbox_attacks_a_network_without_a_wrapper(robust_digits):
    network, images, labels, ids = robust_digits
    attack = foolbox.attacks.LinfPGD(rel_stepsize=0.25, steps=10, random_start=False)
    found = correct(network, theirs(network, attack, images, labels, 0.1), labels)
    ours = make_attack("pgd-10:random_start=false,goal=last", "linf:0.1")(network, images, labels, ids=ids)
    assert abs(found - correct(network, ours.images, labels)) <= 1
    assert found < correct(network, images, labels)
