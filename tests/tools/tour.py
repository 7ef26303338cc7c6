"""Run the notebook of the docs from its first cell to its last.

    python tests/tools/tour.py

writes its outputs anew, as `make tour` does: the same bytes, but for figures that move with the processor. A cell whose
assertion fails stops it.
"""

import os
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from traitlets.config import Config

TOUR = Path(__file__).parents[2] / "docs/tour.ipynb"


def executed(path: Path) -> nbformat.NotebookNode:
    """Return the notebook with the outputs of its cells as they come out now, without times and versions."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # the same figures on any number of cores
    os.environ.setdefault("PYTHONWARNINGS", "ignore:IProgress not found")  # tqdm, of the place where it was imported
    notebook = nbformat.read(path, as_version=4)
    local = Config(KernelManager={"transport": "ipc"})
    NotebookClient(notebook, config=local, timeout=300, coalesce_streams=True).execute()
    for cell in notebook.cells:
        cell.metadata.clear()
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    return notebook


if __name__ == "__main__":
    nbformat.write(executed(TOUR), TOUR)
