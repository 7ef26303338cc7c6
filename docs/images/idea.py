"""Draw the idea of DataGrad with the numbers of a real net: the README's diagram.

    python docs/images/idea.py

writes idea.svg beside this file, as `make idea` does.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnlite import L1, Network, Pass
from nnlite.datasets.catalog import load
from nnlite.evaluation.pictures import blank_axes, drawing
from nnlite.training.loop import train
from nnlite.training.settings import Settings

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Pixels = npt.NDArray[np.floating]

LAM, PHI = 0.01, 0.1  # the paper's
IMAGE = 474  # of the test images: a 2
FORWARD, BACKWARD, QUIET = "#333333", "#C4500A", "#666666"


@dataclass(frozen=True, eq=False)
class Idea:
    """One step of DataGrad-L1 on one image d, (1, D): two passes, and the mix of their weight gradients.

    Arguments:
        net: The net that takes it.
        clean: The pass at d; its dx is J.
        sign: y = sign(J), the gradient of the L1 penalty, (1, D).
        shifted: The pass at d + phi y.
        unit: The hidden unit of the first layer whose weights are shown.
        gradients: Of all first-layer weights, (D, units): at d, at d + phi y, and mixed.
    """

    net: Network
    clean: Pass
    sign: Pixels
    shifted: Pass
    unit: int
    gradients: tuple[Pixels, Pixels, Pixels]


def idea() -> Idea:
    """Train a small net on the digits, and take one step of DataGrad-L1 on one image."""
    data = load("digits")
    net = train(Settings(hidden=(100, 100)), data).net
    d, label = data.test.batch(slice(IMAGE, IMAGE + 1))
    clean = net.run(d, label)
    sign = L1.gradient(clean.dx)
    shifted = net.run(d + PHI * sign, label)
    ratio = LAM / PHI
    mix = [(1 - ratio, clean), (ratio, shifted)]
    gradients = tuple(_first_layer(net, passes) for passes in ([(1.0, clean)], [(1.0, shifted)], mix))
    unit = int(np.argmax(abs(gradients[2]).sum(axis=0)))
    return Idea(net, clean, sign, shifted, unit, gradients)


def _first_layer(net: Network, passes: list[Any]) -> Pixels:
    return next(iter(net.gradients(passes)))["W"]


def draw(step: Idea, path: Path) -> None:
    """Draw the step as a diagram, as the kind of file that `path` names: forward in grey, backward in orange."""
    with drawing(9.6, 6.2, path) as figure:
        import matplotlib

        matplotlib.rcParams.update({"font.family": "STIXGeneral", "mathtext.fontset": "stix", "font.size": 13})
        axes = blank_axes(figure, -1.1, 14.4, 9.2, -0.75)
        _row(axes, 0, step.clean, "1", "a clean pass", "$d$")
        _row(axes, 6.4, step.shifted, "3", "a second pass", r"$\hat{d} = d + \varphi\,y$")
        _arrow(axes, [(6.2, 2.0), (6.2, 3.1)], BACKWARD)
        axes.text(6.35, 2.5, "to the inputs", color=BACKWARD, fontsize=11, va="center")
        _signed(axes, step.clean.dx, 5.2, 3.2, r"$J = \partial L/\partial d$")
        _arrow(axes, [(5.1, 4.2), (2.1, 4.2)], BACKWARD)
        _signed(axes, step.sign, 0, 3.2, r"$y = \operatorname{sign}\,J$")
        _heading(axes, 0, 2.85, "2", "the sign of the input gradient")
        _arrow(axes, [(-0.1, 1), (-0.9, 1), (-0.9, 7.4), (-0.1, 7.4)], FORWARD)
        axes.plot([-0.1, -0.9], [4.2, 4.2], color=FORWARD, linewidth=1.4)
        axes.text(-0.5, 4.05, r"$\times\,\varphi$", ha="center", va="bottom")
        at_d, at_d_hat, mix = (gradient[:, step.unit] for gradient in step.gradients)
        _signed(axes, at_d, 8.4, 0, r"$\partial L/\partial w$ at $d$", sized=True)
        _signed(axes, at_d_hat, 8.4, 6.4, r"$\partial L/\partial w$ at $\hat{d}$", sized=True)
        _arrow(axes, [(10.5, 1), (11.2, 1), (11.2, 3.9), (12.1, 3.9)], BACKWARD)
        _arrow(axes, [(10.5, 7.4), (11.2, 7.4), (11.2, 4.5), (12.1, 4.5)], BACKWARD)
        axes.text(11.4, 1.6, rf"$\times\;(1 - \lambda/\varphi) = {1 - LAM / PHI:g}$", va="center")
        axes.text(11.4, 6.8, rf"$\times\;\lambda/\varphi = {LAM / PHI:g}$", va="center")
        _heading(axes, 12.2, 2.85, "4", "the mix")
        _signed(axes, mix, 12.2, 3.2, "the update", sized=True)


def _row(axes: "Axes", top: float, one: Pass, number: str, title: str, name: str) -> None:
    """Draw a pass: the image, the net, what it reads there, and the way back to the weights."""
    middle = top + 1
    _heading(axes, 0, top - 0.35, number, title)
    _pixels(axes, one.inputs[0], 0, top, name, "gray_r", -PHI, 1 + PHI)
    _arrow(axes, [(2.1, middle), (2.65, middle)], FORWARD)
    _net(axes, 2.85, middle)
    _arrow(axes, [(4.65, middle), (5.2, middle)], FORWARD)
    z = one.logits[0] - one.logits[0].max()
    p = np.exp(z) / np.exp(z).sum()
    said = f"reads {p.argmax()}\n({100 * p.max():.1f} %)\n$L$ = {one.loss[0]:.3f}"
    axes.text(6.2, middle, said, ha="center", va="center", linespacing=1.35)
    _arrow(axes, [(7.2, middle), (8.3, middle)], BACKWARD)
    axes.text(7.7, middle - 0.15, "to the\nweights", ha="center", va="bottom", color=BACKWARD, fontsize=11)


def _heading(axes: "Axes", x: float, y: float, number: str, title: str) -> None:
    box = {"boxstyle": "circle,pad=0.2", "facecolor": FORWARD, "edgecolor": "none"}
    axes.text(x + 0.12, y, number, fontsize=12, fontweight="bold", color="white", va="center", ha="center", bbox=box)
    axes.text(x + 0.42, y, title, fontsize=14, fontweight="bold", va="center")


def _signed(axes: "Axes", a: Pixels, left: float, top: float, name: str, sized: bool = False) -> None:
    """Draw numbers of both signs on a scale of their own; its end is written below them where `sized`."""
    largest = float(abs(a).max())
    _pixels(axes, a, left, top, name, "PuOr_r", -1.25 * largest, 1.25 * largest)
    if sized:
        axes.text(left + 1, top + 2.68, f"largest {largest:.2g}", ha="center", va="center", fontsize=11, color=QUIET)


def _pixels(axes: "Axes", a: Pixels, left: float, top: float, name: str, colours: str, low: float, high: float) -> None:
    x, y = left + np.linspace(0, 2, 9), top + np.linspace(0, 2, 9)
    axes.pcolormesh(x, y, a.reshape(8, 8), cmap=colours, vmin=low, vmax=high, edgecolors="face", linewidth=0.2)
    axes.plot(x[[0, -1, -1, 0, 0]], y[[0, 0, -1, -1, 0]], color="0.3", linewidth=0.7)
    axes.text(left + 1, top + 2.3, name, ha="center", va="center")


def _net(axes: "Axes", left: float, middle: float) -> None:
    layers = [
        np.stack([np.full(n, left + 0.1 + 0.75 * k), middle + 0.42 * (np.arange(n) - (n - 1) / 2)], axis=1)
        for k, n in enumerate((4, 5, 3))
    ]
    for before, after in pairwise(layers):
        ends = [point for one in before for other in after for point in (one, other, (np.nan, np.nan))]
        axes.plot(*np.transpose(ends), color="0.75", linewidth=0.6, zorder=1)
    for layer in layers:
        axes.plot(*layer.T, "o", color="white", markeredgecolor=FORWARD, markersize=7)
    axes.text(left + 0.85, middle + 1.3, "weights $w$", ha="center", va="center")


def _arrow(axes: "Axes", points: list[tuple[float, float]], colour: str) -> None:
    axes.plot(*np.transpose(points[:-1]), color=colour, linewidth=1.4, solid_capstyle="butt")
    look = {"arrowstyle": "-|>", "color": colour, "linewidth": 1.4, "shrinkA": 0, "shrinkB": 0}
    axes.annotate("", points[-1], points[-2], arrowprops=look)


if __name__ == "__main__":
    draw(idea(), Path(__file__).with_suffix(".svg"))
