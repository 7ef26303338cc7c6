"""The engine's dataclasses are values."""

import dataclasses

import numpy as np
import pytest

from nnlite.attacks import PGD, Crafted, Noise
from nnlite.datagrad import Term
from nnlite.evaluation.accuracy import AttackTable, Examples
from nnlite.evaluation.finite_step import Convergence
from nnlite.evaluation.random_signs import RandomSigns
from nnlite.gradcheck import Check, Held
from nnlite.layers import Dense
from nnlite.lbfgs import LBFGS
from nnlite.methods import Method
from nnlite.network import Activations, Backprop, Network, Pass, Tangent, mlp
from nnlite.penalties import Penalty
from nnlite.sgd import Update
from nnlite.training.settings import Settings


def test_what_a_pass_holds_is_given_by_name():
    net = mlp((2, 2), np.random.default_rng(0))
    once = net.run(np.ones((1, 2), np.float32), np.zeros(1, int))
    values = [getattr(once, field.name) for field in dataclasses.fields(once)]
    for unnamed in (
        lambda: Backprop((), None),
        lambda: Pass(*values),
        lambda: Tangent(once, (), deltas=(), input_gradient=None),
    ):
        with pytest.raises(TypeError):
            unnamed()


VALUES = (Penalty, Method, Settings, Check, Noise, RandomSigns, PGD, LBFGS, AttackTable)
WITH_ARRAYS = (Dense, Activations, Backprop, Pass, Tangent, Network, Term, Update, Crafted, Examples, Held, Convergence)


@pytest.mark.parametrize("value", [*VALUES, *WITH_ARRAYS])
def test_a_value_cannot_be_changed_and_one_with_arrays_is_equal_to_itself_alone(value):
    assert value.__dataclass_params__.frozen
    assert value.__dataclass_params__.eq == (value in VALUES)
