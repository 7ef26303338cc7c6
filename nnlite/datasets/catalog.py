"""The catalogue: one row for each data set that nnlite knows by name, and loading, locating and downloading by the row.

A data set in the format of MNIST's files is added here and nowhere else: settings and commands read DATASETS. Files are
compared with their row before they are used.
"""

import hashlib
import logging
import os
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nnlite.backend import Array
from nnlite.datasets.description import Description, Split
from nnlite.datasets.downloads import cache_folder, fetch
from nnlite.datasets.idx import IDX_IMAGES, IDX_LABELS, read_idx
from nnlite.datasets.samples import Dataset, Samples, check_samples
from nnlite.errors import NnliteError
from nnlite.init import generator
from nnlite.storage.files import open_file
from nnlite.storage.texts import did_you_mean


@dataclass(frozen=True)
class File:
    """A gzipped IDX file: its name, its size in bytes, and its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class Entry:
    """The row of one data set.

    Arguments:
        name: what --data calls it, and the name of its folder.
        shape: rows and columns of an image.
        classes: the number of classes.
        white: the pixel value that means 1.
        splits: the numbers of training, validation and test images.
        files: images and labels, then the test images and their labels; only two files if the test images come last.
        licence: the licence of the data.
        source: authors and title.
        mirrors: addresses that serve the files, each ending in a slash; none if the files are part of nnlite.
        drawn: whether the seed draws the validation images; otherwise they follow the training images.
        names: what the classes are called, if not 0, 1, ...
    """

    name: str
    shape: tuple[int, int]
    classes: int
    white: float
    splits: tuple[int, int, int]
    files: tuple[File, ...]
    licence: str
    source: str
    mirrors: tuple[str, ...] = ()
    drawn: bool = False
    names: tuple[str, ...] = ()

    def describe(self, seed: int | None = None) -> Description:
        """Return what a run records of the data set; without a seed, what a run of nnlite 0.1.0 is known by."""
        digest = hashlib.sha256("".join(file.sha256 for file in self.files).encode()).hexdigest()
        return Description(
            name=self.name,
            sha256="" if seed is None else digest,
            shape=self.shape,
            classes=self.names or tuple(map(str, range(self.classes))),
            features=(),
            low=(0.0,),
            high=(float(self.white),),
            split=Split(self.splits, ("validation",) if self.drawn else (), seed if self.drawn else None),
        )


def _like_mnist(*contents: tuple[int, str]) -> tuple[File, ...]:
    """Return the four files of MNIST's form, of these sizes and SHA-256."""
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(File(f"{part}-ubyte.gz", *content) for part, content in zip(parts, contents, strict=True))


DIGITS = Entry(
    name="digits",
    shape=(8, 8),
    classes=10,
    white=16,
    splits=(1_097, 200, 500),
    files=(
        File("digits-images-idx3-ubyte.gz", 44260, "bac4f12c50e32a8a36d870835722cbe081b965cb3ffc5df88ee9b8b7866fd9a4"),
        File("digits-labels-idx1-ubyte.gz", 929, "1a0acdf1aa8b8e27d32f4f3d74a0cf6dee979e08be1e3e9f46baaf249a27d296"),
    ),
    licence="CC BY 4.0",
    source="E. Alpaydin, C. Kaynak: Optical Recognition of Handwritten Digits, UCI, doi:10.24432/C50P49",
)
MNIST = Entry(
    name="mnist",
    shape=(28, 28),
    classes=10,
    white=255,
    splits=(50_000, 10_000, 10_000),
    files=_like_mnist(
        (9912422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1648877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    licence="CC BY-SA 3.0",
    source="Y. LeCun, C. Cortes, C. Burges: The MNIST database of handwritten digits",
    mirrors=("https://ossci-datasets.s3.amazonaws.com/mnist/", "https://storage.googleapis.com/cvdf-datasets/mnist/"),
    drawn=True,  # as in the paper
)
FASHION_MNIST = Entry(
    name="fashion-mnist",
    shape=(28, 28),
    classes=10,
    white=255,
    splits=(50_000, 10_000, 10_000),
    files=_like_mnist(
        (26421880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4422102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    licence="MIT",
    source="H. Xiao, K. Rasul, R. Vollgraf: Fashion-MNIST, arXiv:1708.07747",
    mirrors=(
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        "https://raw.githubusercontent.com/zalandoresearch/fashion-mnist/master/data/fashion/",
    ),
    drawn=True,
    names=("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
KMNIST = Entry(
    name="kmnist",
    shape=(28, 28),
    classes=10,
    white=255,
    splits=(50_000, 10_000, 10_000),
    files=_like_mnist(
        (18165135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
        (29497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
        (3041136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
        (5120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
    ),
    licence="CC BY-SA 4.0",
    source="KMNIST (created by CODH), adapted from Kuzushiji Dataset (NIJL and others), doi:10.20676/00000341",
    mirrors=("https://codh.rois.ac.jp/kmnist/dataset/kmnist/",),
    drawn=True,
    names=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
)
# TensorFlow Datasets publishes these SHA-256 for the last two, and for MNIST the four above.
DATASETS = {entry.name: entry for entry in (DIGITS, MNIST, FASHION_MNIST, KMNIST)}


def load(name: str, seed: int = 0) -> Dataset:
    """Return the data set `name`, downloaded if it is not on this machine; the seed draws what its row says is drawn.

    NnliteError for an unknown name, a file that is missing, damaged or does not fit its row, and a failed download.
    """
    entry = _entry(name)
    named = os.environ.get("NNLITE_DATA")
    if entry.mirrors and named and not (folder := Path(named) / name).is_dir():
        logging.getLogger("nnlite").warning("NNLITE_DATA: there is no folder %s; looking in the cache instead", folder)
    first, *others = _read(entry, _folder(entry) or fetch_dataset(entry))
    training, validation, _ = entry.splits
    rows: list[slice | Array] = [slice(training), slice(training, training + validation)]
    if entry.drawn:
        order = generator(seed, "split").permutation(training + validation)
        rows = [np.sort(order[validation:]), np.sort(order[:validation])]
    test = others[0] if others else first[training + validation :]
    return Dataset(name, first[rows[0]], first[rows[1]], test, entry.shape, entry.classes, source=entry.describe(seed))


def locate(name: str) -> str | None:
    """Return where the data set `name` is, "inside nnlite" or a folder, or None if it has to be downloaded."""
    entry = _entry(name)
    if not entry.mirrors:
        return "inside nnlite"
    folder = _folder(entry)
    return str(folder) if folder else None


def fetch_dataset(entry: Entry) -> Path:
    """Download the files of `entry` that the user's cache lacks, check them by SHA-256, and return their folder."""
    folder = cache_folder() / entry.name
    advice = f"put the {len(entry.files)} files of {entry.name} into {folder}, or into $NNLITE_DATA/{entry.name}"
    for file in entry.files:
        fetch(file.name, entry.mirrors, file.size, file.sha256, folder, advice)
    return folder


def _entry(name: str) -> Entry:
    if name not in DATASETS:
        raise NnliteError(f"data: expected one of {', '.join(DATASETS)}, found {name!r}{did_you_mean(name, DATASETS)}")
    return DATASETS[name]


def _folder(entry: Entry) -> Traversable | None:
    """Return the folder that holds the files: nnlite's own, $NNLITE_DATA/<name>, or the cache; None if none does.

    A folder in NNLITE_DATA that lacks one of the files is an error: nothing is downloaded instead.
    """
    if not entry.mirrors:
        return resources.files("nnlite.data")
    named = os.environ.get("NNLITE_DATA")
    if named:
        folder = Path(named) / entry.name
        if folder.is_dir():
            missing = [file.name for file in entry.files if not (folder / file.name).is_file()]
            if missing:
                raise NnliteError(f"{folder}: expected {missing[0]}, found none; put it there or unset NNLITE_DATA")
            return folder
    try:
        cache = cache_folder() / entry.name
    except NnliteError:  # which a download will say
        return None
    # os.path, as that of another user, which may not be searched, is no error
    return cache if all(os.path.isfile(cache / file.name) for file in entry.files) else None


def _read(entry: Entry, folder: Traversable) -> list[Samples]:
    """Return the samples of each pair of files."""
    training, validation, test = entry.splits
    counts = (training + validation, test) if len(entry.files) == 4 else (sum(entry.splits),)
    samples = []
    for count, first, second in zip(counts, entry.files[::2], entry.files[1::2], strict=True):
        images, labels = _read_file(entry, folder, first, IDX_IMAGES), _read_file(entry, folder, second, IDX_LABELS)
        if images.shape != (count, *entry.shape):
            raise NnliteError(
                f"{first.name}: expected images of shape {(count, *entry.shape)}, as DATASETS says of {entry.name}, "
                f"found {images.shape}; correct its row"
            )
        samples.append(check_samples(images.reshape(count, -1), labels, white=entry.white))
    return samples


def _read_file(entry: Entry, folder: Traversable, file: File, magic: int) -> npt.NDArray[np.uint8]:
    """Return the content of one file; NnliteError unless it has the size and the SHA-256 of its row."""
    advice = "move it away and fetch it again" if entry.mirrors else "it belongs to nnlite: install it anew"
    with resources.as_file(folder / file.name) as path, open_file(path) as stream:
        size = os.fstat(stream.fileno()).st_size
        if size != file.size:
            raise NnliteError(f"{path}: expected {file.size} bytes, found {size}; {advice}")
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
        if sha256 != file.sha256:
            raise NnliteError(f"{path}: expected SHA-256 {file.sha256[:12]}, found {sha256[:12]}; {advice}")
        stream.seek(0)
        return read_idx(stream, str(path), magic)
