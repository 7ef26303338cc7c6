"""Files and folders that are there whole or not at all, whatever is killed when; and reading with limits.

What is read may come from a stranger: it is a regular file of a limited size, or an error.

What is written has no name until it is whole, or a hidden one beside its own; it is brought to the disk, and then gets
its name, which happens at once or not at all. The library atomicwrites was weighed: it is no longer maintained, and
knows neither folders nor what a kill has left.
"""

import errno
import functools
import logging
import os
import shutil
import stat
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TypeVar

from nnlite.errors import NnliteError
from nnlite.storage.companions import beside
from nnlite.storage.exchange import exchange
from nnlite.storage.places import new_place

# Of an fsync that a file system does not know for this kind of file, as some network file systems for folders.
NO_FSYNC = {errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF}
ATTEMPTS = 100  # to read a folder between two replacements of it

Read = TypeVar("Read")


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


def expect_readable(path: Path, error: BaseException) -> None:
    """Raise NnliteError where `error`, of reading `path`, says that it may not be read, which is no damage."""
    for one in (error, error.__cause__):
        if isinstance(one, PermissionError):
            raise NnliteError(f"{path}: cannot be read ({one.strerror}); it belongs to another user") from error


def make_folder(folder: Path) -> None:
    """Make `folder` and those above it that are missing, and bring their names to the disk; OSError."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), error.filename) from error
    for one in missing:
        _sync(one.parent)


def expect_writable(path: Path) -> None:
    """Make the folder of `path`; OSError unless a file can be written to `path`, in the place of another one or not.

    A write-protected file is not replaced.
    """
    make_folder(path.parent)
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if path.exists():
        _expect_unprotected(path)
    with tempfile.TemporaryFile(dir=path.parent):
        pass


def _expect_unprotected(path: Path) -> None:
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "it is write-protected", str(path))


@contextmanager
def new_file(path: Path, *, replace: bool, locked: bool = False) -> Iterator[Path]:
    """Give a place to write a file to; at the end of the block it becomes `path`, whole or not at all.

    Arguments:
        path: where the file will be; its folder is made.
        replace: whether it may take the place of another file; FileExistsError where it may not.
        locked: whether the caller holds the lock of `path`; the place then has a name that `recover` knows.

    OSError, as any other error, leaves what was there.
    """
    make_folder(path.parent)
    number = None if replace else _unnamed_file(path.parent)
    if number is None:
        with new_files(path.parent, replace=replace, place=beside(path, "new") if locked else None) as place:
            yield place / path.name
        return
    try:
        place = Path(f"/proc/self/fd/{number}")
        yield place
        os.fsync(number)
        os.link(place, path, src_dir_fd=number)  # which makes Python follow the link that the place is
        _sync(path.parent)
    finally:
        os.close(number)


def _unnamed_file(folder: Path) -> int | None:
    """Return an open file in `folder` that has no name, and vanishes where nobody gives it one; None without such."""
    try:
        return os.open(folder, os.O_TMPFILE | os.O_RDWR, 0o666) if os.path.isdir("/proc/self/fd") else None
    except (AttributeError, OSError):  # another system, or a file system that cannot
        return None


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
    make_folder(folder)
    with ExitStack() as stack:
        if place is None:
            place = stack.enter_context(new_place(folder))
        else:
            _remove(place)
            place.mkdir()
            stack.callback(_remove, place)
        yield place
        files = sorted(place.iterdir(), key=lambda file: file.name == last)
        for file in files:
            _sync(file)
        for file in files:
            (os.replace if replace else publish)(file, folder / file.name)
        _sync(folder)


def reserve(number: int, size: int) -> None:
    """Take `size` bytes on the disk for the open file `number`; OSError where there are not as many."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(number, 0, size)
    else:
        os.truncate(number, size)


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
        if not (os.path.lexists(path) and exchange(place, path)):
            if os.path.lexists(path):
                os.replace(path, beside(path, "old"))  # where `current` finds it, if we are killed now
            os.replace(place, path)
        _sync(path.parent)
    finally:
        recover(path)


def expect_replaceable(path: Path) -> None:
    """Raise OSError where `new_folder`, or `new_file`, could not take the place of `path`; try before long work.

    What is write-protected is not replaced: its owner has protected it from that.
    """
    recover(path)
    place = beside(path, "new")
    place.mkdir()
    place.rmdir()
    if not os.path.lexists(path):
        return
    about, above = os.lstat(path), os.stat(path.parent)
    if not stat.S_ISLNK(about.st_mode):  # which is replaced, and not what it leads to
        _expect_unprotected(path)
    if above.st_mode & stat.S_ISVTX and hasattr(os, "geteuid") and os.geteuid() not in (0, about.st_uid, above.st_uid):
        raise PermissionError(errno.EPERM, "it is another user's", str(path))


def current(path: Path) -> Path:
    """Return where `path` is now: the old one while another process replaces it in two steps, or died in between."""
    if not path.name or os.path.exists(path):
        return path
    old = beside(path, "old")
    return old if os.path.isdir(old) and not os.path.islink(old) else path


def recover(path: Path) -> None:
    """Put `path` back where a process was killed while replacing it, and remove what was left beside it.

    Only the process that holds the lock of `path` may do so.
    """
    new, old = beside(path, "new"), beside(path, "old")
    if old.is_symlink():  # not ours
        old.unlink()
    if old.exists() and not os.path.lexists(path):
        os.replace(old, path)
    _remove(new)
    if old.exists():
        os.replace(old, new)  # so that an old one is always whole
        _remove(new)


def undisturbed(path: Path, read: Callable[[Path], Read]) -> Read:
    """Return what `read` finds in the folder where `path` is now, while no process replaces it.

    NnliteError: that of `read`, or that the folder was replaced during every one of ATTEMPTS.
    """
    for attempt in range(ATTEMPTS):
        folder = current(path)
        seen = identity(folder)
        found: Read | NnliteError
        try:
            found = read(folder)
        except NnliteError as error:
            found = error
        if (folder, seen) == (current(path), identity(folder)) and (seen or attempt):
            break
        time.sleep(0.01)  # it was replaced meanwhile
    else:
        raise NnliteError(f"{path}: another process replaces it again and again; read it when that one has finished")
    if isinstance(found, NnliteError):
        raise found
    return found


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
    except OSError as error:
        if error.errno not in NO_FSYNC:
            raise
        _warn_of_no_fsync(os.fstat(number).st_dev, error.strerror)
    finally:
        os.close(number)


@functools.cache  # once for each file system
def _warn_of_no_fsync(device: int, reason: str | None) -> None:
    logging.getLogger("nnlite").warning(
        "fsync: a file system that is written to does not know it (%s); going on without: after a power failure, look "
        "whether the last file is whole",
        reason,
    )
