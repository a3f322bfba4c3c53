"""A newcomer's task in one file: it trains jointly and on a frozen trunk, is attacked, reverses, is in the table."""

import io
from pathlib import Path

import torch
import torch.nn.functional as F
from rich.console import Console

from unfool.core.batch import Views
from unfool.evaluation.adaptive.settings import LadderSettings
from unfool.studies import STUDIES, run_study
from unfool.studies.auxiliary_reversal import AuxiliaryReversal
from unfool.studies.auxiliary_reversal.scales import Part, Scale
from unfool.tasks import TASKS, Task
from unfool.training import StageConfig
from unfool.training.recipes import LABELS, NORMAL


class Mirrored(Task):
    """Tell whether an image was mirrored."""

    def head_for(self, channels, classes):
        return {"kind": "linear", "inputs": channels["last"], "outputs": 2}

    def views(self, batch, streams):
        turned = batch.ids % 2 if streams is None else streams.named("mirrored").integers(batch.ids, 2)
        shown = torch.where(turned[:, None, None, None] == 1, batch.images.flip(3), batch.images)
        return Views(images=shown, targets=turned)

    def losses(self, outputs, views):
        return F.cross_entropy(self.head(outputs).float(), views.targets, reduction="none")


def test_a_sixth_task_is_one_short_file(tmp_path, monkeypatch):
    assert len(Path(__file__).read_text().splitlines()) < 60
    assert "auxiliary-reversal" in STUDIES  # imports every study while all tasks are there
    # The four that are there already would only make this slow.
    monkeypatch.setattr(TASKS, "_items", {"labels": TASKS["labels"], "mirrored": Mirrored})
    stage = {"steps": 2, "batch_size": 32}
    part = Part(
        data="digits", trunk={"name": "convnet", "widths": [3, 4, 6]}, heads=stage, every=True,
        trainings={NORMAL: StageConfig(tasks=LABELS, **stage)},
    )  # fmt: skip
    ladder = LadderSettings(threat="linf:8/255", images=4, steps=2, draws=2, lambdas=(1.0,), precision="bf16")
    scale = Scale(parts=(part,), attacked=8, strongly=6, ladder=ladder, reversal={"steps": 1}, strongest="pgd-3")
    monkeypatch.setattr(AuxiliaryReversal, "scales", {"tiny": scale})
    console = Console(file=io.StringIO())
    result = run_study("auxiliary-reversal", "tiny", tmp_path, console=console, workers=1).to_json()
    for model, regime in (("labels + mirrored", "joint"), ("labels", "classifier first")):
        rows = [row for row in result["rows"] if row["defense"] == "reverse:mirrored" and row["model"] == model]
        assert {row["attack"] for row in rows} == {"none", "fgsm", "pgd-2", "pgd-20", "pgd-3"}
        assert {row["settings"]["regime"] for row in rows} == {regime}
        name = f"{model}, {NORMAL}"
        assert any((row["model"], row["protocol"]) == (name, "adaptive") for row in result["rows"])
    assert "reverse:mirrored" in (tmp_path / "report.html").read_text()
