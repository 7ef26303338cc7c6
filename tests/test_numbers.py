"""Numbers of any kind, and images of any layout: an attack makes the same bits of them, in the type of the images."""

import json
import sys
from dataclasses import fields, replace

import numpy as np
import pytest
import strict_cupy
from hypothesis import given, settings
from hypothesis import strategies as st

from nnlite.apgd import APGD, LOSSES
from nnlite.attacks import PGD, R1, R2, check_count, perturb, project
from nnlite.backend import to_host
from nnlite.datasets import check_samples
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import evaluate_attack, first_of_each_class
from nnlite.evaluation.auditing import ATTACKS, AuditOptions, audit
from nnlite.evaluation.fmn import FMN
from nnlite.evaluation.named_attacks import choose_attack
from nnlite.evaluation.random_signs import RandomSigns
from nnlite.init import generator
from nnlite.inputs import UNIT
from nnlite.interop.art import ArtAttack
from nnlite.lbfgs import LBFGS
from nnlite.network import mlp

NET = mlp((64, 12, 4), generator(0, "weights"))
X, Y = np.random.default_rng(0).random((9, 64), np.float32), np.arange(9) % 4
LAYOUTS = {
    "Fortran": np.asfortranarray(X),
    "every second column": np.repeat(X, 2, axis=1)[:, ::2],
    "upside down": X[::-1].copy()[::-1],
}
REALS = {
    "float": float,
    "float64": np.float64,
    "longdouble": np.longdouble,
    "0-d float64": np.array,
    "0-d longdouble": lambda number: np.array(number, np.longdouble),
}
SINGLES = {"float32": np.float32, "0-d float32": lambda number: np.array(number, np.float32)}
INTEGERS = {"int": int, "int64": np.int64, "uint8": np.uint8, "0-d int64": np.array}
SEQUENCES = {
    "tuple": tuple,
    "list": list,
    "float64 array": lambda phi: np.array(phi, np.float64),
    "longdouble array": lambda phi: np.array(phi, np.longdouble),
}
COUNTS = (np.int64, np.int32, np.uint8)
MADE = {  # attack -> how it is made with counts of a kind
    "r1": lambda count: R1,
    "r2": lambda count: replace(R2, clip=True),
    "pgd": lambda count: PGD(steps=count(3), restarts=count(2)),
    "pgd-l2": lambda count: PGD("l2", steps=count(3), restarts=count(2), clip=False),
    "apgd": lambda count: APGD(steps=count(9), restarts=count(3), losses=tuple(LOSSES)),
    "apgd-l2": lambda count: APGD("l2", steps=count(9), restarts=count(3), clip=False),
    "lbfgs": lambda count: LBFGS(count(3), count(5)),
    "fmn": lambda count: FMN(steps=count(5)),
    "random": lambda count: RandomSigns(count(3)),
    "r2 in the ball": lambda count: ATTACKS["r2"].make(AuditOptions()),
    "square": lambda count: ArtAttack("square", queries=count(5), restarts=count(1)),
    "autopgd": lambda count: ArtAttack("autopgd", steps=count(2)),
    "deepfool": lambda count: ArtAttack("deepfool", steps=count(2)),
}

every_attack = pytest.mark.parametrize("name", MADE)


def crafted(attack, phi, x=X, net=NET):
    return attack.craft(net, x, Y, phi, np.random.default_rng(0)).images


def assert_same_bits(found, expected):
    for one, other in zip(found, expected, strict=True):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert (one == other).all()


@every_attack
@settings(deadline=None, max_examples=10)
@given(data=st.data())
def test_noise_does_not_depend_on_the_kind_of_its_numbers(name, data):
    kinds = data.draw(st.sampled_from([REALS, SINGLES, INTEGERS]))
    sizes = data.draw(st.lists(st.integers(0, 3) if kinds is INTEGERS else st.floats(0, 2, width=32), min_size=1))
    sizes = sizes if kinds is not REALS else [size / 3 for size in sizes]  # which float32 does not hold
    kind, sequence = kinds[data.draw(st.sampled_from([*kinds]))], SEQUENCES[data.draw(st.sampled_from([*SEQUENCES]))]
    found = crafted(MADE[name](data.draw(st.sampled_from(COUNTS))), sequence([kind(size) for size in sizes]))
    assert_same_bits(found, crafted(MADE[name](int), tuple(map(float, sizes))))
    assert found[0].dtype == np.float32


@every_attack
@pytest.mark.parametrize("layout", LAYOUTS)
def test_noise_does_not_depend_on_the_layout_of_the_images(name, layout):
    x = LAYOUTS[layout]
    x.flags.writeable = False
    assert_same_bits(crafted(MADE[name](int), (0.0, 0.1, 0.4), x), crafted(MADE[name](int), (0.0, 0.1, 0.4)))


@every_attack
@pytest.mark.parametrize("phi", [1e-8, 1e-30, 1e-40, 1e-46, 5e-324])
def test_a_tiny_size_is_harmless(name, phi):
    attack = MADE[name](int)
    clean, image = crafted(attack, (0.0, phi))
    if attack.norm is not None:  # each of float32's roundings near 1 is up to 6e-8
        assert abs(image - clean).max() <= phi + 1.2e-7
    assert np.isfinite(image).all()


@pytest.mark.parametrize("kind", [*REALS.values(), *INTEGERS.values()])
def test_a_step_and_a_projection_do_not_depend_on_the_kind_of_the_number(kind):
    size = 1 if kind in INTEGERS.values() else 0.1
    direction = np.random.default_rng(1).standard_normal(X.shape).astype(np.float32)
    for box in (None, UNIT):
        assert_same_bits([perturb(X, direction, kind(size), box)], [perturb(X, direction, float(size), box)])
        for norm in ("linf", "l2"):
            inside = [project(X + direction, X, radius, norm, box) for radius in (kind(size), float(size))]
            assert_same_bits(inside[:1], inside[1:])


@pytest.mark.parametrize("name", ["r1", "r2", "pgd", "pgd-l2", "lbfgs", "random", "r2 in the ball"])
def test_on_a_device_numbers_of_the_host_are_welcome(name, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    expected = crafted(MADE[name](int), (0.1, 0.4))
    for phi in ([np.array(0.1), np.array(0.4)], np.array([0.1, 0.4])):
        found = MADE[name](np.int64).craft(
            NET.to("gpu"), strict_cupy.asarray(X), strict_cupy.asarray(Y), phi, np.random.default_rng(0)
        )
        assert_same_bits(map(to_host, found.images), expected)


@pytest.mark.parametrize("sequence", [np.array, lambda phi: [np.array(size) for size in phi], list])
def test_figures_do_not_depend_on_how_the_sizes_are_given(sequence):
    samples, phi = check_samples(X, Y), (0.0, 0.1, 0.4)
    found, expected = (evaluate_attack(NET, {"net": NET}, samples, PGD(steps=3), one) for one in (sequence(phi), phi))
    assert json.dumps(found.phi) == json.dumps(phi)
    assert (found.correct["net"] == expected.correct["net"]).all()
    shown = first_of_each_class(NET, {"net": NET}, samples, R1, sequence(phi))
    assert shown.phi == phi
    chosen = choose_attack("pgd", sequence(phi), steps=np.int64(3), seed=np.int64(2))
    assert chosen == choose_attack("pgd", phi, steps=3, seed=2)
    assert json.dumps([chosen.phi, chosen.parameters, chosen.seed])


def test_an_audit_does_not_depend_on_the_kind_of_its_numbers():
    plain = {"phi": (0.1, 0.2), "steps": 2, "restarts": 2, "tries": 2, "square_queries": 3, "seed": 1, "examples": 8}
    counts = {name: np.int64(value) for name, value in plain.items() if name != "phi"}
    asked, usual = AuditOptions(phi=np.linspace(0.1, 0.2, 2), **counts), AuditOptions(**plain)
    assert asked == usual
    assert {type(getattr(asked, field.name)) for field in fields(asked)} == {tuple, bool, int}
    samples, nets = check_samples(X, Y), {"other": mlp((64, 5, 4), generator(1, "weights"))}
    found, expected = (audit(NET, samples, nets, options) for options in (asked, usual))
    assert {name: ones.tolist() for name, ones in found.correct.items()} == {
        name: ones.tolist() for name, ones in expected.correct.items()
    }
    assert json.dumps(found.parameters) == json.dumps(expected.parameters)


@pytest.mark.parametrize("number", [True, np.True_, 2.0, np.float64(2), np.array([2]), "2", 0, np.int64(0)])
def test_what_is_no_count_is_refused(number):
    with pytest.raises(NnliteError, match="steps: expected an integer of at least 1, found"):
        PGD(steps=number)
    with pytest.raises(NnliteError, match="queries: expected an integer of at least 1, found"):
        ArtAttack("square", queries=number)


def test_a_count_is_a_plain_int():
    for kind in COUNTS:
        assert type(check_count("steps", kind(3))) is int
        assert repr(PGD(steps=kind(3), restarts=kind(2))) == repr(PGD(steps=3, restarts=2))


@pytest.mark.parametrize("phi", [0.1, np.array(0.1), np.zeros((2, 2)), ["large"], None, [None], (), np.array([])])
def test_what_is_no_sequence_of_sizes_is_refused(phi):
    with pytest.raises(
        NnliteError, match="phi: expected one or more sizes of noise, each a number from 0 to 1,000,000, found"
    ):
        evaluate_attack(NET, {"net": NET}, check_samples(X, Y), R1, phi)
    with pytest.raises(NnliteError, match="phi: expected"):
        AuditOptions(phi=phi)
