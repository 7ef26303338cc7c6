"""The format of MNIST's files, read so that a hostile file costs neither memory nor time.

IDX is a magic number and the length of each axis, big-endian, and then one byte for each value. The library idx2numpy
was weighed: it unpacks no gzip, and asks for as much memory as the header promises. Python's gzip module has no limit,
and reads on through any number of members.
"""

import math
import struct
import zlib
from typing import IO

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError

IDX_IMAGES, IDX_LABELS = 2051, 2049
IDX_LIMIT = 1 << 26  # bytes, packed or not; the largest MNIST file unpacks to 47 MB
_CHUNK = 1 << 16  # bytes read or unpacked at a time


def read_idx(file: IO[bytes], name: str, magic: int) -> npt.NDArray[np.uint8]:
    """Return the bytes in a gzipped IDX file, (N, rows, columns) for images and (N,) for labels.

    NnliteError unless the file is one complete gzip member and nothing else, with this magic number, at most IDX_LIMIT
    values, and exactly as many as its header promises. It unpacks no more than that, and takes memory only for values
    that are there.

    Arguments:
        file: the packed file, open at its start.
        name: what errors call it.
        magic: IDX_IMAGES or IDX_LABELS.
    """
    unpacking = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)  # gzip, with its checksum
    axes = magic & 0xFF
    try:
        head = _unpack(file, unpacking, 4 + 4 * axes)
        if len(head) < 4 + 4 * axes:
            raise NnliteError(f"{name}: expected an IDX header of {4 + 4 * axes} bytes, found {len(head)}")
        found, *shape = struct.unpack(f">{1 + axes}I", head)
        if found != magic:
            raise NnliteError(f"{name}: expected an IDX file with magic number {magic}, found {found}")
        size = math.prod(shape)
        if not 0 < size <= IDX_LIMIT:
            raise NnliteError(f"{name}: expected 1 to {IDX_LIMIT} bytes, its header claims {size}")
        values = _unpack(file, unpacking, size)
        more = _unpack(file, unpacking, 1)
    except (OSError, EOFError, zlib.error) as error:
        raise NnliteError(f"{name}: expected a complete gzip file ({error}); fetch it again") from error
    if len(values) < size or more:
        raise NnliteError(
            f"{name}: expected {size} bytes after the header, found {'more' if more else len(values)}; fetch it again"
        )
    if unpacking.unused_data or file.read(1):
        raise NnliteError(f"{name}: expected one gzip member and then its end, found more; fetch it again")
    return np.frombuffer(values, dtype=np.uint8).reshape(shape)


def _unpack(file: IO[bytes], unpacking: "zlib._Decompress", count: int) -> bytearray:
    """Return the next `count` bytes unpacked from `file`, or fewer if its gzip member ends."""
    values = bytearray()  # it grows as values arrive, so a false promise costs nothing
    while len(values) < count and not unpacking.eof:
        packed = unpacking.unconsumed_tail or file.read(_CHUNK)
        if not packed:
            raise EOFError("it ends too early")
        if file.tell() > IDX_LIMIT:
            raise EOFError(f"it has more than {IDX_LIMIT} bytes")
        values += unpacking.decompress(packed, min(_CHUNK, count - len(values)))
    return values
