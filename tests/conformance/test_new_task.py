"""A newcomer's task, written in one place and in under 40 lines, trains like any other."""

import inspect

import pytest
import torch
import torch.nn.functional as F

from unfool.core.batch import Views
from unfool.core.config import configured
from unfool.core.errors import SpecError
from unfool.core.streams import Streams
from unfool.data.pixels import DecodedPixels
from unfool.data.table import Table
from unfool.tasks import TASKS, Task
from unfool.training import RunConfig, StageConfig, TaskConfig, train

NAME = "quarter-turns"


class QuarterTurns(Task):
    """Tell by how many quarter turns an image was rotated (Gidaris et al., ICLR 2018)."""

    @configured
    class Settings:
        """How many turns there are to tell apart."""

        turns: int = 4

    def head_for(self, channels, classes):
        return {"kind": "linear", "inputs": channels["last"], "outputs": self.settings.turns}

    def views(self, batch, streams):
        turns = torch.zeros_like(batch.ids) if streams is None else streams.integers(batch.ids, self.settings.turns)
        every = torch.stack([batch.images.rot90(k, (2, 3)) for k in range(self.settings.turns)])
        return Views(images=every[turns, torch.arange(len(turns))], targets=turns)

    def losses(self, outputs, views):
        return F.cross_entropy(self.head(outputs).float(), views.targets, reduction="none")


@pytest.fixture
def registered(monkeypatch):
    assert NAME not in TASKS  # fills the registry, so that the entry below is the only thing taken back
    monkeypatch.setitem(TASKS._items, NAME, QuarterTurns)


def make_table():
    ids = torch.arange(24)
    pixels = (Streams(0).uniform(ids, (3, 16, 16)) * 255).to(torch.uint8)
    labels, names = {"label": ids % 3}, {"label": ["a", "b", "c"]}
    return Table(DecodedPixels(pixels), ids, labels, names, label_column="label", name="noise", split="train")


def test_a_task_is_short():
    assert len(inspect.getsource(QuarterTurns).splitlines()) < 40


@pytest.mark.parametrize("perturb", [None, "pgd-2"])
@pytest.mark.usefixtures("registered")
def test_a_new_task_trains_beside_another(tmp_path, perturb):
    stage = StageConfig(
        tasks={"turns": TaskConfig(task=NAME, weight=0.5), "labels": TaskConfig(task="labels")},
        batch_size=12,
        perturb=perturb,
    )
    config = RunConfig(data="noise", stages=(stage,), trunk={"name": "convnet", "widths": [3, 4, 6]})
    steps = []
    run = train(config, make_table(), tmp_path, progress=lambda what, step, of, note: steps.append((step, of)))
    assert steps == [(1, 2), (2, 2)]
    assert set(run.network.heads) == {"turns", "labels"}
    assert run.network(torch.rand(2, 3, 16, 16)).shape == (2, 3)
    assert "loss/turns" in (tmp_path / "metrics.csv").read_text()


@pytest.mark.usefixtures("registered")
def test_its_settings_are_checked_like_any_others(tmp_path):
    stage = StageConfig(tasks={"turns": TaskConfig(task=NAME, settings={"turn": 2})})
    config = RunConfig(data="noise", stages=(stage,), trunk={"name": "convnet", "widths": [3, 4, 6]})
    with pytest.raises(SpecError, match="did you mean 'turns'"):
        train(config, make_table(), tmp_path)


def test_it_is_gone_again():
    with pytest.raises(SpecError, match="unknown task"):
        TASKS[NAME]
