"""A jigsaw's head carries its puzzle: a reversal of the weights alone asks the one that was learnt, or is refused."""

import re

import pytest
import torch
from small_defenses import CLASSES

from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.defenses import make_defense
from unfool.models.network import Network
from unfool.models.trunks import TrunkSpec
from unfool.models.weights import load_network, save_network
from unfool.tasks import make_task
from unfool.training import StageConfig, TaskConfig
from unfool.training.stage import Stage

PUZZLE = {"grid": 3, "count": 24, "permutations": "original", "gap": 0.3, "jitter": 0.0}
FORMS = {
    "whole": {},
    "context-free": {"form": "context-free", "hidden": 64},
    "own-convolution": {"form": "context-free", "hidden": 64, "own_convolution": True},
}
EACH = pytest.mark.parametrize("form", FORMS)
STEPS = "steps=2,redraw=false"
SIDE = 48
"""Wide enough that the trunk takes a tile."""


def make_table(count=64):
    ids = torch.arange(count)
    pixels = (Streams(8).uniform(ids, (3, SIDE, SIDE)) * 255).to(torch.uint8)
    return Table(DecodedPixels(pixels), ids, {}, {}, label_column=None, name="noise", split="train")


def make_batch():
    return make_table().batch(torch.arange(6))


def make_network(**heads):
    described = {"labels": {"kind": "linear", "outputs": 4}, **heads}
    trunk = TrunkSpec(name="convnet", widths=(4, 6, 8))
    return Network.build(trunk, described, classifier="labels", normalisation="none").eval()


def stage_of(network, **settings):
    return Stage(
        StageConfig(tasks={"jigsaw": TaskConfig(task="jigsaw", settings=settings)}), network, CLASSES, Streams(0)
    )


def through_a_file(network, tmp_path):
    save_network(network, tmp_path / "weights.safetensors")
    return load_network(tmp_path / "weights.safetensors")


def trained(form, tmp_path):
    """The task as a stage trains it, and the network of the weights file that is left of it."""
    network = make_network()
    stage = stage_of(network, **PUZZLE, **FORMS[form])
    return stage.tasks["jigsaw"], through_a_file(network, tmp_path)


@EACH
@pytest.mark.parametrize("text", ["reverse:task=jigsaw", "gate:task=jigsaw,rate=0.1"])
def test_a_defense_of_the_weights_alone_asks_the_puzzle_that_was_learnt(form, text, tmp_path):
    task, network = trained(form, tmp_path)
    defense = make_defense(f"{text},{STEPS}", network, CLASSES, data=make_table())
    again = (defense.defense if text.startswith("gate") else defense).task
    assert again.settings == task.settings
    assert torch.equal(again.permutations, task.permutations)
    batch = make_batch()
    for streams in (None, Streams(4)):
        before, after = task.views(batch, streams), again.views(batch, streams)
        assert torch.equal(before.images, after.images)
        assert torch.equal(before.targets, after.targets)
        assert before.stage == after.stage


@EACH
@pytest.mark.parametrize(
    "text", ["grid=2", "count=23", "permutations=pairwise", "gap=0.25", "jitter=0.125", "gap=0.25,start=image"]
)
def test_settings_that_contradict_the_head_are_refused(form, text, tmp_path):
    _, network = trained(form, tmp_path)
    told = re.escape(str(network.heads["jigsaw"].description))
    with pytest.raises(SpecError, match=f"^head 'jigsaw' is {told}, and the settings describe .*; leave .*head=NAME"):
        make_defense(f"reverse:task=jigsaw,{text}", network, CLASSES)


@EACH
def test_settings_that_say_the_same_are_taken(form, tmp_path):
    task, network = trained(form, tmp_path)
    text = ",".join(f"{key}={value}" for key, value in (PUZZLE | FORMS[form]).items())
    defense = make_defense(f"reverse:task=jigsaw,{text},{STEPS}", network, CLASSES)
    assert defense.task.settings == task.settings


def test_a_whole_puzzle_of_an_older_file_is_reversed_with_the_settings_that_are_given(tmp_path):
    """Its head tells the number of permutations alone."""
    network = through_a_file(make_network(jigsaw={"kind": "linear", "outputs": 24}), tmp_path)
    assert network.heads["jigsaw"].description == {"kind": "linear", "inputs": 8, "outputs": 24}
    plain = make_defense(f"reverse:task=jigsaw,{STEPS}", network, CLASSES)
    assert plain.task.settings == make_task("jigsaw", {"count": 24}).settings
    text = ",".join(f"{key}={value}" for key, value in PUZZLE.items() if key != "count")
    told = make_defense(f"reverse:task=jigsaw,{text},{STEPS}", network, CLASSES)
    assert told.task.settings == make_task("jigsaw", PUZZLE).settings
    assert told(make_batch().images).shape == (6, 4)
    with pytest.raises(SpecError, match=r"and the settings describe .*'linear', 'inputs': 8, 'outputs': 23"):
        make_defense("reverse:task=jigsaw,count=23", network, CLASSES)


@pytest.mark.parametrize(("kind", "more"), [("tiles", {}), ("tile-convolution", {"inputs": 8, "channels": 8})])
def test_tiles_of_an_older_file_are_reversed_with_the_settings_that_are_given(kind, more, tmp_path):
    sizes = {"tiles": 9, "features": 8, "hidden": 64, "outputs": 24}
    network = through_a_file(make_network(jigsaw={"kind": kind, **sizes, **more}), tmp_path)
    text = "permutations=original,gap=0.3,jitter=0"
    defense = make_defense(f"reverse:task=jigsaw,{text},{STEPS}", network, CLASSES)
    values = {**PUZZLE, "form": "context-free", "hidden": 64, "own_convolution": bool(more)}
    assert defense.task.settings == make_task("jigsaw", values).settings
    with pytest.raises(SpecError, match="and the settings describe"):
        make_defense("reverse:task=jigsaw,grid=2", network, CLASSES)


def test_the_head_of_an_older_file_is_trained_further_as_it_is(tmp_path):
    network = through_a_file(make_network(jigsaw={"kind": "linear", "outputs": 24}), tmp_path)
    there = network.heads["jigsaw"]
    assert stage_of(network, **PUZZLE).tasks["jigsaw"].head is there


def test_two_stages_cannot_train_one_head_on_two_puzzles():
    network = make_network()
    stage_of(network, **PUZZLE)
    stage_of(network, **PUZZLE)
    with pytest.raises(SpecError, match="two stages have a task 'jigsaw' with different heads"):
        stage_of(network, **{**PUZZLE, "gap": 0.1})


@pytest.mark.parametrize("name", ["reverse", "gate"])
@pytest.mark.parametrize(
    ("task", "head"),
    [("inpainting", "labels"), ("contrast", "labels"), ("inpainting", "contrast"), ("jigsaw", "contrast")],
)
def test_the_head_of_another_task_is_refused(name, task, head):
    network = make_network(contrast={"kind": "mlp", "hidden": 8, "outputs": 5})
    told = re.escape(str(network.heads[head].description))
    message = f"^head '{head}' is {told}, which is no head of task '{task}'; give head=NAME of a head that was trained"
    with pytest.raises(SpecError, match=message):
        make_defense(f"{name}:task={task},head={head}", network, CLASSES, data=make_table())
