"""Training: epochs of minibatches, a look at the validation set after each, the best net kept.

Nets of one form that take the same kind of step can be trained side by side, as a stack. One net is a stack of one.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nnlite.backend import to_device, to_host
from nnlite.datasets.rotation import rotated
from nnlite.datasets.samples import Dataset, Samples, concatenate
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import accuracy
from nnlite.init import generator
from nnlite.network import MAIN, Network, mlp, stack, unstack
from nnlite.sgd import Update, train_step
from nnlite.training.environment import makers
from nnlite.training.memory import keep_freed_memory
from nnlite.training.settings import Settings
from nnlite.training.update import update_of


class Epoch(NamedTuple):
    """One epoch: its number from 1, mean clean training loss, validation accuracy in percent, seconds.

    In a stack the seconds are shared out evenly.
    """

    epoch: int
    loss: float
    validation: float
    seconds: float


@dataclass(eq=False)
class Trained:
    """The net of the best validation epoch, the epochs so far, how training ended, and what it was made with.

    status is "finished", "interrupted" or "diverged". Among equally good epochs the latest counts: a
    small validation set often ties, and robustness still grows when clean accuracy no longer does.
    """

    net: Network
    best: Epoch | None = None
    history: list[Epoch] = field(default_factory=list)
    status: str = "finished"
    makers: dict[str, str] = field(default_factory=dict)


class State(NamedTuple):
    """A training between two epochs: what came out of it so far, and the net as its last epoch left it.

    Nothing else is needed to go on to the same bits: every random number comes from a generator of (seed, purpose,
    epoch), which is made anew in each epoch, and the step has no memory.
    """

    trained: Trained
    last: Network

    @property
    def epoch(self) -> int:
        """The number of epochs that are done."""
        return len(self.trained.history)


def train(
    settings: Settings,
    data: Dataset,
    on_epoch: Callable[[Epoch], None] | None = None,
    *,
    start: State | None = None,
    keep: Callable[[State], None] | None = None,
) -> Trained:
    """Train a net on `data` and return it as it was at its best validation epoch.

    `on_epoch` is called after each epoch. KeyboardInterrupt ends the training and keeps what is there;
    so does a loss that is no longer finite. Same settings, same machine: the same weights, bit for bit, also where
    it begins at a `start` that `keep` was given, after an epoch, by an earlier call.
    """

    def tell(_: int, epoch: Epoch) -> None:
        if on_epoch:
            on_epoch(epoch)

    def keep_it(states: list[State]) -> None:
        if keep:
            keep(states[0])

    return train_stack([settings], {settings.seed: data}, tell, start=[start] if start else (), keep=keep_it)[0]


def train_stack(
    models: Sequence[Settings],
    data: Mapping[int, Dataset],
    on_epoch: Callable[[int, Epoch], None] = lambda place, epoch: None,
    *,
    start: Sequence[State] = (),
    keep: Callable[[list[State]], None] = lambda states: None,
) -> list[Trained]:
    """Train a net for each of `models` side by side, each as `train` would, and return them in this order.

    models: settings that are `alike`. data: the data set of each seed. `on_epoch` is given the place in the stack.
    `keep` is given the states of all after each epoch, before `on_epoch` is told; they change as training goes on.
    start: such states, to begin with. Where one net diverges the others go on. NnliteError for settings that are not
    alike, and for a stack too large for the memory.
    """
    update, common = update_of(*models), models[0]
    if common.device == "cpu":
        keep_freed_memory()
    net = _first_net(models, data, start).to(common.device)
    samples = _training_samples(models, data)
    validation = {seed: data[seed].validation.to(common.device) for seed in _seeds(models)}
    trained = [_again(one.trained, common.device) for one in start] or [Trained(one.copy()) for one in unstack(net)]
    for one in trained:
        one.makers = makers()
    running = set(range(len(models)))
    done = max((one.epoch for one in start), default=0)
    try:
        for number in range(done + 1, common.epochs + 1):
            began = time.perf_counter()
            losses = _run_epoch(net, samples, update, models, number)
            for k in running - set(np.flatnonzero(np.isfinite(losses) & _are_finite(net))):
                trained[k].status = "diverged"
                running.remove(k)
            if not running:
                break
            right = _validate(net, validation, models)
            seconds = (time.perf_counter() - began) / len(models)
            last = unstack(net)
            for k in sorted(running):
                _note(trained[k], last[k], Epoch(number, float(losses[k]), float(right[k]), seconds))
            keep([State(*both) for both in zip(trained, last, strict=True)])
            for k in sorted(running):
                on_epoch(k, trained[k].history[-1])
    except KeyboardInterrupt:
        for k in running:
            trained[k].status = "interrupted"
    except MemoryError as error:  # CuPy's is one, too
        raise NnliteError(
            f"memory: {len(models)} x {unstack(net)[0]} did not fit, {common.batch_size} examples at a time ({error}); "
            f"train fewer nets at a time, or take smaller batches"
        ) from error
    return trained


def _again(trained: Trained, device: str) -> Trained:
    """Return a copy that training can add to."""
    return replace(trained, net=trained.net.to(device), history=[*trained.history])


def _note(trained: Trained, net: Network, epoch: Epoch) -> None:
    trained.history.append(epoch)
    if trained.best is None or epoch.validation >= trained.best.validation:
        trained.net, trained.best = net.copy(), epoch


def _first_net(models: Sequence[Settings], data: Mapping[int, Dataset], start: Sequence[State]) -> Network:
    """Return the net, or the stack of nets, that training begins with, on the host."""
    nets = [one.last.copy() for one in start] or [_new_net(one, data[one.seed]) for one in models]
    return nets[0] if len(nets) == 1 else stack(nets)


def _new_net(settings: Settings, data: Dataset) -> Network:
    sizes = (data.features, *settings.hidden, data.classes)
    return mlp(sizes, generator(settings.seed, "weights"), heads=settings.heads)


def _seeds(models: Sequence[Settings]) -> list[int]:
    return list(dict.fromkeys(one.seed for one in models))


def _training_samples(models: Sequence[Settings], data: Mapping[int, Dataset]) -> Samples:
    """Return the samples of all seeds one after another, on the device; each seed may have a split of its own."""
    splits = [
        rotated(data[seed].train, data[seed].shape) if models[0].multitask else data[seed].train
        for seed in _seeds(models)
    ]
    return concatenate(splits).to(models[0].device)


def _run_epoch(
    net: Network, samples: Samples, update: Update, models: Sequence[Settings], number: int
) -> npt.NDArray[np.floating]:
    """Go once through `samples`, each model in the order of its (seed, epoch); return the mean clean losses (S,)."""
    common, seeds = models[0], _seeds(models)
    count = len(samples) // len(seeds)
    orders = {
        seed: place * count + generator(seed, "shuffle", number).permutation(count) for place, seed in enumerate(seeds)
    }
    order = orders[seeds[0]] if len(seeds) == 1 else np.stack([orders[one.seed] for one in models])
    order, noise = to_device(order, common.device), generator(seeds[0], "noise", number)
    losses = []
    with np.errstate(over="ignore", invalid="ignore"):  # a loss that is not finite is caught by the caller
        for start in range(0, count, common.batch_size):
            rows = order[..., start : start + common.batch_size]
            x, y = samples.batch(rows, net.dtype)
            labels = {MAIN: y, **samples.auxiliary_labels(rows)}
            losses.append(train_step(net, x, labels, update, noise).sum(axis=-1))
        return np.atleast_1d(to_host(sum(losses[1:], losses[0]))) / count


def _validate(net: Network, validation: Mapping[int, Samples], models: Sequence[Settings]) -> npt.NDArray[np.float64]:
    """Return the accuracy (S,) of each model on the validation images of its seed."""
    right = np.empty(len(models))
    with np.errstate(over="ignore", invalid="ignore"):  # of models that have diverged
        for seed, samples in validation.items():
            own = [k for k, one in enumerate(models) if one.seed == seed]
            members = net if len(validation) == 1 else net.map(itemgetter(own))
            right[own] = accuracy(members, samples)
    return right


def _are_finite(net: Network) -> npt.NDArray[np.bool_]:
    """Return for each model (S,) whether all weights are: the loss of an epoch says nothing of its last step."""
    models = len(unstack(net))
    with np.errstate(over="ignore", invalid="ignore"):
        totals = [
            array.reshape(models, -1).sum(axis=-1) for layer in net.all_layers for array in layer.parameters.values()
        ]
        finite: npt.NDArray[np.bool_] = np.isfinite(to_host(sum(totals[1:], totals[0])))
        return finite
