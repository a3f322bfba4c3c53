"""What comes in through files is bounded before it is read, and refused in one line that names the bound."""

import io
import os
import sys
import time

import pytest

from unfool.core.borders.json_text import parse_json, read_json, read_object
from unfool.core.borders.reading import read_bytes, read_text
from unfool.core.borders.yaml_text import parse_yaml, read_yaml
from unfool.core.config import configured
from unfool.core.errors import LONGEST_MESSAGE, DataError, SpecError
from unfool.core.spec import parse_number
from unfool.core.threat import ThreatModel


def doubling(levels, wide=9):
    """A list in which each level repeats the one before it."""
    lines = [f"a0: &a0 [{', '.join('x' * wide)}]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * wide)}]" for n in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        (doubling(9), "20,000 values"),
        (f"a: &a {{{', '.join(f'k{n}: 1' for n in range(300))}}}\nb: [{', '.join(['{<<: *a}'] * 300)}]", "20,000"),
        ("a: &a [*a]", "inside what it repeats"),
        ("[" * 5000, "32 levels"),
        ("- " * 2000, "32 levels"),
        ("seed: " + "9" * 20, "19 allowed"),
        ("seed: " + "1:" * 5000 + "1", "19 allowed"),
        ("rate: 1." + "0" * 5000, "40 allowed"),
        ("a: !!binary aGVsbG8=", "tag binary"),
        ("a: !!python/object/apply:os.system [x]", "python"),
        ("? [a]\n: b", "unhashable"),
        ("a: \x00", "special characters"),
        ("a: *b", "undefined alias"),
    ],
)
def test_yaml_is_bounded(text, bound):
    started = time.process_time()
    with pytest.raises(ValueError, match=bound) as caught:
        parse_yaml(text)
    assert "\n" not in str(caught.value)
    assert time.process_time() - started < 5


@pytest.mark.parametrize("value", ["!!bool maybe", '!!int ""', '!!float ""', "!!int '-'", "!!int _"])
def test_a_value_that_does_not_fit_its_tag_is_refused_in_a_line(value):
    with pytest.raises(ValueError, match="does not fit its tag") as caught:
        parse_yaml(f"a: {value}")
    assert "\n" not in str(caught.value)


def test_plain_yaml_with_a_few_aliases_is_read_and_a_date_is_a_text():
    assert parse_yaml("a: &a [1, 2.5, null, true]\nb: *a\nc: {<<: {d: 1}, e: x}\nf: 2020-01-01\n") == {
        "a": [1, 2.5, None, True],
        "b": [1, 2.5, None, True],
        "c": {"d": 1, "e": "x"},
        "f": "2020-01-01",
    }


@pytest.mark.parametrize(
    ("text", "bound"),
    [
        ("[" * 100_000, "nested"),
        ("9" * 5000, "40 allowed"),
        ("9" * 41, "40 allowed"),
        ("1e999", "beyond"),
        ("NaN", "NaN"),
        ("[" + "[],{}," * 300_000 + "1]", "500,000"),
        ("{", "Expecting"),
    ],
)
def test_json_is_bounded(text, bound):
    with pytest.raises(ValueError, match=bound) as caught:
        parse_json(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(("kind", "said"), [("FIFO", "FIFO"), ("device", "device"), ("folder", "directory")])
def test_only_a_regular_file_is_read(tmp_path, kind, said):
    path = {"device": "/dev/zero", "folder": tmp_path}.get(kind, tmp_path / "fifo")
    if kind == "FIFO":
        os.mkfifo(path)
    for read in (read_bytes, read_text, read_json, read_yaml):
        with pytest.raises(DataError, match=f"cannot read .*{said}.*; do this"):
            read(path, "do this")


def test_a_path_that_cannot_be_is_refused_in_one_line(tmp_path):
    for path in (tmp_path / ("a" * 300), "a\0b", tmp_path / "no" / "file"):
        with pytest.raises(DataError, match="cannot read"):
            read_text(path, "give another")


def test_a_file_over_its_bound_is_not_read(tmp_path):
    path = tmp_path / "long"
    with open(path, "wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(DataError, match=r"more than the 268,435,456 allowed"):
        read_bytes(path, "cut it")


def test_a_dash_reads_the_standard_input(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'{"a": [1]}')))
    assert read_object("-", "give JSON") == {"a": [1]}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"12345")))
    with pytest.raises(DataError, match="standard input"):
        read_text("-", "give less", most=4)


def test_a_message_is_bounded_and_keeps_its_end():
    assert str(SpecError("a name with\na line break")) == "a name with a line break"
    message = str(SpecError(f"x is {'9' * 10**6!r}; give less"))
    assert len(message) <= LONGEST_MESSAGE
    assert message.startswith("x is")
    assert message.endswith("give less")


@pytest.mark.parametrize("text", ["1e-400", "1e-60", "1/" + "9" * 400, "1" * 5000, "1e400", "8/1" + "0" * 60])
def test_an_eps_that_float32_cannot_hold_is_refused(text):
    for norm in ("linf", "l2"):
        with pytest.raises(SpecError):
            ThreatModel.parse(f"{norm}:{text}")


def test_the_eps_0_is_allowed_however_it_is_written():
    for text in ("0", "0.0", "0/255", "0e5", "0e-5"):
        assert parse_number(text, "eps") == 0.0
    for eps in (1e-40, 1e10, 10**400):
        with pytest.raises(SpecError, match=r"float32|finite"):
            ThreatModel("l2", eps)


@configured
class Numbers:
    """Numbers."""

    steps: int = 1
    seed: int = 0


def test_whole_numbers_of_a_configuration_are_bounded():
    assert Numbers(seed=2**63 - 1).seed == 2**63 - 1
    for values in ({"steps": 10**9 + 1}, {"seed": 2**63}, {"steps": 10**4000}):
        with pytest.raises(SpecError, match="at most") as caught:
            Numbers(**values)
        assert len(str(caught.value)) < 200
