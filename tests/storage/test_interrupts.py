"""Ctrl-C: which process gets it, and which ignores it."""

import signal
import subprocess
import sys

import pytest

CODE = """
import multiprocessing, os, signal, time
from nnlite.grid.pool import ignore_sigint_in_children

child = multiprocessing.get_context("spawn").Process(target=time.sleep, args=(1,))
with ignore_sigint_in_children():
    child.start()
while child.is_alive():
    os.kill(child.pid, signal.SIGINT)
    time.sleep(0.01)
print(child.exitcode)
os.kill(os.getpid(), signal.SIGINT)
"""


@pytest.mark.once
def test_a_child_never_hears_ctrl_c_and_its_parent_does():
    ended = subprocess.run(
        [sys.executable, "-c", CODE],
        capture_output=True,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # in the background it is ignored
    )
    assert ended.stdout == "0\n"
    assert ended.stderr.endswith("KeyboardInterrupt\n")
    assert ended.stderr.count("Traceback") == 1
