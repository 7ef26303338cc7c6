"""The companions of a run, and of any file that is replaced: hidden neighbours, named here and nowhere else.

    .<name>.lock          held by the process that makes the run
    .<name>.checkpoint    the run's training, between two epochs
    .<name>.new           what is being written, and will take the name
    .<name>.old           what had the name, while it is replaced where the system cannot exchange two folders

No run has a name that begins with a dot. A hidden name whose middle could be no run's is not ours, and is ignored.
"""

from pathlib import Path

from nnlite.storage.kinds import FOLDER_NAME

KINDS = ("lock", "checkpoint", "new", "old")


def beside(path: Path, kind: str) -> Path:
    """Return the companion of `path` of a kind of KINDS, whether or not it is there."""
    return path.with_name(f".{path.name}.{kind}")


def owner_of(path: Path) -> tuple[Path, str] | None:
    """Return what `path` is a companion of, and its kind; None where its name is not that of a companion."""
    name, _, kind = path.name[1:].rpartition(".")
    if path.name[:1] == "." and kind in KINDS and FOLDER_NAME.fits(name):
        return path.with_name(name), kind
    return None


def owners(folder: Path, kind: str) -> list[Path]:
    """Return what has a companion of this kind in `folder`, in the order of the names; OSError."""
    found = map(owner_of, folder.iterdir())
    return sorted(path for path, one in filter(None, found) if one == kind)
