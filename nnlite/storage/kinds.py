"""Kinds: what a value must be, and the one error where it is not, for settings and for the JSON of untrusted files.

pydantic, msgspec and attrs were weighed: they check types as well, but a dependency is too much for the few kinds
below, and none of them says in one line what was expected and found, with a hostile value cut short.
"""

import math
import os
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from nnlite.errors import NnliteError
from nnlite.storage.texts import did_you_mean, shown


class Kind(NamedTuple):
    """What a value must be.

    Arguments:
        words: what was expected, as an error says it.
        fits: whether a value, of any type, is one; it never raises an error.
        choices: all the values, where they can be listed.
    """

    words: str
    fits: Callable[[Any], bool]
    choices: tuple[Any, ...] = ()


def expect(name: str, kind: Kind, value: Any) -> None:
    """Raise NnliteError "name: expected ..., found ..." where `value` is not of this kind."""
    if not kind.fits(value):
        raise NnliteError(f"{name}: expected {kind.words}, found {shown(value)}{did_you_mean(value, kind.choices)}")


def expect_fields(name: str, fields: Collection[str], content: Any, optional: Collection[str] = ()) -> dict[str, Any]:
    """Return `content` if it is a JSON object of these fields and no others; else raise NnliteError.

    Arguments:
        name: what the object is called in an error.
        fields: the names of its fields.
        content: what a JSON text holds.
        optional: the fields that may be absent.
    """
    if not isinstance(content, dict):
        raise NnliteError(f"{name}: expected an object of {', '.join(fields)}, found {shown(content)}")
    if wrong := {*fields} - {*optional, *content} | content.keys() - {*fields}:
        listed = ", ".join(fields)
        raise NnliteError(f"{name}: expected an object of {listed}; missing or unknown: {shown(sorted(wrong))}")
    return dict(content)


def expect_object(name: str, kinds: Mapping[str, Kind], content: Any) -> dict[str, Any]:
    """Return `content` if it is a JSON object of these fields, each of its kind; else raise NnliteError."""
    for field, value in expect_fields(name, kinds, content).items():
        expect(f"{name}: {field}", kinds[field], value)
    return dict(content)


def is_integer(value: Any) -> bool:
    """Return whether `value` is an int of less than 64 bits; a bool is none."""
    return isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 63


def is_finite(value: Any) -> bool:
    """Return whether `value` is a finite float, or an integer as above."""
    return is_integer(value) or (isinstance(value, float) and math.isfinite(value))


BOOLEAN = Kind("true or false", lambda value: isinstance(value, bool))
NOT_NEGATIVE = Kind("a finite number of at least 0", lambda value: is_finite(value) and value >= 0)
POSITIVE = Kind("a finite number above 0", lambda value: is_finite(value) and value > 0)
FINITE = Kind("a finite number", is_finite)
SHA256 = Kind("a SHA-256", lambda value: isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None)


def integer(least: int, most: int | None = None) -> Kind:
    """Return the kind of the integers from `least` to `most`, or to the largest of 64 bits."""
    if most is None:
        return Kind(f"an integer of at least {least}, below 2**63", lambda value: is_integer(value) and value >= least)
    return Kind(f"an integer from {least:,} to {most:,}", lambda value: is_integer(value) and least <= value <= most)


def number(least: float, most: float) -> Kind:
    """Return the kind of the numbers from `least` to `most`."""
    return Kind(f"a number from {least:,} to {most:,}", lambda value: is_finite(value) and least <= value <= most)


def text(least: int, most: int) -> Kind:
    """Return the kind of the texts of this length that may be printed: control codes could move the cursor."""
    return Kind(
        f"a text of {_size(least, most)} printable characters",
        lambda value: isinstance(value, str) and least <= len(value) <= most and value.isprintable(),
    )


def optional(kind: Kind) -> Kind:
    """Return the kind of None and of the values of `kind`."""
    return Kind(f"{kind.words}, or null", lambda value: value is None or kind.fits(value))


def one_of(choices: Collection[Any]) -> Kind:
    """Return the kind of the values that equal one of `choices`, such as those of a table that may grow.

    1 is none of [True], and 1.0 none of [1].
    """
    known = tuple(choices)
    listed = ", ".join("null" if one is None else str(one) for one in known)
    return Kind(
        f"one of {listed}" if len(known) > 1 else listed,
        lambda value: any(type(value) is type(one) and value == one for one in choices),
        known,
    )


def sequence(kind: Kind, least: int, most: int, of: type[list[Any]] | type[tuple[Any, ...]] = list) -> Kind:
    """Return the kind of the lists, or tuples, of `least` to `most` values of `kind`."""
    return Kind(
        f"a {of.__name__} of {_size(least, most)}, each {kind.words}",
        lambda value: isinstance(value, of) and least <= len(value) <= most and all(map(kind.fits, value)),
    )


def object_of(kinds: Mapping[str, Kind]) -> Kind:
    """Return the kind of the JSON objects that `expect_object` returns."""
    return Kind(
        f"an object of {', '.join(f'{name} ({kind.words})' for name, kind in kinds.items())}",
        lambda value: (
            isinstance(value, dict)
            and value.keys() == kinds.keys()
            and all(kind.fits(value[name]) for name, kind in kinds.items())
        ),
    )


PHI = number(0, 1_000_000)  # the size of noise: pixels are in [0, 1], and much more overflows in float32
FOLDER_NAME = Kind(
    "a plain folder name of at most 200 bytes",
    lambda name: (
        text(1, 200).fits(name) and Path(name).name == name and name[0] != "." and len(os.fsencode(name)) <= 200
    ),
)


def _size(least: int, most: int) -> str:
    if least == most:
        return f"{most:,}"
    return f"{least:,} to {most:,}" if least else f"at most {most:,}"
