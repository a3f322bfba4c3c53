"""A model with a batch size of its own is never given a single image that would be without mates."""

import torch
from tiny_systems import make_table
from torch import nn

from unfool import classify, craft
from unfool.evaluation.crafting.batches import spans_for


class Mates(nn.Module):
    own_batch_size = 4

    def forward(self, images):
        assert len(images) > 1
        return images.mean((2, 3))


def test_an_image_left_over_joins_the_batch_before_it():
    model = Mates()
    assert [(span.start, span.stop) for span in spans_for(model, 9, 2)] == [(0, 4), (4, 9)]
    assert [(span.start, span.stop) for span in spans_for(nn.Identity(), 5, 2)] == [(0, 2), (2, 4), (4, 5)]
    table = make_table(9, classes=3)
    examples = craft(model, table, "square-5")
    assert classify(model, examples).count == 9
    assert torch.isfinite(examples.distances).all()
