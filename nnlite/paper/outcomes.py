"""The file of outcomes: for each adversary, noise and victim, which test images are still classified correctly.

One bit is one image, so that all tables of the paper in both kinds of arithmetic take 6 MB for one seed. Two victims
can then be compared on the same images, long after the attack.
"""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from nnlite.errors import NnliteError
from nnlite.paper.scores import EXACT, NAIVE, SQUARED, Outcomes, ScoreKey
from nnlite.paper.tables import PHI, ROWS
from nnlite.storage.files import new_file
from nnlite.storage.tensors import DTYPES, open_arrays, write_arrays

OUTCOMES = "outcomes.safetensors"
_WORD = 64  # bits


def write_outcomes(folder: Path, images: int, correct: Mapping[ScoreKey, Outcomes]) -> None:
    """Write outcomes.safetensors in `folder`, whole or not at all; NnliteError where that fails."""
    arrays = {}
    for (adversary, noise, victim), outcomes in correct.items():
        padding = [(0, 0), (0, 0), (0, -images % _WORD)]
        packed = np.packbits(np.pad(outcomes, padding), axis=-1, bitorder="little")
        arrays[f"{adversary.slug}/{noise}/{victim.slug}"] = packed.view(DTYPES["I64"])
    try:
        with new_file(folder / OUTCOMES, replace=True) as place:
            write_arrays(place, arrays, {"images": str(images)})
    except OSError as error:
        what = f"{folder / OUTCOMES}: cannot be written ({error.strerror})"
        raise NnliteError(f"{what}; make room, and repeat the command: nets and finished attacks are kept") from error


def read_outcomes(folder: Path, images: int) -> dict[ScoreKey, Outcomes]:
    """Return the outcomes in outcomes.safetensors in `folder`, {} without one.

    NnliteError for a damaged file, and for one of another number of images.
    """
    path = folder / OUTCOMES
    if not path.exists():
        return {}
    file = open_arrays(path)
    models = {model.slug: model for model in ROWS}
    found: dict[ScoreKey, Outcomes] = {}
    try:
        if int(file.metadata["images"]) != images:
            raise ValueError(f"it is of {file.metadata['images']} images, not {images}")
        for name, (dtype, shape) in file.layout.items():
            adversary, noise, victim = name.split("/")
            if noise not in (EXACT, NAIVE, SQUARED) or (dtype, shape[1:]) != (
                DTYPES["I64"],
                (len(PHI), -(-images // _WORD)),
            ):
                raise ValueError(f"{name[:80]!r}: {dtype} {shape} are no outcomes")
            bits = np.unpackbits(file.read(name).view(np.uint8), axis=-1, count=images, bitorder="little")
            found[models[adversary], noise, models[victim]] = bits.astype(bool)
    except (ValueError, KeyError) as error:
        what = f"{type(error).__name__}: {error}"
        raise NnliteError(f"{path}: damaged, or of other data ({what}); move it away to attack again") from error
    return found
