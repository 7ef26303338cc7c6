"""Data of a user's own: tables, arrays and folders of images, from the file to the splits that a net is shown."""

import csv
import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from sklearn.preprocessing import MinMaxScaler
from tables import blobs, write_blobs, write_csv, write_idx, write_idx_folder

from nnlite.attacks import PGD
from nnlite.datasets import Description, check_same, load, reload
from nnlite.datasets.description import Split, read_description
from nnlite.datasets.loading import source_name
from nnlite.datasets.own import load_own, read_rows
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import evaluate_attack
from nnlite.inputs import UNIT
from nnlite.training import Settings, train

SPLITS = ("train", "validation", "test")
GREY = np.random.default_rng(0).integers(0, 256, (30, 4, 5), np.uint8)
LABELS = np.arange(30) % 3


def splits_of(data):
    return [getattr(data, name) for name in SPLITS]


def npz(path, **arrays):
    np.savez(path / "own.npz", **arrays)
    return path / "own.npz"


# --- tables


def test_a_table_becomes_a_data_set_scaled_by_its_training_rows(tmp_path):
    path = write_blobs(tmp_path / "wine.csv")
    data = load(str(path), seed=3)
    about = data.description
    assert (data.name, data.shape, data.classes) == ("wine", (3,), 3)
    assert (about.classes, about.features, about.label) == (("low", "middle", "top"), ("f0", "f1", "f2"), "kind")
    assert about.split == Split((66, 12, 12), SPLITS, 3, (0.7, 0.15, 0.15))
    with path.open(encoding="utf-8") as file:
        table = list(csv.reader(file))[1:]
    x, y = np.array([row[:3] for row in table], float), [about.classes.index(row[3]) for row in table]
    scaled = (x - about.low) / np.subtract(about.high, about.low)
    parts = [[int(np.abs(scaled - image).max(axis=1).argmin()) for image in one.images] for one in splits_of(data)]
    assert sorted(row for rows in parts for row in rows) == list(range(90))
    scaler = MinMaxScaler().fit(x[parts[0]])
    for rows, samples in zip(parts, splits_of(data), strict=True):
        np.testing.assert_allclose(samples.images, scaler.transform(x[rows]), atol=1e-6)
        assert samples.labels.tolist() == [y[row] for row in rows]
        assert (samples.images.dtype, samples.white) == (np.float32, 1)


def test_the_seed_and_the_shares_decide_the_split(tmp_path):
    path = str(write_blobs(tmp_path / "t.csv"))
    one, again, other = load(path, 1), load(path, 1), load(path, 2)
    assert np.array_equal(one.train.images, again.train.images)
    assert one.description == again.description
    assert not np.array_equal(one.train.images, other.train.images)
    assert load(path, split=(0.4, 0.3, 0.3)).description.split.sizes == (36, 27, 27)


def test_rows_beyond_the_training_range_are_kept_and_counted_and_widen_the_box(tmp_path):
    x, y = blobs(60)
    x_test = np.array([x[:40].max(axis=0) + 1, x[:40].mean(axis=0), x[:40].min(axis=0) - 1])
    data = load(str(npz(tmp_path, x_train=x[:40], y_train=y[:40], x_test=x_test, y_test=y[:3])))
    assert (data.test.images[0] > 1).all()
    assert (data.test.images[2] < 0).all()
    assert (data.test.box.low == data.test.images[2]).all()
    assert (data.test.box.high == data.test.images[0]).all()
    assert data.train.box is UNIT
    assert "2 of 3 test rows lie beyond the training range; attacks may reach as far" in data.notes
    net = train(Settings(hidden=(8,), epochs=2), data).net
    table = evaluate_attack(net, {"net": net}, data.test, PGD(), (0.0, 0.5))
    assert table.correct["net"].shape == (2, 3)


def test_rows_too_far_beyond_are_refused(tmp_path):
    x, y = blobs(60)
    x_test = np.array([x[0], [0, 1e300, 0], x[1]])
    with pytest.raises(NnliteError, match="row 2: expected values near the training range"):
        load(str(npz(tmp_path, x_train=x[:40], y_train=y[:40], x_test=x_test, y_test=y[:3])))


def test_a_constant_column_becomes_0_and_is_told(tmp_path):
    x, y = blobs(30)
    path = write_csv(tmp_path / "t.csv", ["same", "f", "kind"], [[7, x[k, 0], y[k]] for k in range(30)])
    data = load(str(path))
    assert all((samples.images[:, 0] == 0).all() for samples in splits_of(data))
    assert any("same" in note for note in data.notes)


def test_more_names_than_a_run_can_record_are_refused(tmp_path):
    header = [*(f"{k:05}" + 150 * "x" for k in range(4000)), "kind"]
    path = write_csv(tmp_path / "t.csv", header, [[*(row % 7 for _ in range(4000)), row % 2] for row in range(6)])
    with pytest.raises(NnliteError, match=r"expected names and ranges of at most 500,000 bytes, .*shorten the names"):
        load(path)


def test_two_classes_and_three_examples_of_one_are_enough(tmp_path):
    rows = [[k, k % 7, "rare" if k < 3 else "common"] for k in range(40)]
    data = load(str(write_csv(tmp_path / "t.csv", ["a", "b", "kind"], rows)))
    assert [(samples.labels == 1).sum() for samples in splits_of(data)] == [1, 1, 1]


# --- arrays


@pytest.mark.parametrize(
    ("images", "low", "high"),
    [(GREY, 0, 255), (GREY / 255, 0, 1), (GREY / 127.5 - 1, -1, 1), (GREY.astype(np.float32), 0, 255)],
)
def test_images_are_scaled_by_their_range(tmp_path, images, low, high):
    data = load(str(npz(tmp_path, x=images, y=LABELS)))
    about = data.description
    assert (data.shape, about.features, about.low, about.high) == ((4, 5), (), (low,), (high,))
    shown = np.concatenate([samples.batch(slice(None))[0] for samples in splits_of(data)])
    expected = GREY.reshape(30, -1) / 255
    order = [int(np.abs(expected - row).max(axis=1).argmin()) for row in shown]
    assert sorted(order) == list(range(30))
    np.testing.assert_allclose(shown, expected[order], atol=1e-6)
    labels = np.concatenate([samples.labels for samples in splits_of(data)])
    assert labels.tolist() == LABELS[order].tolist()


def test_bytes_stay_bytes(tmp_path):
    data = load(str(npz(tmp_path, x=GREY[..., None], y=LABELS)))
    assert data.shape == (4, 5, 1)
    assert data.train.images.dtype == np.uint8


def test_dark_images_are_told(tmp_path):
    data = load(str(npz(tmp_path, x=GREY // 16, y=LABELS)))
    assert data.notes == ("the highest pixel is 15 of 255; rescale the images if that is their white",)


def test_a_test_part_is_kept_and_training_gives_to_validation(tmp_path):
    x, y = blobs(60)
    path = npz(tmp_path, x_train=x[:40], y_train=y[:40], x_test=x[40:], y_test=y[40:])
    for seed in (0, 1):
        data = load(str(path), seed)
        assert data.description.split.sizes[2] == 20
        assert sum(data.description.split.sizes[:2]) == 40
        assert data.test.labels.tolist() == y[40:].tolist()
        assert data.description.split.drawn == ("validation",)
    assert data.description.features == ("x0", "x1", "x2")


def test_three_parts_are_kept(tmp_path):
    x, y = blobs(60)
    parts = {"train": slice(0, 30), "validation": slice(30, 45), "test": slice(45, 60)}
    arrays = {f"{axis}_{name}": array[rows] for name, rows in parts.items() for axis, array in (("x", x), ("y", y))}
    data = load(str(npz(tmp_path, **arrays)), 5)
    assert data.description.split == Split((30, 15, 15))
    assert data.validation.labels.tolist() == y[30:45].tolist()
    with pytest.raises(NnliteError, match=r"split: .* has a part for each of train, validation, test; leave it out"):
        load(str(npz(tmp_path, **arrays)), split=(0.6, 0.2, 0.2))


X, Y = blobs(30)
OTHER = np.zeros((10, 4))
BAD_ARRAYS = {
    "objects": ({"x": X, "y": np.array(["a", None] * 15, object)}, "y: expected numbers or text, found Python objects"),
    "no y": ({"x": X}, "expected the arrays x and y, or x_train, .*; y is missing"),
    "no test labels": ({"x_train": X, "y_train": Y, "x_test": X}, "y_test is missing"),
    "one more": ({"x": X, "y": Y, "z": Y}, "z has no use; leave it out"),
    "other widths": (
        {"x_train": X, "y_train": Y, "x_test": OTHER, "y_test": Y[:10]},
        r"expected x_test of the form of x_train, \(3,\), found \(4,\)",
    ),
    "other lengths": ({"x": X, "y": Y[:-1]}, "expected a label for each of the 30 rows of x, found 29"),
    "one-hot": ({"x": X, "y": np.eye(3)[Y]}, "argmax"),
    "a column of labels": ({"x": X, "y": Y[:, None]}, "ravel"),
    "a vector": ({"x": X[:, 0], "y": Y}, r"x: expected one row for each sample, .*, found \(30,\)"),
    "text as x": ({"x": X.astype(str), "y": Y}, "x: expected numbers, found dtype <U"),
    "NaN": (
        {"x": np.where(X[7, 1] == X, np.nan, X), "y": Y},
        "x: row 7, column 1: expected a finite number",
    ),
    "an unknown class": ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 1}, "class '3' is in the test part"),
    "one class": ({"x": X, "y": 0 * Y}, "expected two classes or more, found 1"),
    "two rows": ({"x": X[:2], "y": Y[:2]}, "expected 3 samples of each class or more, .*found 1 of class '0'"),
    "a range of its own": ({"x": GREY * 7.0, "y": LABELS}, r"expected pixels in one of \[0, 1\]"),
    "wide": ({"x": np.zeros((30, 10_001)), "y": Y}, "at most 10,000 columns, found 10,001"),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_arrays_that_make_no_data_set_are_named(tmp_path, case):
    arrays, words = BAD_ARRAYS[case]
    path = npz(tmp_path, **arrays)
    with pytest.raises(NnliteError, match=words) as caught:
        load(str(path))
    assert str(path) in str(caught.value) or "labels: " in str(caught.value) or "images: " in str(caught.value)


def test_arrays_larger_than_the_memory_are_refused_by_their_header(tmp_path, monkeypatch):
    path = npz(tmp_path, x=X, y=Y)
    monkeypatch.setattr("nnlite.storage.memory.available", lambda: 900)
    monkeypatch.setattr("numpy.load", lambda *_, **__: pytest.fail("read all the same"))
    with pytest.raises(NnliteError, match=r"it needs 0 MB of memory, and 0 MB are free"):
        load(str(path))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 no zip", b"x" * 1000])
def test_what_is_no_npz_file_is_refused(tmp_path, content):
    (tmp_path / "own.npz").write_bytes(content)
    with pytest.raises(NnliteError, match=r"expected an NPZ file, as numpy.savez writes"):
        load(str(tmp_path / "own.npz"))


def test_an_npz_file_that_is_cut_off_is_refused(tmp_path):
    path = npz(tmp_path, x=GREY, y=LABELS)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(NnliteError, match=r"expected an NPZ file"):
        load(str(path))


# --- folders


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 1), (4, 5, 3)])
def test_a_folder_of_idx_files(tmp_path, packed, shape):
    data = load(str(write_idx_folder(tmp_path / "stripes", shape=shape, packed=packed)))
    assert (data.name, data.shape, data.classes) == ("stripes", shape, 3)
    assert data.description.split.sizes == (48, 12, 30)  # of 20 images of a class 3.53 go to validation, rounded to 4
    for samples in splits_of(data):
        x, y = samples.batch(slice(None))
        columns = x.reshape(-1, *shape).reshape(len(x), *shape[:2], -1).sum(axis=(1, 3))
        assert columns.argmax(axis=-1).tolist() == y.tolist()
        assert x.max() == np.float32(200 / 255)


def test_files_that_disagree_in_their_count(tmp_path):
    folder = write_idx_folder(tmp_path / "stripes")
    write_idx(folder / "t10k-labels-idx1-ubyte", np.zeros(29, np.uint8))
    with pytest.raises(NnliteError, match=r"a label for each of the 30 rows of t10k-images-idx3-ubyte, found 29"):
        load(str(folder))


def test_a_folder_that_lacks_a_file_or_has_one_twice(tmp_path):
    folder = write_idx_folder(tmp_path / "stripes")
    write_idx(folder / "t10k-labels-idx1-ubyte.gz", np.zeros(30, np.uint8), packed=True)
    with pytest.raises(NnliteError, match=r"found t10k-labels-idx1-ubyte and .*\.gz; move one of them away"):
        load(str(folder))
    (folder / "t10k-labels-idx1-ubyte.gz").unlink()
    (folder / "t10k-labels-idx1-ubyte").unlink()
    with pytest.raises(NnliteError, match=r"expected the file t10k-labels-idx1-ubyte, gzipped or not, .*; found none"):
        load(str(folder))


# --- names and paths


def test_the_name_is_the_stem_of_the_file_or_the_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_blobs(tmp_path / "my.wine.CSV")
    write_idx_folder(tmp_path / "shop.v2")
    assert (source_name("my.wine.CSV"), source_name("shop.v2/"), source_name("mnist")) == (
        "my.wine",
        "shop.v2",
        "mnist",
    )


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("", "expected one of digits, mnist, fashion-mnist, kmnist, or the path of a .npz or .csv file, .*, found ''"),
        ("wine.csv", "expected one of digits, mnist, fashion-mnist, kmnist, or the path"),
        ("wine.xlsx", "expected the path of a .npz or .csv file, .*, found 'wine.xlsx'; give another, or convert it"),
        ("a.csv", "a.csv: expected a file, found a folder; name a file in it"),
        ("digits.csv", "digits.csv: digits is the name of a data set of nnlite; rename yours"),
    ],
)
def test_what_is_no_data_set_is_said(tmp_path, monkeypatch, source, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "wine.xlsx").write_bytes(b"PK")
    (tmp_path / "a.csv").mkdir()
    write_blobs(tmp_path / "digits.csv")
    with pytest.raises(NnliteError, match=words):
        load(source)


def test_a_label_and_a_split_are_for_files_that_need_them(tmp_path):
    with pytest.raises(NnliteError, match=r"label: digits has its own; leave it out"):
        load("digits", label="kind")
    with pytest.raises(NnliteError, match=r"split: digits has its own; leave it out"):
        load("digits", split=(0.5, 0.25, 0.25))
    with pytest.raises(NnliteError, match=r"label: .*own.npz is no CSV file, and has no columns"):
        load(str(npz(tmp_path, x=X, y=Y)), label="y")


@pytest.mark.parametrize("split", [(0.5, 0.5), (0.7, 0.15, 0.2), (1, 0, 0), (0.7, 0.4, -0.1)])
def test_shares_sum_to_1(tmp_path, split):
    with pytest.raises(NnliteError, match=r"^split: expected the shares of training, validation and test"):
        load_own(write_blobs(tmp_path / "t.csv"), split=split)


# --- what is recorded


def test_a_description_is_read_as_it_was_written(tmp_path):
    for source in (write_blobs(tmp_path / "t.csv"), npz(tmp_path, x=GREY, y=LABELS), "digits"):
        found = load(str(source)).description
        assert read_description(json.loads(json.dumps(asdict(found)))) == found


ABOUT = Description("t", "0" * 64, (2,), ("a", "b"), ("f", "g"), (0.0, 0.0), (1.0, 2.0), Split((3, 1, 1)), "kind")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "../x"}, "data: name: expected a plain folder name"),
        ({"sha256": "12"}, "data: sha256: expected a SHA-256"),
        ({"classes": ["a"]}, "data: classes: expected"),
        ({"low": [0.0]}, "data: expected low and high of 2 features, found 1, 2"),
        ({"shape": [3]}, "data: expected low and high"),
        ({"split": {}}, "data: split: expected an object of sizes"),
        ({"more": 1}, "missing or unknown: .*more"),
    ],
)
def test_a_wrong_description_is_refused(change, words):
    with pytest.raises(NnliteError, match=words):
        read_description({**json.loads(json.dumps(asdict(ABOUT))), **change})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "u"}, "a run belongs to the data t, found u"),
        ({"sha256": "1" * 64}, "of SHA-256 000000000000, found 111111111111: the data have changed since"),
        ({"label": "f"}, "other label: 'kind', found 'f'"),
        ({"features": ("g", "f")}, "other features"),
        ({"high": (1.0, 3.0)}, "another split of t"),
        ({"split": Split((3, 1, 1), SPLITS, 1, (0.6, 0.2, 0.2))}, "found 0.6,0.2,0.2 of seed 1"),
    ],
)
def test_data_that_differ_are_not_the_same(change, words):
    with pytest.raises(NnliteError, match=words):
        check_same(ABOUT, replace(ABOUT, **change), "a run")


def test_where_only_validation_is_drawn_its_seed_may_differ():
    drawn = [replace(ABOUT, split=Split((3, 1, 1), ("validation",), seed)) for seed in (0, 1)]
    check_same(drawn[0], drawn[1], "a run")


def test_a_data_set_is_loaded_again_as_it_was_recorded(tmp_path):
    path = write_blobs(tmp_path / "t.csv")
    data = load(str(path), 4, split=(0.6, 0.2, 0.2))
    again = reload(str(path), data.description, "a run")
    assert np.array_equal(again.test.images, data.test.images)
    with path.open("a") as file:
        file.write("1,2,3,low\n")
    with pytest.raises(NnliteError, match=r"a run belongs to another t, .* the data have changed since; restore them"):
        reload(str(path), data.description, "a run")


# --- new rows


def test_new_rows_are_scaled_by_the_training_range(tmp_path):
    data = load(str(write_blobs(tmp_path / "t.csv")))
    low, high = np.array(data.description.low), np.array(data.description.high)
    middle, beyond = (low + high) / 2, high + 1
    path = write_csv(tmp_path / "new.csv", ["f2", "f0", "f1"], [np.roll(row, 1).tolist() for row in (middle, beyond)])
    rows, beyond_range, _ = read_rows(path, data.description)
    np.testing.assert_allclose(rows, [[0.5] * 3, 1 + 1 / (high - low)], rtol=1e-5)
    assert beyond_range.tolist() == [False, True]


def test_new_images_come_as_arrays_or_idx_files(tmp_path):
    folder = write_idx_folder(tmp_path / "stripes")
    data = load(str(folder))
    expected, _ = data.test.batch(slice(None))
    rows, _, _ = read_rows(folder / "t10k-images-idx3-ubyte", data.description)
    assert np.array_equal(rows, expected)
    rows, _, _ = read_rows(npz(tmp_path, x=(data.test.images.reshape(-1, 2, 3))), data.description)
    np.testing.assert_allclose(rows, expected, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stripes", "expected a file of rows, found a folder"),
        ("own.npz", r"expected rows of shape \(2, 3\), found \(4, 5\)"),
        ("t.csv", "expected images, found a table"),
        ("none", "cannot be read"),
        ("none.csv", "cannot be read"),
    ],
)
def test_rows_of_another_kind_are_refused(tmp_path, name, words):
    data = load(str(write_idx_folder(tmp_path / "stripes")))
    npz(tmp_path, x=GREY)
    write_blobs(tmp_path / "t.csv")
    with pytest.raises(NnliteError, match=words):
        read_rows(tmp_path / name, data.description)
