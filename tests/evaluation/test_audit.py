"""The audit: its rules on figures made by hand, and whole audits of a plain net and of one that hides its gradient."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import strict_cupy
from test_own_layers import Softplus

from nnlite.apgd import APGD
from nnlite.attacks import PGD
from nnlite.certify import is_proven
from nnlite.datasets import check_samples
from nnlite.errors import NnliteError
from nnlite.evaluation import auditing as audit_module
from nnlite.evaluation.accuracy import accuracy
from nnlite.evaluation.auditing import ATTACKS, Audit, AuditAttack, AuditOptions, FollowUp, audit, worst_case
from nnlite.evaluation.certifying import Bracket
from nnlite.evaluation.fmn import FMN
from nnlite.evaluation.pictures import plot_audit
from nnlite.evaluation.random_signs import RandomSigns
from nnlite.evaluation.verdicts import (
    FAIL,
    NOT_TESTED,
    PASS,
    black_box,
    converged,
    iterative,
    large_noise,
    monotone,
    no_noise,
    other_search,
    random_noise,
    sound,
    transfer,
    undecided,
    zero_gradients,
)
from nnlite.layers import Dense, ReLU
from nnlite.network import Network, stack
from nnlite.training.loop import train
from nnlite.training.settings import Settings

pytestmark = pytest.mark.once

PHI = (0.0, 0.05, 0.1)
MANY = 10_000  # examples, of which three are no share to speak of
QUICK = AuditOptions(
    PHI, steps=10, restarts=2, apgd_steps=10, tries=5, square_queries=100, square_examples=40, proven=30
)


@pytest.fixture(scope="module")
def nets(trained):
    """Return the test digits, a small undefended net, and the others that craft noise for it."""
    digits, rect = trained
    others = {f"other{k}": train(Settings(hidden=(64, 64), epochs=15, seed=1 + k), digits).net for k in range(2)}
    return digits.test, rect, others


@pytest.fixture(scope="module")
def audited(nets):
    """Return the audit of the undefended net."""
    return audit(*arguments(nets), QUICK)


def arguments(nets):
    samples, net, others = nets
    return net, samples, others


def scaled(net, factor):
    """Return the net with its last layer multiplied: it predicts the same, and is surer of it."""
    last = net.layers[-1]
    return Network((*net.layers[:-1], Dense(factor * last.W, factor * last.b)))


def answers(found):
    return {verdict.name: verdict.answer for verdict in found.verdicts}


# The rules, at their limits


def test_many_steps_must_find_what_one_step_finds():
    found = {"r1": np.array([98, 90, 50.0]), "r2": np.array([98, 60, 70.0])}
    assert iterative(PHI, {**found, "pgd": np.array([98, 60.2, 40])}, MANY).answer == PASS
    assert iterative(PHI, {**found, "pgd": np.array([98, 60.4, 40])}, MANY).answer == FAIL
    assert iterative(PHI, {**found, "pgd": np.array([98, 60, 50.4])}, MANY).answer == FAIL


@pytest.mark.parametrize("rule", [converged, other_search])
def test_a_second_search_must_find_nothing_new(rule):
    white, tried = np.array([98.0, 90.0, 50.0]), np.zeros((3, 2000), bool)
    tried[2, :1000] = True
    broken = np.zeros_like(tried)
    assert rule(PHI, white, tried, broken).answer == PASS
    broken[2, :4] = True
    passed = rule(PHI, white, tried, broken)
    assert (passed.answer, passed.found) == (PASS, 0.2)
    assert (
        passed.evidence == "at phi 0.1, where most is at stake, 50.00 % withstand the gradient; 4 of the 1000 left fall"
    )
    broken[2, 4] = True
    assert rule(PHI, white, tried, broken).answer == FAIL


def test_no_proven_example_may_fall():
    proven, worst = np.ones((3, 50), bool), np.ones((3, 50), bool)
    proven[2, 10:] = False
    fine = sound(Bracket(PHI, proven, worst, np.arange(50)), "")
    assert (fine.answer, fine.evidence) == (PASS, "proven, of 50 examples: 50 at 0.05, 10 at 0.1")
    worst[2, 9] = False
    wrong = sound(Bracket(PHI, proven, worst, np.arange(50)), "")
    assert (wrong.answer, wrong.found) == (FAIL, 2)
    assert wrong.evidence.startswith("1 at phi 0.1: either the certificate or the attack is wrong")
    missing = sound(None, "no way")
    assert (missing.answer, missing.evidence) == (NOT_TESTED, "nothing was proven: no way")


@pytest.mark.parametrize(
    ("pgd", "expected"), [([98, 97, 60, 40, 1], 3), ([98, 98, 98, 98], 3), ([98, 0, 0], 2), ([98, 50, 2], 1)]
)
def test_steps_are_doubled_where_most_is_at_stake(pgd, expected):
    assert undecided(np.array(pgd, float), 98) == expected


@pytest.mark.parametrize(
    ("values", "answer"),
    [
        ([98, 90, 50], PASS),
        ([98, 90, 90.2], PASS),
        ([98, 90, 90.4], FAIL),
        ([98, 98.4, 50], FAIL),
        ([98, 90, 90.15, 90.3], FAIL),  # two small rises are a large one
        ([98, 2, 9], PASS),  # below chance, which is 10 here, a rise says nothing
        ([98, 2, 10.4], FAIL),
    ],
)
def test_more_noise_must_not_help(values, answer):
    falling = np.linspace(98, 50, len(values))
    phi = np.linspace(0, 0.5, len(values))
    assert monotone(phi, {"pgd": falling, "r1": np.array(values, float)}, 10.0, MANY).answer == answer


@pytest.mark.parametrize(("found", "chance", "answer"), [(10, 10, PASS), (10.2, 10, FAIL), (50, 50, PASS)])
def test_large_noise_must_bring_chance(found, chance, answer):
    assert large_noise(0.5, found, chance).answer == answer


def fallen(*rows):
    """Return which of 2,000 examples are correct at phi 0, 0.05 and 0.1 when `rows` have fallen at 0.05."""
    correct = np.ones((3, 2000), bool)
    correct[1, list(rows)] = False
    return correct


def test_transfer_must_find_nothing_that_the_gradient_does_not():
    white = fallen(0, 1, 2)
    assert transfer(PHI, white, {"a": fallen(0, 1, 2, 3, 4, 5, 6)}).answer == PASS
    assert transfer(PHI, white, {"a": fallen(0, 1, 2, 3, 4, 5, 6, 7)}).answer == FAIL
    assert transfer(PHI, white, {"a": fallen(3, 4, 5), "b": fallen(6, 7)}).answer == FAIL  # together they find five
    assert transfer(PHI, white, {}).answer == NOT_TESTED


def test_transfer_names_the_strongest_other_net():
    by = {"a": fallen(0), "b": fallen(0, 1), "c": fallen()}
    for correct in by.values():
        correct[2] = correct[1]
    assert "the strongest other net is b, 99.90 % at phi 0.1" in transfer(PHI, fallen(0), by).evidence


def test_square_must_find_nothing_new():
    tried = ~fallen(*range(40))
    assert black_box(PHI, tried, ~fallen(3, 4, 5, 6), "").answer == PASS
    failed = black_box(PHI, tried, ~fallen(3, 4, 5, 6, 7), "")
    assert failed.answer == FAIL
    assert "5 of the 40" in failed.evidence
    missing = black_box(PHI, tried, ~fallen(), "no toolbox")
    assert missing.answer == NOT_TESTED
    assert "no toolbox" in missing.evidence


def test_of_few_examples_three_decide_nothing():
    white = fallen()[:, :500]  # 0.2 % of them is one
    assert transfer(PHI, white, {"a": fallen(0, 1, 2)[:, :500]}).answer == PASS
    assert transfer(PHI, white, {"a": fallen(0, 1, 2, 3)[:, :500]}).answer == FAIL
    tried = np.repeat([[False], [True], [False]], 500, axis=1)
    assert converged(PHI, np.full(3, 90.0), tried, ~fallen(0, 1, 2)[:, :500]).answer == PASS
    assert converged(PHI, np.full(3, 90.0), tried, ~fallen(0, 1, 2, 3)[:, :500]).answer == FAIL


def test_random_noise_must_be_weaker_than_what_follows_the_gradient():
    found = {"r1": np.array([98, 90, 60.0]), "pgd": np.array([98, 80, 50.0]), "r2": np.full(3, 98.0)}
    assert random_noise(PHI, {**found, "random": np.array([98, 97, 59.8])}, MANY).answer == PASS
    nearest = random_noise(PHI, {**found, "random": np.array([98, 97, 80])}, MANY)
    assert nearest.found == -7  # at phi 0 they are equal, and nothing can be learned
    assert nearest.evidence.startswith("at phi 0.05: 97.00 % under it, 90.00 %")
    assert random_noise(PHI, {**found, "random": np.array([98, 97, 59.6])}, MANY).answer == FAIL


def test_hardly_any_example_may_be_without_a_gradient():
    zeros = np.zeros(990, int)
    zeros[:500] = 7  # of 8 pixels: one that is left will do
    zeros[500:502] = 8
    assert zero_gradients(zeros, 8, 1000).answer == PASS
    zeros[502] = 8
    verdict = zero_gradients(zeros, 8, 1000)
    assert verdict.answer == FAIL
    assert f"{100 * (500 * 7 + 3 * 8) / (990 * 8):.2f} % of all derivatives" in verdict.evidence


def test_without_noise_nothing_may_change():
    assert no_noise({"r1": np.array([98, 3.0]), "pgd": np.array([98, 2.0])}, 98.0).answer == PASS
    assert no_noise({"r1": np.array([98, 3.0]), "pgd": np.array([97.99, 2.0])}, 98.0).answer == FAIL


# Whole audits


def test_an_undefended_net_passes(audited, art):
    assert set(answers(audited).values()) == {PASS}, answers(audited)
    assert not audited.failed
    assert audited.accuracy["worst"][-1] < 60  # which says nothing of robustness


def test_a_net_that_hides_its_gradient_is_caught(nets, art):
    samples, net, others = nets
    hidden = audit(scaled(net, 1e4), samples, others, QUICK)
    found = answers(hidden)
    failing = {"zero gradients", "random noise", "large noise"}  # the margins of APGD do not saturate
    assert {name for name, answer in found.items() if answer == FAIL} == failing
    assert hidden.failed
    left = np.logical_and.reduce(list(hidden.correct.values()))
    assert not (
        hidden.follow_ups["square"].tried & ~left
    ).any()  # Square comes after all others, not only those that use the gradient
    x, y = samples.batch(slice(None))
    right = net.predict(x) == y
    zeros = scaled(net, 1e4).run(x, y).dx[right] == 0
    (verdict,) = (verdict for verdict in hidden.verdicts if verdict.name == "zero gradients")
    assert verdict.found == pytest.approx(100 * zeros.all(axis=1).sum() / len(samples))
    assert f"{100 * zeros.mean():.2f} % of all derivatives" in verdict.evidence
    # Its own gradient makes it look robust, and the other attacks do not.
    assert hidden.accuracy["pgd"][-1] > hidden.accuracy["worst"][-1] + 15


def test_without_the_toolbox_square_is_not_tested_and_the_rest_is(nets, no_art):
    found = audit(*arguments(nets), QUICK)
    assert answers(found).pop("black box") == NOT_TESTED
    assert set(answers(found).values()) == {PASS, NOT_TESTED}
    (verdict,) = (verdict for verdict in found.verdicts if verdict.answer == NOT_TESTED)
    assert "pip install '.[interop]' in a clone of nnlite" in verdict.evidence
    assert not found.follow_ups["square"].tried.any()
    assert not found.failed


def test_without_other_nets_transfer_is_not_tested(nets, no_art):
    samples, net, _ = nets
    found = audit(net, samples, {}, QUICK)
    assert answers(found)["transfer"] == NOT_TESTED
    assert "transfer" not in found.correct


@pytest.mark.parametrize("shape", [(15,), (16,), (4, 4), (3, 5)])
def test_square_takes_images_for_images_and_rows_for_rows(art, monkeypatch, shape):
    rng, shapes = np.random.default_rng(0), []
    samples = check_samples(rng.random((20, *shape)), np.arange(20) % 3, classes=3)
    features = samples.images.shape[1]
    net = Network((Dense(rng.standard_normal((features, 3)).astype(np.float32), np.zeros(3, np.float32)),))

    def kept(self, **options):
        shapes.append(options.pop("shape"))
        return RandomSigns()

    monkeypatch.setattr("nnlite.interop.art.ArtAttack", lambda name, **options: kept(name, **options))
    found = audit(net, samples, {}, QUICK)
    assert shapes == [shape if len(shape) > 1 else None]
    assert answers(found)["black box"] != NOT_TESTED
    assert found.chance == 100 / 3


@pytest.mark.parametrize("clip", [True, False])
def test_r1_and_transfer_are_those_of_a_calculation_by_hand(nets, no_art, clip):
    samples, net, others = nets
    found = audit(net, samples, others, replace(QUICK, clip=clip))
    x, y = samples.images / np.float32(16), samples.labels

    def logits(one, images):
        for layer in one.layers[::2]:
            images = np.maximum(images @ layer.W + layer.b, 0) if layer is not one.layers[-1] else images @ layer.W
        return images + one.layers[-1].b

    def step(one, size):
        moved = x + size * np.sign(one.run(x, y).dx)
        return moved.clip(0, 1) if clip else moved

    for k, size in enumerate(PHI):
        assert (found.correct["r1"][k] == (logits(net, step(net, size)).argmax(axis=1) == y)).mean() > 0.995
        stands = [logits(net, step(other, size)).argmax(axis=1) == y for other in others.values()]
        expected = (logits(net, x).argmax(axis=1) == y) & stands[0] & stands[1]
        assert (found.correct["transfer"][k] == expected).mean() > 0.995


def test_the_worst_case_is_that_of_each_example_over_all_attacks(audited):
    robust = np.ones(500, bool)
    for k in range(len(PHI)):
        for example in range(500):
            every = all(correct[k, example] for correct in audited.correct.values())
            robust[example] &= every and not any(one.broken[k, example] for one in audited.follow_ups.values())
        assert audited.accuracy["worst"][k] == 100 * robust.sum() / 500
    assert (audited.accuracy["worst"] <= np.min([*audited.accuracy.values()], axis=0)).all()


def test_an_example_that_has_fallen_has_fallen_in_every_larger_ball_and_late_attacks_count():
    one, other = np.array([[1, 1, 1, 1], [1, 0, 1, 1], [1, 1, 0, 1]], bool), np.ones((3, 4), bool)
    broken = np.zeros((3, 4), bool)
    broken[1, 3] = True
    follow_ups = {"square": FollowUp("Square", broken, broken)}
    found = Audit(
        PHI, {"one": one, "other": other}, follow_ups, None, {}, (), 10.0, {}, np.arange(4), np.array([0, 1, 1, 2])
    )
    assert found.worst.astype(int).tolist() == [[1, 1, 1, 1], [1, 0, 1, 0], [1, 0, 0, 0]]
    by_class = {label: values.tolist() for label, values in found.by_class.items()}
    assert by_class == {0: [100, 100, 100], 1: [100, 50, 0], 2: [100, 0, 0]}
    assert found.balanced.tolist() == pytest.approx([100, 50, 100 / 3])
    assert found.accuracy["worst"].tolist() == [100, 50, 25]
    assert found.accuracy["one"].tolist() == [100, 75, 75]
    low, high = (limit[1] for limit in found.intervals["worst"])
    wilson = scipy.stats.binomtest(2, 4).proportion_ci(method="wilson")
    assert (low, high) == pytest.approx((100 * wilson.low, 100 * wilson.high))


def test_what_is_wrong_already_is_not_attacked(audited, nets):
    samples, net, others = nets
    x, y = samples.batch(slice(None))
    right = net.predict(x) == y
    assert 0 < (~right).sum() < 60
    told = []
    audit(net, samples, others, QUICK, on_progress=lambda *what: told.append(what))
    assert {total for _, total, what in told if what in ("R1", "PGD", "PGD at phi 0.5")} == {int(right.sum())}
    stages = list(dict.fromkeys(what for _, _, what in told))
    each = ["R1", "R2", "PGD", "APGD", "noise of other0", "noise of other1", "random signs", "PGD at phi 0.5"]
    assert stages[:8] == each
    again = ["APGD, 20 steps", "PGD, strides of phi / 2", "APGD towards each class", "FMN"]
    assert [stage.partition(" at phi ")[0] for stage in stages[8:12]] == again
    assert all(stage.startswith(("Square at phi ", "certificates")) for stage in stages[12:])
    assert (audited.worst[0] == right).all()
    assert audited.accuracy["r1"][0] == accuracy(net, samples)


def test_square_is_tried_where_all_others_failed_on_the_smallest_margins(audited, nets, art):
    samples, net, _ = nets
    x, y = samples.batch(slice(None))
    logits = net.logits(x).astype(float)
    true = logits[np.arange(len(y)), y]
    logits[np.arange(len(y)), y] = -np.inf
    margin = true - logits.max(axis=1)
    square = audited.follow_ups["square"]
    assert not square.tried[0].any()
    others = {name: one for name, one in audited.follow_ups.items() if name != "square"}
    before = worst_case(audited.correct, others)
    for k in (1, 2):
        left, tried = before[k], square.tried[k]
        assert tried.sum() == 40
        assert not (tried & ~left).any()
        assert margin[tried].max() <= margin[left & ~tried].min()
    assert not (square.broken & ~square.tried).any()


def test_apgd_tries_as_hard_as_it_is_told():
    row, asked = ATTACKS["apgd"], AuditOptions(apgd_steps=20, apgd_restarts=1, clip=False)
    assert row.make(asked) == APGD(steps=20, restarts=1, clip=False)
    assert row.description(asked) == "APGD, 20 steps, 1 start"
    assert row.make(AuditOptions()) == APGD()


def test_the_second_search_is_asked_where_most_is_at_stake_of_what_all_others_leave(nets, no_art, monkeypatch):
    tried = []
    score = audit_module.evaluate_attack

    def noted(crafting, victims, samples, attack, phi, **more):
        table = score(crafting, victims, samples, attack, phi, **more)
        tried.append((attack, tuple(phi), len(samples), int(table.correct["net"].sum())))
        return table

    monkeypatch.setattr(audit_module, "evaluate_attack", noted)
    found = audit(*arguments(nets), QUICK)
    white = np.logical_and.reduce([found.correct[name] for name in ("r1", "r2", "pgd", "apgd")])
    k = undecided(100 * white.mean(axis=1), 100 * white[0].mean())
    again, stride, targets, nearest = tried[-4:]
    assert again[0] == APGD(steps=20, restarts=2)
    assert stride[0] == PGD(steps=10, restarts=2, stride=0.5)
    assert targets[0] == APGD(steps=5, losses=("targets",))
    assert nearest[0] == FMN()
    assert {phi for _, phi, _, _ in tried[-4:]} == {(PHI[k],)}
    assert again[2] == np.logical_and.reduce([ones[k] for ones in found.correct.values()]).sum()
    assert (stride[2], targets[2], nearest[2]) == (again[3], stride[3], targets[3])
    shown = {verdict.name: verdict.found for verdict in found.verdicts}
    assert shown["converged"] == pytest.approx(100 * (again[2] - again[3]) / 500)
    assert shown["search"] == pytest.approx(100 * (stride[2] - nearest[3]) / 500)


def test_the_search_that_was_too_weak_once_is_caught(nets, no_art, monkeypatch):
    """Without APGD, and with strides too short to arrive, the second search finds what was missed."""
    for name in ("pgd", "apgd"):
        monkeypatch.setitem(ATTACKS, name, replace(ATTACKS[name], make=lambda asked: PGD(steps=3, stride=0.02)))
    found = audit(*arguments(nets), replace(QUICK, phi=(0.08,)))
    assert FAIL in {answers(found)["converged"], answers(found)["search"]}


def test_ctrl_c_keeps_what_is_finished(nets, no_art):
    samples, net, others = nets

    def stop(at):
        def told(done, total, what):
            if what.startswith(at):
                raise KeyboardInterrupt

        return told

    early = audit(net, samples, others, QUICK, on_progress=stop("PGD"))
    assert (early.interrupted, set(early.correct), early.verdicts) == (True, {"r1", "r2"}, ())
    late = audit(net, samples, others, QUICK, on_progress=stop("certificates"))
    assert late.interrupted
    assert late.bracket is None
    whole = audit(net, samples, others, QUICK)
    assert not whole.interrupted
    assert late.verdicts == whole.verdicts[:-1]
    assert (late.worst == whole.worst).all()


def test_the_bracket_is_that_of_certificates_and_of_all_attacks(audited, nets):
    samples, net, _ = nets
    bracket = audited.bracket
    assert len(bracket.rows) == len(set(bracket.rows)) == 30
    x, y = samples[bracket.rows].batch(slice(None))
    assert (bracket.proven[0] == (net.predict(x) == y)).all()
    assert (bracket.proven[1] == is_proven(net, x, y, PHI[1])).all()
    assert (bracket.stands == audited.worst[:, bracket.rows]).all()
    assert not bracket.contradictions.any()
    few = audit(net, samples, {}, replace(QUICK, examples=60, proven=10, square_examples=1))
    assert set(few.bracket.rows) <= set(few.rows)
    assert (few.bracket.stands == few.worst[:, np.searchsorted(few.rows, few.bracket.rows)]).all()


def test_ctrl_c_before_anything_is_finished_goes_on(nets, no_art):
    samples, net, others = nets

    def stop(*_):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        audit(net, samples, others, QUICK, on_progress=stop)


def test_a_proof_is_not_tested_where_it_cannot_be_had(nets, no_art):
    samples, net, _ = nets
    assert answers(audit(net, samples, {}, replace(QUICK, proven=0)))["sound"] == NOT_TESTED
    smooth = Network(tuple(Softplus(np.float32(10)) if isinstance(layer, ReLU) else layer for layer in net.layers))
    found = audit(smooth, samples[:60], {}, replace(QUICK, phi=(0.01,)))
    (verdict,) = (verdict for verdict in found.verdicts if verdict.name == "sound")
    assert verdict.answer == NOT_TESTED
    assert "layer 1 (Softplus): has no relaxation" in verdict.evidence


def test_what_square_breaks_is_counted(nets, monkeypatch):
    samples, net, others = nets

    class Magic:
        norm, clip = "linf", True

        def craft(self, net, x, y, phi, rng, box=None):
            # the white-box attacks have failed here; this one paints all of the ball's corners by luck
            return SimpleNamespace(images=[1 - x for _ in phi], zeros=None, failed=None, smallest=None)

    monkeypatch.setattr(audit_module, "_square", lambda options, pixels: (Magic(), ""))
    monkeypatch.setattr("nnlite.evaluation.accuracy.check_crafted", lambda *what: None)
    found = audit(net, samples, others, QUICK)
    assert found.follow_ups["square"].broken[1:].any(axis=1).all()
    assert answers(found)["black box"] == FAIL
    assert found.accuracy["worst"][2] < min(found.accuracy[name][2] for name in found.correct)


def test_the_same_seed_gives_the_same_audit_and_phi_is_put_in_order(audited, nets, art):
    again = audit(*arguments(nets), replace(QUICK, phi=(0.1, 0.05, 0.1)))
    assert again.phi == PHI
    assert again.verdicts == audited.verdicts
    assert (again.worst == audited.worst).all()
    assert (again.follow_ups["square"].broken == audited.follow_ups["square"].broken).all()
    other = audit(*arguments(nets), replace(QUICK, square_examples=1, seed=1))
    assert (other.correct["r1"] == audited.correct["r1"]).all()
    assert (other.correct["random"] != audited.correct["random"]).any()


def test_only_the_examples_that_were_drawn_are_audited(nets, no_art):
    samples, net, _ = nets
    found = audit(net, samples, {}, replace(QUICK, examples=60, seed=3))
    assert len(found.rows) == len(set(found.rows)) == found.parameters["examples"] == 60
    assert (np.diff(found.rows) > 0).all()
    alone = audit(net, samples[found.rows], {}, replace(QUICK, seed=3))
    assert (alone.worst == found.worst).all()
    assert alone.rows.tolist() == list(range(60))
    assert (audit(net, samples, {}, replace(QUICK, examples=60, seed=4)).rows != found.rows).any()
    assert len(audit(net, samples, {}, replace(QUICK, examples=10_000)).rows) == len(samples)


def test_a_row_is_all_that_a_stronger_attack_needs(nets, no_art, monkeypatch, figures, tmp_path):
    samples, net, others = nets
    row = AuditAttack("PGD-100", lambda asked: "PGD, 100 steps", lambda asked: PGD(steps=100, clip=asked.clip))
    monkeypatch.setitem(ATTACKS, "pgd100", row)
    told = []
    found = audit(net, samples[:50], others, QUICK, on_progress=lambda done, total, what: told.append(what))
    assert "PGD-100" in told
    assert found.descriptions["pgd100"] == "PGD, 100 steps"
    assert found.accuracy.keys() == {"r1", "r2", "pgd", "apgd", "transfer", "random", "pgd100", "worst"}
    assert not (found.worst & ~found.correct["pgd100"]).any()
    plot_audit(found, "a title", tmp_path / "audit.png")
    colours = [line.get_color() for line in figures[0].axes[0].lines[:-1]]
    assert len(colours) == len(set(colours)) == 8


def test_a_large_phi_is_used_for_the_verdict_on_large_noise(nets, no_art):
    samples, net, others = nets
    found = audit(net, samples, others, replace(QUICK, phi=(0.7,)))
    (verdict,) = (verdict for verdict in found.verdicts if verdict.name == "large noise")
    assert verdict.found == found.accuracy["pgd"][-1]
    assert "at phi 0.7" in verdict.evidence


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"phi": (0.1, -0.1)}, "phi: expected"),
        ({"phi": (0.0,)}, "one of them above 0"),
        ({"phi": (float("nan"),)}, "phi: expected"),
        ({"phi": ()}, "phi: expected"),
        ({"phi": (0.1, 1.5)}, "phi: expected numbers from 0 to 1, the range of a pixel"),
        ({"apgd_steps": 0}, "apgd_steps: expected"),
        ({"apgd_restarts": 0}, "apgd_restarts: expected"),
        ({"proven": -1}, "proven: expected an integer of at least 0"),
        ({"steps": 0}, "steps: expected"),
        ({"restarts": 0}, "restarts: expected"),
        ({"tries": 0}, "tries: expected"),
        ({"square_examples": 0}, "square_examples: expected"),
        ({"square_queries": 0}, "square_queries: expected"),
        ({"examples": 0}, "examples: expected"),
    ],
)
def test_bad_input_is_refused_before_anything_runs(options, words):
    with pytest.raises(NnliteError, match=words):
        AuditOptions(**options)


def test_a_stack_and_a_net_that_knows_nothing_are_refused(nets):
    samples, net, others = nets
    with pytest.raises(NnliteError, match="found a stack of 2"):
        audit(stack([net, net]), samples, others, QUICK)
    wrong = samples[samples.labels != 0]
    know_nothing = Network((Dense(np.zeros((64, 10), np.float32), np.zeros(10, np.float32)),))
    with pytest.raises(NnliteError, match="right on none of"):
        audit(know_nothing, wrong, others, QUICK)


def test_on_the_other_device_the_audit_is_the_same(nets, monkeypatch, art):
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    samples, net, others = nets
    here = audit(net, samples[:100], others, QUICK)
    there = {name: other.to("gpu") for name, other in others.items()}
    moved = audit(net.to("gpu"), samples[:100].to("gpu"), there, QUICK)
    assert moved.verdicts == here.verdicts
    assert (moved.worst == here.worst).all()


def test_the_picture_has_a_line_for_each_attack_and_a_thick_one_for_the_worst_case(audited, figures, tmp_path):
    plot_audit(audited, "a title", tmp_path / "audit.png")
    (axes,) = figures[0].axes
    *lines, chance = axes.lines
    labels = {audited.descriptions[name]: values for name, values in audited.accuracy.items()}
    assert {line.get_label() for line in lines} == labels.keys()
    for line in lines:
        assert line.get_xdata() == pytest.approx(PHI)
        assert line.get_ydata() == pytest.approx(labels[line.get_label()])
    widths = {line.get_label(): line.get_linewidth() for line in lines}
    assert max(widths, key=widths.get) == "worst case"
    assert (
        len({(line.get_color(), line.get_marker()) for line in lines}) == len({line.get_color() for line in lines}) == 7
    )
    assert set(chance.get_ydata()) == {10}
    assert axes.get_legend() is not None
