"""Attacks: what an adversary adds to an image so that a net misclassifies it.

Noise is the paper's (section 3): one step of size phi along R's gradient at the input gradient. R1 noise is
phi sign(J), the fast gradient sign method; R2 noise is phi 2J. The paper does not clip to [0, 1]. The direction
does not depend on phi, so one backward pass serves every phi. PGD takes many such steps within a ball.

An attack is a value that crafts. It forms no weight gradient, and draws only from the generator that it is given. One
that is `targeted` takes y for the class that the net is to predict, and goes down its loss, not up.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any, Protocol

import numpy as np
from numpy.random import Generator

from nnlite.backend import Array, Number, brief, get_xp, per_model, to_host
from nnlite.errors import NnliteError
from nnlite.inputs import UNIT, Box, check_images
from nnlite.losses import Loss, softmax_cross_entropy
from nnlite.network import Network
from nnlite.penalties import L1, L2, L2_NORM, LINF, Penalty

NORMS = {"linf": LINF.value, "l2": L2_NORM.value}  # how noise is measured
STEEPEST = {"linf": L1.gradient, "l2": L2_NORM.gradient}  # the step of length 1 that the loss rises most along


@dataclass(frozen=True, eq=False)
class Crafted:
    """What an attack made of a batch of N images.

    Arguments:
        images: One array (..., N, D) for each phi.
        zeros: How many entries of the input gradient at the clean images are exactly 0, or None.
        failed: (..., N), true where the attack itself did not work, such as a search that did not converge; None for an
            attack that always works.
        smallest: (..., N, D), from an attack that searches for the smallest noise: the image that it found, whatever
            phi, or the clean image where it found none or needs none.
    """

    images: list[Array]
    zeros: Array | None = None
    failed: Array | None = None
    smallest: Array | None = None
    __repr__ = brief()


class Attack(Protocol):
    """What every attack has: the norm that measures phi, whether pixels stay within the box of the data, and `craft`.

    norm is "linf" or "l2", or None where phi is no radius, as for R2 noise.
    """

    @property
    def norm(self) -> str | None: ...  # noqa: D102

    @property
    def clip(self) -> bool: ...  # noqa: D102

    def craft(self, net: Network, x: Array, y: Array, phi: Sequence[float], rng: Generator, box: Box = UNIT) -> Crafted:
        """Return what becomes of the images x (..., N, D) with labels y (..., N) at each phi; at phi 0 they are x.

        NnliteError where x or y does not fit the net, or x lies outside the box that `clip` keeps pixels in.
        """
        ...


@dataclass(frozen=True)
class Noise:
    """One step phi along R's gradient at J, as in section 3 of the paper, against it if targeted; it draws nothing."""

    penalty: Penalty
    clip: bool = False
    loss: Loss = softmax_cross_entropy
    targeted: bool = False

    @property
    def norm(self) -> str | None:
        """The norm in which no step is longer than phi: "linf" for R1; None for R2, whose size follows the gradient."""
        return self.penalty.ball if self.penalty.ball in NORMS else None

    def craft(self, net: Network, x: Array, y: Array, phi: Sequence[float], rng: Generator, box: Box = UNIT) -> Crafted:
        """Return x + phi dR/dJ for each phi, x - phi dR/dJ if targeted, from one backward pass."""
        limits = check_batch(net, x, y, box if self.clip else None)
        dx = input_gradient(net, x, y, self.loss)
        direction = self.penalty.gradient(-dx if self.targeted else dx)
        return Crafted([perturb(x, direction, size, limits) for size in phi], zeros=(dx == 0).sum())


R1, R2 = Noise(L1), Noise(L2)
NOISES = {"r1": R1, "r2": R2}


@dataclass(frozen=True)
class PGD:
    """Projected gradient descent (Madry et al. 2018): `steps` steepest steps within a ball of radius phi.

    An end point that fools the net is kept, else the one of the highest loss: that of y, or less that of y if targeted.

    Arguments:
        norm: "linf" or "l2".
        steps: How many.
        restarts: The first starts at the image itself; each other one at a random point of the ball, for the images
            that do not fool the net yet.
        stride: The size of a step as a share of phi; by default 2.5 / steps.
        clip: Whether pixels stay within the box of the data.
        targeted: Whether the net is to predict y, not to leave it.
    """

    norm: str = "linf"
    steps: int = 40
    restarts: int = 1
    stride: float | None = None
    clip: bool = True
    targeted: bool = False

    def __post_init__(self) -> None:
        check_settings(self, "steps", "restarts")
        if self.stride is not None and not 0 < self.stride < np.inf:
            raise NnliteError(f"stride: expected a finite number above 0, found {self.stride}")

    @property
    def share(self) -> float:
        """The size of a step as a share of phi."""
        return 2.5 / self.steps if self.stride is None else float(self.stride)

    def craft(self, net: Network, x: Array, y: Array, phi: Sequence[float], rng: Generator, box: Box = UNIT) -> Crafted:
        """Return the end point that is kept of each image for each phi; the same random starts, scaled, serve all."""
        limits = check_batch(net, x, y, box if self.clip else None)
        starts = [in_unit_ball(self.norm, x, rng) for _ in range(self.restarts - 1)]
        return Crafted([self._best(net, x, y, size, starts, limits) if size else x for size in map(float, phi)])

    def _best(self, net: Network, x: Array, y: Array, radius: float, starts: Sequence[Array], box: Box | None) -> Array:
        xp = get_xp(x)
        best, loss, fooled = self._end(net, x, x, y, radius, box)
        for start in starts:
            rows = xp.flatnonzero(~fooled.reshape(-1, fooled.shape[-1]).all(axis=0))
            if not rows.size:
                break
            centre, limits = x[..., rows, :], box and box.take(rows)
            begin = project(centre + radius * start[..., rows, :], centre, radius, self.norm, limits)
            again = self._end(net, centre, begin, y[..., rows], radius, limits)
            better = ~fooled[..., rows] & (again[2] | (again[1] > loss[..., rows]))
            best[..., rows, :] = xp.where(better[..., None], again[0], best[..., rows, :])
            loss[..., rows] = xp.where(better, again[1], loss[..., rows])
            fooled[..., rows] |= again[2]
        return best

    def climb(
        self, gradient: Callable[[Array], Array], x: Array, start: Array, radius: Number, box: Box | None
    ) -> Array:
        """Return the end point (..., N, D) of all steps, which lead down if targeted.

        Arguments:
            gradient: What is climbed: a point (..., N, D) -> the derivative there.
            x: The centre of the ball, (..., N, D).
            start: Where the first gradient is taken, (..., N, D).
            radius: Above 0; a number, or one for each model, (S, 1, 1).
            box: What pixels may not leave, or None.
        """
        stride, point = radius * (-self.share if self.targeted else self.share), start
        for _ in range(self.steps):
            moved = STEEPEST[self.norm](gradient(point))
            moved *= stride  # in place: the array is our own, and the time of an attack goes into arrays like it
            moved += point
            point = project(moved, x, radius, self.norm, box, out=moved)
        return point

    def _end(
        self, net: Network, x: Array, start: Array, y: Array, radius: float, box: Box | None
    ) -> tuple[Array, Array, Array]:
        """Return the end point of all steps from `start`, the loss that it climbed, and whether it fools the net."""
        point = self.climb(lambda at: net.backward(net.forward(at), y).dx, x, start, radius, box)
        logits = net.logits(point)
        loss, _ = softmax_cross_entropy(logits, y)
        return point, -loss if self.targeted else loss, (logits.argmax(axis=-1) == y) == self.targeted


def input_gradient(net: Network, x: Array, y: Array, loss: Loss = softmax_cross_entropy) -> Array:
    """Return J (..., N, D), each example's own dloss/dx at x (..., N, D); no weight gradient is formed."""
    return net.run(x, y, loss=loss).dx


def perturb(x: Array, direction: Array, phi: Number, box: Box | None = None) -> Array:
    """Return x + phi direction, moved into the box if there is one."""
    moved = x + per_model(phi, direction) * direction
    return moved if box is None else box.clip(moved)


def project(
    point: Array, x: Array, radius: Number, norm: str, box: Box | None = None, *, out: Array | None = None
) -> Array:
    """Return `point` moved into the ball around x, and into the box if there is one.

    Arguments:
        point: (..., N, D).
        x: The centre of the ball, (..., N, D), within the box.
        radius: Above 0; a number of any kind, or one for each model, (S, 1, 1).
        norm: "linf" or "l2".
        box: What pixels may not leave, like x, or None.
        out: Where to write the result; it may be `point` itself.
    """
    xp = get_xp(point, x)
    if norm == "l2" and box is not None:  # into the box first: what lies beyond would use up the radius
        point = box.clip(point, out=out)
    moved = xp.subtract(point, x, out=out)
    radius = per_model(radius, moved)
    if norm == "linf":
        moved.clip(-radius, radius, out=moved)
    else:
        # not by the radius alone, as one that rounds to 0 would make it 0 / 0 where nothing has moved
        least = float(np.finfo(moved.dtype).tiny)
        moved *= radius / xp.maximum(L2_NORM.value(moved)[..., None], radius).clip(least, None)
    moved += x
    return moved if box is None else box.clip(moved, out=moved)


def check_batch(net: Network, x: Array, y: Array, box: Box | None) -> Box | None:
    """Return the box like x; NnliteError where images or labels do not fit the net, or images the box."""
    check_images(x, net.features)
    if net.stacked and x.shape[:-2] not in ((), net.stacked):
        raise NnliteError(f"x: expected images (N, {x.shape[-1]}), or stacked as the net is, found {x.shape}")
    net.check_labels(x, y)
    box = box and box.like(x)
    if box is not None and x.size and not float(to_host(box.beyond(x))) <= 0:  # so that NaN fails, too
        found = f"found {x.min():g} to {x.max():g}"
        raise NnliteError(f"x: expected pixels within {box}, {found}; give the Box of your data, or clip=False")
    return box


def in_unit_ball(norm: str, like: Array, rng: Generator) -> Array:
    """Return a point of the unit ball for each example, of the shape of `like` (..., N, D) and on its device.

    Points are uniform, and drawn on the host; norm is "linf" or "l2".
    """
    drawn = rng.uniform(-1, 1, like.shape) if norm == "linf" else rng.standard_normal(like.shape)
    if norm == "l2":
        drawn /= np.linalg.norm(drawn, axis=-1, keepdims=True)
        drawn *= rng.random((*like.shape[:-1], 1)) ** (1 / like.shape[-1])
    return get_xp(like).asarray(drawn.astype(like.dtype))


def check_settings(attack: Any, *counts: str) -> None:
    """Check the norm of an attack, and make these counts of it ints; NnliteError where one is not what it must be."""
    if attack.norm not in NORMS:
        raise NnliteError(f"norm: expected one of {', '.join(NORMS)}, found {attack.norm!r}")
    for name in counts:
        object.__setattr__(attack, name, check_count(name, getattr(attack, name)))


def check_count(name: str, number: Any, least: int = 1) -> int:
    """Return `number`, an integer of any kind, as an int; NnliteError unless it is one, of at least `least`."""
    if isinstance(number, bool) or not isinstance(number, Integral) or number < least:
        raise NnliteError(f"{name}: expected an integer of at least {least}, found {number}")
    return int(number)
