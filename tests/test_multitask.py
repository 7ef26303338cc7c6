"""Two heads on one trunk (Eq. 6): gradients of both, the shared trunk, gamma, and whose loss gives the direction."""

import sys
from dataclasses import replace

import numpy as np
import pytest
import strict_cupy
from hypothesis import given, settings
from nets import biased_mlp, cases

from nnlite.attacks import input_gradient
from nnlite.bench.matmuls import step_matmuls
from nnlite.datagrad import Term, weighted_passes
from nnlite.datasets import rotated
from nnlite.gradcheck import TOLERANCE, away_from_kinks, check_network, numerical_gradient, relative_error
from nnlite.network import Network, mlp
from nnlite.penalties import L1
from nnlite.sgd import sgd_step
from nnlite.training.loop import train
from nnlite.training.run_folder import load_run
from nnlite.training.runs import make_run
from nnlite.training.settings import Settings

pytestmark = pytest.mark.once


@settings(deadline=None, max_examples=40)
@given(cases(heads=True))
def test_every_gradient_of_both_heads_and_the_trunk_agrees_with_central_differences(case):
    checks = check_network(*case, entries=10)
    names = {check.name for check in checks}
    assert {"head rotation W", "head rotation b", "input x (digit)", "input x (rotation)"} <= names
    for check in checks:
        assert check.error < TOLERANCE, check


def test_the_input_gradient_of_an_attack_is_the_digit_loss_s():
    net, x, y = _case()
    numeric = numerical_gradient(lambda a: float(net.run(a, y["digit"]).loss.sum()), x)
    assert relative_error(input_gradient(net, x, y["digit"]).ravel(), numeric) < 1e-6


def test_a_head_is_another_last_layer():
    net, x, y = _case()
    alone = Network((*net.layers[:-1], net.heads["rotation"]))
    one, other = net.run(x, y["rotation"], task="rotation"), alone.run(x, y["rotation"])
    assert (one.loss == other.loss).all()
    assert (one.dx == other.dx).all()
    assert repr(net) == "Network(6-5-4-3, rotation 5, float64)"


def test_a_head_without_a_pass_stays_as_it_is():
    net, x, y = _case()
    before = net.heads["rotation"].W.copy()
    sgd_step(net, net.gradients(weighted_passes(net, x, y["digit"], [Term(L1, 0.01, 0.1)])), 0.1)
    assert (before == net.heads["rotation"].W).all()


@pytest.mark.parametrize(
    ("settings", "products"),
    [
        # trunk 1, two heads 2, back from each head 2, gradients of trunk and heads 3
        (Settings(hidden=(7,), multitask=True, gamma=0.5), 1 + 2 + 2 + 3),
        # and: the digit error on to the inputs 1, the adversarial pass forward 2 and back 1, its gradients 2
        (Settings(hidden=(7,), multitask=True, gamma=0.5, reg="dgl1", lam=0.01, phi=0.1), 8 + 1 + 2 + 1 + 2),
    ],
)
def test_two_tasks_share_the_trunk_s_products(settings, products):
    rng = np.random.default_rng(0)
    net = mlp((6, 7, 3), rng, heads={"rotation": 5})
    x = rng.random((4, 6), dtype=np.float32)
    y = {"digit": rng.integers(0, 3, 4), "rotation": rng.integers(0, 5, 4)}
    listed = step_matmuls(net, x, y, settings)
    assert len(listed) == products
    # the trunk's gradient: 4 rows for both tasks at the clean point, and 4 for the adversarial one
    trunk = [a.shape for a, b, _ in listed if b.shape == (4, 7) and a.shape == (6, 4)]
    assert len(trunk) == (2 if settings.reg == "dgl1" else 1)


@pytest.fixture
def small_digits(digits, monkeypatch, tmp_path):
    """Return the digits with 200 training images, and a cache of their own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return replace(digits, train=digits.train[:200])


SMALL = {"hidden": (16,), "epochs": 2, "multitask": True, "gamma": 0.5}


def test_a_multi_task_net_learns_both_tasks(small_digits):
    settings = Settings(**{**SMALL, "hidden": (64,), "epochs": 40})
    net = train(settings, small_digits).net
    samples = rotated(small_digits.train, small_digits.shape)
    x, y = samples.batch(slice(None))
    turned = net.logits(x, "rotation").argmax(axis=-1)
    assert (net.predict(x) == y).mean() > 0.8
    assert (turned == samples.auxiliary["rotation"]).mean() > 0.4  # chance is 0.2


def test_a_multi_task_run_is_kept_whole(small_digits, tmp_path):
    run = make_run(Settings(**SMALL), small_digits, tmp_path)
    assert run.name == "mt-hidden16-epochs2"
    back = load_run(run.path)
    assert back.settings == run.settings
    for one, other in zip(back.net.all_layers, run.net.all_layers, strict=True):
        assert all((one.parameters[name] == other.parameters[name]).all() for name in one.parameters)


@pytest.mark.parametrize(
    ("kwargs", "name"),
    [
        ({"gamma": 0.5}, "mt"),
        ({"gamma": 0.25}, "mt-gamma0.25"),
        ({"gamma": 0.5, "reg": "dgl1", "lam": 0.1, "phi": 0.1}, "mt-dgl1-lam0.1-phi0.1"),
        ({"gamma": 0.75, "reg": "l2", "lam": 0.01}, "mt-l2-lam0.01-gamma0.75"),
    ],
)
def test_names_of_multi_task_runs(kwargs, name):
    assert Settings(multitask=True, **kwargs).run_name == name


@pytest.mark.parametrize(
    ("kwargs", "word"),
    [
        ({"multitask": True}, "gamma: a multi-task net needs"),
        ({"gamma": 0.5}, "gamma: only a multi-task net"),
        ({"multitask": True, "gamma": 0.0}, "gamma: expected"),
        ({"multitask": True, "gamma": float("nan")}, "gamma: expected"),
    ],
)
def test_a_wrong_gamma_is_refused(kwargs, word):
    with pytest.raises(ValueError, match=word):
        Settings(**kwargs)


@pytest.mark.parametrize("reg", [{}, {"reg": "dgl1", "lam": 0.01, "phi": 0.1}, {"reg": "l1", "lam": 0.001}])
def test_two_tasks_train_on_the_device_as_on_the_host(small_digits, monkeypatch, reg):
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    monkeypatch.setattr("nnlite.blas._gemm", lambda char: None)  # the host rounds as the stand-in does
    host = train(Settings(**SMALL, **reg), small_digits).net
    device = train(Settings(**SMALL, **reg, device="gpu"), small_digits).net.to("cpu")
    for one, other in zip(host.all_layers, device.all_layers, strict=True):
        assert all((one.parameters[name] == other.parameters[name]).all() for name in one.parameters)


def test_the_command_line_trains_and_attacks_two_tasks(nnlite):
    result = nnlite("train", "--multitask", "--reg", "dgl1", "--lam", 0.1, "--phi", 0.1, "--hidden", 8, "--epochs", 1)
    assert result.exit_code == 0, result.stderr
    assert "digit loss + 0.5 x rotation loss" in result.stderr
    assert "mt-dgl1-lam0.1-phi0.1-hidden8-epochs1" in result.stdout
    assert nnlite("attack", "--adversary", "mt-dgl1-lam0.1-phi0.1-hidden8-epochs1").exit_code == 0


def test_gamma_alone_is_refused(nnlite):
    result = nnlite("train", "--gamma", 0.5)
    assert result.exit_code == 2
    assert "--multitask" in result.stderr


def _case():
    rng = np.random.default_rng(3)  # a seed that leaves no example without a unit awake
    net, x = biased_mlp([6, 5, 4, 3], rng, {"rotation": 5}), rng.random((4, 6))
    return away_from_kinks(net, x), x, {"digit": np.array([0, 1, 2, 0]), "rotation": np.array([4, 0, 2, 2])}
