"""System E as data: the source's figures and settings, written out again here as literal numbers."""

import pytest
from scale_fields import flatten

from unfool.attacks import make_attack
from unfool.models.trunks import empty_trunk
from unfool.studies.noisy_rotation import NoisyRotation
from unfool.studies.noisy_rotation.networks import extractor, probes
from unfool.studies.noisy_rotation.scales import (
    DEMO,
    FULL,
    HALF,
    HALF_RESNET,
    LONGER,
    NOISE,
    PUBLISHED,
    REACHES,
    ROTATION,
    SMALL,
    SOURCE,
    STAGES,
    WHOLE,
)

SCALES = [DEMO, SMALL, SOURCE, FULL]


def run_config(settings, plan):
    return extractor(settings, plan).config


OF_THE_SOURCE = {
    "data": "stl10",
    "unlabelled": ("stl10", "unlabelled"),
    "size": 64,
    "trunks.whole": {"name": "vgg16", "channels": 3, "settings.width": 1.0},
    "rotation": {
        "task": "rotation",
        "weight": 1.0,
        "perturbed": True,
        "settings": {"turns": "one", "augmentation": "none"},
    },
    "pretrain": {
        "epochs": 60,
        "steps": 0,
        "batch_size": 128,
        "optimizer": "sgd",
        "learning_rate": 0.1,
        "weight_decay": 1e-4,
        "momentum": 0.9,
        "nesterov": False,
        "schedule": "step",
        "warmup_epochs": 0,
        "drop_every": 25,
        "drop_factor": 0.1,
        "trainable": "all",
        "precision": "fp32",
    },
    "noises.as written": "pgd-5:random_start=false,step_size=0.001",
    "threat": "linf:0.01",
    "probe": {
        "epochs": 120,
        "batch_size": 64,
        "learning_rate": 0.1,
        "drop_every": 30,
        "momentum": 0.9,
        "weight_decay": 5e-4,
        "standardise": False,
        "precision": "fp32",
    },
    "labelled": 5000,
    "held_out": 0,
}
"""What the source states."""
CUT_OF_FULL = {"labelled": 4500, "held_out": 500, "attacked": 1000}
"""What `full` has in place of that, and of all test images."""
NAMED_OF_FULL = {
    "labelled": "{:,} of STL-10's 5,000 labelled images",
    "held_out": "on the other {}",
    "attacked": "{:,} of STL-10's 8,000 test images",
}
"""How `full` names each cut."""


def plan(name, task="rotation", noise=None, trunk="whole", longer=False, attacked=False):
    return {"name": name, "task": task, "noise": noise, "trunk": trunk, "longer": longer, "attacked": attacked}


PRETRAININGS = (
    plan("rotation", attacked=True),
    plan("rotation + adversarial noise", noise="as written", attacked=True),
    plan("rotation, for longer", longer=True),
    plan("rotation + noise that reaches eps", noise="reaching eps", attacked=True),
    plan("labels", "labels", attacked=True),
    plan("labels + noise", "labels", "labels", attacked=True),
    plan("half width, rotation", trunk="half width"),
    plan("half width, rotation + adversarial noise", noise="as written", trunk="half width"),
    plan("half-width ResNet-50, rotation", trunk="half-width ResNet-50"),
    plan("half-width ResNet-50, rotation + adversarial noise", noise="as written", trunk="half-width ResNet-50"),
    plan("random weights", None),
)
CUT_PRETRAININGS = (
    *PRETRAININGS[:3],
    plan("half width, labels", "labels", trunk="half width"),
    plan("half width, labels + noise", "labels", "labels", "half width"),
    PRETRAININGS[-1],
)
OURS = {
    "labels": ("tiny-imagenet", "label"),
    "normalisation": "imagenet",
    "trunks.half width": {"name": "vgg16", "channels": 3, "settings.width": 0.5},
    "trunks.half-width ResNet-50": {
        "name": "resnet50",
        "channels": 3,
        "settings.stem": "imagenet",
        "settings.width": 0.5,
    },
    "pretrainings": PRETRAININGS,
    "pretrain": {
        # These two are set for each network.
        "tasks.labels": {"task": "labels", "weight": 1.0, "perturbed": True, "settings": {}},
        "perturb": None,
        "threat": "linf:8/255",
        "constant_epochs": 0,
        "cosine_epochs": 0,
        "decay": 0.95,
        "adversarial": "plain",
        "statistics": "shared",
        "beta": 6.0,
        "awp": 0.0,
        "ema": 0.0,
        "held_out": 0,
        "stop_attack": "pgd-10",
    },
    "times": 4,
    "noises.reaching eps": "pgd-5:random_start=true,step_size=0.0025",
    "noises.labels": "pgd-5:random_start=true,step_size=0.0025",
    "probe": {"seeds": (0, 1, 2, 3, 4), "neighbours": 0, "memory": 4.0},
    "attacked": 8000,
    "attack": "autoattack",
    "threats": ("linf:0.01", "linf:8/255"),
    "precision": "fp32",
}
"""What it does not state, or what this study adds."""
CUT = {
    "data": "imagenette96_sub",
    "unlabelled.0": "tiny_imagenet_sub40",
    "unlabelled.1": "train",
    "labels.0": "tiny_imagenet_sub40",
    "pretrain.epochs": 4,
    "pretrain.drop_every": 2,
    "pretrain.warmup_epochs": 1,
    "pretrain.precision": "bf16",
    "noises.labels": "fgsm:random_start=true,step_size=0.0125",
    "probe.precision": "bf16",
    "labelled": 1800,
    "held_out": 200,
    "attacked": 200,
    "attack": "apgd-t:steps=30",
    "precision": "bf16",
}
"""What `source` has in place of these."""
NAMED = {
    "data": "Imagenette",
    "unlabelled.0": "Tiny-ImageNet images",
    "unlabelled.1": "10,000 of 40 classes, no labels",
    "labels.0": "Tiny-ImageNet images (10,000 of 40 classes",
    "pretrain.epochs": "{} epochs for 60",
    "pretrain.drop_every": "every {} for every 25",
    "pretrain.warmup_epochs": "rate rises over the first epoch",
    "pretrain.precision": "its passes in {}",
    "noises.labels": "one step (FGSM with a random start)",
    "probe.precision": "the probe's features in {}",
    "labelled": "{:,} labels",
    "held_out": "{} more to choose a stage",
    "attacked": "on {} images",
    "attack": "targeted APGD of 30 steps",
    "precision": "which searches in {}",
}
"""How `source` names each cut."""


def test_full_has_the_source_s_values_in_every_field_but_for_the_cuts_that_it_names():
    uncut = {**flatten(OF_THE_SOURCE), **flatten(OURS)}
    assert flatten(FULL) == {**uncut, **CUT_OF_FULL}
    words = " ".join(NoisyRotation().cuts("full"))
    for path, value in CUT_OF_FULL.items():
        assert uncut[path] != value
        assert NAMED_OF_FULL[path].format(value) in words, path


def test_source_has_them_too_but_for_the_cuts_that_it_names():
    fields, uncut = flatten(SOURCE), flatten(FULL)
    plans = {path: value for path, value in fields.items() if path.startswith("pretrainings.")}
    assert plans == flatten({"pretrainings": CUT_PRETRAININGS})
    fields, uncut = (
        {path: value for path, value in every.items() if not path.startswith("pretrainings.")}
        for every in (fields, uncut)
    )
    differing = {path: value for path, value in fields.items() if uncut.get(path) != value}
    assert differing == CUT
    assert set(uncut) <= set(fields)
    words = " ".join(NoisyRotation().cuts("source"))
    assert "by an extractor of half the width" in words
    assert "noise that reaches eps and smaller extractors are at small and full" in words
    for path, value in CUT.items():
        assert NAMED[path].format(value) in words, path


def test_the_drops_keep_their_share_of_the_epochs():
    """25 of 60 epochs before each drop, to the nearest whole epoch."""
    for scale in (SOURCE, FULL):
        assert scale.pretrain.drop_every == round(scale.pretrain.epochs * 25 / 60)


TABLE = """
                              POOL-1 POOL-2 POOL-3 POOL-4 POOL-5
rotation                        48.7   60.9   60.3   59.9   47.9
rotation + adversarial noise    48.5   60.1   64.6   66.5   54.9
"""
INPUTS = {"pool1": 6400, "pool2": 3200, "pool3": 1024, "pool4": 2048, "pool5": 512}


def test_the_table_is_the_source_s():
    columns, *lines = TABLE.strip().splitlines()
    assert columns.lower().replace("-", "").split() == list(STAGES)
    expected = {}
    for line in lines:
        *words, a, b, c, d, e = line.split()
        figures = zip(STAGES, map(float, (a, b, c, d, e)), strict=True)
        expected |= {(" ".join(words), stage): figure for stage, figure in figures}
    assert expected == PUBLISHED.figures
    assert {ROTATION.name, NOISE.name} == {model for model, _ in PUBLISHED.figures}


def test_probes_read_as_many_numbers_as_the_source_s():
    trunk = empty_trunk(FULL.trunks[WHOLE])
    assert {stage: trunk.channels[stage] * trunk.probe_sizes[stage] ** 2 for stage in STAGES} == INPUTS


def test_the_noise_is_the_source_s_and_the_other_one_reaches_its_eps():
    """Five steps of 0.001 from the image itself end at 0.005; 5 × 0.0025 do not."""
    for settings in SCALES:
        assert settings.threat == "linf:0.01"
        texts = [run_config(settings, plan).stages[0].perturb or "" for plan in (NOISE, REACHES)]
        written, reaching = (make_attack(text, "linf:0.01").settings for text in texts)
        assert (written["steps"], written["step_size"], written["random_start"]) == (5, 0.001, False)
        assert (reaching["steps"], reaching["random_start"]) == (5, True)
        assert reaching["steps"] * reaching["step_size"] > 0.01


@pytest.mark.parametrize("settings", SCALES)
def test_pretrainings_differ_in_what_they_say_alone(settings):
    rotation = run_config(settings, ROTATION)
    widths = [settings.trunks[name].settings.width for name in (WHOLE, HALF, HALF_RESNET)]
    assert widths == [widths[0], widths[0] / 2, widths[0] / 2]
    (clean,) = rotation.stages
    for plan in settings.pretrainings:
        if plan.task is None:
            continue
        config = run_config(settings, plan)
        assert config.trunk == settings.trunks[plan.trunk]
        assert config.normalisation == settings.normalisation
        (stage,) = config.stages
        times = settings.times if plan is LONGER else 1
        assert (stage.perturb is None) == (plan.noise is None)
        assert (stage.epochs, stage.drop_every) == (clean.epochs * times, clean.drop_every * times)
        assert (stage.learning_rate, stage.batch_size, stage.nesterov) == (0.1, 128, False)
        (task,) = stage.tasks.values()
        if plan.task == "rotation":
            assert (config.data, task.task) == (settings.unlabelled[0], "rotation")
            assert task.settings == {"turns": "one", "augmentation": "none"}
        else:
            assert (config.data, task.settings["column"]) == settings.labels
            assert config.data != settings.data or task.settings["column"] != "label"


def test_longer_computes_for_about_as_long_as_the_noise():
    """A step of crafting takes 0.6 of a step of learning, since it needs no gradient of a weight."""
    for settings in (SMALL, SOURCE, FULL):
        noise = make_attack(run_config(settings, NOISE).stages[0].perturb, settings.threat)
        assert settings.times == pytest.approx(1 + 0.6 * noise.settings["steps"])


def test_small_attacks_as_full_does():
    assert (SMALL.attack, SMALL.threats, SMALL.probe.seeds) == (FULL.attack, FULL.threats, FULL.probe.seeds)
    assert SMALL.attacked >= 200
    assert SMALL.labelled + SMALL.held_out == 5000


def test_every_pretraining_has_a_path_of_its_own():
    paths = [probes(FULL, plan).path for plan in FULL.pretrainings]
    assert len(set(paths)) == 11
    assert all(" " not in path for path in paths)
