"""Training: epochs of minibatches, each followed by the validation accuracy; the best net is kept.

Nets of the same shape that take the same kind of step can be trained side by side, as a stack. One net is a stack of
one.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import itemgetter
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from nnlite.backend import brief, to_device, to_host
from nnlite.datasets.description import Description
from nnlite.datasets.rotation import rotated
from nnlite.datasets.samples import Dataset, Samples, concatenate
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import accuracy
from nnlite.evaluation.threads import one_blas_thread
from nnlite.init import generator
from nnlite.network import MAIN, Network, mlp, stack, unstack
from nnlite.sgd import Update, train_step
from nnlite.storage.memory import keep_freed_memory
from nnlite.training.environment import environment
from nnlite.training.settings import Settings
from nnlite.training.update import update_of


class Epoch(NamedTuple):
    """One epoch: its number from 1, mean clean training loss, validation accuracy in percent, seconds.

    Each net of a stack is given an equal share of the seconds.
    """

    epoch: int
    loss: float
    validation: float
    seconds: float


@dataclass(eq=False)
class TrainingResult:
    """The outcome of a training.

    Arguments:
        net: the net of the best validation epoch. Of equally good epochs the latest counts: a small validation set
            often ties, and robustness still grows when clean accuracy no longer does.
        best: that epoch, or None before the first one is complete.
        history: all epochs.
        status: "finished", "interrupted" or "diverged"; whether a finished one led anywhere, `outcome` says.
        environment: the versions and the BLAS that it was trained with.
        last: the net as the last epoch left it, from which more epochs can go on; None where a training was stopped
            within an epoch, or has diverged.
        data: the data that it was trained on.
    """

    net: Network
    best: Epoch | None = None
    history: list[Epoch] = field(default_factory=list)
    status: str = "finished"
    environment: dict[str, str] = field(default_factory=dict)
    last: Network | None = None
    data: Description | None = None
    __repr__ = brief("net", "best", "status")


class TrainingState(NamedTuple):
    """A training between two epochs: its result so far, and the net as the last epoch left it.

    Job can go on from it to the same bits: every random number comes from a generator of (seed, purpose, epoch),
    which each epoch makes anew, and a step has no memory.
    """

    trained: TrainingResult
    last: Network

    @property
    def epoch(self) -> int:
        """The number of completed epochs."""
        return len(self.trained.history)


def train(
    settings: Settings,
    data: Dataset,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    *,
    net: Network | None = None,
    resume_from: TrainingState | None = None,
    on_checkpoint: Callable[[TrainingState], None] = lambda state: None,
) -> TrainingResult:
    """Train a net on `data`, and return it as it was after its best validation epoch.

    The same settings give the same weights on the same machine, bit for bit, whether or not the training was resumed.
    KeyboardInterrupt ends the training and keeps the best net so far, and so does a loss that is no longer finite.
    `settings.patience` ends it where the validation accuracy no longer rises.

    Arguments:
        settings: all that decides the training.
        data: images and labels, on the host.
        on_epoch: called after each epoch.
        net: where training starts, in place of a new net of `settings.hidden`; its layers may be the user's own. It is
            copied, not changed. NnliteError where it does not fit the data or the tasks.
        resume_from: where training goes on, in place of either: a state that an earlier call gave to `on_checkpoint`.
        on_checkpoint: called with the state after each epoch, before `on_epoch`; the state changes with the next epoch.
    """
    if net:
        _check_net(net, settings, data)
    return train_stack(
        [settings],
        {settings.seed: data},
        lambda _, epoch: on_epoch(epoch),
        nets=[net] if net else (),
        resume_from=[resume_from] if resume_from else (),
        on_checkpoint=lambda states: on_checkpoint(states[0]),
    )[0]


def train_stack(
    models: Sequence[Settings],
    data: Mapping[int, Dataset],
    on_epoch: Callable[[int, Epoch], None] = lambda place, epoch: None,
    *,
    nets: Sequence[Network] = (),
    resume_from: Sequence[TrainingState] = (),
    on_checkpoint: Callable[[list[TrainingState]], None] = lambda states: None,
) -> list[TrainingResult]:
    """Train a net for each of `models` side by side, with the results of `train`, and return them in this order.

    A net that diverges, or that comes to rest, leaves the others alone. Products take one BLAS thread, unless you have
    set a limit of your own, see `nnlite.evaluation.threads.one_blas_thread`. NnliteError for settings that cannot be
    stacked, and for a stack that does not fit into memory.

    Arguments:
        models: settings of the same `stack_key`.
        data: the data set of each seed.
        on_epoch: called with the place in the stack, for each net after each epoch.
        nets: the nets to start from, in place of new ones.
        resume_from: the states to go on from, in place of either.
        on_checkpoint: called with all states after each epoch, as that of `train`.
    """
    with one_blas_thread():
        return _train(models, data, on_epoch, nets, resume_from, on_checkpoint)


def _train(
    models: Sequence[Settings],
    data: Mapping[int, Dataset],
    on_epoch: Callable[[int, Epoch], None],
    nets: Sequence[Network],
    resume_from: Sequence[TrainingState],
    on_checkpoint: Callable[[list[TrainingState]], None],
) -> list[TrainingResult]:
    update_of(*models)  # an error, before anything else, where they cannot be stacked
    common = models[0]
    if common.device == "cpu":
        keep_freed_memory()
    net = _first_net(models, data, [one.last for one in resume_from] or nets).to(common.device)
    samples = _training_samples(models, data)
    validation = {seed: data[seed].validation.to(common.device) for seed in _seeds(models)}
    trained = [_copy(one.trained, common.device) for one in resume_from]
    trained = trained or [TrainingResult(one.copy()) for one in unstack(net)]
    for settings, one in zip(models, trained, strict=True):
        one.environment, one.data = environment(), data[settings.seed].description
    running = set(range(len(models)))
    done = max((one.epoch for one in resume_from), default=0)
    try:
        for number in range(done + 1, common.epochs + 1):
            for k in [k for k in running if _is_at_rest(trained[k], models[k].patience)]:
                trained[k].last = unstack(net)[k].copy()  # the others of the stack train on, and these arrays with them
                running.remove(k)
            if not running:
                break
            update = update_of(*models, epoch=number)
            began = time.perf_counter()
            losses = _run_epoch(net, samples, update, models, number)
            for k in running - set(np.flatnonzero(np.isfinite(losses) & _are_finite(net))):
                trained[k].status = "diverged"
                running.remove(k)
            if not running:
                break
            correct = _validate(net, validation, models)
            seconds = (time.perf_counter() - began) / len(models)
            last = unstack(net)
            for k in sorted(running):
                _note(trained[k], last[k], Epoch(number, float(losses[k]), float(correct[k]), seconds))
            on_checkpoint([TrainingState(*both) for both in zip(trained, last, strict=True)])
            for k in sorted(running):
                on_epoch(k, trained[k].history[-1])
        for k in running:
            trained[k].last = unstack(net)[k]
    except KeyboardInterrupt:
        for k in running:
            trained[k].status = "interrupted"
    except MemoryError as error:  # CuPy's is a subclass
        raise NnliteError(
            f"memory: {len(models)} x {unstack(net)[0]} did not fit, {common.batch_size} examples at a time ({error}); "
            f"train fewer nets at a time, or take smaller batches"
        ) from error
    return trained


def _is_at_rest(trained: TrainingResult, patience: int | None) -> bool:
    """Return whether `patience` epochs have passed since the first one of the best validation accuracy.

    An epoch that is as good is kept, but is no better: else a validation set that is all right would end no training.
    """
    if patience is None or trained.best is None:
        return False
    first = next(one.epoch for one in trained.history if one.validation == trained.best.validation)
    return len(trained.history) - first >= patience


def _copy(trained: TrainingResult, device: str) -> TrainingResult:
    """Return a copy that training can add to."""
    return replace(trained, net=trained.net.to(device), history=[*trained.history])


def _note(trained: TrainingResult, net: Network, epoch: Epoch) -> None:
    trained.history.append(epoch)
    if trained.best is None or epoch.validation >= trained.best.validation:
        trained.net, trained.best = net.copy(), epoch


def _check_net(net: Network, settings: Settings, data: Dataset) -> None:
    """Raise NnliteError where one image of `data` does not lead to the logits of each task."""
    x, _ = data.validation.batch(slice(0, 1), net.dtype)
    try:
        found = {task: net.to("cpu").logits(x, task).shape[-1] for task in (MAIN, *net.heads)}
    except ValueError as error:
        raise NnliteError(f"net: expected a net for {data.features} features, found one that fails: {error}") from error
    expected = {MAIN: data.classes, **settings.heads}
    if found != expected:
        raise NnliteError(f"net: expected these classes of each task: {expected}, found {found}; see --multitask")


def _first_net(models: Sequence[Settings], data: Mapping[int, Dataset], start: Sequence[Network]) -> Network:
    """Return the net, or the stack of nets, that training starts from: copies of `start`, or new ones."""
    nets = [one.copy() for one in start] or [_new_net(one, data[one.seed]) for one in models]
    return nets[0] if len(nets) == 1 else stack(nets)


def _new_net(settings: Settings, data: Dataset) -> Network:
    sizes = (data.features, *settings.hidden, data.classes)
    return mlp(sizes, generator(settings.seed, "weights"), heads=settings.heads)


def _seeds(models: Sequence[Settings]) -> list[int]:
    return list(dict.fromkeys(one.seed for one in models))


def _training_samples(models: Sequence[Settings], data: Mapping[int, Dataset]) -> Samples:
    """Return the samples of all seeds one after another, on the device: the split may depend on the seed."""
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
    with np.errstate(over="ignore", invalid="ignore"):  # the caller looks for losses that are not finite
        for start in range(0, count, common.batch_size):
            rows = order[..., start : start + common.batch_size]
            x, y = samples.batch(rows, net.dtype)
            labels = {MAIN: y, **samples.auxiliary_labels(rows)}
            losses.append(train_step(net, x, labels, update, noise, checked=True).sum(axis=-1))
        return np.atleast_1d(to_host(sum(losses[1:], losses[0]))) / count


def _validate(net: Network, validation: Mapping[int, Samples], models: Sequence[Settings]) -> npt.NDArray[np.float64]:
    """Return the accuracy (S,) of each model on the validation images of its seed."""
    found = np.empty(len(models))
    with np.errstate(over="ignore", invalid="ignore"):  # in models that have diverged
        for seed, samples in validation.items():
            own = [k for k, one in enumerate(models) if one.seed == seed]
            members = net if len(validation) == 1 else net.map(itemgetter(own))
            found[own] = accuracy(members, samples)
    return found


def _are_finite(net: Network) -> npt.NDArray[np.bool_]:
    """Return for each model (S,) whether its weights are finite: the loss of an epoch is older than its last step."""
    models = len(unstack(net))
    with np.errstate(over="ignore", invalid="ignore"):
        totals = [
            array.reshape(models, -1).sum(axis=-1) for layer in net.all_layers for array in layer.parameters.values()
        ]
        return np.isfinite(to_host(sum(totals[1:], totals[0])))
