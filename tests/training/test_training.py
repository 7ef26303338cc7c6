"""Training: the same seed gives the same net, and the net kept is that of the best epoch."""

from dataclasses import replace

import numpy as np
import pytest

from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import accuracy
from nnlite.init import generator
from nnlite.layers import ReLU
from nnlite.network import Network, mlp
from nnlite.training import loop as training
from nnlite.training.loop import TrainingState, train, train_stack
from nnlite.training.settings import Settings

QUICK = Settings(hidden=(16,), epochs=3)
UNSTEADY = Settings(hidden=(16,), epochs=8, lr=1.0)  # validation falls again after its best
LAST_STEP_OVERFLOWS = Settings(hidden=(16,), epochs=3, lr=1e39, batch_size=2000)  # one step an epoch


def weights(net):
    return [array for layer in net.layers for array in layer.parameters.values()]


def same_bits(one, other):
    return [array.tobytes() for array in weights(one)] == [array.tobytes() for array in weights(other)]


def is_finite(net):
    return all(np.isfinite(array).all() for array in weights(net))


# --- seeds


@pytest.mark.parametrize("numbers", [{}, {"reg": "dgl1", "lam": 0.01, "phi": 0.1}, {"reg": "l2", "lam": 0.01}])
def test_the_same_seed_gives_the_same_bits(digits, numbers):
    settings = replace(QUICK, **numbers)
    one, other = train(settings, digits), train(settings, digits)
    assert same_bits(one.net, other.net)
    assert [epoch[:3] for epoch in one.history] == [epoch[:3] for epoch in other.history]  # all but the seconds


def test_another_seed_gives_other_weights(digits):
    assert not same_bits(train(QUICK, digits).net, train(replace(QUICK, seed=1), digits).net)


def test_each_epoch_is_shuffled_differently_and_by_the_seed(digits, monkeypatch):
    seen = []

    def look(_net, _x, y, _settings, _rng, **_):
        seen.append(y["digit"])
        return np.zeros(1, np.float32)

    monkeypatch.setattr(training, "train_step", look)
    for seed in (0, 1):
        train(Settings(hidden=(), epochs=2, batch_size=2000, seed=seed), digits)
    assert len({y.tobytes() for y in seen}) == 4
    for y in seen:
        np.testing.assert_array_equal(np.sort(y), np.sort(digits.train.labels))


def test_each_step_draws_noise_of_its_own_by_the_seed(digits, monkeypatch):
    drawn = []

    def look(_net, _x, _y, _update, rng, **_):
        drawn.append((seed, rng.random()))
        return np.zeros(1, np.float32)

    monkeypatch.setattr(training, "train_step", look)
    for seed in (0, 1, 0):
        train(Settings(hidden=(), epochs=2, batch_size=600, seed=seed), digits)
    assert len(drawn) == 12
    assert len(set(drawn)) == 8  # two seeds, two epochs, two steps
    assert drawn[:4] == drawn[8:]


def test_datagrad_with_lambda_0_is_rect_bit_for_bit(digits):
    rect, datagrad = train(QUICK, digits), train(replace(QUICK, reg="dgl1", lam=0.0, phi=0.1), digits)
    assert same_bits(rect.net, datagrad.net)


def test_training_does_not_change_the_data(digits):
    before = digits.train.images.tobytes()
    train(QUICK, digits)
    assert digits.train.images.tobytes() == before


# --- what training does


def test_an_epoch_of_one_batch_is_one_plain_step_of_gradient_descent(digits):
    settings = Settings(hidden=(), epochs=1, batch_size=2000, lr=0.5)
    W, b = (array.astype(np.float64) for array in weights(mlp((64, 10), generator(0, "weights"))))
    x, y = digits.train.batch(slice(None), np.float64)
    scores = np.exp(x @ W + b)
    p = scores / scores.sum(axis=1, keepdims=True)
    error = (p - np.eye(10)[y]) / len(y)
    trained = train(settings, digits)
    np.testing.assert_allclose(weights(trained.net)[0], W - 0.5 * x.T @ error, atol=1e-5)
    np.testing.assert_allclose(weights(trained.net)[1], b - 0.5 * error.sum(axis=0), atol=1e-5)
    assert trained.history[0].loss == pytest.approx(-np.log(p[np.arange(len(y)), y]).mean(), rel=1e-5)


def test_training_learns(digits):
    trained = train(Settings(hidden=(32,), epochs=20, lr=0.3), digits)
    assert trained.history[-1].loss < trained.history[0].loss / 3
    assert accuracy(trained.net, digits.test) > 80


@pytest.mark.parametrize("reg", ["l1", "l2"])
def test_the_classical_penalties_shrink_the_weights(digits, reg):
    def size(net):
        return sum(float(abs(layer.W).sum()) for layer in net.layers[::2])

    settings = replace(QUICK, epochs=10)
    assert size(train(replace(settings, reg=reg, lam=1.0), digits).net) < 0.9 * size(train(settings, digits).net)


@pytest.mark.parametrize(("reg", "slope"), [("l1", np.sign), ("l2", lambda W: 2 * W)])
def test_the_classical_lambda_stands_beside_the_batch_sum_and_spares_the_biases(digits, reg, slope):
    plain = Settings(hidden=(), epochs=1, batch_size=2000, lr=0.5)
    start, _ = weights(mlp((64, 10), generator(0, "weights")))
    W, b = weights(train(plain, digits).net)
    W_penalised, b_penalised = weights(train(replace(plain, reg=reg, lam=100.0), digits).net)
    np.testing.assert_allclose(W_penalised, W - 0.5 * 100 / len(digits.train) * slope(start), atol=1e-6)
    np.testing.assert_array_equal(b_penalised, b)


def test_on_epoch_sees_every_epoch_in_order(digits):
    seen = []
    assert train(QUICK, digits, seen.append).history == seen
    assert [epoch.epoch for epoch in seen] == [1, 2, 3]
    assert all(epoch.seconds > 0 for epoch in seen)


# --- which net is kept


def test_the_net_kept_is_that_of_the_best_epoch(digits):
    trained = train(UNSTEADY, digits)
    assert trained.best.epoch < len(trained.history)  # or this would not tell best from last
    assert trained.best.validation == max(epoch.validation for epoch in trained.history)
    assert accuracy(trained.net, digits.validation) == trained.best.validation
    assert same_bits(trained.net, train(replace(UNSTEADY, epochs=trained.best.epoch), digits).net)


def test_among_equally_good_epochs_the_latest_counts(digits):
    few = replace(digits, validation=digits.validation[:4])  # 0, 25, 50, 75 or 100 %: ties are certain
    trained = train(UNSTEADY, few)
    top = max(epoch.validation for epoch in trained.history)
    ties = [epoch.epoch for epoch in trained.history if epoch.validation == top]
    assert len(ties) > 1
    assert ties[-1] < len(trained.history)
    assert trained.best.epoch == ties[-1]
    assert same_bits(trained.net, train(replace(UNSTEADY, epochs=ties[-1]), few).net)


# --- a net of the user's own


class Halving(ReLU):
    """A layer of the user's own: half of what is below 0 passes."""

    def forward(self, x):
        return np.where(x > 0, x, x / 2)

    def backward(self, x, dy):
        return np.where(x > 0, dy, dy / 2)


def test_training_starts_from_a_net_of_the_users_own_and_leaves_it_as_it_was(digits):
    own = mlp((64, 16, 10), generator(0, "weights"))
    before = own.copy()
    trained = train(replace(QUICK, hidden=()), digits, net=own)
    assert same_bits(trained.net, train(QUICK, digits).net)
    assert same_bits(own, before)


def test_a_layer_of_the_users_own_is_trained(digits):
    first, _, last = mlp((64, 16, 10), generator(0, "weights")).layers
    own = Network((first, Halving(), last))
    states = []
    trained = train(QUICK, digits, net=own, on_checkpoint=lambda state: states.append(copied([state])[0]))
    assert isinstance(trained.net.layers[1], Halving)
    assert not same_bits(trained.net, train(QUICK, digits).net)
    assert trained.history[-1].loss < trained.history[0].loss
    assert same_bits(trained.net, train(QUICK, digits, net=own, resume_from=states[0]).net)


@pytest.mark.parametrize(
    ("sizes", "heads", "said"),
    [
        ((65, 10), {}, "^net: expected a net for 64 features"),
        ((64, 9), {}, "^net: expected these classes of each task: {'digit': 10}, found {'digit': 9}"),
        ((64, 4, 10), {"rotation": 5}, "^net: expected .*, found .*'rotation': 5.*see --multitask"),
    ],
)
def test_a_net_that_does_not_fit_the_data_is_refused_before_training(sizes, heads, said, digits):
    net = mlp(sizes, generator(0, "weights"), heads=heads)
    with pytest.raises(NnliteError, match=said):
        train(QUICK, digits, lambda epoch: pytest.fail("trained"), net=net)


# --- training that ends early


@pytest.mark.parametrize("lam", [110.0, 125.0, 150.0, 200.0])
def test_a_divergence_keeps_the_best_net_so_far_and_warns_of_nothing(digits, lam):
    # each step multiplies the weights by 1 - 2 lam / 100, below -1: they overflow after a few epochs
    trained = train(Settings(reg="l2", lam=lam, lr=1.0, hidden=(16,), epochs=20), digits)
    assert trained.status == "diverged"
    assert 0 < len(trained.history) < 20
    assert accuracy(trained.net, digits.validation) == trained.best.validation
    assert is_finite(trained.net)


def test_a_divergence_in_the_first_epoch_leaves_no_best_epoch(digits):
    trained = train(Settings(hidden=(16, 16, 16), lr=1e6, epochs=3), digits)
    assert (trained.status, trained.best, trained.history) == ("diverged", None, [])


def test_a_net_that_overflows_in_the_last_step_of_an_epoch_is_not_kept(digits):
    # the loss of that step was taken before it, and is still finite
    trained = train(LAST_STEP_OVERFLOWS, digits)
    assert trained.status == "diverged"
    assert is_finite(trained.net)
    assert trained.best is None


def test_an_interrupt_keeps_the_epochs_so_far(digits):
    def stop_after_2(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    trained = train(QUICK, digits, stop_after_2)
    assert trained.status == "interrupted"
    assert [epoch.epoch for epoch in trained.history] == [1, 2]
    assert accuracy(trained.net, digits.validation) == trained.best.validation


def test_other_errors_of_on_epoch_are_not_swallowed(digits):
    def fail(epoch):
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError, match="disk full"):
        train(QUICK, digits, fail)


GRID = [
    replace(QUICK, reg=reg, lr=lr, seed=seed, **given)
    for reg, given in [
        ("dgl1", {"lam": 0.01, "phi": 0.1}),
        ("dgl1", {"lam": 0.03, "phi": 0.05}),
        ("goodfellow", {"phi": 0.1, "alpha": 0.3}),
    ]
    for lr, seed in [(0.1, 0), (0.2, 1)]
]


@pytest.mark.parametrize(
    "models",
    [
        GRID,
        [model for model in GRID if model.seed == 0],
        [replace(QUICK, reg="l2", lam=lam, lr=lr) for lam, lr in [(0.1, 0.1), (0.01, 0.3)]],
        [replace(QUICK, multitask=True, gamma=gamma, seed=seed) for gamma, seed in [(0.5, 0), (0.25, 3)]],
        [replace(QUICK, reg="miyato", lam=lam, phi=0.1) for lam in (0.5, 1.0)],
        [replace(QUICK, reg="trades", lam=lam, phi=phi, steps=2) for lam, phi in [(1.0, 0.1), (6.0, 0.05)]],
        [replace(QUICK, reg="dgl2", lam=lam, gradient="exact", hidden=()) for lam in (0.5, 1.0)],
        [replace(QUICK, reg="nokland", phi=0.1, seed=seed) for seed in (0, 1)],
    ],
    ids=[
        *("settings and seeds", "one seed", "on the weights", "multi-task"),
        *("with a search", "with a search in a ball", "exact", "no clean pass"),
    ],
)
def test_a_stack_trains_each_of_its_models_as_if_alone(models, digits):
    few = replace(digits, train=digits.train[:230], validation=digits.validation[:50])
    other = replace(digits, train=digits.train[300:530], validation=digits.validation[100:150])
    data = {model.seed: few if model.seed == 0 else other for model in models}
    told = []
    together = train_stack(models, data, lambda place, epoch: told.append((place, epoch.epoch)))
    assert sorted(told) == [(place, epoch) for place in range(len(models)) for epoch in range(1, QUICK.epochs + 1)]
    for model, one in zip(models, together, strict=True):
        alone = train(model, data[model.seed])
        assert [(e.epoch, e.validation) for e in one.history] == [(e.epoch, e.validation) for e in alone.history]
        assert same_bits(one.net, alone.net)


def copied(states):
    """States as they are now: training goes on in the same arrays."""
    return [
        TrainingState(replace(one.trained, net=one.trained.net.copy(), history=[*one.trained.history]), one.last.copy())
        for one in states
    ]


@pytest.mark.parametrize("done", [1, 2, 3])
@pytest.mark.parametrize(
    "models",
    [
        [replace(UNSTEADY, epochs=3)],
        [replace(QUICK, reg="miyato", lam=1.0, phi=0.1)],
        [replace(QUICK, multitask=True, gamma=0.5)],
        [replace(QUICK, reg="miyato", lam=lam, phi=0.1) for lam in (0.5, 1.0)],
        [model for model in GRID if model.reg == "dgl1"],
        [replace(QUICK, lr=lr) for lr in (0.1, 1e39, 0.2)],
    ],
    ids=["one", "a search that draws", "multi-task", "a stack with a search", "settings and seeds", "one diverges"],
)
def test_training_goes_on_from_a_state_to_the_same_bits(models, done, digits):
    few = replace(digits, train=digits.train[:230], validation=digits.validation[:50])
    data = {model.seed: few for model in models}
    kept, told = [], []
    whole = train_stack(models, data, on_checkpoint=lambda states: kept.append(copied(states)))
    assert [max(one.epoch for one in states) for states in kept] == [1, 2, 3]
    before = [one.last.copy() for one in kept[done - 1]]
    again = train_stack(models, data, lambda place, epoch: told.append(epoch.epoch), resume_from=kept[done - 1])
    assert sorted(set(told)) == list(range(done + 1, 4))
    for one, other in zip(whole, again, strict=True):
        assert same_bits(one.net, other.net)
        assert [epoch[:3] for epoch in one.history] == [epoch[:3] for epoch in other.history]
        assert (one.best and one.best[:3], one.status) == (other.best and other.best[:3], other.status)
    for net, state in zip(before, kept[done - 1], strict=True):
        assert same_bits(net, state.last)  # what it began with is as it was
        assert state.epoch <= done


def test_a_state_is_kept_before_its_epoch_is_told(digits):
    seen = []
    train(
        QUICK,
        digits,
        lambda epoch: seen.append(("told", epoch.epoch)),
        on_checkpoint=lambda s: seen.append(("kept", s.epoch)),
    )
    assert seen == [(what, epoch) for epoch in (1, 2, 3) for what in ("kept", "told")]


def test_a_model_that_diverges_leaves_the_others_of_its_stack_alone(digits):
    models = [replace(QUICK, lr=lr) for lr in (0.1, 1e39, 0.2)]
    together = train_stack(models, {0: digits})
    assert [one.status for one in together] == ["finished", "diverged", "finished"]
    assert len(together[1].history) < QUICK.epochs
    for model, one in zip(models, together, strict=True):
        alone = train(model, digits)
        assert one.status == alone.status
        assert [epoch[:3] for epoch in one.history] == [epoch[:3] for epoch in alone.history]


def test_settings_that_differ_in_more_than_numbers_make_no_stack(digits):
    for other in [{"hidden": (8,)}, {"batch_size": 7}, {"epochs": 9}, {"reg": "dgl1", "lam": 0.1, "phi": 0.1}]:
        with pytest.raises(NnliteError, match=r"stack: expected settings that differ in lam, phi, .* only"):
            train_stack([QUICK, replace(QUICK, **other)], {0: digits})
    drawn = [replace(QUICK, reg="miyato", lam=1.0, phi=0.1, seed=seed) for seed in (0, 1)]
    with pytest.raises(NnliteError, match="stack: expected"):
        train_stack(drawn, {0: digits, 1: digits})
    for lam in (0.0, 0.1):  # alone, the second leaves a pass of weight 0 out
        with pytest.raises(NnliteError, match="stack: expected"):
            train_stack([replace(QUICK, reg="dgl1", lam=one, phi=0.1) for one in (0.01, lam)], {0: digits})


@pytest.mark.parametrize("error", [MemoryError, type("OutOfMemoryError", (MemoryError,), {})])  # the second is CuPy's
def test_a_stack_that_does_not_fit_says_how_large_it_is(error, digits, monkeypatch):
    def too_large(*_, **__):
        raise error("Unable to allocate 9.00 GiB")

    monkeypatch.setattr(training, "train_step", too_large)
    expected = r"memory: 3 x Network\(64-16-10, float32\) did not fit, 100 examples .* 9.00 GiB\); train fewer"
    with pytest.raises(NnliteError, match=expected):
        train_stack([replace(QUICK, lr=lr) for lr in (0.1, 0.2, 0.3)], {0: digits})


# --- a learning rate that decays, and a training that comes to rest


def test_the_learning_rate_of_an_epoch_is_that_of_pytorchs_exponential_lr():
    torch = pytest.importorskip("torch")
    settings = Settings(lr=0.3, decay=0.9)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=settings.lr)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, settings.decay)
    for epoch in range(1, 30):
        assert settings.learning_rate(epoch) == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        scheduler.step()
    assert [Settings(lr=0.3).learning_rate(epoch) for epoch in (1, 2, 60)] == [0.3] * 3  # to the bit


def test_a_decay_trains_as_if_each_epoch_were_called_with_its_learning_rate(digits):
    together = train(replace(QUICK, lr=0.4, decay=0.5), digits)
    states = []
    for epoch, lr in enumerate((0.4, 0.2, 0.1), 1):
        train(
            replace(QUICK, lr=lr, epochs=epoch),
            digits,
            resume_from=states[-1] if states else None,
            on_checkpoint=lambda state: states.append(state._replace(last=state.last.copy())),
        )
    assert [epoch[:3] for epoch in together.history] == [epoch[:3] for epoch in states[-1].trained.history]
    assert same_bits(together.last, states[-1].last)
    assert not same_bits(together.last, train(replace(QUICK, lr=0.4), digits).last)


@pytest.mark.parametrize(
    ("accuracies", "patience", "epochs"),
    [
        ([50, 60, 60, 60, 70, 70, 70, 70, 70], 3, 8),  # the third epoch after the fifth; as good is no better
        ([50, 60, 60, 60, 70], 2, 4),
        ([90, 80, 70, 60], 1, 2),
        ([90, 80, 70, 60], None, 4),
        ([50, 60, 70, 80], 1, 4),
        ([50, 40, 30, 20], 3, 4),  # its patience and its epochs end together
    ],
)
def test_training_stops_after_so_many_epochs_without_a_better_accuracy(
    digits, monkeypatch, accuracies, patience, epochs
):
    figures = iter(accuracies)
    monkeypatch.setattr(training, "_validate", lambda *_: np.array([float(next(figures))]))
    found = train(replace(QUICK, epochs=len(accuracies), patience=patience), digits)
    assert ([epoch.validation for epoch in found.history], found.status) == (accuracies[:epochs], "finished")
    assert found.best.epoch == max(range(1, epochs + 1), key=lambda epoch: (accuracies[epoch - 1], epoch))
    assert found.last is not None


def test_the_last_net_is_that_of_the_last_epoch(digits):
    states = []
    found = train(UNSTEADY, digits, on_checkpoint=lambda state: states.append(state.last.copy()))
    assert same_bits(found.last, states[-1])
    assert not same_bits(found.last, found.net)


def test_a_model_that_has_come_to_rest_leaves_its_stack_and_the_others_train_on(digits):
    models = [replace(UNSTEADY, lr=lr, decay=decay, patience=patience) for lr, decay, patience in
              [(1.0, 1.0, 1), (0.1, 0.9, None), (1.0, 0.8, 2), (1.0, 1.0, None)]]  # fmt: skip
    told = []
    together = train_stack(models, {0: digits}, lambda place, _: told.append(place))
    alone = [train(model, digits) for model in models]
    assert len({len(one.history) for one in together}) > 1
    for one, other in zip(together, alone, strict=True):
        assert [epoch[:3] for epoch in one.history] == [epoch[:3] for epoch in other.history]
        assert same_bits(one.net, other.net)
        assert same_bits(one.last, other.last)
        assert one.status == other.status == "finished"
    assert [told.count(place) for place in range(4)] == [len(one.history) for one in alone]
