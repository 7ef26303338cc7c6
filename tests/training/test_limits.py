"""What nnlite may cost in memory."""

import pytest
from peak import peak


@pytest.mark.once
def test_training_on_mnist_stays_under_300_mb(mnist, tmp_path):
    # the weights of the paper's net, and what is made of them, take 15 MB more
    options = ["--data", "mnist", "--hidden", "100", "--reg", "dgl1", "--lam", "0.01", "--phi", "0.1", "--epochs", "1"]
    assert peak("from nnlite.cli.main import main; main()", "train", *options, "--runs", str(tmp_path)) < 285 * 1024


WRITE = """
import numpy as np
from nnlite.storage.tensors import new_arrays, open_arrays

path, rows = pathlib.Path(sys.argv[1]), 250
with new_arrays(path, {"images": (np.dtype(np.float32), (40_000, 1000))}, {}) as file:
    for start in range(0, 40_000, rows):
        file.put("images", np.full((rows, 1000), start, np.float32), start)
for start in range(0, 40_000, rows):
    assert (open_arrays(path).read("images", slice(start, start + rows)) == start).all()
"""


def test_arrays_of_160_mb_are_written_and_read_in_less_memory_than_they_take(tmp_path):
    assert peak("pass") + 80 * 1024 > peak(WRITE, str(tmp_path / "file"))
    assert (tmp_path / "file").stat().st_size > 160e6
