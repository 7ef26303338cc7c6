"""The errors that nnlite raises on purpose, and how they show text that comes from outside."""

LIMIT = 700  # characters of a message


class NnliteError(ValueError):
    """An error that the user can put right: the message says what was expected, what was found, and what to do.

    The message is one line of at most LIMIT printable characters, whatever was put into it.
    """

    def __init__(self, message: str = "") -> None:
        line = printable(message)
        super().__init__(line if len(line) <= LIMIT else f"{line[: LIMIT // 2 - 3]} ... {line[-LIMIT // 2 + 2 :]}")


class DivergedError(NnliteError):
    """The loss is no longer finite, and there was no net worth keeping before."""


def printable(text: str) -> str:
    """Return `text` with each unprintable character, which could move the cursor, replaced by a blank."""
    return "".join(char if char.isprintable() else " " for char in text)
