"""Digits and MNIST: where they are, fetching, reading and splitting them."""

import hashlib
import logging
import os
from collections.abc import Callable
from importlib import resources
from io import BufferedReader
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nnlite.datasets.downloads import cache_folder, fetch
from nnlite.datasets.idx import IDX_IMAGES, IDX_LABELS, read_idx
from nnlite.datasets.samples import Dataset, Samples, check_samples
from nnlite.errors import NnliteError
from nnlite.init import generator

SHAPES = {"digits": (8, 8), "mnist": (28, 28)}  # known before anything is read, or fetched
CLASSES = 10

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
