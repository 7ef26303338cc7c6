"""Benchmarks: the same work by nnlite and by others, beside the matrix products that it cannot do without.

Each contestant has a process of its own. All are timed in turns, round after round, so a machine that slows down
slows all of them, and the ratios stand. What they compute is compared before it is timed.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import threadpoolctl

from nnlite import __version__
from nnlite.backend import to_device
from nnlite.bench.peers import LIBRARIES, PRODUCTS, Contestant
from nnlite.bench.process import Worker
from nnlite.bench.workload import UNITS, Work
from nnlite.errors import NnliteError
from nnlite.grid.pool import available_cpus
from nnlite.storage.files import read_file
from nnlite.storage.tensors import parse_json
from nnlite.training.checkpoint import write_checkpoint
from nnlite.training.environment import makers
from nnlite.training.loop import State, train

# Rounding alone makes 1e-6. Where it puts a ReLU of one example, or the sign of one J_s, on the other side, it makes up
# to 4e-3 after three steps; after many it grows without bound.
TOLERANCE = 1e-2
REPORT_LIMIT, TEXT_LIMIT = 1 << 20, 200  # bytes of a file, of which all methods take 16,000; characters of a name
TURN, REST = 0.5, 0.3  # seconds; a pool of threads goes on spinning after its work, and disturbs whoever is next


@dataclass(frozen=True)
class Standing:
    """The seconds of one contestant, one mean for each round, and how far its result is from nnlite's own.

    seconds: none for what a library does not offer. difference: relative, in the L2 norm of the whole change; None
    where there was nothing to compare.
    """

    name: str
    seconds: tuple[float, ...] = ()
    difference: float | None = None

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The lower quartile, the median and the upper quartile over the rounds, in ms."""
        low, middle, high = np.quantile(np.array(self.seconds) * 1e3, (0.25, 0.5, 0.75))
        return float(low), float(middle), float(high)

    def to(self, other: "Standing") -> float:
        """Return the median ratio to another's seconds of the same round."""
        return float(np.median(np.array(self.seconds) / np.array(other.seconds)))


def race(
    contestants: Sequence[Contestant], *, threads: int, rounds: int, tell: Callable[[str], None] = lambda words: None
) -> list[Standing]:
    """Time the contestants in turns, `rounds` times, and return them in the same order; `tell` is told what goes on.

    The first one gives the result that the others are held to, where they do the same work. NnliteError for one whose
    result differs by more than TOLERANCE, for one that fails, and for more threads than there are processors.
    """
    cpus = available_cpus()
    if threads > len(cpus):
        raise NnliteError(f"threads: expected at most {len(cpus)}, the processors at hand, found {threads}")
    to_device(np.zeros(1), contestants[0].work.settings.device)  # says so at once where there is no GPU
    with ExitStack() as stack:
        workers = {
            one.name: stack.enter_context(Worker(one.name, one.build, one.work, cpus[:threads]))
            for one in contestants
            if one.build
        }
        differences = _compare(contestants, workers, tell)
        counts = {name: max(1, round(TURN / worker.ask("time", 1))) for name, worker in workers.items()}
        seconds: dict[str, list[float]] = {name: [] for name in workers}
        names = list(workers)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                time.sleep(REST)
                seconds[name].append(workers[name].ask("time", counts[name]))
    return [Standing(one.name, tuple(seconds.get(one.name, ())), differences.get(one.name)) for one in contestants]


def checkpoint_times(work: Work, path: Path, threads: int) -> tuple[Standing, Standing]:
    """Train the first model of `work`, and write its checkpoint `path` after each epoch; return the times of both."""
    written = []

    def keep(state: State) -> None:
        start = time.perf_counter()
        write_checkpoint(path, work.settings, state)
        written.append(time.perf_counter() - start)

    with threadpoolctl.threadpool_limits(threads):
        history = train(work.settings, work.data(), keep=keep).history
    return Standing("an epoch", tuple(epoch.seconds for epoch in history)), Standing("its checkpoint", tuple(written))


def _compare(
    contestants: Sequence[Contestant], workers: Mapping[str, Worker], tell: Callable[[str], None]
) -> dict[str, float]:
    """Let each worker take three steps, and return how far their result is from the first one's."""
    first, differences = contestants[0], {}
    start, expected = first.work.short().start(), None
    for one in contestants:
        if one.name not in workers:
            continue
        tell(f"{one.name}: first runs")
        result = workers[one.name].ask("check")
        if expected is None:
            expected = result
        elif result and one.work == first.work:
            differences[one.name] = found = _difference(result, expected, start)
            if not found <= TOLERANCE:
                raise NnliteError(
                    f"{one.name}: expected the result of {first.name}, found one that differs by {found:.2g} of the "
                    f"change; the times of different results say nothing"
                )
    return differences


def _difference(
    found: Sequence[npt.NDArray[Any]], expected: Sequence[npt.NDArray[Any]], start: Sequence[npt.NDArray[Any]]
) -> float:
    """Return |found - expected| / |expected - start|, all arrays taken as one vector."""
    a, b, c = (np.concatenate([array.ravel() for array in arrays]) for arrays in (found, expected, start))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b - c))


def report(title: str, work: Work, standings: Sequence[Standing], *, threads: int) -> dict[str, Any]:
    """Return all of a race as JSON may hold it: its title, the figures of each contestant, best first, and the machine.

    Figures of what a library does not offer are None. Ratios are to nnlite, the first one, and to the products.
    """
    by_name = {one.name: one for one in standings}
    first, products = standings[0], by_name.get(PRODUCTS, standings[0])
    return {
        "title": title,
        "kind": work.kind,
        "unit": ("models x " if len(work.models) > 1 else "") + UNITS[work.kind],
        "threads": threads,
        "rounds": len(first.seconds),
        "contestants": [
            {
                "name": one.name,
                "ms": one.quartiles[1] if one.seconds else None,
                "quartiles": [one.quartiles[0], one.quartiles[2]] if one.seconds else None,
                "to_products": one.to(products) if one.seconds else None,
                "to_nnlite": one.to(first) if one.seconds else None,
                "per_second": 1e3 * work.amount / one.quartiles[1] if one.seconds else None,
                "difference": one.difference,
            }
            for one in sorted(standings, key=lambda one: one.quartiles[1] if one.seconds else np.inf)
        ],
        "machine": machine(work.settings.device),
    }


def read_reports(path: Path) -> list[dict[str, Any]]:
    """Return the reports in a JSON file, as `report` made them or a list of such; NnliteError for any other file."""
    try:
        content = parse_json(read_file(path, REPORT_LIMIT).decode("utf-8"))
        return [_checked(one) for one in (content if isinstance(content, list) else [content])]
    except OSError as error:
        raise NnliteError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise NnliteError(f"{path}: expected what nnlite bench step --json prints: {error}") from error


def _checked(content: Any) -> dict[str, Any]:
    """Return a report that a picture can be made of; ValueError for what is none."""

    def is_text(value: Any) -> bool:
        return isinstance(value, str) and len(value) <= TEXT_LIMIT

    def is_time(value: Any) -> bool:
        return type(value) in (int, float) and 0 <= value < 1e12

    def is_row(row: Any) -> bool:
        if not isinstance(row, dict) or not is_text(row.get("name")) or "ms" not in row:
            return False
        pair = row.get("quartiles")
        timed = is_time(row["ms"]) and isinstance(pair, list) and len(pair) == 2 and all(map(is_time, pair))
        return row["ms"] is None or timed

    known = isinstance(content, dict) and is_text(content.get("title")) and type(content.get("threads")) is int
    rows = content.get("contestants") if known else None
    if not isinstance(rows, list) or not all(map(is_row, rows)) or all(row["ms"] is None for row in rows):
        raise ValueError("it is no race, with a title, threads, and contestants with their ms and quartiles")
    return dict(content)


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return the processor, the BLAS, and the versions of all libraries that are compared."""
    versions = {"nnlite": __version__, **_versions(["numpy", *LIBRARIES.values()])}
    return {"cpu": _cpu(), "blas": makers()["BLAS"], "device": device, "versions": versions}


def _cpu() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        import platform

        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _versions(packages: Sequence[str]) -> dict[str, str]:
    found = {}
    for name in packages:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
