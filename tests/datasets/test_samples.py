"""Arrays of a user's own, splits of them, and batches."""

import numpy as np
import pytest
import strict_cupy

from nnlite.datasets import Dataset, Samples, check_samples
from nnlite.errors import NnliteError

ONE, LABEL = np.array([[0.0, 1.0]]), np.array([3])


@pytest.mark.parametrize(
    ("images", "labels", "words"),
    [
        ([[0.0, np.nan]], LABEL, "images: .*NaN"),
        ([[np.inf, 0.0]], LABEL, "images: .*infinity"),
        ([[-0.1, 0.5]], LABEL, r"images: .*\[0, 1\].*-0\.1"),
        ([[0.0, 1.5]], LABEL, r"images: .*\[0, 1\].*1\.5"),
        (np.zeros((1, 2, 0)), LABEL, r"images: .*\(1, 2, 0\)"),
        (np.zeros(2), LABEL, r"images: .*\(2,\)"),
        (np.zeros((0, 2)), np.zeros(0, int), r"images: .*\(0, 2\)"),
        ([["a", "b"]], LABEL, "images: .*numbers"),
        (ONE, np.array([10]), r"labels: .*\[0, 9\].*10"),
        (ONE, np.array([-1]), r"labels: .*\[0, 9\].*-1"),
        (ONE, np.array([3.0]), "labels: .*integers.*float64"),
        (ONE, np.array([True]), "labels: .*integers.*bool"),
        (ONE, np.array([1, 2]), r"labels: .*\(1,\).*\(2,\)"),
        (ONE, np.array([[1]]), r"labels: .*\(1,\).*\(1, 1\)"),
        (ONE, np.array(1), r"labels: .*\(1,\).*\(\)"),
        ([[0.0, 1.0], [0.5]], np.array([1, 2]), "images, labels: expected arrays on the host, one row for each"),
    ],
)
def test_a_bad_array_is_named_with_its_fault(images, labels, words):
    with pytest.raises(NnliteError, match=f"^{words}"):
        check_samples(images, labels, classes=10)


def test_good_arrays_pass_and_are_not_changed():
    images, labels = np.array([[0, 16], [8, 4]], np.uint8), np.array([9, 0], np.uint8)
    x, y = check_samples(images, labels, white=16).batch(slice(None))
    assert x.tolist() == [[0, 1], [0.5, 0.25]]
    assert y.tolist() == [9, 0]
    assert images.tolist() == [[0, 16], [8, 4]]
    assert images.dtype == labels.dtype == np.uint8


def test_the_number_of_classes_bounds_the_labels():
    check_samples(ONE, np.array([2]), classes=3)
    with pytest.raises(NnliteError, match=r"labels: .*\[0, 1\]"):
        check_samples(ONE, np.array([2]), classes=2)


def test_where_the_number_of_classes_is_not_known_labels_begin_at_0_and_are_whole():
    assert check_samples([[0.0, 1.0]], [1000]).labels.tolist() == [1000]
    for label in (-1, np.uint64(1 << 63)):
        with pytest.raises(NnliteError, match=r"^labels: expected values in \[0, \d+\], found "):
            check_samples(ONE, np.array([label]))


def test_arrays_on_a_gpu_are_refused_in_plain_words():
    with pytest.raises(NnliteError, match=r"^images, labels: expected arrays on the host"):
        check_samples(strict_cupy.asarray(ONE), LABEL)


# --- splits


def test_images_of_any_rank_become_rows_of_pixels():
    images = np.random.default_rng(0).random((3, 1, 4, 5))
    for shape in ((3, 20), (3, 4, 5), (3, 1, 4, 5), (3, 4, 5, 1)):
        assert (check_samples(images.reshape(shape), [0, 1, 2]).images == images.reshape(3, 20)).all()


@pytest.mark.parametrize("white", [0, -1, np.inf, np.nan])
def test_white_is_a_number_above_0(white):
    with pytest.raises(NnliteError, match="white: expected the value of a white pixel"):
        check_samples(ONE, LABEL, white=white)


FOUR = check_samples(np.full((4, 6), 0.5), np.array([0, 1, 2, 2]))


def test_splits_that_fit_make_a_data_set():
    data = Dataset("own", FOUR[:2], FOUR[2:3], FOUR[3:], (2, 3), 3)
    assert data.features == 6
    assert [len(data.train), len(data.validation), len(data.test)] == [2, 1, 1]


@pytest.mark.parametrize("split", ["train", "validation", "test"])
@pytest.mark.parametrize(
    ("samples", "shape", "classes", "words"),
    [
        (FOUR[:0], (2, 3), 3, "expected at least one image, found none"),
        (check_samples(ONE, np.array([1])), (2, 3), 3, r"expected images of \(2, 3\), found 2 pixels"),
        (FOUR, (2, 3), 2, "y: expected classes from 0 to 1, found 0 to 2"),
        (Samples(FOUR.images, FOUR.labels - 1, 1.0), (2, 3), 3, "y: expected classes from 0 to 2, found -1 to 1"),
        (Samples(FOUR.images, FOUR.labels.astype(str), 1.0), (2, 3), 3, "y: expected integers, found <U"),
        (Samples(FOUR.images, FOUR.labels[:3], 1.0), (2, 3), 3, r"y: expected an array \(4,\), .*found shape \(3,\)"),
    ],
)
def test_a_split_that_does_not_fit_is_named_with_its_fault(split, samples, shape, classes, words):
    splits = dict.fromkeys(("train", "validation", "test"), FOUR[:2]) | {split: samples}
    with pytest.raises(NnliteError, match=f"^{split}: {words}"):
        Dataset("own", **splits, shape=shape, classes=classes)


# --- batches


def test_a_batch_is_float32_in_0_to_1(digits):
    x, y = digits.train.batch(slice(None))
    assert x.dtype == np.float32
    assert x.shape == (1097, 64)
    assert (x.min(), x.max()) == (0, 1)  # the whole range is used, so the scale is 16 and not 255
    assert y.dtype == np.int64


def test_a_batch_follows_its_row_numbers(digits):
    rows = np.array([[5, 3], [0, 5]])
    x, y = digits.train.batch(rows, np.float64)
    assert x.shape == (2, 2, 64)
    assert x.dtype == np.float64
    np.testing.assert_array_equal(x[1, 1], digits.train.images[5] / 16)
    np.testing.assert_array_equal(y, digits.train.labels[rows])


def test_auxiliary_labels_follow_the_rows():
    samples = Samples(np.zeros((3, 2), np.uint8), np.array([4, 5, 6]), 255.0, {"rotation": np.array([0, 1, 2])})
    assert samples[1:].auxiliary["rotation"].tolist() == [1, 2]
    assert samples.auxiliary_labels(np.array([2, 0]))["rotation"].tolist() == [2, 0]
