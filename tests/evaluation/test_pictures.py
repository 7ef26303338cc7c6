from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import AttackTable, Examples
from nnlite.evaluation.pictures import (
    COLOURS,
    Line,
    Strip,
    _montage,
    _styles,
    check_format,
    plot_accuracy,
    plot_examples,
    plot_panels,
    plot_strips,
)
from nnlite.methods import METHODS
from nnlite.paper.tables import FAMILIES

TABLE = AttackTable((0.0, 0.1), {"rect": np.array([98.0, 40.0]), "mine": np.array([99.0, 80.0])}, 0.0)
KINDS = {"rect": "none", "mine": "dgl1"}


@pytest.mark.parametrize("name", ["curve.png", "deep/er/curve.svg"])
def test_the_curves_are_drawn(tmp_path, name):
    plot_accuracy(TABLE, KINDS, "a title", tmp_path / name)
    head = (tmp_path / name).read_bytes()[:8]
    assert head == b"\x89PNG\r\n\x1a\n" if name.endswith("png") else head.startswith(b"<?xml")


def test_the_svg_names_every_model_and_figure(tmp_path):
    images = np.random.default_rng(0).random((3, 2, 4))
    seen = {"rect": np.array([[0, 1], [1, 1], [2, 0]]), "mine": np.array([[0, 0], [1, 1], [2, 2]])}
    cases = Examples(TABLE.phi, images, np.array([0, 1, 2]), seen)
    # text as text, and each image by itself
    with mpl.rc_context({"svg.fonttype": "none", "image.composite_image": False}):
        plot_examples(cases, TABLE, KINDS, (2, 2), "a title", tmp_path / "images.svg")
    text = (tmp_path / "images.svg").read_text("utf-8")
    for word in ("a title", "rect", "mine", "phi = 0.1", "40.0 %", "80.0 %"):
        assert word in text
    assert text.count("<image") == 6


def test_the_second_line_of_a_title_is_small_and_not_bold(figures, tmp_path):
    plot_accuracy(TABLE, KINDS, "a title\nnot clipped", tmp_path / "a.png")
    (axes,) = figures[0].axes
    (note,) = axes.texts
    assert (axes.get_title(loc="left"), note.get_text()) == ("a title", "not clipped")
    assert (note.get_fontweight(), note.get_fontsize()) == ("normal", 9)
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["mine", "rect"]  # as the lines end


def test_each_method_has_a_colour_and_each_run_of_it_another_line():
    assert set(COLOURS) == set(METHODS)
    assert len(set(COLOURS.values())) == len(COLOURS)
    styles = _styles(["a", "b", "c"], {"a": "dgl1", "b": "dgl1", "c": "none"})
    assert styles["a"][0] == styles["b"][0] != styles["c"][0]
    assert styles["a"][1:] != styles["b"][1:]


def test_an_unknown_format_is_refused_before_anything_is_computed():
    with pytest.raises(NnliteError, match=r"\.png"):
        check_format(Path("picture.docx"))


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NnliteError, match="cannot write"):
        plot_accuracy(TABLE, KINDS, "a title", tmp_path / "file" / "curve.png")


PHI = (0.0, 0.005, 0.01, 0.05, 0.1)


def line(label, method, multitask=False, lowest=10.0):
    return Line(label, method, multitask, np.linspace(99, lowest, 5))


def test_a_family_looks_the_same_in_every_panel_and_multi_task_is_open_and_dashed(figures, tmp_path):
    kinds = list(FAMILIES.values())
    lines = [line(f"{method} {multitask}", method, multitask) for method, multitask in kinds]
    plot_panels(PHI, {"(a) one": lines, "(b) other": lines[::-1]}, tmp_path / "panels.png")
    (figure,) = figures
    styles = [
        {
            curve.get_label(): (
                curve.get_color(),
                curve.get_linestyle(),
                curve.get_marker(),
                curve.get_markerfacecolor(),
            )
            for curve in axes.lines
        }
        for axes in figure.axes
    ]
    first = {tuple(style) for style in styles[0].values()}
    assert len(first) == len(kinds)
    assert len({(dash, marker, face == "white") for _, dash, marker, face in first}) == len(
        kinds
    )  # also without colour
    for axes, shown in zip(figure.axes, (lines, lines[::-1]), strict=True):
        for curve, wanted in zip(axes.lines, shown, strict=True):
            assert curve.get_color() == COLOURS[wanted.method]
            assert (curve.get_linestyle(), curve.get_markerfacecolor() == "white") == (
                ("--", True) if wanted.multitask else ("-", False)
            )
            assert curve.get_xdata() == pytest.approx(PHI)
            assert curve.get_ydata() == pytest.approx(wanted.accuracy)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == [one.label for one in lines]


def test_only_a_panel_of_high_accuracies_cuts_its_axis_and_says_so(figures, tmp_path):
    panels = {
        "low": [line("a", "none")],
        "high": [line("a", "none", lowest=93)],
        "perfect": [line("a", "none", lowest=99)],
    }
    plot_panels(PHI, panels, tmp_path / "panels.png")
    low, high, perfect = figures[0].axes
    assert low.get_ylim()[0] < 0 < 10
    assert "starts" not in low.get_ylabel()
    assert 89 < high.get_ylim()[0] < 93
    assert "the axis starts at 90 %" in high.get_ylabel()
    assert "the axis starts at 95 %" in perfect.get_ylabel()
    assert low.get_title(loc="left") == "low"


def test_the_svg_of_the_digits_names_models_noise_and_accuracy(tmp_path):
    images = np.random.default_rng(0).random((7, 5, 4))
    strips = [
        Strip("Rect", "none", images, np.array([97.99, 96.8, 95.01, 49.06, 10.83])),
        Strip("DGL1 λ = 0.01 φ = 0.1", "dgl1", images, np.array([98.83, 98.63, 98.34, 94.41, 83.74])),
    ]
    with mpl.rc_context({"svg.fonttype": "none", "image.composite_image": False}):
        plot_strips(PHI, strips, (2, 2), tmp_path / "figure3.svg")
    text = (tmp_path / "figure3.svg").read_text("utf-8")
    for word in ("Rect", "DGL1", "φ = 0.005", "10.83 %", "94.41 %"):
        assert word in text
    assert text.count("<image") == 10


def test_a_montage_puts_each_digit_in_its_place():
    images = np.arange(1, 8)[:, None] * np.ones((7, 6))
    picture = _montage(images, (3, 2))
    assert picture.shape == (2 * 4 + 1, 5 * 3 + 1)
    assert picture[1:4, 1:3].tolist() == [[1, 1]] * 3
    assert picture[5:8, 4:6].tolist() == [[7, 7]] * 3
    assert picture.sum() == images.sum()  # nothing but the digits
    assert _montage(images[:2], (3, 2)).shape == (5, 7)


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_same_figure_is_the_same_file(tmp_path, ending):
    for name in ("one", "two"):
        plot_panels(PHI, {"(a)": [line("Rect", "none")]}, tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()
