"""What may not be read, as another user's, for tests that root runs, who may read all."""

import errno
import os


def close(monkeypatch, *closed):
    """Let nothing at or below these paths be read, as another user's folder or file."""

    def guarded(real, own=()):
        def call(path, *more, **options):
            if str(path).startswith(closed) and str(path) not in own:
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return real(path, *more, **options)

        return call

    for name in ("open", "listdir"):
        monkeypatch.setattr(os, name, guarded(getattr(os, name)))
    monkeypatch.setattr(os, "stat", guarded(os.stat, closed))  # what is above them says that they are there
