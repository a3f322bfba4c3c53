"""Values of a file that are read as what they should be, and are something else."""

from __future__ import annotations

import functools
import reprlib
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from unfool.core.errors import DataError, UnfoolError


@contextmanager
def of_known_form(where: object, advice: str, error: type[UnfoolError] = DataError) -> Generator[None, None, None]:
    """Inside, values of a file are used; those of another type, shape or range become ``error`` in one line.

    Checks that name the value come first, with errors of their own, which pass. This is what keeps the one that was
    forgotten from being taken for a fault of the program.
    """
    try:
        yield
    except UnfoolError:
        raise
    except (TypeError, ValueError, LookupError, AttributeError, ArithmeticError, RecursionError, RuntimeError) as fault:
        said = " ".join(f"{type(fault).__name__}: {fault}".split())[:200]
        raise error(f"{where} holds values of another form than it should ({said}); {advice}") from fault


def check_types(cls: type, values: Mapping[str, Any], where: object, advice: str) -> None:
    """DataError that names the first of the ``values`` which is not of the type that a dataclass declares for it."""
    for name, value in values.items():
        adapter = _adapters(cls).get(name)
        try:
            if adapter is not None:
                adapter.validate_python(value)
        except ValidationError:
            raise DataError(f"{where} has {name} {reprlib.repr(value)}, which is of another type; {advice}") from None


@functools.cache
def _adapters(cls: type) -> dict[str, TypeAdapter[Any]]:
    strict = ConfigDict(strict=True, arbitrary_types_allowed=True)
    return {name: TypeAdapter(hint, config=strict) for name, hint in get_type_hints(cls).items()}
