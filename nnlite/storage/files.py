"""Files and folders that are there whole or not at all, whatever is killed when; and reading with limits.

What is read may come from a stranger: it is a regular file of a limited size, or an error.

What is written goes into a hidden place beside its own, is brought to the disk, and is then renamed, which happens at
once or not at all. Beside `runs/digits/rect` that place is `.rect.new`; no run has a name that begins with a dot. The
library atomicwrites was weighed: it is no longer maintained, and knows neither folders nor what a kill has left.
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


def read_text(path: Path, limit: int) -> str:
    """Return the text of a regular file in UTF-8, with or without a byte order mark, as `read_file` reads it.

    ValueError where it is not UTF-8.
    """
    return read_file(path, limit).decode("utf-8-sig")


def expect_writable(path: Path) -> None:
    """Make the folder of `path`; OSError unless a file can be written to `path`, whatever is there now."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    with tempfile.TemporaryFile(dir=path.parent):
        pass


@contextmanager
def new_file(path: Path, *, replace: bool, locked: bool = False) -> Iterator[Path]:
    """Give a place to write a file to; at the end of the block it becomes `path`, whole or not at all.

    Arguments:
        path: where the file will be; its folder is made.
        replace: whether it may take the place of another file; FileExistsError where it may not.
        locked: whether the caller holds the lock of `path`; the place then has a name that `recover` knows.

    OSError, as any other error, leaves what was there.
    """
    with new_files(path.parent, replace=replace, place=beside(path, "new") if locked else None) as place:
        yield place / path.name


@contextmanager
def new_files(folder: Path, *, last: str = "", replace: bool = True, place: Path | None = None) -> Iterator[Path]:
    """Give an empty folder; the files written to it move into `folder` at the end of the block, each at once.

    Arguments:
        folder: where the files will be; it is made.
        last: the name of the file that moves after all others.
        replace: whether they may take the place of other files; FileExistsError where they may not.
        place: the empty folder, where only one process at a time may use it; one of a new name by default.

    An error within the block leaves what was there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if place is None:
        place = Path(tempfile.mkdtemp(prefix=".new-", dir=folder))
    else:
        _remove(place)
        place.mkdir()
    try:
        yield place
        files = sorted(place.iterdir(), key=lambda file: file.name == last)
        for file in files:
            _sync(file)
        for file in files:
            (os.replace if replace else publish)(file, folder / file.name)
        _sync(folder)
    finally:
        _remove(place)


def publish(place: Path, path: Path) -> None:
    """Give the finished file `place` the name `path` as well; FileExistsError where another file has it."""
    try:
        os.link(place, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        if path.exists():
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from None
        os.replace(place, path)


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder that becomes `path` at the end of the block, or replaces it.

    An error, OSError among them, leaves what was there. Only one process at a time may do so: see `lock`.
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
    return found.st_dev, found.st_ino, found.st_ctime_ns  # copying can set the time of its content, not this one


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
