"""Auto-PGD: projected gradient descent that sets its own stride (Croce and Hein 2020), from many starts.

No fixed stride suits every image: the one that breaks this image steps over what would break the next. Here each search
begins with strides of twice the radius, and halves them where the loss no longer rises. Nor does one start find
everything: a net trained on single steps may have learned to withstand just what its gradient at the image points to.
To a net, random points of the ball look nearly alike, because their noise cancels out. So a start is the far side of
the ball along the gradient of a random mixture of the logits (Tashiro et al. 2020, arXiv:2003.06878). And where the
cross-entropy is flat the margin is not, so the losses take turns.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.random import Generator

from nnlite.attacks import STEEPEST, Crafted, check_batch, check_settings, project
from nnlite.backend import Array, get_xp
from nnlite.errors import NnliteError
from nnlite.inputs import UNIT, Box
from nnlite.losses import Loss, margin, softmax_cross_entropy, targeted_margin
from nnlite.network import Network

LOSSES = {"ce": softmax_cross_entropy, "margin": margin, "targets": targeted_margin}
MOMENTUM = 0.75  # alpha of the paper: the share of the step just taken; that of the last one has the rest
RISES = 0.75  # rho of the paper: where fewer of the steps since the last checkpoint raised the loss, strides are halved


@dataclass(frozen=True)
class APGD:
    """Auto-PGD in a ball of radius phi, on each loss from each start, for the images that do not fool the net yet.

    A point on the way that does ends the search for its image. The largest radius is tried on every image, each
    smaller one on what fell at the one before: what stands in a ball stands in every smaller one.

    Arguments:
        norm: "linf" or "l2".
        steps: How many, from each start.
        restarts: How many starts "ce" and "margin" have together: the image itself, the far side of the ball against
            its gradient, then those along mixtures of the logits. With more than one, the far side towards each wrong
            class is looked at as well, which is the worst case of a net without a ReLU.
        losses: Of LOSSES. "ce", the cross-entropy, and "margin", z_t - z_y of the wrong class t that is likeliest at
            each point, take turns from start to start; "targets" is z_t - z_y of each wrong class t, from the image.
        clip: Whether pixels stay within the box of the data.
        targeted: Whether the net is to predict y, not to leave it; then each loss is taken with the other sign.
    """

    norm: str = "linf"
    steps: int = 70
    restarts: int = 10
    losses: tuple[str, ...] = ("ce", "margin")
    clip: bool = True
    targeted: bool = False

    def __post_init__(self) -> None:
        check_settings(self, "steps", "restarts")
        if not self.losses or not set(self.losses) <= set(LOSSES):
            raise NnliteError(f"losses: expected one or more of {', '.join(LOSSES)}, found {self.losses!r}")

    def craft(self, net: Network, x: Array, y: Array, phi: Sequence[float], rng: Generator, box: Box = UNIT) -> Crafted:
        """Return for each phi an image that fools the net, or else the one of the highest value of the first loss."""
        xp, limits = get_xp(x), check_batch(net, x, y, box if self.clip else None)
        logits = net.logits(x)
        left = (logits.argmax(axis=-1) == y) != self.targeted
        searches = self._searches(logits, y, rng)
        point, images = xp.broadcast_to(x, (*left.shape, x.shape[-1])), {0.0: x}
        for radius in sorted({float(size) for size in phi if size}, reverse=True):
            images[radius] = point = project(point, x, radius, self.norm, limits)
            broken = xp.zeros_like(left)
            for number, search in enumerate(searches):
                tried = left & ~broken
                rows = xp.flatnonzero(tried.reshape(-1, tried.shape[-1]).any(axis=0))
                if not rows.size:
                    break
                own = limits and limits.take(rows)
                found, hit = self._climb(net, search.take(rows), x[..., rows, :], radius, own)
                kept = tried[..., rows] & (hit | (number == 0))
                point[..., rows, :] = xp.where(kept[..., None], found, point[..., rows, :])
                broken[..., rows] |= tried[..., rows] & hit
            left = broken
        return Crafted([images[float(size)] for size in phi])

    def _searches(self, logits: Array, y: Array, rng: Generator) -> list["_Search"]:
        """Return all searches in their order."""
        xp, found = get_xp(logits, y), []
        classes, still = xp.eye(logits.shape[-1], dtype=logits.dtype), xp.zeros_like(logits)
        wrong = xp.where(classes[y] > 0, np.inf, -logits).argsort(axis=-1)[..., :-1]  # the likeliest first
        y = xp.broadcast_to(y, logits.shape[:-1]).astype(wrong.dtype)
        pairs = [xp.stack([y, wrong[..., k]], axis=-1) for k in range(wrong.shape[-1])]
        plain = [LOSSES[name] for name in self.losses if name != "targets"]
        if plain:
            away = -softmax_cross_entropy(logits, y)[1]  # where the gradient at the image misleads, it counts
            drawn = rng.uniform(-1, 1, (max(0, self.restarts - 2), *logits.shape[-2:])).astype(logits.dtype)
            for k, mixture in enumerate([still, away, *map(xp.asarray, drawn)][: self.restarts]):
                found.append(_Search(plain[k % len(plain)], y[..., None], mixture, self.steps))
            if self.restarts > 1:
                towards = (classes[pair[..., 1]] - classes[pair[..., 0]] for pair in pairs)
                found[1:1] = [_Search(plain[0], y[..., None], mixture, 0) for mixture in towards]
        if "targets" in self.losses:
            found += [_Search(targeted_margin, pair, still, self.steps) for pair in pairs]
        return found

    def _climb(self, net: Network, search: "_Search", x: Array, radius: float, box: Box | None) -> tuple[Array, Array]:
        """Return for each x the first point that fools the net, else that of the highest loss, and which it is."""
        xp, rise = get_xp(x), net.backward(net.forward(x), search.mixture, loss=MIXTURE).dx
        start = x + radius * STEEPEST[self.norm](-rise if self.targeted else rise)
        at = self._look(net, search.loss, project(start, x, radius, self.norm, box), search.against)
        full, none = xp.full_like(at.loss, 2 * radius), xp.zeros_like(at.loss)
        now = _State(x, box, search.against, at, at, at.point, full, at.loss, none, at.fooled & False)
        found, hit = at.point.copy(), at.fooled[..., 0].copy()
        rows, checked, checks = xp.arange(x.shape[-2]), 0, _checks(search.steps)
        for step in range(1, search.steps + 1):
            moved = self._moved(now, radius, MOMENTUM if step > 1 else 1)
            at = self._look(net, search.loss, moved, now.against)
            rises = now.rises + (at.loss > now.at.loss)
            now = now._replace(at=at, best=at.over(now.best), before=now.at.point, rises=rises)
            if step in checks:
                now, checked = now.checked(step - checked), step
            done = now.best.fooled[..., 0].reshape(-1, rows.size).all(axis=0)
            left = xp.flatnonzero(~done)
            if left.size < 0.75 * rows.size or step == search.steps:  # to drop rows copies the others
                found[..., rows, :], hit[..., rows] = now.best.point, now.best.fooled[..., 0]
                if not left.size:
                    break
                now, rows = now.take(left), rows[left]
        return found, hit

    def _look(self, net: Network, loss: Loss, point: Array, against: Array) -> "_Look":
        labels = against if against.shape[-1] > 1 else against[..., 0]
        seen = net.backward(net.forward(point), labels, loss=loss)
        rise, value = (-seen.dx, -seen.loss) if self.targeted else (seen.dx, seen.loss)
        is_y = seen.logits.argmax(axis=-1)[..., None] == against[..., :1]
        return _Look(point, rise, value[..., None], is_y == self.targeted)

    def _moved(self, now: "_State", radius: float, momentum: float) -> Array:
        """Return the next points: a step of each stride along the gradient, beside a share of the step before."""
        moved = STEEPEST[self.norm](now.at.dx)
        moved *= now.stride
        moved += now.at.point
        project(moved, now.x, radius, self.norm, now.box, out=moved)
        moved *= momentum
        moved += (1 - momentum) * (2 * now.at.point - now.before)
        return project(moved, now.x, radius, self.norm, now.box, out=moved)


class _Search(NamedTuple):
    """A search from one start.

    Arguments:
        loss: What is climbed.
        against: What it is taken against: labels (..., N, 1), or pairs of y and t (..., N, 2).
        mixture: The weights of the logits (..., N, C) along whose gradient the start lies.
        steps: How many.
    """

    loss: Loss
    against: Array
    mixture: Array
    steps: int

    def take(self, rows: Array) -> "_Search":
        """Return the search of these rows."""
        return self._replace(against=self.against[..., rows, :], mixture=self.mixture[..., rows, :])


class _Look(NamedTuple):
    """N points (..., N, D), and what the net says there: dloss/dx, the loss and whether it is fooled (..., N, 1)."""

    point: Array
    dx: Array
    loss: Array
    fooled: Array

    def over(self, best: "_Look") -> "_Look":
        """Return these points where they are better than `best`: of a higher loss, or the first that fools it."""
        return _chosen(~best.fooled & (self.fooled | (self.loss > best.loss)), self, best)


class _State(NamedTuple):
    """Where N searches are.

    Arguments:
        x: The centres of the balls, (..., N, D).
        box: What pixels may not leave, or None.
        against: What the loss is taken against, (..., N, 1 or 2), y first.
        at: Where each search is.
        best: The best point that it has seen.
        before: Where it was before this step, (..., N, D).
        stride: (..., N, 1).
        best_loss: That of the best point at the last checkpoint, (..., N, 1).
        rises: How many steps since then have raised the loss, (..., N, 1).
        halved: Whether the stride was halved then, (..., N, 1).
    """

    x: Array
    box: Box | None
    against: Array
    at: _Look
    best: _Look
    before: Array
    stride: Array
    best_loss: Array
    rises: Array
    halved: Array

    def checked(self, steps: int) -> "_State":
        """Return the searches after a checkpoint, `steps` after the last: stuck ones at their best, strides halved."""
        xp = get_xp(self.stride)
        stuck = (self.rises < RISES * steps) | (~self.halved & (self.best.loss == self.best_loss))
        return self._replace(
            at=_chosen(stuck, self.best, self.at),
            stride=xp.where(stuck, self.stride / 2, self.stride),
            best_loss=self.best.loss,
            rises=xp.zeros_like(self.rises),
            halved=stuck,
        )

    def take(self, rows: Array) -> "_State":
        """Return the searches of these rows."""

        def taken(part: Any) -> Any:
            if isinstance(part, _Look):
                return _Look(*map(taken, part))
            return part and part.take(rows) if part is None or isinstance(part, Box) else part[..., rows, :]

        return _State(*map(taken, self))


def _mixture(logits: Array, w: Array) -> tuple[Array, Array]:
    """Return the sum of the logits (..., N, C), each with its own weight, and its derivative."""
    return (w * logits).sum(axis=-1), get_xp(logits, w).broadcast_to(w, logits.shape)


MIXTURE = Loss("mixture of logits", _mixture)


def _chosen(which: Array, one: _Look, other: _Look) -> _Look:
    xp = get_xp(which)
    return _Look(*(xp.where(which, *both) for both in zip(one, other, strict=True)))


def _checks(steps: int) -> set[int]:
    """Return after which steps a search looks back: 22 % of them, then 3 % sooner each time, down to every 6 %."""
    found, at, gap = set(), 22, 22
    while at <= 100:
        found.add(math.ceil(at * steps / 100))
        gap = max(gap - 3, 6)
        at += gap
    return found
