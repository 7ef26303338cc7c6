"""Blocks side by side, one BLAS thread, and how many processors there are."""

import os
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import threadpoolctl

from nnlite.apgd import APGD
from nnlite.attacks import PGD, R1
from nnlite.errors import NnliteError
from nnlite.evaluation import certifying, threads
from nnlite.evaluation.accuracy import accuracy, evaluate_attack
from nnlite.evaluation.auditing import AuditOptions, audit
from nnlite.evaluation.certifying import CertifyOptions, bracket
from nnlite.evaluation.fmn import FMN
from nnlite.evaluation.predicting import logits
from nnlite.evaluation.radii import find_radii
from nnlite.evaluation.random_signs import RandomSigns
from nnlite.evaluation.threads import blocks_at_a_time, check_threads, one_blas_thread, processors, side_by_side
from nnlite.storage import cgroups
from nnlite.training import Settings, train

pytestmark = pytest.mark.once

NUMBERS = (1, 2, 4)


@pytest.fixture(autouse=True)
def four_processors(monkeypatch):
    monkeypatch.setattr(threads, "processors", lambda: 4)


@pytest.fixture
def free_blas(monkeypatch):
    """Let BLAS have as many threads as there are processors, as it has by default."""
    for name in threads.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    with threadpoolctl.threadpool_limits(os.cpu_count()):
        yield os.cpu_count()


def blas_threads():
    return max(one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas")


# The same figures


def found_by(net, samples):
    """Yield every figure of a net that is found in blocks."""
    yield accuracy(net, samples)
    yield logits(net, samples.batch(slice(None))[0])
    for attack in (R1, PGD(steps=3, restarts=2), APGD(steps=5, restarts=3), FMN(steps=5), RandomSigns(3)):
        table = evaluate_attack(net, {"net": net}, samples[:70], attack, (0.0, 0.05, 0.2), block=20)
        yield table.correct["net"]
        yield from table.lengths.values()
    options = CertifyOptions((0.01,), examples=20)
    found = bracket(net, samples, options)
    yield from (found.proven, found.stands)
    radii = find_radii(net, samples, CertifyOptions(examples=9, splits=8))
    yield from (radii.proven, radii.broken, radii.distance)


def test_one_two_and_four_threads_find_the_same_bits(trained, monkeypatch):
    monkeypatch.setattr(certifying, "BLOCK", 4)
    data, net = trained
    found = []
    for number in NUMBERS:
        with blocks_at_a_time(number):
            found.append([*found_by(net, data.test[:330])])
    assert all(len(one) == len(found[0]) for one in found)
    for arrays in zip(*found, strict=True):
        assert all(np.array_equal(arrays[0], array) for array in arrays[1:])


def test_an_audit_in_four_threads_is_that_of_one(trained):
    data, net = trained
    asked = AuditOptions(phi=(0.05,), examples=220, steps=3, apgd_steps=5, tries=2, proven=60, square_examples=1)
    one, four = None, None
    with blocks_at_a_time(1):
        one = audit(net, data.test, {}, asked)
    with blocks_at_a_time(4):
        four = audit(net, data.test, {}, asked)
    assert one.verdicts == four.verdicts
    assert all((one.correct[name] == four.correct[name]).all() for name in one.correct)
    assert (one.bracket.proven == four.bracket.proven).all()


def test_images_are_kept_in_their_order(trained):
    data, net = trained
    kept = []
    with blocks_at_a_time(4):
        evaluate_attack(
            net, {"net": net}, data.test[:95], R1, (0.1,), block=10, keep=lambda start, images: kept.append(start)
        )
    assert kept == [*range(0, 95, 10)]


# Side by side


def test_blocks_are_worked_on_at_the_same_time_and_given_in_order():
    meeting = threading.Barrier(4, timeout=30)  # each of four waits for all

    def work(block, on_share):
        meeting.wait()
        return block

    assert [*side_by_side(work, [1] * 8)] == [*range(8)]


def test_no_more_blocks_are_made_than_are_asked_for_soon():
    begun, found = [], side_by_side(lambda block, on_share: begun.append(block), [1] * 100)
    next(found)
    time.sleep(0.05)
    assert len(begun) <= 4 + 2
    found.close()


def test_progress_rises_and_is_told_in_this_thread_only():
    told, here = [], threading.get_ident()

    def work(block, on_share):
        for share in (0.2, 0.7, 1.0):
            time.sleep(threads.TICK / 2)
            on_share(share)

    def on_progress(done, total):
        assert threading.get_ident() == here
        told.append(done)
        assert total == 40

    list(side_by_side(work, [10, 10, 15, 5], on_progress))
    assert told == sorted(told)
    assert (told[0], told[-1]) == (0, 40)
    assert any(done % 5 for done in told)  # within blocks, too


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, NnliteError])
def test_an_error_in_a_block_ends_the_others(error):
    ended = threading.Event()

    def work(block, on_share):
        if block == 0:
            time.sleep(0.05)
            raise error("no")
        try:
            while True:
                time.sleep(0.01)
                on_share(0.5)
        finally:
            ended.set()

    with pytest.raises(error):
        list(side_by_side(work, [1, 1]))
    assert ended.wait(10)


def test_ctrl_c_ends_the_blocks_that_are_under_way():
    def work(block, on_share):
        while block:
            time.sleep(0.01)
            on_share(0.5)

    def on_progress(done, total):
        if done:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        list(side_by_side(work, [1, 1, 1], on_progress))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("nnlite")]


def test_a_block_has_no_threads_of_its_own_and_the_settings_of_its_caller():
    seen = []

    def inner(block, on_share):
        seen.append(threading.get_ident())
        np.float32(1) / np.zeros(1, np.float32)  # a warning, but for the caller's settings

    def work(block, on_share):
        before = len(seen)
        list(side_by_side(inner, [1, 1, 1]))
        assert threading.get_ident() in seen[before:]

    with np.errstate(divide="ignore"):
        list(side_by_side(work, [1, 1]))
    assert len(seen) == 6


def test_the_attacks_of_art_come_one_at_a_time(art):
    from nnlite.interop.art import ArtAttack

    assert ArtAttack("square").one_at_a_time
    together = []

    def work(block, on_share):
        together.append(threading.active_count())

    before = threading.active_count()
    list(side_by_side(work, [1, 1, 1], alone=True))
    assert together == [before] * 3


# One BLAS thread


def test_blas_is_held_to_one_thread_and_let_go(free_blas):
    with one_blas_thread() as number:
        assert (number, blas_threads()) == (1, 1)
        with one_blas_thread() as again:
            assert again == 1
    assert blas_threads() == free_blas


def test_training_and_scoring_hold_it(free_blas, digits):
    seen = []
    settings = Settings(hidden=(8,), epochs=1)
    trained = train(settings, digits, lambda epoch: seen.append(blas_threads()))
    assert seen == [1]
    assert trained.environment["BLAS threads"] == "1"
    accuracy(trained.net, digits.test)
    assert blas_threads() == free_blas


def test_a_limit_of_the_users_own_stays(free_blas, monkeypatch):
    with threadpoolctl.threadpool_limits(3 if free_blas != 3 else 2) as limited, one_blas_thread() as number:
        assert number == blas_threads() != 1
        assert limited is not None
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", str(free_blas))
    with one_blas_thread() as number:
        assert number == free_blas


def test_threads_of_blas_leave_fewer_for_blocks(free_blas, monkeypatch):
    monkeypatch.setenv("OPENBLAS_NUM_THREADS", "4")
    here = threading.get_ident()
    with threadpoolctl.threadpool_limits(4):
        assert {*side_by_side(lambda block, on_share: threading.get_ident(), [1] * 4)} == {here}


def test_that_of_scipy_is_held_too_though_it_is_loaded_later():
    code = """
import os, sys, threadpoolctl, numpy
from nnlite.evaluation.threads import VARIABLES, one_blas_thread
for name in VARIABLES:
    os.environ.pop(name, None)
def held():
    threadpoolctl.threadpool_limits(os.cpu_count())
    with one_blas_thread():
        print(*(one["num_threads"] for one in threadpoolctl.threadpool_info() if one["user_api"] == "blas"))
held()
assert "scipy.linalg" not in sys.modules
import scipy.linalg.blas
held()
"""
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {*found} == {"1"}


def test_a_blas_that_is_not_known_is_left_alone(monkeypatch):
    class Nothing:
        lib_controllers = ()

    monkeypatch.setattr(threads, "_blas", lambda with_scipy: Nothing)
    with one_blas_thread() as number:
        assert number == 1


# How many processors


@pytest.mark.parametrize(
    ("line", "files", "expected"),
    [
        ("0::/mine", {"mine/cpu.max": "150000 100000"}, 1.5),
        ("0::/mine", {"mine/cpu.max": "max 100000"}, np.inf),
        ("0::/mine/inner", {"mine/cpu.max": "100000 100000", "mine/inner/cpu.max": "max 100000"}, 1.0),
        ("4:cpu:/me", {"cpu/me/cpu.cfs_quota_us": "50000", "cpu/me/cpu.cfs_period_us": "100000"}, 0.5),
        ("4:cpu:/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, np.inf),
        ("0::/mine", {"mine/cpu.max": "1 0"}, np.inf),
        ("0::/mine", {"mine/cpu.max": "nonsense"}, np.inf),
        ("0::/mine", {}, np.inf),
    ],
)  # fmt: skip
def test_the_quota_of_a_container_counts(tmp_path, monkeypatch, line, files, expected):
    for name, text in files.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    real = cgroups.read
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "read", lambda path: line if path.name == "cgroup" else real(path))
    assert cgroups.processors() == expected
    found = processors()  # the function itself: the fixture replaces what the module calls
    assert found == max(1, int(min(len(threads.available_cpus()), expected)))


def test_more_threads_than_processors_are_refused():
    check_threads(4)
    with pytest.raises(NnliteError, match="threads: expected at most 4, one for each processor, found 5"):
        check_threads(5)
