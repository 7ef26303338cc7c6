"""scikit-learn: training, prediction and robust accuracy by scikit-learn's contract.

`DataGradClassifier` is nnlite's training as an estimator: a step of a Pipeline, a model of GridSearchCV or
CalibratedClassifierCV, on arrays and data frames, with labels of any kind. `robust_accuracy` is a scorer;
`evaluate_attack` and `audit` are those of nnlite.evaluation, on a fitted estimator and rows in the user's terms.

It trains by the loop of nnlite.training, so this file alone stands above that package.
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from nnlite import __version__
from nnlite.attacks import PGD, Attack
from nnlite.datasets.own import FRACTIONS
from nnlite.datasets.samples import Dataset, Samples
from nnlite.datasets.splitting import draw_split
from nnlite.errors import DivergedError, NnliteError
from nnlite.evaluation import accuracy, auditing
from nnlite.evaluation.accuracy import PAPER_PHI, AttackTable, FloatArray, IntArray
from nnlite.evaluation.auditing import Audit, AuditOptions
from nnlite.evaluation.predicting import logits, softmax
from nnlite.inputs import Box
from nnlite.network import Network
from nnlite.storage import kinds
from nnlite.storage.files import new_file
from nnlite.storage.formats import expect_format
from nnlite.storage.kinds import Kind, expect
from nnlite.storage.refusals import RefusedError
from nnlite.storage.tensors import DTYPES, ArrayFile, check_layout, open_arrays, write_arrays
from nnlite.storage.texts import parse_json, shown
from nnlite.storage.weights import named_arrays, read_any_net
from nnlite.training.checkpoint import read_history
from nnlite.training.loop import Epoch, TrainingResult, TrainingState, train
from nnlite.training.mix import mix
from nnlite.training.settings import FIELDS, Settings, with_defaults

try:
    from sklearn.base import BaseEstimator, ClassifierMixin
    from sklearn.pipeline import Pipeline
    from sklearn.utils import check_random_state
    from sklearn.utils.multiclass import check_classification_targets, unique_labels
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise NnliteError(
        f"interop: expected scikit-learn 1.6 or newer, found {type(error).__name__}: {error}; "
        f"install it with pip install '.[interop]' in a clone of nnlite"
    ) from error

KEY, FORMAT = "nnlite-estimator", 1  # of the metadata in the file that `save` writes
WITHIN_UNIT = ("szegedy", "pgd", "trades")  # methods whose samples of training stay within [0, 1]

_SETTINGS = FIELDS.keys() - {"data", "label", "split", "seed"}  # what is no parameter, or has scikit-learn's name
_SHARE = Kind("a number above 0 and below 1", lambda value: kinds.is_finite(value) and 0 < value < 1)
_NUMBERS = ("int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64")
_DTYPE = kinds.one_of(("str", "object", "bool", *_NUMBERS))  # of the classes in a file
_TEXT = Kind("a text", lambda value: isinstance(value, str))

Rows = npt.NDArray[np.float32]


class DataGradClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A multilayer perceptron, trained by any method of nnlite, as a classifier of scikit-learn.

    `fit` trains by the same loop as `nnlite train`, and in as many BLAS threads the same numbers give the same weights,
    bit for bit. Most parameters are those of `nnlite.training.Settings`, with its defaults: `DataGradClassifier(
    reg="dgl1", lam=0.01, phi=0.1)` is DataGrad-L1, and without a `reg` it is the paper's plain net, Rect. A number that
    the method does not take is an error.

    Features are used as they are, in float32. lr, phi and the paper's settings are meant for features in [0, 1]: put
    MinMaxScaler before it in a Pipeline. Noise, in training and in attacks, is added to what the net sees. Predictions
    are computed in float64, so that those of a row do not depend on the rows beside it.

    Labels may be numbers, text or booleans. There are no sample weights. An error is a NnliteError, which is a
    ValueError, or scikit-learn's own.

    Arguments:
        reg, lam, phi, alpha, p, steps, term, gradient: The method of training and its numbers.
        hidden: The widths of the hidden layers.
        lr, decay, epochs, batch_size: Of stochastic gradient descent.
        random_state: An integer is the seed, as that of `nnlite train --seed`; a RandomState draws one, and None lets
            NumPy's global one do so.
        early_stopping: Whether a share of each class is held out, and the net of the best epoch on it is kept. Without,
            all rows train, and the net of the last epoch is kept.
        validation_fraction: That share, with early_stopping.
        patience: With early_stopping, the number of epochs without a better validation accuracy after which training
            stops; None for never.
        box: What features may be under attack: (low, high), each a number or one for each feature. None for the range
            of each feature among the rows of fit; rows beyond it are attacked in a box that holds them.
        multitask, gamma, shape: Whether a second task tells how far an image was rotated (Eq. 6), the weight of its
            loss, and the rows and columns of an image, and channels where it has them.
        device: "cpu", or "gpu" to train on CuPy; the fitted net is on the host.

    Attributes that a fit sets, beside n_features_in_ and feature_names_in_:
        classes_: The classes, sorted, (C,).
        net_: The net, an `nnlite.Network`.
        box_: What features may be under attack, an `nnlite.inputs.Box`.
        history_: All epochs, each an `nnlite.training.loop.Epoch`.
        n_iter_: How many there were.
        loss_curve_: The mean clean training loss of each.
        validation_scores_: The validation accuracy of each, from 0 to 1; None without early_stopping.
        seed_: What the random numbers came from.
    """

    def __init__(
        self,
        *,
        reg: str = Settings.reg,
        lam: float | None = Settings.lam,
        phi: float | None = Settings.phi,
        alpha: float | None = Settings.alpha,
        p: str | None = Settings.p,
        steps: int | None = Settings.steps,
        term: Sequence[str] | None = Settings.term,
        gradient: str = Settings.gradient,
        hidden: Sequence[int] = Settings.hidden,
        lr: float = Settings.lr,
        decay: float = Settings.decay,
        epochs: int = Settings.epochs,
        batch_size: int = Settings.batch_size,
        random_state: int | np.random.RandomState | None = Settings.seed,
        early_stopping: bool = False,
        validation_fraction: float = FRACTIONS[1],
        patience: int | None = Settings.patience,
        box: tuple[Any, Any] | None = None,
        multitask: bool = Settings.multitask,
        gamma: float | None = Settings.gamma,
        shape: tuple[int, ...] | None = None,
        device: str = Settings.device,
    ) -> None:
        self.reg = reg
        self.lam = lam
        self.phi = phi
        self.alpha = alpha
        self.p = p
        self.steps = steps
        self.term = term
        self.gradient = gradient
        self.hidden = hidden
        self.lr = lr
        self.decay = decay
        self.epochs = epochs
        self.batch_size = batch_size
        self.random_state = random_state
        self.early_stopping = early_stopping
        self.validation_fraction = validation_fraction
        self.patience = patience
        self.box = box
        self.multitask = multitask
        self.gamma = gamma
        self.shape = shape
        self.device = device

    def fit(self, X: Any, y: Any) -> Self:
        """Train a new net on rows X (N, D) with labels y (N,), and return the estimator.

        NnliteError for fewer than two classes, a wrong parameter, and a loss that is no longer finite. A warning says
        where lambda is larger than phi.
        """
        X, y = validate_data(self, X, y, dtype=np.float32)
        check_classification_targets(y)
        classes, seed = np.unique(y), _seed_of(self.random_state)
        settings = self._settings(seed)
        for warning in mix(settings)[1]:
            warnings.warn(warning, stacklevel=2)
        box = self._box(X)
        net, trained = self._trained(settings, self._dataset(X, y, classes, seed))
        return self._keep(net, classes, box, trained.history, seed)

    def partial_fit(self, X: Any, y: Any, classes: Any = None) -> Self:
        """Train for one more epoch, on rows X (N, D) with labels y (N,), and return the estimator.

        As many calls as `fit` has epochs, each on all rows, give its net, bit for bit. After `fit` training goes on.

        Arguments:
            X: The rows.
            y: Their labels, which need not be of all classes.
            classes: All classes; the first call needs them.

        NnliteError as for `fit`, and with early_stopping.
        """
        if self.early_stopping:
            raise NnliteError("early_stopping: expected False, as partial_fit holds no rows out; take fit instead")
        first = not hasattr(self, "net_")
        if first and classes is None:
            raise NnliteError("classes: expected all classes on the first call of partial_fit, found None")
        X, y = validate_data(self, X, y, dtype=np.float32, reset=first)
        check_classification_targets(y)
        known = unique_labels(classes) if first else self.classes_
        if classes is not None and not np.array_equal(unique_labels(classes), known):
            raise NnliteError(f"classes: expected those of before, {shown(known.tolist())}, found {shown(classes)}")
        seed, history = (_seed_of(self.random_state), []) if first else (self.seed_, self.history_)
        box = self._box(X) if first or self.box is not None else _widened(self.box_, X)
        state = None if first else TrainingState(TrainingResult(self.net_, history=history), self.net_)
        data = self._dataset(X, y, known, seed)
        net, trained = self._trained(self._settings(seed, len(history) + 1), data, state)
        return self._keep(net, known, box, trained.history, seed)

    def predict(self, X: Any) -> npt.NDArray[Any]:
        """Return the class of each row of X (N, D), (N,)."""
        numbers = self._logits(X).argmax(axis=-1)
        found: npt.NDArray[Any] = self.classes_[numbers]
        return found

    def predict_proba(self, X: Any) -> FloatArray:
        """Return the probability of each class, (N, C) in the order of classes_, for rows X (N, D)."""
        return softmax(self._logits(X))

    def decision_function(self, X: Any) -> FloatArray:
        """Return the logits (N, C) of rows X (N, D); of two classes, the second's less the first's, (N,).

        `predict` returns the class of the largest one; of two classes the second, where the difference is above 0.
        """
        found = self._logits(X)
        return found[:, 1] - found[:, 0] if len(self.classes_) == 2 else found

    def save(self, path: Path | str) -> None:
        """Write the fitted estimator to the safetensors file `path`: net, parameters, classes and history, no pickle.

        NnliteError where the classes are neither numbers nor text, or the file cannot be written.
        """
        check_is_fitted(self)
        parameters = {name: _plain(value) for name, value in self.get_params().items()}
        if isinstance(self.random_state, np.random.RandomState):
            parameters["random_state"] = self.seed_
        dtype = "str" if self.classes_.dtype.kind == "U" else self.classes_.dtype.name
        names = getattr(self, "feature_names_in_", None)
        content = {
            "format": FORMAT,
            "nnlite": __version__,
            "parameters": parameters,
            "dtype": dtype,
            "classes": _read_classes(dtype, self.classes_.tolist()).tolist(),
            "features": None if names is None else names.tolist(),
            "seed": self.seed_,
        }
        arrays = {f"net.{name}": array for name, array in named_arrays(self.net_).items()}
        arrays |= {"low": np.asarray(self.box_.low), "high": np.asarray(self.box_.high)}
        arrays["history"] = np.array(self.history_, np.float64)
        try:
            with new_file(Path(path), replace=True) as place:
                write_arrays(place, arrays, {KEY: json.dumps(content)})
        except OSError as error:
            raise NnliteError(f"{path}: cannot write the estimator ({error.strerror}); choose another place") from error

    @classmethod
    def load(cls, path: Path | str) -> Self:
        """Return the estimator that `save` wrote to `path`; it predicts the same bits.

        The file may come from a stranger: nothing in it is executed. NnliteError where it is damaged.
        """
        file = open_arrays(Path(path))
        try:
            return cls._read(file)
        except RefusedError as error:
            raise RefusedError(str(error) if str(path) in str(error) else f"{path}: {error}") from error
        except (ValueError, LookupError, TypeError, ArithmeticError) as error:
            what = str(error) if isinstance(error, NnliteError) else f"{type(error).__name__}: {error}"
            raise NnliteError(
                f"{path}: expected an estimator that DataGradClassifier.save wrote, found a damaged or another file "
                f"({what}); copy it again, or fit and save it anew"
            ) from error

    @classmethod
    def _read(cls, file: ArrayFile) -> Self:
        found = parse_json(file.metadata[KEY])
        if isinstance(found, dict):  # another format may have other fields
            expect_format(found.get("format"), FORMAT, found.get("nnlite"))
        fields = ("format", "nnlite", "parameters", "dtype", "classes", "features", "seed")
        content, made = kinds.expect_fields(KEY, fields, found), cls()
        parameters = kinds.expect_fields("parameters", made.get_params(), content["parameters"])
        made.set_params(**{name: _plain(value) for name, value in parameters.items()})
        net, classes = read_any_net(file, "net."), _read_classes(content["dtype"], content["classes"])
        if net.sizes[-1] != len(classes):
            raise NnliteError(f"expected a net of {len(classes)} classes, found one of {net.sizes[-1]}")
        width, epochs = net.sizes[0], file.layout["history"][1][0]
        range_of_each = DTYPES["F32"], (width,)
        check_layout(
            {name: form for name, form in file.layout.items() if not name.startswith("net.")},
            {"low": range_of_each, "high": range_of_each, "history": (DTYPES["F64"], (epochs, len(Epoch._fields)))},
        )
        history = read_history(file.read("history"), Settings(epochs=epochs))
        expect("seed", kinds.integer(0), content["seed"])
        if content["features"] is not None:
            expect("features", kinds.sequence(_TEXT, width, width), content["features"])
            made.feature_names_in_ = np.array(content["features"], object)
        made.n_features_in_ = width
        return made._keep(net, classes, Box(file.read("low"), file.read("high")), history, content["seed"])

    def _settings(self, seed: int, epochs: int | None = None) -> Settings:
        """Return what the parameters mean for training; NnliteError where one does not fit."""
        if self.patience is not None and not self.early_stopping:
            raise NnliteError("patience: it counts epochs on rows held out; give early_stopping=True, or leave it out")
        given = {name: _plain(getattr(self, name)) for name in _SETTINGS} | {"seed": seed}
        return Settings(**with_defaults(given if epochs is None else given | {"epochs": epochs}))

    def _box(self, X: Rows) -> Box:
        """Return what features may be under attack; NnliteError where rows lie beyond the box that was given."""
        low, high = X.min(axis=0), X.max(axis=0)
        if self.box is None:
            return Box(low, high)
        try:
            ends = [np.broadcast_to(np.asarray(end, np.float32), low.shape) for end in self.box]
            given = Box(*ends)
        except NnliteError:
            raise
        except (TypeError, ValueError) as error:
            expected = f"(low, high), each a number or {X.shape[1]} of them"
            raise NnliteError(f"box: expected {expected}, found {shown(self.box)}") from error
        if not given.beyond(X) <= 0:
            found = f"found {low.min():g} to {high.max():g}; scale them, or give another box"
            raise NnliteError(f"X: expected features within the box that was given, {found}")
        return given

    def _dataset(self, X: Rows, y: npt.NDArray[Any], classes: npt.NDArray[Any], seed: int) -> Dataset:
        """Return the rows as the training loop takes them."""
        if len(classes) < 2:
            found = f"found {len(classes)} class, {shown(classes.tolist())}"
            raise NnliteError(f"y: expected two classes or more, {found}: there is nothing to tell apart")
        if self.reg in WITHIN_UNIT and not (X.min() >= 0 and X.max() <= 1):
            found = f"found {X.min():g} to {X.max():g}; put MinMaxScaler(clip=True) before the estimator"
            raise NnliteError(f"X: method {self.reg} keeps its samples within [0, 1], {found}")
        samples = Samples(X, _numbers(y, classes), 1.0)
        training, validation = samples, samples[:1]  # the loop looks at one row, and nothing depends on it
        if self.early_stopping:
            share = _plain(self.validation_fraction)
            expect("validation_fraction", _SHARE, share)
            parts = draw_split(samples.labels, (1 - share, share), tuple(map(str, classes)), seed)
            training, validation = (samples[rows] for rows in parts)
        shape = X.shape[1:] if self.shape is None else tuple(self.shape)
        return Dataset("estimator", training, validation, validation, shape, len(classes))

    def _trained(
        self, settings: Settings, data: Dataset, state: TrainingState | None = None
    ) -> tuple[Network, TrainingResult]:
        """Return the net that is kept, and the result; DivergedError or KeyboardInterrupt where it was cut off."""
        trained = train(settings, data, resume_from=state)
        if trained.status == "interrupted":
            raise KeyboardInterrupt("Interrupted: nothing was fitted.")
        if trained.status == "diverged" or trained.last is None:
            raise DivergedError(
                f"epoch {len(trained.history) + 1}: the loss is no longer finite; take a smaller lr, such as "
                f"{settings.lr / 10:g}, or scale the features, as MinMaxScaler does"
            )
        return (trained.net if self.early_stopping else trained.last), trained

    def _keep(self, net: Network, classes: npt.NDArray[Any], box: Box, history: list[Epoch], seed: int) -> Self:
        self.net_, self.classes_, self.box_, self.seed_ = net.to("cpu"), classes, box, seed
        self.history_, self.n_iter_ = history, len(history)
        self.loss_curve_ = [epoch.loss for epoch in history]
        self.validation_scores_ = [epoch.validation / 100 for epoch in history] if self.early_stopping else None
        return self

    def _logits(self, X: Any) -> FloatArray:
        check_is_fitted(self)
        X = validate_data(self, X, dtype=np.float32, reset=False)
        return logits(self.net_.astype(np.float64), X)


def net_and_samples(estimator: Any, X: Any, y: Any) -> tuple[Network, Samples]:
    """Return the net within a fitted estimator, and the rows X with labels y as that net sees them.

    Every function of nnlite that takes a net and samples takes them so.

    Arguments:
        estimator: A DataGradClassifier, a Pipeline that ends in one, whose other steps transform the rows, or a fitted
            search such as GridSearchCV, whose best estimator is taken.
        X: Rows, as the estimator takes them.
        y: Their labels, as the estimator learnt them.

    NnliteError for another estimator and for labels that it does not know; NotFittedError.
    """
    while not isinstance(estimator, DataGradClassifier):
        if isinstance(estimator, Pipeline):
            check_is_fitted(estimator)
            X = estimator[:-1].transform(X) if len(estimator) > 1 else X
            estimator = estimator[-1]
        elif hasattr(estimator, "best_estimator_"):
            estimator = estimator.best_estimator_
        else:
            expected = "a DataGradClassifier, a Pipeline that ends in one, or a fitted search for one"
            raise NnliteError(f"estimator: expected {expected}, found {type(estimator).__name__}")
    check_is_fitted(estimator)
    X, y = validate_data(estimator, X, y, dtype=np.float32, reset=False)
    box = _widened(estimator.box_, X) if estimator.box is None else estimator.box_
    return estimator.net_, Samples(X, _numbers(y, estimator.classes_), 1.0, box=box)


def robust_accuracy(
    estimator: Any,
    X: Any,
    y: Any,
    *,
    phi: float = 0.1,
    norm: str = "linf",
    steps: int = 40,
    restarts: int = 1,
    seed: int = 0,
) -> float:
    """Return the share of rows that are classified correctly, and still are under PGD (Madry et al. 2018): 0 to 1.

    It is a scorer: `GridSearchCV(..., scoring=robust_accuracy)`, or `partial(robust_accuracy, phi=0.05)` for other
    numbers; make_scorer is for functions of predictions, and an attack needs the net. Robustness is no higher than
    this; `audit` says how much lower it may be.

    The noise is added to what the net sees: behind a scaler in a Pipeline phi is in units of the scaled features, and
    columns that an encoder made are moved like any others.

    Arguments:
        estimator: As `net_and_samples` takes it.
        X: Rows, as the estimator takes them.
        y: Their labels.
        phi: The size of the noise; 0 gives the accuracy without noise.
        norm: What phi is measured in, "linf" or "l2".
        steps: Of PGD.
        restarts: The starts of PGD, of which the first is the row itself.
        seed: Of the other starts, which are random.
    """
    net, samples = net_and_samples(estimator, X, y)
    table = accuracy.evaluate_attack(net, {"net": net}, samples, PGD(norm, steps, restarts), (0.0, phi), seed=seed)
    return float(table.correct["net"].all(axis=0).mean())


def evaluate_attack(
    estimator: Any, X: Any, y: Any, attack: Attack, phi: Sequence[float] = PAPER_PHI, *, seed: int = 0
) -> AttackTable:
    """Return how a fitted estimator does under its own noise, as `nnlite.evaluation.accuracy.evaluate_attack` does.

    Arguments:
        estimator: As `net_and_samples` takes it.
        X: Rows, as the estimator takes them.
        y: Their labels.
        attack: How noise is added to what the net sees, such as `nnlite.attacks.R1` or `PGD()`.
        phi: The sizes of noise.
        seed: Of what the attack draws.
    """
    net, samples = net_and_samples(estimator, X, y)
    return accuracy.evaluate_attack(net, {"estimator": net}, samples, attack, phi, seed=seed)


def audit(
    estimator: Any,
    X: Any,
    y: Any,
    options: AuditOptions | None = None,
    *,
    others: Mapping[str, Any] | None = None,
) -> Audit:
    """Return the audit of a fitted estimator, as `nnlite.evaluation.auditing.audit` makes it of a net.

    Arguments:
        estimator: As `net_and_samples` takes it; noise is added to what its net sees.
        X: Rows, as the estimator takes them.
        y: Their labels.
        options: What is asked; None for the usual.
        others: Other fitted estimators, by name, whose noise is tried, too; their nets see the same features.
    """
    crafting = {name: net_and_samples(other, X, y)[0] for name, other in (others or {}).items()}
    return auditing.audit(*net_and_samples(estimator, X, y), crafting, options or AuditOptions())


def _plain(value: Any) -> Any:
    """Return a parameter as Python's own numbers, text and tuples, which Settings takes."""
    value = value.tolist() if isinstance(value, np.generic | np.ndarray) else value
    return tuple(map(_plain, value)) if isinstance(value, list | tuple) else value


def _seed_of(random_state: Any) -> int:
    given = _plain(random_state)
    return given if isinstance(given, int) else int(check_random_state(given).randint(1 << 31))


def _numbers(y: npt.NDArray[Any], classes: npt.NDArray[Any]) -> IntArray:
    """Return the number of each label's class, (N,)."""
    unknown = y[~np.isin(y, classes)].tolist()
    if unknown:
        known = f"expected labels among {shown(classes.tolist())}"
        raise NnliteError(f"y: {known}, found {shown(unknown[0])}; give labels as the estimator learnt them")
    return np.searchsorted(classes, y).astype(np.int64)


def _widened(box: Box, X: Rows) -> Box:
    """Return a box that holds the rows as well."""
    return Box(np.minimum(box.low, X.min(axis=0)), np.maximum(box.high, X.max(axis=0)))


def _read_classes(dtype: Any, values: Any) -> npt.NDArray[Any]:
    """Return the classes of a file; NnliteError unless they are numbers or texts of this dtype, sorted, each once."""
    expect("classes: dtype", _DTYPE, dtype)
    classes = np.array(values, dtype)
    plain = all(isinstance(value, str | int | float) for value in classes.tolist())
    if classes.ndim != 1 or not plain or classes.tolist() != values or not np.array_equal(np.unique(classes), classes):
        raise NnliteError(f"classes: expected numbers or texts of dtype {dtype}, sorted, found {shown(values)}")
    return classes
