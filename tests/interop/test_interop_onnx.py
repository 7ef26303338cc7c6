"""ONNX: what other runtimes compute from an exported net is what nnlite computes."""

import importlib
import json
import sys
from typing import ClassVar

import numpy as np
import pytest
import strict_cupy
from nets import biased_mlp
from sklearn.datasets import load_digits
from tables import write_blobs, write_csv

from nnlite.datasets import load
from nnlite.datasets.own import read_rows
from nnlite.errors import NnliteError
from nnlite.interop.onnx import IR, OPSET, onnx, onnx_bytes, onnx_model
from nnlite.layers import Dense, ReLU
from nnlite.network import Network, mlp, stack
from nnlite.training.loop import train
from nnlite.training.settings import Settings


def evaluate(model, x):
    """Return the logits by onnx's own evaluator, whose operators are its specification in NumPy."""
    from onnx.reference import ReferenceEvaluator

    return ReferenceEvaluator(model).run(None, {"x": x})[0]


def in_onnxruntime(model, x):
    """Return the logits by onnxruntime, from the bytes of a file; skipped where it is not installed."""
    onnxruntime = pytest.importorskip("onnxruntime")
    return onnxruntime.InferenceSession(onnx_bytes(model)).run(None, {"x": x})[0]


RUNTIMES = {"reference": evaluate, "onnxruntime": in_onnxruntime}
each_runtime = pytest.mark.parametrize("runtime", RUNTIMES.values(), ids=RUNTIMES)


@pytest.fixture(scope="module", params=["digits", "mnist", "table"])
def known(request, tmp_path_factory):
    """A data set, a net that knows it, its test rows as they stand in the user's file, and as the net sees them."""
    if request.param == "table":
        path = tmp_path_factory.mktemp("own") / "own.csv"
        digits = load_digits()
        rows = [[*row, f"number {label}"] for row, label in zip(digits.data, digits.target, strict=True)]
        data = load(write_csv(path, [*(f"pixel{k}" for k in range(64)), "kind"], rows))
        assert "columns of a single value, which becomes 0: pixel0" in data.notes[-1]
        raw, columns = digits.data + 7 * (np.arange(64) == 0), data.description.features
        x = read_rows(write_csv(path.with_name("rows.csv"), columns, raw.tolist()), data.description).x
    else:
        data = request.getfixturevalue(request.param)
        raw, (x, _) = data.test.images.astype(np.float64), data.test.batch(slice(None))
    return data.description, train(Settings(hidden=(32, 16), epochs=2), data).net, raw, x


@each_runtime
def test_scaled_rows_give_the_logits_of_the_net(known, runtime):
    data, net, _, x = known
    found, expected = runtime(onnx_model(net, data, raw=False), x), net.logits(x)
    assert found.dtype == np.float32
    assert abs(found - expected).max() <= {evaluate: 0, in_onnxruntime: 1e-5}[runtime]
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@each_runtime
def test_rows_as_in_the_user_s_file_give_them_too(known, runtime):
    data, net, raw, x = known
    found, expected = runtime(onnx_model(net, data), raw), net.logits(x)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(found.argmax(axis=1), expected.argmax(axis=1))


@pytest.mark.parametrize("sizes", [(6, 4), (6, 8, 4), (6, 8, 7, 5, 4)], ids=str)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@each_runtime
def test_any_depth_in_either_type(sizes, dtype, runtime):
    rng = np.random.default_rng(0)
    net, x = biased_mlp(list(sizes), rng).astype(dtype), rng.normal(size=(5, 6)).astype(dtype)
    found = runtime(onnx_model(net), x)
    assert found.dtype == dtype
    np.testing.assert_allclose(found, net.logits(x), rtol=0, atol=1e-5 if dtype == np.float32 else 1e-13)


def test_any_number_of_rows_goes_in_or_as_many_as_is_said():
    net = mlp((3, 4, 2), np.random.default_rng(0))
    for count in (0, 1, 7):
        assert evaluate(onnx_model(net), np.ones((count, 3), np.float32)).shape == (count, 2)
    shapes = [model.graph.input[0].type.tensor_type.shape.dim for model in (onnx_model(net), onnx_model(net, batch=1))]
    assert [(dim[0].dim_param, dim[0].dim_value, dim[1].dim_value) for dim in shapes] == [("N", 0, 3), ("", 1, 3)]


def test_the_head_of_another_task(digits):
    rng = np.random.default_rng(0)
    net, x = biased_mlp([64, 5, 10], rng, {"rotation": 5}).astype(np.float32), rng.random((4, 64), dtype=np.float32)
    model = onnx_model(net, digits.description, task="rotation", raw=False)
    np.testing.assert_array_equal(evaluate(model, x), net.logits(x, "rotation"))
    np.testing.assert_array_equal(evaluate(onnx_model(net), x), net.logits(x))
    assert json.loads(properties(model)["classes"]) == ["0", "15", "30", "-15", "-30"]


def test_a_net_on_a_gpu_gives_the_same_file(monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    net = mlp((3, 4, 2), np.random.default_rng(0))
    assert onnx_bytes(onnx_model(net.to("gpu"))) == onnx_bytes(onnx_model(net))


def properties(model):
    return {entry.key: entry.value for entry in model.metadata_props}


def test_the_file_is_valid_old_enough_and_the_same_each_time(tmp_path):
    write_blobs(tmp_path / "wine.csv", names=("red", "white"))
    data = load(str(tmp_path / "wine.csv")).description
    models = [onnx_model(mlp((3, 4, 2), np.random.default_rng(0)), data) for _ in range(2)]
    assert onnx_bytes(models[0]) == onnx_bytes(models[1])
    model = onnx.load_model_from_string(onnx_bytes(models[0]))
    onnx.checker.check_model(model, full_check=True)
    assert (model.ir_version, [opset.version for opset in model.opset_import]) == (IR, [OPSET])
    assert properties(model) == {
        "data": "wine",
        "shape": "[3]",
        "features": '["f0", "f1", "f2"]',
        "task": "digit",
        "classes": '["red", "white"]',
    }


class Tanh:
    parameters: ClassVar = {}

    def forward(self, x):
        return np.tanh(x)

    def backward(self, x, dy):
        return dy * (1 - np.tanh(x) ** 2)


class Half(ReLU):
    """A ReLU by name alone."""

    def forward(self, x):
        return super().forward(x) / 2


@pytest.mark.parametrize("layer", [Tanh(), Half()], ids=["Tanh", "Half"])
def test_a_layer_of_one_s_own_is_refused_by_name(layer):
    first, _, last = mlp((3, 4, 2), np.random.default_rng(0)).layers
    with pytest.raises(NnliteError, match=rf"layer 1 \({type(layer).__name__}\): expected Dense and ReLU layers alone"):
        onnx_model(Network((first, layer, last)))


def test_what_cannot_be_exported_is_said():
    net = mlp((3, 4, 2), np.random.default_rng(0), heads={"rotation": 5})
    with pytest.raises(NnliteError, match="net: expected one net, found a stack of 2"):
        onnx_model(stack([net, net]))
    with pytest.raises(NnliteError, match=r"task: expected digit or rotation, found 'rotatoin' \(did you mean"):
        onnx_model(net, task="rotatoin")


def test_data_of_another_width_is_refused(digits):
    with pytest.raises(NnliteError, match="data: expected that of the net, of 3 features, found digits of 64"):
        onnx_model(mlp((3, 4, 2), np.random.default_rng(0)), digits.description)


def test_a_bias_is_part_of_the_sum():
    net = Network((Dense(np.array([[2.0, 0.0]]), np.array([1.0, -1.0])),))
    assert evaluate(onnx_model(net), np.array([[3.0]])).tolist() == [[7.0, -1.0]]


def test_without_onnx_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    monkeypatch.delitem(sys.modules, "nnlite.interop.onnx")
    with pytest.raises(NnliteError, match=r"onnx: expected .*; install it with pip install '\.\[onnx\]' in a clone"):
        importlib.import_module("nnlite.interop.onnx")
