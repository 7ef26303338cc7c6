"""Training: epochs of minibatches, a look at the validation set after each, the best net kept."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from nnlite.backend import DEVICES, Array, keep_freed_memory, to_device, to_host
from nnlite.datagrad import weighted_passes
from nnlite.datasets import DATASETS, Dataset, Samples
from nnlite.errors import NnliteError
from nnlite.evaluation import accuracy
from nnlite.init import generator
from nnlite.methods import Regularisation
from nnlite.network import MAIN, Labels, Network, mlp
from nnlite.rotation import ANGLES, ROTATION, rotated
from nnlite.sgd import sgd_step

USUAL_GAMMA = 0.5  # in the middle of the paper's range


@dataclass(frozen=True)
class Settings(Regularisation):
    """All that decides a training run; the defaults are the paper's net, batch and method Rect."""

    data: str = "digits"
    hidden: tuple[int, ...] = (784, 784, 784)
    lr: float = 0.1
    epochs: int = 60
    batch_size: int = 100
    multitask: bool = False
    gamma: float | None = None
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in {"data": DATASETS, "device": DEVICES}.items():
            value = getattr(self, name)
            if value not in known:
                raise NnliteError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
        if self.multitask and self.gamma is None:
            raise NnliteError("gamma: a multi-task net needs the weight of its second loss; give for example 0.5")
        if self.gamma is not None and not self.multitask:
            raise NnliteError("gamma: only a multi-task net uses it; leave it out or add --multitask")
        tasks = {MAIN, *self.further_losses}
        for term in self.terms:
            if term.task not in tasks:
                raise NnliteError(f"term: expected the task {' or '.join(tasks)}, found {term.task!r}; see --multitask")
        for name in ("lr", "gamma"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise NnliteError(f"{name}: expected a finite number above 0, found {value}")
        for name, least in {"epochs": 1, "batch_size": 1, "seed": 0}.items():
            number = getattr(self, name)
            if not isinstance(number, int) or number < least:
                raise NnliteError(f"{name}: expected an integer of at least {least}, found {number}")
        if not all(isinstance(width, int) and width >= 1 for width in self.hidden):
            raise NnliteError(f"hidden: expected integer widths of at least 1, found {self.hidden}")

    @property
    def run_name(self) -> str:
        """The name of the run where the user gives none, such as dgl1-lam0.01-phi0.1, mt or mt-l1-lam0.001."""
        if not self.multitask:
            return self.slug
        stem = "mt" if self.reg == "none" else f"mt-{self.slug}"
        return stem if self.gamma == USUAL_GAMMA else f"{stem}-gamma{self.gamma:g}"

    @property
    def further_losses(self) -> dict[str, float]:
        """The weight of each further task's loss (Eq. 6)."""
        return {ROTATION: self.gamma} if self.gamma is not None else {}


class Epoch(NamedTuple):
    """One epoch: its number from 1, mean clean training loss, validation accuracy in percent, seconds."""

    epoch: int
    loss: float
    validation: float
    seconds: float


@dataclass(frozen=True, eq=False)
class Trained:
    """The net of the best validation epoch, the epochs so far, and how training ended.

    status is "finished", "interrupted" or "diverged". Among equally good epochs the latest counts: a
    small validation set often ties, and robustness still grows when clean accuracy no longer does.
    """

    net: Network
    best: Epoch | None
    history: list[Epoch] = field(default_factory=list)
    status: str = "finished"


def train(settings: Settings, data: Dataset, on_epoch: Callable[[Epoch], None] | None = None) -> Trained:
    """Train a net on `data` and return it as it was at its best validation epoch.

    `on_epoch` is called after each epoch. KeyboardInterrupt ends the training and keeps what is there;
    so does a loss that is no longer finite. Same settings, same machine: the same weights, bit for bit.
    """
    if settings.device == "cpu":
        keep_freed_memory()
    sizes = (data.features, *settings.hidden, data.classes)
    heads = {ROTATION: len(ANGLES)} if settings.multitask else {}
    net = mlp(sizes, generator(settings.seed, "weights"), heads=heads).to(settings.device)
    samples = rotated(data.train, data.shape) if settings.multitask else data.train
    samples, validation = samples.to(settings.device), data.validation.to(settings.device)
    best_net, best = net.copy(), None
    history: list[Epoch] = []
    status = "finished"
    try:
        for number in range(1, settings.epochs + 1):
            start = time.perf_counter()
            loss = _run_epoch(net, samples, settings, number)
            if not (math.isfinite(loss) and _is_finite(net)):
                status = "diverged"
                break
            epoch = Epoch(number, loss, float(accuracy(net, validation)), time.perf_counter() - start)
            history.append(epoch)
            if best is None or epoch.validation >= best.validation:
                best_net, best = net.copy(), epoch
            if on_epoch:
                on_epoch(epoch)
    except KeyboardInterrupt:
        status = "interrupted"
    return Trained(best_net, best, history, status)


def train_step(net: Network, x: Array, y: Labels, settings: Settings, rng: np.random.Generator | None = None) -> Array:
    """Take one step of `settings` on the batch x (N, D) with its labels, and return its clean losses (N,).

    rng: for methods whose noise begins at random.
    """
    passes = weighted_passes(net, x, y, settings.terms, gamma=settings.further_losses, rng=rng)
    clean = passes[0][1].of
    grads = net.gradients(passes)
    if settings.method.on_weights is not None and settings.lam is not None:
        grads = settings.method.on_weights(grads, net, clean, settings.lam)
    sgd_step(net, grads, settings.lr)
    return clean.loss


def _run_epoch(net: Network, samples: Samples, settings: Settings, number: int) -> float:
    """Go once through `samples` in the order of (seed, epoch) and return the mean clean loss."""
    order = to_device(generator(settings.seed, "shuffle", number).permutation(len(samples)), settings.device)
    noise = generator(settings.seed, "noise", number)
    losses = []
    with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite is caught by the caller
        for start in range(0, len(samples), settings.batch_size):
            rows = order[start : start + settings.batch_size]
            x, y = samples.batch(rows, net.dtype)
            labels = {MAIN: y, **samples.further_labels(rows)}
            losses.append(train_step(net, x, labels, settings, noise).sum())
        return float(to_host(sum(losses[1:], losses[0]))) / len(samples)


def _is_finite(net: Network) -> bool:
    """Return whether all weights are: the loss of an epoch says nothing of its last step."""
    with np.errstate(over="ignore", invalid="ignore"):
        totals = [array.sum() for layer in net.all_layers for array in layer.parameters.values()]
        return math.isfinite(float(to_host(sum(totals[1:], totals[0]))))
