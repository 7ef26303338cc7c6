"""What a notebook shows: shapes and a few numbers in place of whole arrays."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
import strict_cupy

from nnlite import Dense, ReLU, mlp
from nnlite.attacks import R1, Crafted
from nnlite.backend import SHORT
from nnlite.evaluation.accuracy import evaluate_attack, first_of_each_class
from nnlite.evaluation.attacking import attack_nets
from nnlite.evaluation.auditing import AuditOptions, audit
from nnlite.evaluation.certifying import CertifyOptions, bracket
from nnlite.evaluation.finite_step import convergence
from nnlite.evaluation.named_attacks import choose_attack
from nnlite.evaluation.radii import find_radii
from nnlite.penalties import L1
from nnlite.training import Settings, make_run, train

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def shown(trained, tmp_path_factory):
    """A value of each type that a user is given, by the name of its type."""
    data, net = trained
    x, y = data.test.batch(slice(0, 5))
    once, few = net.run(x, y), data.test[:6]
    options = AuditOptions(steps=1, apgd_steps=2, tries=1, proven=3)
    found = audit(net, few, {}, options)
    wide = x.astype(np.float64), y
    values = [
        data,
        data.test,
        make_run(Settings(hidden=(8,), epochs=1), data, str(tmp_path_factory.mktemp("runs"))),
        train(Settings(hidden=(8,), epochs=1), data),
        evaluate_attack(net, {"rect": net}, few, R1),
        attack_nets(choose_attack("r1"), ("rect", net), {"rect": net}, data, first=6),
        first_of_each_class(net, {"rect": net}, data.test, R1),
        found,
        found.follow_ups["search"],
        bracket(net, few, CertifyOptions()),
        find_radii(net, few[:2], CertifyOptions()),
        convergence(net.astype(np.float64), *wide, L1),
        R1.craft(net, x, y, (0.0, 0.1), np.random.default_rng(0)),
        once,
        once.activations,
        net.tangent(once, once.dx),
        net.layers[0],
        net,
    ]
    return {type(value).__name__: value for value in values}


def test_each_is_short_and_begins_with_its_name(shown):
    assert len(shown) == 18
    for name, value in shown.items():
        text = repr(value)
        assert text.startswith(f"{name}(")
        assert text.endswith(")")
        assert len(text) < 1200, text
        assert "\n" not in text
        assert "array(" not in text


def test_they_hold_shapes_and_a_few_numbers(shown):
    assert repr(shown["Dense"]) == "Dense(W=float32 (64, 64), b=float32 (64,))"
    samples = "Samples(images=uint8 (500, 64), labels=int64 (500,), white=16.0, auxiliary={}, box=[0, 1])"
    assert repr(shown["Samples"]) == samples
    assert samples in repr(shown["Dataset"])
    table = shown["AttackTable"]
    numbers = ", ".join(f"{value:g}" for value in table.accuracy["rect"])
    assert repr(table).startswith("AttackTable(phi=(0.0, 0.005, 0.01, 0.05, 0.1), accuracy={'rect': [" + numbers + "]}")
    assert "rows=[0, 1, 2, 3, 4, 5], interrupted=False)" in repr(shown["Bracket"])
    assert "failed=" in repr(shown["Audit"])
    assert "logits=float32 (5, 10)" in repr(shown["Pass"])
    assert "net=Network(64-8-10, float32), results=Results(status='finished'" in repr(shown["Run"])


def test_a_short_row_is_shown_and_a_long_one_is_not():
    assert repr(Dense(np.zeros((2, 8)), np.arange(8.0))) == "Dense(W=float64 (2, 8), b=[0, 1, 2, 3, 4, 5, 6, 7])"
    assert repr(Dense(np.zeros((2, 9)), np.arange(9.0))) == "Dense(W=float64 (2, 9), b=float64 (9,))"
    assert repr(Crafted([], zeros=np.array(3.0))) == "Crafted(images=[], zeros=float64 (), failed=None, smallest=None)"


@pytest.mark.parametrize(("kind", "most"), [(tuple, 8), (dict.fromkeys, 12)])
def test_more_entries_than_a_line_has_room_for_are_cut(kind, most):
    assert SHORT.repr(kind(range(most))) == repr(kind(range(most)))
    assert "..." in SHORT.repr(kind(range(most + 1)))


@pytest.mark.parametrize("value", ["x" * 300, SimpleNamespace(text="x" * 300)])
def test_a_long_text_is_cut_to_200_characters(value):
    assert len(SHORT.repr(value)) == 200


def test_arrays_on_a_gpu_are_shown_in_the_same_way(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    layer = Dense(strict_cupy.zeros((2, 3)), strict_cupy.zeros(3))
    assert repr(layer) == "Dense(W=float64 (2, 3), b=[0, 0, 0])"


def test_a_net_that_a_message_names_is_as_before():
    net = mlp((4, 3, 2), np.random.default_rng(0))
    assert repr(net) == "Network(4-3-2, float32)"
    assert repr(ReLU()) == "ReLU()"
