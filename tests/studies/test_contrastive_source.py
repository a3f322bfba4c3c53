"""System A as data: the source's table and values, written out again here as literal numbers."""

import pytest

from unfool.evaluation import Records
from unfool.studies.contrastive_multitask import ContrastiveMultitask
from unfool.studies.contrastive_multitask.scales import ATTACKS, PUBLISHED, STEP_SIZE, THREAT
from unfool.studies.framework import Attacked, Clean, row_of

TABLE = """
cifar10   single-task           82.46  2.89  0.04  0.00  0.00
cifar10   simclr multitask      73.16 58.61 60.62 59.95 59.89
cifar100  single-task           48.99  2.77  0.37  0.18  0.13
cifar100  supervised multitask  50.47 23.20 25.64 23.59 23.49
cifar100  simclr multitask      44.37 32.49 42.62 33.92 33.53
"""


@pytest.fixture(params=["demo", "small", "full"])
def planned(request):
    settings = ContrastiveMultitask.scales[request.param]
    return request.param, settings, ContrastiveMultitask().networks(settings)


@pytest.fixture
def full():
    settings = ContrastiveMultitask.scales["full"]
    return settings, ContrastiveMultitask().networks(settings)


MAIN = "ResNet-18, ImageNet stem"


def test_the_table_is_the_source_s():
    expected = {}
    for line in TABLE.strip().splitlines():
        data, rest = line.split(maxsplit=1)
        *words, natural, fgsm, pgd7, pgd20, pgd50 = rest.split()
        figures = zip(("none", *ATTACKS), map(float, (natural, fgsm, pgd7, pgd20, pgd50)), strict=True)
        expected |= {(data, " ".join(words), attack): figure for attack, figure in figures}
    assert expected == PUBLISHED.figures


def test_attacks_are_the_source_s():
    assert ATTACKS == ("fgsm", "pgd-7", "pgd-20", "pgd-50")
    assert (THREAT, STEP_SIZE) == ("linf:8/255", "2/255")


def test_full_is_the_source_s_values(full):
    settings, planned = full
    assert settings.data == {"cifar10": ("label", None), "cifar100": ("fine_label", "coarse_label")}
    assert settings.precision == "fp32"
    assert settings.attacked == 10_000
    for item in planned:
        config = item.config
        (stage,) = config.stages
        values = (stage.optimizer, stage.learning_rate, stage.weight_decay, stage.batch_size, stage.epochs)
        assert values == ("adam", 3e-4, 1e-4, 256, 100)
        assert (stage.schedule, stage.trainable, stage.perturb) == ("constant", "all", None)
        assert config.trunk.name == "resnet18"
        assert config.trunk.settings.width == 1.0
        assert config.trunk.settings.stem == ("imagenet" if item.key["trunk"] == MAIN else "cifar")
        assert stage.precision == "fp32" or item.key["trunk"] != MAIN
        tasks = {name: (task.task, task.weight, task.settings) for name, task in stage.tasks.items()}
        column = "label" if item.data == "cifar10" else "fine_label"
        assert tasks["labels"][2]["column"] == column
        assert all(settings["hidden"] == 512 for kind, _, settings in tasks.values() if kind == "labels")
        if item.model == "single-task":
            assert list(tasks) == ["labels"]
            assert tasks["labels"][1] == 1.0
        elif item.model == "supervised multitask":
            assert item.data == "cifar100"
            assert tasks["coarse"][2]["column"] == "coarse_label"
            assert (tasks["labels"][1], tasks["coarse"][1]) == (1.0, 1.0)
        else:
            assert (tasks["labels"][2]["views"], tasks["labels"][2]["augmentation"]) == (2, "simclr")
            assert tasks["contrast"][2]["temperature"] == 0.07
            assert (tasks["labels"][1], tasks["contrast"][1]) == (0.5, 0.5 if "meant" in item.key["loss"] else 1.0)


def test_full_has_both_stems_both_losses_and_several_seeds(full):
    _, planned = full
    found = {(item.data, item.key["trunk"], item.model, item.seed, item.key["loss"]) for item in planned}
    assert len(found) == len(planned)
    main = MAIN
    written, meant = "as written: 0.5 labels + 1 contrast", "as meant: 0.5 labels + 0.5 contrast"
    for data in ("cifar10", "cifar100"):
        for seed in (0, 1, 2):
            assert (data, main, "single-task", seed, "") in found
            assert (data, main, "simclr multitask", seed, written) in found
            assert (data, main, "simclr multitask", seed, meant) in found
        assert (data, "ResNet-18, CIFAR stem", "single-task", 0, "") in found
        assert (data, "ResNet-18, CIFAR stem", "simclr multitask", 0, written) in found
    assert ("cifar100", main, "supervised multitask", 2, "") in found
    assert not any(model == "supervised multitask" and data == "cifar10" for data, _, model, _, _ in found)


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


def test_transfer_examples_are_crafted_on_the_single_task_network_of_the_same_kind(planned):
    _, settings, networks = planned
    assert len({item.path for item in networks}) == len(networks)
    measurements = ContrastiveMultitask().measurements(settings, networks)
    assert sum(isinstance(item, Clean) for item in measurements) == len(networks)
    for item in measurements:
        if isinstance(item, Attacked) and item.examples.network != item.system:
            single = item.examples.network
            assert single.key == {**item.system.key, "model": "single-task", "loss": ""}
            assert item.examples.kept
            assert item.examples.attack.settings["goal"] == "last"


def test_every_scale_is_faithful_in_temperature_losses_and_budgets(planned):
    scale, settings, networks = planned
    assert {variant.temperature for variant in settings.variants} == {0.07}
    assert settings.attacked >= (500 if scale != "demo" else 100)
    for item in networks:
        if item.model == "simclr multitask":
            tasks = item.config.stages[0].tasks
            assert tasks["labels"].weight == 0.5
            assert tasks["contrast"].weight == (1.0 if item.key["loss"].startswith("as written") else 0.5)
    if scale == "small":
        assert len({item.seed for item in networks}) >= 2
