"""Benchmarks: what a training step costs beside the matrix products that it cannot do without.

Both are timed in turns within one run, so a noisy machine moves them together, and the ratio stands.
"""

import dataclasses
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import threadpoolctl

from nnlite.attacks import PGD
from nnlite.backend import Array, get_xp, keep_freed_memory, synchronize, to_device
from nnlite.datagrad import weighted_passes
from nnlite.evaluation import BLOCK
from nnlite.layers import Dense
from nnlite.network import MAIN, Labels, Network, mlp
from nnlite.rotation import ANGLES, ROTATION
from nnlite.settings import Settings
from nnlite.update import Update, train_step

PAPER_FEATURES, PAPER_CLASSES = 784, 10

Products: TypeAlias = list[tuple[Array, Array, Array]]  # (a, b, out) of each matrix product


@dataclass(frozen=True)
class Timing:
    """Medians in milliseconds of some work and of its products, and the median of their ratio, pair by pair.

    to_finite: for a step with the exact gradient, its ratio to the step with the finite one, timed in the same turns.
    """

    work_ms: float
    products_ms: float
    ratio: float
    quartiles: tuple[float, float]
    pairs: int
    to_finite: float | None = None


def time_step(settings: Settings, *, threads: int = 1, pairs: int = 50) -> Timing:
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
    noise = np.random.default_rng(settings.seed)
    update = Update.of(settings)
    products = step_products(net, x, y, settings, noise)
    finite = dataclasses.replace(settings, gradient="finite", phi=0.1) if settings.gradient == "exact" else settings

    def step() -> None:
        train_step(net, x, y, update, noise)

    def finite_step() -> None:
        train_step(net, x, y, Update.of(finite), noise)

    return _time(step, products, threads, pairs, None if finite is settings else finite_step)


def step_products(
    net: Network, x: Array, y: Labels, settings: Settings, rng: np.random.Generator | None = None
) -> Products:
    """Return the matrix products of one step as (a, b, out): forward and back of each pass, then the gradients.

    Passes at one point share the forward products of the trunk, and their rows in the gradients. The products of
    a search for noise are not among them.
    """
    xp = get_xp(x)
    passes = [p for _, p in weighted_passes(net, x, y, settings.terms, gamma=settings.further_losses, rng=rng)]
    factors, done = [], set()
    pairs: dict[int, dict[int, tuple[Array, Array]]] = {id(layer): {} for layer in net.all_layers}
    for p in passes:
        for k, layer in enumerate(net.chain(p.of.task)):
            if isinstance(layer, Dense):
                if (id(p.inputs[k]), id(layer)) not in done:
                    factors.append((p.inputs[k], layer.W))
                    done.add((id(p.inputs[k]), id(layer)))
                if k or p.input_gradient is not None:
                    factors.append((p.deltas[k], layer.W.swapaxes(-1, -2)))
                pairs[id(layer)][id(p.inputs[k])] = (p.inputs[k], p.of.deltas[k])
    for layer in net.all_layers:
        if isinstance(layer, Dense):
            seen, errors = (xp.concatenate(blocks) for blocks in zip(*pairs[id(layer)].values(), strict=True))
            factors.append((seen.swapaxes(-1, -2), errors))
    return [(a, b, a @ b) for a, b in factors]


def time_attack(
    attack: PGD,
    *,
    hidden: Sequence[int] = (784, 784, 784),
    rows: int = BLOCK,
    threads: int = 1,
    pairs: int = 20,
    device: str = "cpu",
) -> Timing:
    """Time crafting `rows` random images of MNIST's size, from one start each, against its own products."""
    if device == "cpu":
        keep_freed_memory()
    rng = np.random.default_rng(0)
    net = mlp((PAPER_FEATURES, *hidden, PAPER_CLASSES), rng).to(device)
    x = to_device(rng.random((rows, PAPER_FEATURES), dtype=np.float32), device)
    y = to_device(rng.integers(0, PAPER_CLASSES, rows), device)
    products = attack_products(net, x, y, attack.steps)

    def craft() -> None:
        attack.craft(net, x, y, (0.1,), rng)

    return _time(craft, products, threads, pairs)


def attack_products(net: Network, x: Array, y: Array, steps: int) -> Products:
    """Return the matrix products of `steps` steps as (a, b, out): forward and back to x, and forward at the end."""
    p = net.run(x, y)
    dense = [(k, layer.W) for k, layer in enumerate(net.layers) if isinstance(layer, Dense)]
    forward = [(p.inputs[k], W) for k, W in dense]
    back = [(p.deltas[k], W.swapaxes(-1, -2)) for k, W in reversed(dense)]
    once = [(a, b, a @ b) for a, b in forward + back]
    return once * steps + once[: len(forward)]


def _time(
    work: Callable[[], None], products: Products, threads: int, pairs: int, finite: Callable[[], None] | None = None
) -> Timing:
    """Time `work`, its products, and the step with the finite gradient where there is one, in turns."""

    def multiply() -> None:
        for a, b, out in products:
            get_xp(a).matmul(a, b, out=out)

    actions = [work, multiply, *([finite] if finite else [])]
    array = products[0][0]
    with threadpoolctl.threadpool_limits(threads):
        for action in actions * 3:  # the first runs fetch memory and wake the threads
            action()
        timed = np.array([[_seconds(action, array) for action in actions] for _ in range(pairs)])
    low, middle, high = statistics.quantiles(timed[:, 0] / timed[:, 1], n=4)
    return Timing(
        work_ms=1e3 * float(np.median(timed[:, 0])),
        products_ms=1e3 * float(np.median(timed[:, 1])),
        ratio=float(middle),
        quartiles=(float(low), float(high)),
        pairs=pairs,
        to_finite=float(np.median(timed[:, 0] / timed[:, 2])) if finite else None,
    )


def _seconds(action: Callable[[], None], array: Array) -> float:
    synchronize(array)
    start = time.perf_counter()
    action()
    synchronize(array)
    return time.perf_counter() - start
