import json

import numpy as np
import pytest

from nnlite.attacks import PGD
from nnlite.bench import attack_products, step_products, time_attack, time_step
from nnlite.layers import Dense
from nnlite.network import mlp
from nnlite.settings import Settings


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # forward 2, back to the first layer's output 1, weight gradients 2
        (Settings(hidden=(7,)), 2 + 1 + 2),
        # the clean pass goes on to the inputs; the adversarial one does not; gradients are formed once for both
        (Settings(reg="dgl1", lam=0.01, phi=0.1, hidden=(7,)), (2 + 2) + (2 + 1) + 2),
    ],
)
def test_the_products_of_a_step_are_counted(settings, expected):
    rng = np.random.default_rng(0)
    net = mlp((5, 7, 3), rng)
    x, y = rng.random((4, 5), dtype=np.float32), rng.integers(0, 3, 4)
    products = step_products(net, x, y, settings)
    assert len(products) == expected
    rows = 8 if settings.reg == "dgl1" else 4
    assert [a.shape[1] for a, _, _ in products[-2:]] == [rows, rows]
    assert all((a @ b == out).all() for a, b, out in products)


def test_a_timing_is_a_ratio_of_two_medians():
    timing = time_step(Settings(hidden=(8,)), pairs=4)
    assert timing.pairs == 4
    assert timing.work_ms > timing.products_ms > 0
    assert timing.quartiles[0] <= timing.ratio <= timing.quartiles[1]


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_products_of_an_attack_are_those_that_it_forms(norm, monkeypatch):
    net = mlp((5, 7, 3), np.random.default_rng(0))
    x, y = np.random.default_rng(1).random((4, 5), dtype=np.float32), np.array([0, 1, 2, 0])
    shapes = [(a.shape, b.shape) for a, b, _ in attack_products(net, x, y, steps=6)]
    formed, forward, backward = [], Dense.forward, Dense.backward

    def seen_forward(layer, x):
        formed.append((x.shape, layer.W.shape))
        return forward(layer, x)

    def seen_backward(layer, x, dy):
        formed.append((dy.shape, layer.W.T.shape))
        return backward(layer, x, dy)

    monkeypatch.setattr(Dense, "forward", seen_forward)
    monkeypatch.setattr(Dense, "backward", seen_backward)
    PGD(norm, steps=6).craft(net, x, y, (0.1,), np.random.default_rng(0))
    assert shapes == formed


def test_an_attack_is_timed_beside_its_products(nnlite):
    timing = time_attack(PGD(steps=2), hidden=(8,), rows=5, pairs=4)
    assert timing.pairs == 4
    assert timing.work_ms > timing.products_ms > 0
    assert timing.quartiles[0] <= timing.ratio <= timing.quartiles[1]
    for noise in ("pgd", "pgd-l2"):
        options = ("--noise", noise, "--hidden", 8, "--steps", 2, "--rows", 5, "--pairs", 4)
        content = json.loads(nnlite("bench", "attack", *options, "--json").stdout)
        assert content["work_ms"] > content["products_ms"] > 0
        result = nnlite("bench", "attack", *options)
        assert result.exit_code == 0
        assert result.stdout.startswith(f"{noise}, 2 steps, 5 images, 1 thread(s): medians of 4 pairs")
        assert "ratio" in result.stdout
