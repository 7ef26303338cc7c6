"""A Dask cluster, which runs tasks on any number of machines; a worker that dies costs time and nothing else.

Tasks carry everything they need and results come back over the network, so machines share nothing but the address of
the scheduler. Dask does the work. joblib's backend for it was weighed, and has no channel for the progress of a running
task, nor a way to compare the versions of the workers before anything starts: that wiring is here.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import SimpleQueue
from tempfile import gettempdir
from typing import Any

from nnlite.errors import NnliteError
from nnlite.grid.pool import OnProgress, Task, ignore_sigint_in_children
from nnlite.storage.places import new_place

LOCAL = "local"  # instead of an address: a cluster on this machine, for one call
TIMEOUT = 10  # seconds within which a scheduler must answer, and have a worker
TOPIC = "nnlite"

# Run by each worker of a local cluster: a terminal sends Ctrl-C to all of them, and the client handles it.
_IGNORE_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


def run_on_cluster(
    tasks: Sequence[Task],
    on_progress: OnProgress = lambda index, progress: None,
    *,
    address: str,
    processes: int,
    threads: int = 1,
) -> Iterator[tuple[int, Any]]:
    """Run tasks on a Dask cluster and yield (index, result) of each as it ends.

    Equal tasks have equal keys, so a grid that is sent twice at the same time is trained once. NnliteError: no answer
    within TIMEOUT, a worker whose nnlite or NumPy is another version than here, a task that raises NnliteError, or one
    whose workers died again and again.

    Arguments:
        tasks: functions with their arguments.
        on_progress: is called with the index of a task and what it reports.
        address: of the scheduler, such as tcp://10.0.0.5:8786, or LOCAL.
        processes: how many workers a LOCAL cluster has.
        threads: how many BLAS threads a task has.
    """
    if not tasks:
        return
    with _connected(address, processes) as client:
        import cloudpickle
        from dask.tokenize import tokenize

        versions, run_remotely = _portable_functions()
        own = versions()
        _check_workers(client, address, versions, own)
        indices: dict[str, list[int]] = {}
        for index, task in enumerate(tasks):
            indices.setdefault(f"nnlite-{tokenize(task, own, threads)}", []).append(index)
        events: SimpleQueue[tuple[str, Any, Any]] = SimpleQueue()  # (key, progress, future); one of the two is None
        client.subscribe_topic(TOPIC, lambda event: events.put((*event[1], None)))
        futures = [
            client.submit(run_remotely, key, own, threads, cloudpickle.dumps(tasks[index]), key=key)
            for key, (index, *_) in indices.items()
        ]
        for future in futures:
            future.add_done_callback(lambda done: events.put((done.key, None, done)))
        try:
            left = set(indices)
            while left:
                key, progress, done = events.get()
                if done is not None:
                    result = _result(done, address, own)
                    done.release()  # here and not in __del__, which would swallow a Ctrl-C
                    left.remove(key)
                for index in indices.get(key, ()):  # the topic also carries what other clients' tasks report
                    if done is None:
                        on_progress(index, progress)
                    else:
                        yield index, result
        finally:
            client.unsubscribe_topic(TOPIC)


@contextmanager
def _connected(address: str, processes: int) -> Iterator[Any]:
    """Give a client of the scheduler at `address`, or of a cluster of one-thread processes made here for LOCAL."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise NnliteError(
            f"scheduler: Dask is not installed or does not load ({error}); "
            f"install it with pip install '.[cluster]' in a clone of nnlite"
        ) from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # the errors below say it in one line
    with ExitStack() as stack:
        if address == LOCAL:
            folder = str(stack.enter_context(new_place(Path(gettempdir()))))
            with ignore_sigint_in_children():
                cluster = LocalCluster(
                    n_workers=processes,
                    threads_per_worker=1,
                    dashboard_address="127.0.0.1:0",
                    local_directory=folder,
                    silence_logs=logging.CRITICAL,
                    preload=[_IGNORE_CTRL_C],
                )
            address = stack.enter_context(cluster).scheduler_address
        _check_scheduler(address)
        yield stack.enter_context(Client(address, timeout=TIMEOUT, set_as_default=False))


def _check_scheduler(address: str) -> None:
    """Raise NnliteError unless a scheduler answers: a Client that cannot connect lives on, and complains at exit."""
    import asyncio  # not at the top: every start of nnlite would wait for it

    from distributed.comm import connect

    async def knock() -> None:
        async with asyncio.timeout(TIMEOUT + 1):  # for a server that accepts the connection and says nothing
            comm = await connect(address, timeout=TIMEOUT)
            await comm.close()

    try:
        with ThreadPoolExecutor(1) as thread:  # the caller's thread may have an event loop, as in a notebook
            thread.submit(asyncio.run, knock()).result()
    except Exception as error:  # any server may listen there
        raise NnliteError(
            f"scheduler: none answers at {address} ({str(error) or 'silence'}); expected the address that dask "
            f"scheduler prints, such as tcp://HOST:8786: does it run, and does a firewall let you through?"
        ) from error


def _portable_functions() -> tuple[Callable[[], dict[str, str]], Callable[..., Any]]:
    """Return two functions that are pickled with their code, so that they run on a worker without this nnlite.

    The first returns the versions that must be equal everywhere, since the results may differ otherwise. The second
    runs a task in so many BLAS threads where they are equal: a worker may have joined after they were compared.
    """

    def versions() -> dict[str, str]:
        from importlib import import_module

        return {name: import_module(name.lower()).__version__ for name in ("nnlite", "NumPy")}

    def run_remotely(key: str, expected: dict[str, str], threads: int, task: bytes) -> tuple[str, Any, Any]:
        from distributed import get_worker

        worker = get_worker()
        try:
            found: Any = versions()
        except ImportError as error:
            found = error
        if found != expected:
            return worker.address, found, None
        import cloudpickle
        import threadpoolctl

        from nnlite.errors import NnliteError
        from nnlite.evaluation.threads import limit_blocks
        from nnlite.grid.pool import run_task

        threadpoolctl.threadpool_limits(threads)  # for good: a worker's threads share the limit
        limit_blocks(1)
        try:
            result = run_task(cloudpickle.loads(task), lambda progress: worker.log_event(TOPIC, (key, progress)))
        except NnliteError as error:
            raise NnliteError(f"worker {worker.address}: {error}") from error
        return worker.address, found, result

    return versions, run_remotely


def _check_workers(client: Any, address: str, versions: Callable[[], dict[str, str]], own: dict[str, str]) -> None:
    try:
        client.wait_for_workers(1, timeout=TIMEOUT)
    except TimeoutError as error:
        raise NnliteError(
            f"scheduler: {address} has no worker; start some with dask worker {address} --nthreads 1 --nworkers N"
        ) from error
    for worker, found in client.run(versions, on_error="return").items():
        _check_versions(worker, found, own)


def _check_versions(worker: str, found: dict[str, str] | Exception, own: dict[str, str]) -> None:
    if found != own:
        what = found if isinstance(found, Exception) else _words(found)
        raise NnliteError(
            f"worker {worker}: expected {_words(own)} as here, found {what}; install the same versions there, "
            f"since others train to other bits"
        )


def _words(versions: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in versions.items())


def _result(future: Any, address: str, own: dict[str, str]) -> Any:
    """Return the result of a task that has ended, or raise its error in words."""
    from distributed import CancelledError, KilledWorker

    try:
        worker, found, result = future.result()
    except KilledWorker as error:
        raise NnliteError(
            f"scheduler: one task took down {error.allowed_failures + 1} workers, perhaps for lack of memory; finished "
            f"runs are kept: repeat the call with a smaller --stack, or give the workers a larger --memory-limit"
        ) from error
    except CancelledError as error:
        raise NnliteError(
            f"scheduler: lost the connection to {address}; finished runs are kept: repeat the call when it is back"
        ) from error
    _check_versions(worker, found, own)
    return result
