"""A Dask cluster: the same bits as one process, whichever worker dies; and what is refused."""

import json
import os
import signal
import sys
import time

import pytest

from nnlite import __version__
from nnlite.errors import NnliteError
from nnlite.grid import cluster
from nnlite.grid.cluster import LOCAL, run_on_cluster
from nnlite.grid.combinations import make_grid
from nnlite.grid.jobs import group_into_stacks, train_and_evaluate, train_jobs
from nnlite.grid.pool import report_progress, run_in_pool
from nnlite.storage.weights import WEIGHTS
from nnlite.training.settings import Settings

distributed = pytest.importorskip("distributed", reason="Dask is missing: install the extra cluster")

TABLE = {"hidden": [8], "epochs": 2, "seed": [0, 1], "reg": "dgl1", "lam": [0.001, 0.01], "phi": 0.1}
LONG = {**TABLE, "epochs": 120}


def local_cluster(folder, **options):
    return distributed.LocalCluster(dashboard_address="127.0.0.1:0", local_directory=str(folder), **options)


@pytest.fixture(scope="module")
def dask(tmp_path_factory):
    """Two worker processes of one thread, with an empty folder in MNIST's place."""
    folder = tmp_path_factory.mktemp("dask")
    (folder / "data" / "mnist").mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NNLITE_DATA", str(folder / "data"))
        with local_cluster(folder, n_workers=2, threads_per_worker=1) as made:
            yield made


@pytest.fixture
def client(dask):
    with distributed.Client(dask, set_as_default=False) as made:
        yield made


@pytest.fixture
def soon(monkeypatch):
    """Wait only a second for an answer."""
    monkeypatch.setattr(cluster, "TIMEOUT", 1)


def run(tasks, address, on_progress=lambda *what: None):
    return dict(run_on_cluster(tasks, on_progress, address=address, processes=1))


def weights(folder, table, workers, stack=1):
    """Train the grid `table` below `folder`, on a cluster without its files; return the bytes of each run's weights."""
    jobs, alone = make_grid([table], folder, "a test"), workers is in_one_process
    trained = train_jobs(group_into_stacks(jobs, stack), workers, lambda cost: None, shared_disk=alone)
    assert not [what for _, what in trained if what]
    return {job.path.name: (job.path / WEIGHTS).read_bytes() for job in jobs}


def in_one_process(tasks, on_progress):
    return run_in_pool(tasks, on_progress, processes=1)


@pytest.mark.once
@pytest.mark.parametrize("stack", [1, 3])
def test_a_cluster_trains_to_the_bits_of_one_process(dask, tmp_path, stack):
    def on_dask(tasks, on_progress):
        return run_on_cluster(tasks, on_progress, address=dask.scheduler_address, processes=1)

    expected = weights(tmp_path / "one", TABLE, in_one_process, stack)
    assert len(set(expected.values())) == 4
    assert weights(tmp_path / "many", TABLE, on_dask, stack) == expected


@pytest.mark.once
def test_a_worker_killed_in_the_middle_costs_time_and_nothing_else(dask, client, tmp_path):
    victim, told = next(iter(client.run(os.getpid).values())), []

    def on_dask(tasks, on_progress):
        def kill(index, what):
            if len(told) == 20:
                os.kill(victim, signal.SIGKILL)
            told.append((index, *what))
            on_progress(index, what)

        return run_on_cluster(tasks, kill, address=dask.scheduler_address, processes=1)

    found = weights(tmp_path / "many", LONG, on_dask)
    assert victim not in client.run(os.getpid).values()
    assert len(set(told)) < len(told)  # some epochs were trained twice
    assert found == weights(tmp_path / "one", LONG, in_one_process)


def test_reports_and_results_come_with_the_index_of_their_task_and_equal_tasks_are_done_once(dask):
    models = [Settings(hidden=(8,), epochs=2, seed=seed) for seed in (0, 1, 0)]
    told = []
    results = run(
        [(train_and_evaluate, (one,)) for one in models], dask.scheduler_address, lambda *what: told.append(what)
    )
    assert sorted(told) == [(index, (0, epoch)) for index in range(3) for epoch in (1, 2)]
    nets = [results[index][0][0].net.layers[0].W for index in range(3)]
    assert nets[0] is nets[2]
    assert nets[0].tobytes() != nets[1].tobytes()


def test_each_task_has_one_blas_thread_also_where_a_worker_has_several(monkeypatch, tmp_path):
    limits = []
    monkeypatch.setattr("threadpoolctl.threadpool_limits", limits.append)
    with local_cluster(tmp_path, n_workers=1, threads_per_worker=2, processes=False) as made:
        run([(abs, k) for k in range(4)], made.scheduler_address)
    assert limits == [1, 1, 1, 1]


def test_a_local_cluster_needs_no_address():
    told = []
    results = dict(
        run_on_cluster(
            [(lambda: report_progress(7) or 5,)], lambda *what: told.append(what), address=LOCAL, processes=1
        )
    )
    assert (results, told) == ({0: 5}, [(0, 7)])
    assert list(run_on_cluster([], address="nowhere", processes=1)) == []


# --- what is refused


@pytest.mark.timeout(60)
def test_a_scheduler_that_does_not_answer_is_said_within_the_time_limit(soon):
    with pytest.raises(NnliteError, match=r"none answers at tcp://127\.0\.0\.1:9 .*expected the address .*firewall"):
        run([(abs, 1)], "tcp://127.0.0.1:9")


@pytest.mark.parametrize("address", ["nonsense", "foo://x:1", "tcp://[::bad", ""])
def test_what_is_no_address_is_said_at_once(address):
    with pytest.raises(NnliteError, match=r"scheduler: none answers at .*expected the address"):
        run([(abs, 1)], address)


def test_a_scheduler_without_workers_says_how_to_start_some(soon, tmp_path):
    with (
        local_cluster(tmp_path, n_workers=0) as empty,
        pytest.raises(NnliteError, match=r"has no worker; start some with dask worker tcp://"),
    ):
        run([(abs, 1)], empty.scheduler_address)


@pytest.fixture
def odd(client):
    """The address of a worker that has another nnlite, for the length of a test."""

    def pretend(version):
        import nnlite

        nnlite.__version__ = version

    (address, *_) = client.run(os.getpid)
    client.run(pretend, "0.0", workers=[address])
    yield address
    client.run(pretend, __version__, workers=[address])


def test_a_worker_with_another_nnlite_is_refused_before_anything_starts(dask, odd):
    told = []
    words = rf"worker {odd}: expected nnlite {__version__} and NumPy .* found nnlite 0\.0 and NumPy"
    with pytest.raises(NnliteError, match=words):
        run([(report_progress, k) for k in range(40)], dask.scheduler_address, lambda *what: told.append(what))
    assert not told


def test_a_worker_that_joins_later_with_another_nnlite_is_refused_by_each_task(dask, odd, monkeypatch):
    monkeypatch.setattr(cluster, "_check_workers", lambda *_: None)
    with pytest.raises(NnliteError, match=rf"worker {odd}: .* found nnlite 0\.0"):
        run([(divmod, k, 1) for k in range(40)], dask.scheduler_address)


@pytest.fixture
def bare(client):
    """Make nnlite impossible to import on all workers, for the length of a test."""

    def forget(forgotten):
        import sys

        if forgotten:
            sys.kept = sys.modules["nnlite"]
        sys.modules["nnlite"] = None if forgotten else sys.kept

    client.run(forget, True)
    yield
    client.run(forget, False)


@pytest.mark.parametrize("joins_later", [False, True])
def test_a_worker_without_nnlite_is_refused(dask, bare, monkeypatch, joins_later):
    if joins_later:
        monkeypatch.setattr(cluster, "_check_workers", lambda *_: None)
    with pytest.raises(NnliteError, match=r"worker tcp://.* found .*nnlite.*install the same versions there"):
        run([(train_and_evaluate, (Settings(hidden=(8,), epochs=1),))], dask.scheduler_address)


def test_a_worker_without_the_data_set_is_named(dask):
    with pytest.raises(NnliteError, match=r"^worker tcp://.*mnist: expected train-images.*NNLITE_DATA"):
        run([(train_and_evaluate, (Settings(data="mnist", hidden=(8,), epochs=1),))], dask.scheduler_address)


def test_a_stack_too_large_for_a_worker_is_refused_by_it(dask):
    settings = Settings(hidden=(10_000_000, 1000), epochs=1)
    with pytest.raises(NnliteError, match=r"^worker tcp://.*memory: 1 model needs about \d\d\d\.\d GB"):
        run([(train_and_evaluate, (settings,))], dask.scheduler_address)


def test_a_task_that_takes_workers_down_is_given_up_with_a_guess_at_the_cause(dask, monkeypatch):
    monkeypatch.setattr(dask.scheduler, "allowed_failures", 0)
    with pytest.raises(NnliteError, match=r"one task took down 1 workers.*memory.*--stack"):
        run([(os._exit, 1)], dask.scheduler_address)


def test_a_scheduler_that_is_lost_in_the_middle_is_said(tmp_path):
    made = local_cluster(tmp_path, n_workers=1, threads_per_worker=1, processes=False)
    with pytest.raises(NnliteError, match=r"lost the connection to .*; finished runs are kept"):
        run([(lambda: report_progress(1) or time.sleep(2),)], made.scheduler_address, lambda *_: made.close())


def test_without_dask_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "distributed", None)
    with pytest.raises(NnliteError, match=r"pip install '\.\[cluster\]' in a clone of nnlite"):
        run([(abs, 1)], LOCAL)


def test_the_command_trains_on_a_cluster_and_goes_on(dask, nnlite, tmp_path):
    arguments = ["grid", "--hidden", "8", "--epochs", "1", "--lr", "0.1,0.2", "--scheduler", dask.scheduler_address]
    first = nnlite(*arguments, "--json")
    assert first.exit_code == 0, first.stderr
    names = [entry["name"] for entry in json.loads(first.stdout)]
    assert names == ["rect-hidden8-epochs1", "rect-hidden8-lr0.2-epochs1"]
    again = nnlite(*arguments, "--json")
    assert again.stdout == first.stdout
    assert "0 of 2 nets are left" in again.stderr


@pytest.mark.once
def test_ctrl_c_ends_a_local_cluster_and_keeps_what_is_finished(ctrl_c, tmp_path):
    arguments = ["grid", "--hidden", "64", "--epochs", "300", "--seed", "0,1,2,3", "--jobs", "2", "--scheduler", LOCAL]
    assert ctrl_c(*arguments).splitlines()[-1] == "Interrupted: finished runs are kept; the same command continues."
    assert list((tmp_path / "runs" / "digits").glob("[!.]*"))
