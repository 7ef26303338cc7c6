"""The errors that nnlite raises on purpose."""


class NnliteError(ValueError):
    """Something the user can put right: the message says what was expected, found, and what to do."""


class DivergedError(NnliteError):
    """A training whose loss is no longer finite, before there was a net worth keeping."""
