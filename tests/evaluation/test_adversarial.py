"""The attack file: it holds what the attack made, and each kind of tampering with it is found."""

import dataclasses
import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import strict_cupy
from hypothesis import given, settings
from hypothesis import strategies as st
from peak import memory_below

import nnlite
from nnlite.attacks import PGD, R1
from nnlite.datasets import Samples
from nnlite.errors import NnliteError
from nnlite.evaluation import accuracy as evaluation
from nnlite.evaluation import attack_file as adversarial
from nnlite.evaluation.accuracy import evaluate_attack
from nnlite.evaluation.attack_file import (
    KEY,
    NetId,
    Record,
    clean_sha256,
    find_weights,
    load_weights,
    new_attack,
    open_attack,
    predict,
    slack,
    verify,
    weights_of,
    weights_sha256,
)
from nnlite.init import generator
from nnlite.network import Network, mlp
from nnlite.training.runs import make_run
from nnlite.training.settings import Settings

PHI = (0.0, 0.05, 0.3)
COUNT = 300  # more than a block, less than two


def identity(name, net):
    return NetId(name, weights_sha256(weights_of(net)))


def save(path, made, nets, split, dtype=np.float32, phi=PHI, rows=None, device="cpu"):
    """Attack the images `rows` of `split` with the first of `nets`, score all of them, keep it; return the table."""
    rows = np.arange(COUNT) if rows is None else rows
    names = tuple(identity(name, net) for name, net in nets.items())
    record = Record("noise", made.norm, made.clip, tuple(phi), "digits", clean_sha256(split[rows]), names[0], names)
    nets = {name: net.astype(dtype).to(device) for name, net in nets.items()}
    with new_attack(path, record, split, rows, dtype) as file:
        table = evaluate_attack(next(iter(nets.values())), nets, split[rows].to(device), made, phi, keep=file.keep)
        file.score(np.stack([ones.sum(axis=-1) for ones in table.correct.values()]))
    return table


@pytest.fixture(scope="module")
def nets(trained):
    """The adversary, and a net that knows nothing."""
    return {"rect": trained[1], "other": mlp((64, 10), generator(0, "weights"))}


@pytest.fixture(scope="module")
def saved(nets, digits, tmp_path_factory):
    """An attack file that no test changes, clipped and within phi."""
    path = tmp_path_factory.mktemp("saved") / "attack.safetensors"
    save(path, PGD(steps=3, restarts=2), nets, digits.test)
    return path


@pytest.fixture
def tampered(saved, tmp_path):
    """Write a copy of the attack file with changed arrays and a changed record; return it opened."""

    def change(edit=None, record=None, arrays=None, text=None):
        with safetensors.safe_open(saved, "np") as file:
            content = json.loads(file.metadata()[KEY]) | (record or {})
        kept = safetensors.numpy.load_file(saved) | (arrays or {})
        if edit:
            edit(kept)
        path = tmp_path / "tampered"
        safetensors.numpy.save_file(
            {name: array for name, array in kept.items() if array is not None},
            path,
            {KEY: json.dumps(content) if text is None else text},
        )
        return open_attack(path)

    return change


def failures(file, digits, nets):
    """Return what `verify` found wrong, as (phi number, text)."""
    found = verify(file, digits.test, {name: weights_of(net) for name, net in nets.items()})
    return [(failure.k, failure.text) for failure in found.failures]


# What it holds


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("made", [R1, PGD("l2", steps=3)])
def test_it_holds_what_the_attack_made_bit_for_bit(nets, digits, tmp_path, made, dtype):
    table = save(tmp_path / "file", made, nets, digits.test, dtype)
    back = safetensors.numpy.load_file(tmp_path / "file")
    x, y = digits.test[:COUNT].batch(slice(None), dtype)
    for start in (0, evaluation.BLOCK):
        block = slice(start, min(start + evaluation.BLOCK, COUNT))
        rng = generator(0, "attack", start)
        crafted = made.craft(nets["rect"].astype(dtype), x[block], y[block], PHI, rng).images
        for k, images in enumerate(crafted):
            assert back[f"images{k}"].dtype == dtype
            assert back[f"images{k}"][block].tobytes() == images.tobytes()
    np.testing.assert_array_equal(back["labels"], y)
    np.testing.assert_array_equal(back["rows"], np.arange(COUNT))
    for counts, name in zip(back["right"], nets, strict=True):
        assert (100 * counts / COUNT).tolist() == table.accuracy[name].tolist()
    assert failures(open_attack(tmp_path / "file"), digits, nets) == []


def test_images_crafted_on_a_gpu_come_to_the_host(nets, digits, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    save(tmp_path / "cpu", R1, nets, digits.test)
    save(tmp_path / "gpu", R1, nets, digits.test, device="gpu")
    assert (tmp_path / "gpu").read_bytes() == (tmp_path / "cpu").read_bytes()


def test_it_may_hold_any_rows(nets, digits, tmp_path):
    rows = np.array([3, 4, 200, 499])
    save(tmp_path / "file", R1, nets, digits.test, rows=rows)
    file = open_attack(tmp_path / "file")
    assert file.arrays.read("rows").tolist() == rows.tolist()
    assert failures(file, digits, nets) == []


def test_the_record_is_read_as_it_was_written(saved, nets, digits):
    record = open_attack(saved).record
    names = tuple(identity(name, net) for name, net in nets.items())
    clean = clean_sha256(digits.test[:COUNT])
    assert record == Record("noise", "linf", True, PHI, "digits", clean, names[0], names)
    assert (record.nnlite, record.split, record.format) == (nnlite.__version__, "test", 3)


def test_a_record_that_could_not_be_read_is_not_written(saved, digits, tmp_path):
    record = dataclasses.replace(open_attack(saved).record, phi=(2e6,))
    with pytest.raises(NnliteError, match="phi: expected a list of 1 to 1,000, each a number from 0 to 1,000,000"):
        new_attack(tmp_path / "file", record, digits.test, np.arange(3), np.float32).__enter__()
    assert not list(tmp_path.iterdir())


def test_the_hash_of_weights_is_that_of_their_bytes_and_does_not_depend_on_the_file(digits, tmp_path):
    run = make_run(Settings(hidden=(8,), epochs=1), digits, tmp_path, name="rect")
    by_hand = hashlib.sha256()
    for layer in (run.net.layers[0], run.net.layers[2]):
        for array in (layer.W, layer.b):
            by_hand.update(f"<f4 {array.shape}\n".encode() + array.tobytes())
    assert weights_sha256(weights_of(run.net)) == by_hand.hexdigest()
    arrays = safetensors.numpy.load_file(run.path / "weights.safetensors")
    (tmp_path / "again").mkdir()
    reordered = dict(sorted(arrays.items(), reverse=True))
    safetensors.numpy.save_file(reordered, tmp_path / "again" / "weights.safetensors", {"some": "text"})
    assert weights_sha256(load_weights(tmp_path / "again")) == by_hand.hexdigest()


@pytest.mark.parametrize("change", ["value", "shape", "order"])
def test_other_arrays_have_another_hash(change):
    W, b = np.arange(6, dtype=np.float32).reshape(2, 3), np.zeros(3, np.float32)
    other = {"value": np.nextafter(W, 9), "shape": W.reshape(3, 2), "order": np.asfortranarray(W.T).reshape(2, 3)}
    assert weights_sha256([(W, b)]) == weights_sha256([(np.asfortranarray(W), b.copy())])
    assert weights_sha256([(W, b)]) != weights_sha256([(other[change], b)])


def test_other_labels_or_another_white_are_other_data(digits):
    some = digits.test[:5]
    for other in (
        Samples(some.images, some.labels[::-1].copy(), some.white),
        Samples(some.images, some.labels, 15.0),
        Samples(some.images[::-1].copy(), some.labels, some.white),
    ):
        assert clean_sha256(other) != clean_sha256(some)


def test_the_forward_pass_is_the_engines_bit_for_bit(nets, digits):
    assert adversarial.BLOCK == evaluation.BLOCK
    for dtype in (np.float32, np.float64):
        x, _ = digits.test.batch(slice(0, evaluation.BLOCK), dtype)
        for net in nets.values():
            net = net.astype(dtype)
            np.testing.assert_array_equal(predict(weights_of(net), x), net.predict(x))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_the_sizes_are_those_by_brute_force(nets, digits, tmp_path, norm):
    save(tmp_path / "file", PGD(norm, steps=2), nets, digits.test)
    found = verify(open_attack(tmp_path / "file"), digits.test, {})
    back = safetensors.numpy.load_file(tmp_path / "file")
    clean = (digits.test.images[:COUNT] / 16).astype(np.float32).astype(np.float64)
    for k, size in enumerate(found.sizes):
        images = back[f"images{k}"].astype(np.float64)
        lengths = [np.linalg.norm(noise, np.inf if norm == "linf" else 2) for noise in images - clean]
        assert size.norm == pytest.approx(max(lengths), rel=1e-12)
        assert (size.low, size.high) == (images.min(), images.max())
        assert size.norm <= size.limit == PHI[k] + slack(PHI[k], np.float32)
    assert found.sizes[2].norm > 0.29


# Without the attack's code


def test_it_needs_neither_the_attack_nor_the_engine(saved, nets, digits, tmp_path):
    """In a fresh interpreter the package stands without its __init__, which gathers all, and without attacks."""
    for name, net in nets.items():
        (tmp_path / name).mkdir()
        dense = enumerate(weights_of(net))
        arrays = {f"dense{k}.{key}": array for k, pair in dense for key, array in zip("Wb", pair, strict=True)}
        safetensors.numpy.save_file(arrays, tmp_path / name / "weights.safetensors")
    code = f"""
import sys, types
from pathlib import Path
package = types.ModuleType("nnlite")
package.__path__, package.__version__ = [{os.path.dirname(nnlite.__file__)!r}], "0"
sys.modules["nnlite"] = package
from nnlite.evaluation.attack_file import find_weights, open_attack, verify
from nnlite.datasets.catalog import load
from nnlite.layers import Dense
Dense.forward = "broken"  # nor does the engine run
runs = dict(find_weights(name, "digits", Path()) for name in ("rect", "other"))
found = verify(open_attack(Path({str(saved)!r})), load("digits").test, runs)
assert len(found.scores) == 2 and not found.failures, found
print(*sorted(name for name in sys.modules if name.startswith("nnlite.")))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "nnlite.evaluation.attack_file" in loaded
    assert not loaded & {
        f"nnlite.{name}" for name in ("attacks", "penalties", "lbfgs", "evaluation.accuracy", "interop")
    }


# Tampering


def pixel(k, row, value):
    def edit(arrays):
        arrays[f"images{k}"][row, 0] = value

    return edit


@pytest.mark.parametrize(("excess", "found"), [(0.5, False), (1.5, True)])
@pytest.mark.parametrize("k", [1, 2])
def test_a_pixel_out_of_the_ball_is_found_from_the_stated_slack_on(tampered, digits, k, excess, found):
    assert (digits.test.images[260:262, 0] == 0).all()
    edit = pixel(k, 260, PHI[k] + excess * 16 * 2**-23 * (1 + PHI[k]))
    words = [(k, "noise larger than phi: 1 of 300 images, the first in row 260")] if found else []
    assert failures(tampered(edit), digits, {}) == words


@pytest.mark.parametrize("value", [-1e-7, 1.0000002])
def test_a_pixel_out_of_the_range_is_found(tampered, digits, value):
    file = tampered(pixel(2, 7, value))
    found = failures(file, digits, {})
    assert (2, "pixels outside [0, 1]: 1 of 300 images, the first in row 7") in found
    free = dataclasses.replace(file, record=dataclasses.replace(file.record, clip=False))
    assert not any("outside" in text for _, text in failures(free, digits, {}))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, np.float32(3e38)])
def test_what_is_not_finite_or_overflows_is_found(tampered, digits, nets, value):
    found = failures(tampered(pixel(1, 299, value)), digits, nets)
    word = "noise larger" if np.isfinite(value) else "NaN or infinity"
    assert [text for k, text in found if k == 1 and text.startswith(word) and "first in row 299" in text]
    assert all(k == 1 for k, _ in found)


@pytest.mark.parametrize("value", [1e-45, -0.0])
def test_at_phi_0_a_single_bit_is_found(tampered, digits, value):
    assert digits.test.images[5, 0] == 0
    words = [(0, "pixels that differ from the clean image: 1 of 300 images, the first in row 5")]
    assert failures(tampered(pixel(0, 5, np.float32(value))), digits, {}) == words


def test_other_labels_are_found(tampered, digits):
    def edit(arrays):
        arrays["labels"][[2, 4]] = (arrays["labels"][[2, 4]] + 1) % 10

    words = [(None, "labels that differ from those of the data: 2 of 300 images, the first in row 2")]
    assert failures(tampered(edit), digits, {}) == words


@pytest.mark.parametrize("by", [1, -1])
def test_another_recorded_accuracy_is_found(tampered, saved, digits, nets, by):
    def edit(arrays):
        arrays["right"][0, 1] += by

    count = safetensors.numpy.load_file(saved)["right"][0, 1]
    words = [(1, f"rect classifies {count} of 300 images correctly, recorded are {count + by}")]
    assert failures(tampered(edit), digits, nets) == words


def test_counts_that_cannot_be_are_found_without_a_run(tampered, digits):
    for value in (-1, COUNT + 1):
        file = tampered(arrays={"right": np.full((2, 3), value)})
        assert failures(file, digits, {}) == [(None, "recorded counts outside 0 to 300")]


def test_other_weights_under_a_known_name_are_found(saved, digits, nets):
    rect = nets["rect"]
    changed = rect.map(lambda array: np.nextafter(array, np.float32(9)) if array.shape == (10,) else array)
    (found,) = failures(open_attack(saved), digits, {"rect": changed})
    assert found[0] is None
    assert found[1].startswith("rect has other weights: SHA-256 ")


def test_other_data_are_found(saved, digits):
    images = digits.test.images.copy()
    images[COUNT - 1, 0] += 1
    other = dataclasses.replace(digits, test=dataclasses.replace(digits.test, images=images))
    found = failures(open_attack(saved), other, {})
    assert found[0][1].startswith("the clean images or their labels are others: SHA-256 ")
    assert (0, "pixels that differ from the clean image: 1 of 300 images, the first in row 299") in found
    images[COUNT:] = 0  # what the file has not touched does not count
    images[COUNT - 1, 0] -= 1
    assert failures(open_attack(saved), other, {}) == []


def test_other_rows_are_found(tampered, digits):
    def edit(arrays):
        arrays["rows"] = arrays["rows"] + 1

    texts = [text for _, text in failures(tampered(edit), digits, {})]
    assert {text.split(":")[0] for text in texts} >= {
        "the clean images or their labels are others",
        "labels that differ from those of the data",
        "noise larger than phi",
    }


def test_a_phi_that_was_made_smaller_or_an_attack_that_did_not_clip_is_found(tampered, digits, nets, tmp_path):
    found = failures(tampered(record={"phi": [0.0, 0.05, 0.2]}), digits, {})
    assert [(k, text.split(":")[0]) for k, text in found] == [(2, "noise larger than phi")]
    save(tmp_path / "free", R1, nets, digits.test)
    file = open_attack(tmp_path / "free")
    claim = dataclasses.replace(file, record=dataclasses.replace(file.record, clip=True))
    assert [(k, text.split(":")[0]) for k, text in failures(claim, digits, {})] == [
        (1, "pixels outside [0, 1]"),
        (2, "pixels outside [0, 1]"),
    ]


def test_all_differences_are_told_not_only_the_first(tampered, digits, nets):
    def edit(arrays):
        arrays["labels"][0] += 1
        arrays["images1"][1, 0] = np.nan
        arrays["images2"][2, 0] = 2
        arrays["right"][1, 0] += 1

    found = failures(tampered(edit), digits, nets)
    starts = ("labels that", "NaN or", "noise larger", "pixels outside", "other classifies")
    assert all(any(text.startswith(start) for _, text in found) for start in starts)


# Runs


def test_a_known_net_is_known_by_its_weights_whatever_its_name(saved, digits, nets):
    weights = weights_of(nets["other"])
    (score,) = verify(open_attack(saved), digits.test, {"moved": weights}).scores
    assert score.recorded == score.found == tuple(safetensors.numpy.load_file(saved)["right"][1])
    assert score.note == ""


def test_an_unknown_net_is_scored_and_compared_with_nothing(saved, digits):
    net = mlp((64, 5, 10), generator(1, "weights"))
    found = verify(open_attack(saved), digits.test, {"new": weights_of(net)})
    arrays = safetensors.numpy.load_file(saved)
    counts = [int((net.predict(arrays[f"images{k}"]) == arrays["labels"]).sum()) for k in range(3)]
    assert found.failures == []
    assert found.scores[0].recorded is None
    assert list(found.scores[0].found) == counts
    assert "unknown to the file" in found.scores[0].note


def test_an_adversary_that_was_no_victim_is_told(tampered, digits, nets):
    names = [dataclasses.asdict(identity("other", nets["other"]))]
    file = tampered(record={"victims": names}, arrays={"right": np.zeros((1, 3), np.int64)})
    found = verify(file, digits.test, {"rect": weights_of(nets["rect"])})
    assert found.failures == []
    assert "crafted the noise, but was not scored" in found.scores[0].note


def test_one_net_of_two_names_is_compared_with_its_own_record(tampered, digits, nets):
    both = [dataclasses.asdict(identity(name, nets["rect"])) for name in ("rect", "twin")]

    def edit(arrays):
        arrays["right"][1] = arrays["right"][0]
        arrays["right"][1, 1] -= 1

    file = tampered(edit, record={"victims": both})
    assert failures(file, digits, {"rect": nets["rect"]}) == []
    assert len(failures(file, digits, {"twin": nets["rect"]})) == 1


def test_a_second_head_plays_no_part(nets):
    net = mlp((64, 8, 10), generator(0, "weights"), heads={"rotation": 5})
    assert weights_sha256(weights_of(net)) == weights_sha256(weights_of(Network(net.layers)))


W, b = np.ones((64, 10), np.float32), np.zeros(10, np.float32)


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"a": b}, "dense0.W and more, found none"),
        ({"dense0.W": W}, r"'dense0\.b': expected float32 \(10,\), found no such array"),
        ({"dense0.W": W, "dense0.b": b[:9]}, r"'dense0\.b': expected float32 \(10,\), found float32 \(9,\)"),
        ({"dense0.W": b, "dense0.b": b}, r"'dense0\.W': expected float32 \(10, 10\), found float32 \(10,\)"),
        ({"dense0.W": W[:, :0], "dense0.b": b[:0]}, "dense0.W and more, found none"),
        ({"dense0.W": W.astype(np.float64), "dense0.b": b}, "expected float32 .*, found float64"),
        ({"dense0.W": W, "dense0.b": b, "dense1.W": W, "dense1.b": b}, r"dense1\.W': expected float32 \(10, 10\)"),
        ({"dense0.W": W * np.nan, "dense0.b": b}, "finite weights"),
        ({"dense0.W": W.astype(np.float16), "dense0.b": b}, "dtype"),
    ],
)
def test_weights_that_are_no_net_are_our_own_error(tmp_path, arrays, words):
    safetensors.numpy.save_file(arrays, tmp_path / "weights.safetensors")
    with pytest.raises(NnliteError, match=words):
        load_weights(tmp_path)


def test_a_run_is_found_by_name_and_by_path(digits, tmp_path):
    run = make_run(Settings(hidden=(8,), epochs=1), digits, tmp_path, name="rect")
    for name in ("rect", str(run.path), f"{run.path}/"):
        found, weights = find_weights(name, "digits", tmp_path)
        assert found == "rect"
        assert weights_sha256(weights) == weights_sha256(weights_of(run.net))
    for name in ("", "nope", "n" * 5000):
        with pytest.raises(NnliteError, match="expected the name of a run on digits"):
            find_weights(name, "digits", tmp_path)


def test_a_run_for_other_images_is_our_own_error(saved, digits):
    net = mlp((784, 10), generator(0, "weights"))
    with pytest.raises(NnliteError, match="rect: expected a run for images of 64 pixels, found one for 784"):
        verify(open_attack(saved), digits.test, {"rect": weights_of(net)})


# Strangers

NET = {"name": "rect", "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("record", "words"),
    [
        ({"format": 4}, "format: expected 3 at most, found 4; nnlite .* wrote it, and reads it"),
        ({"format": [[]]}, "format: expected an integer of at least 1"),
        ({"format": 2}, "missing or unknown: .'columns', 'labels', 'target'"),
        ({"target": -1}, "target: expected an integer from 0 to 999, or null, found -1"),
        ({"target": 3}, r"'reached': expected int64 \(2, 3\), found no such array"),
        ({"labels": "none"}, "labels: expected one of true, predicted, found 'none'"),
        ({"columns": {}}, "columns: expected an object of frozen, limits, whole"),
        ({"columns": {"frozen": ["a"], "limits": {}, "whole": []}}, "the file has no 'a'; images have none"),
        ({"columns": {"frozen": [], "limits": {"a": -1}, "whole": []}}, "an object of numbers of at least 0"),
        ({"more": 1}, "expected an object of"),
        ({"attack": ""}, "attack: expected a text"),
        ({"attack": "\x1b[2J"}, "attack: expected a text"),
        ({"attack": "\ud800"}, "surrogates not allowed"),
        ({"attack": "a" * 501}, "attack: expected a text"),
        ({"norm": "l1"}, "norm: expected one of linf, l2, null, found 'l1'"),
        ({"norm": {}}, "norm: expected"),
        ({"clip": 1}, "clip: expected true or false"),
        ({"phi": 0.1}, "phi: expected a list of 1 to 1,000, each a number from 0 to 1,000,000, found 0.1"),
        ({"phi": []}, "phi: expected a list of 1 to 1,000"),
        ({"phi": [0.0, -0.1, 0.1]}, "phi: expected"),
        ({"phi": [0.0, 1e999, 0.1]}, "'Infinity' is no finite number"),
        ({"phi": [0, 10**400, 0]}, "phi: expected"),
        ({"phi": [True, 0.1, 0.2]}, "phi: expected"),
        ({"phi": [0.1]}, "'images1': expected no such array, found float32"),
        ({"phi": [0.1] * 4}, "'images3': expected float32 .*, found no such array"),
        ({"data": "../imagenet"}, "data: expected a plain folder name"),
        ({"source": {"name": "digits"}}, "data: expected an object of name, sha256"),
        ({"data": []}, "data: expected"),
        ({"split": "train"}, "split: expected test"),
        ({"clean": "0" * 63}, "clean: expected a SHA-256"),
        ({"adversary": "rect"}, "adversary: expected an object of name .*, sha256 .*, found 'rect'"),
        ({"adversary": NET | {"name": "\n"}}, "adversary: expected an object of name"),
        ({"adversary": NET | {"sha256": "0" * 64 + "\n"}}, "adversary: expected an object of name"),
        ({"victims": []}, "victims: expected a list of 1 to 1,000"),
        ({"victims": [NET, NET]}, "victims: expected different names"),
        ({"victims": [NET | {"name": ["rect"]}, NET]}, "victims: expected a list of 1 to 1,000"),
        ({"victims": [NET]}, r"'right': expected int64 \(1, 3\), found int64 \(2, 3\)"),
    ],
)
def test_a_record_that_is_wrong_is_our_own_error(tampered, record, words):
    with pytest.raises(NnliteError, match=words) as error:
        tampered(record=record)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "Expecting value"),
        ("[]", "expected an object"),
        ("[" * 9000, "nested too deeply"),
        ('{"format": 1, "format": 1}', "stands twice"),
        ('{"format": NaN}', "'NaN' is no finite number"),
    ],
)
def test_a_record_that_is_none_is_our_own_error(tampered, text, words):
    with pytest.raises(NnliteError, match=words):
        tampered(text=text)


def test_a_file_without_a_record_is_our_own_error(tmp_path):
    safetensors.numpy.save_file({"images0": W}, tmp_path / "file")
    with pytest.raises(NnliteError, match="its metadata hold no text nnlite-attack"):
        open_attack(tmp_path / "file")


@pytest.mark.parametrize(
    "arrays",
    [
        {"labels": None},
        {"images0": None},
        {"images1": np.zeros((COUNT, 63), np.float32)},
        {"images1": np.zeros((COUNT, 64), np.float64)},
        {"images0": np.zeros((COUNT, 64), np.int64)},
        {"images0": np.zeros((COUNT, 8, 8), np.float32)},
        {"images0": np.zeros((0, 64), np.float32)},
        {"labels": np.zeros(COUNT, np.float64)},
        {"rows": np.zeros((COUNT, 1), np.int64)},
        {"right": np.zeros((3, 2), np.int64)},
        {"images3": np.zeros((COUNT, 64), np.float32)},
    ],
)
def test_arrays_of_wrong_shapes_are_our_own_error(tampered, arrays):
    with pytest.raises(NnliteError, match="expected an attack file of nnlite"):
        tampered(arrays=arrays)


@pytest.mark.parametrize(
    "rows", [[-1, 0, 1], [0, 2, 2], [5, 4, 6], [0, 1, 500], [0, 2**63 - 1, 4], [0, 2**63 - 1, -(2**63)]]
)
def test_rows_that_the_data_lack_are_our_own_error(tampered, digits, rows):
    part = {f"images{k}": np.zeros((3, 64), np.float32) for k in range(3)}
    file = tampered(arrays={"rows": np.array(rows), "labels": np.zeros(3, np.int64), **part})
    with pytest.raises(NnliteError, match="rising row numbers below 500"):
        verify(file, digits.test, {})


@pytest.mark.timeout(60)
@pytest.mark.parametrize("shape", [(3, 784), (501, 64), (2**27, 64)])
def test_more_or_larger_images_than_the_data_are_our_own_error_before_they_are_read(saved, digits, shape, tmp_path):
    # A file with a hole: up to 100 GB long, and a few blocks on the disk.
    record = open_attack(saved).record
    entries, end = {"__metadata__": {KEY: json.dumps(dataclasses.asdict(record))}}, 0
    for name, (dtype, size) in adversarial.layout(record, shape, np.float32).items():
        stop = end + int(np.prod(size, dtype=object)) * dtype.itemsize
        entries[name] = {"dtype": {"f": "F32", "i": "I64"}[dtype.kind], "shape": size, "data_offsets": (end, stop)}
        end = stop
    text = json.dumps(entries).encode()
    (tmp_path / "hole").write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(tmp_path / "hole", 8 + len(text) + end)
    with memory_below(20e6), pytest.raises(NnliteError, match=r"expected (images of 64 pixels|500 images at most)"):
        verify(open_attack(tmp_path / "hole"), digits.test, {})


@pytest.fixture(scope="module")
def small(nets, digits, tmp_path_factory):
    """The bytes of a small attack file, and a place for others."""
    path = tmp_path_factory.mktemp("strangers") / "small"
    save(path, PGD(steps=1), {"other": nets["other"]}, digits.test, phi=(0.0, 0.1), rows=np.arange(2))
    return path.read_bytes(), path.with_name("changed")


pieces = st.sampled_from(
    [b"", b"0", b"-1", b"9" * 20, b"1e400", b"NaN", b"null", b"[]", b"{}", b'"', b"\\", b"mnist", b"l2"]
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 1911), st.integers(0, 9), pieces | st.binary(max_size=8)), max_size=4))
def test_whatever_is_changed_it_is_read_or_our_own_error(small, digits, nets, edits):
    content = bytearray(small[0])
    for place, length, piece in edits:
        content[place : place + length] = piece
    small[1].write_bytes(content)
    try:
        found = verify(open_attack(small[1]), digits.test, {"other": weights_of(nets["other"])})
    except NnliteError as error:
        text = str(error)
        assert len(text) < 600
        text.encode()
    else:
        assert len(found.sizes) == 2


def test_the_small_file_itself_is_fine(small, digits, nets):
    small[1].write_bytes(small[0])
    assert failures(open_attack(small[1]), digits, {"other": nets["other"]}) == []
    assert len(small[0]) == 2032
