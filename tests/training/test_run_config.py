"""A run's configuration: every wrong key and value is one line with the nearest name, and YAML keeps all of it."""

import copy

import pytest
import yaml
from tiny_runs import KILLED, contrast, labels, run, stage

from unfool import Linf, attacks
from unfool.core.config import to_plain
from unfool.core.errors import DataError, SpecError
from unfool.training import ProbeSettings, RunConfig, StageConfig, TaskConfig
from unfool.training.config import SCHEMA_VERSION, read_config, run_config

PLAIN = {
    "data": "made-up",
    "trunk": {"name": "convnet", "widths": [4, 8, 8]},
    "stages": [{"tasks": {"labels": {"task": "labels", "settings": {"views": 2}}}, "epochs": 3}],
}


def changed(*path, value):
    values = copy.deepcopy(PLAIN)
    inner = values
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return values


TASK = ("stages", 0, "tasks", "labels")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (changed("sede", value=1), ["sede", "did you mean 'seed'"]),
        (changed("stages", 0, "epoch", value=1), ["stage 1", "epoch", "did you mean 'epochs'"]),
        (changed("stages", 0, "lerning_rate", value=1), ["did you mean 'learning_rate'"]),
        (changed(*TASK, "wieght", value=1), ["stage 1, task 'labels'", "did you mean 'weight'"]),
        (changed(*TASK, "settings", value={"colunm": "x"}), ["colunm", "did you mean 'column'"]),
        (changed(*TASK, "task", value="label"), ["did you mean 'labels'"]),
        (changed("stages", 0, "perturb", value="pdg-7"), ["pdg", "did you mean 'pgd'"]),
        (changed("stages", 0, "perturb", value="pgd-7:step=1"), ["step", "did you mean 'steps'"]),
        (changed("stages", 0, "threat", value="linf:-1"), ["linf:-1"]),
        (changed("stages", 0, "threat", value="linf:300"), ["linf:300"]),
        *(
            (
                changed("stages", 0, "tasks", value={head: {"task": "labels"}}),
                [f"cannot be called {head!r}", "'labels'"],
            )
            for head in ("", "a.b", "keys", "items", "pop", "type", "training")
        ),
        (changed("stages", 0, "optimizer", value="adm"), ["adm", "adam"]),
        (changed("stages", 0, "schedule", value="cosin"), ["cosin", "cosine"]),
        (changed("stages", 0, "trainable", value="head"), ["heads"]),
        (changed("stages", 0, "trainable", value="after:none"), ["after:none", "after:N"]),
        (changed("stages", 0, "steps", value=-1), ["steps=-1"]),
        (changed("stages", 0, "steps", value=7), ["steps=7", "epochs=3", "one of the two"]),
        (changed("fraction", value=0), ["fraction=0"]),
        (changed("fraction", value=10), ["fraction=10"]),
        (changed("stages", 0, "precision", value="fp16"), ["fp16", "bf16"]),
        (changed("stages", 0, "epochs", value=0), ["epochs=0"]),
        (changed("stages", 0, "batch_size", value=0), ["batch_size=0"]),
        (changed("stages", 0, "learning_rate", value=0), ["learning_rate=0"]),
        (changed("stages", 0, "learning_rate", value=float("inf")), ["learning_rate=inf"]),
        (changed("stages", 0, "learning_rate", value=float("nan")), ["learning_rate=nan"]),
        (changed("stages", 0, "weight_decay", value=-1), ["weight_decay=-1"]),
        (changed("stages", 0, "momentum", value=1), ["momentum=1"]),
        (changed(*TASK, "weight", value=-1), ["weight=-1"]),
        (changed(*TASK, "settings", value={"views": 0}), ["views=0"]),
        (changed("stages", 0, "tasks", value={}), ["at least one task"]),
        (changed("stages", value=[]), ["stages"]),
        (changed("stages", value="labels"), ["stages"]),
        (changed("stages", value=["labels"]), ["stages"]),
        (changed("trunk", value={"name": "resnt18"}), ["did you mean 'resnet18'"]),
        (changed("trunk", value={"nam": "resnet18"}), ["did you mean 'name'"]),
        (changed("normalisation", value="cifar"), ["did you mean 'cifar1"]),
        (changed("classifier", value="lables"), ["did you mean 'labels'"]),
        (changed("seed", value=-1), ["seed=-1"]),
        (changed("schema_version", value="new"), ["schema_version"]),
        (changed("schema_version", value=0), ["schema_version"]),
        (changed("stages", 0, "tasks", value=["labels"]), ["{'labels': TaskConfig(task='labels')}"]),
        ({"stages": PLAIN["stages"]}, ["data"]),
    ],
)
def test_wrong_configurations_are_refused_in_one_line(tmp_path, values, words):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(values))
    with pytest.raises(SpecError) as refusal:
        read_config(path)
    message = str(refusal.value)
    assert all(word in message for word in words), message
    assert "\n" not in message


def test_a_newer_schema_is_refused_before_its_keys_are_read(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**PLAIN, "invented_later": 1, "schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(SpecError, match="update unfool"):
        read_config(path)


def test_a_file_of_the_first_schema_version_is_read_in_today_s_words(tmp_path):
    path = tmp_path / "config.yaml"
    stages = [{**PLAIN["stages"][0], "moves": "heads"}, PLAIN["stages"][0]]
    path.write_text(yaml.safe_dump({**PLAIN, "stages": stages, "schema_version": 1}))
    config = read_config(path)
    assert [item.trainable for item in config.stages] == ["heads", "all"]
    assert config.schema_version == SCHEMA_VERSION
    path.write_text(yaml.safe_dump({**PLAIN, "stages": stages}))
    with pytest.raises(SpecError, match="moves"):
        read_config(path)


@pytest.mark.parametrize("text", ["[1, 2]", "data: [", "\tdata: x", "", "!!python/object/apply:os.system ['true']"])
def test_files_that_are_no_configuration_are_refused(tmp_path, text):
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(SpecError) as refusal:
        read_config(path)
    assert "\n" not in str(refusal.value)
    assert str(path) in str(refusal.value)


def test_a_missing_file_is_a_data_error(tmp_path):
    with pytest.raises(DataError, match=r"config\.yaml"):
        read_config(tmp_path / "config.yaml")


@pytest.mark.parametrize(
    "config",
    [
        *KILLED.values(),
        run(stage({"a": labels(column="parity", hidden=3), "b": contrast(temperature=0.5)}), classifier="a", seed=7),
        run(stage(perturb="pgd-7:restarts=2", threat="l2:0.5", precision="bf16", momentum=0.0), size=24),
    ],
)
def test_yaml_gives_the_same_configuration_back(tmp_path, config):
    path = tmp_path / "config.yaml"
    path.write_text(config.to_yaml())
    assert read_config(path) == config
    assert read_config(path).to_yaml() == config.to_yaml()
    assert run_config(to_plain(config), "it") == config


def test_what_is_left_out_is_written_down():
    """A default that changes later must not change what an old run was."""
    written = yaml.safe_load(run_config(PLAIN, "it").to_yaml())
    assert written["stages"][0]["learning_rate"] == 3e-4
    assert written["schema_version"] == SCHEMA_VERSION
    assert written["stages"][0]["tasks"]["labels"]["weight"] == 1.0


def test_configurations_are_frozen():
    with pytest.raises(AttributeError):
        run().seed = 3


@pytest.mark.parametrize("kind", [RunConfig, StageConfig, TaskConfig, ProbeSettings])
def test_every_field_says_what_it_is(kind):
    """The command line's help is made of these."""
    for name, field in kind.__pydantic_fields__.items():
        assert (field.description or "").endswith("."), name
        assert len(field.description) < 200, name


def test_a_file_from_before_the_switch_means_nesterov_momentum():
    values = to_plain(run(stage(optimizer="sgd")))
    added = ("nesterov", "warmup_epochs", "constant_epochs", "cosine_epochs", "drop_every", "drop_factor", "decay")
    before = {key: value for key, value in values["stages"][0].items() if key not in added}
    config = run_config({**values, "stages": [before]}, "the file")
    assert config.stages[0].nesterov
    assert config == run(stage(optimizer="sgd"))


def test_a_threat_model_is_given_as_one_or_as_text_and_written_as_text():
    tasks = {"labels": TaskConfig(task="labels")}
    assert StageConfig(tasks=tasks, threat=Linf(0.1)) == StageConfig(tasks=tasks, threat="linf:0.1")
    assert to_plain(StageConfig(tasks=tasks, threat=Linf(4 / 255)))["threat"] == "linf:4/255"
    with pytest.raises(SpecError, match=r"write the attack as text, such as 'pgd-10', and give threat=Linf\(0.1\)"):
        StageConfig(tasks=tasks, perturb=attacks.PGD(Linf(0.1)))


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([stage(epochs=3)], 3 * 100),
        ([stage(steps=5, batch_size=12)], 5 * 12),
        # Seven steps of crafting, and one pass that learns.
        ([stage(epochs=3, perturb="pgd-7")], 3 * 100 * 8),
        # TRADES looks at the clean image beside the perturbed one.
        ([stage(epochs=1, perturb="pgd-7:restarts=2", adversarial="trades")], 100 * 16),
        ([stage(epochs=2), stage(steps=2, batch_size=10, perturb="fgsm")], 2 * 100 + 2 * 10 * 2),
    ],
)
def test_the_images_that_a_run_sends_through_its_network_are_estimated(stages, expected):
    assert run(*stages).model_images(100) == expected


def test_fewer_labels_are_fewer_images_unless_the_steps_are_given():
    config = run(stage(epochs=3), stage(steps=5, batch_size=12), fraction=0.5)
    assert config.model_images(100) == 3 * 50 + 5 * 12


def test_an_attack_is_asked_for_its_form_in_the_stage_s_own_norm():
    tasks = {"labels": TaskConfig(task="labels")}
    in_l2 = StageConfig(tasks=tasks, steps=1, perturb="ddn", stop_attack="ddn", threat="l2:0.5")
    assert (in_l2.perturb, in_l2.stop_attack) == ("ddn", "ddn")
    for name in ("perturb", "stop_attack"):
        with pytest.raises(SpecError, match=r"attack ddn has no form in linf.*attacks in linf are .*pgd"):
            StageConfig(tasks=tasks, steps=1, **{name: "ddn"})
