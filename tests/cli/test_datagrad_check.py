"""`nnlite gradcheck --datagrad`: the exact update of a penalty, and the finite difference beside it."""

import json

import numpy as np
import pytest

from nnlite.datasets.catalog import load
from nnlite.evaluation.finite_step import PHI, convergence
from nnlite.gradcheck import check_penalty
from nnlite.layers import ReLU
from nnlite.penalties import L1, L2
from nnlite.training.run_folder import load_run

SMALL = ("gradcheck", "--datagrad", "--hidden", "6,5", "--batch-size", 4)


@pytest.mark.parametrize("penalty", ["l1", "l2", "l2norm", "linf"])
def test_a_random_net_passes_and_every_step_has_its_line(nnlite, penalty):
    result = nnlite(*SMALL, "--penalty", penalty)
    assert result.exit_code == 0
    assert result.stdout.count("pass") == 6  # W and b of three layers
    assert f"the exact update of {penalty}" in result.stdout
    lines = result.stdout.splitlines()
    assert [line.split()[0] for line in lines if line.startswith(("1e-", "3e-"))] == [f"{phi:.0e}" for phi in PHI]


def test_a_run_is_checked_with_test_images_and_the_figures_are_those_of_the_library(nnlite, tmp_path):
    nnlite("train", "--hidden", 16, "--epochs", 3, "--name", "rect")
    options = ("--run", "rect", "--penalty", "l2", "--batch-size", 7, "--seed", 3, "--phi", "0.1,0.001")
    result = nnlite("gradcheck", "--datagrad", *options, "--json")
    assert result.exit_code == 0
    content = json.loads(result.stdout)

    test = load("digits").test
    rows = np.random.default_rng(3).choice(500, 7, replace=False)
    x, y = test.images[rows].astype(np.float32) / np.float32(16), test.labels[rows]
    net, x = load_run(tmp_path / "runs" / "digits" / "rect").net.astype(np.float64), x.astype(np.float64)
    found = convergence(net, x, y, L2, (0.001, 0.1))
    assert content["phi"] == [0.001, 0.1]
    assert content["float64"] == found.float64.tolist()
    assert content["float32"] == pytest.approx(found.float32)
    assert content["cosine"] == found.cosine.tolist()
    assert content["held"] == found.held.tolist()
    assert content["smooth"] == found.smooth.tolist()
    assert content["flips"] == found.flips.tolist()
    assert content["relus"] == 7 * 16
    assert len(content["slope"]) == len(content["smooth_slope"]) == 1
    floor = min(content["float32"])
    assert content["float32_floor"] == {"phi": content["phi"][content["float32"].index(floor)], "error": floor}
    assert content["float32_exact"] == pytest.approx(found.exact32)
    assert content["examples"] == 7
    assert content["passed"] is True
    assert [check["error"] for check in content["checks"]] == [
        check.error for check in check_penalty(net, x, y, L2, seed=3)
    ]

    printed = nnlite("gradcheck", "--datagrad", *options).stdout
    assert printed.startswith("rect on test images of digits, 7 examples")
    for error in (*found.float64, *found.held, *found.smooth, floor):
        assert f"{error:.1e}" in printed
    for cosine in found.cosine:
        assert f" {cosine:.2f} " in printed


@pytest.mark.once
def test_a_wrong_rule_fails(nnlite, monkeypatch):
    monkeypatch.setattr(ReLU, "tangent", lambda self, x, change: change)
    result = nnlite(*SMALL)
    assert result.exit_code == 1
    assert "FAIL" in result.stdout
    content = nnlite(*SMALL, "--json")
    assert content.exit_code == 1
    assert json.loads(content.stdout)["passed"] is False


def test_the_errors_are_drawn(nnlite, tmp_path):
    result = nnlite(*SMALL, "--plot", "pictures/steps.svg")
    assert result.exit_code == 0
    assert "drew pictures/steps.svg" in result.stderr
    assert (tmp_path / "pictures" / "steps.svg").read_text("utf-8").startswith("<?xml")
    nnlite(*SMALL, "--hidden", "", "--plot", "steps.png")  # without a ReLU the lower panel is empty
    assert (tmp_path / "steps.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--datagrad", "--phi", "0"], "phi: expected steps"),
        (["--datagrad", "--phi", "0.1,-0.1"], "phi: expected steps"),
        (["--datagrad", "--phi", ""], "phi: expected steps"),
        (["--datagrad", "--plot", "steps.docx"], ".png"),
        (["--datagrad", "--penalty", "l3"], "l3"),
        (["--datagrad", "--run", "nobody"], "nnlite train"),
        (["--datagrad", "--run", "rect", "--hidden", "5"], "--hidden and --run exclude each other"),
        (["--datagrad", "--run", "rect", "--features", "5"], "--features and --run exclude each other"),
        (["--datagrad", "--run", "rect", "--classes", "5"], "--classes and --run exclude each other"),
        (["--datagrad", "--data", "digits"], "--data goes with --run"),
        (["--datagrad", "--entries", "5"], "--entries does not go with --datagrad"),
        (["--run", "rect"], "--run goes with --datagrad"),
        (["--phi", "0.1"], "--phi goes with --datagrad"),
        (["--plot", "steps.png"], "--plot goes with --datagrad"),
    ],
)
def test_bad_input_exits_2_and_says_why(nnlite, tmp_path, options, said):
    result = nnlite("gradcheck", *options)
    assert result.exit_code == 2
    assert said in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


def test_more_images_than_there_are_exits_2(nnlite):
    nnlite("train", "--hidden", 4, "--epochs", 1, "--name", "rect")
    result = nnlite("gradcheck", "--datagrad", "--run", "rect", "--batch-size", 501)
    assert result.exit_code == 2
    assert "500 test images" in result.stderr


def test_the_seed_draws_the_net_and_the_inputs(nnlite):
    first, again, other = (json.loads(nnlite(*SMALL, "--seed", seed, "--json").stdout) for seed in (0, 0, 1))
    assert first == again
    assert first["float64"] != other["float64"]
    assert first["penalty"] == L1.name
