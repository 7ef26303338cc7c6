"""What nnlite may cost: memory, and what it imports before it is asked to do something."""

import os
import subprocess
import sys

import pytest

HEAVY = {"matplotlib", "pooch", "requests", "scipy", "cupy", "dask", "distributed", "torch", "jax", "sklearn"}


@pytest.mark.parametrize("statement", ["import nnlite", "from nnlite.cli.main import main"])
def test_nothing_heavy_is_imported_before_it_is_needed(statement):
    code = f"import sys; {statement}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    imported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not HEAVY & set(imported)


def test_training_on_mnist_stays_under_450_mb(mnist, tmp_path):
    options = ["--data", "mnist", "--reg", "dgl1", "--lam", "0.01", "--phi", "0.1", "--epochs", "1"]
    command = [sys.executable, "-c", "from nnlite.cli.main import main; main()", "train", *options]
    process = subprocess.Popen(
        [*command, "--runs", str(tmp_path)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    kilobytes = usage.ru_maxrss / (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 450 * 1024
