"""Pictures: accuracy against phi, and digits under growing noise. Readable in print and when colour-blind.

A method keeps its colour in every picture (the palette of Okabe and Ito); runs of one method differ in
their line and marker. Matplotlib is imported only here, and only when something is drawn.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from nnlite.errors import NnliteError
from nnlite.evaluation import AttackTable, Examples

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")
COLOURS = {"none": "#000000", "l1": "#E69F00", "l2": "#D55E00", "dgl1": "#0072B2", "dgl2": "#56B4E9"}
_LINES, _MARKERS = ("-", "--", ":", "-."), ("o", "s", "^", "D", "v", "P", "X", "*")


def check_format(path: Path) -> None:
    """Raise NnliteError unless the name of `path` ends in one of FORMATS."""
    if path.suffix.lower() not in FORMATS:
        raise NnliteError(f"picture: expected a name that ends in {', '.join(FORMATS)}, found {path.name!r}")


def plot_accuracy(table: AttackTable, methods: Mapping[str, str], title: str, path: Path) -> None:
    """Draw accuracy in percent against phi, one line for each victim; `methods` names each victim's method."""
    figure = _figure(7.2, 4.2)
    axes = figure.subplots()
    styles = _styles(table.accuracy, methods)
    for name, values in sorted(table.accuracy.items(), key=lambda item: -item[1][-1]):
        colour, line, marker = styles[name]
        axes.plot(table.phi, values, color=colour, linestyle=line, marker=marker, markersize=5, label=name)
    axes.set(xlabel="noise phi (1 is the whole range of a pixel)", ylabel="accuracy in %", ylim=(0, 101))
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.grid(axis="y", color="0.9")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    _save(figure, path)


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
    axes.text(-label_width + 0.15, -0.75, title, fontsize=12, fontweight="bold", va="center")
    note = "the first test image of each class; white on colour: a wrong prediction"
    axes.text(-label_width + 0.15, -0.3, note, fontsize=9, va="center", color="0.35")
    axes.text(count + 0.2, -0.3, "accuracy", fontsize=9, va="center", color="0.35")
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


def _styles(names: Iterable[str], methods: Mapping[str, str]) -> dict[str, tuple[str, str, str]]:
    """Return colour, line and marker for each name: the colour of its method, the rest by its turn in it."""
    turns: dict[str, int] = {}
    styles = {}
    for name in names:
        turn = turns[methods[name]] = turns.get(methods[name], -1) + 1
        marker = _MARKERS[(list(COLOURS).index(methods[name]) + turn) % len(_MARKERS)]
        styles[name] = (COLOURS[methods[name]], _LINES[turn % len(_LINES)], marker)
    return styles


def _frame(left: float, right: float, bottom: float, top: float) -> tuple[list[float], list[float]]:
    return [left, right, right, left, left], [bottom, bottom, top, top, bottom]


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.figure import Figure

    return Figure(figsize=(width, height), dpi=130)


def _save(figure: "Figure", path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, bbox_inches="tight", facecolor="white")
    except OSError as error:
        raise NnliteError(f"picture: cannot write {path} ({error.strerror}); choose another place") from error
