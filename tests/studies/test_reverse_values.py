"""Every field of system B's source and full scales, beside the source's values or the cut that names its own."""

import pytest
from scale_fields import flatten

from unfool.studies.reverse_attack import ReverseAttack
from unfool.studies.reverse_attack.scales import FULL, SMALL, SOURCE

UNUSED = {
    "adversarial": "plain",
    "awp": 0.0,
    "beta": 6.0,
    "constant_epochs": 0,
    "cosine_epochs": 0,
    "decay": 0.95,
    "drop_every": 30,
    "drop_factor": 0.1,
    "ema": 0.0,
    "held_out": 0,
    "statistics": "shared",
    "steps": 0,
    "stop_attack": "pgd-10",
    "warmup_epochs": 0,
    "threat": "linf:8/255",
}
"""Fields of a stage that the source's stages do not use, at their defaults."""


def stage(name, task, **values):
    both = {
        **UNUSED,
        "momentum": 0.9,
        "perturb": None,
        "precision": "fp32",
        "trainable": "all",
        f"tasks.{task}.task": task,
        f"tasks.{task}.perturbed": True,
        f"tasks.{task}.weight": 1.0,
    }
    return {f"{name}.{key}": value for key, value in (both | values).items()}


HEAD = stage(
    "contrast",
    "contrast",
    epochs=201,
    batch_size=1024,
    optimizer="adam",
    learning_rate=1e-4,
    weight_decay=0.0,
    nesterov=True,
    schedule="constant",
    trainable="heads",
) | {
    "contrast.tasks.contrast.settings.temperature": 0.2,
    "contrast.tasks.contrast.settings.hidden": 256,
    "contrast.tasks.contrast.settings.size": 16,
    "contrast.tasks.contrast.settings.head_norm": "batch",
    "contrast.tasks.contrast.settings.augmentation": "mao2021",
}
EVALUATION = {
    "data": "cifar10",
    "base": "",
    "threats.linf": "linf:8/255",
    "threats.l2": "l2:8/255",
    "threats.l1": "l1:8/255",
    "steps": 10,
    "reversal.preset": "mao2021",
    "reversal.steps": 40,
    "reversal.views": 4,
    "reversal.negatives": "batch",
    "reversal.batch_size": 512,
    "fixed.negatives": "bank",
    "fixed.bank": 2048,
    "fixed.drawn": 511 * 4,
    "attacked": 10_000,
    "reversed": 0,
    "corrupted": 10_000,
    "severity": 3,
    "yardstick": "autoattack",
    "gated": True,
    "ladder.threat": "linf:8/255",
    "ladder.seed": 0,
    "ladder.images": 10_000,
    "ladder.steps": 50,
    "ladder.draws": 8,
    "ladder.targets": 3,
    "ladder.queries": 100,
    "ladder.restarts": 1,
    "ladder.batch_size": None,
    "ladder.precision": "fp32",
    **{f"ladder.lambdas.{place}": value for place, value in enumerate((0.1, 1.0, 10.0))},
    **{f"negatives.{place}": value for place, value in enumerate((16, 64, 256, 512, 511 * 4))},
}
CARMON = {
    "epochs": 200,
    "batch_size": 256,
    "optimizer": "sgd",
    "learning_rate": 0.1,
    "weight_decay": 5e-4,
    "nesterov": True,
    "schedule": "cosine",
    "tasks.labels.settings": {},
}
WIDE = {
    "trunk.name": "wide-resnet",
    "trunk.depth": 28,
    "trunk.width": 10,
    **stage("robust", "labels", **(CARMON | {"perturb": "pgd-10", "adversarial": "trades"})),
    **stage("normal", "labels", **CARMON),
}
FAST_AT = {
    "epochs": 15,
    "batch_size": 128,
    "optimizer": "sgd",
    "learning_rate": 0.2,
    "weight_decay": 5e-4,
    "nesterov": False,
    "schedule": "triangle",
    "perturb": "fgsm:random_start=true,step_size=10/255",
    "tasks.labels.settings": {},
}
NARROW = {"trunk.name": "preact-resnet18", **stage("robust", "labels", **FAST_AT), "normal": None}

BF16 = ("bf16", "Training computes in bf16, where the source has fp32")
CUTS = {
    "source": {
        "robust.precision": BF16,
        "contrast.precision": BF16,
        "robust.epochs": (6, "6 epochs of 15"),
        "contrast.epochs": (5, "5 epochs of 201"),
        "contrast.tasks.contrast.settings.hidden": (205, "512→205→16 units for 640→256→16"),
        "attacked": (512, "512 images of 10,000"),
        "reversed": (512, "512 images of 10,000"),
        "fixed.steps": (5, "5 steps of reversal"),
        "corrupted": (64, "64 images at"),
        "gated": (False, "the gated ladder"),
        "yardstick": ("autoattack:queries=1000", "1,000 queries of 5,000"),
        "ladder.images": (100, "100 images"),
        "ladder.steps": (10, "10 steps"),
        "ladder.draws": (2, "2 draws"),
        "ladder.lambdas.0": (10.0, "lambda 10 alone"),
        "ladder.queries": (50, "50 queries"),
        "ladder.precision": ("bf16", "attacks search and the reversal descends in bf16"),
    },
    "full": {
        "robust.precision": BF16,
        "normal.precision": BF16,
        "contrast.precision": BF16,
        "robust.held_out": (1500, "1,500 held-out images"),
        "corrupted": (1_000, "1,000 images"),
        "ladder.images": (1_000, "attacks 1,000 images"),
    },
}
"""What a scale cuts: the value, and the words that name it."""
OURS = {"negatives.0": 64, "negatives.1": 256, "negatives.2": 2044}
"""Fields of the source scale that no source has: a chart."""


@pytest.mark.parametrize(
    ("name", "scale", "values"),
    [("source", SOURCE, EVALUATION | HEAD | NARROW | OURS), ("full", FULL, EVALUATION | HEAD | WIDE)],
)
def test_every_field_is_the_source_s_or_a_named_cut(name, scale, values):
    fields = flatten(scale)
    cut = CUTS[name]
    for path, value in fields.items():
        if path in cut:
            own, words = cut[path]
            assert value == own != values.get(path), path
            assert any(words in text for text in ReverseAttack().cuts(name)), path
        else:
            assert value == values[path], path
    # What a cut scale has fewer of: weights of the defense-aware attack, and points of a chart.
    shorter = {path for path in values if path.rpartition(".")[0] in ("ladder.lambdas", "negatives")}
    assert values.keys() - fields.keys() <= (shorter if name == "source" else set())


def test_small_names_how_it_deviates():
    """Among it the momentum: the paper of FGSM-RS has plain momentum."""
    fields, words = flatten(SMALL), " ".join(ReverseAttack().cuts("small"))
    for path, value, named in (
        ("trunk.widths.2", 128, "a convnet of 32, 64 and 128 channels"),
        ("robust.epochs", 24, "FGSM-RS for 24 epochs"),
        ("robust.precision", *BF16),
        ("normal.precision", *BF16),
        ("contrast.precision", *BF16),
        ("ladder.precision", *CUTS["source"]["ladder.precision"]),
        ("robust.nesterov", True, "Its momentum is Nesterov's, where the paper of FGSM-RS has plain momentum"),
        ("contrast.tasks.contrast.settings.hidden", 128, "128→128→16 units"),
        ("contrast.tasks.contrast.settings.size", 16, "128→128→16 units"),
        ("contrast.epochs", 5, "5 epochs of 201"),
        ("contrast.batch_size", 256, "in batches of 256"),
        ("contrast.learning_rate", 1e-3, "a rate of 0.001"),
        ("reversal.steps", 10, "10 steps of 2 views"),
        ("reversal.views", 2, "10 steps of 2 views"),
        ("attacked", 500, "500 images of 10,000"),
        ("corrupted", 200, "200 of them"),
        ("ladder.images", 200, "200 of them"),
    ):
        assert fields[path] == value, path
        assert named in words, named
