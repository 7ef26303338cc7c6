"""Files of a user's own, for tests."""

import csv
import gzip
import struct

import numpy as np


def write_csv(path, header, rows, **options):
    """Write a CSV file as Python's csv module does, and return its path."""
    with path.open("w", encoding="utf-8", newline="") as file:
        csv.writer(file, **options).writerows([header, *rows])
    return path


def blobs(count, features=3, classes=3, seed=0):
    """Return x (count, features), in units and ranges of their own, and labels (count,) that a small net can learn."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % classes
    x = rng.normal(size=(count, features))
    x[:, 0] += 6 * y
    return x * 10.0 ** np.arange(features) - 5, y


def write_blobs(path, count=90, names=("low", "middle", "top"), **options):
    """Write blobs as a table with a text label in its last column."""
    x, y = blobs(count, classes=len(names), **options)
    header = [*(f"f{k}" for k in range(x.shape[1])), "kind"]
    return write_csv(path, header, [[*row.tolist(), names[label]] for row, label in zip(x, y, strict=True)])


def write_idx(path, array, packed=False):
    """Write an array of bytes as an IDX file, gzipped or not."""
    content = struct.pack(f">{1 + array.ndim}I", 0x800 + array.ndim, *array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content, mtime=0) if packed else content)


def write_idx_folder(folder, count=60, shape=(2, 3), packed=False, test=30):
    """Write the four files of MNIST's names: column k of an image is bright where its label is k."""
    folder.mkdir(exist_ok=True)
    for stem, size in (("train", count), ("t10k", test)):
        labels = (np.arange(size) % 3).astype(np.uint8)
        images = np.zeros((size, *shape), np.uint8)
        images[np.arange(size), :, labels] = 200
        end = ".gz" if packed else ""
        write_idx(folder / f"{stem}-images-idx3-ubyte{end}", images, packed)
        write_idx(folder / f"{stem}-labels-idx1-ubyte{end}", labels, packed)
    return folder
