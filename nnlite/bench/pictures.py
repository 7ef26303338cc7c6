"""The picture of races: a bar for each contestant."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nnlite.bench.peers import MATMULS
from nnlite.bench.report import RaceReport
from nnlite.evaluation.pictures import COLOURS, drawing, dress, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_times(reports: Sequence[RaceReport], path: Path | str | None = None) -> "Figure":
    """Draw the times of races in panels one below another, fastest first; nnlite is blue.

    A bar is a median, the line in it the quartiles, and the dotted line the matrix products alone.
    """
    found = [[one for one in report["contestants"] if one["ms"] is not None] for report in reports]
    counts = [len(rows) for rows in found]
    with drawing(7.2, 0.3 * sum(counts) + 0.95 * len(counts), path) as figure:
        panels = figure.subplots(len(counts), 1, squeeze=False, height_ratios=[count + 1 for count in counts])[:, 0]
        for axes, report, rows in zip(panels, reports, found, strict=True):
            for place, one in enumerate(rows):
                low, high = one["quartiles"]
                colour = COLOURS["dgl1"] if one["name"].startswith("nnlite") else "0.72"
                axes.barh(place, one["ms"], height=0.66, color=colour)
                axes.plot([low, high], [place, place], color="black", linewidth=1)
                if one["name"] == MATMULS:
                    axes.axvline(one["ms"], color="black", linestyle=":", linewidth=1)
                axes.annotate(
                    f"{one['ms']:.3g}",
                    (max(one["ms"], high), place),
                    (4, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=9,
                    bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
                )
            axes.set_yticks(range(len(rows)), [plain(one["name"]) for one in rows])
            axes.tick_params(axis="y", length=0)
            axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.12 * max(one["quartiles"][1] for one in rows)))
            threads = f"{report['threads']} thread{'s' if report['threads'] > 1 else ''}"
            dress(axes, f"{report['title']}; {threads}")
            axes.grid(visible=False)
        panels[-1].set_xlabel("ms, median and quartiles; dotted: the matrix products alone")
        figure.tight_layout(h_pad=1)
    return figure
