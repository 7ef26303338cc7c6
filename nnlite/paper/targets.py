"""Targets: the tables and figures that can be reproduced, and the attacks that each is made from."""

from collections.abc import Iterable
from typing import NamedTuple

from nnlite.attacks import R1, R2, Noise
from nnlite.errors import NnliteError
from nnlite.evaluation.float32_trap import naive_softmax_cross_entropy
from nnlite.paper.scores import EXACT, NAIVE, SQUARED
from nnlite.paper.tables import ADVERSARIES, FIGURE_3, Model, best_of_families, in_order

TARGETS = (*(f"table{number}" for number in ADVERSARIES), "fig1", "fig2", "fig3")


NOISES = {EXACT: R1, SQUARED: R2, NAIVE: Noise(R1.penalty, loss=naive_softmax_cross_entropy)}
"""What the noises of Scores are crafted by."""


class AttackSpec(NamedTuple):
    """An attack to carry out: the adversary crafts one of NOISES for the test set, and the victims are scored."""

    adversary: Model
    noise: str
    victims: tuple[Model, ...]


def attacks_for(target: str, models: Iterable[Model]) -> tuple[list[AttackSpec], tuple[Model, ...]]:
    """Return the attacks that a target is made from, and all models in them.

    Arguments:
        target: one of TARGETS.
        models: the rows wanted. An adversary is scored even where it is not among them. Figures 1 and 2 take the best
            of `models` in each family, Figure 3 its own three models.
    """
    wanted = tuple(models)
    tables = {f"table{number}": adversary for number, adversary in ADVERSARIES.items()}
    attacks = []
    for noise in (EXACT, NAIVE):
        if target in tables:
            attacks += [AttackSpec(tables[target], noise, in_order((*wanted, tables[target])))]
        elif target == "fig1":
            attacks += [AttackSpec(model, noise, (model,)) for model in best_of_families(wanted)]
        elif target == "fig2":
            pair = (Model("Rect"), Model("MT"))
            attacks += [AttackSpec(adversary, noise, best_of_families((*wanted, *pair))) for adversary in pair]
        elif target == "fig3":
            attacks += [AttackSpec(model, noise, (model,)) for model in FIGURE_3]
        else:
            raise NnliteError(f"target: expected one of {', '.join(TARGETS)}, found {target!r}; choose one of them")
    if target == "fig1":
        attacks += [AttackSpec(model, SQUARED, (model,)) for model in best_of_families(wanted)]
    return attacks, in_order(model for attack in attacks for model in (attack.adversary, *attack.victims))
