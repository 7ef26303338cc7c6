"""What each table and figure is made from."""

from collections import Counter

import pytest

from nnlite.attacks import R1
from nnlite.errors import NnliteError
from nnlite.paper.tables import BEST_MODELS, FIGURE_3, MODELS, Model, best_of_families, in_order
from nnlite.paper.targets import NOISES, TARGETS, AttackSpec, attacks_for

RECT, MT, L1 = Model("Rect"), Model("MT"), Model("L1", 0.01)
DGL1, DGL2 = Model("DGL1", 0.01, 0.1), Model("DGL2", 0.01, 0.1)


def test_a_table_needs_its_adversary_also_where_it_is_not_asked_for():
    attacks, models = attacks_for("table5", [RECT, DGL1, RECT])
    assert attacks == [AttackSpec(DGL2, noise, (DGL1, DGL2, RECT)) for noise in ("r1", "r1-naive")]
    assert models == (DGL1, DGL2, RECT)
    assert attacks_for("table1", MODELS)[0] == [AttackSpec(RECT, noise, MODELS) for noise in ("r1", "r1-naive")]


def test_figure_1_is_self_attacks_with_both_noises():
    attacks, models = attacks_for("fig1", MODELS)
    assert len(attacks) == 24
    assert len(models) == 8
    assert all(victims == (adversary,) for adversary, _, victims in attacks)
    assert Counter(attack.noise for attack in attacks) == {"r1": 8, "r1-naive": 8, "r2": 8}
    assert NOISES["r1"] == R1
    assert NOISES["r1-naive"].loss.name != R1.loss.name


def test_figures_2_and_3():
    attacks, models = attacks_for("fig2", BEST_MODELS)
    assert [attack.adversary for attack in attacks] == [RECT, MT] * 2
    assert all(set(attack.victims) == set(best_of_families(MODELS)) for attack in attacks)
    assert attacks_for("fig2", [L1])[1] == (L1, RECT, MT)
    attacks, models = attacks_for("fig3", [])
    assert {attack.adversary for attack in attacks} == set(models) == set(FIGURE_3)


@pytest.mark.parametrize("target", TARGETS)
def test_every_target_lists_the_models_of_its_attacks(target):
    attacks, models = attacks_for(target, BEST_MODELS)
    assert models == in_order(models)
    assert {*models} == {model for attack in attacks for model in (attack.adversary, *attack.victims)}


def test_an_unknown_target_is_an_error():
    with pytest.raises(NnliteError, match=r"table1, .*fig3, found 'table9'"):
        attacks_for("table9", MODELS)
