"""Pictures: accuracy against phi, and digits under growing noise. Readable in print and when colour-blind.

A method keeps its colour in every picture; runs of one method differ in
their line and marker. In the paper's figures a method keeps its marker, too, and its multi-task net is drawn
with an open marker and a dashed line. What follows the first line of a title is set small below it. Matplotlib is
imported only here, and only when something is drawn.
"""

import functools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import AttackTable, Examples
from nnlite.evaluation.auditing import Audit
from nnlite.evaluation.finite_step import Convergence

if TYPE_CHECKING:
    from matplotlib.artist import Artist
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]

FORMATS = (".png", ".svg", ".pdf")
COLOURS = {  # Okabe and Ito's for the paper's own methods, the muted palette of Tol for the earlier works
    "none": "#000000",
    "l1": "#E69F00",
    "l2": "#D55E00",
    "dgl1": "#0072B2",
    "dgl2": "#56B4E9",
    "dgl2norm": "#009E73",
    "dglinf": "#CC79A7",
    "datagrad": "#DDCC77",
    "szegedy": "#882255",
    "goodfellow": "#332288",
    "gu-rigazio": "#999933",
    "huang": "#44AA99",
    "miyato": "#AA4499",
    "lyu": "#117733",
    "nokland": "#CC6677",
}
_LINES, _MARKERS = ("-", "--", ":", "-."), ("o", "s", "^", "D", "v", "P", "X", "*")
_PHI_AXIS = "noise phi (1 is the whole range of a pixel)"
_L2_AXIS = "length of the noise in the L2 norm, phi (1 is the whole range of one pixel)"

P = ParamSpec("P")


def _dollars_are_dollars(draw: Callable[P, None]) -> Callable[P, None]:
    """Have a name with a $ in it be drawn as it is, and not read as a formula."""

    @functools.wraps(draw)
    def drawn(*args: P.args, **kwargs: P.kwargs) -> None:
        import matplotlib as mpl

        with mpl.rc_context({"text.parse_math": False}):
            draw(*args, **kwargs)

    return drawn


def check_format(path: Path) -> None:
    """Raise NnliteError unless the name of `path` ends in one of FORMATS."""
    if path.suffix.lower() not in FORMATS:
        raise NnliteError(f"picture: expected a name that ends in {', '.join(FORMATS)}, found {path.name!r}")


@_dollars_are_dollars
def plot_accuracy(table: AttackTable, methods: Mapping[str, str], title: str, path: Path) -> None:
    """Draw accuracy in percent against phi, one line for each victim; `methods` names each victim's method."""
    figure = _figure(7.2, 4.2)
    axes = figure.subplots()
    styles = _styles(table.accuracy, methods)
    for name, values in sorted(table.accuracy.items(), key=lambda item: -item[1][-1]):
        colour, line, marker = styles[name]
        axes.plot(table.phi, values, color=colour, linestyle=line, marker=marker, markersize=5, label=name)
    axes.set(xlabel=_L2_AXIS if table.norm == "l2" else _PHI_AXIS, ylabel="accuracy in %", ylim=(0, 101))
    _dress(axes, title)
    _save(figure, path)


@_dollars_are_dollars
def plot_audit(audit: Audit, title: str, path: Path) -> None:
    """Draw accuracy in percent against phi, one line for each attack; a thick black one is the worst case."""
    styles = {  # of Okabe and Ito; an attack keeps its colour and its marker
        "r1": ("#E69F00", "o"),
        "r2": ("#56B4E9", "s"),
        "pgd": ("#D55E00", "^"),
        "transfer": ("#009E73", "D"),
        "random": ("#CC79A7", "v"),
        "worst": ("#000000", ""),
    }
    figure = _figure(7.2, 4.2)
    axes = figure.subplots()
    for name, values in sorted(audit.accuracy.items(), key=lambda item: -item[1][-1]):
        colour, marker = styles[name]
        width, zorder = (1.5, 2.5) if marker else (5, 2.0)  # the thick line lies below, so that none is hidden
        axes.plot(
            audit.phi, values, color=colour, marker=marker, linewidth=width, zorder=zorder, label=audit.words[name]
        )
    axes.axhline(audit.chance, color="0.5", linestyle=":", label="chance")
    axes.set(xlabel=_PHI_AXIS, ylabel="accuracy in %", ylim=(0, 101))
    _dress(axes, title)
    _save(figure, path)


@_dollars_are_dollars
def plot_convergence(found: Convergence, title: str, path: Path) -> None:
    """Draw the errors of the finite difference against phi, and below them the share of ReLUs that change side."""
    figure = _figure(7.2, 5.6)
    errors, flips = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1), gridspec_kw={"hspace": 0.12})
    phi = np.array(found.phi)
    errors.plot(phi, found.float64, color="#0072B2", marker="o", label="float64")
    errors.plot(phi, found.float32, color="#E69F00", linestyle="--", marker="s", fillstyle="none", label="float32")
    errors.plot(phi, found.smooth, color="#009E73", marker="^", label="float64, without its ReLUs")
    errors.axhline(found.exact32, color="0.5", linestyle=":", label="exact update in float32")
    errors.set(xscale="log", yscale="log", ylabel="error, relative to the exact update")
    some = found.flips > 0
    flips.plot(phi[some], 100 * found.share[some], color="#000000", marker="o")
    flips.set(yscale="log", xlabel="phi, the step of the finite difference", ylabel="ReLUs that\nchange side, %")
    for axes, heading in ((errors, title), (flips, "")):
        axes.axvspan(0.005, 0.1, color="0.93", zorder=0)
        _dress(axes, heading)
    flips.text(0.022, 0.06, "phi of the paper", transform=flips.get_xaxis_transform(), ha="center", fontsize=9)
    figure.align_ylabels()
    _save(figure, path)


@_dollars_are_dollars
def plot_examples(
    examples: Examples, table: AttackTable, methods: Mapping[str, str], shape: tuple[int, int], title: str, path: Path
) -> None:
    """Draw one strip of images for each phi, and below it what each victim takes each image for.

    A wrong prediction stands white on the colour of its method. At the end of each line stands the
    victim's accuracy on the whole test set, from `table`. Pixels outside [0, 1] are shown as 0 or 1.
    """
    victims = list(examples.predictions)
    count, line = len(examples.labels), 0.42
    block = 1 + line * len(victims) + 0.35
    height = block * len(examples.phi)
    label_width = 0.13 * max(map(len, [*victims, "phi = 0.005"])) + 0.3
    figure = _figure(0.62 * (count + label_width + 1.6), 0.62 * (height + 1.2))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-label_width, count + 1.6), ylim=(height + 0.1, -1.1))
    axes.axis("off")
    heading, *notes = title.splitlines()
    notes.append("the first test image of each class; white on colour: a wrong prediction")
    axes.text(-label_width + 0.15, -0.3 - 0.27 * len(notes), heading, fontsize=11, fontweight="bold", va="bottom")
    axes.text(-label_width + 0.15, -0.2, "\n".join(notes), fontsize=9, va="bottom", color="0.35")
    axes.text(count + 0.2, -0.2, "accuracy", fontsize=9, va="bottom", color="0.35")
    for row, size in enumerate(examples.phi):
        top = row * block
        axes.text(-0.2, top + 0.5, f"phi = {size:g}", ha="right", va="center", fontsize=11)
        for column in range(count):
            pixels = examples.images[column, row].reshape(shape)
            extent = (column + 0.03, column + 0.97, top + 0.97, top + 0.03)
            axes.imshow(pixels, cmap="gray_r", vmin=0, vmax=1, extent=extent, interpolation="nearest")
            axes.plot(*_frame(*extent), color="0.8", linewidth=0.6)
        for k, name in enumerate(victims):
            y = top + 1 + line * (k + 0.5)
            colour = COLOURS[methods[name]]
            axes.text(-0.2, y, name, ha="right", va="center", fontsize=9, color=colour)
            axes.text(count + 0.2, y, f"{table.accuracy[name][row]:.1f} %", va="center", fontsize=9, color=colour)
            for column, seen in enumerate(examples.predictions[name][:, row]):
                wrong = seen != examples.labels[column]
                box = {"boxstyle": "square,pad=0.15", "facecolor": colour, "edgecolor": "none"} if wrong else None
                axes.text(
                    column + 0.5,
                    y,
                    str(seen),
                    ha="center",
                    va="center",
                    fontsize=9,
                    color="white" if wrong else colour,
                    fontweight="bold" if wrong else "normal",
                    bbox=box,
                )
    axes.set_aspect("equal")
    _save(figure, path)


@dataclass(frozen=True, eq=False)
class Line:
    """A model in one panel: its label, the name of its method, and its accuracies in percent, shape (phi,)."""

    label: str
    method: str
    multitask: bool
    accuracy: FloatArray


@_dollars_are_dollars
def plot_panels(phi: Sequence[float], panels: Mapping[str, Sequence[Line]], path: Path) -> None:
    """Draw accuracy against phi in panels side by side, each under its title, with one legend for all of them.

    A panel whose accuracies all lie high starts its axis just below them, and says so.
    """
    figure = _figure(4.6 * len(panels) + 2.4, 4.2)
    handles: dict[str, Artist] = {}
    for axes, (title, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        for line in lines:
            handles.setdefault(line.label, _draw(axes, phi, line))
        lowest = min(float(line.accuracy.min()) for line in lines)
        bottom = 0 if lowest < 75 else 5 * math.floor((lowest - 1) / 5)
        cut = f"\n(the axis starts at {bottom} %)" if bottom else ""
        axes.set(xlabel=_PHI_AXIS, ylim=(bottom - (100 - bottom) / 50, 100 + (100 - bottom) / 50))
        axes.set_ylabel(f"accuracy in %{cut}")
        _dress(axes, title)
    figure.tight_layout(w_pad=2)
    figure.legend(list(handles.values()), list(handles), frameon=False, loc="center left", bbox_to_anchor=(1, 0.55))
    _save(figure, path)


def _draw(axes: "Axes", phi: Sequence[float], line: Line) -> "Artist":
    colour = COLOURS[line.method]
    (handle,) = axes.plot(
        phi,
        line.accuracy,
        color=colour,
        linestyle="--" if line.multitask else "-",
        marker=_MARKERS[list(COLOURS).index(line.method)],
        markersize=6,
        markerfacecolor="white" if line.multitask else colour,
        clip_on=False,
    )
    return handle


@dataclass(frozen=True, eq=False)
class Strip:
    """Digits of one model under growing noise: images (n, phi, D), and its accuracies in percent, shape (phi,)."""

    label: str
    method: str
    images: npt.NDArray[np.floating]
    accuracy: FloatArray


@_dollars_are_dollars
def plot_strips(phi: Sequence[float], strips: Sequence[Strip], shape: tuple[int, int], path: Path) -> None:
    """Draw one row of pictures for each model and one column for each phi; below each its accuracy there.

    A picture holds all n digits, five to a line. Pixels outside [0, 1] are shown as 0 or 1.
    """
    tiles = [[_montage(strip.images[:, column], shape) for column in range(len(phi))] for strip in strips]
    height = tiles[0][0].shape[0] / tiles[0][0].shape[1]
    block, left, top = height + 0.24, 0.72, 0.24
    figure = _figure(1.9 * (len(phi) + left), 1.9 * (block * len(strips) + top))
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-left, len(phi)), ylim=(block * len(strips), -top))
    axes.axis("off")
    for column, size in enumerate(phi):
        axes.text(column + 0.5, -0.12, f"φ = {size:g}", ha="center", va="center", fontsize=12)
    for row, strip in enumerate(strips):
        y, colour = row * block, COLOURS[strip.method]
        label = strip.label.replace(" λ", "\nλ").replace(" φ", "\nφ")
        axes.text(-0.06, y + height / 2, label, ha="right", va="center", fontsize=11, color=colour, fontweight="bold")
        for column, percent in enumerate(strip.accuracy):
            extent = (column + 0.03, column + 0.97, y + height - 0.03 * height, y + 0.03 * height)
            axes.imshow(tiles[row][column], cmap="gray_r", vmin=0, vmax=1, extent=extent, interpolation="nearest")
            axes.plot(*_frame(*extent), color="0.7", linewidth=0.6)
            axes.text(column + 0.5, y + height + 0.08, f"{percent:.2f} %", ha="center", va="center", fontsize=11)
    axes.set_aspect("equal")
    _save(figure, path)


@_dollars_are_dollars
def plot_times(reports: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Draw the times of races, as `nnlite.bench.race.report` gives them, in panels one below another, best first.

    A bar is a median, its line the quartiles, and the dotted line the matrix products alone. nnlite is blue.
    """
    found = [[one for one in report["contestants"] if one["ms"] is not None] for report in reports]
    counts = [len(rows) for rows in found]
    figure = _figure(7.2, 0.3 * sum(counts) + 0.95 * len(counts))
    panels = figure.subplots(len(counts), 1, squeeze=False, height_ratios=[count + 1 for count in counts])[:, 0]
    for axes, report, rows in zip(panels, reports, found, strict=True):
        for place, one in enumerate(rows):
            colour = COLOURS["dgl1"] if one["name"].startswith("nnlite") else "0.72"
            low, high = one["quartiles"]
            axes.barh(place, one["ms"], height=0.66, color=colour)
            axes.plot([low, high], [place, place], color="black", linewidth=1)
            if one["name"] == "products":
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
        axes.set_yticks(range(len(rows)), [one["name"] for one in rows])
        axes.tick_params(axis="y", length=0)
        axes.set(ylim=(len(rows) - 0.4, -0.6), xlim=(0, 1.12 * max(one["quartiles"][1] for one in rows)))
        threads = f"{report['threads']} thread{'s' if report['threads'] > 1 else ''}"
        _dress(axes, f"{report['title']}; {threads}")
        axes.grid(visible=False)
    panels[-1].set_xlabel("ms, median and quartiles; dotted: the matrix products alone")
    figure.tight_layout(h_pad=1)
    _save(figure, path)


def _montage(images: npt.NDArray[np.floating], shape: tuple[int, int]) -> FloatArray:
    """Return images (n, D) as one picture, five to a line, with a white pixel between them."""
    columns = min(len(images), 5)
    lines = math.ceil(len(images) / columns)
    high, wide = shape[0] + 1, shape[1] + 1
    picture = np.zeros((lines * high + 1, columns * wide + 1))
    for k, image in enumerate(images):
        y, x = 1 + k // columns * high, 1 + k % columns * wide
        picture[y : y + shape[0], x : x + shape[1]] = image.reshape(shape)
    return picture


def _styles(names: Iterable[str], methods: Mapping[str, str]) -> dict[str, tuple[str, str, str]]:
    """Return colour, line and marker for each name: the colour of its method, the rest by its turn in it."""
    turns: dict[str, int] = {}
    styles = {}
    for name in names:
        turn = turns[methods[name]] = turns.get(methods[name], -1) + 1
        marker = _MARKERS[(list(COLOURS).index(methods[name]) + turn) % len(_MARKERS)]
        styles[name] = (COLOURS[methods[name]], _LINES[turn % len(_LINES)], marker)
    return styles


def _dress(axes: "Axes", title: str) -> None:
    """Give axes their title, its second line small below it, a light grid, and a legend where a line has a label."""
    heading, _, note = title.partition("\n")
    axes.set_title(heading, loc="left", fontsize=11, fontweight="bold", pad=20 if note else 6)
    axes.annotate(note, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=9, color="0.35")
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))


def _frame(left: float, right: float, bottom: float, top: float) -> tuple[list[float], list[float]]:
    return [left, right, right, left, left], [bottom, bottom, top, top, bottom]


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=130)


def _save(figure: "Figure", path: Path) -> None:
    import matplotlib as mpl

    metadata = {"Date": None} if path.suffix.lower() == ".svg" else None  # the same figures, the same file
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with mpl.rc_context({"svg.hashsalt": "nnlite"}):
            figure.savefig(path, bbox_inches="tight", facecolor="white", metadata=metadata)
    except OSError as error:
        raise NnliteError(f"picture: cannot write {path} ({error.strerror}); choose another place") from error
