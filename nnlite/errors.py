"""The errors that nnlite raises on purpose, and how they show what a stranger may have written."""

import reprlib
from typing import Any

LIMIT = 700  # characters of a message


class NnliteError(ValueError):
    """Something the user can put right: the message says what was expected, found, and what to do.

    It is one line of printable characters, LIMIT at most, whatever a file put into it.
    """

    def __init__(self, message: str = "") -> None:
        line = printable(message)
        super().__init__(line if len(line) <= LIMIT else f"{line[: LIMIT // 2 - 3]} ... {line[-LIMIT // 2 + 2 :]}")


class DivergedError(NnliteError):
    """A training whose loss is no longer finite, before there was a net worth keeping."""


def printable(text: str) -> str:
    """Return `text` with a blank for each character that could move the cursor, or be no text at all."""
    return "".join(char if char.isprintable() else " " for char in text)


def shown(value: Any) -> str:
    """Return a value for a message, cut short; it may be nested without end, or have more digits than Python prints."""
    try:
        return reprlib.repr(value)
    except ValueError:
        return "a number of too many digits"
