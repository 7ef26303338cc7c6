"""Run folders, checkpoints and grid files from strangers: read, or soon refused by nnlite's own error."""

import json
import os
import random
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from fuzz.changes import change_arrays, change_csv, change_json, change_toml
from hypothesis import given, settings
from hypothesis import strategies as st
from peak import memory_below

from nnlite.errors import LIMIT, NnliteError, printable
from nnlite.grid.combinations import FILE_LIMIT, read_grid
from nnlite.storage.tensors import METADATA
from nnlite.storage.texts import shown
from nnlite.storage.weights import WEIGHTS
from nnlite.training.checkpoint import KEY, checkpoint_of, epochs_done, read_checkpoint, write_checkpoint
from nnlite.training.loop import train
from nnlite.training.run_folder import HISTORY, RESULTS, SETTINGS, load_run
from nnlite.training.runs import make_run
from nnlite.training.settings import Settings

pytestmark = pytest.mark.timeout(60)  # what would hang, or take minutes, fails

QUICK = Settings(reg="datagrad", term=("l1,0.01,0.1",), hidden=(4,), epochs=2)
HUGE = 1 << 33  # bytes of a file that has none on the disk


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    """A run folder, and beside it the checkpoint of its training; no test changes them."""
    run = make_run(QUICK, digits, tmp_path_factory.mktemp("strangers") / "runs")
    train(QUICK, digits, on_checkpoint=lambda state: write_checkpoint(checkpoint_of(run.path), QUICK, state))
    return run.path


@pytest.fixture
def folder(made, tmp_path):
    """A copy of the run folder, to be changed, with the checkpoint beside it."""
    shutil.copy(checkpoint_of(made), checkpoint_of(tmp_path / "runs"))
    return shutil.copytree(made, tmp_path / "runs")


def message_of(read, *args):
    """Return the message of nnlite's own error, and "" where there is none."""
    try:
        read(*args)
    except NnliteError as error:
        return str(error)
    return ""


def refused(read, *args, memory=20e6):
    """Return the message of nnlite's own error, that comes within this memory."""
    message = message_of(read, *args)
    with memory_below(memory):
        assert message_of(read, *args) == message
    assert 0 < len(message) <= LIMIT
    assert message.isprintable()
    return message


# Changes to a file


def pipe(path):
    path.unlink()
    os.mkfifo(path)


def device(path):
    path.unlink()
    path.symlink_to("/dev/zero")


def endless(path):
    os.truncate(path, HUGE)


def text(content):
    return lambda path: path.write_text(content, "utf-8")


def twice(path):
    content = path.read_text("utf-8")
    path.write_text(
        content.replace('  "', '  "status": "finished", "seed": 0, "', 1).replace('    "', '"seed": 0, "', 1)
    )


def setting(**changes):
    def change(path):
        content = json.loads(path.read_text("utf-8"))
        content["settings"].update(changes)
        path.write_text(json.dumps(content), "utf-8")

    return change


def result(**changes):
    return lambda path: path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | changes), "utf-8")


def arrays(**shapes):
    """Give weights of other shapes, full of zeros; a large one takes no place on the disk."""

    def change(path):
        places, end = {}, 0
        for name, shape in shapes.items():
            size = 4 * int(np.prod(shape, dtype=object))
            key = name.replace("_", ".")
            places[key] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
            end += size
        header = json.dumps(places).encode()
        path.write_bytes(len(header).to_bytes(8, "little") + header)
        os.truncate(path, 8 + len(header) + end)

    return change


HEAD = "epoch,loss,validation,seconds\r\n"
RUNS = {
    **{f"a pipe as {name}": (name, pipe, "no regular file") for name in (SETTINGS, RESULTS, HISTORY, WEIGHTS)},
    **{f"a device as {name}": (name, device, "no regular file") for name in (SETTINGS, RESULTS, HISTORY, WEIGHTS)},
    **{f"8 GB of {name}": (name, endless, "more than") for name in (SETTINGS, RESULTS, HISTORY)},
    "8 GB of weights": (WEIGHTS, endless, "not fully covered"),
    "a key twice": (SETTINGS, twice, "stands twice"),
    "a result twice": (RESULTS, twice, "stands twice"),
    "settings without end": (SETTINGS, text("[" * 100_000), "nested too deeply"),
    "results without end": (RESULTS, text('{"a":' * 40_000), "nested too deeply"),
    "NaN": (RESULTS, text('{"test": NaN}'), "'NaN' is no finite number"),
    "1e999": (RESULTS, text('{"test": 1e999}'), "'1e999' is no finite number"),
    "5,000 digits": (RESULTS, text(f'{{"test": {"9" * 5000}}}'), "4300 digits"),
    "a text as epochs": (SETTINGS, setting(epochs="2"), "epochs: expected an integer from 1 to 100,000, found '2'"),
    "true as epochs": (SETTINGS, setting(epochs=True), "epochs: expected an integer from 1 to 100,000, found True"),
    "a huge seed": (SETTINGS, setting(seed=10**400), "seed: expected an integer of at least 0, below"),
    "a huge lr": (SETTINGS, setting(lr=10**400), "lr: expected a finite number above 0"),
    "many epochs": (SETTINGS, setting(epochs=10**6), "epochs: expected an integer from 1 to 100,000, found 1000000"),
    "1 as multitask": (SETTINGS, setting(multitask=1), "multitask: expected true or false, found 1"),
    "a list as lam": (SETTINGS, setting(lam=[0.1]), r"lam: expected a finite number of at least 0, found \(0.1,\)"),
    "an object as reg": (SETTINGS, setting(reg={}), "reg: expected one of none, .*, found {}"),
    "null as lr": (SETTINGS, setting(lr=None), "lr: expected a finite number above 0, found None"),
    "a way out": (SETTINGS, setting(data="../../.."), "data: expected a plain folder name"),
    "control codes as data": (
        SETTINGS,
        setting(data="\x1b[2J"),
        r"data: expected a plain folder name .*, found '\\x1b",
    ),
    "half a character": (SETTINGS, setting(term=["\ud800"]), "surrogates not allowed"),
    "a number as hidden": (SETTINGS, setting(hidden=4), "hidden: expected a tuple"),
    "many layers": (SETTINGS, setting(hidden=[1] * 10_000), "hidden: expected a tuple of at most 100"),
    "other data": (SETTINGS, setting(data="mnist"), "expected a record of the data mnist, found one of digits"),
    "a list as results": (RESULTS, text("[]"), "results.json: expected an object"),
    "a number as status": (RESULTS, result(status=3), "status: expected one of finished, .*, found 3"),
    "the epoch of another": (RESULTS, result(best_epoch=3), "best_epoch: expected an integer from 1 to 2, found 3"),
    "true as best epoch": (RESULTS, result(best_epoch=True), "best_epoch: expected"),
    "101 %": (RESULTS, result(test=101), "test: expected a number from 0 to 100"),
    "a text as validation": (RESULTS, result(validation="all"), "validation: expected a number"),
    "other phi": (RESULTS, result(phi=[0.0, 0.1]), "phi: expected the paper's .*, found"),
    "a percentage less": (
        RESULTS,
        result(self_attack=[1, 2, 3, 4]),
        "self_attack: expected a list of 5, each a number from 0 to 100",
    ),
    "no history": (HISTORY, text(""), "other columns than"),
    "other columns": (HISTORY, text("epoch,loss\r\n1,2\r\n"), "other columns than"),
    "an epoch twice": (HISTORY, text(HEAD + "1,2,3,4\r\n" * 2), "each in its turn"),
    "more epochs": (HISTORY, text(HEAD + "".join(f"{k},2,3,4\r\n" for k in (1, 2, 3))), "epochs 1 to 2 at most"),
    "half an epoch": (HISTORY, text(HEAD + "1.5,2,3,4\r\n"), "each in its turn"),
    "a loss of NaN": (HISTORY, text(HEAD + "1,nan,3,4\r\n"), "4 finite numbers"),
    "five numbers": (HISTORY, text(HEAD + "1,2,3,4,5\r\n"), "4 finite numbers"),
    "a million empty lines": (HISTORY, text(HEAD + "\n" * 1_000_000), "each in its turn"),
    "a row without end": (HISTORY, text(HEAD + "1," * 600_000), "a row has 1,048,576 characters or more"),
    "a field without end": (HISTORY, text(HEAD + '"' + "1" * 1_000_000), "field larger than"),
    "weights of 4 GB": (WEIGHTS, arrays(dense0_W=[1 << 20, 1 << 10], dense0_b=[1 << 10]), r"found float32 \(1048576"),
    "three classes": (
        WEIGHTS,
        arrays(dense0_W=[64, 4], dense0_b=[4], dense1_W=[4, 3], dense1_b=[3]),
        r"dense1\.W': expected float32 \(4, 10\), found float32 \(4, 3\)",
    ),
    "one more array": (
        WEIGHTS,
        arrays(dense0_W=[64, 4], dense0_b=[4], dense1_W=[4, 10], dense1_b=[10], last_W=[1]),
        r"last\.W': expected no such array",
    ),
}


@pytest.mark.parametrize("case", RUNS)
def test_a_hostile_run_folder_is_refused_soon_and_without_memory(folder, case):
    name, change, words = RUNS[case]
    change(folder / name)
    message = refused(load_run, folder)
    assert message.startswith(f"{folder}: the run folder is damaged (")
    assert re.search(words, message), message


def test_a_run_folder_of_control_codes_does_not_reach_the_terminal(nnlite, made, tmp_path, caplog):
    shutil.copytree(made, tmp_path / "runs" / "digits" / "\x1b[2J")
    result = nnlite("runs")
    assert result.exit_code == 0
    (said,) = caplog.messages
    assert said.startswith("skipped: runs/digits/ [2J: the run folder is damaged (its name holds control characters)")
    shutil.rmtree(tmp_path / "runs" / "digits" / "\x1b[2J")
    shutil.copy(checkpoint_of(made), tmp_path / "runs" / "digits" / ".\x1b[2J.checkpoint")
    told = nnlite("runs")
    assert told.exit_code == 0
    assert "not finished" not in told.stderr  # no run has such a name
    assert "\x1b" not in result.output + said + told.output


# Checkpoints


def record(**changes):
    """Change the JSON in the metadata of a checkpoint."""

    def change(path):
        content, found = path.read_bytes(), safetensors.numpy.load_file(path)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        text = json.dumps(json.loads(header[METADATA][KEY]) | changes)
        safetensors.numpy.save_file(found, path, {KEY: text})

    return change


def metadata(text):
    return lambda path: safetensors.numpy.save_file(safetensors.numpy.load_file(path), path, {KEY: text})


def history(values):
    def change(path):
        with safetensors.safe_open(path, "np") as file:
            texts = file.metadata()
        safetensors.numpy.save_file(safetensors.numpy.load_file(path) | {"history": values}, path, texts)

    return change


CHECKPOINTS = {
    "a pipe": (pipe, "no regular file"),
    "a device": (device, "no regular file"),
    "8 GB": (endless, "not fully covered"),
    "4 GB of weights": (arrays(dense0_W=[1 << 20, 1 << 10]), "nnlite-checkpoint"),
    "JSON without end": (metadata("[" * 100_000), "nested too deeply"),
    "a key twice": (metadata('{"settings": 0, "settings": 1}'), "stands twice"),
    "NaN": (metadata('{"best": NaN}'), "'NaN' is no finite number"),
    "a list as settings": (record(settings=[]), "settings: expected"),
    "a huge number": (record(settings={**vars(QUICK), "epochs": 10**400}), "epochs: expected an integer from"),
    "texts as versions": (record(versions=["1"]), "AttributeError"),
    "control codes as a version": (
        record(versions={"numpy": "\x1b[2J"}),
        "versions: numpy: expected a text of .* printable",
    ),
    "a list as a version": (record(versions={"numpy": ["2"]}), "versions: numpy: expected a text"),
    "many epochs": (history(np.zeros((100_000, 4))), r"'history': expected float64 \(2, 4\), found"),
    "an epoch twice": (history(np.ones((2, 4))), "each in its turn"),
    "an epoch and a bit": (history(np.array([[1 + 1e-15, 2, 3, 4], [2, 2, 3, 4]])), "each in its turn"),
    "a loss of NaN": (history(np.array([[1, np.nan, 3, 4], [2, 2, 3, 4]])), "4 finite numbers"),
}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_a_hostile_checkpoint_is_refused_soon_and_without_memory(folder, case):
    change, words = CHECKPOINTS[case]
    path = checkpoint_of(folder)
    change(path)
    message = refused(read_checkpoint, path, QUICK)
    assert message.startswith(f"{path}: the checkpoint is damaged (")
    assert re.search(words, message), message


def test_a_checkpoint_of_other_settings_is_not_read_whatever_its_size(folder):
    path = checkpoint_of(folder)
    wide = {**vars(QUICK), "hidden": [1 << 24]}
    layer = {"W": [64, 1 << 24], "b": [1 << 24]}, {"W": [1 << 24, 10], "b": [10]}
    shapes = {
        f"{which}.dense{k}.{key}": shape[key]
        for which in ("best", "last")
        for k, shape in enumerate(layer)
        for key in shape
    }
    arrays(**shapes)(path)
    assert "damaged" in refused(epochs_done, path)
    assert "damaged" in refused(read_checkpoint, path, Settings(**{**wide, "hidden": (1 << 24,)}))


# Grids


def filled(piece, before="", after=""):
    """Repeat a piece until the file is as large as it may be."""
    return before + piece * ((FILE_LIMIT - len(before) - len(after)) // len(piece)) + after


GRIDS = {
    "a key of 4,000 parts": (filled("a.", after="a = 1"), "unknown key 'a'"),
    "a table of 4,000 parts": (filled("a.", "lr.", "a = 1"), "lr: expected a finite number above 0, found {'a': {'a'"),
    "a list without end": (filled("[", "lr = "), "expected TOML"),
    "thousands of digits": (filled("9", "lr = "), "4300 digits"),
    "thousands of hexadecimal digits": (
        filled("f", "lr = 0x"),
        "lr: expected a finite number above 0, found a number of too many digits",
    ),
    "hexadecimal digits in a list": (filled("f", "lr = [[0x", "]]"), "found a number of too many digits"),
    "2**63": (f"seed = {2**63}", "seed: expected an integer of at least 0, below"),
    "1e400": ("lr = 1e400", "lr: expected a finite number above 0, found inf"),
    "a table as reg": ("reg = {a = 1}", "reg: expected one of none, .*, found {'a': 1}"),
    "hexadecimal digits as reg": (filled("f", "reg = 0x"), "reg: expected one of none, .*, found a number of too many"),
    "lists as data": ("data = [[]]", "data: expected a text of 1 to 4,096 printable characters, found"),
    "a way out": ('data = "../../.."', "expected the file train-images-idx3-ubyte"),
    "a way out as a name": ('[[models]]\nname = "../x"', "name: expected a plain folder name"),
    "control codes": ('lr = "\\u001b[2J"', r"found '\\x1b\[2J'"),
    "control codes as a key": ('"\\u001b[2J" = 1', r"unknown key '\\x1b\[2J'"),
    "a long key": (filled("l", after=" = 1"), r"unknown key 'llllllllllll\.\.\."),
    "a long text": (filled("a", 'lr = "', '"'), "found 'aaaaaaaaaaaa"),
    "a long name": (
        filled("a", '[[models]]\nname = "', '"'),
        r"name: expected a plain folder name .*, found 'aaaaaaaaaaaa\.\.\.",
    ),
    "a list in each of many models": (
        filled("[[models]]\n", f"seed = {[1] * 1500}\n"),
        "at most 10,000 nets, found",
    ),
    "layers in each of many models": (filled("[[models]]\n", f"hidden = {[1] * 1500}\n"), "hidden: expected a tuple"),
    "terms in each of many models": (
        filled("[[models]]\n", f"reg = 'datagrad'\nterm = {['l1,1,1'] * 400}\n"),
        "term: expected a tuple of at most 100",
    ),
    "one more byte": ("#" * (FILE_LIMIT + 1), "more than 8,000"),
}


@pytest.mark.parametrize("case", GRIDS)
def test_a_hostile_grid_file_is_refused_soon_and_without_memory(tmp_path, case):
    content, words = GRIDS[case]
    path = tmp_path / "grid.toml"
    path.write_text(content, "utf-8")
    message = refused(read_grid, path, tmp_path / "runs", memory=150e6)  # most of it by tomllib, for the long keys
    assert re.search(words, message), message


def test_equal_trainings_are_found_without_comparing_each_with_each(tmp_path):
    (tmp_path / "grid.toml").write_text(f"seed = {[*range(100)]}\nlr = {[1] * 100}")  # 50 million pairs
    assert "their settings are equal" in message_of(read_grid, tmp_path / "grid.toml", tmp_path)


@pytest.mark.parametrize("change", [pipe, device, endless])
def test_a_grid_that_is_no_file_of_some_size_is_refused(tmp_path, change):
    path = tmp_path / "grid.toml"
    path.touch()
    change(path)
    assert "cannot be read" in refused(read_grid, path, tmp_path)


# Whatever is in them

GRID = b"""
epochs = 2
seed = [0, 1]

[[models]]
lr = [0.1, 2]
hidden = [[], [8]]

[[models]]
name = "two-terms"
reg = "datagrad"
term = ["l1,0.01,0.1", "l2,0.01,exact"]
"""
CHANGES = {SETTINGS: change_json, RESULTS: change_json, HISTORY: change_csv, WEIGHTS: change_arrays}

seeds = st.lists(st.integers(0, 2**32), min_size=1, max_size=3)


def changed(content, change, seeds):
    """Change it a few times, as long as it has a form."""
    for seed in seeds:
        try:
            content = change(content, random.Random(seed))
        except (ValueError, TypeError, KeyError, IndexError, AttributeError):
            break
    return content


def read_or_refused(read, *args):
    """Return what is read, or None where it is refused."""
    message = message_of(read, *args)
    assert message.isprintable()
    return None if message else read(*args)


@pytest.mark.once
@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(sorted(CHANGES)), seeds=seeds)
def test_any_change_of_a_run_is_read_or_our_own_error(made, tmp_path_factory, name, seeds):
    folder = tmp_path_factory.getbasetemp() / "changed"
    shutil.copytree(made, folder, dirs_exist_ok=True)
    content = changed((made / name).read_bytes(), CHANGES[name], seeds)
    (folder / name).write_bytes(content)
    run = read_or_refused(load_run, folder)
    if run:
        assert run.net.sizes == (64, *run.settings.hidden, 10)
        assert run.results.best_epoch <= len(run.history) <= run.settings.epochs
        assert all(np.isfinite(array).all() for layer in run.net.all_layers for array in layer.parameters.values())


@pytest.mark.once
@settings(max_examples=200, deadline=None)
@given(seeds=seeds)
def test_any_change_of_a_checkpoint_is_read_or_our_own_error(made, tmp_path_factory, seeds):
    path = tmp_path_factory.getbasetemp() / "checkpoint"
    path.write_bytes(changed(checkpoint_of(made).read_bytes(), change_arrays, seeds))
    state = read_or_refused(read_checkpoint, path, QUICK)
    if state:
        assert epochs_done(path) == (state.epoch, 2)
        assert state.trained.best in state.trained.history


@pytest.mark.once
@settings(max_examples=300, deadline=None)
@given(seeds=seeds)
def test_any_change_of_a_grid_is_read_or_our_own_error(tmp_path_factory, seeds):
    path = tmp_path_factory.getbasetemp() / "grid.toml"
    path.write_bytes(changed(GRID, change_toml, seeds))
    for training in read_or_refused(read_grid, path, Path("runs")) or []:
        assert training.path.parent == Path("runs") / training.settings.data
        assert training.path.name == Path(training.path.name).name


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=2000))
def test_a_message_is_one_printable_line_of_limited_length(text):
    message = str(NnliteError(text))
    assert message.isprintable()
    assert len(message) <= LIMIT
    assert (message == text) == (text.isprintable() and len(text) <= LIMIT)
    assert len(printable(text)) == len(text)
    assert len(shown(text)) < 200
