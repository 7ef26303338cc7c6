"""Formats: each kind of file has a number, which rises where older versions of nnlite could not read it."""

from typing import Any

from nnlite.storage.kinds import expect, integer
from nnlite.storage.refusals import RefusedError
from nnlite.storage.texts import shown


def expect_format(found: Any, newest: int, written_by: Any) -> int:
    """Return the number of a format; NnliteError where it is none, RefusedError where it is a newer one.

    Arguments:
        found: what the file says.
        newest: the newest format that is known.
        written_by: the version of nnlite that the file says it was written by.
    """
    expect("format", integer(1), found)
    if found > newest:
        raise RefusedError(
            f"format: expected {newest} at most, found {found}; nnlite {shown(written_by)} wrote it, and reads it"
        )
    return int(found)
