"""The engine's dataclasses are values."""

import numpy as np
import pytest

from nnlite.attacks import PGD, Crafted, Noise, RandomSigns
from nnlite.datagrad import Term
from nnlite.evaluation.accuracy import AttackTable, Examples
from nnlite.gradcheck import Check, Convergence, Gate
from nnlite.layers import Dense, ReLU
from nnlite.lbfgs import LBFGS
from nnlite.methods import Method, Regularisation
from nnlite.network import Network, Pairs, Pass, Tangent
from nnlite.penalties import Penalty
from nnlite.training.update import Update


def test_what_a_pass_holds_is_given_by_name():
    pairs = {"inputs": (), "deltas": (), "input_gradient": None}
    once = Pass(**pairs, task="digit", logits=np.ones((1, 2)), loss=np.ones(1))
    for unnamed in (
        lambda: Pairs((), (), None),
        lambda: Pass("digit", np.ones((1, 2)), np.ones(1), **pairs),
        lambda: Tangent(once, **pairs),
    ):
        with pytest.raises(TypeError):
            unnamed()


VALUES = (Penalty, Method, Regularisation, Check, Noise, RandomSigns, PGD, LBFGS, AttackTable)
WITH_ARRAYS = (Dense, ReLU, Pairs, Pass, Tangent, Network, Term, Update, Crafted, Examples, Gate, Convergence)


@pytest.mark.parametrize("value", [*VALUES, *WITH_ARRAYS])
def test_a_value_cannot_be_changed_and_one_with_arrays_is_equal_to_itself_alone(value):
    assert value.__dataclass_params__.frozen
    assert value.__dataclass_params__.eq == (value in VALUES)
