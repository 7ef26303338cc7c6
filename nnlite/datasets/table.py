"""CSV files: a line of column names, then numbers in every column but that of the labels.

Python's csv module reads quotes, commas within them, and the line ends of all systems, and knows the number of each
line, which numpy.loadtxt does not; pandas and pyarrow were weighed, and are too much for one reader. Numbers go into
their place line by line, so that a file takes no more memory than its numbers.
"""

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import IO, NoReturn

import numpy as np
import numpy.typing as npt

from nnlite.datasets.description import FEATURES_LIMIT, NAME
from nnlite.errors import NnliteError
from nnlite.storage.files import open_file
from nnlite.storage.kinds import expect
from nnlite.storage.memory import expect_data_budget
from nnlite.storage.rows import Rows
from nnlite.storage.texts import shown

LABEL_LIMIT, LABELS_LIMIT = 200, 10_000  # characters, and different ones, in which 3 and 3.0 are two
MISSING = {"", "na", "nan", "n/a", "null", "none", "?"}


@dataclass(frozen=True, eq=False)
class Table:
    """The content of a CSV file.

    Arguments:
        columns: the names of the features.
        values: (N, D), float64.
        label: the column of the labels, None if there is none.
        classes: the different labels, as text.
        numbers: (N,), which of `classes` the label of each row is; (0,) if there is no label.
    """

    columns: tuple[str, ...]
    values: npt.NDArray[np.float64]
    label: str | None
    classes: list[str]
    numbers: npt.NDArray[np.int64]


def read_table(path: Path, label: str | None = None, *, features: tuple[str, ...] | None = None) -> Table:
    """Return the content of a CSV file in UTF-8, with or without a byte-order mark.

    Arguments:
        path: the file.
        label: the column of the labels; None for the last one.
        features: the columns that are wanted, in this order; then the file may lack the column `label`, or labels in
            it, which are "" then, and may have no other columns. None for all but `label`.

    NnliteError names the line and the column of what is missing, or is no number.
    """
    try:
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            expect_data_budget(path, size)
            lines = _most_lines(file)
        with path.open(encoding="utf-8-sig", newline="") as text:
            rows = Rows(text, skipinitialspace=True, strict=True)
            try:
                header = _header(path, next(rows, []))
                most = min(lines, size // len(header) + 1)  # a row has a comma, or its end, for each field
                return _read(path, header, rows, most, label, features)
            except UnicodeDecodeError as error:
                raise NnliteError(
                    f"{path}: expected text in UTF-8, found the byte 0x{error.object[error.start]:02x} after line "
                    f"{rows.line:,}; save the file as UTF-8"
                ) from error
            except csv.Error as error:
                raise NnliteError(f"{path}, line {rows.line:,}: expected CSV ({error}); mend the line") from error
    except OSError as error:
        raise NnliteError(f"{path}: cannot be read ({error.strerror}); give the path of a CSV file") from error


def _most_lines(file: IO[bytes]) -> int:
    """Return a number of lines that a file does not exceed, whatever ends them."""
    blocks = iter(lambda: file.read(1 << 20), b"")
    return 1 + sum(block.count(b"\n") + block.count(b"\r") - block.count(b"\r\n") for block in blocks)


def _read(
    path: Path, header: list[str], rows: Rows, most: int, label: str | None, features: tuple[str, ...] | None
) -> Table:
    label, wanted = _columns(path, header, label, features)
    name, place = str(path), None if label is None else header.index(label)
    values = np.empty((most, len(wanted)))  # the system gives memory to the rows that are written, and to no others
    classes: dict[str, int] = {}
    numbers = np.empty(0 if place is None else most, np.int64)
    count, pick = 0, itemgetter(*wanted, wanted[0])  # with the first once more: of one alone it would make no tuple
    for row in filter(None, rows):
        where = f"{name}, line {rows.line:,}"
        if len(row) != len(header):
            raise NnliteError(
                f"{where}: expected {len(header):,} fields, as in the first line, found {len(row):,}; mend the line"
            )
        *fields, _ = pick(row)
        try:
            found = list(map(float, fields)) if "_" not in "".join(fields) else [math.nan]
        except ValueError:
            found = [math.nan]
        if not math.isfinite(sum(found)) and not all(map(math.isfinite, found)):  # large numbers may sum to infinity
            _blame(where, header, wanted, row)
        values[count] = found
        if place is not None:
            text = row[place].strip()
            if text.lower() in MISSING:
                if features is None:
                    raise NnliteError(f"{where}: expected a label in column {label!r}, found none; leave the row out")
                text = ""
            if text not in classes:
                _expect_label(where, text, len(classes))
            numbers[count] = classes.setdefault(text, len(classes))
        count += 1
    if not count:
        raise NnliteError(f"{path}: expected rows below the column names, found none")
    return Table(tuple(header[k] for k in wanted), values[:count], label, list(classes), numbers[:count])


def _expect_label(where: str, text: str, before: int) -> None:
    """Raise NnliteError where a new label is too long, or one too many: an array of text is as wide as the longest."""
    if len(text) > LABEL_LIMIT:
        raise NnliteError(
            f"{where}: expected a label of at most {LABEL_LIMIT} characters, found {len(text):,}; see --label"
        )
    if before == LABELS_LIMIT:
        raise NnliteError(f"{where}: expected at most {LABELS_LIMIT:,} different labels, found more; see --label")


def _header(path: Path, row: list[str]) -> list[str]:
    """Return the names of the columns; NnliteError where they are none."""
    header = [name.strip() for name in row]
    where = f"{path}, line 1"
    if not any(header):
        raise NnliteError(f"{where}: expected column names, found nothing; the first line of a CSV file names them")
    if len(header) > FEATURES_LIMIT + 1:
        raise NnliteError(f"{where}: expected at most {FEATURES_LIMIT:,} columns, found {len(header):,}")
    if all(map(_is_number, header)):
        raise NnliteError(f"{where}: expected column names, found numbers; add a first line that names the columns")
    if len(header) == 1 and (other := next((one for one in ";\t|" if one in header[0]), "")):
        raise NnliteError(f"{where}: expected columns separated by commas, found {other!r}; write the file with commas")
    seen: set[str] = set()
    for k, name in enumerate(header):
        if not name:
            raise NnliteError(f"{where}: column {k + 1} has no name; name it, or leave it out if it numbers the rows")
        expect(f"{where}: a column", NAME, name)
        if name in seen:
            raise NnliteError(f"{where}: two columns are named {name!r}; rename one")
        seen.add(name)
    return header


def _columns(
    path: Path, header: list[str], label: str | None, features: tuple[str, ...] | None
) -> tuple[str | None, list[int]]:
    """Return the name of the column of labels, None if there is none, and the places of the features."""
    if features is None:
        label = header[-1] if label is None else label
        if label not in header:
            raise NnliteError(f"{path}: expected a column {label!r} of labels, found {listed(header)}; see --label")
        wanted = [k for k, name in enumerate(header) if name != label]
        if not wanted:
            raise NnliteError(f"{path}: expected columns of numbers beside the labels in {label!r}, found none")
        return label, wanted
    missing, unknown = {*features} - {*header}, {*header} - {*features, label}
    if missing or unknown:
        name, what = (min(missing), "found none") if missing else (min(unknown), "the net does not know it")
        raise NnliteError(f"{path}: column {name!r}: {what}; expected {listed(features)}")
    places = {name: k for k, name in enumerate(header)}
    return label if label in header else None, [places[name] for name in features]


def listed(names: Sequence[str]) -> str:
    """Return the first ten names, and how many more there are."""
    return ", ".join(names[:10]) + (f" and {len(names) - 10:,} more" if len(names) > 10 else "")


def _blame(where: str, header: list[str], wanted: list[int], row: list[str]) -> NoReturn:
    """Raise NnliteError for the first field of a row that is no finite number."""
    for name, text in ((header[k], row[k]) for k in wanted):  # unstripped: float leaves what strip takes for a space
        if text.strip().lower() in MISSING:
            raise NnliteError(
                f"{where}, column {name!r}: expected a number, found a missing value ({text!r}); fill it in, or leave "
                f"out the row or the column"
            )
        if not _is_number(text):
            raise NnliteError(
                f"{where}, column {name!r}: expected a number, found {shown(text)}; write text as numbers, one column "
                f"of 0 and 1 for each of its values"
            )
    raise AssertionError("each field is a number")


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text)) and "_" not in text  # 1_000 is a number in Python's source alone
    except ValueError:
        return False
