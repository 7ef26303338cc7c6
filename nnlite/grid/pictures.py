"""The picture of a grid: accuracy for each lambda and phi."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nnlite.evaluation.pictures import drawing
from nnlite.grid.summary import HeatMap

if TYPE_CHECKING:
    from matplotlib.patches import Rectangle


def plot_heat_maps(maps: Sequence[HeatMap], title: str, path: Path) -> None:
    """Draw the maps one below another, on one scale, with the figure in each field; the best one of each is framed."""
    figures = np.concatenate([one.values[~np.isnan(one.values)] for one in maps])
    low, high = (float(figures.min()), float(figures.max())) if len(figures) else (0.0, 100.0)
    width = max(5.0, 1.6 + 0.75 * max(len(one.phi) for one in maps))
    with drawing(width, sum(1.1 + 0.4 * len(one.lam) for one in maps), path) as figure:
        panels = figure.subplots(len(maps), 1, squeeze=False, height_ratios=[len(one.lam) + 2 for one in maps])[:, 0]
        for axes, one in zip(panels, maps, strict=True):
            axes.imshow(one.values, cmap="Blues", vmin=low, vmax=high, aspect="auto")
            for (row, column), value in np.ndenumerate(one.values):
                dark = value > (low + high) / 2
                text = "" if np.isnan(value) else f"{value:.1f}"
                axes.text(column, row, text, ha="center", va="center", fontsize=9, color="white" if dark else "black")
            if not np.isnan(one.values).all():
                row, column = np.unravel_index(np.nanargmax(one.values), one.values.shape)
                axes.add_patch(_frame(int(row), int(column)))
            axes.set_xticks(range(len(one.phi)), [f"{value:g}" for value in one.phi])
            axes.set_yticks(range(len(one.lam)), [f"{value:g}" for value in one.lam])
            axes.set(xlabel="φ", ylabel="λ")
            axes.set_title(f"{one.name}: {title}", fontsize=9, loc="left")
        figure.tight_layout()


def _frame(row: int, column: int) -> "Rectangle":
    from matplotlib.patches import Rectangle

    return Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, edgecolor="black", linewidth=1.5)
