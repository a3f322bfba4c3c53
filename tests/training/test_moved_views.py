"""One view moved, or all in a stream beside a clean one, with shared or separate batch norm, against a literal loop."""

import copy
import warnings

import pytest
import torch
from test_stage import make_stage
from tiny_runs import contrast, labels, make_table, run, stage

from unfool.core.batch import Batch
from unfool.core.errors import SpecError, UnfoolWarning
from unfool.core.streams import Streams
from unfool.tasks.contrast import Contrast
from unfool.training import train
from unfool.training.stage import Stage

EPS, STEP, STEPS = 8 / 255, 2 / 255, 4
ZERO = f"pgd-{STEPS}:random_start=false"
KINDS = [
    (adversarial, statistics) for adversarial in ("one-view", "dual-stream") for statistics in ("shared", "separate")
]
EACH = pytest.mark.parametrize(("adversarial", "statistics"), KINDS)


def norms_of(network):
    return {name: part for name, part in network.trunk.named_modules() if isinstance(part, torch.nn.BatchNorm2d)}


def stirred(made):
    """Give the clean norms values of their own, as training does in time; a network that has them in its trunk."""
    network = copy.deepcopy(made.network)
    pairs = zip(made.clean_norms.norms, norms_of(network).values(), strict=True)
    for number, (own, other) in enumerate(pairs):
        for key, value in own.state_dict().items():
            if value.is_floating_point():
                value.mul_(1 + Streams(number).named(key).uniform(torch.arange(len(value))).to(value))
        other.load_state_dict(own.state_dict())
    return network


def in_double(config, count=6):
    made = make_stage(config).double()
    batch = make_table().batch(torch.arange(count))
    return made, Batch(images=batch.images.double(), ids=batch.ids, columns=batch.columns)


@pytest.mark.parametrize("views", [2, 3])
@pytest.mark.parametrize("decay", [0, 4])
@EACH
def test_a_step_is_the_literal_loop(adversarial, statistics, views, decay):
    tasks = {"contrast": contrast(views=views, decay=decay, augmentation="mao2021")}
    made, batch = in_double(stage(tasks, perturb=ZERO, adversarial=adversarial, statistics=statistics))
    made.at(0.6)
    task = made.tasks["contrast"]
    sharp = copy.deepcopy(made.network)
    calm = sharp if statistics == "shared" else stirred(made)
    shown = task.views(batch, Streams(5))
    images, each = shown.images, len(batch) if adversarial == "one-view" else len(shown.images)
    sharp.eval(), calm.eval()

    def loss(network, moved, still):
        found = network.features(moved)
        return task.losses(torch.cat([found, calm.features(still)]) if len(still) else found, shown)

    points, still = images[:each].clone(), images[each:]
    for _ in range(STEPS):
        points.requires_grad_()
        (gradient,) = torch.autograd.grad(loss(sharp, points, still).sum(), points)
        points = (points.detach() + STEP * gradient.sign()).clamp(images[:each] - EPS, images[:each] + EPS).clamp(0, 1)
    sharp.train(), calm.train()
    if adversarial == "one-view" and statistics == "shared":
        total = task.losses(sharp.features(torch.cat([points, still])), shown).mean()
    elif adversarial == "one-view":
        total = loss(sharp, points, still).mean()
    else:
        shift = 2 / 3 * 0.5 if decay else 0.0
        before, after = task.losses(calm.features(images), shown), task.losses(sharp.features(points), shown)
        total = ((1 - shift) * before + (1 + shift) * after).mean() / 2
    parts = list(dict.fromkeys([*sharp.trunk.parameters(), *calm.trunk.parameters()]))
    gradients = dict(zip(parts, torch.autograd.grad(total, parts, retain_graph=True, allow_unused=True), strict=True))
    own_head = torch.autograd.grad(total, list(task.head.parameters()))

    found = made.total(made(batch, Streams(5))[0])
    torch.testing.assert_close(found, total)
    found.backward()
    in_sharp, in_calm = dict(sharp.trunk.named_parameters()), dict(calm.trunk.named_parameters())
    norms = {f"{name}.{key}" for name in norms_of(made.network) for key in ("weight", "bias")}
    for name, parameter in made.network.trunk.named_parameters():
        expected = gradients[in_sharp[name]]
        if statistics == "separate" and name not in norms:
            expected = expected + gradients[in_calm[name]]
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-10)
    for parameter, expected in zip(task.head.parameters(), own_head, strict=True):
        torch.testing.assert_close(parameter.grad, expected, rtol=1e-6, atol=1e-10)
    buffers = dict(sharp.trunk.named_buffers())
    for name, buffer in made.network.trunk.named_buffers():
        torch.testing.assert_close(buffer, buffers[name])
    if made.clean_norms is not None:
        for own, other in zip(made.clean_norms.norms, norms_of(calm).values(), strict=True):
            torch.testing.assert_close(own.state_dict(), other.state_dict())
            for parameter, twin in zip(own.parameters(), other.parameters(), strict=True):
                torch.testing.assert_close(parameter.grad, gradients[twin], rtol=1e-6, atol=1e-10)


@pytest.mark.parametrize("threat", ["linf:8/255", "l2:0.5"])
@pytest.mark.parametrize("count", [2, 3])
def test_of_one_view_only_the_first_moves_and_it_stays_in_the_ball(threat, count):
    tasks = {"labels": labels(augmentation="simclr", views=count), "contrast": contrast(views=count)}
    made = make_stage(stage(tasks, perturb="pgd-3", adversarial="one-view", threat=threat))
    (group,) = made._view_pairs(make_table().batch(torch.arange(8)), Streams(0))
    clean, moved = group.clean["contrast"].images, group.perturbed["contrast"].images
    assert group.perturbed["labels"].images.shape == clean.shape
    shift = (moved - clean).unflatten(0, (count, 8))
    assert not shift[1:].any()
    length = shift[0].abs().amax((1, 2, 3)) if threat.startswith("linf") else shift[0].flatten(1).norm(dim=1)
    assert (length > 0).all()
    assert float(length.max()) <= {"linf:8/255": 8 / 255, "l2:0.5": 0.5}[threat] + 1e-5


@pytest.mark.parametrize(
    ("adversarial", "statistics", "sizes"),
    [
        # three gradients of what moves; the views that do not move once; then what is learnt from
        ("plain", "shared", [24, 24, 24, 24]),
        ("one-view", "shared", [16, 8, 8, 8, 24]),
        ("one-view", "separate", [16, 8, 8, 8, 16, 8]),
        ("dual-stream", "shared", [24, 24, 24, 24, 24]),
        ("dual-stream", "separate", [24, 24, 24, 24, 24]),
    ],
)
def test_no_image_goes_through_the_network_more_often_than_it_must(adversarial, statistics, sizes):
    tasks = {"contrast": contrast(views=3)}
    made = make_stage(stage(tasks, perturb="pgd-3", adversarial=adversarial, statistics=statistics))
    seen = []
    made.network.trunk.parts["stem"].register_forward_pre_hook(lambda _, args: seen.append(len(args[0])))
    made(make_table().batch(torch.arange(8)), Streams(0))
    assert seen == sizes
    assert made.model_images == sum(sizes)


@EACH
def test_crafting_moves_neither_set_of_statistics(adversarial, statistics):
    made = make_stage(stage({"contrast": contrast()}, perturb="pgd-2", adversarial=adversarial, statistics=statistics))
    before = copy.deepcopy(made.state_dict())
    list(made._view_pairs(make_table().batch(torch.arange(8)), Streams(0)))
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert all(parameter.grad is None for parameter in made.parameters())


def test_clean_norms_are_parameters_of_the_stage_and_not_of_the_network():
    config = stage({"contrast": contrast()}, perturb="pgd-1", adversarial="dual-stream", statistics="separate")
    made = make_stage(config)
    kept = {name for name in made.state_dict() if name.startswith("clean_norms.")}
    assert len(kept) == 5 * len(norms_of(made.network))
    assert not any("clean" in name for name in made.network.state_dict())
    optimizer = torch.optim.SGD(made.parameters(), lr=0.1)
    before = copy.deepcopy(made.state_dict())
    made.total(made(make_table().batch(torch.arange(8)), Streams(0))[0]).backward()
    optimizer.step()
    assert all(not torch.equal(value, before[name]) for name, value in made.state_dict().items() if name in kept)


def test_clean_norms_begin_as_the_network_s_are_when_the_stage_begins():
    config = stage({"contrast": contrast()}, perturb="pgd-1", adversarial="one-view", statistics="separate")
    made = make_stage(config)
    for value in made.network.trunk.state_dict().values():
        value.add_(1)
    made.choose_trainable()
    for own, norm in zip(made.clean_norms.norms, norms_of(made.network).values(), strict=True):
        assert all(torch.equal(value, norm.state_dict()[key]) for key, value in own.state_dict().items())
        assert all(parameter.requires_grad for parameter in own.parameters())


def test_what_does_not_move_has_clean_norms_that_do_not_move():
    tasks = {"contrast": contrast()}
    config = stage(tasks, perturb="pgd-1", adversarial="dual-stream", statistics="separate", trainable="from:block3")
    made = make_stage(config)
    before = copy.deepcopy(made.state_dict())
    made.total(made(make_table().batch(torch.arange(8)), Streams(0))[0]).backward()
    for name, own in zip(made.clean_norms.names, made.clean_norms.norms, strict=True):
        trainable = "block3" in name
        assert all((parameter.grad is not None) == trainable for parameter in own.parameters()), name
        prefix = f"clean_norms.norms.{made.clean_norms.names.index(name)}."
        changed = any(not torch.equal(own.state_dict()[key], before[prefix + key]) for key in own.state_dict())
        assert changed == trainable, name


def test_a_task_of_one_view_is_moved_whole():
    config = stage({"labels": labels()}, perturb="pgd-2", adversarial="one-view", statistics="separate")
    made, plain = make_stage(config), make_stage(stage({"labels": labels()}, perturb="pgd-2"))
    batch = make_table().batch(torch.arange(8))
    found, expected = made(batch, Streams(0))[0], plain(batch, Streams(0))[0]
    assert torch.equal(found["labels"], expected["labels"])


@pytest.mark.parametrize("awp", [0.0, 0.01])
@EACH
def test_the_queue_takes_one_step_s_projections(adversarial, statistics, awp):
    tasks = {"contrast": contrast(negatives="queue", bank=100)}
    settings = {"perturb": "pgd-2", "adversarial": adversarial, "statistics": statistics, "awp": awp}
    made = make_stage(stage(tasks, **settings))
    for number in range(2):
        made.total(made(make_table().batch(torch.arange(8)), Streams(number))[0]).backward()
        made.weight_perturbation.undo()
        assert int(made.tasks["contrast"].bank.any(1).sum()) == 16 * (number + 1)


def test_only_the_task_whose_augmentation_decays_is_reweighted():
    tasks = {"contrast": contrast(decay=2), "other": contrast()}
    made, batch = in_double(stage(tasks, perturb=ZERO, adversarial="dual-stream"))
    made.at(0.5)
    (decayed, steady) = made._view_pairs(batch, Streams(0))
    with torch.no_grad():
        for group, name, shares in ((decayed, "contrast", (1 / 3, 2 / 3)), (steady, "other", (1 / 2, 1 / 2))):
            clean, moved = made.adversary.features(group, made._trunk)
            views = group.perturbed[name]
            parts = [made.tasks[name].losses(found["last"], views) for found in (clean, moved)]
            expected = shares[0] * parts[0] + shares[1] * parts[1]
            torch.testing.assert_close(made.adversary.losses(name, clean, moved, views), expected)


def test_a_run_weakens_the_augmentation_as_it_goes(tmp_path, monkeypatch):
    seen, own = [], Contrast.views
    monkeypatch.setattr(Contrast, "views", lambda self, *given: seen.append(self.strength) or own(self, *given))
    train(run(stage({"contrast": contrast(decay=4)}), stage({"contrast": contrast()})), make_table(), tmp_path)
    assert seen == [1.0, 1.0, 0.75, 0.75, 0.5, 0.5, 0.25, 0.25] + [1.0] * 8


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"adversarial": "one-view"}, "set perturb"),
        ({"adversarial": "dual-stream"}, "set perturb"),
        ({"statistics": "separate"}, "dual-stream, one-view"),
        ({"statistics": "separate", "perturb": "pgd-2"}, "dual-stream, one-view"),
        ({"statistics": "separate", "perturb": "pgd-2", "adversarial": "trades"}, "dual-stream, one-view"),
        ({"statistics": "own"}, "separate"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_line(settings, words):
    with pytest.raises(SpecError, match=words) as refusal:
        make_stage(stage({"contrast": contrast()}, **settings))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("perturb", "threat", "reaches"),
    [
        ("pgd-5:random_start=false,step_size=0.001", "linf:0.01", False),
        ("pgd-9:random_start=false,step_size=0.001", "l2:0.01", False),
        ("fgsm:step_size=0.005", "linf:0.01", False),
        ("pgd-10:random_start=false,step_size=0.001", "linf:0.01", True),
        ("pgd-3:random_start=false,step_size=0.1", "linf:0.3", True),
        ("pgd-5:random_start=true,step_size=0.001", "linf:0.01", True),
        ("fgsm", "linf:8/255", True),
    ],
)
def test_a_start_at_the_image_that_cannot_reach_the_edge_is_told_once(perturb, threat, reaches):
    config = stage({"contrast": contrast()}, perturb=perturb, threat=threat)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", UnfoolWarning)
        made: Stage = make_stage(config)
        for step in range(2):
            made(make_table().batch(torch.arange(4)), Streams(step))
    found = [str(one.message) for one in told if issubclass(one.category, UnfoolWarning)]
    assert len(found) == (0 if reaches else 1)
    if not reaches:
        assert perturb in found[0]
        assert "random start" in found[0]
