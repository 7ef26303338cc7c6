"""The auxiliary task of section 3: each training image at five angles, labelled by the angle.

Rotating MNIST's training images takes a while, so the rotated images are kept in the user's cache, in a file named by
a hash of the original ones. It holds the bytes of all images, 196 MB for 50,000 originals, and their SHA-256.
"""

import hashlib
import logging
import math
import os
from pathlib import Path

import numpy as np

from nnlite.backend import Array
from nnlite.datasets.downloads import cache_folder
from nnlite.datasets.samples import Samples
from nnlite.errors import NnliteError
from nnlite.storage.files import new_file, open_file

ROTATION = "rotation"
ANGLES = (0, 15, 30, -15, -30)  # degrees to the left: the paper's five classes, in its order
_CHUNK = 1000  # images rotated at a time


def rotated(samples: Samples, shape: tuple[int, ...], cache: Path | None = None) -> Samples:
    """Return the N images at each of ANGLES, 5 N in all, with their labels and the auxiliary labels "rotation".

    The rotated images come from the cache if it has them. A damaged file there is written again, and a cache that
    cannot be written is not used; a warning says so.

    Arguments:
        samples: images (N, D), on the host.
        shape: rows and columns of an image, and channels where it has them.
        cache: a folder; None for nnlite's in the user's cache.
    """
    images = np.ascontiguousarray(samples.images)
    if len(shape) not in (2, 3) or images.shape[-1] != math.prod(shape) or min(shape[:2]) < 2:
        raise NnliteError(f"rotation: expected images of two dimensions, found {images.shape[-1]} pixels as {shape}")
    turned = _cached(images, shape, cache)
    count = len(samples)
    return Samples(
        turned.reshape(len(ANGLES) * count, -1),
        np.tile(samples.labels, len(ANGLES)),
        samples.white,
        {ROTATION: np.repeat(np.arange(len(ANGLES)), count)},
    )


def rotate(images: Array, shape: tuple[int, ...], degrees: float) -> Array:
    """Return images (N, D) rotated about their centre, by bilinear interpolation, with black corners.

    Arguments:
        images: (N, D).
        shape: rows and columns of an image, and channels where it has them.
        degrees: the angle, counterclockwise.
    """
    import scipy.ndimage

    stack = images.reshape(-1, *shape).astype(np.float32)
    turned = scipy.ndimage.rotate(stack, degrees, axes=(2, 1), reshape=False, order=1)
    whole: Array = np.rint(turned) if images.dtype.kind == "u" else turned
    return whole.astype(images.dtype).reshape(images.shape)


def _cached(images: Array, shape: tuple[int, ...], folder: Path | None) -> Array:
    """Return all rotations (5, N, D), from the cache if it holds them undamaged."""
    log = logging.getLogger("nnlite")
    try:
        folder = cache_folder() if folder is None else folder
    except NnliteError as error:
        log.warning("%s; going on without the rotated images of an earlier call", error)
        return _rotate_all(images, shape)
    name = hashlib.sha256(images.tobytes() + repr((images.dtype, shape, ANGLES)).encode()).hexdigest()[:16]
    path = folder / f"rotated-{name}.bin"
    if os.path.isfile(path):  # False in a cache that may not be searched
        if _read(path, turned := np.empty((len(ANGLES), *images.shape), images.dtype)):
            return turned
        log.warning("%s is damaged; rotating the images again", path)
    turned = _rotate_all(images, shape)
    try:
        _write(path, turned)
    except OSError as error:
        log.warning("%s: cannot keep the rotated images (%s); going on without", path, error.strerror)
    return turned


def _rotate_all(images: Array, shape: tuple[int, ...]) -> Array:
    """Return the images at each of ANGLES, (5, N, D)."""
    turned = np.empty((len(ANGLES), *images.shape), images.dtype)
    for block, degrees in zip(turned, ANGLES, strict=True):
        for start in range(0, len(images), _CHUNK):
            chunk = images[start : start + _CHUNK]
            block[start : start + _CHUNK] = rotate(chunk, shape, degrees) if degrees else chunk
    return turned


def _read(path: Path, turned: Array) -> bool:
    """Fill `turned` from `path`; False where the file is not exactly what _write makes of such an array.

    The array is there before the file is opened: nothing in the file decides how much is read.
    """
    try:
        with open_file(path) as file:
            file.readinto(turned.data.cast("B"))
            # 32 bytes, and a 33rd only where the file is too long
            return file.read(33) == hashlib.sha256(turned.data).digest()
    except OSError:
        return False


def _write(path: Path, turned: Array) -> None:
    with new_file(path, replace=True) as place, place.open("wb") as file:
        file.write(turned.data)
        file.write(hashlib.sha256(turned.data).digest())
