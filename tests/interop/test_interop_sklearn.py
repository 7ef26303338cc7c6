"""The estimator: scikit-learn's own checks, `nnlite train` on the same numbers, and other oracles for what it says."""

import importlib
import json
import os
import pickle
import random
import subprocess
import sys
from functools import partial

import numpy as np
import pandas
import pytest
import safetensors.numpy
import strict_cupy
from fuzz.changes import change_arrays
from nets import GIVEN
from sklearn.base import clone
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.exceptions import NotFittedError
from sklearn.feature_selection import SelectKBest
from sklearn.model_selection import GridSearchCV, StratifiedKFold, cross_val_score
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import MinMaxScaler, OneHotEncoder, StandardScaler
from sklearn.utils.estimator_checks import estimator_checks_generator

from nnlite.attacks import PGD, R1
from nnlite.datasets import Dataset
from nnlite.datasets.samples import Samples
from nnlite.errors import DivergedError, NnliteError
from nnlite.evaluation import accuracy, auditing
from nnlite.evaluation.auditing import AuditOptions
from nnlite.inputs import Box
from nnlite.interop.sklearn import (
    KEY,
    WITHIN_UNIT,
    DataGradClassifier,
    audit,
    evaluate_attack,
    net_and_samples,
    robust_accuracy,
)
from nnlite.methods import METHODS
from nnlite.storage.weights import named_arrays
from nnlite.training.loop import train
from nnlite.training.run_folder import LAST, load_run
from nnlite.training.settings import FIELDS, Settings

DGL1 = {"reg": "dgl1", "lam": 0.01, "phi": 0.1}
NAMES = np.array(["cat", "dog", "eel"])
FRAME = pandas.DataFrame(
    {"size": [1.0, 2, 3, 4] * 15, "pet": ["cat", "dog", "eel"] * 20, "kind": ["big", "small"] * 30}
)


def small(**parameters):
    """Return an estimator that fits in a moment."""
    return DataGradClassifier(**{"hidden": (8,), "epochs": 5, "batch_size": 10, **parameters})


@pytest.fixture(scope="module")
def rows():
    """120 rows of 6 features in [0, 1], float32, and their labels, text: three classes that mostly lie apart."""
    rng = np.random.default_rng(0)
    y = np.arange(120) % 3
    X = 0.3 * (np.arange(6) % 3 == y[:, None]) + 0.7 * rng.random((120, 6))
    return X.astype(np.float32), NAMES[y]


@pytest.fixture(scope="module")
def fitted(rows):
    """A fitted estimator that no test changes."""
    return small(epochs=30, **DGL1).fit(*rows)


def weights(net):
    return {name: array.tobytes() for name, array in named_arrays(net).items()}


def forward(net, x):
    """Return the logits, by hand and in float64."""
    *hidden, last = [(layer.W.astype(float), layer.b.astype(float)) for layer in net.layers if layer.parameters]
    for W, b in hidden:
        x = np.maximum(x @ W + b, 0)
    return x @ last[0] + last[1]


# scikit-learn's own checks


def checks():
    """Yield every check of scikit-learn for two estimators, but the one on arrays of other libraries, see below."""
    for about in ({}, DGL1):
        for estimator, check in estimator_checks_generator(small(epochs=10, **about)):
            name = check.func.__name__
            if name != "check_array_api_input":
                yield pytest.param(estimator, check, id=f"{name}-{estimator.reg}")


@pytest.mark.parametrize(("estimator", "check"), [*checks()])
@pytest.mark.filterwarnings("default")  # the checks give lists, single columns and the like on purpose
def test_scikit_learn_finds_nothing_wrong(estimator, check):
    check(estimator)


def test_scikit_learn_finds_nothing_wrong_with_the_types_of_arrays():
    # SciPy must be told before it is imported, or scikit-learn skips the check
    code = """if True:
        from sklearn.utils.estimator_checks import estimator_checks_generator
        from nnlite.interop.sklearn import DataGradClassifier
        for estimator, check in estimator_checks_generator(DataGradClassifier(hidden=(8,), epochs=5)):
            if check.func.__name__ == "check_array_api_input":
                check(estimator)
    """
    subprocess.run([sys.executable, "-c", code], env={**os.environ, "SCIPY_ARRAY_API": "1"}, check=True)


# Training: the loop of `nnlite train`


@pytest.mark.parametrize(
    "numbers",
    [{}, {"decay": 0.9, **DGL1}, {"reg": "pgd", "phi": 0.1, "steps": 3, "random_state": 3}],
    ids=["rect", "dgl1", "pgd"],
)
@pytest.mark.parametrize("early_stopping", [True, False])
def test_fit_gives_the_bits_of_nnlite_train(nnlite, tmp_path, rows, numbers, early_stopping):
    pixels, y = (255 * rows[0]).astype(np.uint8), rows[1]
    parts = {"x_train": pixels[:90], "y_train": y[:90], "x_test": pixels[90:], "y_test": y[90:]}
    if not early_stopping:  # then all of the training part trains
        parts |= {"x_validation": pixels[90:], "y_validation": y[90:]}
    np.savez(tmp_path / "pets.npz", **parts)
    options = [
        f"--{name.replace('random_state', 'seed')}={value}"
        for name, value in {"hidden": 8, "epochs": 5, "batch-size": 10, **numbers}.items()
    ]
    assert nnlite("train", "--data", "pets.npz", "--name", "run", *options).exit_code in (0, 1)  # 1: no good net
    run = load_run(tmp_path / "runs" / "pets" / "run")

    model = small(early_stopping=early_stopping, validation_fraction=0.15 / 0.85, **numbers)
    model.fit(pixels[:90].astype(np.float32) / np.float32(255), y[:90])
    kept = run.path / LAST
    expected = run.net if early_stopping or not kept.exists() else None
    assert weights(model.net_) == (
        weights(expected)
        if expected
        else {name: array.tobytes() for name, array in safetensors.numpy.load_file(kept).items()}
    )
    assert tuple(model.classes_) == run.data.classes
    assert model.loss_curve_ == [epoch.loss for epoch in run.history]
    if early_stopping:
        assert model.validation_scores_ == [epoch.validation / 100 for epoch in run.history]


@pytest.mark.parametrize("reg", METHODS)
def test_every_method_is_that_of_the_library(rows, reg):
    X, y = rows
    model = small(epochs=2, reg=reg, **GIVEN[reg]).fit(X, y)
    samples = Samples(X, np.searchsorted(NAMES, y), 1.0)
    settings = Settings(hidden=(8,), epochs=2, batch_size=10, reg=reg, **GIVEN[reg])
    assert weights(model.net_) == weights(train(settings, Dataset("pets", *[samples] * 3, (6,), 3)).last)
    assert np.isfinite(model.predict_proba(X)).all()


def test_without_early_stopping_the_last_epoch_counts_whatever_a_row_says(rows):
    X, y = rows[0], np.where(np.arange(120), rows[1], "eel")  # the first row, which is a cat, is hard to get right
    samples, best = Samples(X, np.searchsorted(NAMES, y), 1.0), []
    for seed in range(6):
        settings = Settings(hidden=(8,), epochs=5, batch_size=10, seed=seed)
        found = train(settings, Dataset("pets", samples, samples[:1], samples[:1], (6,), 3))
        best.append(found.best.epoch)
        assert weights(small(random_state=seed).fit(X, y).net_) == weights(found.last)
    assert min(best) < 5


def test_parameters_are_the_settings_with_their_defaults():
    found = DataGradClassifier().get_params()
    assert found.pop("random_state") == Settings.seed
    own = {name: found.pop(name) for name in ("early_stopping", "validation_fraction", "box", "shape")}
    assert own == {"early_stopping": False, "validation_fraction": 0.15, "box": None, "shape": None}
    assert found == {name: field.default for name, field in FIELDS.items() if name in found}
    assert FIELDS.keys() - found == {"data", "label", "split", "seed"}


def test_parameters_may_be_numbers_of_numpy_and_lists(rows):
    given = {"hidden": np.array([8]), "epochs": np.int64(5), "lam": np.float32(0.25), "phi": 0.5, "batch_size": 10}
    plain = DataGradClassifier(reg="dgl1", hidden=[8], epochs=5, lam=0.25, phi=0.5, batch_size=10)
    assert weights(DataGradClassifier(reg="dgl1", **given).fit(*rows).net_) == weights(plain.fit(*rows).net_)


def test_as_many_epochs_of_partial_fit_are_a_fit(rows):
    whole, parts = small(decay=0.9, **DGL1).fit(*rows), small(decay=0.9, **DGL1)
    for _ in range(5):
        parts.partial_fit(*rows, classes=NAMES)
    assert weights(parts.net_) == weights(whole.net_)
    assert parts.loss_curve_ == whole.loss_curve_
    longer = small(decay=0.9, epochs=6, **DGL1).fit(*rows)
    assert weights(whole.partial_fit(*rows).net_) == weights(longer.net_)


def test_partial_fit_takes_classes_that_come_later(rows):
    X, y = rows
    model = small().partial_fit(X[y == "cat"], y[y == "cat"], classes=["eel", "dog", "cat"])
    before = model.net_, weights(model.net_)
    model.partial_fit(X + 1, y)
    assert before[1] == weights(before[0])  # the net of before is not changed
    assert list(model.classes_) == ["cat", "dog", "eel"]
    assert model.n_iter_ == 2
    assert np.array_equal(model.box_.low, X[y == "cat"].min(axis=0))
    assert np.array_equal(model.box_.high, (X + 1).max(axis=0))


def test_partial_fit_goes_on_from_the_net_of_before(rows):
    X, y = rows
    model = small().fit(X[:60], y[:60])
    before = model.net_
    model.set_params(lr=1e-9).partial_fit(X[60:], y[60:])
    for layer, now in zip(before.layers, model.net_.layers, strict=True):
        for name, array in layer.parameters.items():
            assert now.parameters[name] == pytest.approx(array, abs=1e-6)


def test_early_stopping_ends_the_training_and_keeps_the_best_net(rows):
    model = small(epochs=200, early_stopping=True, patience=3).fit(*rows)
    scores = model.validation_scores_
    assert model.n_iter_ == len(scores) == scores.index(max(scores)) + 1 + 3
    best = len(scores) - scores[::-1].index(max(scores))
    again = small(epochs=best, early_stopping=True).fit(*rows)
    assert weights(model.net_) == weights(again.net_)


def test_the_random_state_is_the_seed_or_draws_one(rows):
    assert small(random_state=np.int64(3)).fit(*rows).seed_ == 3
    one, other = (small(random_state=np.random.RandomState(3)).fit(*rows) for _ in range(2))
    assert weights(one.net_) == weights(other.net_) == weights(small(random_state=one.seed_).fit(*rows).net_)
    assert len({small(random_state=None, epochs=1).fit(*rows).seed_ for _ in range(3)}) == 3


def test_two_tasks_take_the_shape_of_an_image(rows, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    model = small(multitask=True, shape=(2, 3)).fit(*rows)
    assert model.net_.heads.keys() == {"rotation"}
    model.save(tmp_path / "model")
    assert weights(DataGradClassifier.load(tmp_path / "model").net_) == weights(model.net_)
    with pytest.raises(NnliteError, match="rotation: expected images of two dimensions"):
        small(multitask=True).fit(*rows)


def test_a_net_that_was_trained_on_the_gpu_is_on_the_host(rows, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    monkeypatch.setattr("nnlite.blas._gemm", lambda char: None)  # the host rounds as the stand-in does
    model, expected = small(device="gpu", **DGL1).fit(*rows), small(**DGL1).fit(*rows)
    for _ in range(2):
        assert all(type(layer.W) is np.ndarray for layer in model.net_.layers if layer.parameters)
        assert weights(model.net_) == weights(expected.net_)
        model.partial_fit(*rows)
        expected.partial_fit(*rows)


# What it predicts


def test_probabilities_are_those_of_scikit_learns_own_net(rows, fitted):
    X, y = rows
    own = MLPClassifier((8,)).partial_fit(X, y, classes=NAMES)
    dense = [layer for layer in fitted.net_.layers if layer.parameters]
    own.coefs_, own.intercepts_ = [layer.W for layer in dense], [layer.b for layer in dense]
    assert fitted.predict_proba(X) == pytest.approx(own.predict_proba(X), abs=1e-6)
    assert np.array_equal(fitted.predict(X), own.predict(X))
    assert fitted.decision_function(X) == pytest.approx(forward(fitted.net_, X), abs=1e-5)
    assert fitted.score(X, y) == (fitted.predict(X) == y).mean() > 0.8


def test_a_row_is_predicted_alike_whatever_stands_beside_it(rows):
    X, y = rows
    model = small(hidden=(300, 300), epochs=1).fit(X, y)  # wide, so that BLAS has sums to order
    alone = np.concatenate([model.predict_proba(row[None]) for row in X])
    assert model.predict_proba(X) == pytest.approx(alone, rel=1e-12)
    in_float32 = np.concatenate([model.net_.logits(row[None]) for row in X])
    assert not np.array_equal(model.net_.logits(X), in_float32)


def test_of_two_classes_the_second_is_above_0(rows):
    X, y = rows[0][rows[1] != "eel"], rows[1][rows[1] != "eel"] == "dog"
    model = small().fit(X, y)
    logits = forward(model.net_, X)
    assert model.decision_function(X) == pytest.approx(logits[:, 1] - logits[:, 0], abs=1e-5)
    assert np.array_equal(model.predict(X), model.decision_function(X) > 0)
    assert model.predict(X).dtype == bool


# Among scikit-learn's own


def test_clones_and_pickles(rows, fitted):
    again = clone(fitted)
    assert again.get_params() == fitted.get_params()
    assert not hasattr(again, "net_")
    kept = pickle.loads(pickle.dumps(fitted))
    assert kept.predict_proba(rows[0]).tobytes() == fitted.predict_proba(rows[0]).tobytes()


def test_a_search_over_lambda_and_phi_by_robust_accuracy_in_two_processes(rows):
    X, y = 100 * rows[0], rows[1]
    model = make_pipeline(MinMaxScaler(), small(epochs=10, reg="dgl1", lam=0.01, phi=0.1))
    grid = {"datagradclassifier__lam": [0.001, 0.05], "datagradclassifier__phi": [0.05, 0.1]}
    scorer = partial(robust_accuracy, phi=0.15, steps=5)
    search = GridSearchCV(model, grid, scoring={"clean": "accuracy", "robust": scorer}, refit="robust", cv=2, n_jobs=2)
    search.fit(X, y)
    found = search.cv_results_
    assert (found["mean_test_robust"] <= found["mean_test_clean"]).all()
    assert len(set(found["mean_test_robust"])) > 1
    half = clone(model).set_params(**found["params"][0])
    first, second = next(StratifiedKFold(2).split(X, y))
    half.fit(X[first], y[first])
    assert scorer(half, X[second], y[second]) == found["split0_test_robust"][0]
    assert scorer(search, X, y) == scorer(search.best_estimator_, X, y)


def test_cross_validation_calibration_and_selection(rows):
    X, y = rows
    assert cross_val_score(small(epochs=20), X, y, cv=3).mean() > 0.7
    calibrated = CalibratedClassifierCV(small(epochs=20), cv=2).fit(X, y)
    assert calibrated.predict_proba(X).sum(axis=1) == pytest.approx(1)
    assert set(calibrated.predict(X)) <= set(NAMES)
    chosen = make_pipeline(SelectKBest(k=4), small()).fit(X, y)
    assert chosen[-1].n_features_in_ == 4


def test_data_frames_with_text(rows):
    columns = ColumnTransformer([("numbers", MinMaxScaler(), ["size"]), ("texts", OneHotEncoder(), ["kind"])])
    model = make_pipeline(columns, small(epochs=40)).fit(FRAME[["size", "kind"]], FRAME["kind"])
    assert model.score(FRAME[["size", "kind"]], FRAME["kind"]) == 1
    assert set(model.predict(FRAME[["size", "kind"]])) == {"big", "small"}
    assert robust_accuracy(model, FRAME[["size", "kind"]], FRAME["kind"], phi=0.05) == 1

    frame = pandas.DataFrame(rows[0], columns=list("abcdef"))
    model = small().fit(frame, pandas.Series(rows[1]))
    assert list(model.feature_names_in_) == list("abcdef")
    with pytest.raises(ValueError, match="feature names should match"):
        model.predict(frame[list("bacdef")])


# Attacks


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_robust_accuracy_of_a_linear_net_is_known(rows, norm, dual):
    # the most that noise of size phi takes from w x + b is phi times the dual norm of w
    X, y = rows[0][rows[1] != "eel"], rows[1][rows[1] != "eel"]
    model = small(hidden=(), box=(-10, 10)).fit(X, y)
    (layer,) = model.net_.layers
    w, margin = layer.W[:, 1] - layer.W[:, 0], model.decision_function(X) * np.where(y == "dog", 1, -1)
    for phi in (0, 0.05, 0.1, 0.2):
        expected = (margin > phi * np.linalg.norm(w, dual)).mean()
        assert robust_accuracy(model, X, y, phi=phi, norm=norm) == expected
    assert 0 < expected < model.score(X, y)


def test_a_row_that_noise_happens_to_put_right_is_not_robust(rows):
    X, y = rows[0], np.random.default_rng(0).permutation(rows[1])
    model = small(box=(-10, 10), epochs=20).fit(X, y)
    clean, noisy = evaluate_attack(model, X, y, PGD(steps=1), (0.0, 5.0)).correct["estimator"]
    assert (noisy & ~clean).any()
    assert robust_accuracy(model, X, y, phi=5.0, steps=1) == (noisy & clean).mean() < noisy.mean()


def test_the_box_is_the_range_of_the_training_rows_unless_one_is_given(rows):
    X, y = rows
    model = small().fit(X, y)
    box = net_and_samples(model, X[:3], y[:3])[1].box
    assert np.array_equal([box.low, box.high], [X.min(axis=0), X.max(axis=0)])
    beyond = np.vstack([X[:1] - 1, X[:1] + 1])
    box = net_and_samples(model, beyond, y[:2])[1].box  # and holds the rows that are attacked
    assert np.array_equal([box.low, box.high], [X[0] - 1, X[0] + 1])

    given = small(box=(np.zeros(6), 1)).fit(X, y)
    box = net_and_samples(given, X, y)[1].box
    assert np.array_equal([box.low, box.high], [np.zeros(6), np.ones(6)])
    with pytest.raises(NnliteError, match="expected pixels within"):
        robust_accuracy(given, beyond, y[:2])
    with pytest.raises(NnliteError, match=r"X: expected features within the box that was given, found .* to 2"):
        small(box=(0, 1)).fit(2 * X / X.max(), y)


def test_attacks_and_audits_take_the_terms_of_the_user(rows, fitted):
    X, y = rows
    samples = Samples(X, np.searchsorted(NAMES, y), 1.0, box=Box(X.min(axis=0), X.max(axis=0)))
    phi, own = (0.0, 0.1), fitted.net_
    for attack in (R1, PGD(steps=5, restarts=2)):
        found = evaluate_attack(fitted, X, y, attack, phi)
        expected = accuracy.evaluate_attack(own, {"estimator": own}, samples, attack, phi)
        assert found.records() == expected.records()
        assert found.accuracy["estimator"][0] == 100 * fitted.score(X, y)

    asked = AuditOptions(phi=(0.05,), examples=20, steps=4, apgd_steps=4, tries=2, proven=5)
    other = small().fit(X, y)
    found = audit(fitted, X, y, asked, others={"other": other})
    expected = auditing.audit(own, samples, {"other": other.net_}, asked)
    assert found.records() == expected.records()
    assert found.verdicts == expected.verdicts


def test_a_pipeline_is_attacked_in_the_space_that_its_net_sees(rows, fitted):
    X, y = rows
    scaler = StandardScaler().fit(X)
    behind = make_pipeline(scaler, small(epochs=30, **DGL1)).fit(X, y)
    seen = scaler.transform(X)
    assert 0 < robust_accuracy(behind, X, y) == robust_accuracy(behind[-1], seen, y) < 1
    assert robust_accuracy(make_pipeline(fitted), X, y) == robust_accuracy(fitted, X, y)


# Files


@pytest.mark.parametrize(
    "classes",
    [NAMES, NAMES.astype(object), np.array([1, 5, 7], np.int32), np.array([0.0, 1, 2]), np.array([False, True])],
    ids=["text", "object", "int", "float", "bool"],
)
def test_what_is_loaded_is_what_was_saved(rows, tmp_path, classes):
    X, y = rows[0], classes[np.arange(120) % len(classes)]
    model = small(box=(0, [1] * 6), random_state=np.random.RandomState(0), **DGL1).fit(X, y)
    model.save(tmp_path / "model.safetensors")
    found = DataGradClassifier.load(str(tmp_path / "model.safetensors"))
    assert found.predict_proba(X).tobytes() == model.predict_proba(X).tobytes()
    assert found.classes_.dtype == model.classes_.dtype
    assert np.array_equal(found.predict(X), model.predict(X))
    assert (found.history_, found.seed_, found.n_features_in_) == (model.history_, model.seed_, 6)
    assert found.get_params() == model.get_params() | {"random_state": model.seed_, "box": (0, (1,) * 6)}
    assert robust_accuracy(found, X, y) == robust_accuracy(model, X, y)
    assert weights(found.partial_fit(X, y).net_) == weights(model.partial_fit(X, y).net_)


def test_a_file_keeps_the_names_of_features(rows, tmp_path):
    frame = pandas.DataFrame(rows[0], columns=list("abcdef"))
    small().fit(frame, rows[1]).save(tmp_path / "model")
    found = DataGradClassifier.load(tmp_path / "model")
    assert list(found.feature_names_in_) == list("abcdef")
    found.predict(frame)


def test_a_file_is_safetensors_and_holds_the_weights_by_name(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    found = safetensors.numpy.load_file(tmp_path / "model")
    expected = {f"net.{name}": array for name, array in weights(fitted.net_).items()}
    assert {name: array.tobytes() for name, array in found.items() if name.startswith("net.")} == expected
    assert found.keys() - expected == {"low", "high", "history"}


def test_files_from_strangers_are_read_or_refused(fitted, tmp_path):
    fitted.save(tmp_path / "model")
    content, rng, refused = (tmp_path / "model").read_bytes(), random.Random(0), 0
    for _ in range(300):
        try:
            changed = change_arrays(content, rng)
        except UnicodeEncodeError:
            continue
        (tmp_path / "model").write_bytes(changed)
        try:
            DataGradClassifier.load(tmp_path / "model")
        except NnliteError:
            refused += 1
    assert refused > 100


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"classes": ["dog", "cat", "eel"]}, "classes: expected numbers or texts of dtype str, sorted"),
        ({"classes": ["cat", "dog"]}, "expected a net of 2 classes, found one of 3"),
        ({"dtype": "O"}, "classes: dtype: expected one of str, object"),
        ({"parameters": {"hidden": [8]}}, "parameters: expected an object of .*missing or unknown"),
        ({"features": ["a"]}, "features: expected a list of 6"),
        ({"seed": -1}, "seed: expected an integer of at least 0"),
        ({"more": 1}, "missing or unknown: .'more'."),
        ({"format": 2, "nnlite": "9.1.0", "more": 1}, "format: expected 1 at most, found 2; nnlite '9.1.0' wrote"),
    ],
)
def test_what_is_wrong_in_a_file_is_named(fitted, tmp_path, change, message):
    fitted.save(tmp_path / "model")
    with safetensors.safe_open(tmp_path / "model", "np") as file:
        content = json.loads(file.metadata()[KEY])
    arrays = safetensors.numpy.load_file(tmp_path / "model")
    safetensors.numpy.save_file(arrays, tmp_path / "model", {KEY: json.dumps(content | change)})
    with pytest.raises(NnliteError, match=message):
        DataGradClassifier.load(tmp_path / "model")


def test_other_files_and_places_are_refused(fitted, rows, tmp_path):
    safetensors.numpy.save_file({"a": np.zeros(1, np.float32)}, tmp_path / "other")
    with pytest.raises(NnliteError, match=r"expected an estimator that DataGradClassifier.save wrote"):
        DataGradClassifier.load(tmp_path / "other")
    with pytest.raises(NnliteError, match="cannot read it"):
        DataGradClassifier.load(tmp_path / "none")
    with pytest.raises(NnliteError, match="cannot write the estimator"):
        fitted.save(tmp_path / "other" / "model")
    with pytest.raises(NnliteError, match="classes: dtype: expected one of str"):
        small().fit(rows[0], (np.arange(120) % 3).astype(np.longdouble)).save(tmp_path / "model")


# Errors


def test_nothing_works_before_a_fit(rows, tmp_path):
    X, y = rows
    for model in (small(), make_pipeline(MinMaxScaler(), small())):
        for ask in (lambda m: m.predict(X), lambda m: m.predict_proba(X), lambda m: robust_accuracy(m, X, y)):
            with pytest.raises(NotFittedError):
                ask(model)
    for ask in (lambda m: m.save(tmp_path / "model"), lambda m: m.decision_function(X), lambda m: audit(m, X, y)):
        with pytest.raises(NotFittedError):
            ask(small())


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"reg": "dgl"}, "reg: expected one of .*did you mean 'dgl1'"),
        ({"reg": "dgl1", "lam": 0.01}, "phi: method dgl1 needs it"),
        ({"lam": 0.01}, "lam: method none does not use it"),
        ({"hidden": 8}, "hidden: expected a tuple"),
        ({"random_state": -1}, "seed: expected an integer of at least 0"),
        ({"patience": 3}, "patience: it counts epochs on rows held out; give early_stopping=True"),
        ({"early_stopping": True, "validation_fraction": 1.0}, "validation_fraction: expected a number above 0 and"),
        ({"early_stopping": True, "patience": 0}, "patience: expected an integer of at least 1"),
        ({"box": 1}, r"box: expected \(low, high\), each a number or 6 of them, found 1"),
        ({"box": (0, [1, 1])}, r"box: expected \(low, high\), each a number or 6 of them"),
        ({"box": (1, 0)}, "box: expected low <= high"),
        ({"shape": (2, 2)}, "correct the shape"),
    ],
    ids=str,
)
def test_a_parameter_that_does_not_fit_is_named(rows, parameters, message):
    with pytest.raises(NnliteError, match=message):
        small(**parameters).fit(*rows)


def test_rows_and_labels_that_do_not_fit_are_named(rows, fitted):
    X, y = rows
    holes = X.copy()
    holes[3, 2] = np.nan
    for model, call in ((small(), "fit"), (fitted, "score")):
        with pytest.raises(ValueError, match="contains NaN"):
            getattr(model, call)(holes, y)
    with pytest.raises(NnliteError, match=r"y: expected two classes or more, found 1 class, \['cat'\]"):
        small().fit(X, ["cat"] * 120)
    with pytest.raises(ValueError, match="X has 5 features, but DataGradClassifier is expecting 6"):
        fitted.predict(X[:, :5])
    with pytest.raises(NnliteError, match=r"y: expected labels among \['cat', 'dog', 'eel'\], found 'yak'"):
        robust_accuracy(fitted, X, ["yak"] * 120)
    with pytest.raises(NnliteError, match=r"y: expected labels among .*, found 0"):
        robust_accuracy(fitted, X, np.zeros(120, int))
    with pytest.raises(NnliteError, match=r"estimator: expected a DataGradClassifier, .* found MinMaxScaler"):
        robust_accuracy(make_pipeline(MinMaxScaler()).fit(X), X, y)
    with pytest.raises(NnliteError, match=r"labels: expected 2 samples of each class or more.*class 'yak'"):
        small(early_stopping=True).fit(X, ["yak", *y[1:]])


def test_partial_fit_says_what_it_needs(rows):
    with pytest.raises(NnliteError, match="classes: expected all classes on the first call"):
        small().partial_fit(*rows)
    with pytest.raises(NnliteError, match="early_stopping: expected False"):
        small(early_stopping=True).partial_fit(*rows, classes=NAMES)
    model = small().partial_fit(*rows, classes=NAMES)
    with pytest.raises(NnliteError, match=r"classes: expected those of before, .*, found \['cat', 'dog'\]"):
        model.partial_fit(*rows, classes=["cat", "dog"])
    with pytest.raises(NnliteError, match=r"y: expected labels among .* found 'yak'"):
        model.partial_fit(rows[0], ["yak"] * 120)
    assert model.n_iter_ == 1


@pytest.mark.parametrize("reg", METHODS)
def test_methods_whose_samples_stay_within_0_and_1_want_features_there(rows, reg):
    # of the others no noise depends on where the features lie: net and noise are those of features moved together
    X, y = rows
    model = small(epochs=1, reg=reg, **GIVEN[reg])
    if reg in WITHIN_UNIT:
        with pytest.raises(NnliteError, match=rf"X: method {reg} keeps its samples within \[0, 1\], found"):
            model.fit(X - 0.5, y)
    else:
        model.fit(X - 0.5, y)


def test_a_loss_that_is_no_longer_finite_is_an_error(rows):
    with pytest.raises(
        DivergedError, match=r"epoch 1: the loss is no longer finite; take a smaller lr, such as 1e\+29"
    ):
        small(lr=1e30).fit(*rows)


def test_an_interrupted_fit_is_no_fit(rows, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnlite.training.loop.train_step", interrupt)
    model = small()
    with pytest.raises(KeyboardInterrupt, match="nothing was fitted"):
        model.fit(*rows)
    assert not hasattr(model, "net_")


def test_a_negative_weight_of_the_clean_gradient_is_a_warning(rows):
    with pytest.warns(UserWarning, match="the clean gradient has the negative weight -1: lambda is larger than phi"):
        small(reg="dgl1", lam=0.2, phi=0.1).fit(*rows)


@pytest.mark.parametrize("missing", ["sklearn.base", "sklearn.utils.validation"])
def test_without_scikit_learn_the_error_says_what_to_install(monkeypatch, missing):
    monkeypatch.setitem(sys.modules, missing, None)
    monkeypatch.delitem(sys.modules, "nnlite.interop.sklearn")
    with pytest.raises(
        NnliteError, match=r"expected scikit-learn 1.6 or newer.*pip install '\.\[interop\]' in a clone"
    ):
        importlib.import_module("nnlite.interop.sklearn")


def test_rows_that_come_in_are_not_changed(rows):
    X, y = (array.copy() for array in rows)
    for array in (X, y):
        array.flags.writeable = False
    model = small(early_stopping=True, **DGL1).fit(X, y)
    robust_accuracy(model, X, y, steps=2)
    assert np.array_equal(X, rows[0])
