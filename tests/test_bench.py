import numpy as np
import pytest

from nnlite.bench import step_products, time_step
from nnlite.network import mlp
from nnlite.training import Settings


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
    assert timing.step_ms > timing.products_ms > 0
    assert timing.quartiles[0] <= timing.ratio <= timing.quartiles[1]
