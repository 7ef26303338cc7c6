"""JAX: a step is one function under jit, whose parameters are donated and so changed in place."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from nnlite.bench.peers.several import in_processes, in_turn
from nnlite.bench.workload import Runner, Workload
from nnlite.network import MAIN
from nnlite.training.settings import Settings


def jit(work: Workload, threads: int) -> Runner:
    """Return the Runner of one model under jit, or of several under vmap."""
    images, labels = work.batch()
    x, y = jnp.asarray(images), jnp.asarray(labels[MAIN])
    if work.kind == "attack":
        return _attack(work, x, y)
    one, lam = _step(work.settings), work.settings.lam
    if len(work.models) > 1:
        one = jax.vmap(one, in_axes=(0, None, None, 0 if lam else None))
        lam = lam and jnp.array([settings.lam for settings in work.models])
    if work.kind == "step":
        step, order = jax.jit(one, donate_argnums=0), [None]
    else:
        step = jax.jit(lambda p, x, y, lam, rows: one(p, x[rows], y[rows], lam), donate_argnums=0)
        order = [jnp.asarray(rows) for rows in work.order()]
    state = list(map(jnp.array, work.start()))

    def run(n: int) -> None:
        for rows in order * n:
            state[:] = step(state, x, y, lam, *([] if rows is None else [rows]))
        jax.block_until_ready(state)

    return Runner(run, lambda: list(map(np.array, state)))


one_after_another = in_turn(jit)
each_a_process = in_processes("nnlite.bench.peers.jax:jit")


def loss(parameters: list[Any], x: Any, y: Any) -> Any:
    """Return the mean softmax cross-entropy of a multilayer perceptron."""
    *hidden, (W, b) = zip(parameters[::2], parameters[1::2], strict=True)
    for weights, biases in hidden:
        x = jax.nn.relu(x @ weights + biases)
    logits = x @ W + b
    return (jax.nn.logsumexp(logits, -1) - jnp.take_along_axis(logits, y[:, None], -1)[:, 0]).mean()


def _step(settings: Settings) -> Callable[..., Any]:
    lr, phi = settings.lr, settings.phi

    def plain(p: Any, x: Any, y: Any, lam: Any) -> Any:
        return jax.tree.map(lambda w, g: w - lr * g, p, jax.grad(loss)(p, x, y))

    def finite(p: Any, x: Any, y: Any, lam: Any) -> Any:
        clean, dx = jax.grad(loss, (0, 1))(p, x, y)
        adversarial = jax.grad(loss)(p, x + phi * jnp.sign(dx), y)
        share = lam / phi
        return jax.tree.map(lambda w, g, h: w - lr * ((1 - share) * g + share * h), p, clean, adversarial)

    def exact(p: Any, x: Any, y: Any, lam: Any) -> Any:
        def penalised(p: Any) -> Any:
            value, dx = jax.value_and_grad(loss, 1)(p, x, y)
            return value + lam * jnp.abs(dx).sum()

        return jax.tree.map(lambda w, g: w - lr * g, p, jax.grad(penalised)(p))

    return plain if settings.reg == "none" else finite if settings.gradient == "finite" else exact


def _attack(work: Workload, x: Any, y: Any) -> Runner:
    parameters, size = list(map(jnp.array, work.weights())), work.phi * work.attack.share

    def craft(p: Any, x: Any, y: Any) -> Any:
        low, high = jnp.maximum(x - work.phi, 0), jnp.minimum(x + work.phi, 1)

        def climb(_: int, image: Any) -> Any:
            return jnp.clip(image + size * jnp.sign(jax.grad(loss, 1)(p, image, y)), low, high)

        return jax.lax.fori_loop(0, work.attack.steps, climb, x)

    crafted, image = jax.jit(craft), [x]

    def run(n: int) -> None:
        for _ in range(n):
            image[0] = crafted(parameters, x, y)
        image[0].block_until_ready()

    return Runner(run, lambda: [np.array(image[0])])
