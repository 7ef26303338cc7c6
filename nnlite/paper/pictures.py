"""The paper's figures, drawn from Scores: curves against phi, and digits under growing noise.

A method keeps its marker in every panel; its multi-task net has an open marker and a dashed line.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from nnlite.evaluation.pictures import COLOURS, MARKERS, PHI_AXIS, blank_axes, draw_image, drawing, dress
from nnlite.paper.scores import Percent, Scores
from nnlite.paper.tables import FIGURE_3, PHI, Model, best_of_families

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Curves: TypeAlias = Mapping[Model, Percent]  # each (phi,), means over the seeds
Digits: TypeAlias = Mapping[Model, npt.NDArray[np.floating]]  # images (n, phi, D) under the model's own noise


def draw_figures(scores: Scores, digits: Digits, folder: Path) -> list[int]:
    """Draw the figures that there are scores for as figureN.png and figureN.svg, and return their numbers.

    Figure 1 has the best model of each family with R2 scores, as its own adversary; Figure 2 the best model of each
    family under Rect's and MT's noise; Figure 3 the models that have digits, with D a square.
    """
    own, rect, mt = best_of_families(scores.self_attacked("r2")), Model("Rect"), Model("MT")
    panels = {
        1: {
            "(a) R1 noise from the model itself": _curves(scores, "r1", own),
            "(b) R2 noise from the model itself": _curves(scores, "r2", own),
        },
        2: {
            "(a) Rect is the adversary": _curves(scores, "r1", best_of_families(scores.victims(rect)), rect),
            "(b) MT is the adversary": _curves(scores, "r1", best_of_families(scores.victims(mt)), mt),
        },
    }
    drawings: dict[int, Callable[[Path], object]] = {}
    for number, curves in panels.items():
        if drawn := {title: models for title, models in curves.items() if models}:
            drawings[number] = partial(plot_panels, drawn)
    if shown := _curves(scores, "r1", [model for model in FIGURE_3 if model in digits]):
        drawings[3] = partial(plot_digits, digits, shown)
    for number, draw in drawings.items():
        for ending in ("png", "svg"):
            draw(folder / f"figure{number}.{ending}")
    return list(drawings)


def plot_panels(panels: Mapping[str, Curves], path: Path | str | None = None) -> "Figure":
    """Draw accuracy against phi in panels side by side, each below its title, with one legend for all of them.

    A panel in which all accuracies are high starts its axis just below them, and says so.
    """
    handles: dict[str, Artist] = {}
    with drawing(4.6 * len(panels) + 2.4, 4.2, path) as figure:
        for axes, (title, curves) in zip(
            figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True
        ):
            for model, accuracy in curves.items():
                handles.setdefault(model.label, _draw_curve(axes, model, accuracy))
            lowest = min(float(accuracy.min()) for accuracy in curves.values())
            bottom = 0 if lowest < 75 else 5 * math.floor((lowest - 1) / 5)
            cut = f"\n(the axis starts at {bottom} %)" if bottom else ""
            axes.set(xlabel=PHI_AXIS, ylim=(bottom - (100 - bottom) / 50, 100 + (100 - bottom) / 50))
            axes.set_ylabel(f"accuracy in %{cut}")
            dress(axes, title)
        figure.tight_layout(w_pad=2)
        figure.legend(list(handles.values()), list(handles), frameon=False, loc="center left", bbox_to_anchor=(1, 0.55))
    return figure


def plot_digits(digits: Digits, accuracies: Curves, path: Path | str | None = None) -> "Figure":
    """Draw a row of pictures for each model of `accuracies`, with a column for each phi and the accuracy below.

    A picture holds all n digits, five in a line. Pixels outside [0, 1] are shown as 0 or 1.
    """
    tiles = {model: [_montage(digits[model][:, column]) for column in range(len(PHI))] for model in accuracies}
    first = next(iter(tiles.values()))[0]
    height = first.shape[0] / first.shape[1]
    block, left, top = height + 0.24, 0.72, 0.24
    with drawing(1.9 * (len(PHI) + left), 1.9 * (block * len(tiles) + top), path) as figure:
        axes = blank_axes(figure, -left, len(PHI), block * len(tiles), -top)
        for column, size in enumerate(PHI):
            axes.text(column + 0.5, -0.12, f"φ = {size:g}", ha="center", va="center", fontsize=12)
        for row, (model, accuracy) in enumerate(accuracies.items()):
            y, label = row * block, model.label.replace(" λ", "\nλ").replace(" φ", "\nφ")
            style: dict[str, Any] = {"fontsize": 11, "color": COLOURS[model.reg], "fontweight": "bold"}
            axes.text(-0.06, y + height / 2, label, ha="right", va="center", **style)
            for column, percent in enumerate(accuracy):
                draw_image(axes, tiles[model][column], column, y, height)
                axes.text(column + 0.5, y + height + 0.08, f"{percent:.2f} %", ha="center", va="center", fontsize=11)
    return figure


def _curves(
    scores: Scores, noise: str, victims: Iterable[Model], adversary: Model | None = None
) -> dict[Model, Percent]:
    """Return the mean accuracies of the victims that were scored, each under its own noise without an adversary."""
    keys = {victim: (adversary or victim, noise, victim) for victim in victims}
    return {victim: scores.values[key].mean(axis=0) for victim, key in keys.items() if key in scores.values}


def _draw_curve(axes: "Axes", model: Model, accuracy: Percent) -> "Artist":
    colour = COLOURS[model.reg]
    (handle,) = axes.plot(
        PHI,
        accuracy,
        color=colour,
        linestyle="--" if model.multitask else "-",
        marker=MARKERS[list(COLOURS).index(model.reg)],
        markersize=6,
        markerfacecolor="white" if model.multitask else colour,
        clip_on=False,
    )
    return handle


def _montage(images: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Return square images (n, D) as one picture, five in a line, with a white pixel between them."""
    columns, side = min(len(images), 5), math.isqrt(images.shape[-1])
    lines = math.ceil(len(images) / columns)
    picture = np.zeros((lines * (side + 1) + 1, columns * (side + 1) + 1))
    for k, image in enumerate(images):
        y, x = 1 + k // columns * (side + 1), 1 + k % columns * (side + 1)
        picture[y : y + side, x : x + side] = image.reshape(side, side)
    return picture
