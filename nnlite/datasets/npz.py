"""NPZ files of NumPy: arrays by name, whose headers are looked at before any of them is read; no pickle."""

import math
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError
from nnlite.storage.files import open_file
from nnlite.storage.memory import expect_data_budget

Arrays = Mapping[str, npt.NDArray[Any]]


def read_npz(path: Path, names: tuple[str, ...] | None = None) -> Arrays:
    """Return the arrays of an NPZ file, or only those of `names` that it has.

    NnliteError for what is no such file, for arrays of Python objects, and for more than fits into memory.
    """
    try:
        with open_file(path) as file, zipfile.ZipFile(file) as members:
            forms = {name.removesuffix(".npy"): _form(members, name) for name in members.namelist()}
            wanted = [name for name in forms if names is None or name in names]
            for name in wanted:
                if forms[name][0].hasobject:
                    raise NnliteError(
                        f"{path}: {name}: expected numbers or text, found Python objects, which nnlite does not load; "
                        f"save {name}.astype(float), or {name}.astype(str) for text"
                    )
            size = sum(dtype.itemsize * math.prod(shape) for dtype, shape in map(forms.__getitem__, wanted))
            expect_data_budget(path, size)
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return {name: arrays[name] for name in wanted}
    except OSError as error:
        raise NnliteError(f"{path}: cannot be read ({error.strerror or error}); give the path of a file") from error
    except (zipfile.BadZipFile, ValueError, EOFError, NotImplementedError, zlib.error) as error:
        if isinstance(error, NnliteError):
            raise
        raise NnliteError(f"{path}: expected an NPZ file, as numpy.savez writes ({error}); write it again") from error


def _form(members: zipfile.ZipFile, name: str) -> tuple[np.dtype[Any], tuple[int, ...]]:
    """Return dtype and shape of an array, by its header alone."""
    with members.open(name) as member:
        version = np.lib.format.read_magic(member)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, dtype = read(member)
    return dtype, shape
