"""IDX files made by hand: good ones, damaged ones and hostile ones."""

import gzip
import io
import struct

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from peak import memory_below

from nnlite.datasets.idx import IDX_IMAGES, IDX_LABELS, IDX_LIMIT, read_idx
from nnlite.errors import NnliteError

PIXELS = bytes(range(12))


def idx(magic, *shape, payload=b""):
    """Pack an IDX file by hand; the header may lie about the payload."""
    return gzip.compress(struct.pack(f">{1 + len(shape)}I", magic, *shape) + payload, mtime=0)


def read_images(content):
    return read_idx(io.BytesIO(content), "file.gz", IDX_IMAGES)


def test_images_are_read_row_by_row():
    images = read_images(idx(2051, 3, 2, 2, payload=PIXELS))
    assert images.dtype == np.uint8
    assert images.tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]], [[8, 9], [10, 11]]]


def test_labels_are_read():
    labels = read_idx(io.BytesIO(idx(2049, 3, payload=b"\x07\x00\x09")), "labels.gz", IDX_LABELS)
    assert labels.tolist() == [7, 0, 9]


GOOD = idx(2051, 3, 2, 2, payload=PIXELS)
BAD_FILES = {
    "empty": (b"", "gzip"),
    "empty inside": (gzip.compress(b""), "header of 16 bytes, found 0"),
    "not gzip": (b"<html>404</html>", "gzip"),
    "labels for images": (idx(2049, 12, payload=PIXELS), "magic number 2051, found 2049"),
    "float pixels": (idx(0x0D03, 3, 2, 2, payload=PIXELS), "magic number 2051, found 3331"),
    "gzip cut in the header": (GOOD[:6], "gzip"),
    "gzip cut in the data": (GOOD[:-12], "gzip"),
    "gzip cut in the checksum": (GOOD[:-2], "gzip"),
    "gzip with a wrong checksum": (GOOD[:-8] + b"\0\0\0\0" + GOOD[-4:], "gzip"),
    "junk after the gzip": (GOOD + b"junk", "one gzip member and then its end, found more"),
    "a zero after the gzip": (GOOD + b"\0", "one gzip member"),
    "two gzip members": (GOOD + GOOD, "one gzip member"),
    "an empty gzip member first": (gzip.compress(b"") + GOOD, "header of 16 bytes, found 0"),
    "an empty gzip member last": (GOOD + gzip.compress(b""), "one gzip member"),
    "junk far behind": (GOOD + bytes(1 << 17), "one gzip member"),
    "payload too short": (idx(2051, 3, 2, 2, payload=PIXELS[:-1]), "expected 12 bytes.*found 11"),
    "payload too long": (idx(2051, 3, 2, 2, payload=PIXELS + b"x"), "expected 12 bytes.*found more"),
    "4 GB": (idx(2051, 2**16, 2**8, 2**8), "header claims 4294967296"),
    "2^96 bytes": (idx(2051, 2**32 - 1, 2**32 - 1, 2**32 - 1), "header claims"),
}


@pytest.mark.parametrize(("content", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_idx_file_is_named_with_its_fault(content, words):
    with pytest.raises(NnliteError, match=rf"^file\.gz: .*{words}"):
        read_images(content)


@pytest.mark.parametrize("length", [2, 4, 8, 15])
def test_a_header_that_ends_early_is_not_blamed_on_the_magic_number_or_on_numpy(length):
    header = struct.pack(">4I", 2051, 3, 2, 2)[:length]
    with pytest.raises(NnliteError, match=rf"^file\.gz: expected an IDX header of 16 bytes, found {length}$"):
        read_images(gzip.compress(header))


def test_no_images_of_an_absurd_size_are_an_error():
    # 0 * anything is 0 bytes, which passes the size limit, but NumPy has no array of this shape
    with pytest.raises(NnliteError, match=r"^file\.gz"):
        read_images(idx(2051, 0, 2**32 - 1, 2**32 - 1))


def test_one_byte_too_many_is_found_wherever_the_member_ends():
    for length in range(65_536 - 3, 65_536 + 4):  # around the end of a block of the reader
        name = b"n" * (length - len(GOOD) - 1) + b"\0"
        content = GOOD[:3] + b"\x08" + GOOD[4:10] + name + GOOD[10:]
        assert len(content) == length
        assert read_images(content).tobytes() == PIXELS
        with pytest.raises(NnliteError, match="one gzip member"):
            read_images(content + b"x")


class Endless(io.RawIOBase):
    """A file that begins with `head` and then repeats `block` for ever."""

    def __init__(self, head, block):
        self.rest, self.block, self.place = head, block, 0

    def read(self, size):
        while len(self.rest) < size:
            self.rest += self.block * 1000
        sent, self.rest = self.rest[:size], self.rest[size:]
        self.place += size
        return sent

    def tell(self):
        return self.place


PLAIN_GZIP, NAMED_GZIP = (b"\x1f\x8b\x08" + flag + bytes(6) for flag in (b"\x00", b"\x08"))
HOSTILE = {
    "a promise of 4 GB": io.BytesIO(idx(2051, 2**16, 2**8, 2**8)),
    "a promise of just the limit": io.BytesIO(idx(2051, IDX_LIMIT // 4, 2, 2)),
    "a bomb of 50 MB": io.BytesIO(idx(2051, 1, 2, 2, payload=bytes(50_000_000))),
    "a bomb of 50 MB in its second member": io.BytesIO(GOOD + gzip.compress(bytes(50_000_000))),
    "100,000 empty members": io.BytesIO(gzip.compress(b"") * 100_000),
    "a file name without end": Endless(NAMED_GZIP, b"x"),
    "empty blocks without end": Endless(PLAIN_GZIP, b"\x00\x00\x00\xff\xff"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize("file", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_file_costs_neither_memory_nor_time(file):
    with memory_below(2e6), pytest.raises(NnliteError, match=r"^file\.gz"):
        read_idx(file, "file.gz", IDX_IMAGES)


def test_the_largest_file_that_is_read_takes_little_more_than_itself():
    content = idx(2051, IDX_LIMIT >> 20, 1 << 10, 1 << 10, payload=bytes(IDX_LIMIT))
    with memory_below(1.5 * IDX_LIMIT):  # 100 MB
        assert read_images(content).nbytes == IDX_LIMIT
    with pytest.raises(NnliteError, match="header claims"):
        read_images(idx(2051, (IDX_LIMIT >> 20) + 1, 1 << 10, 1 << 10))


def reads_or_refuses(content):
    try:
        images = read_images(content)
    except NnliteError:
        return
    assert images.dtype == np.uint8
    assert images.ndim == 3


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=200))
def test_any_bytes_give_images_or_an_nnlite_error(content):
    reads_or_refuses(content)
    reads_or_refuses(gzip.compress(content))
    reads_or_refuses(gzip.compress(struct.pack(">I", 2051) + content))


@settings(deadline=None, max_examples=300)
@given(st.data())
def test_a_damaged_file_gives_images_or_an_nnlite_error(data):
    plain = gzip.decompress(GOOD)
    for content, pack in ((GOOD, bytes), (plain, gzip.compress)):
        damaged = bytearray(content[: data.draw(st.integers(0, len(content)))])
        for place in data.draw(st.lists(st.integers(0, max(0, len(damaged) - 1)), max_size=3)):
            if damaged:
                damaged[place] = data.draw(st.integers(0, 255))
        reads_or_refuses(pack(bytes(damaged)))
