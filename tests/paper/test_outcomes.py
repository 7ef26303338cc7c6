"""The file of outcomes: every bit comes back, and what is no such file is refused by name."""

import numpy as np
import pytest

from nnlite.errors import NnliteError
from nnlite.paper import outcomes
from nnlite.paper.outcomes import OUTCOMES, read_outcomes, write_outcomes
from nnlite.paper.scores import EXACT, NAIVE, SQUARED, Scores
from nnlite.paper.tables import Model
from nnlite.storage.tensors import write_arrays

RECT, DGL1 = Model("Rect"), Model("DGL1", 0.1, 0.1)


@pytest.mark.parametrize("images", [1, 63, 64, 65, 500])
def test_each_outcome_comes_back(tmp_path, images):
    rng = np.random.default_rng(images)
    keys = [(RECT, EXACT, DGL1), (RECT, NAIVE, DGL1), (DGL1, SQUARED, DGL1)]
    correct = {key: rng.random((2, 5, images)) < 0.5 for key in keys}
    write_outcomes(tmp_path, images, correct)
    found = read_outcomes(tmp_path, images)
    assert sorted(found, key=str) == sorted(correct, key=str)
    assert all(found[key].dtype == bool and (found[key] == correct[key]).all() for key in keys)
    assert Scores.of(images, found, {}).values[keys[0]] == pytest.approx(100 * correct[keys[0]].mean(axis=-1))
    assert [path.name for path in tmp_path.iterdir()] == [OUTCOMES]


def test_an_image_is_a_bit(tmp_path):
    write_outcomes(tmp_path, 10_000, {(RECT, EXACT, RECT): np.ones((1, 5, 10_000), bool)})
    assert (tmp_path / OUTCOMES).stat().st_size < 5 * 10_048 / 8 + 300


def test_without_the_file_there_are_none(tmp_path):
    assert read_outcomes(tmp_path, 500) == {}


@pytest.mark.parametrize(
    ("arrays", "images", "words"),
    [
        ({"rect/r1/rect": np.zeros((1, 5, 8), np.int64)}, "400", "it is of 400 images, not 500"),
        ({"rect/r3/rect": np.zeros((1, 5, 8), np.int64)}, "500", "are no outcomes"),
        ({"rect/r1/rect": np.zeros((1, 5, 9), np.int64)}, "500", "are no outcomes"),
        ({"rect/r1/rect": np.zeros((1, 5, 8), np.float64)}, "500", "are no outcomes"),
        ({"rect/r1/other": np.zeros((1, 5, 8), np.int64)}, "500", "KeyError"),
        ({"rect": np.zeros((1, 5, 8), np.int64)}, "500", "damaged"),
        ({}, "many", "damaged"),
    ],
)
def test_what_holds_other_outcomes_is_refused(tmp_path, arrays, images, words):
    write_arrays(tmp_path / OUTCOMES, arrays or {"x": np.zeros((1, 1))}, {"images": images})
    with pytest.raises(NnliteError, match=words) as error:
        read_outcomes(tmp_path, 500)
    assert "move it away" in str(error.value)


def test_a_file_cut_off_is_refused(tmp_path):
    write_outcomes(tmp_path, 500, {(RECT, EXACT, RECT): np.ones((1, 5, 500), bool)})
    content = (tmp_path / OUTCOMES).read_bytes()
    (tmp_path / OUTCOMES).write_bytes(content[:-9])
    with pytest.raises(NnliteError, match="damaged"):
        read_outcomes(tmp_path, 500)


def test_a_full_disk_leaves_the_old_file(tmp_path, monkeypatch):
    write_outcomes(tmp_path, 8, {(RECT, EXACT, RECT): np.ones((1, 5, 8), bool)})
    before = (tmp_path / OUTCOMES).read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(outcomes, "write_arrays", full)
    with pytest.raises(NnliteError, match=r"No space left on device.*repeat the command"):
        write_outcomes(tmp_path, 8, {})
    assert (tmp_path / OUTCOMES).read_bytes() == before
