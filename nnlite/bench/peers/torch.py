"""PyTorch: torch.func on a list of tensors, changed in place; run eagerly, or through torch.compile."""

import os
from collections.abc import Callable
from typing import Any

import torch
from torch.func import grad, grad_and_value
from torch.nn import functional as F  # noqa: N812 - as its users write it

from nnlite.backend import Array
from nnlite.bench.peers.several import in_processes, in_turn
from nnlite.bench.workload import Runner, Workload
from nnlite.network import MAIN
from nnlite.training.settings import Settings


def eager(work: Workload, threads: int) -> Runner:
    """Return the Runner of one model that runs operation by operation."""
    return _runner(work, threads, lambda function: function)


def compiled(work: Workload, threads: int) -> Runner:
    """Return the Runner of one model with each step compiled as a whole."""
    os.environ["TORCHINDUCTOR_COMPILE_THREADS"] = "1"  # no compilers in other processes
    return _runner(work, threads, torch.compile)


one_after_another = in_turn(compiled)
each_a_process = in_processes("nnlite.bench.peers.torch:compiled")


def loss(parameters: list[Any], x: Any, y: Any) -> Any:
    """Return the mean softmax cross-entropy of a multilayer perceptron."""
    *hidden, last = zip(parameters[::2], parameters[1::2], strict=True)
    for W, b in hidden:
        x = F.relu(F.linear(x, W, b))
    return F.cross_entropy(F.linear(x, *last), y)


def _runner(work: Workload, threads: int, compile: Callable[..., Any]) -> Runner:
    torch.set_num_threads(threads)
    images, labels = work.batch()
    x, y = torch.tensor(images), torch.tensor(labels[MAIN])
    state = [torch.tensor(_transposed(array)) for array in work.weights()]
    if work.kind == "attack":
        return _attack(work, compile, state, x, y)
    step, order = compile(_step(work.settings)), [torch.tensor(rows) for rows in work.order()]

    def run(n: int) -> None:
        for _ in range(n):
            if work.kind == "step":
                step(state, x, y)
            else:
                for rows in order:
                    step(state, x[rows], y[rows])

    return Runner(run, lambda: [_transposed(tensor.numpy()) for tensor in state])


def _step(settings: Settings) -> Callable[..., None]:
    lr, lam, phi = settings.lr, settings.lam or 0, settings.phi or 1

    def plain(p: list[Any], x: Any, y: Any) -> None:
        torch._foreach_add_(p, grad(loss)(p, x, y), alpha=-lr)

    def finite(p: list[Any], x: Any, y: Any) -> None:
        clean, dx = grad(loss, (0, 1))(p, x, y)
        adversarial = grad(loss)(p, x + phi * dx.sign(), y)
        torch._foreach_add_(p, clean, alpha=-lr * (1 - lam / phi))
        torch._foreach_add_(p, adversarial, alpha=-lr * lam / phi)

    def exact(p: list[Any], x: Any, y: Any) -> None:
        def penalised(p: list[Any]) -> Any:
            dx, value = grad_and_value(loss, 1)(p, x, y)
            return value + lam * dx.abs().sum()

        torch._foreach_add_(p, grad(penalised)(p), alpha=-lr)

    return plain if settings.reg == "none" else finite if settings.gradient == "finite" else exact


def _attack(work: Workload, compile: Callable[..., Any], parameters: list[Any], x: Any, y: Any) -> Runner:
    low, high, size = (x - work.phi).clamp(min=0), (x + work.phi).clamp(max=1), work.phi * work.attack.share
    image = [x]

    def climb(image: Any) -> Any:
        return (image + size * grad(loss, 1)(parameters, image, y).sign()).clamp(low, high)

    climb = compile(climb)

    def run(n: int) -> None:
        for _ in range(n):
            image[0] = x
            for _ in range(work.attack.steps):
                image[0] = climb(image[0])

    return Runner(run, lambda: [image[0].numpy()])


def _transposed(array: Array) -> Array:
    """Return a weight matrix (in, out) as torch keeps it, (out, in), or back."""
    return array.T.copy()
