"""The pool: the results and the progress of tasks, and what happens when a process of it, or its parent, is killed."""

import os
import re
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import psutil
import pytest

from nnlite.datasets.catalog import load
from nnlite.errors import NnliteError
from nnlite.grid.jobs import train_and_evaluate
from nnlite.grid.pool import default_processes, report_progress, run_in_pool, run_task
from nnlite.storage import cgroups
from nnlite.training.environment import environment
from nnlite.training.settings import Settings

pytestmark = pytest.mark.once

TWO_SLEEPERS = (
    "import time; from nnlite.grid.pool import run_in_pool; list(run_in_pool([(time.sleep, 600)] * 2, processes=2))"
)


def test_a_process_that_is_killed_is_an_error_with_a_guess_at_the_cause():
    with pytest.raises(NnliteError, match=r"a process was killed.*memory.*--jobs than 1"):
        list(run_in_pool([(os._exit, 1)], processes=1))


def large(dies):
    """Return a large result, and die once a part of it is on its way if `dies`."""
    before = written()

    def watch():
        while written() < before + 4:  # the length goes first
            time.sleep(0.0005)
        time.sleep(0.005)
        os._exit(1)

    if dies:
        threading.Thread(target=watch, daemon=True).start()
    return bytes(200_000_000)


def written():
    """Return how many bytes this process has written."""
    return int(re.search(r"wchar: (\d+)", Path("/proc/self/io").read_text())[1])


HALF = """
import sys, time
sys.path += [{folder!r}, {tools!r}]
from nnlite.errors import NnliteError
from nnlite.grid.pool import run_in_pool
from test_pool import large
try:
    list(run_in_pool([(large, True), {others}], processes=2))
except NnliteError as error:
    print(error)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("others", ["", "(abs, -1)", "(time.sleep, 600)"], ids=["alone", "one idle", "one at work"])
def test_a_process_that_dies_while_it_sends_its_result_is_not_waited_for(others):
    folder, tools = Path(__file__).parent, Path(__file__).parents[1] / "tools"
    code = HALF.format(folder=str(folder), tools=str(tools), others=others)
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, "a process was killed" in ended.stdout) == (0, True), ended.stderr


STOPPED = """
import multiprocessing.util as util, signal
from nnlite.grid.pool import run_in_pool

def stop(*arguments):
    number = spawn(*arguments)
    if "spawn_main" in str(arguments):
        signal.raise_signal(signal.SIGTERM)
    return number

spawn, util.spawnv_passfds = util.spawnv_passfds, stop
signal.signal(signal.SIGTERM, lambda *what: signal.getsignal(signal.SIGINT)(*what))  # as the command does
try:
    list(run_in_pool([(abs, -1)], processes=1))
except KeyboardInterrupt:
    print("stopped")
"""


@pytest.mark.skipif(sys.platform == "win32", reason="Windows starts processes otherwise")
def test_a_process_that_starts_while_its_parent_is_stopped_says_nothing():
    ended = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "stopped\n", "")


def test_an_error_in_a_process_is_raised_here():
    with pytest.raises(NnliteError, match="data: expected one of"):
        list(run_in_pool([(load, "cifar")], processes=1))


def test_progress_comes_with_the_index_of_its_task():
    told = []
    results = dict(
        run_in_pool([(report_progress, 5), (report_progress, 6)], lambda *what: told.append(what), processes=2)
    )
    assert (sorted(told), results) == ([(0, 5), (1, 6)], {0: None, 1: None})


def test_a_result_is_kept_no_longer_than_it_takes_to_hand_it_over():
    results = run_in_pool([(np.zeros, 3)] * 3, processes=1)
    first = weakref.ref(next(results)[1])
    next(results)
    assert first() is None  # a grid of ten thousand nets would keep them all
    results.close()


def test_each_process_has_the_threads_it_is_given():
    for threads in (1, 2):
        (found,) = run_in_pool([(environment,)], processes=1, threads=threads)
        assert found[1]["BLAS threads"] == str(threads)


def test_progress_outside_any_task_is_dropped():
    told = []
    run_task((report_progress, 5), told.append)
    report_progress("a word")
    assert told == [5]
    assert train_and_evaluate([Settings(hidden=(), epochs=1)])[0][1].status == "finished"


def test_there_are_as_many_processes_as_the_container_lets_run(nnlite, tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text("350000 100000")
    real, seen = cgroups.read, []
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "read", lambda path: "0::/" if path.name == "cgroup" else real(path))
    monkeypatch.setattr("nnlite.evaluation.threads.available_cpus", lambda: list(range(16)))
    assert (default_processes("cpu"), default_processes("gpu")) == (3, 1)
    monkeypatch.setattr("nnlite.cli.grid.run_in_pool", lambda *_, processes, **__: seen.append(processes) or iter(()))
    for jobs in ([], ["--jobs", 5]):
        nnlite("grid", "--hidden", 8, "--epochs", 1, *jobs)
    assert seen == [3, 5]


def test_they_end_with_a_parent_that_is_killed():
    with subprocess.Popen([sys.executable, "-c", TWO_SLEEPERS]) as parent:
        below = psutil.Process(parent.pid).children
        deadline = time.monotonic() + 60
        while sum(child.num_threads() > 1 for child in below()) < 2:  # one is there to end with the parent
            assert time.monotonic() < deadline
            time.sleep(0.05)
        children = below()
        parent.kill()
    assert not psutil.wait_procs(children, timeout=30)[1]
