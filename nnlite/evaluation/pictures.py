"""Pictures: what every picture of nnlite is drawn with, and the evaluation's own.

They can be read in print and by the colour-blind. A method has the same colour in every picture, and runs of one method
differ in their line and marker. What follows the first line of a title is set small below it. Matplotlib is imported
only when something is drawn.
"""

import io
import itertools
import os
import re
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import AttackTable, Examples
from nnlite.evaluation.auditing import ATTACKS, Audit
from nnlite.evaluation.finite_step import Convergence
from nnlite.evaluation.radii import Radii
from nnlite.methods import METHODS
from nnlite.storage.files import expect_writable, new_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
SETTINGS = {"svg.hashsalt": "nnlite"}  # beside Matplotlib's own
LOOK: dict[str, Any] = {"bbox_inches": "tight", "facecolor": "white"}
COLOURS = {  # Okabe and Ito's for the paper's own methods, Tol's muted palette for the earlier works, and two more
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
    "pgd": "#CC3311",
    "trades": "#777777",
}
LETTERS = {"lam": "λ", "phi": "φ"}
LINES, MARKERS = ("-", "--", ":", "-."), ("o", "s", "^", "D", "v", "P", "X", "*")
PHI_AXIS = "noise φ (1 is the whole range of a pixel)"
_L2_AXIS = "length of the noise in the L2 norm, φ (1 is the whole range of one pixel)"


# -- what every picture is drawn with


def check_picture(path: Path | str) -> None:
    """Raise NnliteError unless the name of `path` ends in one of FORMATS and a file can be written there."""
    path = Path(path)
    if path.suffix.lower() not in FORMATS:
        raise NnliteError(f"picture: expected a name that ends in {', '.join(FORMATS)}, found {path.name!r}; rename it")
    with _told(path):
        expect_writable(path)


@contextmanager
def drawing(width: float, height: float, path: Path | str | None) -> Iterator["Figure"]:
    """Give an empty figure of this size in inches to draw into; it is written to `path` at the end of the block.

    Without a path nothing is written, and a notebook shows the figure. Whatever the user has told Matplotlib,
    the same figure makes the same file, byte by byte. Text between two $ is a formula, so names go through `plain`.
    """
    with _own_settings():
        from matplotlib.figure import Figure

        figure: Any = Figure(figsize=(width, height), dpi=130)
        yield figure
        if path is None:
            figure._repr_png_ = partial(_as_png, figure)
            return
        path = Path(path)
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else None
        with _told(path), new_file(path, replace=True) as place:
            figure.savefig(place, **LOOK, metadata=metadata)


def plain(text: str) -> str:
    """Return `text` with its $ escaped, so that it is drawn as it is; a name may come from a stranger."""
    return text.replace("$", r"\$")


def run_label(name: str) -> str:
    """Return the name of a run as it is drawn, with lambda and phi as letters, such as dgl1 λ = 0.01 φ = 0.1."""
    return plain(re.sub(r"-(lam|phi)(?=\d)", lambda found: f" {LETTERS[found[1]]} = ", name))


@contextmanager
def _own_settings() -> Iterator[None]:
    """Draw with Matplotlib's own settings and SETTINGS, whatever the user's are."""
    chosen = "" if "matplotlib" in sys.modules else os.environ.pop("MPLBACKEND", "")
    import matplotlib.style

    if chosen:  # it may name what is not installed here, as a notebook's does; then the import would have failed
        os.environ["MPLBACKEND"] = chosen
        with suppress(ValueError):
            matplotlib.rcParams["backend"] = chosen
    with matplotlib.style.context(["default", SETTINGS]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing")  # an emoji in a name is drawn as a box, which one can see
        yield


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Turn an error of the system into one that says what to do."""
    try:
        yield
    except OSError as error:
        raise NnliteError(f"picture: cannot write {path} ({error.strerror}); choose another place") from error


def _as_png(figure: "Figure") -> bytes:
    place = io.BytesIO()
    with _own_settings():
        figure.savefig(place, format="png", **LOOK)
    return place.getvalue()


def dress(axes: "Axes", title: str) -> None:
    """Give axes their title, its second line small below it, a light grid, and a legend where a line has a label."""
    heading, _, note = plain(title).partition("\n")
    axes.set_title(heading, loc="left", fontsize=11, fontweight="bold", pad=20 if note else 6)
    axes.annotate(note, (0, 1), (0, 6), "axes fraction", "offset points", fontsize=9, color="0.35")
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    if axes.get_legend_handles_labels()[1]:
        axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))


def draw_image(axes: "Axes", pixels: npt.NDArray[np.floating], x: float, y: float, height: float = 1.0) -> None:
    """Draw a sample 1 wide with its upper left corner at (x, y), in a thin frame; values outside [0, 1] are cut off.

    pixels: (rows, columns) in grey, or (rows, columns, channels), three of them in colour; (D,), the features of a
    table, are drawn as bars.
    """
    left, right, bottom, top = x + 0.03, x + 0.97, y + 0.97 * height, y + 0.03 * height
    shown = pixels.clip(0, 1)
    if shown.ndim == 1:
        edges = np.linspace(left, right, len(shown) + 1)
        axes.stairs(bottom - (bottom - top) * shown, edges, baseline=bottom, fill=True, color="0.35")
    else:
        grey = shown.mean(axis=-1) if shown.ndim == 3 and shown.shape[-1] != 3 else shown
        axes.imshow(grey, cmap="gray_r", vmin=0, vmax=1, extent=(left, right, bottom, top), interpolation="nearest")
    axes.plot([left, right, right, left, left], [bottom, bottom, top, top, bottom], color="0.75", linewidth=0.6)


def blank_axes(figure: "Figure", left: float, right: float, bottom: float, top: float) -> "Axes":
    """Return axes without lines and ticks that fill the figure, with these limits and square units."""
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(left, right), ylim=(bottom, top), aspect="equal")
    axes.axis("off")
    return axes


# -- the pictures of the evaluation


def plot_accuracy(
    table: AttackTable, methods: Mapping[str, str], title: str, path: Path | str | None = None
) -> "Figure":
    """Draw accuracy in percent against phi, one line for each victim; `methods` names each victim's method."""
    styles = _styles(table.accuracy, methods)
    with drawing(7.2, 4.2, path) as figure:
        axes = figure.subplots()
        for name, values in sorted(table.accuracy.items(), key=lambda item: -item[1][-1]):
            colour, line, marker = styles[name]
            axes.plot(
                table.phi, values, color=colour, linestyle=line, marker=marker, markersize=5, label=run_label(name)
            )
        axes.set(xlabel=_L2_AXIS if table.norm == "l2" else PHI_AXIS, ylabel="accuracy in %", ylim=(0, 101))
        dress(axes, title)
    return figure


def plot_audit(audit: Audit, title: str, path: Path | str | None = None) -> "Figure":
    """Draw accuracy in percent against phi, one line for each attack; a thick black one is the worst case."""
    okabe_and_ito = ("#E69F00", "#56B4E9", "#D55E00", "#009E73", "#CC79A7", "#0072B2", "#F0E442")
    pairs = zip(itertools.cycle(okabe_and_ito), itertools.cycle(MARKERS), strict=False)
    styles = dict(zip(ATTACKS, pairs, strict=False)) | {"worst": ("#000000", "")}  # each attack keeps its own
    with drawing(7.2, 4.2, path) as figure:
        axes = figure.subplots()
        for name, values in sorted(audit.accuracy.items(), key=lambda item: -item[1][-1]):
            colour, marker = styles[name]
            width, zorder = (1.5, 2.5) if marker else (5, 2.0)  # the thick line lies below, so that it hides no other
            label = audit.descriptions[name]
            axes.plot(audit.phi, values, color=colour, marker=marker, linewidth=width, zorder=zorder, label=label)
        axes.axhline(audit.chance, color="0.5", linestyle=":", label="chance")
        axes.set(xlabel=PHI_AXIS, ylabel="accuracy in %", ylim=(0, 101))
        dress(axes, title)
    return figure


def plot_radii(
    found: Mapping[str, Radii],
    methods: Mapping[str, str],
    notes: Mapping[str, str],
    path: Path | str | None = None,
) -> "Figure":
    """Draw for each run the radii of its images, sorted by the broken one: proven below, unknown between the two.

    Arguments:
        found: The radii by run.
        methods: Each run's method.
        notes: A line about each run.
        path: Where the picture is written.
    """
    sizes = np.concatenate([radii.broken for radii in found.values()])
    height = 1.1 * float(sizes[np.isfinite(sizes)].max(initial=0)) or 1.0
    with drawing(max(3.6 * len(found), 5.0), 4.0, path) as figure:
        from matplotlib.lines import Line2D
        from matplotlib.patches import Patch

        panels = figure.subplots(1, len(found), sharey=True, squeeze=False, gridspec_kw={"wspace": 0.15})[0]
        for axes, (name, radii) in zip(panels, found.items(), strict=True):
            order = np.lexsort((radii.proven, radii.broken))
            proven, broken = radii.proven[order], radii.broken[order]
            edges, colour = np.arange(len(order) + 1), colour_of(methods[name])
            axes.stairs(proven, edges, fill=True, color=colour)
            axes.stairs(broken.clip(0, height), edges, baseline=proven, fill=True, color=colour, alpha=0.25)
            axes.stairs(broken, edges, baseline=None, color=colour, linewidth=1.2)
            axes.set_axisbelow(True)
            axes.set(xlabel="images, the easiest to break first", xlim=(0, len(order)), ylim=(0, height))
            dress(axes, f"{name}\n{notes[name]}")
        panels[0].set_ylabel("noise φ (1 is the whole range of a pixel)")
        handles = [Line2D([], [], color="0.2"), Patch(color="0.2", alpha=0.25), Patch(color="0.2")]
        words = ["broken from here on", "unknown", "proven"]
        figure.legend(handles, words, frameon=False, loc="center left", bbox_to_anchor=(0.91, 0.55))
    return figure


def plot_convergence(found: Convergence, title: str, path: Path | str | None = None) -> "Figure":
    """Draw the errors of the finite difference against phi, and below them the share of ReLUs that change side."""
    phi, some = np.array(found.phi), found.flips > 0
    with drawing(7.2, 5.6, path) as figure:
        errors, flips = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1), gridspec_kw={"hspace": 0.12})
        errors.plot(phi, found.float64, color="#0072B2", marker="o", label="float64")
        errors.plot(phi, found.float32, color="#E69F00", linestyle="--", marker="s", fillstyle="none", label="float32")
        errors.plot(phi, found.held, color="#D55E00", marker="x", label="float64, no ReLU may change side")
        errors.plot(phi, found.smooth, color="#009E73", marker="^", label="float64, without its ReLUs")
        errors.axhline(found.exact32, color="0.5", linestyle=":", label="exact update in float32")
        errors.set(xscale="log", yscale="log", ylabel="error, relative to the exact update")
        flips.plot(phi[some], 100 * found.share[some], color="#000000", marker="o")
        flips.set(yscale="log", xlabel="φ, the step of the finite difference", ylabel="ReLUs that\nchange side, %")
        for axes, heading in ((errors, title), (flips, "")):
            axes.axvspan(0.005, 0.1, color="0.93", zorder=0)
            dress(axes, heading)
        flips.text(0.022, 0.06, "φ of the paper", transform=flips.get_xaxis_transform(), ha="center", fontsize=9)
        figure.align_ylabels()
    return figure


def plot_examples(
    examples: Examples,
    table: AttackTable,
    methods: Mapping[str, str],
    shape: tuple[int, ...],
    title: str,
    path: Path | str | None = None,
) -> "Figure":
    """Draw a strip of images for each phi, and below each image the predictions of all victims.

    A wrong prediction is white on the colour of the victim's method. Each line ends in the victim's accuracy on the
    whole test set, from `table`. Pixels outside [0, 1] are shown as 0 or 1.
    """
    victims = list(examples.predictions)
    count, line = len(examples.labels), 0.42
    block = 1 + line * len(victims) + 0.35
    height = block * len(examples.phi)
    label_width = 0.13 * max(map(len, map(run_label, [*victims, "φ = 0.005"]))) + 0.3
    heading, *notes = plain(title).splitlines()
    of_each = "the first test image of each class" if len(shape) > 1 else "the first test row of each class, as bars"
    colour_key = "white on colour: a wrong prediction"
    notes += [f"{of_each}; {colour_key}"] if count > 5 else [of_each, colour_key]  # beside the head of the last column
    with drawing(0.62 * (count + label_width + 1.6), 0.62 * (height + 1.2), path) as figure:
        axes = blank_axes(figure, -label_width, count + 1.6, height + 0.1, -1.1)
        axes.text(-label_width + 0.15, -0.3 - 0.27 * len(notes), heading, fontsize=11, fontweight="bold", va="bottom")
        axes.text(-label_width + 0.15, -0.2, "\n".join(notes), fontsize=9, va="bottom", color="0.35")
        axes.text(count + 0.2, -0.2, "accuracy", fontsize=9, va="bottom", color="0.35")
        for row, size in enumerate(examples.phi):
            top = row * block
            axes.text(-0.2, top + 0.5, f"φ = {size:g}", ha="right", va="center", fontsize=11)
            for column in range(count):
                draw_image(axes, examples.images[column, row].reshape(shape), column, top)
            for k, name in enumerate(victims):
                y, colour = top + 1 + line * (k + 0.5), colour_of(methods[name])
                axes.text(-0.2, y, run_label(name), ha="right", va="center", fontsize=9, color=colour)
                axes.text(count + 0.2, y, f"{table.accuracy[name][row]:.1f} %", va="center", fontsize=9, color=colour)
                for column, seen in enumerate(examples.predictions[name][:, row]):
                    style: dict[str, Any] = {"color": colour}
                    if seen != examples.labels[column]:
                        box = {"boxstyle": "square,pad=0.15", "facecolor": colour, "edgecolor": "none"}
                        style = {"color": "white", "fontweight": "bold", "bbox": box}
                    axes.text(column + 0.5, y, str(seen), ha="center", va="center", fontsize=9, **style)
    return figure


def colour_of(method: str) -> str:
    """Return the colour of a method; grey for one that has none of its own."""
    return COLOURS.get(method, "#777777")


def _styles(names: Iterable[str], methods: Mapping[str, str]) -> dict[str, tuple[str, str, str]]:
    """Return colour, line and marker for each name: the colour of its method, the rest by its turn in it."""
    turns: dict[str, int] = {}
    styles = {}
    for name in names:
        turn = turns[methods[name]] = turns.get(methods[name], -1) + 1
        marker = MARKERS[([*COLOURS, *METHODS].index(methods[name]) + turn) % len(MARKERS)]
        styles[name] = (colour_of(methods[name]), LINES[turn % len(LINES)], marker)
    return styles
