"""Benchmarks: what a training step costs beside the matrix products that it cannot do without.

Both are timed in turns within one run, so a noisy machine moves them together, and the ratio stands.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import threadpoolctl

from nnlite.backend import Array, get_xp, keep_freed_memory, synchronize, to_device
from nnlite.datagrad import weighted_passes
from nnlite.layers import Dense
from nnlite.network import MAIN, Labels, Network, mlp
from nnlite.rotation import ANGLES, ROTATION
from nnlite.training import Settings, train_step

PAPER_FEATURES, PAPER_CLASSES = 784, 10


@dataclass(frozen=True)
class StepTiming:
    """Medians in milliseconds of a step and of its products, and the median of their ratio, pair by pair."""

    step_ms: float
    products_ms: float
    ratio: float
    quartiles: tuple[float, float]
    pairs: int


def time_step(settings: Settings, *, threads: int = 1, pairs: int = 50) -> StepTiming:
    """Time training steps of `settings` on random images of MNIST's size against their own products."""
    if settings.device == "cpu":
        keep_freed_memory()
    rng = np.random.default_rng(settings.seed)
    heads = {ROTATION: len(ANGLES)} if settings.multitask else {}
    net = mlp((PAPER_FEATURES, *settings.hidden, PAPER_CLASSES), rng, heads=heads).to(settings.device)
    x = to_device(rng.random((settings.batch_size, PAPER_FEATURES), dtype=np.float32), settings.device)
    classes = {MAIN: PAPER_CLASSES, **heads}
    y = {
        task: to_device(rng.integers(0, count, settings.batch_size), settings.device) for task, count in classes.items()
    }
    products = step_products(net, x, y, settings)

    def step() -> None:
        train_step(net, x, y, settings)

    def multiply() -> None:
        for a, b, out in products:
            get_xp(a).matmul(a, b, out=out)

    with threadpoolctl.threadpool_limits(threads):
        for _ in range(5):
            step()
            multiply()
        timed = [(_seconds(step, x), _seconds(multiply, x)) for _ in range(pairs)]
    ratios = [a / b for a, b in timed]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return StepTiming(
        step_ms=1e3 * statistics.median(a for a, _ in timed),
        products_ms=1e3 * statistics.median(b for _, b in timed),
        ratio=middle,
        quartiles=(low, high),
        pairs=pairs,
    )


def step_products(net: Network, x: Array, y: Labels, settings: Settings) -> list[tuple[Array, Array, Array]]:
    """Return the matrix products of one step as (a, b, out): forward and back of each pass, then the gradients.

    Passes at one point share the forward products of the trunk, and their rows in the gradients.
    """
    xp = get_xp(x)
    terms = settings.method.terms(settings.lam, settings.phi)
    passes = [p for _, p in weighted_passes(net, x, y, terms, gamma=settings.further_losses)]
    factors, done = [], set()
    for p in passes:
        for k, layer in enumerate(net.chain(p.task)):
            if isinstance(layer, Dense):
                if (id(p.inputs[k]), id(layer)) not in done:
                    factors.append((p.inputs[k], layer.W))
                    done.add((id(p.inputs[k]), id(layer)))
                if k or p.input_gradient is not None:
                    factors.append((p.deltas[k], layer.W.swapaxes(-1, -2)))
    for layer in net.all_layers:
        if isinstance(layer, Dense):
            rows: dict[int, tuple[Array, Array]] = {}
            for p in passes:
                chain = net.chain(p.task)
                rows |= {id(p.inputs[k]): (p.inputs[k], p.deltas[k]) for k, own in enumerate(chain) if own is layer}
            seen, errors = (xp.concatenate(blocks) for blocks in zip(*rows.values(), strict=True))
            factors.append((seen.swapaxes(-1, -2), errors))
    return [(a, b, a @ b) for a, b in factors]


def _seconds(action: Callable[[], None], array: Array) -> float:
    synchronize(array)
    start = time.perf_counter()
    action()
    synchronize(array)
    return time.perf_counter() - start
