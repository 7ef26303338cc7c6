"""Checksums: SHA256SUMS, the SHA-256 of each file of a folder, as sha256sum -c understands it, and that of arrays."""

import hashlib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from nnlite.storage.files import open_file, read_text

SUMS = "SHA256SUMS"
LIMIT = 1 << 12  # bytes


def write_sums(folder: Path) -> None:
    """Write the sums of all other files in `folder`."""
    lines = [f"{_sha256(file)}  {file.name}\n" for file in sorted(folder.iterdir()) if file.name != SUMS]
    (folder / SUMS).write_text("".join(lines), "utf-8")


def check_sums(folder: Path, names: Iterable[str], read: Mapping[str, bytes] = MappingProxyType({})) -> None:
    """Raise ValueError for the first of the files `names` that is another than when its sum was written; OSError.

    read: what has been read of some of them, which is checked in their place.
    """
    sums = {*re.findall(r"^([0-9a-f]{64})  (.+)$", read_text(folder / SUMS, LIMIT), re.MULTILINE)}
    for name in names:
        found = hashlib.sha256(read[name]).hexdigest() if name in read else _sha256(folder / name)
        if (found, name) not in sums:
            raise ValueError(f"{name} is not what was written: its SHA-256, {found[:12]}..., is not that in {SUMS}")


def arrays_sha256(arrays: Mapping[str, npt.NDArray[Any]]) -> str:
    """Return the SHA-256 of some arrays in the order of their names, of the bytes of each as they stand in a file."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        digest.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def _sha256(path: Path) -> str:
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
