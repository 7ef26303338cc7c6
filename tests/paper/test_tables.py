"""The paper's tables as data, against its printed text."""

from collections import Counter

import numpy as np
import pytest

from nnlite.evaluation.accuracy import PAPER_PHI
from nnlite.paper.tables import (
    ADVERSARIES,
    ADVERSARY_SOURCES,
    BEST_MODELS,
    FAMILIES,
    FIGURE_3,
    MISSING,
    MODELS,
    PHI,
    ROWS,
    Model,
    best_of_families,
    paper_accuracy,
)
from nnlite.training.settings import Settings

RECT, MT, DGL1 = Model("Rect"), Model("MT"), Model("DGL1", 0.01, 0.1)


def test_there_are_46_models_and_they_are_methods_that_can_be_trained():
    assert len(MODELS) == len(set(MODELS)) == len({model.slug for model in MODELS}) == 46
    assert Counter(model.family for model in MODELS) == {
        "DGL1": 9, "DGL2": 9, "L1": 4, "L2": 4, "Rect": 1, "MT-DGL2": 9, "MT-DGL1": 9, "MT": 1,
    }  # fmt: skip
    for model in MODELS:
        Settings(model.reg, model.lam, model.phi)
        assert model.multitask == model.family.startswith("MT")


def test_a_model_is_named_as_the_paper_prints_it_and_as_a_folder():
    model = Model("MT-DGL1", 0.1, 0.1)
    assert (model.label, model.slug) == ("MT-DGL1 λ = 0.1 φ = 0.1", "mt-dgl1-lam0.1-phi0.1")
    assert (Model("L2", 0.0001).label, Model("L2", 0.0001).slug) == ("L2 λ = 0.0001", "l2-lam0.0001")
    assert (RECT.label, RECT.slug, MT.label, MT.slug) == ("Rect", "rect", "MT", "mt")


def test_the_tables_are_complete_and_clean_accuracy_is_the_same_in_each():
    assert PHI == PAPER_PHI
    for model in MODELS:
        rows = [paper_accuracy(number, model) for number in ADVERSARIES]
        assert all(len(accuracy) == 5 and max(accuracy) == accuracy[0] for accuracy in rows)
        assert len({accuracy[0] for accuracy in rows}) == 1
    # as printed in the appendix
    assert paper_accuracy(1, DGL1) == (98.83, 98.77, 98.67, 97.44, 94.27)
    assert paper_accuracy(8, RECT) == (97.99, 97.71, 97.43, 92.92, 78.48)
    assert paper_accuracy(6, MT)[-1] == 1.15


def test_figure_3_is_the_self_attacks_of_tables_1_2_and_4():
    for model, printed in FIGURE_3.items():
        (number,) = [number for number, adversary in ADVERSARIES.items() if adversary == model]
        assert paper_accuracy(number, model) == printed


def fall(number, model):
    """How far a row lies below its own mean over the eight tables, as a mean over phi > 0."""
    rows = np.array([paper_accuracy(one, model)[1:] for one in ADVERSARIES])
    return (rows.mean(axis=0) - rows[number - 1]).mean()


@pytest.mark.parametrize("number", [1, 3, 4, 5, 6, 7, 8])
def test_of_the_adversarys_family_its_row_falls_fastest(number):
    adversary = ADVERSARIES[number]
    family = [model for model in MODELS if model.family == adversary.family]
    assert max(family, key=lambda model: fall(number, model)) == adversary
    assert fall(number, adversary) > 1


def test_table_2_contradicts_figure_3_and_the_source_says_so():
    falls = {model: fall(2, model) for model in MODELS if model.family == "L1"}
    weak = Model("L1", 0.0001)
    assert max(falls, key=falls.get) == weak != ADVERSARIES[2]
    assert weak.label in ADVERSARY_SOURCES[2]


def test_the_best_models_are_the_adversaries_and_the_best_row_of_each_family():
    best = best_of_families(MODELS)
    assert [model.family for model in best] == list(FAMILIES)
    # read off the tables by hand: the highest sums of the last column
    assert [model.slug for model in best] == [
        "rect", "l1-lam0.01", "l2-lam0.1", "dgl1-lam0.01-phi0.1", "dgl2-lam0.01-phi0.01", "mt",
        "mt-dgl1-lam0.1-phi0.1", "mt-dgl2-lam0.1-phi0.1",
    ]  # fmt: skip
    # and the ends of each range, without which "higher is better" could not be decided
    ends = {Model(family, *numbers) for family in ("DGL1", "DGL2") for numbers in ((0.0001, 0.1), (0.01, 0.01))}
    ends |= {Model("MT-DGL1", 0.1, 0.01), Model("MT-DGL2", 0.01, 0.1), Model("DGL1", 0.1, 0.1)}
    assert set(BEST_MODELS) == {*best, *ADVERSARIES.values(), *ends}
    assert list(BEST_MODELS) == sorted(BEST_MODELS, key=ROWS.index)
    assert best_of_families([Model("L1", 0.001), Model("L1", 0.1), RECT]) == (RECT, Model("L1", 0.1))


def test_the_missing_rows_complete_the_range_of_the_single_task_models():
    assert len(ROWS) == len(set(ROWS)) == 52
    assert [model for model in ROWS if model not in MISSING] == list(MODELS)
    for family in ("DGL1", "DGL2"):
        rows = [model for model in ROWS if model.family == family]
        assert sorted((model.lam, model.phi) for model in rows) == [
            (lam, phi) for lam in (0.0001, 0.001, 0.01, 0.1) for phi in (0.01, 0.05, 0.1)
        ]
    assert all(np.isnan(paper_accuracy(number, model)).all() for number in ADVERSARIES for model in MISSING)
    assert set(best_of_families(ROWS)) == set(best_of_families(MODELS))
