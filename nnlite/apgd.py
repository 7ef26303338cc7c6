"""Auto-PGD: projected gradient descent that sets its own stride (Croce and Hein 2020), from many starts.

No fixed stride suits every image: the one that breaks this image steps over what would break the next. Here each search
begins with strides of twice the radius, and halves them where the loss no longer rises. Nor does one start find
everything: a net trained on single steps may have learned to withstand just what its gradient at the image points to.
To a net, random points of the ball look nearly alike, because their noise cancels out. So a start is the far side of
the ball along the gradient of a random mixture of the logits (Tashiro et al. 2020, arXiv:2003.06878). And where the
cross-entropy is flat the margin is not, so the losses take turns.

Most images that withstand one search are far from every border, and more searches tell nothing new of them. So one
search with each loss is followed to its end, and any other only while it may still get there by what those gained.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from operator import attrgetter
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
AT_ONCE = 500  # images that searches are made of side by side: few take as long as many, and most are soon given up
LOOKS = 1 / 16, 1 / 8, 1 / 4, 1 / 2  # after which shares of its steps a search may be given up
HOPE = 1.5  # how many times what those followed to their ends gained from there on, at most, it may hope for
RISES = 0.75  # rho of the paper: where fewer of the steps since the last checkpoint raised the loss, strides are halved


@dataclass(frozen=True)
class APGD:
    """Auto-PGD in a ball of radius phi, on each loss from each start, for the images that do not fool the net yet.

    A point on the way that does ends the search for its image. The largest radius is tried on every image, each
    smaller one on what fell at the one before: what stands in a ball stands in every smaller one.

    The first search on "ce", the first on "margin" and all on "targets" are followed to their ends. Another one is
    given up at LOOKS where z_t - z_y of the likeliest wrong class t is further below 0 than HOPE would make good.

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
    restarts: int = 30
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
            ball = _Ball(x, radius, limits)
            images[radius] = point = self._into(ball, point)
            left = self._search(net, searches, ball, point, left)
        return Crafted([images[float(size)] for size in phi])

    def _search(self, net: Network, searches: Sequence["_Search"], ball: "_Ball", point: Array, left: Array) -> Array:
        """Search the balls that are left (..., N), put what is kept into `point` (..., N, D), and return what fell."""
        xp, broken, number = get_xp(point), get_xp(point).zeros_like(left), 0
        least = xp.zeros((len(_looks(self.steps)), *left.shape, 1), point.dtype)
        while number < len(searches):
            rows = xp.flatnonzero((left & ~broken).reshape(-1, left.shape[-1]).any(axis=0))
            if not rows.size:
                break
            _, alike = next(groupby(searches[number:], attrgetter("loss", "steps", "whole")))
            wave = [*islice(alike, max(1, AT_ONCE // rows.size))]
            places = xp.tile(rows, len(wave))
            bar = least[..., places, :]
            found, hit, gain = self._climb(net, _beside(wave, rows), ball.take(places), bar)
            if wave[0].whole:
                least[..., places, :] = xp.minimum(bar, -HOPE * gain)
            for k in range(len(wave)):
                part, tried = slice(k * rows.size, (k + 1) * rows.size), (left & ~broken)[..., rows]
                kept = tried & (hit[..., part] | (number + k == 0))
                point[..., rows, :] = xp.where(kept[..., None], found[..., part, :], point[..., rows, :])
                broken[..., rows] |= tried & hit[..., part]
            number += len(wave)
        return broken

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
            mixtures = [still, away, *map(xp.asarray, drawn)][: self.restarts]
            turns = [(loss, mixtures[k :: len(plain)]) for k, loss in enumerate(plain)]
            for some, whole in ((slice(0, 1), True), (slice(1, None), False)):
                for loss, own in turns:
                    found += [_Search(loss, y[..., None], mixture, self.steps, whole) for mixture in own[some]]
            if self.restarts > 1:
                towards = (classes[pair[..., 1]] - classes[pair[..., 0]] for pair in pairs)
                found[1:1] = [_Search(plain[0], y[..., None], mixture, 0, False) for mixture in towards]
        if "targets" in self.losses:
            found += [_Search(targeted_margin, pair, still, self.steps, True) for pair in pairs]
        return found

    def _climb(self, net: Network, search: "_Search", ball: "_Ball", least: Array) -> tuple[Array, Array, Array]:
        """Return for each ball the first point that fools the net, else that of the highest loss, and which it is.

        And what its margin gained from each look to the end; a search that is not whole ends below `least` there.
        """
        xp, rise = get_xp(ball.x), net.backward(net.forward(ball.x), search.mixture, loss=MIXTURE).dx
        start = ball.x + ball.radius * STEEPEST[self.norm](-rise if self.targeted else rise)
        at = self._look(net, search.loss, self._into(ball, start), search.against)
        full, none = xp.full_like(at.loss, 2 * ball.radius), xp.zeros_like(at.loss)
        now = _State(ball, search.against, at, at, at.point, full, at.loss, none, at.fooled & False, at.fooled)
        found, hit, margins, last = at.point.copy(), at.fooled[..., 0].copy(), xp.zeros_like(least), none.copy()
        rows, checked, checks, looks = xp.arange(ball.x.shape[-2]), 0, _checks(search.steps), _looks(search.steps)
        for step in range(1, search.steps + 1):
            moved = self._moved(now, MOMENTUM if step > 1 else 1)
            at = self._look(net, search.loss, moved, now.against)
            rises = now.rises + (at.loss > now.at.loss)
            best = at.over(now.best, now.ended)
            now = now._replace(at=at, best=best, before=now.at.point, rises=rises, ended=now.ended | at.fooled)
            if step in looks:
                k = looks.index(step)
                margins[k][..., rows, :] = reached = self._margin(now)
                if not search.whole:
                    now = now._replace(ended=now.ended | (reached < least[k][..., rows, :]))
            if step in checks:
                now, checked = now.checked(step - checked), step
            done = now.ended[..., 0].reshape(-1, rows.size).all(axis=0)
            left = xp.flatnonzero(~done)
            if left.size < 0.75 * rows.size or step == search.steps:  # to drop rows copies the others
                found[..., rows, :], hit[..., rows] = now.best.point, now.best.fooled[..., 0]
                last[..., rows, :] = self._margin(now)
                if not left.size:
                    break
                now, rows = now.take(left), rows[left]
        return found, hit, last - margins

    def _look(self, net: Network, loss: Loss, point: Array, against: Array) -> "_Look":
        labels = against if against.shape[-1] > 1 else against[..., 0]
        seen = net.backward(net.forward(point), labels, loss=loss)
        rise, value = (-seen.dx, -seen.loss) if self.targeted else (seen.dx, seen.loss)
        is_y = seen.logits.argmax(axis=-1)[..., None] == against[..., :1]
        return _Look(point, rise, value[..., None], seen.logits, is_y == self.targeted)

    def _margin(self, now: "_State") -> Array:
        """Return z_t - z_y at the best points (..., N, 1), with t the likeliest wrong class, less that if targeted."""
        over_y = margin(now.best.logits, now.against[..., 0])[0][..., None]
        return -over_y if self.targeted else over_y

    def _moved(self, now: "_State", momentum: float) -> Array:
        """Return the next points: a step of each stride along the gradient, beside a share of the step before."""
        moved = STEEPEST[self.norm](now.at.dx)
        moved *= now.stride
        moved += now.at.point
        self._into(now.ball, moved, out=moved)
        moved *= momentum
        moved += (1 - momentum) * (2 * now.at.point - now.before)
        return self._into(now.ball, moved, out=moved)

    def _into(self, ball: "_Ball", point: Array, *, out: Array | None = None) -> Array:
        return project(point, ball.x, ball.radius, self.norm, ball.box, out=out)


class _Ball(NamedTuple):
    """Those of one radius around each x (..., N, D), as far as they lie within the box, if there is one."""

    x: Array
    radius: float
    box: Box | None

    def take(self, rows: Array) -> "_Ball":
        """Return the balls of these rows."""
        return self._replace(x=self.x[..., rows, :], box=self.box and self.box.take(rows))


class _Search(NamedTuple):
    """A search from one start for each of N images.

    Arguments:
        loss: What is climbed.
        against: What it is taken against: labels (..., N, 1), or pairs of y and t (..., N, 2).
        mixture: The weights of the logits (..., N, C) along whose gradient the start lies.
        steps: How many.
        whole: Whether it is followed to its end.
    """

    loss: Loss
    against: Array
    mixture: Array
    steps: int
    whole: bool


def _beside(wave: Sequence[_Search], rows: Array) -> _Search:
    """Return one search that makes those of a wave side by side, for these rows each."""
    xp = get_xp(rows)
    against = xp.concatenate([one.against[..., rows, :] for one in wave], axis=-2)
    mixture = xp.concatenate([one.mixture[..., rows, :] for one in wave], axis=-2)
    return wave[0]._replace(against=against, mixture=mixture)


class _Look(NamedTuple):
    """N points (..., N, D), and what the net says there: dloss/dx, the loss, the logits, and whether it is fooled."""

    point: Array
    dx: Array
    loss: Array
    logits: Array
    fooled: Array

    def over(self, best: "_Look", ended: Array) -> "_Look":
        """Return these points where they are better than `best`: of a higher loss, or the first that fools the net."""
        return _chosen(~ended & (self.fooled | (self.loss > best.loss)), self, best)


class _State(NamedTuple):
    """Where N searches are.

    Arguments:
        ball: What they may not leave.
        against: What the loss is taken against, (..., N, 1 or 2), y first.
        at: Where each search is.
        best: The best point that it has seen.
        before: Where it was before this step, (..., N, D).
        stride: (..., N, 1).
        best_loss: That of the best point at the last checkpoint, (..., N, 1).
        rises: How many steps since then have raised the loss, (..., N, 1).
        halved: Whether the stride was halved then, (..., N, 1).
        ended: Whether the search has ended: the net was fooled, or there was no hope, (..., N, 1).
    """

    ball: _Ball
    against: Array
    at: _Look
    best: _Look
    before: Array
    stride: Array
    best_loss: Array
    rises: Array
    halved: Array
    ended: Array

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
            return part.take(rows) if isinstance(part, _Ball) else part[..., rows, :]

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


def _looks(steps: int) -> list[int]:
    """Return after which steps a search may be given up."""
    return sorted({math.ceil(share * steps) for share in LOOKS if steps})
