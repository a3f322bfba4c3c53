"""A study's scale as flat paths and values, for tests that compare every field of it with a source's values."""

import dataclasses
from collections.abc import Mapping


def flatten(scale, path=""):
    """``{"variants.0.stage.epochs": 100, …}``: every field of nested dataclasses, mappings, tuples and lists.

    An empty mapping, tuple or list is a value of its own, so that no field can be missing from the result.
    """
    if dataclasses.is_dataclass(scale):
        parts = {field.name: getattr(scale, field.name) for field in dataclasses.fields(scale)}
    elif isinstance(scale, Mapping):
        parts = {str(key): value for key, value in scale.items()}
    elif isinstance(scale, (tuple, list)):
        parts = {str(place): value for place, value in enumerate(scale)}
    else:
        return {path: scale}
    fields = {}
    for name, value in parts.items():
        fields |= flatten(value, f"{path}.{name}" if path else name)
    return fields or {path: scale}
