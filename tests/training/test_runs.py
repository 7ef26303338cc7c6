"""The run folder: what is written is what is read, and nothing half-written or damaged passes for a run."""

import ast
import csv
import io
import json
import os
import re
import shutil
import signal
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from closed import close

from nnlite.datasets import load
from nnlite.errors import DivergedError, NnliteError
from nnlite.evaluation.accuracy import accuracy
from nnlite.storage.sums import SUMS
from nnlite.storage.weights import WEIGHTS
from nnlite.training import runs
from nnlite.training.checkpoint import epochs_done
from nnlite.training.outcome import advice
from nnlite.training.run_folder import HISTORY, RESULTS, SETTINGS, load_record, load_run
from nnlite.training.runs import check_runs, find_run, list_records, list_runs
from nnlite.training.settings import REQUIRED, Settings

FILES = (WEIGHTS, SETTINGS, HISTORY, RESULTS)
QUICK = Settings(hidden=(16,), epochs=2)
DGL1 = replace(QUICK, reg="dgl1", lam=0.01, phi=0.1)
DIVERGES_AT_ONCE = Settings(hidden=(16, 16, 16), lr=1e6, epochs=2)
DIVERGES_LATER = Settings(reg="l2", lam=200.0, lr=1.0, hidden=(16,), epochs=20)


def make_run(settings, data, folder, **more):
    """Train a run that has the name of its method alone, whatever else differs from the defaults."""
    return runs.make_run(settings, data, folder, **{"name": settings.method_name, **more})


def weights(run):
    return [array.tobytes() for layer in run.net.layers for array in layer.parameters.values()]


def tree(folder):
    """Every path below `folder` with its bytes, hidden ones too."""
    paths = folder.rglob("*")
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in paths}


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def trained(digits, tmp_path_factory):
    """One finished run that no test changes."""
    return make_run(DGL1, digits, tmp_path_factory.mktemp("runs"))


@pytest.fixture
def copied(trained, tmp_path):
    """A copy of its folder, to be damaged."""
    return shutil.copytree(trained.path, tmp_path / "digits" / "copied")


# --- writing and reading


def test_a_run_is_read_as_it_was_written(trained):
    read = load_run(trained.path)
    assert read.name == "dgl1-lam0.01-phi0.1"
    assert read.settings == trained.settings
    assert read.history == trained.history
    assert read.results == trained.results
    assert weights(read) == weights(trained)
    assert load_record(trained.path) == trained.record


def test_the_folder_holds_files_that_others_can_read(trained):
    assert names_in(trained.path) == sorted([*FILES, SUMS])
    content = json.loads((trained.path / SETTINGS).read_text("utf-8"))
    assert content["settings"] == json.loads(json.dumps(asdict(DGL1)))
    assert content["data"] == json.loads(json.dumps(asdict(load("digits").description)))
    assert content["versions"]["numpy"] == np.__version__
    assert content["versions"].keys() == {"nnlite", "numpy", "python", "BLAS", "BLAS threads"}
    with (trained.path / HISTORY).open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows[0] == ["epoch", "loss", "validation", "seconds"]
    assert [float(row[1]) for row in rows[1:]] == [epoch.loss for epoch in trained.history]
    arrays = safetensors.numpy.load_file(trained.path / WEIGHTS)
    assert {name: array.shape for name, array in arrays.items()} == {
        "dense0.W": (64, 16),
        "dense0.b": (16,),
        "dense1.W": (16, 10),
        "dense1.b": (10,),
    }


def test_the_results_are_those_of_the_net(trained, digits):
    results = trained.results
    assert results.status == "finished"
    assert results.test == accuracy(trained.net, digits.test)
    assert results.validation == accuracy(trained.net, digits.validation)
    assert results.phi[0] == 0
    assert results.self_attack[0] == results.test
    assert results.self_attack[-1] < results.test  # noise of 0.1 hurts any net this small


def test_a_name_of_its_own(digits, tmp_path):
    run = make_run(QUICK, digits, tmp_path, name="my first")
    assert run.path == tmp_path / "digits" / "my first"
    assert load_run(run.path).name == "my first"
    assert names_in(tmp_path / "digits") == ["my first"]  # and nothing hidden beside it


def test_an_existing_run_is_not_touched(digits, tmp_path):
    make_run(QUICK, digits, tmp_path)
    before = tree(tmp_path)
    with pytest.raises(NnliteError, match=r"rect exists.*--name.*--overwrite"):
        make_run(replace(QUICK, seed=1), digits, tmp_path)
    assert tree(tmp_path) == before


def test_overwrite_replaces_all_of_a_run(digits, tmp_path):
    old = make_run(QUICK, digits, tmp_path)
    (old.path / "notes.txt").write_text("of the old run")
    new = make_run(replace(QUICK, seed=1), digits, tmp_path, overwrite=True)
    assert load_run(old.path).settings.seed == 1
    assert weights(load_run(old.path)) == weights(new)
    assert names_in(new.path) == sorted([*FILES, SUMS])
    assert names_in(tmp_path / "digits") == ["rect"]


# --- what cannot be written


@pytest.mark.parametrize("name", ["a/b", "/a", "../a", "..", ".", ".hidden", "", "x" * 300])
def test_a_name_that_is_no_plain_folder_name_is_refused_before_training(digits, tmp_path, name):
    with pytest.raises(NnliteError, match=r"^name: "):
        make_run(QUICK, digits, tmp_path, name=name, on_epoch=lambda _: pytest.fail("trained all the same"))
    assert tree(tmp_path) == {}


def test_a_long_name_is_refused_or_written(digits, tmp_path):
    # 255 bytes is the limit of most file systems; the folder is first written under a longer, hidden name
    try:
        run = make_run(QUICK, digits, tmp_path, name="x" * 250)
    except NnliteError:
        return
    assert load_run(run.path).name == "x" * 250


def test_a_runs_folder_that_cannot_be_written_is_refused_before_training(digits, tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(NnliteError, match=r"^runs: cannot write to .*--runs"):
        make_run(QUICK, digits, tmp_path / "runs", on_epoch=lambda _: pytest.fail("trained all the same"))
    assert tree(tmp_path) == {"runs": b"a file"}


def test_a_disk_that_fails_leaves_nothing_behind_and_the_old_run_in_place(digits, tmp_path, monkeypatch):
    make_run(QUICK, digits, tmp_path)
    before = tree(tmp_path)

    def full(*_args, **_kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nnlite.storage.files.os.fsync", full)
    with pytest.raises(NnliteError, match=r"rect: cannot write the run \(No space left on device\)"):
        make_run(replace(QUICK, seed=1), digits, tmp_path, overwrite=True, checkpoint_every=0)
    assert tree(tmp_path) == before


# --- trainings that end early


def test_a_divergence_in_the_first_epoch_writes_nothing(digits, tmp_path):
    with pytest.raises(DivergedError, match=r"epoch 1: .*--lr 100000"):
        make_run(DIVERGES_AT_ONCE, digits, tmp_path)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
    assert list_runs(tmp_path) == []


def test_a_divergence_does_not_cost_the_run_it_would_have_replaced(digits, tmp_path):
    make_run(QUICK, digits, tmp_path)
    before = tree(tmp_path)
    with pytest.raises(DivergedError):
        make_run(DIVERGES_AT_ONCE, digits, tmp_path, overwrite=True)
    assert tree(tmp_path) == before


def test_a_later_divergence_is_kept_with_its_status(digits, tmp_path):
    run = load_run(make_run(DIVERGES_LATER, digits, tmp_path).path)
    assert run.results.status == "diverged"
    assert 0 < len(run.history) < 20
    assert accuracy(run.net, digits.test) == run.results.test


def test_a_run_that_was_written_can_be_read_even_where_its_net_overflowed(digits, tmp_path):
    # one step an epoch: its loss is finite, the weights after it are not
    with pytest.raises(DivergedError):
        make_run(Settings(hidden=(16,), epochs=2, lr=1e39, batch_size=2000), digits, tmp_path)
    assert list_runs(tmp_path) == []


def test_an_interrupted_run_is_kept_with_its_status(digits, tmp_path):
    def stop(epoch):
        raise KeyboardInterrupt

    run = load_run(make_run(QUICK, digits, tmp_path, on_epoch=stop).path)
    assert run.results.status == "interrupted"
    assert len(run.history) == 1


def test_an_interrupt_before_the_first_epoch_ends_writes_nothing(digits, tmp_path, monkeypatch):
    def stop(*_args, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr("nnlite.training.loop.train_step", stop)
    with pytest.raises(KeyboardInterrupt, match="nothing was saved"):
        make_run(QUICK, digits, tmp_path)
    assert list_runs(tmp_path) == []


def test_ctrl_c_while_a_run_is_written_waits_until_it_is(digits, tmp_path, monkeypatch):
    real = runs.write_run

    def pressed_meanwhile(*args):
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(runs, "write_run", pressed_meanwhile)
    with pytest.raises(KeyboardInterrupt, match="the run is saved"):
        make_run(QUICK, digits, tmp_path)
    (run,) = list_runs(tmp_path)
    assert run.results.status == "finished"


def test_weights_that_come_back_otherwise_from_the_disk_are_an_error(digits, tmp_path, monkeypatch):
    class OneBitOff(io.FileIO):
        def readinto(self, buffer):
            count = super().readinto(buffer)
            if count:
                memoryview(buffer).cast("B")[count - 1] ^= 1
            return count

    real = Path.open

    def opened(path, *args, **options):
        return io.BufferedRandom(OneBitOff(path, "w+")) if path.name == WEIGHTS else real(path, *args, **options)

    monkeypatch.setattr(Path, "open", opened)
    with pytest.raises(NnliteError, match="the arrays read back differ from those written; check the disk"):
        make_run(QUICK, digits, tmp_path, checkpoint_every=0)
    assert list_runs(tmp_path) == []


def test_a_divergence_where_lambda_is_above_phi_is_told_so():
    assert advice(Settings(lr=0.5)) == "Try a smaller learning rate, such as --lr 0.05"
    assert advice(Settings(reg="dgl1", lam=0.2, phi=0.1)).endswith("the clean gradient has a negative weight here")
    terms = Settings(reg="datagrad", term=("l1,0.06,0.1", "l2,0.05,0.1"))
    assert advice(terms).endswith("the clean gradient has a negative weight here")
    for settled in (
        Settings(reg="dgl1", lam=0.1, phi=0.1),
        Settings(reg="miyato", lam=1.0, phi=0.1),  # lambda is beside the divergence, and takes nothing off
        Settings(reg="trades", lam=6.0, phi=0.1, steps=5),
    ):
        assert "negative" not in advice(settled)


# --- damaged folders


def is_refused(folder, words=None):
    with pytest.raises(NnliteError, match=words) as caught:
        load_run(folder)
    assert str(caught.value).startswith(f"{folder}: ")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copied, name):
    (copied / name).unlink()
    is_refused(copied, f"{name} is missing")


@pytest.mark.parametrize("name", FILES)
def test_an_empty_file_is_refused(copied, name):
    (copied / name).write_bytes(b"")
    is_refused(copied)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_short_is_refused(copied, name):
    content = (copied / name).read_bytes()
    # the history is cut between two numbers of its last line, so that a value is missing
    end = content.rindex(b",") if name == HISTORY else len(content) // 2
    (copied / name).write_bytes(content[:end])
    is_refused(copied)


@pytest.mark.parametrize("name", FILES)
def test_a_file_of_other_bytes_is_refused(copied, name):
    (copied / name).write_bytes(bytes(range(256)) * 1000)
    is_refused(copied)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "{}"])
@pytest.mark.parametrize("name", [SETTINGS, RESULTS])
def test_json_of_another_kind_is_refused(copied, name, content):
    (copied / name).write_text(content)
    is_refused(copied)


def change_json(path, change):
    content = json.loads(path.read_text("utf-8"))
    change(content)
    path.write_text(json.dumps(content), "utf-8")


@pytest.mark.parametrize(
    "numbers",
    [
        {"reg": "datagrad", "term": ("l1,0.01,0.1", "linf,1,exact")},
        {"reg": "lyu", "phi": 0.1, "p": "inf"},
        {"reg": "dgl2", "lam": 0.1, "gradient": "exact"},
    ],
)
def test_the_options_of_every_method_are_kept(digits, tmp_path, numbers):
    settings = Settings(hidden=(4,), epochs=1, **numbers)
    assert load_run(make_run(settings, digits, tmp_path).path).settings == settings


def test_a_run_of_an_older_version_is_read_as_what_it_did(copied):
    def forget(content):
        content["settings"] = {name: content["settings"][name] for name in REQUIRED}
        del content["format"]

    before = load_run(copied).settings
    change_json(copied / SETTINGS, forget)
    assert load_run(copied).settings == before


@pytest.mark.parametrize("key", sorted(REQUIRED))
def test_a_missing_setting_is_refused_and_not_guessed(copied, key):
    change_json(copied / SETTINGS, lambda content: content["settings"].pop(key))
    is_refused(copied, key)


@pytest.mark.parametrize("key", ["status", "best_epoch", "validation", "test", "phi", "self_attack"])
def test_a_missing_result_is_refused(copied, key):
    change_json(copied / RESULTS, lambda content: content.pop(key))
    is_refused(copied, key)


def test_an_unknown_setting_is_refused(copied):
    change_json(copied / SETTINGS, lambda content: content["settings"].update(momentum=0.9))
    is_refused(copied, "momentum")


@pytest.mark.parametrize("wrong", [{"reg": "dgl9"}, {"phi": -1}, {"hidden": [0]}, {"lr": "fast"}, {"hidden": 16}])
def test_wrong_settings_are_refused(copied, wrong):
    change_json(copied / SETTINGS, lambda content: content["settings"].update(wrong))
    is_refused(copied)


@pytest.mark.parametrize("hidden", [[17], [16, 16], []])
def test_settings_of_another_net_are_refused(copied, hidden):
    change_json(copied / SETTINGS, lambda content: content["settings"].update(hidden=hidden))
    is_refused(copied)


@pytest.mark.parametrize(
    ("key", "array"),
    [
        ("dense0.W", np.full((64, 16), np.nan, np.float32)),
        ("dense1.b", np.full(10, np.inf, np.float32)),
        ("dense0.W", np.zeros(16, np.float32)),
        ("dense0.W", np.zeros((2, 64, 16), np.float32)),
        ("dense0.b", np.zeros(3, np.float32)),
        ("dense0.b", np.zeros((), np.float32)),
        ("dense1.W", np.zeros((17, 10), np.float32)),
        ("dense1.W", np.zeros((16, 10), np.int32)),
        ("dense2.W", np.zeros((10, 10), np.float32)),
    ],
    ids=["NaN", "inf", "1-d W", "3-d W", "b too short", "0-d b", "W of other rows", "integers", "an extra layer"],
)
def test_weights_that_make_no_net_are_refused(copied, key, array):
    arrays = {**safetensors.numpy.load_file(copied / WEIGHTS), key: array}
    safetensors.numpy.save_file(arrays, copied / WEIGHTS)
    is_refused(copied)


def test_weights_without_an_array_are_refused(copied):
    arrays = safetensors.numpy.load_file(copied / WEIGHTS)
    del arrays["dense1.b"]
    safetensors.numpy.save_file(arrays, copied / WEIGHTS)
    is_refused(copied, r"dense1\.b")


ADVICE = re.compile(r"\b(dele|remov|eras|drop|discard|overwrit)\w*")


def test_no_message_advises_to_destroy_anything():
    """Those that name --overwrite say what it does, and offer a choice."""
    root = Path(__file__).parents[2]
    for path in (*(root / "nnlite").rglob("*.py"), *(root / "cli").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Raise):
                said = "".join(str(one.value) for one in ast.walk(node) if isinstance(one, ast.Constant))
                if ADVICE.search(said):
                    assert "choose" in said, f"{path}: {said}"


# --- finding runs


def test_runs_are_listed_by_method_then_lambda_then_phi(digits, tmp_path):
    chosen = [
        replace(DGL1, reg="dgl2"),
        replace(DGL1, lam=0.1),
        replace(DGL1, phi=0.05),
        replace(QUICK, reg="l2", lam=0.01),
        QUICK,
    ]
    for settings in chosen:
        make_run(settings, digits, tmp_path)
    make_run(QUICK, digits, tmp_path, name="a-second-rect")
    make_run(DGL1, digits, tmp_path, name="z-by-name-but-not-by-lambda")
    assert [run.name for run in list_runs(tmp_path)] == [
        "a-second-rect",
        "rect",
        "l2-lam0.01",
        "dgl1-lam0.01-phi0.05",
        "z-by-name-but-not-by-lambda",
        "dgl1-lam0.1-phi0.1",
        "dgl2-lam0.01-phi0.1",
    ]
    assert list_runs(tmp_path, "mnist") == []


def test_there_are_no_runs_in_a_folder_that_is_not_there(tmp_path):
    assert list_runs(tmp_path / "nowhere") == []


def test_hidden_folders_and_files_are_no_runs(copied, tmp_path):
    shutil.copytree(copied, copied.parent / ".half-written")
    (copied.parent / "notes.txt").write_text("a file")
    (tmp_path / "notes.txt").write_text("a file")
    assert [run.name for run in list_runs(tmp_path)] == ["copied"]


@pytest.fixture
def shared(copied, tmp_path):
    """A folder with one run, beside what others keep in a folder of this name, and a run that is copied in part."""
    for file in ("detect/train/args.yaml", "detect/train/weights/best.pt", "Nov28_host/events.out.tfevents.1", "mine"):
        path = tmp_path / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("of another program")
    shutil.copytree(copied, copied.parent / "half")
    (copied.parent / "half" / HISTORY).unlink()
    (copied.parent / "cut").mkdir()
    for file in FILES:
        content = (copied / file).read_bytes()
        (copied.parent / "cut" / file).write_bytes(content[:-9] if file == WEIGHTS else content)
    return tmp_path


@pytest.mark.parametrize("listed", [list_runs, list_records])
def test_what_is_no_run_or_a_part_of_one_is_skipped_and_said_once(shared, caplog, listed):
    before = tree(shared)
    assert [run.name for run in listed(shared)] == ["copied"]
    foreign, cut, half = caplog.messages
    none = "no run of nnlite, it holds none of settings.json, history.csv, results.json, weights.safetensors"
    assert foreign == f"skipped: {shared}/detect/train: {none}"
    assert cut.startswith(f"skipped: {shared}/digits/cut: the run folder is damaged ({shared}/digits/cut/{WEIGHTS}: ")
    assert half == (
        f"skipped: {shared}/digits/half: the run folder is damaged (history.csv is missing); "
        "copy it again as a whole, or move it away and train it again"
    )
    assert tree(shared) == before


@pytest.mark.parametrize("kept", ["", WEIGHTS, SETTINGS], ids=["the folder", "its weights", "its settings"])
def test_what_may_not_be_read_is_named_and_stops_nothing_else(copied, tmp_path, monkeypatch, kept):
    secret = shutil.copytree(copied, copied.parent / "secret") / kept
    checkpoint = shutil.copy(copied / WEIGHTS, copied.parent / ".secret.checkpoint")
    close(monkeypatch, str(secret), str(checkpoint))
    found = check_runs(tmp_path, None, lambda done, total: None)
    assert found[0] == (copied, True, "")
    assert found[1] == (secret if not kept else secret.parent, False, f"{copied.parent}/secret: {CLOSED}")
    with pytest.raises(NnliteError, match="there are copied"):
        find_run("nope", "digits", tmp_path)
    with pytest.raises(NnliteError, match=re.escape(f"{checkpoint}: {CLOSED}")):
        epochs_done(checkpoint)


CLOSED = "cannot be read (Permission denied); it belongs to another user"


def test_what_is_no_run_is_not_replaced_by_one(shared, digits):
    before = tree(shared)
    (shared / "detect").rename(shared / "digits" / "detect")
    for overwrite in (False, True):
        with pytest.raises(NnliteError, match=r"digits/detect (exists|is no run of nnlite).*choose another --name"):
            make_run(QUICK, digits, shared, name="detect", overwrite=overwrite)
    (shared / "digits" / "detect").rename(shared / "detect")
    assert tree(shared) == before


def test_a_run_is_found_by_name(copied, tmp_path):
    assert find_run("copied", "digits", tmp_path).path == copied


def test_a_run_is_found_by_path(copied, tmp_path, monkeypatch):
    assert find_run(str(copied), "digits", tmp_path / "other").path == copied
    monkeypatch.chdir(tmp_path)
    assert find_run("digits/copied", "mnist", tmp_path / "other").name == "copied"


@pytest.mark.parametrize("name", ["nope", "", ".", "..", "copied/nope", "x" * 300])
def test_an_unknown_run_lists_those_that_there_are(copied, tmp_path, name):
    with pytest.raises(NnliteError, match=r"^run: .*there are copied"):
        find_run(name, "digits", tmp_path)


def test_where_there_are_no_runs_the_error_says_how_to_make_one(tmp_path):
    with pytest.raises(NnliteError, match=r"none on digits.*nnlite train"):
        find_run("rect", "digits", tmp_path)
