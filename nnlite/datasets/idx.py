"""The format of MNIST's files, read so that a hostile file costs neither memory nor time.

IDX is a magic number and the length of each axis, big-endian, and then one byte for each value, gzipped or not. The
library idx2numpy was weighed: it unpacks no gzip, and asks for as much memory as the header promises. Python's gzip
module has no limit, and reads on through any number of members.
"""

import math
import struct
import zlib
from typing import IO

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError

IDX_IMAGES, IDX_COLOURS, IDX_LABELS = 2051, 2052, 2049
IDX_LIMIT = 1 << 26  # bytes, packed or not; the largest MNIST file unpacks to 47 MB
_CHUNK = 1 << 16  # bytes read or unpacked at a time


def read_idx(file: IO[bytes], name: str, *magic: int, limit: int = IDX_LIMIT) -> npt.NDArray[np.uint8]:
    """Return the bytes in an IDX file, (N, rows, columns) or (N, rows, columns, channels) for images, (N,) for labels.

    NnliteError unless the file is whole, gzipped as a single member or not at all, with one of these magic numbers, at
    most `limit` values, and exactly as many as its header promises. It unpacks no more than that, and takes memory only
    for values that are there.

    Arguments:
        file: the file, open at its start.
        name: what errors call it.
        magic: IDX_IMAGES, IDX_COLOURS or IDX_LABELS, or several of them.
        limit: the most bytes of the file, packed or not.
    """
    start = file.read(2)
    unpacking = _Plain(start) if start == b"\0\0" else zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    form = "IDX" if isinstance(unpacking, _Plain) else "gzip"
    header = 4 + 4 * (magic[0] & 0xFF)
    try:
        if not isinstance(unpacking, _Plain):
            unpacking.decompress(start)  # of which nothing comes yet
        head = _unpack(file, unpacking, 4, limit)
        found = int.from_bytes(head)
        if len(head) == 4 and found not in magic:
            listed = " or ".join(map(str, magic))
            raise NnliteError(f"{name}: expected an IDX file with magic number {listed}, found {found}")
        axes = found & 0xFF
        head += _unpack(file, unpacking, 4 * axes, limit)
        if len(head) < 4 + 4 * axes or not axes:
            raise NnliteError(f"{name}: expected an IDX header of {header} bytes, found {len(head)}")
        shape = struct.unpack(f">{axes}I", head[4:])
        size = math.prod(shape)
        if not 0 < size <= limit:
            raise NnliteError(f"{name}: expected 1 to {limit} bytes, its header claims {size}")
        values = _unpack(file, unpacking, size, limit)
        more = _unpack(file, unpacking, 1, limit)
    except (OSError, EOFError, zlib.error) as error:
        raise NnliteError(f"{name}: expected a complete {form} file ({error}); fetch it again") from error
    if len(values) < size or more:
        raise NnliteError(
            f"{name}: expected {size} bytes after the header, found {'more' if more else len(values)}; fetch it again"
        )
    if unpacking.unused_data or file.read(1):
        raise NnliteError(f"{name}: expected one gzip member and then its end, found more; fetch it again")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


class _Plain:
    """Stands in the place of a decompressor where nothing is packed."""

    eof, unused_data = False, b""

    def __init__(self, start: bytes) -> None:
        self.unconsumed_tail = start

    def decompress(self, data: bytes, most: int) -> bytes:
        """Return the first bytes of `data`, and keep the others as its tail."""
        self.unconsumed_tail = data[most:]
        return data[:most]


def _unpack(file: IO[bytes], unpacking: "zlib._Decompress | _Plain", count: int, limit: int) -> bytearray:
    """Return the next `count` bytes unpacked from `file`, or fewer if its gzip member, or a plain file, ends."""
    values = bytearray()  # it grows as values arrive, so a false promise costs nothing
    while len(values) < count and not unpacking.eof:
        packed = unpacking.unconsumed_tail or file.read(_CHUNK)
        if not packed and isinstance(unpacking, _Plain):
            break
        if not packed:
            raise EOFError("it ends too early")
        if file.tell() > limit:
            raise EOFError(f"it has more than {limit} bytes")
        values += unpacking.decompress(packed, min(_CHUNK, count - len(values)))
    return values
