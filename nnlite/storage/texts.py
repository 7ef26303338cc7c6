"""JSON texts from strangers: plain content, or an error."""

import json
import math
import reprlib
from typing import Any


def parse_json(text: str) -> Any:
    """Return the content of a JSON text.

    ValueError where it is none, names a key twice, holds NaN, infinity or half a character, or is nested too deeply.
    """
    try:
        content = json.loads(text, object_pairs_hook=_unique, parse_float=_finite, parse_constant=_finite)
        if "\\u" in text:
            json.dumps(content, ensure_ascii=False).encode()  # an error for half a character, which "\\ud800" is
        return content
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    content = dict(pairs)
    if len(content) < len(pairs):
        raise ValueError("a key stands twice in one JSON object")
    return content


def _finite(text: str) -> float:
    if not math.isfinite(number := float(text)):
        raise ValueError(f"{reprlib.repr(text)} is no finite number")
    return number


def shown(value: Any) -> str:
    """Return a value as text for a message, cut short, however deep or long it is."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return "a number of too many digits"
