"""The paper's figures, drawn from Scores: curves against phi, and digits under growing noise.

A method keeps its marker in every panel; its multi-task net has an open marker and a dashed line.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from nnlite.evaluation.accuracy import Examples
from nnlite.evaluation.pictures import COLOURS, MARKERS, PHI_AXIS, blank_axes, draw_image, drawing, dress
from nnlite.paper.scores import EXACT, NAIVE, SQUARED, Percent, Scores
from nnlite.paper.tables import FIGURE_3, PHI, Model, best_of_families

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ALIKE = 0.5  # points that do not show in a curve

Curves: TypeAlias = Mapping[Model, Percent]  # each (phi,), means over the seeds
Digits: TypeAlias = Mapping[Model, Examples]  # under the model's own noise, with its predictions as "self"


def draw_figures(scores: Scores, digits: Digits, folder: Path) -> list[int]:
    """Draw the figures that there are scores for as figureN.png and figureN.svg, and return their numbers.

    Figure 1 has the best model of each family with R2 scores, as its own adversary; Figure 2 the best model of each
    family under Rect's and MT's noise, by the exact and by the naive error; Figure 3 the models that have digits, with
    images that are squares. Panels of the naive error are left out where they would look the same.
    """
    own, rect, mt = best_of_families(scores.self_attacked(SQUARED)), Model("Rect"), Model("MT")
    panels = {
        1: {
            "(a) R1 noise from the model itself\nexact error": _curves(scores, EXACT, own),
            "(a) R1 noise from the model itself\nnaive error, float32": _curves(scores, NAIVE, own),
            "(b) R2 noise from the model itself\nexact error": _curves(scores, SQUARED, own),
        },
        2: {
            f"({letter}) {adversary.label} is the adversary\n{name}": _curves(
                scores, noise, best_of_families(scores.victims(adversary, noise)), adversary
            )
            for noise, name in ((EXACT, "exact error"), (NAIVE, "naive error, float32"))
            for letter, adversary in (("a", rect), ("b", mt))
        },
    }
    drawings: dict[int, Callable[[Path], object]] = {}
    naive = scores.naive().values
    alike = all(np.abs(scores.values[key] - one).max() < ALIKE for key, one in naive.items() if key in scores.values)
    for number, curves in panels.items():
        if drawn := {title: models for title, models in curves.items() if models and not (alike and "naive" in title)}:
            drawings[number] = partial(plot_panels, drawn, columns=3 if number == 1 else 2)
    if shown := _curves(scores, EXACT, [model for model in FIGURE_3 if model in digits]):
        drawings[3] = partial(plot_digits, digits, shown)
    for number, draw in drawings.items():
        for ending in ("png", "svg"):
            draw(folder / f"figure{number}.{ending}")
    return list(drawings)


def plot_panels(panels: Mapping[str, Curves], path: Path | str | None = None, *, columns: int = 2) -> "Figure":
    """Draw accuracy against phi in panels, `columns` in a row, each with its title, and one legend for all of them.

    A panel in which all accuracies are high starts its axis just below them, and says so.
    """
    handles: dict[str, Artist] = {}
    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with drawing(4.6 * columns + 2.4, 4.2 * rows, path) as figure:
        places = figure.subplots(rows, columns, squeeze=False).ravel()
        for place in places[len(panels) :]:
            place.set_axis_off()
        for axes, (title, curves) in zip(places, panels.items(), strict=False):
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

    A picture holds all n digits, five in a line, and below each what the model takes it for: white on colour where that
    is wrong. Pixels outside [0, 1] are shown as 0 or 1.
    """
    count = len(next(iter(digits.values())).labels)
    columns, line = min(count, 5), 1.36  # a digit, with its prediction, in widths of a digit
    lines = math.ceil(count / columns)
    width, block, left, top = columns + 0.5, lines * line + 0.9, 0.72 * columns, 1.2
    with drawing(0.42 * (len(PHI) * width + left), 0.42 * (block * len(accuracies) + top), path) as figure:
        axes = blank_axes(figure, -left, len(PHI) * width, block * len(accuracies), -top)
        for column, size in enumerate(PHI):
            axes.text(column * width + columns / 2, -0.6, f"φ = {size:g}", ha="center", va="center", fontsize=12)
        for row, (model, accuracy) in enumerate(accuracies.items()):
            y, label = row * block, model.label.replace(" λ", "\nλ").replace(" φ", "\nφ")
            colour = COLOURS[model.reg]
            style: dict[str, Any] = {"fontsize": 11, "color": colour, "fontweight": "bold"}
            axes.text(-0.3, y + lines * line / 2, label, ha="right", va="center", **style)
            for column, percent in enumerate(accuracy):
                x, end = column * width, y + lines * line + 0.3
                axes.text(x + columns / 2, end, f"{percent:.2f} %", ha="center", va="center", fontsize=11)
                for k in range(count):
                    _draw_digit(axes, digits[model], k, column, (x + k % columns, y + k // columns * line), colour)
    return figure


def _draw_digit(axes: "Axes", examples: Examples, k: int, column: int, place: tuple[float, float], colour: str) -> None:
    """Draw one digit at one phi, and below it what the model takes it for."""
    x, y = place
    side = math.isqrt(examples.images.shape[-1])
    draw_image(axes, examples.images[k, column].reshape(side, side), x, y)
    seen = examples.predictions["self"][k, column]
    style: dict[str, Any] = {"color": colour}
    if seen != examples.labels[k]:
        box = {"boxstyle": "square,pad=0.12", "facecolor": colour, "edgecolor": "none"}
        style = {"color": "white", "fontweight": "bold", "bbox": box}
    axes.text(x + 0.5, y + 1.17, str(seen), ha="center", va="center", fontsize=7, **style)


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
