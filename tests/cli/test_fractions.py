"""Sizes of noise as fractions, wherever a phi is taken: --phi 8/255."""

import json

import pytest

PHI = 8 / 255
NET = ("--hidden", 6, "--epochs", 1)
QUICK = ("--examples", 5)


@pytest.fixture
def trained(nnlite):
    """The command line beside a run, rect."""
    assert nnlite("train", *NET, "--name", "rect").exit_code == 0
    return lambda *args: json.loads(nnlite(*args, "--json").stdout)


def test_it_is_the_phi_of_a_training(nnlite):
    assert nnlite("train", *NET, "--reg", "dgl1", "--lam", 0.01, "--phi", "8/255", "--name", "own").exit_code == 0
    assert nnlite("train", *NET, "--reg", "datagrad", "--term", "l1,0.01,8/255", "--name", "term").exit_code == 0
    found = {run["name"]: run["settings"] for run in json.loads(nnlite("runs", "--json").stdout)}
    assert found["own"]["phi"] == PHI
    assert found["term"]["term"] == ["l1,0.01,8/255"]


def test_two_ways_to_write_a_phi_train_the_same_net(nnlite, tmp_path):
    for name, phi in (("a", "1/8"), ("b", "0.125")):
        nnlite("train", *NET, "--reg", "datagrad", "--term", f"l1,0.01,{phi}", "--name", name)
    a, b = ((tmp_path / f"runs/digits/{name}/weights.safetensors").read_bytes() for name in "ab")
    assert a == b


@pytest.mark.parametrize(
    "args",
    [
        ("attack", "--adversary", "rect"),
        ("audit", "rect", *QUICK, "--steps", 1, "--apgd-steps", 2, "--tries", 1, "--proven", 0),
        ("certify", "rect", *QUICK),
    ],
    ids=lambda args: args[0],
)
def test_it_is_one_of_the_sizes_of(trained, args):
    assert trained(*args, "--phi", "0,8/255,0.1")["phi"] == [0, PHI, 0.1]


def test_it_is_a_step_of_the_finite_difference(nnlite):
    found = nnlite("gradcheck", "--datagrad", "--hidden", 4, "--batch-size", 5, "--phi", "1e-5,8/255", "--json")
    assert json.loads(found.stdout)["phi"] == [1e-5, PHI]


def test_it_is_a_value_of_a_grid(nnlite, tmp_path):
    options = ("--reg", "dgl1", "--lam", 0.01, "--phi", "2/255,8/255", "--dry-run", "--json")
    found = json.loads(nnlite("grid", *options).stdout)
    assert [job["settings"]["phi"] for job in found] == [2 / 255, PHI]
    (tmp_path / "grid.toml").write_text('reg = "dgl1"\nlam = 0.01\nphi = [0.1, "8/255"]\n')
    found = json.loads(nnlite("grid", "grid.toml", "--dry-run", "--json").stdout)
    assert [job["settings"]["phi"] for job in found] == [0.1, PHI]
    (tmp_path / "grid.toml").write_text('reg = "dgl1"\nlam = 0.01\nphi = "8/"\n')
    result = nnlite("grid", "grid.toml", "--dry-run")
    assert result.exit_code == 2
    assert "grid.toml: expected a finite number such as 0.03, or a fraction such as 8/255, found '8/'" in result.stderr


@pytest.mark.parametrize("command", ["train --reg dgl1", "attack --adversary a", "audit a", "certify a", "grid"])
@pytest.mark.parametrize(("phi", "said"), [("1/0", "a division by 0"), ("8/", "found '8/'"), ("nan", "found 'nan'")])
def test_what_is_no_size_is_refused_in_plain_words(nnlite, command, phi, said):
    result = nnlite(*command.split(), "--phi", phi)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "Invalid value for '--phi': expected a" in result.stderr
    assert said in result.stderr


@pytest.mark.parametrize(
    ("options", "enough"),
    [
        (["--phi", "0,25"], "1"),
        (["--phi", "1.01", "--noise", "pgd", "--steps", 1], "1"),
        (["--phi", "8.1", "--noise", "pgd-l2", "--steps", 1], "8"),  # sqrt(64) for the 64 pixels of a digit
    ],
)
def test_noise_beyond_the_range_of_the_data_is_warned_of(trained, nnlite, options, enough):
    result = nnlite("attack", "--adversary", "rect", "--first", 5, *options)
    assert result.exit_code == 0
    assert f"beyond the data's range: pixels are in [0, 1], and at phi {enough} every pixel can" in result.stderr


@pytest.mark.parametrize(
    "options", [["--phi", "0,1"], ["--phi", "8", "--noise", "pgd-l2"], ["--noise", "r2", "--phi", 9]]
)
def test_noise_within_it_is_not(trained, nnlite, options):
    assert "Warning" not in nnlite("attack", "--adversary", "rect", "--first", 5, *options).stderr
