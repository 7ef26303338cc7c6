"""The pictures of the evaluation, and what every picture is drawn with."""

import os
import re
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import AttackTable, Examples
from nnlite.evaluation.finite_step import convergence
from nnlite.evaluation.pictures import (
    COLOURS,
    SETTINGS,
    _styles,
    check_picture,
    plot_accuracy,
    plot_convergence,
    plot_examples,
    run_label,
)
from nnlite.methods import METHODS
from nnlite.network import mlp
from nnlite.penalties import L1

TABLE = AttackTable((0.0, 0.1), {"rect": np.array([98.0, 40.0]), "mine": np.array([99.0, 80.0])}, 0.0)
KINDS = {"rect": "none", "mine": "dgl1"}


@pytest.mark.parametrize("name", ["curve.png", "deep/er/curve.svg"])
def test_the_curves_are_drawn(tmp_path, name):
    plot_accuracy(TABLE, KINDS, "a title", tmp_path / name)
    head = (tmp_path / name).read_bytes()[:8]
    assert head == b"\x89PNG\r\n\x1a\n" if name.endswith("png") else head.startswith(b"<?xml")


@pytest.fixture
def texts(tmp_path, monkeypatch):
    """Draw into an SVG whose text is text, and return it line by line; the powers of ten are drawn letter by letter."""

    def texts(plot, *args):
        monkeypatch.setitem(SETTINGS, "svg.fonttype", "none")
        plot(*args, tmp_path / "drawn.svg")
        drawn = re.sub(r"<!--.*?-->", "", (tmp_path / "drawn.svg").read_text("utf-8"), flags=re.DOTALL)
        found = [re.sub(r"<[^>]*>|\s*\n\s*", "", one) for one in re.findall(r"<text.*?</text>", drawn, re.DOTALL)]
        return [text for text in found if text]

    return texts


def test_the_svg_names_every_model_and_figure(tmp_path, monkeypatch):
    images = np.random.default_rng(0).random((3, 2, 4))
    seen = {"rect": np.array([[0, 1], [1, 1], [2, 0]]), "mine": np.array([[0, 0], [1, 1], [2, 2]])}
    cases = Examples(TABLE.phi, images, np.array([0, 1, 2]), seen)
    monkeypatch.setitem(SETTINGS, "svg.fonttype", "none")
    monkeypatch.setitem(SETTINGS, "image.composite_image", False)
    plot_examples(cases, TABLE, KINDS, (2, 2), "a title", tmp_path / "images.svg")
    text = (tmp_path / "images.svg").read_text("utf-8")
    for word in ("a title", "rect", "mine", "φ = 0.1", "40.0 %", "80.0 %"):
        assert word in text
    assert text.count("<image") == 6


@pytest.mark.parametrize(
    ("name", "label"),
    [
        ("dgl1-lam0.01-phi0.1-seed2", "dgl1 λ = 0.01 φ = 0.1-seed2"),
        ("rect", "rect"),
        ("my-lamb-philip", "my-lamb-philip"),
        ("cost-$1", r"cost-\$1"),
    ],
)
def test_lambda_and_phi_are_drawn_as_letters(name, label):
    assert run_label(name) == label


def test_rows_of_a_table_are_drawn_as_bars(figures, tmp_path):
    rows = np.random.default_rng(0).uniform(-0.2, 1.2, (3, 2, 4))
    seen = {"rect": np.array([[0, 1], [1, 1], [2, 0]])}
    cases = Examples(TABLE.phi, rows, np.array([0, 1, 2]), seen)
    plot_examples(cases, TABLE, KINDS, (4,), "a title", tmp_path / "rows.png")
    (axes,) = figures[0].axes
    drawn = [patch.get_data() for patch in axes.patches if hasattr(patch, "get_data")]
    assert (len(drawn), len(axes.images)) == (6, 0)
    bars = np.array([(one.baseline - one.values) / 0.94 for one in drawn]).reshape(2, 3, 4)
    np.testing.assert_allclose(bars, rows.clip(0, 1).swapaxes(0, 1))
    assert "the first test row of each class, as bars" in "".join(text.get_text() for text in axes.texts)


@pytest.mark.parametrize(("channels", "shown"), [(1, (2, 2)), (3, (2, 2, 3)), (4, (2, 2))])
def test_images_of_three_channels_are_drawn_in_colour(figures, tmp_path, channels, shown):
    images = np.random.default_rng(0).random((3, 2, 4 * channels))
    cases = Examples(TABLE.phi, images, np.array([0, 1, 2]), {"rect": np.zeros((3, 2), int)})
    plot_examples(cases, TABLE, KINDS, (2, 2, channels), "a title", tmp_path / "images.png")
    assert [image.get_array().shape for image in figures[0].axes[0].images] == [shown] * 6


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


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("picture.docx", "a name that ends in .png, .svg, .pdf, found 'picture.docx'"),
        ("file/curve.png", "cannot write .*file/curve.png"),
        ("folder.png", "cannot write .*folder.png .Is a directory"),
    ],
)
def test_what_cannot_be_drawn_is_refused_before_anything_is_computed(tmp_path, name, said):
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(NnliteError, match=said):
        check_picture(tmp_path / name)


def test_the_check_leaves_what_is_there(tmp_path):
    (tmp_path / "curve.png").write_text("old")
    check_picture(str(tmp_path / "curve.png"))
    check_picture(tmp_path / "new" / "curve.png")
    assert {path.name for path in tmp_path.rglob("*")} == {"curve.png", "new"}
    assert (tmp_path / "curve.png").read_text() == "old"


def test_a_place_that_cannot_be_written_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NnliteError, match="cannot write"):
        plot_accuracy(TABLE, KINDS, "a title", tmp_path / "file" / "curve.png")


@pytest.mark.parametrize("ending", ["svg", "png"])
def test_the_same_figure_is_the_same_file(tmp_path, ending):
    for name in ("one", "two"):
        plot_accuracy(TABLE, KINDS, "a title", tmp_path / f"{name}.{ending}")
    assert (tmp_path / f"one.{ending}").read_bytes() == (tmp_path / f"two.{ending}").read_bytes()


def test_a_picture_that_cannot_be_finished_leaves_the_old_one(tmp_path, monkeypatch):
    def half(_, place, **__):
        Path(place).write_bytes(b"half")
        raise OSError(28, "No space left on device")

    (tmp_path / "curve.png").write_bytes(b"old")
    monkeypatch.setattr("matplotlib.figure.Figure.savefig", half)
    with pytest.raises(NnliteError, match="No space left on device"):
        plot_accuracy(TABLE, KINDS, "a title", tmp_path / "curve.png")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"curve.png": b"old"}


DRAW = """
import sys
from nnlite.evaluation.accuracy import AttackTable
from nnlite.evaluation.pictures import plot_accuracy
plot_accuracy(AttackTable((0.0, 0.1), {"$^$": [98.0, 40.0]}, 0.0), {"$^$": "none"}, "a title", sys.argv[1])
import matplotlib
print(matplotlib.rcParams["backend"])
"""


@pytest.mark.parametrize(
    ("backend", "kept"),
    [("", "agg"), ("svg", "svg"), ("module://matplotlib_inline.backend_inline", None), ("no backend", "agg")],
)
@pytest.mark.parametrize("settings", ["", "text.usetex: True\nfont.size: 30\naxes.grid: True\nsavefig.dpi: 20\n"])
def test_the_users_matplotlib_settings_change_nothing(tmp_path, backend, kept, settings):
    (tmp_path / "matplotlibrc").write_text("backend: agg\n" + settings)
    environment = {**os.environ, "MPLBACKEND": backend, "MATPLOTLIBRC": str(tmp_path)}
    place = tmp_path / "curve.png"
    done = subprocess.run([sys.executable, "-c", DRAW, place], env=environment, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert kept in (None, done.stdout.strip())  # what it was told to show figures with stays for the user's own
    plot_accuracy(AttackTable((0.0, 0.1), {"$^$": [98.0, 40.0]}, 0.0), {"$^$": "none"}, "a title", tmp_path / "b.png")
    assert place.read_bytes() == (tmp_path / "b.png").read_bytes()


NAMES = ["$^$", r"a\$b$", r"$\frac{1}$", "100 $"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_drawn_as_it_is(texts, name):
    table = AttackTable((0.0, 0.1), {name: np.array([98.0, 40.0])}, 0.0)
    drawn = texts(plot_accuracy, table, {name: "none"}, f"{name} crafts\nby {name}")
    assert {name, f"{name} crafts", f"by {name}"} <= set(drawn)
    cases = Examples(table.phi, np.zeros((1, 2, 4)), np.array([0]), {name: np.array([[0, 1]])})
    drawn = texts(plot_examples, cases, table, {name: "none"}, (2, 2), f"{name} crafts\nby {name}")
    assert {name, f"{name} crafts", f"by {name}"} <= set(drawn)


def test_the_axes_of_the_finite_step_have_powers_of_ten(texts):
    rng = np.random.default_rng(0)
    x, y = rng.random((20, 6), np.float32).astype(np.float64), rng.integers(0, 3, 20)
    found = convergence(mlp((6, 8, 3), rng).astype(np.float64), x, y, L1)
    drawn = texts(plot_convergence, found, "$10^x$")
    assert {"10−7", "10−5", "10−1", "$10^x$"} <= set(drawn)
    assert not [text for text in drawn if "mathdefault" in text]


def test_without_a_path_the_figure_is_shown_by_a_notebook(tmp_path):
    plot_accuracy(TABLE, KINDS, "a title", str(tmp_path / "curve.png"))
    figure = plot_accuracy(TABLE, KINDS, "a title")
    with mpl.rc_context({"font.size": 30, "text.usetex": True}):
        shown = figure._repr_png_()
    assert shown == (tmp_path / "curve.png").read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["curve.png"]
