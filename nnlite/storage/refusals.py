"""Refusals: what is in order, and is not read all the same."""

from nnlite.errors import NnliteError


class RefusedError(NnliteError):
    """A file is whole, but takes more memory than the budget allows, or is of a newer format."""
