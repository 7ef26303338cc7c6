"""`nnlite export`: the files that it writes, read by others; what it refuses; what it leaves alone."""

import json
import os
import sys

import numpy as np
import onnx
import pytest
import safetensors
import yaml
from onnx.reference import ReferenceEvaluator
from tables import write_blobs

from nnlite.datasets import load
from nnlite.training.run_folder import load_run

SMALL = ["--hidden", 16, "--epochs", 2]


def ok(result):
    assert result.exit_code == 0, result.stderr
    return result


def one_error(result):
    """Return the error of a command that ended with bad input: one line, and nothing on stdout."""
    assert (result.exit_code, result.stdout) == (2, "")
    (line,) = result.stderr.splitlines()
    return line


@pytest.fixture
def rect(nnlite, tmp_path):
    """The run rect on the digits."""
    ok(nnlite("train", *SMALL, "--name", "rect"))
    return load_run(tmp_path / "runs" / "digits" / "rect")


@pytest.fixture
def wine(nnlite, tmp_path):
    """The run rect on a table of two classes."""
    write_blobs(tmp_path / "wine.csv", names=("red", "white_"))
    ok(nnlite("train", *SMALL, "--epochs", 30, "--batch-size", 10, "--data", "wine.csv", "--name", "rect"))
    return load_run(tmp_path / "runs" / "wine" / "rect")


def test_onnx_takes_rows_as_they_stand_in_the_file(nnlite, wine, tmp_path):
    result = ok(nnlite("export", "rect", "--to", "onnx"))
    assert (result.stdout, result.stderr) == ("", "wrote rect.onnx\n")
    model = onnx.load(tmp_path / "rect.onnx")
    rows = np.loadtxt(tmp_path / "wine.csv", delimiter=",", skiprows=1, usecols=range(3))
    classes = json.loads({entry.key: entry.value for entry in model.metadata_props}["classes"])
    found = ReferenceEvaluator(model).run(None, {"x": rows})[0].argmax(axis=1)
    printed = ok(nnlite("predict", "rect", "wine.csv")).stdout.splitlines()[1:]
    assert [classes[label] for label in found] == [line.partition(",")[0] for line in printed]


def test_onnx_for_scaled_rows(nnlite, wine, tmp_path):
    ok(nnlite("export", "wine/rect", "--to", "onnx", "--scaled", "--out", tmp_path / "sub" / "net.onnx"))
    x, _ = load(str(tmp_path / "wine.csv")).test.batch(slice(None))
    (found,) = ReferenceEvaluator(str(tmp_path / "sub" / "net.onnx")).run(None, {"x": x})
    np.testing.assert_array_equal(found, wine.net.logits(x))


def test_torch_is_the_state_dict_with_a_way_to_load_it(nnlite, rect, tmp_path):
    ok(nnlite("export", "rect", "--to", "torch"))
    with safetensors.safe_open(tmp_path / "rect.safetensors", "np") as file:
        arrays, about = {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    first, _, last = rect.net.layers
    expected = {"0.weight": first.W.T, "0.bias": first.b, "2.weight": last.W.T, "2.bias": last.b}
    assert arrays.keys() == expected.keys()
    for name, array in expected.items():
        assert arrays[name].dtype == np.float32
        np.testing.assert_array_equal(arrays[name], array)
    assert about["README"].splitlines() == [
        "from torch import nn; from safetensors.torch import load_file",
        "net = nn.Sequential(nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 10))",
        "net.load_state_dict(load_file('rect.safetensors'))  # rows are (x - low) / (high - low), see data",
    ]
    assert json.loads(about["data"])["high"] == [16.0]


def test_the_other_head_of_a_multi_task_run(nnlite, tmp_path):
    ok(nnlite("train", *SMALL, "--multitask", "--name", "mt"))
    net = load_run(tmp_path / "runs" / "digits" / "mt").net
    ok(nnlite("export", "mt", "--to", "onnx", "--scaled", "--task", "rotation"))
    ok(nnlite("export", "mt", "--to", "torch", "--task", "rotation"))
    x = np.random.default_rng(0).random((3, 64), dtype=np.float32)
    (found,) = ReferenceEvaluator(str(tmp_path / "mt.onnx")).run(None, {"x": x})
    np.testing.assert_array_equal(found, net.logits(x, "rotation"))
    with safetensors.safe_open(tmp_path / "mt.safetensors", "np") as file:
        np.testing.assert_array_equal(file.get_tensor("2.weight"), net.heads["rotation"].W.T)
    error = one_error(nnlite("export", "mt", "--to", "onnx", "--task", "colour", "--out", "a.onnx"))
    assert error == "Error: task: expected digit or rotation, found 'colour'"


# VNN-LIB


def test_vnnlib_is_a_file_for_each_image_and_the_net(nnlite, rect, tmp_path):
    folder = tmp_path / "rect-vnnlib"
    ok(nnlite("export", "rect", "--to", "vnnlib", "--images", 3, "--phi", "8/255", "--seed", 1))
    listed = [line.split(",") for line in (folder / "instances.csv").read_text("utf-8").splitlines()]
    certified = ok(nnlite("certify", "rect", "--examples", 3, "--seed", 1, "--phi", "0.01", "--json"))
    rows = json.loads(certified.stdout)["runs"][0]["images"]  # the same ones
    assert listed == [["net.onnx", f"test{row}.vnnlib", "300"] for row in rows]
    assert {path.name for path in folder.iterdir()} == {"net.onnx", "instances.csv", *(line[1] for line in listed)}
    x, _ = load("digits").test.batch(slice(None))
    evaluator = ReferenceEvaluator(str(folder / "net.onnx"))
    for row in rows:  # a net of one image at a time
        np.testing.assert_array_equal(evaluator.run(None, {"x": x[[row]]})[0], rect.net.logits(x[[row]]))


def test_vnnlib_on_a_table_needs_its_path(nnlite, wine, tmp_path):
    error = one_error(nnlite("export", "rect", "--to", "vnnlib"))
    assert error == "Error: data: rect was trained on wine; give the path of its file with --data"
    ok(nnlite("export", "rect", "--to", "vnnlib", "--data", "wine.csv", "--images", 2, "--no-clip"))
    text = next((tmp_path / "rect-vnnlib").glob("test*.vnnlib")).read_text("utf-8")
    assert "pixels free" in text
    error = one_error(nnlite("export", "rect", "--to", "vnnlib", "--data", "digits", "--out", "other"))
    assert "belongs to the data wine, found digits" in error
    assert not (tmp_path / "other").exists()


def test_noise_that_no_attack_takes_makes_no_question(nnlite, rect, tmp_path):
    assert "each a number from 0 to 1,000,000" in one_error(nnlite("export", "rect", "--to", "vnnlib", "--phi", 1e308))
    assert not (tmp_path / "rect-vnnlib").exists()


# The card


def test_the_card_holds_the_figures_of_the_audit(nnlite, wine, tmp_path):
    asked = ["--steps", 5, "--apgd-steps", 5, "--tries", 2, "--proven", 5, "--phi", "0.1,0.2", "--json"]
    printed = nnlite("audit", "rect", "--data", "wine.csv", *asked).stdout
    (tmp_path / "audit.json").write_text(printed, "utf-8")
    ok(nnlite("export", "rect", "--to", "card", "--audit", "audit.json"))
    text = (tmp_path / "rect.md").read_text("utf-8")
    found = json.loads(printed)
    for row in found["rows"]:
        if row["attack"] in ("worst", "proven"):
            assert f"{row['accuracy']:.1f} [{row['low']:.1f}, {row['high']:.1f}]" in text
    for verdict in found["verdicts"]:
        assert (f"- {verdict['question']} {verdict['answer']}" in text) == (verdict["answer"] != "pass")
    assert "Classes: red, white\\_.\n" in text
    front = yaml.safe_load(text.split("---\n")[1])
    assert front["pipeline_tag"] == "tabular-classification"
    ((result,),) = [entry["results"] for entry in front["model-index"]]
    metrics = {metric["name"]: metric["value"] for metric in result["metrics"]}
    assert metrics["test accuracy, %"] == pytest.approx(wine.results.test, abs=0.005)
    assert metrics["not broken at phi 0.2, %"] == pytest.approx(found["accuracy"]["worst"][2], abs=0.005)
    assert metrics["proven at phi 0.2, %"] == pytest.approx(found["bracket"]["accuracy"]["proven"][2], abs=0.005)


def test_a_card_without_an_audit_says_so(nnlite, rect, tmp_path):
    ok(nnlite("export", "rect", "--to", "card"))
    text = (tmp_path / "rect.md").read_text("utf-8")
    assert "Not audited" in text
    assert "| hidden | 16 |" in text
    assert f"| numpy | {np.__version__} |" in text


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("no JSON", "audit: expected what nnlite audit rect --json prints, found no JSON"),
        (b"\xff", "audit: expected what nnlite audit rect --json prints, found no JSON"),
        ("[" + "[]," * 1_000_000 + "[]]", "claims 150 MB of memory, and 100 MB are allowed to one file"),
        ("[]", "audit: expected an object, found []"),
        ('{"run": "dgl1", "data": "digits"}', "audit: expected one of rect on digits, found 'dgl1' on 'digits'"),
        ('{"run": "rect", "data": "digits"}', "audit: parameters: expected an object, found None"),
    ],
)
def test_another_file_is_no_audit(nnlite, rect, tmp_path, content, words):
    (tmp_path / "audit.json").write_bytes(content if isinstance(content, bytes) else content.encode())
    assert words in one_error(nnlite("export", "rect", "--to", "card", "--audit", "audit.json"))
    assert not (tmp_path / "rect.md").exists()


# What is there already


@pytest.mark.parametrize(("form", "name"), [("onnx", "a.onnx"), ("torch", "a"), ("card", "a.md"), ("vnnlib", "a")])
def test_nothing_is_overwritten_unless_asked(nnlite, rect, tmp_path, form, name):
    place = tmp_path / name
    if form == "vnnlib":
        place.mkdir()
        place = place / "instances.csv"
    place.write_text("mine", "utf-8")
    call = ["export", "rect", "--to", form, "--out", name]
    assert one_error(nnlite(*call)) == f"Error: {name}: it exists; choose another --out (--overwrite replaces it)"
    assert place.read_text("utf-8") == "mine"
    ok(nnlite(*call, "--overwrite"))
    assert place.read_bytes() != b"mine"
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_what_cannot_be_written_is_told_with_its_name(nnlite, rect, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    call = ["export", "rect", "--to", "card", "--out", "file/a.md"]
    assert one_error(nnlite(*call)) == "Error: out: cannot write file/a.md (Not a directory); choose another --out"
    monkeypatch.setattr(os, "access", lambda path, mode: mode == os.R_OK)  # root may all
    call = ["export", "rect", "--to", "card", "--out", "file", "--overwrite"]
    assert one_error(nnlite(*call)) == "Error: out: cannot write file (it is write-protected); choose another --out"
    assert (tmp_path / "file").read_bytes() == b""


def test_an_option_of_another_form_is_refused(nnlite, rect):
    error = one_error(nnlite("export", "rect", "--to", "onnx", "--phi", 0.1))
    assert error.startswith("Error: --phi is no option of --to onnx, which takes --task, --scaled; leave it out.")


def test_without_onnx_it_says_what_to_install(nnlite, rect, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "nnlite.interop.onnx", raising=False)
    for form in ("onnx", "vnnlib"):
        assert "install it with pip install '.[onnx]' in a clone" in one_error(nnlite("export", "rect", "--to", form))
    assert {path.name for path in tmp_path.iterdir()} == {"runs"}
