"""A slip in a name: the nearest one that is known is told, for every kind of name."""

import pytest

SLIPS = [
    ("tain", "train"),
    ("bench stp", "step"),
    ("train --lamda 1", "--lam"),
    ("train --reg dgl", "dgl1"),
    ("train --data digit", "digits"),
    ("train --device gpuu", "gpu"),
    ("train --reg datagrad --term l22,0.1,0.1", None),  # a term has no name of its own
    ("grid --reg trade --lam 1 --phi 0.1", "trades"),
    ("attack --adversary rect --noise pdg", "pgd"),
    ("attack --adversary rekt", "rect"),
    ("attack --adversary rect --victim rec", "rect"),
    ("audit retc", "rect"),
    ("certify rct", "rect"),
    ("verify kept --run rct", "rect"),
    ("runs --data digts", "digits"),
    ("data --fetch mnits", "mnist"),
    ("gradcheck --datagrad --penalty l2nrom", "l2norm"),
    ("reproduce tabel1", "table1"),
    ("bench step --reg dgl11", "dgl1"),
    ("bench step --against troch", "torch"),
]


@pytest.mark.parametrize(("arguments", "meant"), SLIPS, ids=lambda value: str(value))
def test_what_was_meant_is_told(nnlite, arguments, meant):
    if "kept" in arguments or "rect" in str(meant) or "rect" in arguments:
        nnlite("train", "--hidden", 4, "--epochs", 1, "--name", "rect")
    if "kept" in arguments:
        nnlite("attack", "--adversary", "rect", "--phi", 0, "--save", "kept")
    result = nnlite(*arguments.split())
    assert (result.exit_code, result.stdout) == (2, "")
    line = result.stderr.splitlines()[-1].lower()
    assert ("did you mean" in line) == bool(meant)
    assert meant is None or f"'{meant}'" in line.partition("did you mean")[2]


def test_a_slip_in_a_grid_file_is_told(nnlite, tmp_path):
    for text, meant in (("lamm = 0.1", "lam"), ('reg = "dgl"', "dgl1"), ('gradient = "exakt"', "exact")):
        (tmp_path / "grid.toml").write_text(text)
        result = nnlite("grid", "grid.toml", "--dry-run")
        assert result.exit_code == 2
        assert f"(did you mean '{meant}'" in result.stderr


def test_a_name_that_is_like_none_is_met_with_the_list_alone(nnlite):
    assert "did you mean" not in nnlite("attack", "--adversary", "a", "--noise", "xyz").stderr.lower()
