"""Digits and MNIST: reading, checking, splitting, and cutting into batches.

Images stay as the bytes they came in and are scaled to [0, 1] batch by batch. What enters here is
checked here, once, on the host; the engine then trusts it.
"""

import hashlib
import logging
import math
import os
import struct
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib import resources
from io import BufferedReader
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from nnlite.backend import Array, to_device
from nnlite.datasets.downloads import fetch
from nnlite.errors import NnliteError
from nnlite.init import generator

IDX_IMAGES, IDX_LABELS = 2051, 2049
IDX_LIMIT = 1 << 26  # bytes, packed or not; the largest MNIST file unpacks to 47 MB
SHAPES = {"digits": (8, 8), "mnist": (28, 28)}  # known before anything is read, or fetched
CLASSES = 10
_CHUNK = 1 << 16  # bytes read or unpacked at a time

MNIST_MIRRORS = (
    "https://ossci-datasets.s3.amazonaws.com/mnist/",
    "https://storage.googleapis.com/cvdf-datasets/mnist/",
)
MNIST_SHA256 = {
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
MNIST_BYTES = dict(zip(MNIST_SHA256, (9_912_422, 28_881, 1_648_877, 4_542), strict=True))


@dataclass(frozen=True, eq=False)
class Samples:
    """Images (N, D), uint8 or float, with their labels (N,); `white` is the pixel value that means 1.

    further: the labels (N,) of further tasks, by name.
    """

    images: Array
    labels: Array
    white: float
    further: Mapping[str, Array] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, rows: "slice | Array") -> "Samples":
        return replace(self, images=self.images[rows], labels=self.labels[rows], further=self.further_labels(rows))

    def batch(self, rows: "slice | Array", dtype: npt.DTypeLike = np.float32) -> tuple[Array, Array]:
        """Return x (..., n, D) in [0, 1] and y (..., n) for a slice, or for row numbers (..., n)."""
        return self.images[rows].astype(dtype) / self.white, self.labels[rows]

    def further_labels(self, rows: "slice | Array") -> dict[str, Array]:
        """Return the labels of the further tasks for the same `rows`, by task."""
        return {task: labels[rows] for task, labels in self.further.items()}

    def to(self, device: str) -> "Samples":
        """Return the samples on `device`, still as bytes."""
        return Samples(
            to_device(self.images, device),
            to_device(self.labels, device),
            self.white,
            {task: to_device(labels, device) for task, labels in self.further.items()},
        )


@dataclass(frozen=True, eq=False)
class Dataset:
    """A name, three splits, the shape of an image, such as (8, 8), and the number of classes."""

    name: str
    train: Samples
    validation: Samples
    test: Samples
    shape: tuple[int, int]
    classes: int = CLASSES

    @property
    def features(self) -> int:
        """The number of pixels, D."""
        return math.prod(self.shape)


def concatenate(parts: Sequence[Samples]) -> Samples:
    """Return the samples of all parts, one after another; they are alike in all but their number."""
    if len(parts) == 1:
        return parts[0]
    return replace(
        parts[0],
        images=np.concatenate([part.images for part in parts]),
        labels=np.concatenate([part.labels for part in parts]),
        further={task: np.concatenate([part.further[task] for part in parts]) for task in parts[0].further},
    )


def check_samples(images: Array, labels: Array, *, white: float = 1.0, classes: int = 10) -> Samples:
    """Return Samples of `images` (N, D) and `labels` (N,), or raise NnliteError that says what is wrong.

    Pixels must be finite and within [0, white], labels integers within [0, classes).
    """
    images, labels = np.asarray(images), np.asarray(labels)
    if images.ndim != 2 or 0 in images.shape:
        raise NnliteError(f"images: expected one row each, shape (N, D), found {images.shape}; reshape them")
    if labels.shape != images.shape[:1]:
        raise NnliteError(f"labels: expected one for each image, shape {images.shape[:1]}, found {labels.shape}")
    if images.dtype.kind not in "uif":
        raise NnliteError(f"images: expected numbers, found dtype {images.dtype}")
    if not np.isfinite(images).all():
        raise NnliteError("images: expected finite pixels, found NaN or infinity; clean the data first")
    low, high = images.min(), images.max()
    if low < 0 or high > white:
        raise NnliteError(f"images: expected pixels in [0, {white:g}], found [{low:g}, {high:g}]; rescale them")
    if labels.dtype.kind not in "ui":
        raise NnliteError(f"labels: expected integers, found dtype {labels.dtype}")
    if labels.min() < 0 or labels.max() >= classes:
        found = f"[{labels.min()}, {labels.max()}]"
        raise NnliteError(f"labels: expected values in [0, {classes - 1}], found {found}")
    return Samples(images, labels.astype(np.int64), float(white))


def read_idx(file: IO[bytes], name: str, magic: int) -> npt.NDArray[np.uint8]:
    """Return the bytes of a gzipped IDX file, (N, rows, columns) for images and (N,) for labels.

    The format is that of the MNIST files: big-endian magic number and sizes, then one byte for each value. NnliteError:
    what is not one gzip member, whole and with nothing after it; another magic number; values more or fewer than
    the header promises, or more than IDX_LIMIT. No more is unpacked than was promised, and memory is taken only for
    what is there.
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
    """Return the next `count` bytes that `file` unpacks to, or fewer where its gzip member ends."""
    values = bytearray()  # it grows with what is there, and so a promise costs nothing
    while len(values) < count and not unpacking.eof:
        packed = unpacking.unconsumed_tail or file.read(_CHUNK)
        if not packed:
            raise EOFError("it ends too early")
        if file.tell() > IDX_LIMIT:
            raise EOFError(f"it has more than {IDX_LIMIT} bytes")
        values += unpacking.decompress(packed, min(_CHUNK, count - len(values)))
    return values


def _samples(
    images: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8], white: float
) -> tuple[Samples, tuple[int, int]]:
    rows, columns = images.shape[1:]
    return check_samples(images.reshape(len(images), -1), labels, white=white), (rows, columns)


def _load_digits(seed: int) -> Dataset:
    """The embedded 8 x 8 digits; the split, 1,097 / 200 / 500, is the order of the file, whatever the seed."""
    folder = resources.files("nnlite.data")
    with (folder / "digits-images-idx3-ubyte.gz").open("rb") as file:
        images = read_idx(file, "digits images", IDX_IMAGES)
    with (folder / "digits-labels-idx1-ubyte.gz").open("rb") as file:
        labels = read_idx(file, "digits labels", IDX_LABELS)
    samples, shape = _samples(images, labels, white=16)
    return Dataset("digits", samples[:1097], samples[1097:1297], samples[1297:], shape)


def _load_mnist(seed: int) -> Dataset:
    """MNIST with the paper's split: 10,000 of the 60,000 training images, drawn by `seed`, for validation."""
    folder = mnist_folder() or fetch_mnist()
    arrays = []
    for name, sha256 in MNIST_SHA256.items():
        path = folder / name
        with path.open("rb") as file:
            _check(file, str(path), MNIST_BYTES[name], sha256)
            arrays.append(read_idx(file, str(path), IDX_IMAGES if "images" in name else IDX_LABELS))
    train, shape = _samples(arrays[0], arrays[1], white=255)
    test, _ = _samples(arrays[2], arrays[3], white=255)
    order = generator(seed, "split").permutation(len(train))
    return Dataset("mnist", train[np.sort(order[10_000:])], train[np.sort(order[:10_000])], test, shape)


_LOADERS: dict[str, Callable[[int], Dataset]] = {"digits": _load_digits, "mnist": _load_mnist}
DATASETS = tuple(_LOADERS)


def load(name: str, seed: int = 0) -> Dataset:
    """Return the data set "digits" or "mnist"; `seed` draws MNIST's validation images."""
    if name not in _LOADERS:
        raise NnliteError(f"data: expected one of {', '.join(DATASETS)}, found {name!r}")
    return _LOADERS[name](seed)


SOURCES = {
    "digits": {
        "images": "1,797 of 8 x 8",
        "splits": "1,097 / 200 / 500",
        "licence": "CC BY 4.0",
        "source": "E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49",
    },
    "mnist": {
        "images": "70,000 of 28 x 28",
        "splits": "50,000 / 10,000 / 10,000",
        "licence": "CC BY-SA 3.0",
        "source": "Y. LeCun, C. Cortes, C. Burges: The MNIST database of handwritten digits",
    },
}


def locate(name: str) -> str | None:
    """Return where the data set `name` is, in words or as a folder, or None where it would be fetched."""
    if name == "digits":
        return "inside nnlite"
    folder = mnist_folder()
    return str(folder) if folder else None


def mnist_folder() -> Path | None:
    """Return the folder that holds MNIST: $NNLITE_DATA/mnist, else the cache, else None.

    A folder that NNLITE_DATA names must hold all four files: a part of them is an error, not a download.
    """
    named = os.environ.get("NNLITE_DATA")
    if named:
        folder = Path(named) / "mnist"
        if folder.is_dir():
            missing = [name for name in MNIST_SHA256 if not (folder / name).is_file()]
            if missing:
                raise NnliteError(f"{folder}: expected {missing[0]}, found none; put it there or unset NNLITE_DATA")
            return folder
        logging.getLogger("nnlite").warning("NNLITE_DATA: there is no folder %s; looking in the cache instead", folder)
    cache = mnist_cache()
    return cache if all((cache / name).is_file() for name in MNIST_SHA256) else None


def cache_folder() -> Path:
    """Return nnlite's folder in the user's cache."""
    import pooch

    return Path(pooch.os_cache("nnlite"))


def mnist_cache() -> Path:
    """Return the folder where fetched MNIST files are kept, in the user's cache."""
    return cache_folder() / "mnist"


def fetch_mnist() -> Path:
    """Fetch what the cache lacks from the mirrors, each file checked by SHA-256, and return the folder."""
    cache = mnist_cache()
    advice = f"put the four MNIST files into {cache}, or into $NNLITE_DATA/mnist"
    for name, sha256 in MNIST_SHA256.items():
        fetch(name, MNIST_MIRRORS, MNIST_BYTES[name], sha256, cache, advice)
    return cache


def _check(file: BufferedReader, name: str, size: int, sha256: str) -> None:
    """Raise NnliteError unless the open `file` has this size and SHA-256; it stands at its start again."""
    found = os.fstat(file.fileno()).st_size
    if found != size:
        raise NnliteError(f"{name}: expected {size} bytes, found {found}; delete it and fetch it again")
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != sha256:
        raise NnliteError(f"{name}: expected SHA-256 {sha256[:12]}, found {digest[:12]}; delete it and fetch it again")
    file.seek(0)
