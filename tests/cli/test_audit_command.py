"""`nnlite audit`: the library's figures, in every form of output, and the exit code that the verdicts ask for."""

import json
import shutil

import numpy as np
import pytest
import safetensors.numpy

from nnlite.cli.audit import COLOURS
from nnlite.datasets.catalog import load
from nnlite.evaluation.auditing import AuditOptions, audit
from nnlite.storage.sums import write_sums
from nnlite.training.runs import make_run
from nnlite.training.settings import Settings

pytestmark = pytest.mark.once

PLAIN = Settings(hidden=(64, 64), epochs=15)
OTHER = Settings(hidden=(64, 64), epochs=15, reg="dgl1", lam=0.01, phi=0.1)
QUICK = ("--steps", 10, "--apgd-steps", 10, "--apgd-restarts", 5, "--tries", 3, "--queries", 50)
QUICK += ("--square-examples", 20, "--proven", 20)
PNG = b"\x89PNG\r\n\x1a\n"


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """Two finished runs that no test changes."""
    folder = tmp_path_factory.mktemp("runs")
    return folder, [make_run(settings, digits, folder, name=settings.method_name) for settings in (PLAIN, OTHER)]


@pytest.fixture
def audited(nnlite, trained, tmp_path):
    """Call `nnlite audit` beside a copy of the two runs, with little work for each attack."""
    shutil.copytree(trained[0], tmp_path / "runs")
    return lambda *args: nnlite("audit", *args, *QUICK)


def hide_the_gradient(run):
    """Multiply the last layer of a run, so that its softmax saturates in float32."""
    weights = safetensors.numpy.load_file(run / "weights.safetensors")
    for key in ("dense2.W", "dense2.b"):
        weights[key] *= 10_000
    safetensors.numpy.save_file(weights, run / "weights.safetensors")
    write_sums(run)


def test_json_holds_the_librarys_figures(audited, trained):
    result = audited("rect", "--phi", "0.1,0.05", "--seed", 3, "--json")
    assert result.exit_code == 0, result.stderr
    rect, other = trained[1]
    found = audit(
        rect.net,
        load("digits").test,
        {other.name: other.net},
        AuditOptions(
            (0.05, 0.1),
            steps=10,
            apgd_steps=10,
            apgd_restarts=5,
            tries=3,
            square_queries=50,
            square_examples=20,
            proven=20,
            seed=3,
        ),
    )
    content = json.loads(result.stdout)
    assert (content["run"], content["data"], content["phi"], content["chance"]) == (
        "rect",
        "digits",
        [0, 0.05, 0.1],
        10,
    )
    assert content["accuracy"] == {name: values.tolist() for name, values in found.accuracy.items()}
    assert list(content["accuracy"])[-1] == "worst"
    assert content["intervals"]["worst"] == np.stack(found.intervals["worst"], axis=-1).tolist()
    assert content["follow_ups"].keys() == found.follow_ups.keys() == {"more steps", "search", "square"}
    for name, one in found.follow_ups.items():
        assert content["follow_ups"][name]["tried"] == one.tried.sum(axis=1).tolist()
        assert content["follow_ups"][name]["broken"] == one.broken.sum(axis=1).tolist()
    outcomes = content["images"]["correct"]
    assert outcomes.keys() == found.accuracy.keys()
    assert [[*map(int, row)] for row in outcomes["apgd"]] == found.correct["apgd"].astype(int).tolist()
    bracket = content["bracket"]
    assert bracket["images"] == found.bracket.rows.tolist()
    assert bracket["accuracy"]["proven"] == (found.bracket.accuracy["proven"]).tolist()
    assert bracket["intervals"]["proven"] == np.stack(found.bracket.intervals["proven"], axis=-1).tolist()
    assert [[*map(int, row)] for row in bracket["proven"]] == found.bracket.proven.astype(int).tolist()
    assert content["balanced"] == found.balanced.tolist()
    assert [one["class"] for one in content["classes"]] == list("0123456789")
    assert sum(one["examples"] for one in content["classes"]) == len(found.rows)
    assert content["classes"][3]["worst"] == found.by_class[3].tolist()
    info = content["model_info"]
    assert [one["eps"] for one in info] == ["0.05", "0.1"]
    assert info[1]["clean_acc"] == f"{found.accuracy['worst'][0]:.2f}"
    assert info[1]["autoattack_acc"] == info[1]["reported"] == f"{found.accuracy['worst'][2]:.2f}"
    assert info[0]["architecture"] == "MLP 64-64-64-10"
    shown = [(verdict["name"], verdict["answer"], verdict["found"]) for verdict in content["verdicts"]]
    assert shown == [(verdict.name, verdict.answer, verdict.found) for verdict in found.verdicts]
    assert content["parameters"] == found.parameters
    assert content["parameters"]["others"] == [other.name]
    assert content["parameters"]["square_queries"] == 50


def test_the_table_and_the_verdicts_go_to_stdout_and_progress_to_stderr(audited, trained, monkeypatch):
    monkeypatch.setattr("nnlite.cli.progress.PATIENCE", 0)  # as if all of it took long
    result = audited("rect", "--phi", "0,0.1")
    assert result.exit_code == 0, result.stdout
    title, _, head, *lines = result.stdout.splitlines()
    assert title == (
        "rect under L-infinity noise of radius phi, pixels within [0, 1]: accuracy in %, 500 test images of digits"
    )
    assert head.split() == ["attack", "phi", "0", "phi", "0.1"]
    starts = ["R1, one", "R2, one", "PGD, 10 steps, 1", "APGD, 10 steps", "R1 noise of 1 other net ", "random signs, 3"]
    for start, line in zip(starts, lines[1:], strict=False):
        assert line.startswith(start)
    assert any(line.split()[:2] == ["worst", "case"] for line in lines)
    (square,) = (line for line in lines if line.startswith("fell to Square"))
    assert square.split()[3:] == ["0", "of", "20"]  # not at phi 0
    labels = [line[:25].strip() for line in lines]
    assert labels.count("95 % interval") == 2
    assert {"proven, 20 images", "unknown, 20 images"} <= set(labels)
    assert sum(line.startswith(tuple(COLOURS)) for line in lines) == 11
    assert "0 FAIL" in lines[-1]
    shown = result.stderr.splitlines()
    for what in ("R1", "PGD", f"noise of {trained[1][1].name}", "certificates"):
        assert f"  0 %  {what}" in shown
    verdicts = result.stdout[result.stdout.index("worst case") :].splitlines()[1:]
    assert max(map(len, verdicts)) <= 80


def test_a_failed_verdict_exits_1(audited, tmp_path, no_art):
    hide_the_gradient(tmp_path / "runs" / "digits" / "rect")
    result = audited("rect")
    assert result.exit_code == 1
    failed = [line for line in result.stdout.splitlines() if line.startswith("FAIL")]
    assert any("have a gradient" in line for line in failed)
    assert any("random noise" in line for line in failed)


def test_without_the_toolbox_that_is_said_and_nothing_fails(audited, no_art):
    result = audited("rect")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    (k,) = (k for k, line in enumerate(lines) if line.startswith("not tested"))
    assert "Square" in lines[k]
    assert "Square was not run: interop" in lines[k + 1]
    assert "fell to Square" not in result.stdout
    assert lines[-1] == "10 pass, 0 FAIL, 1 not tested"


def test_without_transfer_no_other_net_is_asked(audited, tmp_path, caplog, no_art):
    (tmp_path / "runs" / "digits" / "dgl1-lam0.01-phi0.1" / "weights.safetensors").write_bytes(b"x")
    result = audited("rect", "--transfer", "none")
    assert result.exit_code == 0
    assert "R1 noise of" not in result.stdout
    assert "there is no other net" in result.stdout
    result = audited("rect")  # which skips the other run, as it is damaged
    assert (result.exit_code, len(caplog.messages)) == (0, 1)
    assert caplog.messages[0].startswith("skipped: runs/digits/dgl1-lam0.01-phi0.1: the run folder is damaged")
    assert "there is no other net" in result.stdout


def test_options_reach_the_library(audited, no_art):
    content = json.loads(audited("rect", "--no-clip", "--examples", 60, "--json").stdout)
    assert (content["parameters"]["clip"], content["parameters"]["examples"]) == (False, 60)
    drawn = [audited("rect", "--examples", 60, "--seed", seed, "--json").stdout for seed in (0, 0, 1)]
    assert drawn[0] == drawn[1]
    assert json.loads(drawn[0])["accuracy"] != json.loads(drawn[2])["accuracy"]
    assert "pixels not clipped" in audited("rect", "--no-clip", "--examples", 60).stdout
    assert "500 test images" in audited("rect", "--examples", 10_000).stdout


def test_the_table_of_the_papers_sizes_fits_a_terminal(audited, no_art):
    lines = audited("rect", "--examples", 60).stdout.splitlines()[1:]
    assert max(map(len, lines)) <= 80


def test_ctrl_c_prints_what_is_finished_and_exits_130(audited, monkeypatch, no_art):
    def stop(*args, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnlite.evaluation.auditing._square", stop)
    result = audited("rect", "--json")
    assert result.exit_code == 130
    assert "Interrupted; what was finished before is printed." in result.stderr
    content = json.loads(result.stdout)
    assert content["interrupted"]
    assert content["follow_ups"].keys() == {"more steps", "search"}
    assert content["bracket"] is None


def test_a_picture_is_drawn(audited, tmp_path, no_art):
    result = audited("rect", "--plot", "made/audit.png")
    assert result.exit_code == 0
    assert (tmp_path / "made" / "audit.png").read_bytes()[:8] == PNG
    assert "drew made/audit.png" in result.stderr


def test_a_run_may_be_named_by_its_path(audited, trained):
    by_path = audited(trained[1][0].path, "--json")
    assert json.loads(by_path.stdout) == json.loads(audited("rect", "--json").stdout)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "RUN"),
        (["nobody"], "run: expected the name or path of a run, found 'nobody'"),
        (["rect", "--phi", "0,-0.1"], "phi: expected"),
        (["rect", "--phi", "0"], "phi: expected"),
        (["rect", "--phi", ""], "phi: expected"),
        (["rect", "--phi", "0,big"], "--phi"),
        (["rect", "--examples", "0"], "--examples"),
        (["rect", "--seed", "-1"], "--seed"),
        (["rect", "--plot", "audit.docx"], "picture: expected"),
        (["rect", "--device", "tpu"], "--device"),
        (["rect", "--runs", "nowhere"], "nnlite train"),
    ],
)
def test_bad_input_exits_2_without_a_result(audited, options, words):
    result = audited(*options)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert words in result.stderr


@pytest.mark.parametrize(
    "option", ["--steps", "--restarts", "--apgd-steps", "--apgd-restarts", "--tries", "--queries", "--square-examples"]
)
def test_a_count_below_1_exits_2(nnlite, trained, option):
    result = nnlite("audit", "rect", "--runs", trained[0], option, 0)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "expected an integer of at least 1, found 0" in result.stderr
