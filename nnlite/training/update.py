"""The Update: one step of SGD on Eq. 4, for one net, or for a stack of nets that differ in numbers only."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from nnlite.backend import Array, to_device
from nnlite.datagrad import Term, clean_weights, weighted_passes
from nnlite.errors import NnliteError
from nnlite.layers import Parameters
from nnlite.methods import WeightPenalty
from nnlite.network import Labels, Network
from nnlite.penalties import Penalty
from nnlite.sgd import sgd_step
from nnlite.training.settings import Settings


@dataclass(frozen=True, eq=False)
class Update:
    """What a step does, from settings; its numbers are one for each model where it serves a stack, (S,).

    terms: those of Eq. 1. gamma: the weight of each further task's loss (Eq. 6). on_weights: the penalty on the
    weights, with lam, or None. lr: the learning rate.
    """

    terms: tuple[Term, ...]
    gamma: Mapping[str, float | Array]
    on_weights: WeightPenalty | None
    lam: float | Array
    lr: float | Array

    @classmethod
    def of(cls, *models: Settings) -> "Update":
        """Return the update of one net, or of a stack of nets in this order; NnliteError where they are not `alike`."""
        if len({alike(settings) for settings in models}) != 1:
            raise NnliteError("stack: expected settings that differ in lam, phi, alpha, gamma, lr and seed only")
        first = models[0]

        def numbers(values: Sequence[Any]) -> Any:
            if len(set(values)) == 1:
                return values[0]
            return to_device(np.array(values, np.float64), first.device)

        return cls(
            terms=tuple(
                replace(same[0], lam=numbers([term.lam for term in same]), phi=numbers([term.phi for term in same]))
                for same in zip(*(settings.terms for settings in models), strict=True)
            ),
            gamma={
                task: numbers([settings.further_losses[task] for settings in models]) for task in first.further_losses
            },
            on_weights=first.method.on_weights,
            lam=numbers([settings.lam or 0.0 for settings in models]),
            lr=numbers([settings.lr for settings in models]),
        )


def alike(settings: Settings) -> tuple[Any, ...]:
    """Return what models of one stack have in common: all but the numbers of an Update, and the seed.

    A search for noise may draw, as virtual adversarial training does; then they share the seed, too. A net leaves out a
    pass of weight 0, as lambda = phi gives the clean one; such a stack shares all but the seed, to do the same.
    """
    terms = settings.terms
    weights = [*clean_weights(terms, gamma=settings.further_losses).values(), *(term.weight for term in terms)]
    searches = any(not isinstance(term.penalty, Penalty) for term in terms)
    return (
        *(getattr(settings, name) for name in ("data", "hidden", "epochs", "batch_size", "multitask", "device")),
        tuple((term.penalty, term.task, term.loss, term.phi is None) for term in terms),
        settings.method.on_weights,
        settings.seed if searches else None,
        replace(settings, seed=0) if 0 in weights else None,
    )


def train_step(net: Network, x: Array, y: Labels, update: Update, rng: np.random.Generator | None = None) -> Array:
    """Take one step of `update` on the batch x (..., N, D) with its labels; return its clean losses (..., N).

    rng: for methods whose noise begins at random.
    """
    passes = weighted_passes(net, x, y, update.terms, gamma=update.gamma, rng=rng)
    clean = passes[0][1].of
    steps: Iterable[Parameters] = net.gradients([(update.lr * weight, p) for weight, p in passes])
    if update.on_weights is not None:
        steps = update.on_weights(steps, net, clean, update.lr * update.lam)
    sgd_step(net, steps)
    return clean.loss
