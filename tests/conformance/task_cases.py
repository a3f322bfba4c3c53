"""Every registered task, under its default settings and under others; what the conformance tests of tasks run on."""

from unfool.tasks import TASKS
from unfool.tasks.contrast_losses import CONTRAST_LOSSES

NAMES = tuple(TASKS)
BANK = {"negatives": "bank", "bank": 12, "drawn": 5}
TILES = {"form": "context-free", "gap": 0, "jitter": 0.1, "hidden": 64}
VARIANTS = {
    "contrast": [
        *({"loss": loss, **rest} for loss in CONTRAST_LOSSES for rest in ({}, {"views": 3}, BANK)),
        {"negatives": "queue", "bank": 12, "decay": 4},
    ],
    "inpainting": [{"masks": 2, "lambda_adv": 0.5, "stage": "block2"}, {"discriminator": 0, "lambda_adv": 0.0}],
    "jigsaw": [
        {"grid": 3, "count": 30},
        {"permutations": "original", "count": 9, "augmentation": "simclr"},
        {**TILES, "augmentation": "simclr"},
        {**TILES, "own_convolution": True},
    ],
    "rotation": [{"turns": "one"}],
}
"""Settings under which a task is tested beside its default ones."""
CASES = [(name, values) for name in NAMES for values in ({}, *VARIANTS.get(name, []))]
