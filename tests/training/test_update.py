"""The Update of one net holds the numbers of its settings; that of a stack holds one for each model."""

from dataclasses import replace

import numpy as np
import pytest
from nets import biased_mlp

from nnlite.datagrad import weighted_passes
from nnlite.errors import NnliteError
from nnlite.layers import Dense
from nnlite.network import Network
from nnlite.penalties import L1
from nnlite.sgd import train_step
from nnlite.training.settings import Settings
from nnlite.training.update import stack_key, update_of

ONE = Settings(reg="dgl1", lam=0.01, phi=0.1, lr=0.3, multitask=True, gamma=0.5, seed=1)
OTHER = replace(ONE, lam=0.02, phi=0.2, lr=0.4, gamma=0.7, seed=2)


def test_one_net_has_plain_numbers():
    update = update_of(ONE)
    (term,) = update.terms
    found = {"lam": term.lam, "phi": term.phi, "lr": update.lr, **update.gamma}
    assert found == {"lam": 0.01, "phi": 0.1, "lr": 0.3, "rotation": 0.5}
    assert {type(number) for number in found.values()} == {float}
    assert term.penalty is L1
    assert update.on_weights is None


def test_a_stack_has_a_number_for_each_model():
    update = update_of(ONE, OTHER)
    (term,) = update.terms
    found = {"lam": term.lam, "phi": term.phi, "lr": update.lr, **update.gamma}
    assert {name: numbers.tolist() for name, numbers in found.items()} == {
        "lam": [0.01, 0.02],
        "phi": [0.1, 0.2],
        "lr": [0.3, 0.4],
        "rotation": [0.5, 0.7],
    }
    assert {numbers.dtype for numbers in found.values()} == {np.dtype(np.float64)}


def test_the_exact_derivative_has_no_phi_in_a_stack_either():
    exact = Settings(reg="dgl1", lam=0.01, gradient="exact")
    (term,) = update_of(exact, replace(exact, lam=0.02)).terms
    assert term.phi is None


def test_a_penalty_on_the_weights_may_weigh_nothing():
    plain = Settings(reg="l1", lam=0.0)
    assert update_of(plain).lam == 0.0
    assert update_of(plain, replace(plain, lam=0.3)).lam.tolist() == [0.0, 0.3]


UNLIKE = {
    "data": {"data": "mnist"},
    "hidden": {"hidden": (20,)},
    "epochs": {"epochs": 3},
    "batch_size": {"batch_size": 7},
    "multitask": {"multitask": False, "gamma": None},
    "device": {"device": "gpu"},
    "penalty": {"reg": "dgl2"},
    "exact": {"gradient": "exact", "phi": None},
    "weights": {"reg": "l1", "phi": None},
}


@pytest.mark.parametrize("change", UNLIKE.values(), ids=UNLIKE)
def test_nets_that_differ_in_more_than_numbers_make_no_stack(change):
    other = replace(ONE, **change)
    assert stack_key(ONE) != stack_key(other)
    with pytest.raises(
        NnliteError,
        match=r"^stack: expected settings that differ in lam, phi, alpha, gamma, lr, decay, patience and seed",
    ):
        update_of(ONE, ONE, other)


def test_a_step_takes_the_learning_rate_times_lambda_of_the_penalty_on_the_weights():
    x, y = np.ones((4, 2)), np.array([0, 1, 0, 0])
    with_penalty, plain = (Network((Dense(np.array([[3.0, -1.0], [2.0, 5.0]]), np.zeros(2)),)) for _ in range(2))
    before = plain.layers[0].W.copy()
    train_step(with_penalty, x, y, update_of(Settings(reg="l2", lam=0.7, lr=0.3)))
    train_step(plain, x, y, update_of(Settings(lr=0.3)))
    # the penalty's share of the mean is lam R(W) / N, with N = 4 and dR/dW = 2 W
    found = plain.layers[0].W - with_penalty.layers[0].W
    assert found == pytest.approx(0.3 * 0.7 * 2 * before / 4, rel=1e-12)


def test_a_step_returns_the_clean_losses_from_before_it():
    rng = np.random.default_rng(0)
    net, x, y = biased_mlp([3, 2], rng), rng.random((4, 3)), np.array([0, 1, 0, 0])
    expected = net.run(x, y).loss
    assert (train_step(net, x, y, update_of(Settings(reg="dgl1", lam=0.1, phi=0.1))) == expected).all()


def test_no_nets_make_no_stack():
    with pytest.raises(NnliteError, match=r"^stack: "):
        update_of()


def test_a_search_in_a_ball_has_a_phi_for_each_model_and_steps_for_all():
    one = Settings(reg="trades", lam=6.0, phi=0.1, steps=5)
    (term,) = update_of(one, replace(one, lam=1.0, phi=0.2)).terms
    assert (term.lam.tolist(), term.phi.tolist()) == (pytest.approx([0.6, 0.2]), [0.1, 0.2])
    assert stack_key(one) != stack_key(replace(one, steps=6))


def test_a_search_that_draws_shares_the_seed():
    one = Settings(reg="miyato", lam=1.0, phi=0.1, seed=1)
    assert stack_key(one) != stack_key(replace(one, seed=2))
    assert stack_key(one) == stack_key(replace(one, lam=2.0))


@pytest.mark.parametrize(
    "given",
    [
        {"reg": "dgl1", "lam": 0.1, "phi": 0.1},  # no clean pass
        {"reg": "dgl1", "lam": 0.0, "phi": 0.1},  # no adversarial pass
        {"reg": "goodfellow", "phi": 0.1, "alpha": 1.0},
        {"reg": "datagrad", "term": ("l1,0.1,0.1,rotation",), "multitask": True, "gamma": 1.0},  # no pass of that task
    ],
)
def test_a_pass_without_weight_is_left_out_and_only_other_seeds_share_the_stack(given):
    one = Settings(**given)
    update = update_of(one, replace(one, seed=1))
    net = biased_mlp([3, 2], np.random.default_rng(0), {"rotation": 5} if one.multitask else None)
    labels = {"digit": np.array([0, 1]), "rotation": np.array([4, 1])}
    passes = weighted_passes(net, np.ones((2, 3)), labels, update.terms, gamma=update.gamma)
    assert 0 in [weight for weight, _ in passes]
    assert stack_key(one) != stack_key(replace(one, lr=0.9))
    assert stack_key(one) != stack_key(replace(one, **{"phi": 0.2} if one.phi else {"gamma": 0.2}))
