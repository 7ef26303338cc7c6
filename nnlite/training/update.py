"""The Update that settings mean, for one net, or for a stack of nets that differ in numbers only."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from nnlite.backend import to_device
from nnlite.datagrad import objectives
from nnlite.errors import NnliteError
from nnlite.penalties import Penalty
from nnlite.sgd import Update
from nnlite.training.settings import Settings


def update_of(*models: Settings, epoch: int = 1) -> Update:
    """Return the update of an epoch, for one net or a stack of nets in this order; NnliteError where keys differ."""
    if len({stack_key(settings) for settings in models}) != 1:
        raise NnliteError(
            "stack: expected settings that differ in lam, phi, alpha, gamma, lr, decay, patience and seed only"
        )
    first = models[0]

    def numbers(values: Sequence[Any]) -> Any:
        if len(set(values)) == 1:
            return values[0]
        return to_device(np.array(values, np.float64), first.device)

    return Update(
        lr=numbers([settings.learning_rate(epoch) for settings in models]),
        terms=tuple(
            replace(same[0], lam=numbers([term.lam for term in same]), phi=numbers([term.phi for term in same]))
            for same in zip(*(settings.terms for settings in models), strict=True)
        ),
        gamma={
            task: numbers([settings.auxiliary_losses[task] for settings in models]) for task in first.auxiliary_losses
        },
        on_weights=first.method.on_weights,
        lam=numbers([settings.lam or 0.0 for settings in models]),
    )


def stack_key(settings: Settings) -> tuple[Any, ...]:
    """Return what models of one stack have in common: all but the numbers of an Update, and the seed.

    A search for noise may draw, as virtual adversarial training does; then they share the seed, too. A net leaves out a
    pass of weight 0, as lambda = phi gives the clean one; such a stack shares all but the seed, to do the same.
    """
    terms = settings.terms
    weights = [one.weight for one in objectives(terms, gamma=settings.auxiliary_losses)]
    weights += [term.weight for term in terms]
    searches = any(not isinstance(term.penalty, Penalty) for term in terms)
    return (
        *(getattr(settings, name) for name in ("data", "label", "split", "hidden", "epochs", "batch_size")),
        *(settings.multitask, settings.device),
        tuple((term.penalty, term.task, term.loss, term.phi is None) for term in terms),
        settings.method.on_weights,
        settings.seed if searches else None,
        replace(settings, seed=0) if 0 in weights else None,
    )
