"""The workload: what is timed, and the arrays that every contestant starts from, on random images."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from nnlite.attacks import PGD
from nnlite.backend import Array, to_host
from nnlite.datasets.samples import Dataset, Samples
from nnlite.evaluation.accuracy import BLOCK
from nnlite.network import MAIN, Network, mlp, stack
from nnlite.training.memory import count_parameters
from nnlite.training.settings import Settings

FEATURES, CLASSES = 784, 10
UNITS = {"step": "steps/s", "epoch": "images/s", "attack": "images/s", "train": "images/s", "score": "images/s"}


class Runner(NamedTuple):
    """One way to do a workload: `run(n)` does it n times and returns when it is done.

    `result()` returns the host arrays that it changed, in the order of `Workload.start`, or none where there is nothing
    to compare.
    """

    run: Callable[[int], None]
    result: Callable[[], list[Array]] = list


@dataclass(frozen=True)
class Workload:
    """What is done once: a step, an epoch over `images`, their crafting, a training run, or an attack with its scores.

    Arguments:
        kind: one of UNITS.
        models: the settings of each model; several are trained on the same images. For an attack they give the net, and
            to be scored the adversary first, then the victims.
        images: how many, or None for one batch.
        attack, phi: what is crafted, and the size of its noise.
        sizes: how many sizes of noise are scored, up to phi.
        features: how many pixels an image has.
    """

    kind: str
    models: tuple[Settings, ...] = (Settings(),)
    images: int | None = None
    attack: PGD = field(default_factory=PGD)
    phi: float = 0.1
    sizes: int = 1
    features: int = FEATURES

    @property
    def settings(self) -> Settings:
        """The settings of the first model."""
        return self.models[0]

    @property
    def rows(self) -> int:
        """The number of images."""
        return self.settings.batch_size if self.images is None else self.images

    @property
    def amount(self) -> int:
        """How much is done, in the unit of `kind`, for all models together."""
        epochs = self.settings.epochs if self.kind == "train" else 1
        models = 1 if self.kind == "score" else len(self.models)
        return models * (1 if self.kind == "step" else self.rows * epochs)

    @property
    def nbytes(self) -> int:
        """An estimate of what a contestant holds: weights, four times in training, the images, and a pass over some."""
        sizes, times = (self.features, *self.settings.hidden, CLASSES), 1 if self.kind in ("attack", "score") else 4
        weights = times * len(self.models) * count_parameters(sizes)
        at_once = min(self.rows, max(self.settings.batch_size, BLOCK))
        return np.dtype(np.float32).itemsize * (weights + 2 * self.rows * self.features + 6 * at_once * sum(sizes))

    def alone(self, k: int) -> "Workload":
        """Return the workload of the k-th model."""
        return replace(self, models=(self.models[k],))

    def short(self) -> "Workload":
        """Return the same workload cut to three steps, over which no rounding error grows large."""
        if self.kind == "attack":
            return replace(self, attack=replace(self.attack, steps=min(3, self.attack.steps)))
        return replace(self, images=min(3 * self.settings.batch_size, self.rows)) if self.kind == "epoch" else self

    def net(self) -> Network:
        """Return the net, or the stack of nets, on its device."""
        nets = self.nets()
        return nets[0] if len(nets) == 1 else stack(nets)

    def nets(self) -> list[Network]:
        """Return the net of each model, on its device."""
        heads, device = self.settings.heads, self.settings.device
        forms = [((self.features, *one.hidden, CLASSES), np.random.default_rng(one.seed)) for one in self.models]
        return [mlp(sizes, rng, heads=heads).to(device) for sizes, rng in forms]

    def batch(self) -> tuple[Array, dict[str, Array]]:
        """Return images (rows, features), float32 in [0, 1), and their labels (rows,) for each task, on the host."""
        rng = np.random.default_rng(self.settings.seed)
        x = rng.random((self.rows, self.features), dtype=np.float32)
        classes = {MAIN: CLASSES, **self.settings.heads}
        return x, {task: rng.integers(0, count, self.rows) for task, count in classes.items()}

    def data(self) -> Dataset:
        """Return a data set with `rows` training images as bytes."""
        rng = np.random.default_rng(self.settings.seed)
        images, labels = rng.integers(0, 256, (self.rows, self.features), np.uint8), rng.integers(0, CLASSES, self.rows)
        samples = Samples(images, labels, white=255)
        return Dataset("random", samples, samples[:100], samples[:100], (1, self.features), CLASSES)

    def order(self) -> list[Array]:
        """Return the row numbers of each batch of an epoch."""
        size = self.settings.batch_size
        order = np.random.default_rng(self.settings.seed).permutation(self.rows)
        return [order[first : first + size] for first in range(0, self.rows, size)]

    def weights(self) -> list[Array]:
        """Return W (..., in, out) and b (..., out) of each layer before the work, on the host."""
        return parameters(self.net())

    def start(self) -> list[Array]:
        """Return what the work changes, as it is before: the images of an attack, else the weights."""
        return [self.batch()[0]] if self.kind == "attack" else self.weights()


def parameters(net: Network) -> list[Array]:
    """Return W (..., in, out) and b (..., out) of each layer, from the input to the logits, as copies on the host."""
    return [np.array(to_host(array)) for layer in net.all_layers for array in layer.parameters.values()]
