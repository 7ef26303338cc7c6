"""The auxiliary task of section 3: each training image rotated five ways, labelled by the rotation.

Rotating MNIST's training images takes a while, so the set is kept in the user's cache, named by what it
was made from and guarded by a checksum. It is held as bytes: 196 MB for 50,000 images.
"""

import hashlib
import logging
import os
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nnlite.backend import Array
from nnlite.datasets import Samples, cache_folder
from nnlite.errors import NnliteError

ROTATION = "rotation"
ANGLES = (0, 15, 30, -15, -30)  # degrees to the left: the paper's five classes, in its order
_CHUNK = 1000  # images rotated at a time


def rotated(samples: Samples, shape: tuple[int, int], cache: Path | None = None) -> Samples:
    """Return the five-fold set: N images at each of ANGLES, digit labels kept, rotation labels added.

    samples: on the host, images (N, D) of `shape` (rows, columns). cache: a folder, by default in the
    user's cache. A cached set that is damaged is rebuilt, and a cache that cannot be written is done
    without; both are said.
    """
    images = np.ascontiguousarray(samples.images)
    if images.shape[-1] != shape[0] * shape[1] or min(shape) < 2:
        raise NnliteError(f"rotation: expected images of two dimensions, found {images.shape[-1]} pixels as {shape}")
    turned = _cached(images, shape, cache_folder() if cache is None else cache)
    count = len(samples)
    return Samples(
        turned.reshape(len(ANGLES) * count, -1),
        np.tile(samples.labels, len(ANGLES)),
        samples.white,
        {ROTATION: np.repeat(np.arange(len(ANGLES)), count)},
    )


def rotate(images: Array, shape: tuple[int, int], degrees: float) -> Array:
    """Return `images` (N, D) turned to the left about their centre, bilinear, black where nothing was."""
    import scipy.ndimage

    stack = images.reshape(-1, *shape).astype(np.float32)
    turned = scipy.ndimage.rotate(stack, degrees, axes=(2, 1), reshape=False, order=1)
    whole: Array = np.rint(turned) if images.dtype.kind == "u" else turned
    return whole.astype(images.dtype).reshape(images.shape)


def _cached(images: Array, shape: tuple[int, int], folder: Path) -> Array:
    """Return all rotations (5, N, D), from the cache where it holds them whole."""
    name = hashlib.sha256(images.tobytes() + repr((images.dtype, shape, ANGLES)).encode()).hexdigest()[:16]
    path = folder / f"rotated-{name}.npy"
    log = logging.getLogger("nnlite")
    if path.is_file():
        kept = _read(path)
        if kept is not None:
            return kept
        log.warning("%s is damaged; rotating the images again", path)
    turned = np.empty((len(ANGLES), *images.shape), images.dtype)
    for block, degrees in zip(turned, ANGLES, strict=True):
        for start in range(0, len(images), _CHUNK):
            chunk = images[start : start + _CHUNK]
            block[start : start + _CHUNK] = rotate(chunk, shape, degrees) if degrees else chunk
    try:
        _write(path, turned)
    except OSError as error:
        log.warning("%s: cannot keep the rotated images (%s); going on without", path, error.strerror)
    return turned


def _read(path: Path) -> npt.NDArray[np.generic] | None:
    try:
        turned: npt.NDArray[np.generic] = np.load(path, allow_pickle=False)
        expected = path.with_suffix(".sha256").read_text("ascii")
    except (OSError, ValueError, EOFError):
        return None
    return turned if hashlib.sha256(turned.data).hexdigest() == expected else None


def _write(path: Path, turned: Array) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        try:
            np.save(file, turned)
            file.flush()
            path.with_suffix(".sha256").write_text(hashlib.sha256(turned.data).hexdigest(), "ascii")
            os.replace(file.name, path)
        except OSError:
            Path(file.name).unlink(missing_ok=True)
            raise
