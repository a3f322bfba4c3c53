"""A data set: stripes that run down or across, on 16×16 pixels of noise."""

import numpy as np

from unfool.data.sources import SETS, DataSet, Rows, Source


def read(count, first):
    """``count`` images, every second one across, numbered from ``first``."""
    generator = np.random.default_rng(first)
    labels = np.arange(count) % 2
    stripes = np.where(np.arange(16) % 4 < 2, 170, 85)
    images = [np.broadcast_to(stripes if label == 0 else stripes[:, None], (16, 16)) for label in labels]
    noisy = [np.clip(image + generator.integers(-60, 60, image.shape), 0, 255).astype(np.uint8) for image in images]
    return Rows(
        images=[np.repeat(image[:, :, None], 3, 2) for image in noisy],
        count=count,
        columns={"label": labels},
        classes={"label": ["down", "across"]},
    )


SETS.add("stripes")(
    DataSet(
        name="stripes",
        source="computed",
        size=16,
        label_columns=("label",),
        splits=lambda data_dir: {
            "train": Source(fingerprint="stripes-1", read=lambda: read(192, 1), resident=True),
            "test": Source(fingerprint="stripes-2", read=lambda: read(64, 2), resident=True),
        },
    )
)
