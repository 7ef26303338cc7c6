"""The Adversarial Robustness Toolbox (ART) on nnlite's nets.

`art_classifier` shows a net to ART, which knows dozens of attacks; all gradients are those of nnlite's own backward
pass. `ArtAttack` makes five of them attacks of nnlite, which keep the contract of nnlite.attacks.Attack.

ART works on the host, on one model, and mostly in float32. Import this file before ART: it keeps ART from warning that
PyTorch is missing, which nothing here needs.
"""

import warnings
from collections import ChainMap, deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.random import Generator
from scipy.special import softmax

from nnlite.attacks import NORMS, Crafted, check_batch, check_count, project
from nnlite.backend import Array, get_xp, to_host
from nnlite.errors import NnliteError
from nnlite.inputs import UNIT, Box
from nnlite.losses import Loss, softmax_cross_entropy
from nnlite.network import Network

try:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "PyTorch not found", UserWarning, r"art\.estimators\.certification")
        from art.attacks import evasion
        from art.estimators.classification.classifier import ClassifierNeuralNetwork
except Exception as error:  # not only ImportError: on a NumPy that it does not know, ART raises what it happens to
    raise NnliteError(
        f"interop: expected the Adversarial Robustness Toolbox, found {type(error).__name__}: {error}; "
        f"install it with pip install '.[interop]' in a clone of nnlite"
    ) from error

# What each attack takes, with the usual value; first those within a radius, then those that search the smallest noise.
_WITHIN = {"square": {"queries": 1000, "restarts": 1}, "autopgd": {"steps": 100, "restarts": 1}}
_SMALLEST = {"deepfool": {"steps": 50}, "carlini": {"steps": 10}, "hopskipjump": {"steps": 10}}
_OPTIONS = _WITHIN | _SMALLEST
_ROWS = 100  # images at a time


def _logit(logits: Array, y: Array) -> tuple[Array, Array]:
    one_hot = (y[..., None] == np.arange(logits.shape[-1])).astype(logits.dtype)
    return (one_hot * logits).sum(axis=-1), one_hot


def _probability(logits: Array, y: Array) -> tuple[Array, Array]:
    """Return p_y and its derivative p_y (onehot - p); the loss is -log p_y, and its own derivative p - onehot."""
    loss, dlogits = softmax_cross_entropy.function(logits, y)
    p = np.exp(-loss)
    return p, -p[..., None] * dlogits


LOGIT, PROBABILITY = Loss("logit", _logit), Loss("probability", _probability)
"""What the net says of class y, as a loss; its derivative is how that moves."""


class _Classifier(ClassifierNeuralNetwork):  # type: ignore[misc]
    """One net, on the host, as ART wants to see it: images (N, *shape), labels (N,) or one-hot (N, C)."""

    output = LOGIT  # what it answers with

    def __init__(self, net: Network, shape: tuple[int, ...], clip: tuple[float, float] | None) -> None:
        if net.stacked:
            raise NnliteError("interop: expected one net, found a stack; ART attacks one model at a time")
        if prod(shape) != net.sizes[0]:
            raise NnliteError(f"shape: expected {net.sizes[0]} pixels, as many as the net sees, found {shape}")
        self.net = net.to("cpu")
        super().__init__(model=self.net, clip_values=clip, channels_first=False, preprocessing=None)
        self.nb_classes = net.sizes[-1]
        self._shape = shape

    @property
    def input_shape(self) -> tuple[int, ...]:
        """The shape of one image."""
        return self._shape

    def predict(self, x: Array, batch_size: int = 0, **_: Any) -> Array:
        """Return the logits (N, C)."""
        return self.net.logits(self._rows(x))

    def compute_loss(self, x: Array, y: Array, reduction: str = "none", **_: Any) -> Array:
        """Return the loss of each example, (N,); with `reduction` "mean" or "sum" that of all."""
        loss, _dlogits = softmax_cross_entropy(self.net.logits(self._rows(x)), _labels(y))
        return {"none": loss, "mean": loss.mean(), "sum": loss.sum()}[reduction]

    def loss_gradient(self, x: Array, y: Array, **_: Any) -> Array:
        """Return each example's own dloss/dx, of the shape of x."""
        return self.net.run(self._rows(x), _labels(y)).dx.reshape(x.shape)

    def class_gradient(self, x: Array, label: int | Sequence[int] | Array | None = None, **_: Any) -> Array:
        """Return how the output moves with x, (N, C, *shape); for one label, or one for each example, (N, 1, *shape).

        The classes stand on a leading axis, so one forward pass serves all of them.
        """
        wanted = np.arange(self.nb_classes)[:, None] if label is None else np.asarray(label)[None]
        y = np.broadcast_to(wanted, (len(wanted), len(x)))
        dx = self.net.run(self._rows(x), y, loss=self.output).dx
        return dx.swapaxes(0, 1).reshape(len(x), len(wanted), *x.shape[1:])

    def get_activations(self, x: Array, layer: int, batch_size: int = 0, framework: bool = False) -> Array:
        """Return what the layer of this number gives, (N, width); the last one gives the logits."""
        rows = self._rows(x)
        return (*self.net.forward(rows).inputs[1:], self.net.logits(rows))[layer]

    def fit(self, x: Array, y: Array, **_: Any) -> None:
        """Raise NnliteError: ART cannot train the net."""
        raise NnliteError("fit: ART cannot train a net of nnlite; use nnlite.training.loop.train")

    def save(self, filename: str, path: str | None = None) -> None:
        """Raise NnliteError: ART cannot keep the net."""
        raise NnliteError("save: ART cannot keep a net of nnlite; use nnlite.training.runs")

    def as_images(self, rows: Array) -> Array:
        """Return rows (N, D) as the attack is to see them, (N, *input_shape)."""
        return rows.reshape(-1, *self.input_shape)

    def as_rows(self, x: Array) -> Array:
        """Return what the attack made of them as rows, (N, D)."""
        return x.reshape(len(x), -1)

    def _rows(self, x: Array) -> Array:
        return self.as_rows(np.asarray(x, self.net.dtype))


class _Probabilities(_Classifier):
    """Answers with probabilities where the others give logits; the loss and its gradient are the same."""

    output = PROBABILITY

    def predict(self, x: Array, batch_size: int = 0, **_: Any) -> Array:
        """Return the softmax of the logits, (N, C)."""
        return softmax(super().predict(x), axis=-1)


class _Remembering(_Classifier):
    """Remembers its last three answers: at each step Square asks twice for images that it has not moved since."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._last: deque[dict[bytes, Array]] = deque(maxlen=3)

    def predict(self, x: Array, batch_size: int = 0, **_: Any) -> Array:
        """Return the logits (N, C)."""
        keys, known = [image.tobytes() for image in x], ChainMap(*self._last)
        answers = {key: known[key] for key in keys if key in known}
        new = [k for k, key in enumerate(keys) if key not in answers]
        if new:
            answers |= zip([keys[k] for k in new], super().predict(x[new]), strict=True)
        self._last.append(answers)
        return np.stack([answers[key] for key in keys])


class _OfRows(_Remembering):
    """Shows a row as the first line of an image whose second line, and last column, mean nothing.

    In two lines a square has room for one feature, so a step moves one alone; in ART's drawing it never reaches the
    last column.
    """

    def __init__(self, net: Network, clip: tuple[float, float] | None) -> None:
        super().__init__(net, net.sizes[:1], clip)
        self._shape = (2, net.sizes[0] + 1, 1)

    def as_images(self, rows: Array) -> Array:
        """Return rows (N, D) as images (N, 2, D + 1, 1)."""
        images = np.zeros((len(rows), *self.input_shape), rows.dtype)
        images[:, 0, :-1, 0] = rows
        return images

    def as_rows(self, x: Array) -> Array:
        """Return the rows (N, D) of such images."""
        return np.ascontiguousarray(x[:, 0, :-1, 0])


class _Clipping(_Classifier):
    """Moves into a box what it is shown, so that an attack may look beyond."""

    def __init__(self, net: Network, shape: tuple[int, ...], clip: tuple[float, float], box: Box) -> None:
        super().__init__(net, shape, clip)
        self._box = box

    def _rows(self, x: Array) -> Array:
        return self._box.clip(super()._rows(x))


def _labels(y: Array) -> Array:
    return y.argmax(axis=-1) if y.ndim == 2 else y


def art_classifier(
    net: Network,
    *,
    shape: tuple[int, ...] | None = None,
    clip: tuple[float, float] | None = (0.0, 1.0),
    probabilities: bool = False,
) -> ClassifierNeuralNetwork:
    """Return `net` as a classifier of ART, with gradients by nnlite's backward pass.

    A net on a GPU is copied to the host. Of several tasks it is the main one.

    Arguments:
        net: One net.
        shape: Of an image, such as (28, 28, 1), for attacks that want height, width and channels; (D,) if not given.
        clip: The range of a pixel, or None for no limits.
        probabilities: Whether it answers with probabilities, for attacks that ask for them, or with logits.

    NnliteError for a stack of models, and for a shape of another size.
    """
    return (_Probabilities if probabilities else _Classifier)(net, shape or net.sizes[:1], clip)


@dataclass(frozen=True)
class ArtAttack:
    """One of ART's attacks, by its name; pixels stay within the box of the data.

    Within an L-infinity radius of phi, begun `restarts` times: "square" (Andriushchenko et al. 2020) sees nothing but
    logits, and asks for them `queries` times; "autopgd" (Croce and Hein 2020) takes `steps` along the gradient.

    For the smallest L2 noise, in `steps`: "deepfool" (Moosavi-Dezfooli et al. 2016), "carlini" (Carlini and Wagner
    2017), and "hopskipjump" (Chen et al. 2020), which sees nothing but the predicted class.

    A number that is not given has its usual value. shape: that of an image, (height, width) or (height, width,
    channels), for "square". Without one, or in images of a single line, neighbours mean nothing, and a square is one
    feature. NnliteError for an unknown name, an option of another attack, and a number below 1.
    """

    one_at_a_time: ClassVar[bool] = True  # ART draws from NumPy's global generator

    name: str
    queries: int | None = None
    steps: int | None = None
    restarts: int | None = None
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.name not in _OPTIONS:
            raise NnliteError(f"attack: expected one of {', '.join(_OPTIONS)}, found {self.name!r}")
        for option in ("queries", "steps", "restarts"):
            value, known = getattr(self, option), _OPTIONS[self.name]
            if value is not None and option not in known:
                raise NnliteError(f"{option}: {self.name} has no such option; it takes {' and '.join(known)}")
            if value is not None:
                object.__setattr__(self, option, check_count(option, value))

    @property
    def parameters(self) -> dict[str, float]:
        """The numbers that were given, and the usual value of the others."""
        return {name: getattr(self, name) or usual for name, usual in _OPTIONS[self.name].items()}

    @property
    def norm(self) -> str:
        """What phi is measured in."""
        return "linf" if self.name in _WITHIN else "l2"

    @property
    def clip(self) -> bool:
        """Pixels stay within the box of the data."""
        return True

    def craft(self, net: Network, x: Array, y: Array, phi: Sequence[float], rng: Generator, box: Box = UNIT) -> Crafted:
        """Return what ART makes of x (N, D) with labels y (N,); an image that the net gets wrong stays as it is.

        The same random numbers serve every phi. The smallest noise is searched once, and used for each phi that it
        does not exceed. From a GPU all is copied to the host, and the images go back. NnliteError for a stack.
        """
        if net.stacked:
            raise NnliteError("interop: expected one net, found a stack; ART attacks one model at a time")
        check_batch(net, x, y, box)
        limits = box.map(to_host).like(to_host(x))
        classifier, xp, seed = self._classifier(net, limits), get_xp(x), int(rng.integers(2**32))
        host, images, labels, sizes = classifier.net, to_host(x), to_host(y), tuple(map(float, phi))
        attacked, more = host.predict(images) == labels, {}
        if self.name == "hopskipjump":
            starts = _starts(host, images, labels, classifier.clip_values, rng)
            attacked &= host.predict(starts) != labels
            more = {"x_adv_init": starts[attacked]}

        def generate(size: float) -> Array:
            made = images.copy()
            if attacked.any():
                attack = self._attack(classifier, size)
                shown = classifier.as_images(images[attacked])
                with _seeded(seed):
                    made[attacked] = classifier.as_rows(attack.generate(shown, labels[attacked], **more))
            return limits.clip(made)

        if self.name in _WITHIN:
            within = [project(generate(size), images, size, "linf", limits) if size else images for size in sizes]
            return Crafted([xp.asarray(image) for image in within])
        found = _pulled_back(host, images, labels, generate(0.0))
        fooled = host.predict(found) != labels
        smallest = np.where(fooled[:, None], found, images)
        length = NORMS["l2"](smallest - images)[:, None]
        return Crafted(
            [xp.asarray(np.where(length <= size, smallest, images)) for size in sizes],
            failed=xp.asarray(~fooled),
            smallest=xp.asarray(smallest),
        )

    def _classifier(self, net: Network, box: Box) -> _Classifier:
        pixels, (low, high) = net.sizes[0], (float(np.min(box.low)), float(np.max(box.high)))
        if self.name == "square":
            shape = self.shape or (pixels,)
            if len(shape) > 3 or prod(shape) != pixels:
                raise NnliteError(f"shape: expected (height, width, channels) of {pixels} pixels, found {self.shape}")
            if len(shape) == 1 or min(shape[:2]) < 2:
                return _OfRows(net, (low, high))
            return _Remembering(net, (*shape, 1)[:3], (low, high))
        if self.name == "carlini":
            # It searches through a tanh, which is flat at both ends of the range: black pixels would never move.
            wider = 0.3 * (high - low)
            return _Clipping(net, (pixels,), (low - wider, high + wider), Box(low, high))
        return _Classifier(net, (pixels,), (low, high))

    def _attack(self, on: _Classifier, size: float) -> Any:
        own = self.parameters
        steps, restarts = own.get("steps"), own.get("restarts")
        usual = {"batch_size": _ROWS, "verbose": False}
        match self.name:
            case "square":
                height, width, _ = on.input_shape
                first = min(0.8, (min(height, width) - 0.51) ** 2 / (height * width))  # a square needs room to move
                return evasion.SquareAttack(
                    on, eps=size, max_iter=own["queries"], nb_restarts=restarts, p_init=first, **usual
                )
            case "autopgd":
                return evasion.AutoProjectedGradientDescent(
                    on, eps=size, eps_step=2 * size, max_iter=steps, nb_random_init=restarts, **usual
                )
            case "deepfool":
                return evasion.DeepFool(on, max_iter=steps, epsilon=0.02, **usual)
            case "carlini":  # without a margin ART takes a tie for success
                return evasion.CarliniL2Method(on, max_iter=steps, confidence=0.01, initial_const=1.0, **usual)
            case _:
                return evasion.HopSkipJump(on, max_iter=steps, **usual)


def _starts(net: Network, x: Array, y: Array, clip: tuple[float, float], rng: Generator) -> Array:
    """Return, for each image, one that the net takes for another class, if there is any: noise, or one of x.

    ART would draw one itself, but from a generator that cannot be seeded.
    """
    drawn = clip[0] + (clip[1] - clip[0]) * rng.random((_ROWS, x.shape[-1]))
    pool = np.concatenate([drawn.astype(x.dtype), x[:_ROWS]])
    others = net.predict(pool) != y[:, None]
    return pool[(others * rng.random(others.shape)).argmax(axis=-1)]


def _pulled_back(net: Network, x: Array, y: Array, found: Array) -> Array:
    """Return `found` drawn towards x in a straight line, to where it just fools the net.

    HopSkipJump ends with a step away from the boundary, DeepFool with one beyond it.
    """
    inside, outside = np.zeros((len(x), 1), x.dtype), np.ones((len(x), 1), x.dtype)
    for _ in range(10):
        middle = (inside + outside) / 2
        fooled = (net.predict(x + middle * (found - x)) != y)[:, None]
        inside, outside = np.where(fooled, inside, middle), np.where(fooled, middle, outside)
    return x + outside * (found - x)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed NumPy's global generator, from which ART draws, and give it its state back afterwards."""
    state = np.random.get_state()  # noqa: NPY002
    np.random.seed(seed)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(state)  # noqa: NPY002
