"""Texts from strangers, JSON, numbers and names: plain content, or an error."""

import difflib
import json
import math
import reprlib
from collections.abc import Iterable
from typing import Any

COMPARED = 1_000  # names; difflib takes up to 0.2 ms for one, and a table of a stranger's may have 10,000


def parse_json(text: str) -> Any:
    """Return the content of a JSON text.

    ValueError where it is none, names a key twice, holds NaN, infinity or half a character, or is nested too deeply.
    """
    try:
        content = _PLAIN.decode(text)
        if "\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()  # an error for half a character, which "\\ud800" is
        return content
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def parse_number(text: str) -> float:
    """Return a finite number that is written as 0.03, 1e-3, or as a fraction such as 8/255.

    ValueError says what is wrong, with the text cut short.
    """
    try:
        parts = [*map(float, text.split("/", 1))]
        number = parts[0] / parts[1] if parts[1:] else parts[0]
    except ZeroDivisionError as error:
        raise ValueError(f"expected a number, found {reprlib.repr(text)}, a division by 0") from error
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(
            f"expected a finite number such as 0.03, or a fraction such as 8/255, found {reprlib.repr(text)}"
        )
    return number


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands twice in one JSON object")
    return content


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{reprlib.repr(text)} is no finite number")
    return number


_PLAIN = json.JSONDecoder(object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)


def did_you_mean(found: Any, known: Iterable[Any]) -> str:
    """Return " (did you mean 'dgl1'?)", with the nearest known names in their order, or "" where none is near."""
    names = [name for name in known if isinstance(name, str)][:COMPARED]
    near = difflib.get_close_matches(found, names) if isinstance(found, str) and len(found) < 100 else []
    return f" (did you mean {' or '.join(repr(name) for name in names if name in near)}?)" if near else ""


def shown(value: Any) -> str:
    """Return a value as text for a message, cut short, however deep or long it is."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return "a number of too many digits"
