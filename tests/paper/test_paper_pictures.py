"""The paper's figures: a model looks the same in every panel, and every digit is in its place."""

import numpy as np
import pytest

from nnlite.evaluation.pictures import COLOURS, SETTINGS
from nnlite.paper.pictures import _montage, plot_digits, plot_panels
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
    plot_panels(panels, tmp_path / "panels.png")
    low, high, perfect = figures[0].axes
    assert low.get_ylim()[0] < 0 < 10
    assert "starts" not in low.get_ylabel()
    assert 89 < high.get_ylim()[0] < 93
    assert "the axis starts at 90 %" in high.get_ylabel()
    assert "the axis starts at 95 %" in perfect.get_ylabel()
    assert low.get_title(loc="left") == "low"


def test_the_svg_of_the_digits_names_models_noise_and_accuracy(tmp_path, monkeypatch):
    images = np.random.default_rng(0).random((7, 5, 4))
    accuracies = {
        RECT: np.array([97.99, 96.8, 95.01, 49.06, 10.83]),
        DGL1: np.array([98.83, 98.63, 98.34, 94.41, 83.74]),
    }
    monkeypatch.setitem(SETTINGS, "svg.fonttype", "none")
    monkeypatch.setitem(SETTINGS, "image.composite_image", False)
    plot_digits({RECT: images, DGL1: images}, accuracies, tmp_path / "figure3.svg")
    text = (tmp_path / "figure3.svg").read_text("utf-8")
    for word in ("Rect", "DGL1", "φ = 0.005", "10.83 %", "94.41 %"):
        assert word in text
    assert text.count("<image") == 10


def test_a_montage_puts_each_digit_in_its_place():
    images = np.arange(1, 8)[:, None] * np.ones((7, 9))
    picture = _montage(images)
    assert picture.shape == (2 * 4 + 1, 5 * 4 + 1)
    assert picture[1:4, 1:4].tolist() == [[1, 1, 1]] * 3
    assert picture[5:8, 5:8].tolist() == [[7, 7, 7]] * 3
    assert picture.sum() == images.sum()  # nothing but the digits
    assert _montage(images[:2]).shape == (5, 9)
