"""The reverse attack against its algorithm written out; what it costs, and who can change its predictions."""

import ast
import gc
import warnings
from pathlib import Path

import pytest
import torch
from small_defenses import CLASSES, SMALL, make_images, make_network, make_reverse, make_table

from unfool import defenses
from unfool.core.batch import Batch, spans_of_mates
from unfool.core.errors import SpecError, UnfoolWarning
from unfool.core.streams import Streams
from unfool.core.threat import ThreatModel
from unfool.data.as_table import as_table
from unfool.defenses import Defense, Reverse, make_defense
from unfool.defenses.aware import pretext_aware
from unfool.defenses.reversal.fast_copy import _COPIES
from unfool.evaluation import classify, craft
from unfool.evaluation.corruptions import classify_corrupted
from unfool.models.heads import build_head
from unfool.tasks import TASKS, make_task


def literal_reversal(defense, images, ids, draw=0):
    """Algorithm 1 of Mao et al. in linf on the network itself: x ← clip(x - step · sign(∇ loss(views of x)))."""
    streams = Streams(defense.seed).named("reverse").at(draw)
    eps, path = defense.threat.eps, []
    points = images
    if defense.start == "random":
        points = defense.threat.sample(images, ids, streams.named("start").at(0))
    for step in range(defense.steps + 1):
        moving = points.clone().requires_grad_()
        draws = streams.named("views").at(step if defense.redraw else 0)
        views = defense.task.views(Batch(images=moving, ids=ids), draws)
        losses = defense.task.losses(defense.network.features(views.images, views.stage), views)
        path.append(losses.detach())
        if step < defense.steps:
            (gradient,) = torch.autograd.grad(losses.sum(), moving)
            points = points - defense.step_size * gradient.sign()
            points = torch.minimum(torch.maximum(points, images - eps), images + eps).clamp(0, 1)
    return points, torch.stack(path)


@pytest.mark.parametrize("text", ["", "start=image,redraw=false", "loss=first-positive,views=3,temperature=0.2"])
def test_it_is_the_algorithm(text):
    network = make_network(torch.float64)
    defense = make_reverse(text + ",steps=4,step_size=0.02,eps=0.05", network)
    images, ids = make_images(dtype=torch.float64), torch.tensor([3, 1, 4, 15, 9, 2])
    points, path = literal_reversal(defense, images, ids)
    found = defense.purify(images, ids)
    # Folding changes roundings, and a sign may turn on one: a pixel or two at the most.
    assert (found.images - points).abs().gt(1e-9).double().mean() < 1e-3
    assert torch.allclose(found.losses, path, rtol=1e-3)
    assert found.losses.shape == (5, 6)
    assert torch.allclose(defense(images, ids), network(found.images), atol=1e-9)
    assert found.model_images == 5 * 6 * defense.task.settings.views


@pytest.mark.parametrize("threat", ["linf:0.06", "l2:0.8", "l1:10"])
@pytest.mark.parametrize("start", ["random", "image"])
def test_the_loss_falls_and_the_ball_is_kept(threat, start):
    norm, eps = threat.split(":")
    defense = make_reverse(f"steps=12,norm={norm},eps={eps},start={start},redraw=false")
    images = make_images(16)
    found = defense.purify(images)
    assert float(found.losses[-1].mean()) < float(found.losses[0].mean()) - 0.02
    model = ThreatModel.parse(threat)
    assert float(model.norm(found.images.double() - images.double()).max()) <= model.eps + 1e-6
    assert float(found.images.min()) >= 0
    assert float(found.images.max()) <= 1


def test_the_best_iterate_is_that_of_lowest_loss():
    text = "steps=6,step_size=0.1,eps=0.1,redraw=false"
    last, best = (make_reverse(f"{text},keep={keep}") for keep in ("last", "best"))
    images = make_images(16)
    path, found = last.purify(images).losses, best.purify(images)
    assert torch.allclose(found.losses, path)
    ids = torch.zeros(16, dtype=torch.int64)
    streams = Streams(0).named("reverse").at(0)
    again = best.objective(ids, streams)(found.images, torch.arange(16)).losses
    assert torch.allclose(again, path.amin(0), atol=1e-4)
    assert bool((path.amin(0) < path[-1]).any())


def test_several_reversals_are_averaged():
    network = make_network()
    defense = make_reverse("steps=3,draws=3", network)
    images = make_images()
    found = defense.purify(images)
    assert found.images.shape == (18, 3, 12, 12)
    assert found.losses.shape == (4, 18)
    first, second, third = found.images.chunk(3)
    assert not torch.equal(first, second)
    assert torch.equal(first, make_reverse("steps=3", network).purify(images).images)
    with torch.no_grad():
        mean = (network(first) + network(second) + network(third)) / 3
    assert torch.allclose(defense(images), mean, atol=1e-6)


@pytest.mark.parametrize("text", ["steps=3", "steps=2,keep=best,draws=2", "steps=4,views=3,precision=bf16", "steps=0"])
def test_the_cost_that_is_told_is_what_the_network_sees(text):
    network = make_network()
    seen = []
    network.trunk.parts["stem"].register_forward_hook(lambda part, images, output: seen.append(len(output)))
    defense = make_reverse(text, network)
    images = make_images(5)
    seen.clear()
    defense(images)
    assert sum(seen) == 5 * defense.images_per_prediction
    seen.clear()
    assert defense.purify(images).model_images == sum(seen)


def test_without_steps_or_room_it_is_the_network():
    network = make_network()
    images = make_images()
    with torch.no_grad():
        logits = network(images)
    assert torch.equal(make_reverse("steps=0,start=image", network)(images), logits)
    assert torch.equal(make_reverse("steps=3,eps=0", network)(images), logits)
    noise = make_reverse("steps=0", network).purify(images).images
    assert float((noise - images).abs().max()) > 0.05


def test_in_batch_negatives_make_batch_mates_count_and_the_bank_does_not():
    """Where only the batch-mates differ, in number, order or content."""
    images = make_images(8, torch.float64)
    network = make_network(torch.float64)
    with pytest.warns(UnfoolWarning, match="negatives=bank"):
        coupled = make_reverse("steps=4,negatives=batch", network)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        banked = make_reverse("steps=4", network)
    assert (coupled.batch_dependent, banked.batch_dependent) == (True, False)
    others = torch.cat([images[:2], make_table(80).batch(torch.arange(74, 80)).images.double()])
    for batch in (images[:3], others, torch.cat([images, images[4:6]])):
        assert torch.allclose(banked(batch)[:2], banked(images)[:2], atol=1e-9)
        assert not torch.allclose(coupled(batch)[:2], coupled(images)[:2], atol=1e-4)
    # A single image has a mate that stands in for those of a batch.
    assert not torch.allclose(coupled(images[:1]), coupled(images)[:1], atol=1e-4)
    assert banked(images[:1]).shape == coupled(images[:1]).shape == (1, 4)


def test_without_numbers_place_does_not_matter_and_with_them_it_does_not_either():
    defense = make_reverse("steps=3", make_network(torch.float64))
    image = make_images(1, torch.float64)
    twice = torch.cat([make_images(3, torch.float64), image, image])
    logits = defense(twice)
    assert torch.allclose(logits[3], logits[4], atol=1e-9)
    numbered = defense(twice, torch.arange(5))
    assert not torch.allclose(numbered[3], numbered[4], atol=1e-6)


def test_the_copy_follows_the_weights_and_dies_with_its_owner():
    network = make_network()
    defense = make_reverse("steps=3", network)
    images = make_images()
    before = defense(images)
    copies = len(_COPIES)
    defense(images)
    assert len(_COPIES) == copies
    with torch.no_grad():
        network.heads["contrast"][0].weight.neg_()
    after = defense(images)
    fresh = Reverse(network, defense.task, threat=defense.threat, steps=3, step_size=defense.step_size)
    assert not torch.equal(before, after)
    assert torch.equal(after, fresh(images))
    gc.collect()
    kept = len(_COPIES)
    del fresh
    gc.collect()
    assert len(_COPIES) == kept - 1
    assert torch.allclose(defense.double()(images.double()).float(), after, atol=0.05)


def test_bf16_searches_and_fp32_classifies():
    network = make_network()
    coarse, fine = (make_reverse(f"steps=3,precision={name}", network) for name in ("bf16", "fp32"))
    images = make_images(24)
    points = coarse.purified_images(images)
    assert not torch.equal(points, fine.purified_images(images))
    assert (points - fine.purified_images(images)).abs().gt(1e-6).float().mean() < 0.25
    with torch.no_grad():
        assert torch.equal(coarse(images), network(points))


def test_the_preset_has_the_settings_of_the_source():
    with pytest.warns(UnfoolWarning, match="batch-mates"):
        defense = make_defense("reverse:preset=mao2021", make_network(), CLASSES)
    assert (str(defense.threat), defense.steps, defense.start, defense.keep) == ("linf:16/255", 40, "random", "last")
    assert (defense.step_size, defense.draws, defense.redraw) == (2 / 255, 1, True)
    settings = defense.task.settings
    assert (settings.views, settings.temperature, settings.loss) == (4, 0.2, "first-positive")
    assert (settings.negatives, settings.augmentation, settings.size) == ("batch", "mao2021", 5)
    assert (defense.images_per_prediction, defense.own_batch_size) == (161, 512)
    changed = make_reverse("preset=mao2021,steps=3,negatives=bank", views=2)
    assert (changed.steps, changed.task.settings.views, changed.task.settings.temperature) == (3, 2, 0.5)
    assert changed.own_batch_size is None
    with pytest.raises(SpecError, match="mao2021"):
        make_reverse("preset=mao2012")


def in_batches(size, **settings):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnfoolWarning)
        return make_reverse(f"negatives=batch,batch_size={size},steps=2,eps=0.1", **settings)


def test_in_batch_negatives_are_those_of_the_reversal_s_batches_on_every_device():
    """The last batch is smaller, as the reference's is; what a device takes at a time changes no prediction."""
    network, table = make_network(), as_table((make_images(20), torch.arange(20) % 4))
    defense, smaller = in_batches(8, network=network), in_batches(4, network=network)
    small, large = (classify(defense, table, batch_size=size) for size in (3, 1000))
    assert small.losses == large.losses
    images, ids = table.batch().images, table.ids
    whole = defense.purify(images, ids)
    parts = [defense.purify(images[start : start + 8], ids[start : start + 8]) for start in (0, 8, 16)]
    assert torch.equal(whole.images, torch.cat([part.images for part in parts]))
    assert torch.equal(whole.losses, torch.cat([part.losses for part in parts], dim=1))
    assert whole.model_images == sum(part.model_images for part in parts)
    assert torch.allclose(defense.purified_images(images, ids, differentiable=True), whole.images, atol=1e-5)
    assert classify(smaller, table).losses != large.losses
    crafted = [craft(defense, table, "pgd-2:goal=last", batch_size=size) for size in (5, 1000)]
    assert torch.equal(crafted[0].images, crafted[1].images)
    corrupted = [
        classify_corrupted(defense, table, names=["fog"], severities=[1], batch_size=size) for size in (5, 1000)
    ]
    assert corrupted[0][0].losses == corrupted[1][0].losses


def test_where_an_image_is_left_over_it_joins_the_batch_before_it():
    images = make_images(17)
    defense = in_batches(8)
    whole, (first, last) = defense.purify(images), (defense.purify(images[rows]) for rows in (slice(8), slice(8, 17)))
    assert torch.equal(whole.images, torch.cat([first.images, last.images]))
    assert whole.losses.shape == (3, 17)
    assert defense.purified_images(images, differentiable=True).shape == images.shape
    assert [len(range(17)[part]) for part in spans_of_mates(17, 5)] == [5, 5, 5, 2]
    assert spans_of_mates(16, 8) == [slice(0, 8), slice(8, 16)]
    assert spans_of_mates(1, 8) == [slice(0, 1)]


def test_the_bank_is_the_default_and_must_be_filled():
    defense = make_defense("reverse:steps=2", make_network(), CLASSES)
    assert defense.task.settings.negatives == "bank"
    with pytest.raises(SpecError, match="calibrate"):
        defense(make_images())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("norm=l2", "give eps beside it"),
        ("norm=l3,eps=1", "norm"),
        ("eps=16", "linf:16/255 was meant"),
        ("keep=first", "keep"),
        ("start=zero", "start"),
        ("precision=fp8", "precision"),
        ("draws=0", "draws"),
        ("steps=-1", "steps"),
        ("step_size=-1", "step"),
        ("size=9", "leave its sizes out"),
        ("views=1", "views"),
    ],
)
def test_settings_that_are_not_allowed(text, words):
    with pytest.raises(SpecError, match=words):
        make_reverse(text)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"keep": "first"}, "keep"),
        ({"start": "zero"}, "start"),
        ({"precision": "fp8"}, "precision"),
        ({"draws": 0}, "draws"),
        ({"steps": -1}, "steps"),
    ],
)
def test_the_class_refuses_them_too(values, words):
    task = make_task("contrast", {"negatives": "bank"})
    with pytest.raises(SpecError, match=words):
        Reverse(make_network(), task, **values)
    with pytest.raises(SpecError, match="labels label"):
        Reverse(make_network(), make_task("labels"))


def test_the_text_says_it_all():
    defense = make_reverse("norm=l2,eps=0.5,steps=7,draws=2,redraw=false,keep=best,start=image,temperature=0.9")
    assert str(defense.threat) == "l2:0.5"
    assert (defense.steps, defense.draws, defense.redraw, defense.keep) == (7, 2, False, "best")
    assert defense.step_size == 0.5 / 8
    assert defense.task.settings.temperature == 0.9
    assert defense.task.settings.bank == SMALL["bank"]
    assert defense.network is defense.classifier
    assert isinstance(defense, Defense)


def test_an_aware_attacker_pays_for_what_the_task_notices():
    network = make_network()
    defense = make_reverse("steps=3", network)
    images, rows = make_images(), torch.arange(6)
    labels = torch.tensor([0, 1, 2, 3, 0, 1])
    own = Streams(0).named("reverse").at(0)
    with torch.no_grad():
        plain = torch.nn.functional.cross_entropy(network(images), labels, reduction="none")
        noticed = defense.objective(torch.zeros_like(labels), own)(images, rows).losses
        aware = pretext_aware(defense, labels, 10.0, streams=own)
        assert torch.allclose(aware(images, rows).losses, plain - 10 * noticed, atol=1e-4)
        assert not torch.allclose(aware(images, rows).losses, plain - 10 * noticed, atol=1e-4)
        assert torch.equal(aware(images, rows).fooled, network(images).argmax(1) != labels)
        chosen = torch.tensor([4, 1])
        part = pretext_aware(defense, labels, 10.0, streams=own).subset(chosen)(images[chosen], torch.arange(2))
        assert torch.allclose(part.losses, (plain - 10 * noticed)[chosen], atol=1e-4)


def test_the_task_is_the_only_one_there_is_unless_it_is_named():
    network = make_network()
    assert type(make_defense("reverse:steps=2", network, CLASSES).task).__name__ == "Contrast"
    network.heads["rotation"] = build_head({"kind": "linear", "inputs": network.trunk.channels["last"], "outputs": 4})
    assert type(make_defense("reverse:steps=2,task=rotation", network, CLASSES).task).__name__ == "Rotation"
    with pytest.raises(SpecError, match="contrast, rotation"):
        make_defense("reverse:steps=2", network, CLASSES)
    del network.heads["rotation"], network.heads["contrast"]
    with pytest.raises(SpecError, match="heads for 0 tasks"):
        make_defense("reverse:steps=2", network, CLASSES)


def test_no_defense_names_a_task():
    for path in Path(defenses.__file__).parent.glob("*.py"):
        code = ast.parse(path.read_text(encoding="utf-8"))
        texts = {node.value for node in ast.walk(code) if isinstance(node, ast.Constant)}
        assert not texts & set(TASKS), path
