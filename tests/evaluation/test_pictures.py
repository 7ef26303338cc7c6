"""The pictures of the evaluation, and what every picture is drawn with."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest

from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import AttackTable, Examples
from nnlite.evaluation.pictures import COLOURS, _styles, check_format, plot_accuracy, plot_examples
from nnlite.methods import METHODS

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


def test_an_unknown_format_is_refused_before_anything_is_computed():
    with pytest.raises(NnliteError, match=r"\.png"):
        check_format(Path("picture.docx"))


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
