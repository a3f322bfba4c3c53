"""Configurations refuse what they do not know, in one line, however they are made."""

from __future__ import annotations

import dataclasses
import inspect
from typing import Annotated, Literal

import pytest
from pydantic import Field

from unfool.core.config import build, configured, parse_settings, to_plain
from unfool.core.errors import SpecError


@configured
class Engine:
    power: int = Field(default=1, ge=0)


@configured
class Car:
    """Two plain fields and a nested one."""

    wheels: int = 4
    engine: Engine = Engine()
    names: tuple[str, ...] = ()


def test_text_is_converted_and_the_result_is_frozen():
    car = build(Car, {"wheels": "3", "engine": {"power": "7"}, "names": ["a", "b"]}, "car")
    assert (car.wheels, car.engine, car.names) == (3, Engine(power=7), ("a", "b"))
    assert to_plain(car) == {"wheels": 3, "engine": {"power": 7}, "names": ["a", "b"]}
    with pytest.raises(dataclasses.FrozenInstanceError):
        car.wheels = 5


@pytest.mark.parametrize("make", [lambda **values: build(Car, values, "car"), Car], ids=["build", "class"])
@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"weels": 3}, "did you mean 'wheels'?"),
        ({"wheels": "many"}, "wheels='many' is not allowed"),
        ({"engine": {"power": -1}}, "engine.power=-1 is not allowed: input should be greater"),
        ({"engine": {"pwer": 1}}, "engine.pwer=1 is not allowed"),
    ],
)
def test_bad_values_are_one_line_that_names_the_key(make, values, words):
    with pytest.raises(SpecError) as caught:
        make(**values)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_positions_are_refused():
    with pytest.raises(TypeError):
        Car(4)  # type: ignore[misc]


def test_settings_are_split_once_each():
    assert parse_settings("pgd-20:restarts=5, step_size=2/255") == ("pgd-20", {"restarts": "5", "step_size": "2/255"})
    assert parse_settings("fgsm") == ("fgsm", {})
    for text in ("a:b", "a:b=1,b=2", "a:=1"):
        with pytest.raises(SpecError, match="write name:key=value"):
            parse_settings(text)


@configured
class Described:
    """Something with settings.

    Raises:
        SpecError: For a bad one.
    """

    speed: float = Field(
        default=1.0, description="How fast it goes, in metres per second; a longer text is wrapped " * 2
    )
    plain: int = 0


def test_descriptions_of_fields_are_the_args_of_the_docstring():
    first, *rest = Described.__doc__.split("Args:\n")[1].split("\n\n")
    assert first.startswith("    speed: How fast it goes")
    assert all(len(line) <= 110 for line in first.splitlines())
    assert first.splitlines()[1].startswith("        ")
    assert rest == ["Raises:\n    SpecError: For a bad one."]
    assert Described.__doc__.startswith("Something with settings.\n\nArgs:\n")


@dataclasses.dataclass(frozen=True)
class Vehicle:
    """Anything that moves.

    Args:
        name: What it is called.
        seats: Places for people.

    Returns:
        A vehicle.

    Raises:
        SpecError: A value is not allowed.

    Example:
        Not taken over.
    """

    name: str
    seats: int = dataclasses.field(default=1, kw_only=True)


@configured
class Bus(Vehicle):
    """A vehicle for many.

    Args:
        doors: How people get in,
            and out.
        seats: More than one.

    Raises:
        SpecError: There is no door.
    """

    doors: Annotated[int, Field(ge=1)] = 2
    fuel: Literal["diesel", "power"] | None = None


def test_what_a_base_class_documents_is_not_written_again():
    assert Bus.__doc__ == (
        "A vehicle for many.\n\n"
        "Args:\n    name: What it is called.\n    doors: How people get in,\n        and out.\n"
        "    seats: More than one.\n\n"
        "Returns:\n    A vehicle.\n\n"
        "Raises:\n    SpecError: There is no door."
    )


def test_a_signature_shows_own_arguments_first_and_types_as_they_are_written():
    shown = "(name: str, *, doors: int = 2, fuel: Literal['diesel', 'power'] | None = None, seats: int = 1)"
    assert str(inspect.signature(Bus)) == shown
    assert str(inspect.signature(Bus.__init__)) == shown.replace("(", "(self, ", 1)


def test_printed_it_shows_what_is_not_the_default():
    assert repr(Car()) == "Car()"
    assert repr(Car(wheels=3, engine=Engine(power=2))) == "Car(wheels=3, engine=Engine(power=2))"
