"""A race: the same work by nnlite and by others, timed in turns beside the matrix products that it cannot do without.

Each contestant has a process of its own. They are timed round after round, so a machine that slows down slows all of
them and the ratios stay right. What they compute is compared before it is timed. pytest-benchmark, pyperf and asv were
weighed: none of them takes turns between contestants, or compares their results first.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import threadpoolctl

from nnlite.attacks import PGD
from nnlite.backend import to_device
from nnlite.bench.peers import Contestant
from nnlite.bench.process import BenchProcess
from nnlite.bench.workload import FEATURES, Workload
from nnlite.errors import NnliteError
from nnlite.evaluation.threads import available_cpus
from nnlite.training.checkpoint import write_checkpoint
from nnlite.training.loop import TrainingState, train
from nnlite.training.memory import expect_free
from nnlite.training.settings import Settings

# Rounding alone makes 1e-6. Where it changes the side of a ReLU for one example, or the sign of one J_s, it makes up to
# 4e-3 after three steps; after many it grows without bound.
TOLERANCE = 1e-2
OnProgress = Callable[[int, int, str], None]  # is told how much is done, of how much, and what is under way
GROWTH, VICTIMS = (1, 2, 4), 8  # of what `growth_times` times
TURN, REST = 0.5, 0.3  # seconds; a pool of threads spins on after its work, and would disturb the next contestant


@dataclass(frozen=True)
class Timing:
    """The times of one contestant.

    Arguments:
        name: of the contestant.
        seconds: the mean of each round; empty for what a library does not offer.
        difference: how far its result is from nnlite's own, relative to the whole change, in the L2 norm; None where
            there was nothing to compare.
    """

    name: str
    seconds: tuple[float, ...] = ()
    difference: float | None = None

    @property
    def quartiles(self) -> tuple[float, float, float]:
        """The lower quartile, the median and the upper quartile over the rounds, in ms."""
        low, middle, high = np.quantile(np.array(self.seconds) * 1e3, (0.25, 0.5, 0.75))
        return float(low), float(middle), float(high)

    def ratio(self, other: "Timing") -> float:
        """Return the median over the rounds of its seconds divided by another's."""
        return float(np.median(np.array(self.seconds) / np.array(other.seconds)))


def run_race(
    contestants: Sequence[Contestant],
    *,
    threads: int,
    rounds: int,
    on_progress: OnProgress = lambda done, total, what: None,
) -> list[Timing]:
    """Time the contestants in turns and return their timings in the same order.

    NnliteError for more than there is memory or processors for, for a result that differs from the first contestant's
    by more than TOLERANCE where both do the same work, and for a contestant that fails.

    Arguments:
        contestants: nnlite first.
        threads: how many threads, and processors, each has.
        rounds: how many turns each has.
        on_progress: is called between turns, with how many are done, and of how many, and with what is being done.
    """
    cpus = available_cpus()
    if threads > len(cpus):
        raise NnliteError(f"threads: expected at most {len(cpus)}, one for each processor, found {threads}; take fewer")
    check_room([one.work for one in contestants if one.build])
    to_device(np.zeros(1), contestants[0].work.settings.device)  # fails here, before any process, where there is no GPU
    with ExitStack() as stack:
        processes = {
            one.name: stack.enter_context(BenchProcess(one.name, one.build, one.work, cpus[:threads]))
            for one in contestants
            if one.build
        }
        differences = _compare(contestants, processes, partial(on_progress, 0, rounds * len(processes)))
        counts = {name: max(1, round(TURN / process.ask("time", 1))) for name, process in processes.items()}
        seconds: dict[str, list[float]] = {name: [] for name in processes}
        names = list(processes)
        for number in range(rounds):
            for name in names[number % len(names) :] + names[: number % len(names)]:
                turn = sum(map(len, seconds.values()))
                on_progress(turn, rounds * len(names), "timing in turns")
                time.sleep(REST)
                seconds[name].append(processes[name].ask("time", counts[name]))
    return [Timing(one.name, tuple(seconds.get(one.name, ())), differences.get(one.name)) for one in contestants]


def growth_times(
    settings: Settings,
    images: int,
    *,
    threads: int,
    rounds: int,
    on_progress: OnProgress = lambda done, total, what: None,
) -> list[tuple[str, int, Timing]]:
    """Return the times of a training run and of a scored attack, with 1, 2 and 4 times as much of what each takes.

    As (what grows, how much of it, timing). The smallest run has one model, `images`, one epoch and 784 features;
    several models are trained as a stack. The smallest attack, by PGD of two steps, has `images`, one phi and one
    victim, or VICTIMS where they grow: crafting serves all of them. `on_progress` is that of `run_race`.
    """
    one = replace(settings, epochs=1)
    run, attack = Workload("train", (one,), images), Workload("score", (one, one), images, PGD(steps=2))
    works = [
        *(("models", n, replace(run, models=(one,) * n)) for n in GROWTH),
        *(("images", n * images, replace(run, images=n * images)) for n in GROWTH),
        *(("epochs", n, replace(run, models=(replace(one, epochs=n),))) for n in GROWTH),
        *(("features", n * FEATURES, replace(run, features=n * FEATURES)) for n in GROWTH),
        *(("phi", n, replace(attack, sizes=n)) for n in GROWTH),
        *(("victims", n * VICTIMS, replace(attack, models=(one,) * (1 + n * VICTIMS))) for n in GROWTH),
        *(("attacked images", n * images, replace(attack, images=n * images)) for n in GROWTH),
    ]
    contestants = [Contestant(f"{what} {count}", "nnlite.bench.peers.own:build", work) for what, count, work in works]
    timings = run_race(contestants, threads=threads, rounds=rounds, on_progress=on_progress)
    return [(what, count, timing) for (what, count, _), timing in zip(works, timings, strict=True)]


def checkpoint_times(
    work: Workload, path: Path, threads: int, on_progress: OnProgress = lambda done, total, what: None
) -> tuple[Timing, Timing]:
    """Return the times of the epochs of a training run, and of the checkpoint that it writes to `path` after each.

    on_progress: is called with the epochs that are done, and of how many, and with what is being done, after each.
    """
    check_room([work])
    written = []

    def on_checkpoint(state: TrainingState) -> None:
        start = time.perf_counter()
        write_checkpoint(path, work.settings, state)
        written.append(time.perf_counter() - start)
        on_progress(state.epoch, work.settings.epochs, "epochs")

    with threadpoolctl.threadpool_limits(threads):
        history = train(work.settings, work.data(), on_checkpoint=on_checkpoint).history
    return Timing("an epoch", tuple(epoch.seconds for epoch in history)), Timing("its checkpoint", tuple(written))


def check_room(works: Sequence[Workload], times: int = 1) -> None:
    """Raise NnliteError where workloads, each so many `times`, do not fit into memory side by side."""
    what = f"{len(works)} contestants need" if len(works) > 1 else "this needs"
    advice = "narrower --hidden, smaller batches, or fewer images or models"
    expect_free(times * sum(work.nbytes for work in works), what, advice, works[0].settings.device)


def _compare(
    contestants: Sequence[Contestant], processes: Mapping[str, BenchProcess], on_message: Callable[[str], None]
) -> dict[str, float]:
    """Let each process do the short work, and return how far its result is from the first one's."""
    first, differences = contestants[0], {}
    start, expected = first.work.short().start(), None
    for one in contestants:
        if one.name not in processes:
            continue
        on_message(f"{one.name}: first runs")
        result = processes[one.name].ask("check")
        if expected is None:
            expected = result
        elif result and one.work == first.work:
            differences[one.name] = found = relative_difference(result, expected, start)
            if not found <= TOLERANCE:
                raise NnliteError(
                    f"{one.name}: expected the result of {first.name}, found one that differs by {found:.2g} of the "
                    f"change; times of different results cannot be compared"
                )
    return differences


def relative_difference(
    found: Sequence[npt.NDArray[Any]], expected: Sequence[npt.NDArray[Any]], start: Sequence[npt.NDArray[Any]]
) -> float:
    """Return |found - expected| / |expected - start|, where all arrays together are one vector."""
    a, b, c = (np.concatenate([array.ravel() for array in arrays]) for arrays in (found, expected, start))
    return float(np.linalg.norm(a - b) / np.linalg.norm(b - c))
