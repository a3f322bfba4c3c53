"""System A as data: the source's table and values, written out again here as literal numbers."""

import pytest
from scale_fields import flatten

from unfool.evaluation import Records
from unfool.studies.contrastive_multitask import ContrastiveMultitask
from unfool.studies.contrastive_multitask.scales import ATTACKS, PUBLISHED, STEP_SIZE, TEMPERATURE, THREAT
from unfool.studies.framework import Attacked, Clean, row_of
from unfool.training.schedule import learning_rate, stage_length

TABLE = """
cifar10   single-task           82.46  2.89  0.04  0.00  0.00
cifar10   simclr multitask      73.16 58.61 60.62 59.95 59.89
cifar100  single-task           48.99  2.77  0.37  0.18  0.13
cifar100  supervised multitask  50.47 23.20 25.64 23.59 23.49
cifar100  simclr multitask      44.37 32.49 42.62 33.92 33.53
"""
MAIN = "ResNet-18, ImageNet stem"
WRITTEN, MEANT = "as written: 0.5 labels + 1 contrast", "as meant: 0.5 labels + 0.5 contrast"
SINGLE, VIEWS, SIMCLR = "single-task", "labels on SimCLR views", "simclr multitask"
SUPERVISED, ADVERSARIAL = "supervised multitask", "PGD-10 training"
STAGE = {
    "tasks.labels.task": "labels",
    "tasks.labels.weight": 1.0,
    "tasks.labels.perturbed": True,
    "tasks.labels.settings": {},
    "epochs": 100,
    "steps": 0,
    "batch_size": 256,
    "optimizer": "adam",
    "learning_rate": 3e-4,
    "weight_decay": 1e-4,
    "momentum": 0.9,
    "nesterov": True,
    "schedule": "cosine",
    "constant_epochs": 10,
    "cosine_epochs": 195,
    "warmup_epochs": 0,
    "drop_every": 30,
    "drop_factor": 0.1,
    "decay": 0.95,
    "trainable": "all",
    "precision": "fp32",
    "perturb": None,
    "threat": "linf:8/255",
    "adversarial": "plain",
    "statistics": "shared",
    "beta": 6.0,
    "awp": 0.0,
    "ema": 0.0,
    "held_out": 0,
    "stop_attack": "pgd-10",
}
"""The source's training; momentum, drops, decay, threat, beta and stop attack are of other optimizers and schedules."""
SCALE = {
    "data.cifar10.0": "label",
    "data.cifar10.1": None,
    "data.cifar100.0": "fine_label",
    "data.cifar100.1": "coarse_label",
    "attacked": 10_000,
    "precision": "fp32",
}
VARIANT = {
    "words": MAIN,
    "trunk.name": "resnet18",
    "trunk.channels": 3,
    "trunk.settings.stem": "imagenet",
    "trunk.settings.width": 1.0,
    **{f"stage.{name}": value for name, value in STAGE.items()},
    "hidden": 512,
    "seeds.0": 0,
    "seeds.1": 1,
    "seeds.2": 2,
    "sets": (),
    "main": True,
    "meant.0": "cifar10",
    "meant.1": "cifar100",
    "adversarial_steps": 3545,
}
CIFAR_STEM = {
    **{name: value for name, value in VARIANT.items() if not name.startswith(("seeds.", "meant."))},
    "words": "ResNet-18, CIFAR stem",
    "trunk.settings.stem": "cifar",
    "seeds.0": 0,
    "main": False,
    "meant": (),
    "adversarial_steps": 0,
}
CUTS = {
    "Epochs": {"stage.epochs": (20, 8), "sets": None, "sets.0": ("cifar10", "cifar100")},
    "Schedule": {"stage.constant_epochs": (2, 1), "stage.cosine_epochs": (0, 0)},
    "Images": {"attacked": (1_000, 1_000)},
    "Precision": {"stage.precision": ("bf16", "bf16"), "precision": ("bf16", "bf16")},
    "Rows": {
        "seeds.1": None,
        "seeds.2": None,
        "meant": ((), ()),
        "meant.0": None,
        "meant.1": None,
        "adversarial_steps": (709, 0),
    },
}
"""What differs at scale source on CIFAR-10 and CIFAR-100, by the cut that names it; None: there is no such field."""


@pytest.fixture(params=["demo", "small", "source", "full"])
def planned(request):
    settings = ContrastiveMultitask.scales[request.param]
    return request.param, settings, ContrastiveMultitask().networks(settings)


@pytest.fixture
def full():
    settings = ContrastiveMultitask.scales["full"]
    return settings, ContrastiveMultitask().networks(settings)


def test_every_field_of_full_is_the_source_s():
    variants = {
        f"variants.{place}.{name}": value
        for place, variant in enumerate((VARIANT, CIFAR_STEM))
        for name, value in variant.items()
    }
    assert flatten(ContrastiveMultitask.scales["full"]) == {**SCALE, **variants}


def test_a_field_of_source_that_differs_is_named_as_a_cut():
    fields = flatten(ContrastiveMultitask.scales["source"])
    cuts = ContrastiveMultitask().cuts("source")
    assert [cut.partition(" ")[0].strip(":,") for cut in cuts] == list(CUTS)
    named = {name: values for names in CUTS.values() for name, values in names.items()}
    for place in (0, 1):
        expected = {**SCALE, **{f"variants.{place}.{name}": value for name, value in VARIANT.items()}}
        for name, values in named.items():
            path = name if name in SCALE else f"variants.{place}.{name}"
            expected.pop(path, None)
            expected |= {} if values is None else {path: values[place]}
        assert {name: value for name, value in fields.items() if f"variants.{1 - place}." not in name} == expected
    words = " ".join(cuts)
    for part in (
        "20 on CIFAR-10 and 8 on CIFAR-100 for 100",
        "deviates from the source's: the learning rate falls by a cosine after 2 and 1 epochs, for 10, and reaches 0",
        "the source's cosine takes 195 epochs",
        "1,000 test images are attacked, for 10,000",
        "bf16 in training and in the search",
        "one training seed",
        "PGD-10 training on CIFAR-10 alone",
    ):
        assert part in words, part


def test_the_source_s_rate_stays_above_half_and_that_of_scale_source_does_not():
    """What the cut says of the two schedules."""
    shares = {}
    for scale in ("source", "full"):
        stage = ContrastiveMultitask.scales[scale].variants[0].stage
        steps, epoch = stage_length(stage, 50_000)
        shares[scale] = [learning_rate(stage, step, steps, epoch) / 3e-4 for step in range(0, steps, epoch)]
    # A cosine is full at its beginning: after 2 epochs, and after 10.
    assert [sum(share == 1 for share in shares[scale]) for scale in ("source", "full")] == [3, 11]
    assert min(shares["full"]) > 0.5 > 0.05 > shares["source"][-1]


def test_the_table_is_the_source_s():
    expected = {}
    for line in TABLE.strip().splitlines():
        data, rest = line.split(maxsplit=1)
        *words, clean, fgsm, pgd7, pgd20, pgd50 = rest.split()
        figures = zip(("none", *ATTACKS), map(float, (clean, fgsm, pgd7, pgd20, pgd50)), strict=True)
        expected |= {(data, " ".join(words), attack): figure for attack, figure in figures}
    assert expected == PUBLISHED.figures


def test_attacks_are_the_source_s():
    assert ATTACKS == ("fgsm", "pgd-7", "pgd-20", "pgd-50")
    assert (THREAT, STEP_SIZE, TEMPERATURE) == ("linf:8/255", "2/255", 0.07)


def test_networks_differ_in_their_tasks_alone(planned):
    _, settings, networks = planned
    for item in networks:
        config, variant = item.config, next(each for each in settings.variants if each.words == item.key["trunk"])
        (stage,) = config.stages
        assert (config.seed, config.normalisation, config.trunk) == (item.seed, "none", variant.trunk)
        assert (stage.optimizer, stage.learning_rate, stage.batch_size) == (
            variant.stage.optimizer,
            variant.stage.learning_rate,
            variant.stage.batch_size,
        )
        assert stage.perturb == ("pgd-10" if item.model == ADVERSARIAL else None)
        tasks = {name: (task.task, task.weight, task.settings) for name, task in stage.tasks.items()}
        column, auxiliary = settings.data[item.data]
        labels = {"column": column, "hidden": variant.hidden}
        views = {**labels, "augmentation": "simclr", "views": 2}
        contrast = 0.5 if item.key["loss"] == MEANT else 1.0
        assert (
            tasks
            == {
                SINGLE: {"labels": ("labels", 1.0, labels)},
                ADVERSARIAL: {"labels": ("labels", 1.0, labels)},
                VIEWS: {"labels": ("labels", 0.5, views)},
                SIMCLR: {
                    "labels": ("labels", 0.5, views),
                    "contrast": ("contrast", contrast, {"temperature": 0.07}),
                },
                SUPERVISED: {
                    "labels": ("labels", 1.0, labels),
                    "coarse": ("labels", 1.0, {**labels, "column": auxiliary}),
                },
            }[item.model]
        )


def test_adversarial_training_sends_as_many_images_through_its_network_as_contrast(planned):
    images = {"digits": 1400, "cifar10": 50_000, "cifar100": 50_000}
    _, _, networks = planned
    adversarial = [item for item in networks if item.model == ADVERSARIAL]
    assert adversarial
    for item in adversarial:
        contrast = next(each for each in networks if each.key == {**item.key, "model": SIMCLR, "loss": WRITTEN})
        (stage,) = contrast.config.stages
        both_views = 2 * stage.epochs * (images[item.data] // stage.batch_size) * stage.batch_size
        assert item.config.model_images(images[item.data]) == pytest.approx(both_views, rel=0.04)


def test_every_table_has_both_controls(planned):
    scale, settings, networks = planned
    described = {(item.data, item.key["trunk"], item.model, item.seed, item.key["loss"]) for item in networks}
    assert len(described) == len(networks)
    for data in settings.data:
        for variant in settings.variants:
            if variant.sets and data not in variant.sets:
                continue
            for seed in variant.seeds:
                for model, loss in ((SINGLE, ""), (VIEWS, ""), (SIMCLR, WRITTEN)):
                    assert (data, variant.words, model, seed, loss) in described
            assert len({each[3] for each in described if each[:3] == (data, variant.words, SINGLE)}) >= 2
    supervised = {each[0] for each in described if each[2] == SUPERVISED}
    assert supervised == {data for data, (_, auxiliary) in settings.data.items() if auxiliary}
    if scale == "full":
        assert ("cifar100", "ResNet-18, CIFAR stem", SIMCLR, 0, WRITTEN) in described
        assert ("cifar100", MAIN, SIMCLR, 0, MEANT) in described
    if scale in ("small", "full"):
        assert len({item.seed for item in networks}) == 3


def test_the_source_s_figures_stand_beside_rows_of_its_own_protocol_only(full):
    """Its second and third model were judged by transfer, its first white-box; the loss as meant was never run."""
    _, planned = full
    main = [item for item in planned if item.key["trunk"] == MAIN and item.seed == 0]

    def value(data, model, attack, protocol, loss=None):
        (network,) = [
            item
            for item in main
            if (item.data, item.model) == (data, model) and (loss is None or loss in item.key["loss"])
        ]
        hashes = {"clean": (None, None), "white-box": ("a", "a"), "transfer": ("a", "b")}[protocol]
        one = {"ids": [0], "correct": [True], "losses": [0.0], "distances": [0.0], "cpu_seconds": 0.0}
        found = Records(
            **one,
            attack=attack,
            threat="linf:8/255",
            data=data,
            split="test",
            seed=0,
            model_images=1,
            crafted_on=hashes[0],
            judged_on=hashes[1],
        )
        row = row_of(found, network, {})
        assert row.protocol == protocol
        return PUBLISHED.of(row)

    assert value("cifar10", "single-task", "none", "clean") == 0.8246
    assert value("cifar10", "single-task", "pgd-7", "white-box") == 0.0004
    assert value("cifar10", "simclr multitask", "none", "clean", "written") == 0.7316
    assert value("cifar10", "simclr multitask", "pgd-7", "transfer", "written") == 0.6062
    assert value("cifar10", "simclr multitask", "pgd-7", "white-box", "written") is None
    assert value("cifar10", "simclr multitask", "pgd-7", "transfer", "meant") is None
    assert value("cifar10", "simclr multitask", "none", "clean", "meant") is None
    assert value("cifar100", "supervised multitask", "pgd-50", "transfer") == 0.2349
    assert value("cifar100", "supervised multitask", "pgd-50", "white-box") is None


def test_transfer_examples_are_crafted_on_a_single_task_network_of_another_seed(planned):
    _, settings, networks = planned
    assert len({item.path for item in networks}) == len(networks)
    measurements = list(ContrastiveMultitask().measurements(settings, networks))
    assert sum(isinstance(item, Clean) for item in measurements) == len(networks)
    transferred = [item for item in measurements if isinstance(item, Attacked) and item.examples.network != item.system]
    assert len(transferred) == 4 * len(networks)
    for item in transferred:
        single = item.examples.network
        assert single.seed != item.system.seed
        assert single.key == {**item.system.key, "model": SINGLE, "loss": "", "seed": single.seed}
        assert item.examples.kept
        assert item.examples.attack.settings["goal"] == "last"
