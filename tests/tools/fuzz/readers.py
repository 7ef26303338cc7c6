"""Each reader of files, fed with bytes, and the files that its fuzzing begins with.

A reader returns what became of its input. What it believes is compared with what others read from the same bytes.
"""

import csv
import gzip
import hashlib
import io
import json
import logging
import struct
import sys
import tempfile
import tomllib
from dataclasses import asdict
from pathlib import Path

import numpy as np
import safetensors.numpy
from changes import change_arrays, change_csv, change_json, change_npz, change_toml

from nnlite.bench.report import read_reports
from nnlite.datasets import DATASETS, load, rotation
from nnlite.datasets.idx import IDX_IMAGES, read_idx
from nnlite.evaluation.accuracy import PAPER_PHI
from nnlite.evaluation.attack_file import (
    NetId,
    Record,
    clean_sha256,
    load_weights,
    new_attack,
    open_attack,
    verify,
    weights_of,
    weights_sha256,
)
from nnlite.grid.combinations import read_grid
from nnlite.interop.card import Figure, model_card, read_audit
from nnlite.paper.outcomes import OUTCOMES, read_outcomes, write_outcomes
from nnlite.paper.reproduction import Plan, Reproduction
from nnlite.paper.scores import EXACT, read_scores
from nnlite.paper.tables import ROWS
from nnlite.storage.sums import SUMS, write_sums
from nnlite.storage.weights import WEIGHTS, named_arrays
from nnlite.training.checkpoint import epochs_done, read_checkpoint, write_checkpoint
from nnlite.training.loop import train
from nnlite.training.run_folder import load_run
from nnlite.training.runs import make_run
from nnlite.training.settings import FIELDS, REQUIRED, Settings

READ, DIFFERS, REFUSED = "read", "read, and found to differ", "refused"
FOLDER = Path(tempfile.mkdtemp())

SHAPES = ((3, 2, 2), (2**16, 2**8, 2**8), (0, 1, 1), (1, 1000, 1000))
PLAIN = [struct.pack(">4I", 2051, *shape) + bytes(range(12)) for shape in SHAPES]
PLAIN += [PLAIN[0][:9], PLAIN[0] + b"more", b""]
PACKED = [gzip.compress(plain, level, mtime=0) for plain in PLAIN for level in (0, 9)]
BOMB = gzip.compress(PLAIN[0] + bytes(1_000_000))
PACKED += [PACKED[0] + PACKED[1], BOMB, PACKED[0][:3] + b"\x08" + bytes(6) + b"name"]
SET = bytes(range(12))

logging.disable()  # a checkpoint of another version is told by a warning
DATA = load("digits")
SETTINGS = Settings(reg="datagrad", term=("l1,0.01,0.1", "l2,0.1,exact"), hidden=(4,), epochs=2)
RUN = make_run(SETTINGS, DATA, FOLDER / "runs")
FILES = ("settings.json", "results.json", "history.csv", WEIGHTS, SUMS)
ORIGINAL = {name: (RUN.path / name).read_bytes() for name in FILES}
REPORT = b"""{"title": "dgl1", "threads": 2, "contestants": [
    {"name": "nnlite", "ms": 8, "quartiles": [7.5, 9]}, {"name": "jax", "ms": null, "quartiles": null}]}"""
AUDIT = b"""{"run": "net", "data": "digits", "parameters": {"clip": true}, "rows": [
    {"attack": "worst", "phi": 0, "accuracy": 98.5, "low": 97, "high": 99.5, "examples": 200, "image": null},
    {"attack": "pgd", "phi": 0.1, "accuracy": 60, "low": 53, "high": 66.5, "examples": 200, "image": null},
    {"attack": "proven", "phi": 0.1, "accuracy": 40, "low": 21.5, "high": 62, "examples": 20, "image": null}],
    "verdicts": [{"question": "Does it grow?", "answer": "pass", "evidence": ""},
    {"question": "Is it *masked*?", "answer": "fail | open", "evidence": "3 of 4"}]}"""
PLAN = json.dumps(asdict(Plan())).encode()
(FOLDER / "plan").mkdir()
SCORES = b"adversary,noise,victim,seed,phi,accuracy\r\n"
SCORES += b"".join(b"rect,r1,rect,%d,%g,98.5\r\n" % (seed, size) for seed in (0, 1) for size in PAPER_PHI)
GRID = b"""
epochs = 2
seed = [0, 1]
hidden = [[], [8, 4]]

[[models]]
lr = [0.1, 2]
reg = "dgl1"
lam = 0.01
phi = 0.1

[[models]]
name = "two-terms"
reg = "datagrad"
multitask = true
gamma = 0.5
term = ["l1,0.01,0.1", "l2,0.01,exact"]
"""


def idx(content):
    images = read_idx(io.BytesIO(content), "file", IDX_IMAGES)
    assert gzip.decompress(content) == struct.pack(">4I", 2051, *images.shape) + images.tobytes()
    return READ


def unpacked(content):
    return idx(gzip.compress(content, 1, mtime=0))


def rotated(content):
    if content[:1] < b"\x80":
        content = content[1:] + hashlib.sha256(content[1:]).digest()
    (FOLDER / "set").write_bytes(content)
    turned = np.zeros(12, np.uint8)
    believed = rotation._read(FOLDER / "set", turned)
    assert believed == (content == turned.tobytes() + hashlib.sha256(turned.tobytes()).digest())
    return READ if believed else REFUSED


def attack(content):
    (FOLDER / "attack").write_bytes(content)
    found = verify(open_attack(FOLDER / "attack"), DATA.test, {"net": weights_of(RUN.net)})
    return DIFFERS if found.failures else READ


def weights(content):
    (FOLDER / WEIGHTS).write_bytes(content)
    net, arrays = load_weights(FOLDER), safetensors.numpy.load(content)
    for k, pair in enumerate(net):
        for name, array in zip("Wb", pair, strict=True):
            assert array.tobytes() == arrays[f"dense{k}.{name}"].tobytes()
    return READ


def run(content):
    name = FILES[content[0] % len(FILES) if content else 0]
    (RUN.path / name).write_bytes(content[1:])
    if name != SUMS:
        write_sums(RUN.path)  # a stranger's are right
    try:
        found = load_run(RUN.path)
    finally:
        for one in (name, SUMS):
            (RUN.path / one).write_bytes(ORIGINAL[one])
    files = {**ORIGINAL, name: content[1:]}
    said = json.loads(files["settings.json"])["settings"]
    assert found.settings == RUN.settings or json.loads(json.dumps(asdict(found.settings))) == said | {
        key: getattr(found.settings, key) for key in FIELDS.keys() - REQUIRED - said.keys()
    }
    assert json.loads(json.dumps(asdict(found.results))) == json.loads(files["results.json"])
    rows = list(csv.DictReader(io.StringIO(files["history.csv"].decode(), newline="")))
    assert [[float(text) for text in row.values()] for row in rows] == [list(epoch) for epoch in found.history]
    arrays = safetensors.numpy.load(files[WEIGHTS])
    assert {key: array.tobytes() for key, array in named_arrays(found.net).items()} == {
        key: array.tobytes() for key, array in arrays.items()
    }
    return READ


def change_run(content, rng):
    pick = content[0] % len(FILES)
    change = (change_json, change_json, change_csv, change_arrays, change_csv)[pick]
    return bytes([pick]) + change(content[1:], rng)


def checkpoint(content):
    (FOLDER / "checkpoint").write_bytes(content)
    done, epochs = epochs_done(FOLDER / "checkpoint")
    state = read_checkpoint(FOLDER / "checkpoint", SETTINGS)
    assert (done, epochs) == (state.epoch, SETTINGS.epochs)
    arrays = safetensors.numpy.load(content)
    assert np.array_equal(arrays.pop("history"), state.trained.history)
    for prefix, net in (("best", state.trained.net), ("last", state.last)):
        for key, array in named_arrays(net).items():
            assert arrays.pop(f"{prefix}.{key}").tobytes() == array.tobytes()
    assert not arrays
    return READ


def grid(content):
    (FOLDER / "grid.toml").write_bytes(content)
    jobs = read_grid(FOLDER / "grid.toml", FOLDER / "grid")
    paths = {job.path for job in jobs}
    assert len(paths) == len(jobs)
    assert {path.parent.resolve() for path in paths} <= {FOLDER.resolve() / "grid" / name for name in DATASETS}
    said = tomllib.loads(content.decode())
    for name in {"lr", "seed", "epochs"} & said.keys() if "models" not in said else ():
        values = said[name] if isinstance(said[name], list) else [said[name]]
        assert {getattr(job.settings, name) for job in jobs} == set(values)
    return READ


def report(content):
    (FOLDER / "report.json").write_bytes(content)
    found, said = read_reports(FOLDER / "report.json"), json.loads(content)
    assert found == (said if isinstance(said, list) else [said])
    return READ


def audit(content):
    (FOLDER / "audit.json").write_bytes(content)
    found, said = read_audit(FOLDER / "audit.json", "net", "digits"), json.loads(content)
    for which in ("worst", "proven"):
        rows = [row for row in said["rows"] if row["attack"] == which]
        assert [one._asdict() for one in getattr(found, which)] == [
            {name: row[name] for name in Figure._fields} for row in rows
        ]
    assert all(map(str.isprintable, model_card("net", RUN.net, RUN.data, 98.5, {}, {}, found).split("\n")))
    return READ


def plan(content):
    (FOLDER / "plan" / "plan.json").write_bytes(content)
    Reproduction(FOLDER / "plan", Plan()).reserve_folder()
    assert json.loads(content).items() >= json.loads(PLAN).items()
    return READ


def scores(content):
    (FOLDER / "scores.csv").write_bytes(content)
    found = read_scores(FOLDER)
    assert sum(map(np.size, found.values())) <= content.count(b"\n")
    return READ


def own_csv(content):
    (FOLDER / "own.csv").write_bytes(content)
    found = load(str(FOLDER / "own.csv"))
    assert sum(found.source.split.sizes) <= content.count(b"\n") + content.count(b"\r") + 1
    return READ


def own_npz(content):
    (FOLDER / "own.npz").write_bytes(content)
    found = load(str(FOLDER / "own.npz"))
    with np.load(FOLDER / "own.npz") as arrays:
        assert sum(found.source.split.sizes) == sum(
            len(array) for name, array in dict(arrays).items() if name[0] == "y"
        )
    return READ


def estimator(content):
    (FOLDER / "estimator").write_bytes(content)
    from nnlite.interop.sklearn import DataGradClassifier

    found, arrays = DataGradClassifier.load(FOLDER / "estimator"), safetensors.numpy.load(content)
    for key, array in named_arrays(found.net_).items():
        assert arrays[f"net.{key}"].tobytes() == array.tobytes()
    return READ


def outcomes(content):
    (FOLDER / OUTCOMES).write_bytes(content)
    found = read_outcomes(FOLDER, 70)
    assert len(found) == len(safetensors.numpy.load(content))
    return READ


def attack_file():
    """Return a small attack file that is all right: noise of phi 0.1, made without an attack."""
    rows = np.array([0, 7, 499])
    x, y = DATA.test.batch(rows)
    net = NetId("net", weights_sha256(weights_of(RUN.net)))
    record = Record("noise", "linf", True, (0.0, 0.1), "digits", clean_sha256(DATA.test[rows]), net, (net,))
    noisy = (x + np.float32(0.1)).clip(0, 1)
    with new_attack(FOLDER / "attack", record, DATA.test, rows, np.float32) as file:
        file.keep(0, [x, noisy])
        file.score(np.array([[(RUN.net.predict(images) == y).sum() for images in (x, noisy)]]))
    return (FOLDER / "attack").read_bytes()


def checkpoint_file():
    train(SETTINGS, DATA, on_checkpoint=lambda state: write_checkpoint(FOLDER / "checkpoint", SETTINGS, state))
    return (FOLDER / "checkpoint").read_bytes()


def own_csv_files():
    rows = "".join(f"{k},{k % 7 / 7},class {k % 2}\r\n" for k in range(20))
    return [f"a,b,label\r\n{rows}".encode(), b"\xef\xbb\xbfa,y\n1,0\n2,1\n" * 3, b'"a,b";y\n1;0\n']


def own_npz_files():
    x, y, files = np.arange(36.0).reshape(18, 2), np.arange(18) % 2, []
    for arrays in ({"x": x, "y": y}, {"x_train": x, "y_train": y, "x_test": x[:4], "y_test": y[:4].astype(str)}):
        np.savez(FOLDER / "own.npz", **arrays)
        files.append((FOLDER / "own.npz").read_bytes())
    return files


def estimator_file():
    from nnlite.interop.sklearn import DataGradClassifier

    rng = np.random.default_rng(0)
    fitted = DataGradClassifier(hidden=(3,), epochs=1).fit(rng.random((20, 2)), np.array(["a", "b"] * 10))
    fitted.save(FOLDER / "estimator")
    return (FOLDER / "estimator").read_bytes()


def outcomes_file():
    bits = np.random.default_rng(0).random((1, len(PAPER_PHI), 70)) < 0.5
    write_outcomes(FOLDER, 70, {(ROWS[0], EXACT, row): bits for row in ROWS[:2]})
    return (FOLDER / OUTCOMES).read_bytes()


# scikit-learn is loaded for its own reader alone: it takes much of what an input may.
FITTED = estimator_file() if "estimator" in sys.argv else b""

# What reads, what the fuzzing begins with, and a change that keeps the form, where there is one. The first byte says
# which file of a run follows, and, below 128, that a cached set gets a checksum of its own.
READERS = {
    "idx": (idx, PACKED, None),
    "unpacked": (unpacked, PLAIN, None),
    "rotated": (rotated, [b"\0" + SET, SET * 4, b"\0"], None),
    "attack": (attack, [attack_file()], change_arrays),
    "weights": (weights, [ORIGINAL[WEIGHTS]], change_arrays),
    "run": (run, [bytes([k]) + ORIGINAL[name] for k, name in enumerate(FILES)], change_run),
    "checkpoint": (checkpoint, [checkpoint_file()], change_arrays),
    "grid": (grid, [GRID, *(part for part in GRID.split(b"\n\n"))], change_toml),
    "audit": (audit, [AUDIT], change_json),
    "plan": (plan, [PLAN], change_json),
    "scores": (scores, [SCORES], change_csv),
    "csv": (own_csv, own_csv_files(), change_csv),
    "npz": (own_npz, own_npz_files(), change_npz),
    "estimator": (estimator, [FITTED], change_arrays),
    "outcomes": (outcomes, [outcomes_file()], change_arrays),
    "report": (report, [REPORT, b"[" + REPORT + b"]"], change_json),
}
