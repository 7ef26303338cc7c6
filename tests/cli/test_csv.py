"""Rows for a data frame: --csv, and "rows" in --json, of the commands that print a table of accuracies."""

import csv
import json

import pytest

pytestmark = pytest.mark.once

QUICK = ("--examples", 8, "--steps", 1, "--apgd-steps", 2, "--tries", 1, "--square-examples", 1, "--queries", 2)
COMMANDS = {  # columns, and how many rows
    ("attack", "--adversary", "rect", "--phi", "0,0.1"): ("adversary noise victim phi accuracy", 2 * 2),
    ("audit", "rect", "--phi", "0.1", "--proven", 0, "--transfer", "none", *QUICK): (
        "run attack phi accuracy low high examples",
        2 * 6,  # R1, R2, PGD, APGD, random signs, and the worst case
    ),
    ("audit", "rect", "--phi", "0.1", "--proven", 3, *QUICK): ("run attack phi accuracy low high examples", 2 * 9),
    ("certify", "rect", "other", "--phi", "0.05,0.1", "--examples", 6): ("run bound phi accuracy low high", 2 * 3 * 3),
    ("verify", "kept"): ("run phi norm lowest highest recorded found passed", 2),
    ("verify", "kept", "--run", "rect", "--run", "other"): (
        "run phi norm lowest highest recorded found passed",
        2 * 2,
    ),
}


@pytest.fixture
def call(nnlite):
    """The command line beside two runs, rect and other, and an attack file, kept."""
    for name, seed in (("rect", 0), ("other", 1)):
        assert nnlite("train", "--hidden", 8, "--epochs", 2, "--seed", seed, "--name", name).exit_code == 0
    assert nnlite("attack", "--adversary", "rect", "--phi", "0,0.1", "--save", "kept").exit_code == 0

    def call(*args):
        result = nnlite(*args)
        assert result.exit_code < 2, result.stderr
        return result.stdout

    return call


@pytest.mark.parametrize("args", COMMANDS, ids=lambda args: args[0])
def test_there_is_a_row_for_each_figure_and_a_plain_name_for_each_column(call, args):
    columns, count = COMMANDS[args]
    rows = list(csv.DictReader(call(*args, "--csv").splitlines()))
    assert len(rows) == count
    assert all(list(row) == columns.split() for row in rows)
    in_json = json.loads(call(*args, "--json"))["rows"]
    assert rows == [{name: "" if value is None else str(value) for name, value in row.items()} for row in in_json]


def test_the_rows_of_an_audit_are_its_figures(call):
    content = json.loads(call("audit", "rect", "--phi", "0.1", "--proven", 3, *QUICK, "--json"))
    found = {(row["attack"], row["phi"]): row for row in content["rows"]}
    accuracy = {**content["accuracy"], "proven": content["bracket"]["accuracy"]["proven"]}
    intervals = {**content["intervals"], "proven": content["bracket"]["intervals"]["proven"]}
    for name, values in accuracy.items():
        for phi, value, (low, high) in zip(content["phi"], values, intervals[name], strict=True):
            row = found[name, phi]
            assert (row["run"], row["accuracy"], row["low"], row["high"]) == ("rect", value, low, high)
            assert row["examples"] == (3 if name == "proven" else 8)


def test_the_rows_of_a_certificate_are_its_figures(call):
    content = json.loads(call("certify", "rect", "other", "--phi", 0.1, "--examples", 6, "--json"))
    found = {
        (row["run"], row["bound"], row["phi"]): (row["accuracy"], row["low"], row["high"]) for row in content["rows"]
    }
    assert found == {
        (run["run"], name, phi): (value, *limits)
        for run in content["runs"]
        for name, values in run["accuracy"].items()
        for phi, value, limits in zip(content["phi"], values, run["intervals"][name], strict=True)
    }


def test_the_radii_have_a_row_for_each_image(call):
    args = ("certify", "rect", "--phi", 0.1, "--examples", 3, "--per-image")
    rows = list(csv.DictReader(call(*args, "--csv").splitlines()))
    (run,) = json.loads(call(*args, "--json"))["runs"]
    assert [int(row["image"]) for row in rows] == run["per_image"]["images"]
    for name in ("proven", "broken", "distance"):
        assert [float(row[name]) for row in rows] == pytest.approx(run["per_image"][name])


def test_the_rows_of_a_check_are_its_figures(call):
    content = json.loads(call("verify", "kept", "--run", "other", "--run", "rect", "--json"))
    expected = [
        (run["name"], size["phi"], size["norm"], size["low"], size["high"], recorded, found)
        for run in content["runs"]
        for size, recorded, found in zip(content["images"], run["recorded"], run["found"], strict=True)
    ]
    names = ("run", "phi", "norm", "lowest", "highest", "recorded", "found")
    assert [tuple(row[name] for name in names) for row in content["rows"]] == expected
    assert all(row["passed"] for row in content["rows"])


@pytest.mark.parametrize("order", [("--json", "--csv"), ("--csv", "--json")])
@pytest.mark.parametrize("command", ["attack --adversary rect", "audit rect", "certify rect", "verify kept"])
def test_only_one_form_is_printed(nnlite, command, order):
    result = nnlite(*command.split(), *order)
    assert (result.exit_code, result.stdout) == (2, "")
    assert "--json and --csv exclude each other; choose one. See nnlite " in result.stderr
