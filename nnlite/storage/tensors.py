"""Named arrays in a safetensors file, whose headers the library safetensors checks.

It refuses a header that does not describe each byte of the file exactly once. What it lets pass is refused here, as a
file may come from a stranger: what is no regular file, a long header, a key that stands twice, and types that no file
of nnlite has. An array may be larger than the memory: it is written and read by blocks of rows.

The bytes are moved by hand. The library's writer holds a second copy of all arrays and hides the file from everyone
else, and where memory runs out it panics, by an exception that is no Exception. The format is a length, a header in
JSON, and the arrays.
"""

import errno
import json
import math
import os
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt
import safetensors

from nnlite.errors import NnliteError
from nnlite.storage.files import new_file, open_file, reserve
from nnlite.storage.memory import expect_budget
from nnlite.storage.refusals import RefusedError
from nnlite.storage.texts import parse_json

OLDEST = (0, 8)  # of the library
HEADER_LIMIT = 1 << 20  # bytes; those of nnlite's own files are below 10,000
METADATA = "__metadata__"
CHUNK = 1 << 20  # bytes compared at a time
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
        """Return the array `name`, or only some `rows` next to each other; nothing else is read.

        RefusedError where they take more memory than a file may.
        """
        dtype, shape = self.layout[name]
        first, end, _ = rows.indices(shape[0])
        row = math.prod(shape[1:]) * dtype.itemsize
        count = max(0, end - first)
        expect_budget(self.path, count * row)
        with _opened(self.path) as (file, header):
            if name not in header or _form(header, name) != (dtype, shape):
                raise ValueError(f"{reprlib.repr(name)} is another array than when the file was opened")
            values = np.empty((count, *shape[1:]), dtype)
            file.seek(header[name]["data_offsets"][0] + first * row, os.SEEK_CUR)
            if file.readinto(_bytes(values)) < values.nbytes:
                raise ValueError("it ends within an array")
            return values


def open_arrays(path: Path) -> ArrayFile:
    """Read the header of the safetensors file `path`, and none of its arrays.

    NnliteError: what is no regular file; a header over HEADER_LIMIT, that is no plain JSON, names a key twice, or
    does not describe each byte of the file exactly once; a dtype other than those of DTYPES.
    """
    with _opened(path) as (_, header):
        metadata = header.pop(METADATA, None)
        return ArrayFile(path, metadata or {}, {name: _form(header, name) for name in header})


def write_arrays(path: Path, arrays: Mapping[str, npt.NDArray[Any]], metadata: Mapping[str, str] | None = None) -> None:
    """Write the file `path` and read it back; OSError where the disk fails, or holds something else then."""
    header, starts = _header({name: (array.dtype, array.shape) for name, array in arrays.items()}, metadata or {})
    with path.open("w+b") as file:
        file.write(header)
        for name in starts:
            file.write(_bytes(np.ascontiguousarray(arrays[name])))
        file.seek(0)
        same = file.read(len(header)) == header and all(_holds(file, arrays[name]) for name in starts)
    if not same:
        raise OSError(errno.EIO, "the arrays read back differ from those written; check the disk", str(path))


class Writer:
    """Puts arrays into a file that has room for them; an array may come in blocks of rows."""

    def __init__(self, path: Path, file: IO[bytes], layout: Layout, metadata: Mapping[str, str]) -> None:
        header, self._starts = _header(layout, metadata)
        self._path, self._file, self._layout, self._written = path, file, layout, 0
        reserve(file.fileno(), len(header) + size_of(layout))
        file.write(header)

    def put(self, name: str, values: npt.NDArray[Any], start: int = 0) -> None:
        """Write `values` as the rows of the array `name` from row `start` on."""
        dtype, shape = self._layout[name]
        if values.shape[1:] != shape[1:] or start + len(values) > shape[0]:
            raise ValueError(f"{name}: rows from {start} on of {values.shape} do not fit an array of {shape}")
        with _writing(self._path):
            self._file.seek(self._starts[name] + start * math.prod(shape[1:]) * dtype.itemsize)
            self._written += self._file.write(_bytes(np.ascontiguousarray(values, dtype)))

    def finish(self) -> None:
        """Raise ValueError where an array is not complete."""
        expected = size_of(self._layout)
        if self._written != expected:
            raise ValueError(f"{self._path}: expected {expected} bytes of arrays, {self._written} were written")


@contextmanager
def new_arrays(path: Path, layout: Layout, metadata: Mapping[str, str]) -> Iterator[Writer]:
    """Give a Writer for a new file that holds the arrays of `layout`, of the dtypes of DTYPES.

    All of its place on the disk is taken at once, so that a disk that is too small is told before the work. The file
    comes to its name at the end of the block, whole or not at all. NnliteError where there is a file already, or none
    can be written.
    """
    with ExitStack() as stack:
        with _writing(path):
            if path.exists():
                raise NnliteError(f"{path}: there is such a file; choose another name")
            place = stack.enter_context(new_file(path, replace=False))
            writer = Writer(path, stack.enter_context(place.open("wb")), layout, metadata)
        yield writer
        writer.finish()
        with _writing(path):
            stack.close()


def _header(layout: Layout, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, int]]:
    """Return what a file begins with, and where each array starts, in the order of the library: wide types first."""
    codes, end = {dtype: code for code, dtype in DTYPES.items()}, 0
    header: dict[str, Any] = {METADATA: dict(metadata)} if metadata else {}
    for name, (dtype, shape) in sorted(layout.items(), key=lambda item: (-item[1][0].itemsize, item[0])):
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": codes[dtype], "shape": shape, "data_offsets": (start, end)}
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays are aligned
    begin = 8 + len(text)
    starts = {name: begin + entry["data_offsets"][0] for name, entry in header.items() if name != METADATA}
    return len(text).to_bytes(8, "little") + text, starts


def _bytes(array: npt.NDArray[Any]) -> memoryview:
    """Return the memory of a contiguous array."""
    return array.reshape(-1).view(np.uint8).data


def _holds(file: IO[bytes], array: npt.NDArray[Any]) -> bool:
    """Return whether `array` comes next in `file`."""
    expected = _bytes(np.ascontiguousarray(array))
    return all(
        file.read(CHUNK if start + CHUNK < len(expected) else len(expected) - start) == expected[start : start + CHUNK]
        for start in range(0, len(expected), CHUNK)
    )


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
def _opened(path: Path) -> Iterator[tuple[BufferedReader, dict[str, Any]]]:
    """Give the file, at the first byte of its arrays, and its header, checked; NnliteError for whatever goes wrong.

    The library opens `path` by itself, and maps it into memory while it checks the header. So two races remain for a
    process that may write in the folder: a pipe put there after our check is waited for, and a file cut off at that
    moment ends us by SIGBUS.
    """
    _check_library()
    try:
        with open_file(path) as file:
            length = int.from_bytes(file.read(8), "little")
            if length > HEADER_LIMIT:
                raise ValueError(f"its first 8 bytes claim a header of {length} bytes, more than {HEADER_LIMIT}")
            with safetensors.safe_open(path, "np"):
                header = parse_json(file.read(length).decode("utf-8"))
            if any(len(entry) > 3 for name, entry in header.items() if name != METADATA):
                raise ValueError("an array has more than dtype, shape and data_offsets")
            yield file, header
    except (KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError, RefusedError):
        raise
    except OSError as error:
        what = error.strerror or error
        raise NnliteError(f"{path}: cannot read it ({what}); give the path of a safetensors file") from error
    except BaseException as error:  # a panic of the library, which is written in Rust, is no Exception
        what = str(error)[:200]
        raise NnliteError(f"{path}: expected a safetensors file, found a damaged one: {what}") from error


def _form(header: Mapping[str, Any], name: str) -> Form:
    """Return dtype and shape of an array; ValueError for those that no file of nnlite has."""
    code, shape = header[name]["dtype"], tuple(header[name]["shape"])
    if code not in DTYPES or not 1 <= len(shape) <= 4:
        expected, found = f"1 to 4 axes, dtype {' or '.join(DTYPES)}", f"{code} {reprlib.repr(shape)}"
        raise ValueError(f"{reprlib.repr(name)}: expected {expected}, found {found}")
    return DTYPES[code], shape


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NnliteError(f"{path}: cannot write it ({error.strerror}); choose another place") from error
