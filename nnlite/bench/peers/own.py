"""nnlite itself, and the matrix products alone."""

import numpy as np
import threadpoolctl

from nnlite.backend import Array, synchronize, to_device, to_host
from nnlite.bench.matmuls import Matmul, attack_matmuls, multiply, step_matmuls
from nnlite.bench.peers.several import in_processes, in_turn
from nnlite.bench.workload import Runner, Workload, parameters
from nnlite.datasets.samples import Samples
from nnlite.evaluation.accuracy import blocks_of, evaluate_attack, length
from nnlite.evaluation.threads import OnShare, blocks_at_a_time, side_by_side
from nnlite.network import MAIN, Network
from nnlite.sgd import train_step
from nnlite.training.loop import train_stack
from nnlite.training.update import update_of


def build(work: Workload, threads: int) -> Runner:
    """Return the Runner of nnlite; several models are a stack."""
    if work.kind == "attack":
        return _attack(work, threads)
    return {"step": _steps, "epoch": _steps, "train": _train, "score": _score}[work.kind](work)


one_after_another = in_turn(build)
each_a_process = in_processes("nnlite.bench.peers.own:build")


def _steps(work: Workload) -> Runner:
    net, x, y = _start(work)
    batches = [slice(None)] if work.kind == "step" else [to_device(rows, work.settings.device) for rows in work.order()]
    update, noise = update_of(*work.models), np.random.default_rng(work.settings.seed)

    def run(n: int) -> None:
        for rows in batches * n:
            train_step(net, x[rows], {task: labels[rows] for task, labels in y.items()}, update, noise)
        synchronize(x)

    return Runner(run, lambda: parameters(net))


def _attack(work: Workload, threads: int) -> Runner:
    """Return the Runner that crafts as `evaluate_attack` does: blocks of images side by side, one BLAS thread each."""
    net, x, y = _start(work)
    made, rng, blocks = [x], np.random.default_rng(work.settings.seed), blocks_of(work.rows)

    def craft(number: int, _: OnShare) -> Array:
        rows = blocks[number]
        return work.attack.craft(net, x[rows], y[MAIN][rows], (work.phi,), rng).images[0]  # PGD draws for restarts only

    def run(n: int) -> None:
        alone = work.settings.device == "gpu"
        with threadpoolctl.threadpool_limits(1), blocks_at_a_time(threads):
            for _ in range(n):
                made[:] = side_by_side(craft, [*map(length, blocks)], alone=alone)
        synchronize(x)

    return Runner(run, lambda: [np.concatenate([*map(to_host, made)])])


def _train(work: Workload) -> Runner:
    data = work.data()

    def run(n: int) -> None:
        for _ in range(n):
            train_stack(work.models, {work.settings.seed: data})

    return Runner(run)


def _score(work: Workload) -> Runner:
    """Return the Runner that attacks the images at each size of noise, and scores every victim on them."""
    x, y = work.batch()
    (adversary, *nets), samples = work.nets(), Samples(x, y[MAIN], white=1)
    victims = {str(k): net for k, net in enumerate(nets)}
    phi = [work.phi * (k + 1) / work.sizes for k in range(work.sizes)]

    def run(n: int) -> None:
        for _ in range(n):
            evaluate_attack(adversary, victims, samples, work.attack, phi)

    return Runner(run)


def matmuls(work: Workload, threads: int) -> Runner:
    """Return the Runner of the matrix products and nothing else; those of several models run one after another."""
    listed = [one for k in range(len(work.models)) for one in _matmuls(work.alone(k))]

    def run(n: int) -> None:
        for _ in range(n):
            multiply(listed)
        synchronize(listed[0][0])

    return Runner(run)


def _matmuls(work: Workload) -> list[Matmul]:
    net, x, y = _start(work)
    if work.kind == "attack":
        return attack_matmuls(net, x, y[MAIN], work.attack.steps)
    sizes = [len(rows) for rows in work.order()]  # batches of one size have the same products
    noise, listed = np.random.default_rng(work.settings.seed), {}
    for size in set(sizes):
        batch = {task: labels[:size] for task, labels in y.items()}
        listed[size] = step_matmuls(net, x[:size], batch, work.settings, noise)
    return [one for size in sizes for one in listed[size]]


def _start(work: Workload) -> tuple[Network, Array, dict[str, Array]]:
    """Return the net, the images and the labels of each task, on the device of the work."""
    x, y = work.batch()
    device = work.settings.device
    return work.net(), to_device(x, device), {task: to_device(labels, device) for task, labels in y.items()}
