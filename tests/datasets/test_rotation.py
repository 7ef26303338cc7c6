import hashlib
import logging
import os

import numpy as np
import pytest
from closed import close
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlite.datasets import Samples
from nnlite.datasets.catalog import locate
from nnlite.datasets.rotation import ANGLES, _read, rotate, rotated
from nnlite.errors import NnliteError


@pytest.fixture
def samples():
    """Return three images of 5 x 5 with a bright pixel right of the centre."""
    images = np.zeros((3, 25), np.uint8)
    images[:, 2 * 5 + 4] = (100, 150, 255)
    return Samples(images, np.array([7, 8, 9]), 255.0)


def test_the_classes_are_the_paper_s_in_its_order():
    # footnote 4: 0, 15 and 30 degrees to the left, 15 and 30 to the right; left is positive, see below
    assert ANGLES == (0, 15, 30, -15, -30)


def test_left_is_against_the_clock():
    image = np.zeros((1, 25), np.uint8)
    image[0, 2 * 5 + 4] = 200  # right of the centre; a quarter to the left brings it above
    assert np.argwhere(rotate(image, (5, 5), 90).reshape(5, 5)).tolist() == [[0, 2]]
    assert np.argwhere(rotate(image, (5, 5), -90).reshape(5, 5)).tolist() == [[4, 2]]


def test_a_small_angle_by_hand():
    # bilinear: the value at (row 2, column 4) of the image turned by a comes from cos a, sin a around the centre (2, 2)
    image = np.arange(25, dtype=np.float64).reshape(1, 25)
    angle = np.deg2rad(15)
    row, column = 2 + np.sin(angle) * 1, 2 + np.cos(angle) * 1  # seen from (2, 3)
    # on the plane 5 row + column bilinear interpolation is exact
    assert rotate(image, (5, 5), 15).reshape(5, 5)[2, 3] == pytest.approx(5 * row + column, rel=1e-6)


def test_five_blocks_keep_the_digits_and_name_the_rotation(samples, tmp_path):
    five = rotated(samples, (5, 5), tmp_path)
    assert five.images.shape == (15, 25)
    assert five.images.dtype == np.uint8
    assert (five.images[:3] == samples.images).all()
    assert five.labels.tolist() == [7, 8, 9] * 5
    assert five.auxiliary["rotation"].tolist() == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3 + [4] * 3
    for k, degrees in enumerate(ANGLES):
        if degrees:
            assert (five.images[3 * k : 3 * k + 3] == rotate(samples.images, (5, 5), degrees)).all()
    assert five.white == 255.0


def test_the_second_time_the_set_comes_from_the_cache(samples, tmp_path, monkeypatch):
    first = rotated(samples, (5, 5), tmp_path)
    monkeypatch.setattr("nnlite.datasets.rotation.rotate", lambda *args: pytest.fail("rotated again"))
    assert (rotated(samples, (5, 5), tmp_path).images == first.images).all()


def test_other_images_have_another_place_in_the_cache(samples, tmp_path):
    rotated(samples, (5, 5), tmp_path)
    rotated(samples[:2], (5, 5), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


DAMAGES = {
    "flipped": lambda content: bytes([content[0] ^ 1]) + content[1:],
    "flipped checksum": lambda content: content[:-1] + bytes([content[-1] ^ 1]),
    "no checksum": lambda content: content[:-32],
    "cut": lambda content: content[:100],
    "empty": lambda content: b"",
    "too long": lambda content: content + b"\0",
    "twice": lambda content: content + content,
    "a checksum of its own": lambda content: content[:100] + hashlib.sha256(content[:100]).digest(),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_set_is_rebuilt_and_said(samples, tmp_path, caplog, damage):
    first = rotated(samples, (5, 5), tmp_path)
    (path,) = tmp_path.iterdir()
    content = path.read_bytes()
    path.write_bytes(damage(content))
    with caplog.at_level(logging.WARNING, "nnlite"):
        again = rotated(samples, (5, 5), tmp_path)
    assert "damaged" in caplog.text
    assert (again.images == first.images).all()
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]


def test_any_bytes_in_the_cache_are_believed_only_with_their_checksum(tmp_path):
    path, checked = tmp_path / "set", st.binary(max_size=24).map(lambda b: b + hashlib.sha256(b).digest())

    @settings(deadline=None, max_examples=300)
    @given(st.binary(max_size=100) | st.binary(min_size=44, max_size=44) | checked)
    def holds(content):
        path.write_bytes(content)
        turned = np.zeros((3, 4), np.uint8)
        right = len(content) == 44 and content[12:] == hashlib.sha256(content[:12]).digest()
        assert _read(path, turned) == right
        assert not right or turned.tobytes() == content[:12]

    holds()


@pytest.mark.timeout(60)
def test_a_cached_file_of_a_terabyte_is_not_read_to_its_end(samples, tmp_path, caplog):
    rotated(samples, (5, 5), tmp_path)
    (path,) = tmp_path.iterdir()
    os.truncate(path, 1 << 40)  # full of holes: it takes no place on the disk
    with caplog.at_level(logging.WARNING, "nnlite"):
        rotated(samples, (5, 5), tmp_path)
    assert "damaged" in caplog.text


def test_a_cache_that_cannot_be_written_is_done_without_and_said(samples, tmp_path, caplog):
    (tmp_path / "file").write_text("")
    with caplog.at_level(logging.WARNING, "nnlite"):
        five = rotated(samples, (5, 5), tmp_path / "file" / "cache")
    assert "going on without" in caplog.text
    assert len(five) == 15


def test_a_cache_that_may_not_be_searched_is_done_without_and_said(samples, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("NNLITE_DATA", raising=False)
    close(monkeypatch, str(tmp_path / "nnlite"))
    assert len(rotated(samples, (5, 5))) == 15
    assert "cannot keep the rotated images (Permission denied); going on without" in caplog.text
    assert locate("mnist") is None


def test_a_full_disk_leaves_nothing_behind(samples, tmp_path, monkeypatch, caplog):
    def full(*names):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with caplog.at_level(logging.WARNING, "nnlite"):
        rotated(samples, (5, 5), tmp_path)
    assert "No space left" in caplog.text
    assert list(tmp_path.iterdir()) == []


def test_what_has_no_two_dimensions_is_refused(samples, tmp_path):
    with pytest.raises(NnliteError, match="two dimensions"):
        rotated(samples, (25, 1), tmp_path)


def test_mnist_s_rotated_set_takes_less_than_250_mb(mnist):
    assert len(ANGLES) * mnist.train.images.nbytes < 250e6
    assert mnist.train.images.dtype == np.uint8  # rotated() keeps the type
