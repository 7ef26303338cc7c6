"""The pool: the results and the progress of tasks, and what happens when a process of it, or its parent, is killed."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from nnlite.datasets.catalog import load
from nnlite.errors import NnliteError
from nnlite.grid.jobs import train_and_evaluate
from nnlite.grid.pool import report_progress, run_in_pool, run_task
from nnlite.training.environment import environment
from nnlite.training.settings import Settings

TWO_SLEEPERS = (
    "import time; from nnlite.grid.pool import run_in_pool; list(run_in_pool([(time.sleep, 600)] * 2, processes=2))"
)


def test_a_process_that_is_killed_is_an_error_with_a_guess_at_the_cause():
    with pytest.raises(NnliteError, match=r"a process was killed.*memory.*--jobs than 1"):
        list(run_in_pool([(os._exit, 1)], processes=1))


def test_an_error_in_a_process_is_raised_here():
    with pytest.raises(NnliteError, match="data: expected one of"):
        list(run_in_pool([(load, "cifar")], processes=1))


def test_progress_comes_with_the_index_of_its_task():
    told = []
    results = dict(
        run_in_pool([(report_progress, 5), (report_progress, 6)], lambda *what: told.append(what), processes=2)
    )
    assert (sorted(told), results) == ([(0, 5), (1, 6)], {0: None, 1: None})


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
