"""Auto-PGD: projected gradient descent that sets its own stride (Croce and Hein 2020), towards one loss after another.

No fixed stride suits every image: the one that breaks this image steps over what would break the next. Here each search
begins with strides of twice the radius, and halves them where the loss no longer rises. Nor does one loss find
everything: the cross-entropy pulls towards all wrong classes at once, a margin z_t - z_y towards one. So after the
cross-entropy each wrong class has its turn, the likeliest first, on the images that nothing has broken before. And a
net trained on single steps may have learned to withstand just what its gradient at the image points to.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from nnlite.attacks import STEEPEST, Crafted, check_count, in_unit_ball, input_gradient, project
from nnlite.backend import Array, get_xp
from nnlite.errors import NnliteError
from nnlite.losses import Loss, margin, softmax_cross_entropy, targeted_margin
from nnlite.network import Network

LOSSES = {"ce": softmax_cross_entropy, "margin": margin, "targets": targeted_margin}
MOMENTUM = 0.75  # alpha of the paper: the share of the step just taken; that of the last one has the rest
RISES = 0.75  # rho of the paper: where fewer of the steps since the last checkpoint raised the loss, strides are halved


@dataclass(frozen=True)
class APGD:
    """Auto-PGD in a ball of radius phi, on each loss from each start, for the images that are still correct.

    A misclassified point on the way ends the search for its image. The largest radius is tried on every image, each
    smaller one on what fell at the one before: what stands in a ball stands in every smaller one.

    Arguments:
        norm: "linf" or "l2".
        steps: How many, from each start on each loss.
        restarts: How many starts "ce" and "margin" have: the image itself, the far side of the ball against its
            gradient, then random points. Each class of "targets" has the first alone.
        losses: Of LOSSES, in order: "ce", the cross-entropy; "margin", z_t - z_y of the wrong class t that is likeliest
            at each point; "targets", z_t - z_y of each wrong class t in turn.
        clip: Whether pixels stay within [0, 1].
    """

    norm: str = "linf"
    steps: int = 70
    restarts: int = 4
    losses: tuple[str, ...] = ("ce", "targets")
    clip: bool = True

    def __post_init__(self) -> None:
        if self.norm not in STEEPEST:
            raise NnliteError(f"norm: expected one of {', '.join(STEEPEST)}, found {self.norm!r}")
        if not self.losses or not set(self.losses) <= set(LOSSES):
            raise NnliteError(f"losses: expected one or more of {', '.join(LOSSES)}, found {self.losses!r}")
        for name in ("steps", "restarts"):
            object.__setattr__(self, name, check_count(name, getattr(self, name)))

    def craft(self, net: Network, x: Array, y: Array, phi: Sequence[float], rng: np.random.Generator) -> Crafted:
        """Return for each phi a misclassified image, or else the one of the highest value of the first loss."""
        xp = get_xp(x)
        logits = net.logits(x)
        left = logits.argmax(axis=-1) == y
        away = STEEPEST[self.norm](-input_gradient(net, x, y))  # where the gradient at the image misleads, it counts
        searches = self._searches(logits, y, [xp.zeros_like(x), away], lambda: in_unit_ball(self.norm, x, rng))
        point, images = xp.broadcast_to(x, (*left.shape, x.shape[-1])), {0.0: x}
        for radius in sorted({float(size) for size in phi if size}, reverse=True):
            images[radius] = point = project(point, x, radius, self.norm, clip=self.clip)
            broken = xp.zeros_like(left)
            for number, (loss, against, start) in enumerate(searches):
                tried = left & ~broken
                rows = xp.flatnonzero(tried.reshape(-1, tried.shape[-1]).any(axis=0))
                if not rows.size:
                    break
                centre, old, tried = x[..., rows, :], point[..., rows, :], tried[..., rows]
                begin = xp.broadcast_to(centre + radius * start[..., rows, :], old.shape)
                found, hit = self._climb(net, loss, centre, begin, y[..., rows, None], against[..., rows, :], radius)
                point[..., rows, :] = xp.where((tried & (hit | (number == 0)))[..., None], found, old)
                broken[..., rows] |= tried & hit
            left = broken
        return Crafted([images[float(size)] for size in phi])

    def _searches(
        self, logits: Array, y: Array, first: Sequence[Array], draw: Callable[[], Array]
    ) -> list[tuple[Loss, Array, Array]]:
        """Return each search: its loss, what that is taken against, and where in the unit ball it starts.

        A loss is taken against labels (..., N, 1), or pairs of y and t (..., N, 2).
        """
        xp, found = get_xp(logits, y), []
        classes = xp.arange(logits.shape[-1])
        wrong = xp.where(y[..., None] == classes, np.inf, -logits).argsort(axis=-1)  # the likeliest first, y last
        y = xp.broadcast_to(y, logits.shape[:-1])
        for name in self.losses:
            if name == "targets":
                pairs = (xp.stack([y, wrong[..., k]], axis=-1) for k in range(len(classes) - 1))
                found += [(LOSSES[name], pair, first[0]) for pair in pairs]
            else:
                starts = [*first, *(draw() for _ in range(self.restarts - len(first)))]
                found += [(LOSSES[name], y[..., None], start) for start in starts[: self.restarts]]
        return found

    def _climb(
        self, net: Network, loss: Loss, x: Array, start: Array, y: Array, against: Array, radius: float
    ) -> tuple[Array, Array]:
        """Return from each start the first misclassified point, else that of the highest loss, and which of the two."""
        xp = get_xp(x)
        at = _look(net, loss, project(start, x, radius, self.norm, clip=self.clip), y, against)
        full, none = xp.full_like(at.loss, 2 * radius), xp.zeros_like(at.loss)
        now = _Search(x, y, against, at, at, at.point, full, at.loss, none, at.fooled & False)
        found, hit = at.point.copy(), at.fooled[..., 0].copy()
        rows, checked, checks = xp.arange(x.shape[-2]), 0, _checks(self.steps)
        for step in range(1, self.steps + 1):
            moved = self._moved(now, radius, MOMENTUM if step > 1 else 1)
            at = _look(net, loss, moved, now.y, now.against)
            rises = now.rises + (at.loss > now.at.loss)
            now = now._replace(at=at, best=at.over(now.best), before=now.at.point, rises=rises)
            if step in checks:
                now, checked = now.checked(step - checked), step
            done = now.best.fooled[..., 0].reshape(-1, rows.size).all(axis=0)
            left = xp.flatnonzero(~done)
            if left.size < 0.75 * rows.size or step == self.steps:  # to drop rows copies the others
                found[..., rows, :], hit[..., rows] = now.best.point, now.best.fooled[..., 0]
                if not left.size:
                    break
                now, rows = now.take(left), rows[left]
        return found, hit

    def _moved(self, now: "_Search", radius: float, momentum: float) -> Array:
        """Return the next points: a step of each stride along the gradient, beside a share of the step before."""
        moved = STEEPEST[self.norm](now.at.dx)
        moved *= now.stride
        moved += now.at.point
        project(moved, now.x, radius, self.norm, clip=self.clip, out=moved)
        moved *= momentum
        moved += (1 - momentum) * (2 * now.at.point - now.before)
        return project(moved, now.x, radius, self.norm, clip=self.clip, out=moved)


class _Look(NamedTuple):
    """N points (..., N, D), and what the net says there: dloss/dx, the loss and whether it is wrong (..., N, 1)."""

    point: Array
    dx: Array
    loss: Array
    fooled: Array

    def over(self, best: "_Look") -> "_Look":
        """Return these points where they are better than `best`: of a higher loss, or the first misclassified one."""
        return _chosen(~best.fooled & (self.fooled | (self.loss > best.loss)), self, best)


class _Search(NamedTuple):
    """Where N searches are.

    Arguments:
        x: The centres of the balls, (..., N, D).
        y: The true classes, (..., N, 1).
        against: What the loss is taken against, (..., N, 1 or 2).
        at: Where each search is.
        best: The best point that it has seen.
        before: Where it was before this step, (..., N, D).
        stride: (..., N, 1).
        best_loss: That of the best point at the last checkpoint, (..., N, 1).
        rises: How many steps since then have raised the loss, (..., N, 1).
        halved: Whether the stride was halved then, (..., N, 1).
    """

    x: Array
    y: Array
    against: Array
    at: _Look
    best: _Look
    before: Array
    stride: Array
    best_loss: Array
    rises: Array
    halved: Array

    def checked(self, steps: int) -> "_Search":
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

    def take(self, rows: Array) -> "_Search":
        """Return the searches of these rows."""
        parts: Any = (_Look(*(a[..., rows, :] for a in p)) if isinstance(p, _Look) else p[..., rows, :] for p in self)
        return _Search(*parts)


def _look(net: Network, loss: Loss, point: Array, y: Array, against: Array) -> _Look:
    seen = net.run(point, against if against.shape[-1] > 1 else against[..., 0], loss=loss)
    return _Look(point, seen.dx, seen.loss[..., None], seen.logits.argmax(axis=-1)[..., None] != y)


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
