"""NPZ files of NumPy: arrays by name, whose headers are looked at before any of them is read; no pickle."""

import io
import lzma
import math
import struct
import sys
import tokenize
import warnings
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError
from nnlite.storage import kinds
from nnlite.storage.files import open_file
from nnlite.storage.memory import expect_data_budget

MEMBERS_LIMIT = 100  # a data set has six arrays at most
DIRECTORY_LIMIT = 100_000  # bytes; zipfile reads it whole before its members can be counted, 10 us for each
HEADER_LIMIT = 10_000  # bytes; NumPy reads no longer one either, but unpacks it first

# What zipfile, NumPy and the modules below them say of a file that is none of theirs; RuntimeError of an encrypted one.
DAMAGE: tuple[type[Exception], ...] = (zipfile.BadZipFile, ValueError, EOFError, RuntimeError, OverflowError)
DAMAGE += (zlib.error, lzma.LZMAError, struct.error, tokenize.TokenError)

Arrays = Mapping[str, npt.NDArray[Any]]


def read_npz(path: Path, names: tuple[str, ...] | None = None) -> Arrays:
    """Return the arrays of an NPZ file, or only those of `names` that it has.

    NnliteError for what is no such file, for arrays of Python objects, and for more than fits into memory.
    """
    with _told(path), open_file(path) as file, zipfile.ZipFile(_ShortReads(file)) as members:
        if len(members.namelist()) > MEMBERS_LIMIT:
            raise ValueError(f"it has {len(members.namelist()):,} arrays, more than {MEMBERS_LIMIT}")
        forms = {name.removesuffix(".npy"): _form(members, name) for name in members.namelist()}
        wanted = [name for name in forms if names is None or name in names]
        for name in wanted:
            if forms[name][0].hasobject:
                raise NnliteError(
                    f"{path}: {name}: expected numbers or text, found Python objects, which nnlite does not load; "
                    f"save {name}.astype(float), or {name}.astype(str) for text"
                )
        size = sum(dtype.itemsize * math.prod(shape) for dtype, shape in map(forms.__getitem__, wanted))
        expect_data_budget(path, size)
        file.seek(0)
        with np.load(file, allow_pickle=False) as arrays:
            return {name: _of_characters(name, arrays[name]) for name in wanted}


class _ShortReads:
    """A file that gives zipfile at most DIRECTORY_LIMIT bytes at a time; ValueError where it asks for more of them."""

    def __init__(self, file: BufferedReader) -> None:
        self.seek, self.tell, self.seekable, self._read = file.seek, file.tell, file.seekable, file.read

    def read(self, size: int = -1) -> bytes:
        content = self._read(size if 0 <= size <= DIRECTORY_LIMIT else DIRECTORY_LIMIT + 1)
        if len(content) > DIRECTORY_LIMIT:
            raise ValueError(f"its directory has more than {DIRECTORY_LIMIT:,} bytes")
        return content


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn any error in reading `path` into one that says what to do."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a header that Python 2 has written, or that holds odd escapes
            yield
    except NnliteError:
        raise
    except OSError as error:
        raise NnliteError(f"{path}: cannot be read ({error.strerror or error}); give the path of a file") from error
    except DAMAGE as error:
        raise NnliteError(f"{path}: expected an NPZ file, as numpy.savez writes ({error}); write it again") from error


def _of_characters(name: str, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return `array`; ValueError where it holds text of other than characters, at which Python would break."""
    if array.dtype.kind == "U" and array.size and array.dtype.itemsize:
        numbers = np.ascontiguousarray(array).reshape(-1).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
        if numbers.max() > sys.maxunicode:
            raise ValueError(f"{name[:80]!r} holds text of other than characters")
    return array


def _form(members: zipfile.ZipFile, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return dtype and shape of an array, by its header alone; ValueError for a shape that no array has."""
    with members.open(name) as member:
        start = io.BytesIO(member.read(HEADER_LIMIT))
    version = np.lib.format.read_magic(start)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(start)
    if not all(kinds.is_integer(length) and length >= 0 for length in shape) or math.prod(shape) >= 1 << 63:
        raise ValueError(f"{name[:80]!r} has a shape that no array has")
    return dtype, shape
