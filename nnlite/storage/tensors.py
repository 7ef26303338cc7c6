"""Named arrays in a safetensors file, written block by block, and read by a reader that believes nothing.

The format: 8 bytes that hold a length, little-endian; a JSON header of that length, with dtype, shape and place of
each array and free text under "__metadata__"; then the arrays, C-contiguous, in any order and without gaps.
The library safetensors writes and reads whole files in memory; here an array may be larger than that, and a
file may come from a stranger: every number of its header is checked against the size of the file before it counts.
"""

import json
import math
import os
import reprlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError
from nnlite.storage.files import new_file, open_file
from nnlite.storage.texts import parse_json

HEADER_LIMIT = 1 << 20  # bytes; those of nnlite's own files are below 10,000
METADATA = "__metadata__"
DTYPES: dict[str, np.dtype[Any]] = {"F32": np.dtype("<f4"), "F64": np.dtype("<f8"), "I64": np.dtype("<i8")}

Layout: TypeAlias = Mapping[str, tuple[np.dtype[Any], tuple[int, ...]]]  # dtype and shape of each array, by name


@dataclass(frozen=True)
class Place:
    """Where an array is in a file: its dtype, its shape, and the byte that it starts at."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    start: int

    @property
    def row(self) -> int:
        """The bytes of one row, that is of one step along the first axis."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def size(self) -> int:
        """The bytes of the whole array."""
        return self.shape[0] * self.row


@dataclass(frozen=True)
class ArrayFile:
    """What the header of a file says, checked: the text in it, and the place of each array."""

    path: Path
    metadata: dict[str, str]
    places: dict[str, Place]

    def read(self, name: str, rows: slice = slice(None)) -> npt.NDArray[Any]:
        """Return the array `name`, or only some `rows` next to each other; nothing else is read."""
        place = self.places[name]
        first, end, _ = rows.indices(place.shape[0])
        shape = (max(end - first, 0), *place.shape[1:])
        try:
            with open_file(self.path) as file:
                file.seek(place.start + first * place.row)
                values = np.fromfile(file, place.dtype, math.prod(shape))
            return values.reshape(shape)
        except (OSError, ValueError) as error:  # deleted or cut off since its header was read
            raise NnliteError(f"{self.path}: cannot read {name} ({error}); fetch the file again") from error

    @property
    def layout(self) -> Layout:
        """The dtype and the shape of each array."""
        return {name: (place.dtype, place.shape) for name, place in self.places.items()}


def open_arrays(path: Path) -> ArrayFile:
    """Read the header of the safetensors file `path`, and none of its arrays.

    NnliteError: what is no regular file; a header over HEADER_LIMIT, that is no plain JSON, names a key twice, or
    does not describe each byte of the file exactly once; a dtype other than those of DTYPES.
    """
    try:
        with open_file(path) as file:
            return ArrayFile(path, *_header(file, os.fstat(file.fileno()).st_size))
    except OSError as error:
        raise NnliteError(f"{path}: cannot read it ({error.strerror}); give the path of a safetensors file") from error
    except ValueError as error:
        raise NnliteError(f"{path}: expected a safetensors file, found a damaged one: {error}") from error


def check_layout(found: Layout, expected: Layout) -> None:
    """Raise ValueError, which names the first array that is missing, does not belong there, or has another form."""
    for name in sorted(found.keys() | expected.keys()):
        if found.get(name) != expected.get(name):
            forms = (f"{one[name][0]} {one[name][1]}" if name in one else "no such array" for one in (expected, found))
            raise ValueError("{}: expected {}, found {}".format(reprlib.repr(name), *forms))


def _header(file: IO[bytes], size: int) -> tuple[dict[str, str], dict[str, Place]]:
    length = int.from_bytes(file.read(8), "little")
    if not 2 <= length <= min(HEADER_LIMIT, size - 8):
        raise ValueError(f"its first 8 bytes claim a header of {length} bytes, in a file of {size}")
    header = parse_json(file.read(length).decode("utf-8"))
    if not isinstance(header, dict):
        raise ValueError("its header is no JSON object")
    metadata = header.pop(METADATA, {})
    if not isinstance(metadata, dict) or not all(isinstance(text, str) for text in metadata.values()):
        raise ValueError(f"{METADATA} holds something else than texts")
    claims = {name: _claim(reprlib.repr(name), entry) for name, entry in header.items()}
    end, places = 8 + length, {}
    for name, (place, stop) in sorted(claims.items(), key=lambda item: (item[1][0].start, item[1][1])):
        if 8 + length + place.start != end:
            raise ValueError(f"there is a gap or an overlap before {reprlib.repr(name)}")
        places[name] = replace(place, start=end)
        end = 8 + length + stop
    if end != size:
        raise ValueError(f"its header describes {end} bytes, the file has {size}")
    return metadata, places


def _claim(name: str, entry: Any) -> tuple[Place, int]:
    """Return the place of an array among the arrays as its `entry` of the header has it, and the byte after it."""
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"{name} lacks dtype, shape or data_offsets, or has more")
    code, shape, offsets = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(code, str) or code not in DTYPES:
        raise ValueError(f"the dtype of {name} is none of {', '.join(DTYPES)}")
    if not (_are_sizes(shape) and 1 <= len(shape) <= 4 and _are_sizes(offsets) and len(offsets) == 2):
        raise ValueError(f"the shape or the data_offsets of {name} are no sizes of an array")
    place = Place(DTYPES[code], tuple(shape), offsets[0])
    if place.start + place.size != offsets[1]:
        raise ValueError(f"the bytes {offsets[0]} to {offsets[1]} of {name} do not fit its shape")
    return place, offsets[1]


def _are_sizes(numbers: Any) -> bool:
    return isinstance(numbers, list) and all(type(number) is int and 0 <= number < 1 << 63 for number in numbers)


class Writer:
    """Puts arrays into a file whose header stands; an array may come in blocks of rows."""

    def __init__(self, path: Path, file: IO[bytes], places: Mapping[str, Place]) -> None:
        self.path, self.places, self._file, self._written = path, places, file, 0

    def put(self, name: str, values: npt.NDArray[Any], start: int = 0) -> None:
        """Write `values` as the rows of the array `name` from row `start` on."""
        place = self.places[name]
        if values.shape[1:] != place.shape[1:] or start + len(values) > place.shape[0]:
            raise ValueError(f"{name}: rows from {start} on of {values.shape} do not fit an array of {place.shape}")
        with _writing(self.path):
            self._file.seek(place.start + start * place.row)
            self._written += self._file.write(np.asarray(values, place.dtype).tobytes())

    def finish(self) -> None:
        """Raise ValueError where an array is not complete."""
        expected = sum(place.size for place in self.places.values())
        if self._written != expected:
            raise ValueError(f"{self.path}: expected {expected} bytes of arrays, {self._written} were written")


@contextmanager
def new_arrays(path: Path, layout: Layout, metadata: Mapping[str, str]) -> Iterator[Writer]:
    """Give a Writer for a new file that holds the arrays of `layout`, of the dtypes of DTYPES.

    The file is written beside its place, and moved there at the end of the block: it stands there whole, or not at
    all. NnliteError where there is a file already, or none can be written.
    """
    header, places = _plan(layout, metadata)
    with ExitStack() as stack:
        with _writing(path):
            if path.exists():
                raise NnliteError(f"{path}: there is such a file; choose another name, or delete it")
            file = stack.enter_context(stack.enter_context(new_file(path, replace=False)).open("wb"))
            file.write(header)
        writer = Writer(path, file, places)
        yield writer
        writer.finish()
        with _writing(path):
            stack.close()


def size_of(layout: Layout) -> int:
    """Return the bytes of all arrays of a layout."""
    return sum(math.prod(shape) * dtype.itemsize for dtype, shape in layout.values())


def _plan(layout: Layout, metadata: Mapping[str, str]) -> tuple[bytes, dict[str, Place]]:
    """Return the bytes before the arrays, and where in the file each array goes."""
    codes = {dtype: code for code, dtype in DTYPES.items()}
    entries: dict[str, Any] = {METADATA: dict(metadata)}
    places, end = {}, 0
    for name, (dtype, shape) in layout.items():
        places[name] = Place(dtype, shape, end)
        end += places[name].size
        entries[name] = {"dtype": codes[dtype], "shape": shape, "data_offsets": (places[name].start, end)}
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)  # so that the arrays begin at a multiple of 8
    first = 8 + len(text)
    moved = {name: replace(place, start=first + place.start) for name, place in places.items()}
    return len(text).to_bytes(8, "little") + text, moved


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise NnliteError(f"{path}: cannot write it ({error.strerror}); choose another place") from error
