"""A task: tell by how many quarter turns an image was rotated (Gidaris et al., ICLR 2018)."""

import torch
import torch.nn.functional as F

from unfool.core.batch import Views
from unfool.core.config import configured
from unfool.tasks import TASKS, Task
from unfool.tasks.base import at_least_fp32


@TASKS.add("quarter-turns")
class QuarterTurns(Task):
    """One random quarter turn for each image; the head names it."""

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
        return F.cross_entropy(at_least_fp32(self.head(outputs)), views.targets, reduction="none")
