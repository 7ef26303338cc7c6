"""The claims, decided on the paper's own numbers and on numbers that a reader can check by hand."""

import re

import numpy as np
import pytest

from nnlite.paper.claims import CLAIMS, decide_claims
from nnlite.paper.comparisons import CLOSE, FAILS, HOLDS, UNTESTED
from nnlite.paper.contrasts import best_row
from nnlite.paper.scores import Scores, paper_scores
from nnlite.paper.tables import Model

RECT, MT = Model("Rect"), Model("MT")
DGL1, DGL2 = Model("DGL1", 0.01, 0.1), Model("DGL2", 0.01, 0.1)
L1, L2 = Model("L1", 0.01), Model("L2", 0.1)


def row(last, clean=98.0, seeds=1):
    """Accuracies that fall from `clean` to `last`, the same for each seed."""
    return np.tile(np.array([clean, 97.0, 96.0, 50.0, last]), (seeds, 1))


def table(adversary, **accuracies):
    """Scores of a table's rows, with the accuracy at phi 0.1 by the model's name in this file."""
    return {(adversary, "r1", globals()[name]): row(last) for name, last in accuracies.items()}


def decision(scores, words):
    found, *more = [one for one in decide_claims(scores) if words in f" {one.claim.text}"]
    assert not more
    return found


def numbered(scores):
    return {one.number: (one.verdict, one.count) for one in decide_claims(scores)}


def test_there_are_at_least_24_claims_and_each_has_its_place():
    assert len(CLAIMS) >= 24
    assert len({claim.text for claim in CLAIMS}) == len(CLAIMS)
    places = re.compile(
        r"(section 3, paragraph [78]|abstract|appendix A, paragraph 2|conclusion, paragraph 1|footnote 5)"
    )
    assert all(places.match(claim.where_in_paper) for claim in CLAIMS)
    assert all("sentence" in claim.where_in_paper or "footnote" in claim.where_in_paper for claim in CLAIMS)


def test_the_papers_own_numbers_decide_its_claims():
    """The counts can be read off the tables by hand; Newcombe's intervals, and Holm within each claim."""
    found = numbered(paper_scores())
    assert [found[k] for k in (1, 2, 3, 4, 5, 6)] == [
        (CLOSE, "22 / 0 / 2"),  # DGL1 over Rect, L1, L2: in Table 4, its own attack, L2 is ahead by 0.6 points
        (FAILS, "6 / 15 / 3"),  # DGL2 does not beat L1 at 0.01
        (HOLDS, "8 / 0 / 0"),  # DGL1 over MT
        (CLOSE, "7 / 0 / 1"),  # DGL2 over MT: Table 5, 17.98 against 17.38
        (HOLDS, "8 / 0 / 0"),
        (HOLDS, "8 / 0 / 0"),
    ]
    assert [found[k][0] for k in range(7, 15)] == [CLOSE, HOLDS, FAILS, FAILS, HOLDS, HOLDS, FAILS, FAILS]
    assert found[23] == (FAILS, "1 / 1 / 0")  # under Rect's attack MT is better: 17.20 against 10.83
    assert found[24] == (HOLDS, "1 / 0 / 0")  # 1.15 % is below 2 %
    assert found[26] == (HOLDS, "224 / 0 / 0")
    assert found[27] == (FAILS, "21 / 20 / 7")  # 23 of 48 are ahead at all
    assert [found[k][0] for k in (29, 34, 35, 36, 37)] == [UNTESTED] * 5  # not printed


def test_the_evidence_names_the_worst_comparison_and_counts():
    found = decision(paper_scores(), "DataGrad-L1 is more robust than Rect")
    assert found.evidence.startswith("comparisons: 22 hold, 0 fail, 2 are open; the worst: Table 4, DGL1 λ = 0.01")
    assert "(83.74 %, its own attack) against L2 λ = 0.1 (84.35 %): -0.61 points [" in found.evidence


def test_without_scores_nothing_is_decided():
    assert {one.verdict for one in decide_claims(Scores(100, {}))} == {UNTESTED}


@pytest.mark.parametrize(("datagrad", "verdict"), [(80, HOLDS), (70.5, CLOSE), (60, FAILS)])
def test_a_claim_holds_fails_or_is_too_close(datagrad, verdict):
    """1,000 images: the half width of a difference near 70 % is 4 points."""
    values = {**table(RECT, DGL1=90, L1=70, RECT=10), **table(MT, DGL1=datagrad, L1=70)}
    found = decision(Scores(1000, values), "DataGrad-L1 is more robust than Rect")
    assert found.verdict == verdict
    assert f"comparisons (24 with all models and tables): {3 if verdict == HOLDS else 2} hold, " in found.evidence
    # the worst comparison is the one in MT's table, where there is a nearer one than Rect
    assert f"Table 6, DGL1 λ = 0.01 φ = 0.1 ({datagrad:.2f} %) against L1" in found.evidence


def test_one_clear_failure_outweighs_a_closer_call_with_a_larger_difference():
    wide = np.array([[98, 97, 96, 50, 20.0], [98, 97, 96, 50, 90.0]])  # mean 55, a spread that decides nothing
    values = {
        (RECT, "r1", DGL1): row(70, seeds=2),
        (RECT, "r1", L1): row(75, seeds=2),
        (MT, "r1", DGL1): wide,
        (MT, "r1", L1): row(75, seeds=2),
    }
    found = decision(Scores(10_000, values), "DataGrad-L1 is more robust than Rect")
    assert found.verdict == FAILS
    assert "the worst: Table 1" in found.evidence


def test_the_best_row_is_the_best_by_these_scores():
    low, high = Model("L1", 0.1), Model("L1", 0.001)  # the paper has it the other way round
    values = {(RECT, "r1", low): row(10), (RECT, "r1", high): row(60), (MT, "r1", high): row(20)}
    assert best_row(Scores(100, values), "L1") == high
    assert best_row(Scores(100, values), "L2") is None


def test_higher_phi_compares_the_ends_at_the_same_lambda():
    models = [Model("DGL1", 0.01, 0.01), Model("DGL1", 0.01, 0.05), Model("DGL1", 0.01, 0.1), Model("DGL1", 0.001, 0.1)]
    values = {(RECT, "r1", model): row(last) for model, last in zip(models, (20, 99, 60, 10), strict=True)}
    scores = Scores(1000, values)
    by_phi, by_lam = decision(scores, " DGL1 with a higher φ"), decision(scores, " DGL1 with a higher λ")
    assert (by_phi.verdict, by_lam.verdict) == (HOLDS, HOLDS)
    assert "φ = 0.1 (60.00 %) against DGL1 λ = 0.01 φ = 0.01 (20.00 %): +40.00" in by_phi.evidence
    assert "λ = 0.01 φ = 0.1 (60.00 %) against DGL1 λ = 0.001 φ = 0.1 (10.00 %): +50.00" in by_lam.evidence
    assert decision(scores, " DGL2 with a higher φ").verdict == UNTESTED


@pytest.mark.parametrize(("other", "verdict"), [(40, HOLDS), (10, FAILS)])
def test_mt_is_the_most_fragile_or_not(other, verdict):
    values = {**table(MT, MT=20, RECT=other), (RECT, "r1", RECT): row(other), (L1, "r1", L1): row(90)}
    scores = Scores(1000, values)
    assert decision(scores, "MT alone is the most fragile model").verdict == verdict
    assert decision(scores, "MT alone is the most fragile victim").verdict == verdict


def test_multi_task_datagrad_is_compared_with_all_others_but_its_like():
    best, like = Model("MT-DGL1", 0.1, 0.1), Model("MT-DGL2", 0.1, 0.1)
    values = {(RECT, "r1", best): row(90), (RECT, "r1", like): row(89.9), (RECT, "r1", L1): row(70)}
    assert decision(Scores(1000, values), "most robust of all rows").verdict == HOLDS
    values[RECT, "r1", L2] = row(99)
    found = decision(Scores(1000, values), "most robust of all rows")
    assert found.verdict == FAILS
    assert "against L2 λ = 0.1 (99.00 %)" in found.evidence


def test_clean_accuracy_is_compared_without_noise():
    values = {(RECT, "r1", RECT): row(99, clean=95), (RECT, "r1", DGL1): row(1, clean=99)}
    found = decision(Scores(1000, values), "DataGrad improves the clean accuracy over Rect (best row of DGL1")
    assert found.verdict == HOLDS
    assert "DGL1 λ = 0.01 φ = 0.1 (99.00 %) against Rect (95.00 %), clean images: +4.00" in found.evidence


@pytest.mark.parametrize(("lowest", "verdict"), [(93, HOLDS), (92.3, CLOSE), (91, FAILS)])
def test_r2_noise_is_judged_where_it_hurts_most(lowest, verdict):
    hurt = np.array([[99, 98, lowest, 98, 98.0]])
    values = {(RECT, "r2", RECT): np.array([[99, 98, 98, 98, 97.0]]), (MT, "r2", MT): hurt, (RECT, "r2", L1): row(1)}
    found = decision(Scores(10_000, values), "R2 noise of a model's own")
    assert found.verdict == verdict
    assert f"MT ({lowest:.2f} % at φ = 0.01) against 92 %" in found.evidence


MISSING, MULTI = Model("DGL1", 0.1, 0.1), Model("MT-DGL1", 0.1, 0.1)


def test_a_row_that_the_paper_lacks_decides_only_what_is_asked_of_it():
    values = {(RECT, "r1", MISSING): row(99, clean=99.9), (RECT, "r1", MULTI): row(90), (RECT, "r1", L1): row(70)}
    scores = Scores(1000, values)
    assert decision(scores, "most robust of all rows").verdict == HOLDS
    assert best_row(scores.in_paper(), "DGL1") is None
    for words in ("The second task adds to DataGrad-L1", "The paper's best row"):
        found = decision(scores, words)
        assert found.verdict == FAILS
        assert "MT-DGL1 λ = 0.1 φ = 0.1 (90.00 %) against DGL1 λ = 0.1 φ = 0.1 (99.00 %): -9.00" in found.evidence


def grown(*accuracies):
    return np.array([[98.0, *accuracies]])


@pytest.mark.parametrize(("last", "verdict"), [(10, HOLDS), (45, CLOSE), (70, FAILS)])
def test_a_lead_grows_or_not(last, verdict):
    """DGL1 leads by 5, 15, 45 and then 80 - last points."""
    values = {
        (RECT, "r1", DGL1): grown(95, 95, 90, 80),
        (RECT, "r1", RECT): grown(90, 80, 50 if verdict != CLOSE else 56, last),
    }
    assert decision(Scores(10_000, values), "The lead of DataGrad over Rect").verdict == verdict


@pytest.mark.parametrize(("classical", "verdict"), [(30, HOLDS), (50, CLOSE), (80, FAILS)])
def test_modest_is_less_than_half_of_what_datagrad_wins_back(classical, verdict):
    values = table(RECT, DGL1=90, L1=classical, RECT=10)
    assert decision(Scores(10_000, values), "is modest").verdict == verdict


@pytest.mark.parametrize(("noisy", "verdict"), [(96, HOLDS), (93.2, CLOSE), (87, FAILS)])
def test_nearly_no_loss_is_less_than_five_points(noisy, verdict):
    found = decision(Scores(1000, {(MULTI, "r1", MULTI): row(50), (RECT, "r1", MULTI): row(noisy)}), "nearly no loss")
    assert found.verdict == verdict


@pytest.mark.parametrize(("own", "verdict"), [(0.5, HOLDS), (2.0, CLOSE), (9, FAILS)])
def test_nearly_one_percent_is_less_than_two(own, verdict):
    assert decision(Scores(10_000, {(MT, "r1", MT): row(own)}), "nearly 1 %").verdict == verdict


def test_mt_against_rect_in_figure_2_is_two_comparisons():
    values = {**table(RECT, MT=20, RECT=10), **table(MT, MT=1, RECT=30)}
    found = decision(Scores(1000, values), "worse than Rect in Figure 2")
    assert (found.verdict, found.count) == (FAILS, "1 / 1 / 0")


def test_r2_does_less_than_r1_and_its_order_is_footnote_5():
    values = {(model, "r2", model): row(last) for model, last in ((DGL2, 97), (DGL1, 95), (RECT, 90), (MT, 85))}
    values |= {(model, "r1", model): row(50) for model in (DGL1, RECT)}
    scores = Scores(10_000, values)
    assert decision(scores, "R2 noise does less damage").count == "2 / 0 / 0"
    assert decision(scores, "Under its own R2 noise DGL2").count == "3 / 0 / 0"
    assert decision(scores, "Under its own R2 noise DGL1").count == "2 / 0 / 0"


def test_alone_the_best_of_each_family_by_its_own_attack_counts():
    weak = Model("DGL1", 0.001, 0.1)
    values = {(model, "r1", model): row(last) for model, last in ((DGL1, 90), (weak, 5), (RECT, 10), (L1, 60))}
    found = decision(Scores(1000, values), "DataGrad, single-task and multi-task, keeps more")
    assert (found.verdict, found.count) == (HOLDS, "2 / 0 / 0 of 16")


def test_the_figure_3_claim_takes_its_three_models():
    light = Model("L1", 0.001)
    rows = {DGL1: grown(98, 97, 94, 84), light: grown(97, 95, 71, 30), RECT: grown(96, 92, 49, 10)}
    values = {(model, "r1", model): accuracy for model, accuracy in rows.items()}
    assert decision(Scores(10_000, values), "each attacking itself (each step").count == "6 / 0 / 0"


def test_outcomes_of_the_same_images_decide_what_independent_ones_leave_open():
    rng = np.random.default_rng(0)
    hard = rng.permutation(1000) < 300
    worse = hard | (rng.permutation(1000) < 20)
    correct = {(RECT, "r1", DGL1): np.tile(~hard, (1, 5, 1)), (RECT, "r1", MT): np.tile(~worse, (1, 5, 1))}
    scores = Scores.of(1000, correct, {})
    assert decision(scores, "DataGrad-L1 is more robust than MT").verdict == HOLDS
    assert decision(Scores(1000, scores.values), "DataGrad-L1 is more robust than MT").verdict == CLOSE
