"""A long run of hostile inputs, guided by coverage, for one of the readers of files.

    pip install atheris
    python tests/fuzz idx --inputs 100000

An input may take one second, and the process 200 MB: more ends the run. Each file that a reader believes is
checked by other means. The exit code is 0 where nothing but NnliteError came out.
"""

import argparse
import gzip
import hashlib
import io
import os
import resource
import shutil
import struct
import sys
import tempfile
import time
import traceback
from collections import Counter
from pathlib import Path

import atheris
import numpy as np

with atheris.instrument_imports(include=["nnlite.datasets", "nnlite.rotation"]):
    from nnlite import datasets, rotation
from nnlite.errors import NnliteError

FOLDER = Path(tempfile.mkdtemp())
SHAPES = ((3, 2, 2), (2**16, 2**8, 2**8), (0, 1, 1), (1, 1000, 1000))
PLAIN = [struct.pack(">4I", 2051, *shape) + bytes(range(12)) for shape in SHAPES]
PLAIN += [PLAIN[0][:9], PLAIN[0] + b"more", b""]
PACKED = [gzip.compress(plain, level, mtime=0) for plain in PLAIN for level in (0, 9)]
BOMB = gzip.compress(PLAIN[0] + bytes(1_000_000))
PACKED += [PACKED[0] + PACKED[1], BOMB, PACKED[0][:3] + b"\x08" + bytes(6) + b"name"]
SET = bytes(range(12))


def idx(content: bytes) -> bool:
    """Read `content` as a gzipped IDX file of images."""
    images = datasets.read_idx(io.BytesIO(content), "file", datasets.IDX_IMAGES)
    assert gzip.decompress(content) == struct.pack(">4I", 2051, *images.shape) + images.tobytes()
    return True


def unpacked(content: bytes) -> bool:
    """Read an IDX file of images that `content` was packed into: the same reader, behind the checksum."""
    return idx(gzip.compress(content, 1, mtime=0))


def rotated(content: bytes) -> bool:
    """Read `content` as a cached set of 12 bytes; one that begins below 128 gets a checksum of its own."""
    if content[:1] < b"\x80":
        content = content[1:] + hashlib.sha256(content[1:]).digest()
    (FOLDER / "set").write_bytes(content)
    turned = np.zeros(12, np.uint8)
    believed = rotation._read(FOLDER / "set", turned)
    assert believed == (content == turned.tobytes() + hashlib.sha256(turned.tobytes()).digest())
    return believed


READERS = {"idx": (idx, PACKED), "unpacked": (unpacked, PLAIN), "rotated": (rotated, [b"\0" + SET, SET * 4, b"\0"])}


class Run:
    """Counts what a reader makes of its inputs, and says so after the last one."""

    def __init__(self, reader: str, inputs: int) -> None:
        self.reader, self.inputs, self.read = reader, inputs, READERS[reader][0]
        self.outcomes: Counter[str] = Counter()
        self.slowest, self.first = 0.0, peak_memory()

    def one_input(self, content: bytes) -> None:
        start = time.perf_counter()
        try:
            outcome = "read" if self.read(content) else "refused"
        except NnliteError:
            outcome = "refused"
        except Exception as error:
            outcome = f"{type(error).__name__}, which is not allowed"
            print(f"{content!r}\n{traceback.format_exc()}", file=sys.stderr)
        self.slowest = max(self.slowest, time.perf_counter() - start)
        self.outcomes[outcome] += 1
        if self.outcomes.total() == self.inputs:
            self.report()

    def report(self) -> None:
        print(f"{self.reader}: {self.inputs:,} inputs")
        for outcome, count in self.outcomes.most_common():
            print(f"  {outcome}: {count:,}")
        print(f"  peak memory: {peak_memory():.0f} MB, {self.first:.0f} MB of it before the first input")
        print(f"  slowest input: {1000 * self.slowest:.1f} ms", flush=True)
        shutil.rmtree(FOLDER)
        os._exit(not self.outcomes.keys() <= {"read", "refused"})  # libFuzzer itself would go on


def peak_memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024  # Linux counts in KiB


parser = argparse.ArgumentParser(prog="python tests/fuzz", description=__doc__.partition("\n")[0])
parser.add_argument(
    "reader",
    choices=READERS,
    help="idx: gzipped IDX files; unpacked: what was packed into them; rotated: the cache of rotated images",
)
parser.add_argument("--inputs", type=int, default=100_000, help="how many; default: 100000")
parser.add_argument("--seed", type=int, default=1, help="of the fuzzer; default: 1")
chosen = parser.parse_args()
corpus = FOLDER / "corpus"
corpus.mkdir()
for number, seed in enumerate(READERS[chosen.reader][1]):
    (corpus / str(number)).write_bytes(seed)
limits = ["-timeout=1", "-rss_limit_mb=200", "-max_len=4096", f"-seed={chosen.seed}", "-verbosity=0"]
atheris.Setup(["fuzz", str(corpus), *limits], Run(chosen.reader, chosen.inputs).one_input)
atheris.Fuzz()
