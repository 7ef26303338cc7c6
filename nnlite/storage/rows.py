"""Rows of CSV from strangers, each of limited length: within quotes a row may go on over any number of lines."""

import csv
from collections.abc import Iterator
from typing import IO, Any

ROW_LIMIT = 1 << 20  # characters


class Rows:
    """The rows of a CSV text, once; csv.Error for what is none, and for a row of ROW_LIMIT characters or more.

    Arguments:
        text: what is read.
        options: those of csv.reader.
    """

    def __init__(self, text: IO[str], **options: Any) -> None:
        self._text, self._taken = text, 0
        self._reader = csv.reader(self._lines(), **options)

    def __iter__(self) -> "Rows":
        """Return itself: what was read is gone."""
        return self

    def __next__(self) -> list[str]:
        """Return the fields of the next row."""
        row, self._taken = next(self._reader), 0
        return row

    @property
    def line(self) -> int:
        """The number of the last line that was read."""
        return self._reader.line_num

    def _lines(self) -> Iterator[str]:
        for line in iter(lambda: self._text.readline(ROW_LIMIT), ""):
            self._taken += len(line)
            if self._taken >= ROW_LIMIT:
                raise csv.Error(f"a row has {ROW_LIMIT:,} characters or more")
            yield line
