"""Columns that noise leaves, moves less, or keeps whole: rounded noise is whole in the user's unit, and in its ball."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import write_csv

from nnlite.attacks import NORMS, PGD, R1
from nnlite.datasets import check_samples, load
from nnlite.datasets.columns import FREE, Columns, WholeNumbers
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import evaluate_attack
from nnlite.evaluation.fmn import FMN
from nnlite.inputs import UNIT, Box
from nnlite.network import mlp


def rooms(path, count=60, seed=0):
    """Write a table of a float column, one of small whole numbers, negative ones among them, and one of large ones."""
    rng = np.random.default_rng(seed)
    y = np.arange(count) % 2
    x = [[float(rng.normal()) + k, int(rng.integers(-3, 9)) + 2 * int(k), int(rng.integers(0, 2000))] for k in y]
    return write_csv(path, ["size", "rooms", "year", "kind"], [[*row, "ab"[k]] for row, k in zip(x, y, strict=True)])


@settings(deadline=None, max_examples=200)
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from(["linf", "l2", None]),
    st.floats(0, 1.5),
    st.sampled_from([np.float32, np.float64]),
    st.booleans(),
)
def test_rounded_noise_is_whole_and_stays_in_the_ball_and_the_box(seed, norm, phi, dtype, limited):
    rng = np.random.default_rng(seed)
    low = rng.integers(-20, 20, 3).astype(float)
    width = rng.integers(1, 30, 3).astype(float)
    whole = WholeNumbers(np.array([0, 2, 3]), low, width)
    x = rng.random((8, 5)).astype(dtype)
    x[:, whole.places] = (rng.integers(0, width + 1, (8, 3)) / width).astype(dtype)
    reach = rng.uniform(0, 1, 5)
    box = Box(np.maximum(x - reach, 0), np.minimum(x + reach, 1)) if limited else UNIT
    noise = rng.uniform(-1, 1, x.shape)
    noise *= phi / (1 if norm == "linf" else np.linalg.norm(noise, axis=-1, keepdims=True))
    image = box.like(x).clip((x + noise).astype(dtype))
    found = whole.rounded(image, x, phi, norm, box)

    value, own = (low + at[:, whole.places].astype(float) * width for at in (found, x))
    np.testing.assert_allclose(value, np.rint(value), atol=1e-5 if dtype == np.float32 else 1e-12)
    assert (found[:, [1, 4]] == image[:, [1, 4]]).all()
    assert box.like(x).beyond(found) <= 0
    if norm:
        assert (NORMS[norm](found - x) <= phi * (1 + 1e-5) + 2e-6).all()
    steps = np.rint(value - own)
    wanted = low + image[:, whole.places].astype(float) * width - own
    assert (abs(steps - wanted) < 1 + 1e-4).all()
    assert (found[:, whole.places][steps == 0] == x[:, whole.places][steps == 0]).all()  # to the bit


def test_the_nearest_number_is_taken_but_never_beyond_phi():
    whole = WholeNumbers(np.array([0]), np.array([10.0]), np.array([10.0]))  # 10 to 20
    x = np.array([[0.5]], np.float32)  # 15
    for moved, phi, value in ((0.66, 0.16, 16), (0.66, 0.2, 17), (0.34, 0.16, 14), (0.54, 0.1, 15), (0.6, 0.1, 16)):
        found = whole.rounded(np.array([[moved]], np.float32), x, phi, "linf", UNIT)
        assert 10 + 10 * found[0, 0] == pytest.approx(value, abs=1e-5), (moved, phi)


def test_a_stack_of_images_beside_one_set_of_clean_ones_is_rounded_alike():
    whole = WholeNumbers(np.array([1]), np.array([0.0]), np.array([4.0]))
    x = np.array([[0.3, 0.25], [0.1, 0.5]])
    images = np.array([x + 0.2, x - 0.2]).clip(0, 1)
    together = whole.rounded(images, x, 0.3, "linf", UNIT)
    assert (together == [whole.rounded(image, x, 0.3, "linf", UNIT) for image in images]).all()
    assert (images == np.array([x + 0.2, x - 0.2]).clip(0, 1)).all()


@pytest.mark.parametrize("attack", [R1, PGD(steps=10), PGD("l2", steps=10), FMN()], ids=["R1", "PGD", "PGD l2", "FMN"])
def test_what_is_scored_is_whole_and_what_certificates_prove_stands(tmp_path, attack):
    data = load(rooms(tmp_path / "houses.csv"))
    net = mlp((3, 8, 2), np.random.default_rng(0))
    kept = []
    held = data.held(Columns(("size",), {"year": 0.1}, ("rooms", "year")))
    table = evaluate_attack(
        net, {"net": net}, held.test, attack, (0.0, 0.2, 0.5), keep=lambda start, images: kept.extend(images)
    )
    about = data.description
    low, width = np.array(about.low), np.array(about.high) - np.array(about.low)
    x, y = held.test.batch(slice(None))
    for size, image, correct in zip((0.0, 0.2, 0.5), kept, table.correct["net"], strict=True):
        value = low + image.astype(float) * width
        np.testing.assert_allclose(value[:, 1], np.rint(value[:, 1]), atol=1e-6)
        np.testing.assert_allclose(value[:, 2], np.rint(value[:, 2]), atol=2e-4)  # of 2000, in float32
        assert (image[:, 0] == x[:, 0]).all() or attack == R1  # which is not clipped
        assert (correct == (net.predict(image) == y)).all()
        if not size:
            assert (image == x).all()
    assert table.lengths == {}
    assert (held.train.whole, held.validation.whole, data.test.whole) == (None, None, None)


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        (Columns(whole=("size",)), r"whole: expected whole numbers in column 'size', found -?\d+\.\d+; leave it out"),
        (
            Columns(whole=("room",)),
            r"column: houses has no 'room' \(did you mean 'rooms'\?\); the columns are ",
        ),
        (Columns(frozen=("x",)), "column: houses has no 'x'"),
        (Columns(limits={"year": -1.0}), "phi-column: expected a finite number of at least 0 for year, found -1"),
    ],
)
def test_what_no_column_can_do_is_refused(tmp_path, columns, words):
    with pytest.raises(NnliteError, match=words):
        load(rooms(tmp_path / "houses.csv")).held(columns)


def test_half_numbers_are_found_in_each_split(tmp_path):
    path = rooms(tmp_path / "houses.csv")
    lines = path.read_text("utf-8").splitlines()
    for k in range(1, 60, 7):  # whichever split the row falls into
        changed = lines.copy()
        size, number, year, kind = changed[k].split(",")
        changed[k] = ",".join([size, str(int(number) + 0.5), year, kind])
        path.write_text("\n".join(changed), "utf-8")
        with pytest.raises(NnliteError, match=r"column 'rooms', found -?\d+\.5; leave it out"):
            load(path).held(Columns(whole=("rooms",)))


def test_images_have_no_columns():
    samples = check_samples(np.eye(4), np.array([0, 1, 0, 1]))
    with pytest.raises(NnliteError, match="has no 'a'; images have none"):
        load("digits").held(Columns(("a",)))
    assert samples.whole is None
    assert load("digits").columns == FREE


def test_columns_are_told_in_words():
    columns = Columns(("age",), {"income": 0.05}, ("rooms",))
    assert str(columns) == "noise leaves age, moves income by at most 0.05, keeps rooms whole"
