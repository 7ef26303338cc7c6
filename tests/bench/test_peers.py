"""Other libraries do the same work: their results are nnlite's. Skipped where a library is not installed."""

import importlib.util
from dataclasses import replace

import pytest

from nnlite.attacks import PGD
from nnlite.bench.peers import contestants
from nnlite.bench.peers.own import build
from nnlite.bench.race import TOLERANCE, relative_difference, run_race
from nnlite.bench.workload import Workload
from nnlite.training.settings import Settings

PLAIN = Settings(hidden=(20, 20), batch_size=10)
FINITE = Settings(reg="dgl1", lam=0.05, phi=0.1, hidden=(20, 20), batch_size=10)
EXACT = Settings(reg="dgl1", lam=0.05, gradient="exact", hidden=(20, 20), batch_size=10)
OTHER = Settings(reg="dgl1", lam=0.02, phi=0.1, hidden=(20, 20), batch_size=10)
WORKS = {
    "plain": Workload("step", (PLAIN,)),
    "finite": Workload("step", (FINITE,)),
    "exact": Workload("step", (EXACT,)),
    "plain epoch": Workload("epoch", (PLAIN,), 25),
    "finite epoch": Workload("epoch", (FINITE,), 25),
    "attack": Workload("attack", (PLAIN,), 10, PGD(steps=3)),
    "stack": Workload("step", (FINITE, OTHER)),
}


CASES = [(library, name) for library in ("torch", "jax") for name in WORKS]
CASES += [("sklearn", "plain"), ("sklearn", "plain epoch")]


@pytest.mark.parametrize(("library", "name"), CASES, ids=map(" ".join, CASES))
def test_a_peer_comes_to_the_same_result(library, name, monkeypatch):
    if importlib.util.find_spec(library) is None:
        pytest.skip(f"{library} is not installed")
    monkeypatch.setattr("nnlite.bench.race.TURN", 0)
    first, *others = contestants(WORKS[name], [library])
    peers = [one for one in others if one.build and "own" not in one.build]
    found = run_race([first, *peers], threads=1, rounds=1)[1:]
    assert found
    assert all(one.difference < 1e-4 for one in found)


@pytest.mark.parametrize("change", [{"lam": 0.04}, {"phi": 0.12}, {"lr": 0.11}])
def test_another_number_is_another_result(change):
    """The tolerance of a race must tell results apart: here nnlite's own, which needs no other library."""
    results = []
    for settings in (FINITE, replace(FINITE, **change)):
        runner = build(Workload("step", (settings,)), 1)
        runner.run(3)
        results.append(runner.result())
    assert relative_difference(results[1], results[0], Workload("step", (FINITE,)).start()) > TOLERANCE
