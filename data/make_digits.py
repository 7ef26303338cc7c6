"""Make the two embedded digits files from scikit-learn's copy of the UCI digits.

Run once, by hand: `python data/make_digits.py` (needs scikit-learn). The images are shuffled with a
fixed seed, because their order runs by writer; the files' order then is the split, 1,097 training,
200 validation and 500 test images, and no later version of a random generator can change it. The files' sizes and
SHA-256 are in nnlite/datasets/catalog.py.
"""

import gzip
import struct
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits


def write_idx(path: Path, magic: int, values: np.ndarray) -> None:
    """Write `values` as a gzipped IDX file of bytes, the format of the MNIST files."""
    head = struct.pack(f">{1 + values.ndim}I", magic, *values.shape)
    path.write_bytes(gzip.compress(head + values.astype(np.uint8).tobytes(), compresslevel=9, mtime=0))


def main() -> None:
    """Write digits-images-idx3-ubyte.gz and digits-labels-idx1-ubyte.gz beside this script."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    folder = Path(__file__).parent
    write_idx(folder / "digits-images-idx3-ubyte.gz", 2051, digits.images[order])
    write_idx(folder / "digits-labels-idx1-ubyte.gz", 2049, digits.target[order])


if __name__ == "__main__":
    main()
