"""A Dask cluster: it carries out tasks on any number of machines, and a worker that dies costs time and nothing else.

Nothing but the scheduler's address is shared: tasks carry all they need, and results come back over the network.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Any

from nnlite.errors import NnliteError
from nnlite.grid.pool import OnReport, Task

LOCAL = "local"  # the address of a cluster that is made here, for this call only
TIMEOUT = 10  # seconds until a scheduler must have answered, and must have a worker
TOPIC = "nnlite"

# Run by each worker of a local cluster, for a terminal sends Ctrl-C to all: the client hears it and ends them.
_LEAVE_CTRL_C = "import signal; signal.signal(signal.SIGINT, signal.SIG_IGN)"


def on_cluster(
    tasks: Sequence[Task], on_report: OnReport = lambda index, what: None, *, address: str, jobs: int
) -> Iterator[tuple[int, Any]]:
    """Carry out tasks on the cluster whose scheduler is at `address`, as Workers do, each in one BLAS thread.

    address: as tcp://10.0.0.5:8786, or LOCAL for one with `jobs` workers on this machine. Equal tasks have equal keys,
    so a grid that is sent twice at the same time is trained once. NnliteError: no answer within TIMEOUT, a worker with
    another nnlite or NumPy than here, a task that its worker refuses, or one whose worker died again and again.
    """
    if not tasks:
        return
    with _connected(address, jobs) as client:
        import cloudpickle
        from dask.tokenize import tokenize

        versions, carry_out = _travellers()
        own = versions()
        _check_workers(client, address, versions, own)
        indices: dict[str, list[int]] = {}
        for index, task in enumerate(tasks):
            indices.setdefault(f"nnlite-{tokenize(task, own)}", []).append(index)
        heard: SimpleQueue[tuple[str, Any, Any]] = SimpleQueue()  # (key, report, future): one of the two is None
        client.subscribe_topic(TOPIC, lambda event: heard.put((*event[1], None)))
        futures = [
            client.submit(carry_out, key, own, cloudpickle.dumps(tasks[index]), key=key)
            for key, (index, *_) in indices.items()
        ]
        for future in futures:
            future.add_done_callback(lambda done: heard.put((done.key, None, done)))
        try:
            left = set(indices)
            while left:
                key, what, done = heard.get()
                if done is not None:
                    result = _result(done, address, own)
                    done.release()  # here, and not by __del__, which would swallow a Ctrl-C
                    left.remove(key)
                for index in indices.get(key, ()):  # other clients' reports come here, too
                    if done is None:
                        on_report(index, what)
                    else:
                        yield index, result
        finally:
            client.unsubscribe_topic(TOPIC)


@contextmanager
def _connected(address: str, jobs: int) -> Iterator[Any]:
    """Connect to a scheduler, or make a cluster of one-thread processes, and part from it at the end."""
    try:
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise NnliteError(
            f"scheduler: Dask is not installed or does not load ({error}); "
            f"install it with pip install '.[cluster]' in a clone of nnlite"
        ) from error
    logging.getLogger("distributed.client").setLevel(logging.CRITICAL)  # what goes wrong, is said here in words
    with ExitStack() as stack:
        if address == LOCAL:
            folder = stack.enter_context(TemporaryDirectory(prefix="nnlite-"))
            cluster = LocalCluster(
                n_workers=jobs,
                threads_per_worker=1,
                dashboard_address="127.0.0.1:0",
                local_directory=folder,
                silence_logs=logging.CRITICAL,
                preload=[_LEAVE_CTRL_C],
            )
            address = stack.enter_context(cluster).scheduler_address
        _knock(address)
        yield stack.enter_context(Client(address, timeout=TIMEOUT, set_as_default=False))


def _knock(address: str) -> None:
    """Raise NnliteError unless a scheduler answers: a Client that fails at that lives on, and complains at its end."""
    import asyncio  # not above: whoever starts nnlite would wait for it

    from distributed.comm import connect

    async def knock() -> None:
        async with asyncio.timeout(TIMEOUT + 1):  # for what takes the call and says nothing
            comm = await connect(address, timeout=TIMEOUT)
            await comm.close()

    try:
        with ThreadPoolExecutor(1) as thread:  # this one may have an event loop, as in a notebook
            thread.submit(asyncio.run, knock()).result()
    except Exception as error:  # whatever else may listen there
        raise NnliteError(
            f"scheduler: none answers at {address} ({str(error) or 'silence'}); expected the address that dask "
            f"scheduler prints, as tcp://HOST:8786: does it run, and does a firewall let you through?"
        ) from error


def _travellers() -> tuple[Callable[[], dict[str, str]], Callable[..., Any]]:
    """Return two functions that travel as code, and so reach a worker that has another nnlite, or none.

    The first returns what must be the same everywhere, or the results may differ. The second carries out a task in one
    BLAS thread, where they are: a worker may have joined after they were compared.
    """

    def versions() -> dict[str, str]:
        from importlib import import_module

        return {name: import_module(name.lower()).__version__ for name in ("nnlite", "NumPy")}

    def carry_out(key: str, expected: dict[str, str], task: bytes) -> tuple[str, Any, Any]:
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
        from nnlite.grid.pool import call

        threadpoolctl.threadpool_limits(1)  # of the whole process, and for good: the threads of a worker share it
        try:
            result = call(cloudpickle.loads(task), lambda what: worker.log_event(TOPIC, (key, what)))
        except NnliteError as error:
            raise NnliteError(f"worker {worker.address}: {error}") from error
        return worker.address, found, result

    return versions, carry_out


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
            f"worker {worker}: expected {_words(own)} as here, found {what}; install the same there: "
            f"other versions train to other bits"
        )


def _words(versions: dict[str, str]) -> str:
    return " and ".join(f"{name} {version}" for name, version in versions.items())


def _result(future: Any, address: str, own: dict[str, str]) -> Any:
    """Return the result of a task that has ended, or raise what it raised, in words."""
    from distributed import CancelledError, KilledWorker

    try:
        worker, found, result = future.result()
    except KilledWorker as error:
        raise NnliteError(
            f"scheduler: a task took {error.allowed_failures + 1} workers down with it, perhaps for lack of memory; "
            f"what is finished is kept: call again with a smaller --stack, or give workers a larger --memory-limit"
        ) from error
    except CancelledError as error:
        raise NnliteError(
            f"scheduler: the connection to {address} was lost; what is finished is kept: call again when it is back"
        ) from error
    _check_versions(worker, found, own)
    return result
