"""Radii of single images: those of linear nets, which are known, what each end promises, and what ends the work."""

import sys
from functools import partial

import numpy as np
import pytest
import strict_cupy

from nnlite.apgd import APGD
from nnlite.attacks import NORMS
from nnlite.certify import is_proven
from nnlite.datasets import check_samples
from nnlite.errors import NnliteError
from nnlite.evaluation import radii as radii_module
from nnlite.evaluation.certifying import CertifyOptions
from nnlite.evaluation.fmn import FMN
from nnlite.evaluation.pictures import plot_radii
from nnlite.evaluation.radii import Radii, find_radii
from nnlite.evaluation.threads import blocks_at_a_time
from nnlite.layers import Dense
from nnlite.network import Network, stack

pytestmark = pytest.mark.once

FEW = CertifyOptions(examples=12)


@pytest.fixture(scope="module")
def found(trained):
    """The small net, 12 test digits, and their radii."""
    data, net = trained
    radii = find_radii(net, data.test, FEW)
    return net, data.test.batch(radii.rows), radii


def made(proven, broken):
    """Return radii as they may be found."""
    count = len(proven)
    return Radii(np.array(proven), np.array(broken), np.ones(count), np.arange(count), False)


def test_of_a_linear_net_both_ends_are_the_distance():
    draw = np.random.default_rng(0)
    W, b, x = draw.standard_normal((9, 2)), np.zeros(2), draw.uniform(0.3, 0.7, (30, 9))
    net, y = Network((Dense(W, b),)), np.arange(30) % 2
    found = find_radii(net, check_samples(x, y, white=1.0), CertifyOptions(clip=False, examples=None))
    difference = W[:, y] - W[:, 1 - y]  # (9, N)
    gap = (x.T * difference).sum(axis=0)
    exact, far = gap / abs(difference).sum(axis=0), gap / np.linalg.norm(difference, axis=0)
    right = gap > 0
    assert 5 < right.sum() < 25
    assert (found.right == right).all()
    assert found.broken[right] == pytest.approx(exact[right], rel=2e-3)
    assert found.proven[right] == pytest.approx(exact[right], rel=4e-3)
    assert found.distance[right] == pytest.approx(far[right], rel=2e-3)
    assert (found.proven <= exact.clip(0, None)).all()
    assert (found.broken >= exact * (1 - 1e-9))[right].all()
    assert not found.contradictions.any()
    assert found.closed == 100
    assert not np.concatenate([r[~right] for r in (found.proven, found.broken, found.distance)]).any()


def test_what_is_proven_holds_and_what_is_broken_is_at_most_what_fmn_found(found):
    net, (x, y), radii = found
    for k in range(len(y)):
        assert is_proven(net, x[k : k + 1], y[k : k + 1], radii.proven[k]).all()
    crafted = FMN().craft(net, x, y, (), np.random.default_rng(0))
    assert (radii.broken <= NORMS["linf"](crafted.smallest - x)).all()
    assert (radii.proven > 0).all()
    assert (radii.proven < radii.broken).all()
    assert (radii.broken < radii.distance).all()
    assert not radii.contradictions.any()


def test_either_attack_finds_what_the_other_one_misses(found, trained, monkeypatch):
    data, net = trained
    for name, weak in (("FMN", partial(FMN, steps=1)), ("APGD", partial(APGD, steps=1, losses=("ce",)))):
        with monkeypatch.context() as patch:
            patch.setattr(radii_module, name, weak)
            radii = find_radii(net, data.test, FEW)
        assert np.median(radii.broken / found[2].broken) < 1.05


def test_what_no_noise_breaks_is_proven_up_to_the_whole_range():
    net = Network((Dense(np.zeros((4, 3)), np.array([0.0, 1.0, 0.0])),))
    samples = check_samples(np.full((3, 4), 0.5), np.array([1, 1, 0]), white=1.0)
    radii = find_radii(net, samples, FEW)
    assert (radii.proven.tolist(), radii.broken.tolist()) == ([1, 1, 0], [np.inf, np.inf, 0])
    assert not radii.contradictions.any()


def test_medians_and_the_share_that_is_closed_leave_out_what_is_wrong_without_noise():
    radii = made([0.0, 0.091, 0.05, 0.2], [0.0, 0.1, 0.1, 0.22])
    assert radii.medians == {"proven": 0.091, "broken": 0.1, "distance": 1.0}
    assert radii.closed == pytest.approx(100 * 2 / 3)
    assert made([0.1, 0.1, 0.0], [0.1, 0.2, 0.0]).contradictions.tolist() == [True, False, False]
    none = made([0.0], [0.0])
    assert np.isnan([*none.medians.values(), none.closed]).all()


def test_a_certificate_that_is_wrong_is_found(trained, monkeypatch):
    data, net = trained
    monkeypatch.setattr(radii_module, "is_proven", lambda net, x, y, phi, **_: np.ones(len(y), bool))
    radii = find_radii(net, data.test, FEW)
    assert (radii.contradictions == radii.right).all()


def test_an_interrupt_keeps_the_images_that_are_finished(trained):
    data, net = trained

    def on_progress(done, total):
        if done >= 25:
            raise KeyboardInterrupt

    with blocks_at_a_time(1):
        radii = find_radii(net, data.test[:30], CertifyOptions(examples=None), on_progress=on_progress)
    assert radii.interrupted
    assert (len(radii.proven), len(radii.rows)) == (25, 25)


def test_a_stack_is_refused(trained):
    data, net = trained
    with pytest.raises(NnliteError, match="found a stack; certify its nets one by one"):
        find_radii(stack([net, net]), data.test, FEW)


@pytest.mark.parametrize("broken", [0.0, np.inf])
def test_where_no_image_has_a_radius_the_picture_shows_the_whole_range(figures, tmp_path, broken):
    plot_radii({"one": made([0.0], [broken])}, {"one": "none"}, {"one": ""}, tmp_path / "radii.png")
    assert figures[0].axes[0].get_ylim() == (0, 1)


def test_each_run_has_a_panel_on_one_scale(figures, tmp_path):
    runs = {"one": made([0.02, 0.01], [0.1, 0.05]), "two": made([0.0, 0.2, 0.1], [0.0, np.inf, 0.4])}
    notes = {"one": "no regularisation", "two": "dgl1, λ = 0.05, φ = 0.1"}
    plot_radii(runs, {"one": "none", "two": "dgl1"}, notes, tmp_path / "radii.png")
    one, two = figures[0].axes
    assert [axes.get_title(loc="left") for axes in (one, two)] == ["one", "two"]
    assert two.texts[0].get_text() == notes["two"]
    assert one.get_ylim() == two.get_ylim() == (0, pytest.approx(0.44))
    assert [patch.get_data().values.tolist() for patch in one.patches[:1]] == [[0.01, 0.02]]  # as they break
    assert [text.get_text() for text in figures[0].legends[0].get_texts()] == [
        "broken from here on",
        "unknown",
        "proven",
    ]


def test_on_the_other_device_they_are_the_same(trained, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    (data, net), few = trained, CertifyOptions(examples=3)
    here, there = find_radii(net, data.test, few), find_radii(net.to("gpu"), data.test.to("gpu"), few)
    assert (there.rows == here.rows).all()
    for name in ("proven", "broken", "distance"):
        assert (getattr(there, name) == getattr(here, name)).all()
