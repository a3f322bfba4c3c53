"""What the flat fields of a scale are."""

from scale_fields import flatten

from unfool import StageConfig
from unfool.core.config import configured
from unfool.training.recipes import LABELS


@configured
class Scale:
    data: dict[str, tuple[str, str | None]]
    stage: StageConfig
    sets: tuple[str, ...] = ()


def test_every_field_has_a_path_and_empty_ones_stay():
    fields = flatten(Scale(data={"digits": ("label", None)}, stage=StageConfig(tasks=LABELS, epochs=3)))
    assert fields["data.digits.0"] == "label"
    assert fields["data.digits.1"] is None
    assert fields["sets"] == ()
    assert fields["stage.epochs"] == 3
    assert fields["stage.tasks.labels.task"] == "labels"
    assert flatten({"a": [1, {}], "b": 2}) == {"a.0": 1, "a.1": {}, "b": 2}
