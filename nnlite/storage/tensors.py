"""Named arrays in a safetensors file, written and read by the library safetensors.

The library refuses a header that does not describe each byte of the file exactly once. What it lets pass is refused
here, as a file may come from a stranger: what is no regular file, a long header, a key that stands twice, and types
that no file of nnlite has. An array may be larger than the memory: it is written and read by blocks of rows.
"""

import errno
import json
import math
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors.numpy

from nnlite.errors import NnliteError
from nnlite.storage.files import new_file, open_file
from nnlite.storage.texts import parse_json

OLDEST = (0, 8)  # of the library; those before hold a second copy of all arrays while they write
HEADER_LIMIT = 1 << 20  # bytes; those of nnlite's own files are below 10,000
METADATA = "__metadata__"
DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}

Form: TypeAlias = tuple[np.dtype[Any], tuple[int, ...]]  # dtype and shape of an array
Layout: TypeAlias = Mapping[str, Form]


@dataclass(frozen=True)
class ArrayFile:
    """What the header of a file says, checked: the text in it, and the form of each array."""

    path: Path
    metadata: dict[str, str]
    layout: Layout

    def read(self, name: str, rows: slice = slice(None)) -> npt.NDArray[Any]:
        """Return the array `name`, or only some `rows` next to each other; nothing else is read."""
        dtype, shape = self.layout[name]
        first, end, _ = rows.indices(shape[0])
        with _opened(self.path) as file:
            if _form(file, name) != (dtype, shape):
                raise ValueError(f"{reprlib.repr(name)} is another array than when the file was opened")
            if first >= end:  # which the library refuses
                return np.empty((0, *shape[1:]), dtype)
            return file.get_slice(name)[first:end]


def open_arrays(path: Path) -> ArrayFile:
    """Read the header of the safetensors file `path`, and none of its arrays.

    NnliteError: what is no regular file; a header over HEADER_LIMIT, that is no plain JSON, names a key twice, or
    does not describe each byte of the file exactly once; a dtype other than those of DTYPES.
    """
    with _opened(path) as file:
        return ArrayFile(path, file.metadata() or {}, {name: _form(file, name) for name in file.keys()})  # noqa: SIM118


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
    """Write the file `path` and read it back; OSError where the disk fails, or holds something else then."""
    _check_library()
    plain = {name: np.ascontiguousarray(array) for name, array in arrays.items()}  # the library ignores strides
    path.write_bytes(safetensors.numpy.save(plain, dict(metadata or {}) or None))
    with _opened(path) as file:
        same = all(file.get_tensor(name).tobytes() == array.tobytes() for name, array in plain.items())
    if not same:
        raise OSError(errno.EIO, "the arrays read back differ from those written; check the disk", str(path))


class Writer:
    """Puts arrays into a file that has room for them; an array may come in blocks of rows."""

    def __init__(self, path: Path, file: IO[bytes], layout: Layout) -> None:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
        self._starts = {name: 8 + length + header[name]["data_offsets"][0] for name in layout}
        self._path, self._file, self._layout, self._written = path, file, layout, 0

    def put(self, name: str, values: npt.NDArray[Any], start: int = 0) -> None:
        """Write `values` as the rows of the array `name` from row `start` on."""
        dtype, shape = self._layout[name]
        if values.shape[1:] != shape[1:] or start + len(values) > shape[0]:
            raise ValueError(f"{name}: rows from {start} on of {values.shape} do not fit an array of {shape}")
        with _writing(self._path):
            self._file.seek(self._starts[name] + start * math.prod(shape[1:]) * dtype.itemsize)
            self._written += self._file.write(np.asarray(values, dtype).tobytes())

    def finish(self) -> None:
        """Raise ValueError where an array is not complete."""
        expected = size_of(self._layout)
        if self._written != expected:
            raise ValueError(f"{self._path}: expected {expected} bytes of arrays, {self._written} were written")


@contextmanager
def new_arrays(path: Path, layout: Layout, metadata: Mapping[str, str]) -> Iterator[Writer]:
    """Give a Writer for a new file that holds the arrays of `layout`, of the dtypes of DTYPES.

    The library writes whole files only. So it writes one of zeros, which takes no memory, and each block then goes to
    its place in that file: no more than a block is held at a time, and a disk that is too small is told at once.
    The file comes to its name at the end of the block, whole or not at all. NnliteError where there is a file already,
    or none can be written.
    """
    _check_library()
    with ExitStack() as stack:
        with _writing(path):
            if path.exists():
                raise NnliteError(f"{path}: there is such a file; choose another name")
            place = stack.enter_context(new_file(path, replace=False))
            zeros = {name: np.zeros(shape, dtype) for name, (dtype, shape) in layout.items()}
            safetensors.numpy.save_file(zeros, place, dict(metadata) or None)
            place.chmod(0o644)  # the library lets nobody else read it
            writer = Writer(path, stack.enter_context(place.open("r+b")), layout)
        yield writer
        writer.finish()
        with _writing(path):
            stack.close()


def _check_library() -> None:
    found = safetensors.__version__
    if tuple(map(int, found.split(".")[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise NnliteError(f"safetensors: expected version {oldest} or newer, found {found}; upgrade it with pip")


def check_layout(found: Layout, expected: Layout) -> None:
    """Raise ValueError, which names the first array that is missing, does not belong there, or has another form."""
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            forms = (f"{one[name][0]} {one[name][1]}" if name in one else "no such array" for one in (expected, found))
            raise ValueError("{}: expected {}, found {}".format(reprlib.repr(name), *forms))


def size_of(layout: Layout) -> int:
    """Return the bytes of all arrays of a layout."""
    return sum(math.prod(shape) * dtype.itemsize for dtype, shape in layout.values())


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """Give the file as the library shows it, its header checked; NnliteError for whatever goes wrong within.

    The library opens `path` by itself, and maps it into memory. So two races remain for a process that may write in
    the folder: a pipe put there after our check is waited for, and a file cut off while it is read ends us by SIGBUS.
    The library's other way, backend="pread", would read the whole array for each slice of it.
    """
    _check_library()
    try:
        with open_file(path) as plain:
            length = int.from_bytes(plain.read(8), "little")
            if length > HEADER_LIMIT:
                raise ValueError(f"its first 8 bytes claim a header of {length} bytes, more than {HEADER_LIMIT}")
            with safetensors.safe_open(path, "np") as file:
                header = parse_json(plain.read(length).decode("utf-8"))
                if any(len(entry) > 3 for name, entry in header.items() if name != METADATA):
                    raise ValueError("an array has more than dtype, shape and data_offsets")
                yield file
    except (KeyboardInterrupt, SystemExit, MemoryError):
        raise
    except OSError as error:
        what = error.strerror or error
        raise NnliteError(f"{path}: cannot read it ({what}); give the path of a safetensors file") from error
    except BaseException as error:  # a panic of the library, which is written in Rust, is no Exception
        what = str(error)[:200]
        raise NnliteError(f"{path}: expected a safetensors file, found a damaged one: {what}") from error


def _form(file: Any, name: str) -> Form:
    """Return dtype and shape of an array; ValueError for those that no file of nnlite has."""
    array = file.get_slice(name)
    code, shape = array.get_dtype(), tuple(array.get_shape())
    if code not in DTYPES or not 1 <= len(shape) <= 4:
        expected, found = f"1 to 4 axes, dtype {' or '.join(DTYPES)}", f"{code} {reprlib.repr(shape)}"
        raise ValueError(f"{reprlib.repr(name)}: expected {expected}, found {found}")
    return DTYPES[code], shape


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, safetensors.SafetensorError) as error:
        what = getattr(error, "strerror", error)
        raise NnliteError(f"{path}: cannot write it ({what}); choose another place") from error
