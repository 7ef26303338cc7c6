"""What nnlite may cost in memory."""

import subprocess
import sys

# Prints the peak in kilobytes. Linux hands ru_maxrss on from the process that starts another, so it is not asked there.
PEAK = r"""
import pathlib, re, resource, sys
from nnlite.cli.main import main
try:
    main()
finally:
    if sys.platform == "linux":
        print(re.search(r"VmHWM:\s*(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
    else:
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (1024 if sys.platform == "darwin" else 1))
"""


def test_training_on_mnist_stays_under_300_mb(mnist, tmp_path):
    options = ["--data", "mnist", "--reg", "dgl1", "--lam", "0.01", "--phi", "0.1", "--epochs", "1"]
    command = [sys.executable, "-c", PEAK, "train", *options, "--runs", str(tmp_path)]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(said.split()[-1]) < 300 * 1024
