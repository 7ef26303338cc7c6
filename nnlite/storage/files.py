"""Files and folders that are there whole or not at all, whatever is killed when; and reading with limits.

What is read may come from a stranger: it is a regular file of a limited size, or an error.

What is written goes beside its place first, is brought to the disk, and is then renamed, which happens at once or not
at all. Beside `runs/digits/rect` that is `.rect.new`; no run has a name that begins with a dot.
"""

import errno
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path


def beside(path: Path, what: str) -> Path:
    """Return the hidden neighbour of `path` that is its new or old self, its lock or its checkpoint."""
    return path.with_name(f".{path.name}.{what}")


def open_file(path: Path) -> BufferedReader:
    """Open a regular file to read its bytes; OSError for all else: a pipe would wait for ever, a device has no end."""
    # without O_NONBLOCK to open the pipe would wait already; Windows has neither
    file = open(path, "rb", opener=lambda name, flags: os.open(name, flags | getattr(os, "O_NONBLOCK", 0)))  # noqa: SIM115
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    return file


def read_file(path: Path, limit: int) -> bytes:
    """Return the bytes of a regular file; OSError where it cannot be read, or has more than `limit`."""
    with open_file(path) as file:
        size = os.fstat(file.fileno()).st_size
        if size > limit:
            raise OSError(errno.EFBIG, f"it has {size:,} bytes, more than {limit:,}", str(path))
        return file.read(size)


def write_file(path: Path, content: bytes) -> None:
    """Write the file `path`, or replace it; OSError leaves what was there. One process at a time may do so."""
    place = beside(path, "new")
    try:
        place.write_bytes(content)
        _sync(place)
        os.replace(place, path)
        _sync(path.parent)
    except BaseException:  # Ctrl-C, too
        place.unlink(missing_ok=True)
        raise


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `path` at the end of the block, or replaces it.

    An error, OSError among them, leaves what was there. One process at a time may do so.
    """
    place = beside(path, "new")
    recover(path)
    try:
        place.mkdir()
        yield place
        for written in (*place.iterdir(), place):
            _sync(written)
        if path.exists():  # a folder cannot be replaced at once; if we are killed in between, recover puts it back
            os.replace(path, beside(path, "old"))
        os.replace(place, path)
        _sync(path.parent)
    finally:
        recover(path)


def recover(path: Path) -> None:
    """Put `path` back where a process was killed while replacing it, and remove what was left beside it."""
    new, old = beside(path, "new"), beside(path, "old")
    if old.is_symlink():  # not ours
        old.unlink()
    if old.exists() and not path.exists():
        os.replace(old, path)
    _remove(new)
    if old.exists():
        os.replace(old, new)  # so that an old one is always whole
        _remove(new)


def identity(path: Path) -> tuple[int, int, int] | None:
    """Return what tells a folder from another one that takes its place; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino, found.st_mtime_ns


def create_file(path: Path, content: bytes) -> None:
    """Write the new file `path` whole, or not at all; FileExistsError where there is one. Any number may do so."""
    number, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    try:
        with os.fdopen(number, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(number)
        publish(Path(name), path)
    finally:
        Path(name).unlink(missing_ok=True)


def publish(place: Path, path: Path) -> None:
    """Give the finished file `place` the name `path`; FileExistsError where another one has got it meanwhile."""
    os.chmod(place, 0o644)  # mkstemp keeps all others out
    try:
        os.link(place, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(place, path)
    else:
        place.unlink()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def _sync(path: Path) -> None:
    """Bring a file, or the names in a folder, to the disk."""
    if sys.platform == "win32":  # which opens no folder
        return
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)
