"""N-FGSM beside its paper's algorithm, written literally; and as an attack, which stays in its ball."""

import pytest
import torch
import torch.nn.functional as F
from small_models import make_batch, make_network, problem

from unfool import Linf, attacks, make_attack
from unfool.attacks.objective import LabelLoss
from unfool.core.errors import SpecError
from unfool.core.streams import Streams

NETWORK = make_network().eval()
EPS = 8 / 255


def literal(images, labels, noise, step):
    """Algorithm 1 of de Jorge et al., NeurIPS 2022: η, the gradient at x + η, one signed step; clipped to the box."""
    start = (images + noise).clamp(0, 1).requires_grad_()
    F.cross_entropy(NETWORK(start), labels, reduction="sum").backward()
    return (start.detach() + step * start.grad.sign()).clamp(0, 1)


def noise_of(images, ids, size, streams):
    """The engine's draw of its start, as displacements."""
    return streams.named("start").at(0).uniform(ids, tuple(images.shape[1:]), -size, size)


@pytest.mark.parametrize(
    ("text", "factor", "step"), [("n-fgsm", 2, EPS), ("n-fgsm:noise=1,step_size=4/255", 1, 4 / 255)]
)
def test_what_training_learns_from_is_the_paper_s_algorithm(text, factor, step):
    images, labels, ids = make_batch(NETWORK)
    attack = make_attack(text, Linf(EPS))
    moved = attack.training_engine.run(problem(LabelLoss(NETWORK, labels), images, ids)).images
    noise = noise_of(images, ids, factor * EPS, Streams(0))
    assert float((moved - literal(images, labels, noise, step)).abs().max()) < 1e-6
    # Most of it is outside the ball, and none is further away than noise and step reach.
    distances = (moved - images).abs().flatten(1).amax(1)
    assert (distances > EPS).all()
    assert float(distances.max()) <= factor * EPS + step + 1e-6


def test_the_noise_fills_twice_the_ball_evenly():
    images, ids = torch.full((64, 3, 8, 8), 0.5), torch.arange(64)
    engine = attacks.NFGSM(Linf(EPS), step_size=0.0).training_engine
    moved = engine.run(problem(LabelLoss(torch.nn.Flatten(), torch.zeros(64, dtype=torch.int64)), images, ids)).images
    shares = (moved - images) / (2 * EPS)
    assert float(shares.abs().max()) <= 1 + 1e-6
    assert float(shares.abs().mean()) == pytest.approx(0.5, abs=0.01)
    assert float(shares.std()) == pytest.approx(3**-0.5, abs=0.01)


def test_as_an_attack_it_is_the_same_point_projected():
    images, labels, ids = make_batch(NETWORK)
    attack = attacks.NFGSM(Linf(EPS))
    attacked = attack(NETWORK, images, labels, ids=ids)
    noise = noise_of(images, ids, 2 * EPS, Streams(0).named("n-fgsm"))
    expected = literal(images, labels, noise, EPS).clamp(images - EPS, images + EPS)
    assert float((attacked.images - expected).abs().max()) < 1e-6
    assert float(attacked.distances.max()) <= EPS + 1e-6


def test_a_ball_that_holds_every_image_stays_one():
    assert attacks.NFGSM(Linf(0.6)).training_engine.threat.eps == 1.0


def test_settings_that_are_not_allowed():
    with pytest.raises(SpecError, match="noise"):
        make_attack("n-fgsm:noise=-1", "linf:8/255")
