"""The paper's figures: a model looks the same in every panel, and every digit is in its place."""

import numpy as np
import pytest

from nnlite.evaluation.accuracy import Examples
from nnlite.evaluation.pictures import COLOURS, SETTINGS
from nnlite.paper.pictures import plot_digits, plot_panels
from nnlite.paper.tables import FAMILIES, PHI, Model

RECT, DGL1 = Model("Rect"), Model("DGL1", 0.01, 0.1)


def falling(lowest=10.0):
    return np.linspace(99, lowest, 5)


def test_a_family_looks_the_same_in_every_panel_and_multi_task_is_open_and_dashed(figures, tmp_path):
    curves = {Model(family): falling() for family in FAMILIES}
    reverse = dict(reversed(curves.items()))
    plot_panels({"(a) one": curves, "(b) other": reverse}, tmp_path / "panels.png")
    (figure,) = figures
    styles = {
        (curve.get_color(), curve.get_linestyle(), curve.get_marker(), curve.get_markerfacecolor())
        for curve in figure.axes[0].lines
    }
    assert len({(dash, marker, face == "white") for _, dash, marker, face in styles}) == len(FAMILIES)  # without colour
    for axes, shown in zip(figure.axes, (curves, reverse), strict=True):
        for curve, (model, accuracy) in zip(axes.lines, shown.items(), strict=True):
            assert curve.get_color() == COLOURS[model.reg]
            assert (curve.get_linestyle(), curve.get_markerfacecolor() == "white") == (
                ("--", True) if model.multitask else ("-", False)
            )
            assert curve.get_xdata() == pytest.approx(PHI)
            assert curve.get_ydata() == pytest.approx(accuracy)
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == list(FAMILIES)


def test_only_a_panel_of_high_accuracies_cuts_its_axis_and_says_so(figures, tmp_path):
    panels = {"low": {RECT: falling()}, "high": {RECT: falling(93)}, "perfect": {RECT: falling(99)}}
    plot_panels(panels, tmp_path / "panels.png", columns=3)
    low, high, perfect = figures[0].axes
    assert low.get_ylim()[0] < 0 < 10
    assert "starts" not in low.get_ylabel()
    assert 89 < high.get_ylim()[0] < 93
    assert "the axis starts at 90 %" in high.get_ylabel()
    assert "the axis starts at 95 %" in perfect.get_ylabel()
    assert low.get_title(loc="left") == "low"


def test_panels_stand_in_rows_and_columns(figures, tmp_path):
    plot_panels({f"panel {k}": {RECT: falling()} for k in range(3)}, tmp_path / "panels.png", columns=2)
    places = [axes.get_position() for axes in figures[0].axes]
    assert places[0].y0 == pytest.approx(places[1].y0)
    assert places[2].y1 < places[0].y0
    assert [axes.axison for axes in figures[0].axes] == [True, True, True, False]


def examples(wrong):
    """Seven digits at five phi, of which the first `wrong` are misread at the last phi."""
    labels = np.arange(7)
    seen = np.repeat(labels[:, None], 5, axis=1)
    seen[:wrong, -1] = 9
    return Examples(PHI, np.random.default_rng(0).random((7, 5, 4)), labels, {"self": seen})


def test_the_svg_of_the_digits_names_models_noise_accuracy_and_predictions(tmp_path, monkeypatch):
    accuracies = {
        RECT: np.array([97.99, 96.8, 95.01, 49.06, 10.83]),
        DGL1: np.array([98.83, 98.63, 98.34, 94.41, 83.74]),
    }
    monkeypatch.setitem(SETTINGS, "svg.fonttype", "none")
    monkeypatch.setitem(SETTINGS, "image.composite_image", False)
    plot_digits({RECT: examples(3), DGL1: examples(1)}, accuracies, tmp_path / "figure3.svg")
    text = (tmp_path / "figure3.svg").read_text("utf-8")
    for word in ("Rect", "DGL1", "λ = 0.01", "φ = 0.005", "10.83 %", "94.41 %"):
        assert word in text
    assert text.count("<image") == 2 * 5 * 7
    assert text.count(">9</text>") == 3 + 1


def test_a_wrong_prediction_is_white_on_the_models_colour(figures, tmp_path):
    plot_digits({RECT: examples(3), DGL1: examples(1)}, {RECT: falling(), DGL1: falling()}, tmp_path / "figure3.png")
    marked = [text for text in figures[0].axes[0].texts if text.get_bbox_patch()]
    assert [text.get_color() for text in marked] == ["white"] * 4
    assert {text.get_text() for text in marked} == {"9"}
    dgl1 = [
        text for text in figures[0].axes[0].texts if text.get_color() == COLOURS["dgl1"] and text.get_fontsize() == 7
    ]
    assert len(dgl1) == 5 * 7 - 1
    # each prediction is below its digit, five digits in a line
    frames = [image.get_extent() for image in figures[0].axes[0].images[:7]]
    assert len({round(frame[3], 6) for frame in frames}) == 2
    assert all(frame[1] - frame[0] == pytest.approx(0.94) for frame in frames)
