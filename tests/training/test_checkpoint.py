"""The checkpoint: resumed, a training ends with the bits of one that was never stopped; and one process at a time."""

import errno
import fcntl
import json
import logging
import os
import resource
import shutil
import signal
import threading
import time
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import threadpoolctl
from kills import content, run

from nnlite.errors import NnliteError
from nnlite.storage import files
from nnlite.storage.files import beside, new_file, new_files, new_folder, recover
from nnlite.storage.locks import lock, locks
from nnlite.training import runs as training_runs
from nnlite.training.checkpoint import KEY, checkpoint_of, epochs_done, read_checkpoint, write_checkpoint
from nnlite.training.loop import train
from nnlite.training.run_folder import load_run
from nnlite.training.runs import list_runs, list_unfinished
from nnlite.training.settings import Settings

pytestmark = pytest.mark.once

QUICK = Settings(hidden=(16,), epochs=6, lr=1.0)  # its best epoch is not its last
DGL1 = Settings(reg="dgl1", lam=0.01, phi=0.1, hidden=(16, 8), epochs=4)


def make_run(settings, data, folder, **more):
    """Train a run that has the name of its method alone, whatever else differs from the defaults."""
    return training_runs.make_run(settings, data, folder, **{"name": settings.method_name, **more})


class KilledError(Exception):
    """Ends a training without a word, as a kill would."""


def kill_after(number):
    def on_epoch(epoch):
        if epoch.epoch == number:
            raise KilledError

    return on_epoch


def stop(settings, data, runs, after, **more):
    """Train and stop after an epoch; return the checkpoint."""
    with pytest.raises(KilledError):
        make_run(settings, data, runs, on_epoch=kill_after(after), **more)
    return checkpoint_of(runs / "digits" / settings.method_name)


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


def bits(net):
    return [array.tobytes() for layer in net.all_layers for array in layer.parameters.values()]


@pytest.fixture
def stopped(digits, tmp_path):
    """The checkpoint of a training that was stopped after its fourth epoch."""
    return stop(QUICK, digits, tmp_path, 4)


# --- resume


@pytest.mark.parametrize(
    "settings",
    [
        QUICK,
        DGL1,
        replace(QUICK, reg="l2", lam=0.01),
        replace(QUICK, reg="miyato", lam=1.0, phi=0.1),
        replace(DGL1, gradient="exact", phi=None),
        replace(QUICK, multitask=True, gamma=0.5, epochs=4),
        Settings(hidden=(), epochs=4),
        replace(QUICK, decay=0.7, patience=4),
    ],
    ids=lambda settings: settings.method_name,
)
def test_resumed_it_ends_with_the_same_files(digits, tmp_path, monkeypatch, settings):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    few = replace(digits, train=digits.train[:330])
    make_run(settings, few, tmp_path / "whole" / "runs")
    runs, told = tmp_path / "parts" / "runs", []
    stop(settings, few, runs, 1)
    stop(settings, few, runs, 3, resume=True)
    make_run(settings, few, runs, resume=True, on_epoch=lambda epoch: told.append(epoch.epoch))
    assert told == list(range(4, settings.epochs + 1))
    assert content(tmp_path / "parts") == content(tmp_path / "whole")
    assert names_in(runs / "digits") == [settings.method_name]


def test_a_checkpoint_is_read_as_it_was_written(digits, tmp_path):
    kept = {}

    def on_checkpoint(state):
        if state.epoch == 5:
            write_checkpoint(tmp_path / "checkpoint", QUICK, state)
            kept.update(last=bits(state.last), best=bits(state.trained.net), history=[*state.trained.history])

    train(QUICK, digits, on_checkpoint=on_checkpoint)
    state = read_checkpoint(tmp_path / "checkpoint", QUICK)
    assert (bits(state.last), bits(state.trained.net), state.trained.history) == tuple(kept.values())
    assert kept["last"] != kept["best"]  # or this would not tell them apart
    assert state.trained.best == max(kept["history"], key=lambda epoch: (epoch.validation, epoch.epoch))
    assert epochs_done(tmp_path / "checkpoint") == (5, 6)


def test_a_checkpoint_every_few_epochs_or_never(digits, tmp_path):
    for every, epochs in [(3, 3), (2, 4), (5, 5)]:
        assert epochs_done(stop(QUICK, digits, tmp_path / str(every), 5, checkpoint_every=every))[0] == epochs
    assert not stop(QUICK, digits, tmp_path / "never", 5, checkpoint_every=0).exists()
    assert names_in(tmp_path / "never" / "digits") == []


def test_what_resume_does_is_said(digits, tmp_path):
    said = []
    go_on = {"resume": True, "on_message": said.append}
    stop(QUICK, digits, tmp_path, 2, **go_on)
    assert said.pop() == "no checkpoint: beginning with epoch 1"
    run = make_run(QUICK, digits, tmp_path, **go_on)
    assert said.pop() == "going on after epoch 2"
    before = (run.path / "history.csv").read_bytes()
    assert bits(make_run(QUICK, digits, tmp_path, **go_on).net) == bits(run.net)
    assert said.pop() == f"{run.path} is finished: there is nothing to do"
    assert (run.path / "history.csv").read_bytes() == before
    assert said == []


def test_a_checkpoint_is_not_passed_over(stopped, digits, tmp_path):
    before = stopped.read_bytes()
    with pytest.raises(NnliteError, match=r"rect was stopped; go on with --resume, or choose another --name"):
        make_run(QUICK, digits, tmp_path)
    assert stopped.read_bytes() == before
    assert make_run(replace(QUICK, seed=1), digits, tmp_path, overwrite=True).settings.seed == 1
    assert names_in(tmp_path / "digits") == ["rect"]


def test_overwrite_begins_with_nothing_that_was_there(stopped, digits, tmp_path):
    beside(stopped, "new").write_bytes(b"half a checkpoint")
    stop(QUICK, digits, tmp_path, 1, overwrite=True, checkpoint_every=2)
    assert names_in(tmp_path / "digits") == []


def test_a_run_or_a_checkpoint_of_other_settings_is_not_resumed(stopped, digits, tmp_path):
    other = replace(QUICK, lr=0.5, seed=3)
    with pytest.raises(NnliteError, match=r"checkpoint is of another training \(lr 1.0, not 0.5; seed 0, not 3\)"):
        make_run(other, digits, tmp_path, resume=True)
    make_run(QUICK, digits, tmp_path, resume=True)
    with pytest.raises(NnliteError, match=r"rect is of another training \(lr 1.0, not 0.5; seed 0, not 3\)"):
        make_run(other, digits, tmp_path, resume=True)


def test_an_interrupted_run_is_resumed_and_replaced(digits, tmp_path):
    def interrupt(epoch):
        if epoch.epoch == 2:
            raise KeyboardInterrupt

    assert make_run(QUICK, digits, tmp_path / "runs", on_epoch=interrupt).results.status == "interrupted"
    assert names_in(tmp_path / "runs" / "digits") == [".rect.checkpoint", "rect"]
    assert list_unfinished(tmp_path / "runs") == [tmp_path / "runs" / "digits" / "rect"]
    make_run(QUICK, digits, tmp_path / "runs", resume=True)
    make_run(QUICK, digits, tmp_path / "whole" / "runs")
    assert (
        content(tmp_path)["runs/digits/rect/weights.safetensors"]
        == (content(tmp_path / "whole")["runs/digits/rect/weights.safetensors"])
    )
    assert list_unfinished(tmp_path / "runs") == []


def test_a_divergence_ends_a_training_and_its_checkpoint(digits, tmp_path):
    diverges = Settings(reg="l2", lam=200.0, lr=1.0, hidden=(16,), epochs=20)
    stop(diverges, digits, tmp_path, 2)
    assert make_run(diverges, digits, tmp_path, resume=True).results.status == "diverged"
    assert names_in(tmp_path / "digits") == ["l2-lam200"]
    assert make_run(diverges, digits, tmp_path, resume=True).results.status == "diverged"


# --- more epochs


@pytest.fixture
def original(monkeypatch):
    """The real make_run, which names a run by all its settings."""
    return training_runs.make_run


@pytest.mark.parametrize(
    "settings",
    [
        QUICK,
        replace(DGL1, decay=0.9),
        replace(QUICK, reg="miyato", lam=1.0, phi=0.1),
        replace(QUICK, multitask=True, gamma=0.5, epochs=4),
    ],
    ids=lambda settings: settings.method_name,
)
@pytest.mark.parametrize("name", [None, "mine"])
def test_a_finished_run_goes_on_to_the_bits_of_a_longer_one(digits, tmp_path, monkeypatch, original, settings, name):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    few, told, said = replace(digits, train=digits.train[:330]), [], []
    longer = replace(settings, epochs=settings.epochs + 3)
    original(longer, few, tmp_path / "whole" / "runs", name=name)
    runs = tmp_path / "parts" / "runs"
    short = original(settings, few, runs, name=name)
    run = original(
        longer, few, runs, name=name, resume=True,
        on_epoch=lambda epoch: told.append(epoch.epoch), on_message=said.append,
    )  # fmt: skip
    assert told == list(range(settings.epochs + 1, longer.epochs + 1))
    assert run.name == name or run.name == longer.run_name
    whole, parts = content(tmp_path / "whole"), content(tmp_path / "parts")
    assert whole.items() <= parts.items()
    assert names_in(runs / "digits") == sorted({short.name, run.name})  # without a name both are there
    kept = f" of {short.path}, which is kept" if name is None else ""
    assert said == [f"going on after epoch {settings.epochs}{kept}"]


def test_a_run_that_came_to_rest_stays_at_rest_with_more_epochs(digits, tmp_path):
    patient = replace(QUICK, epochs=40, patience=2)
    short = make_run(patient, digits, tmp_path / "parts" / "runs")
    assert len(short.history) < 40
    longer = replace(patient, epochs=50)
    make_run(longer, digits, tmp_path / "parts" / "runs", resume=True, on_epoch=lambda _: pytest.fail("trained on"))
    make_run(longer, digits, tmp_path / "whole" / "runs")
    assert content(tmp_path / "parts") == content(tmp_path / "whole")


def test_the_last_net_is_kept_where_another_one_is_the_best(digits, tmp_path):
    run = make_run(QUICK, digits, tmp_path)
    assert run.results.best_epoch < QUICK.epochs
    assert "last.safetensors" in names_in(run.path)
    one = make_run(replace(QUICK, epochs=run.results.best_epoch), digits, tmp_path, name="one")
    assert "last.safetensors" not in names_in(one.path)


def test_a_stopped_training_goes_on_to_more_epochs(digits, tmp_path, original):
    longer = replace(QUICK, epochs=9)
    with pytest.raises(KilledError):
        original(QUICK, digits, tmp_path, on_epoch=kill_after(4))
    told = []
    run = original(longer, digits, tmp_path, resume=True, on_epoch=lambda epoch: told.append(epoch.epoch))
    assert told == [5, 6, 7, 8, 9]
    assert bits(run.net) == bits(train(longer, digits).net)
    assert checkpoint_of(tmp_path / "digits" / QUICK.run_name).exists()  # that training is not over


def test_the_run_that_came_furthest_goes_on(digits, tmp_path, original):
    for epochs in (2, 5, 3):
        original(replace(QUICK, epochs=epochs), digits, tmp_path)
    original(replace(QUICK, epochs=6, seed=1), digits, tmp_path)
    with pytest.raises(KilledError):
        original(QUICK, digits, tmp_path, on_epoch=kill_after(1))
    said = []
    original(replace(QUICK, epochs=7), digits, tmp_path, resume=True, on_message=said.append)
    assert said == [f"going on after epoch 5 of {tmp_path}/digits/rect-hidden16-lr1-epochs5, which is kept"]


def test_a_run_without_its_last_net_is_refused_in_plain_words(digits, tmp_path):
    run = make_run(QUICK, digits, tmp_path)
    (run.path / "last.safetensors").unlink()  # 0.1.0 wrote none
    said = r"rect keeps the net of its best epoch, \d of 6, but not that of the last, as 0\.1\.0 wrote it; train all 9"
    with pytest.raises(NnliteError, match=said):
        make_run(replace(QUICK, epochs=9), digits, tmp_path, resume=True)
    assert load_run(run.path).settings == QUICK


def test_fewer_epochs_or_a_run_that_diverged_are_no_beginning(digits, tmp_path):
    make_run(QUICK, digits, tmp_path)
    with pytest.raises(NnliteError, match=r"is of another training \(epochs 6, not 4\)"):
        make_run(replace(QUICK, epochs=4), digits, tmp_path, resume=True)
    diverges = Settings(reg="l2", lam=200.0, lr=1.0, hidden=(16,), epochs=20)
    make_run(diverges, digits, tmp_path)
    with pytest.raises(NnliteError, match=r"l2-lam200 diverged in epoch \d+: it has no more epochs\. Try a smaller"):
        make_run(replace(diverges, epochs=30), digits, tmp_path, resume=True)


def test_a_finished_run_leaves_the_checkpoint_of_more_epochs_alone(digits, tmp_path):
    make_run(QUICK, digits, tmp_path)
    checkpoint = stop(replace(QUICK, epochs=9), digits, tmp_path, 8, resume=True)
    make_run(QUICK, digits, tmp_path, resume=True)
    assert epochs_done(checkpoint) == (8, 9)
    told = []
    make_run(replace(QUICK, epochs=9), digits, tmp_path, resume=True, on_epoch=lambda epoch: told.append(epoch.epoch))
    assert told == [9]


@pytest.mark.parametrize(
    "change", [lambda arrays: arrays.pop("dense0.b"), lambda arrays: arrays["dense0.W"].fill(np.nan)]
)
def test_a_damaged_last_net_is_refused(digits, tmp_path, change):
    run = make_run(QUICK, digits, tmp_path)
    arrays = safetensors.numpy.load_file(run.path / "last.safetensors")
    change(arrays)
    safetensors.numpy.save_file(arrays, run.path / "last.safetensors")
    with pytest.raises(NnliteError, match="rect: the run folder is damaged"):
        make_run(replace(QUICK, epochs=9), digits, tmp_path, resume=True)


def test_a_run_of_a_grid_goes_on_too(nnlite, digits, original):
    assert nnlite("grid", "--hidden", 16, "--lr", "1.0,0.5", "--epochs", 6, "--jobs", 1, "--stack", 2).exit_code == 0
    run = original(replace(QUICK, epochs=9), digits, Path("runs"), resume=True)
    assert bits(run.net) == bits(train(replace(QUICK, epochs=9), digits).net)


# --- what a checkpoint says


def test_another_version_or_number_of_threads_is_said(digits, tmp_path, caplog):
    with threadpoolctl.threadpool_limits(1):
        checkpoint = stop(QUICK, digits, tmp_path, 4)
        read_checkpoint(checkpoint, QUICK)
    assert caplog.messages == []
    with threadpoolctl.threadpool_limits(3):
        read_checkpoint(checkpoint, QUICK)
    said = "the checkpoint was written with 1, and this is 3: sums may be rounded otherwise"
    assert caplog.messages == [f"BLAS threads: {said}"]
    caplog.clear()
    edit(checkpoint, lambda arrays, record: record["versions"].update(numpy="1.26.4", BLAS="mkl 2025 avx2"))
    with threadpoolctl.threadpool_limits(1):
        read_checkpoint(checkpoint, QUICK)
    assert [message.partition(", and")[0] for message in caplog.messages] == [
        "numpy: the checkpoint was written with 1.26.4",
        "BLAS: the checkpoint was written with mkl 2025 avx2",
    ]


def edit(path, change):
    arrays = safetensors.numpy.load_file(path)
    with safetensors.safe_open(path, "np") as file:
        record = json.loads(file.metadata()[KEY])
    change(arrays, record)
    safetensors.numpy.save_file(arrays, path, {KEY: json.dumps(record)})


@pytest.mark.parametrize(
    "change",
    [
        lambda arrays, record: record.pop("versions"),
        lambda arrays, record: record.update(versions=3),
        lambda arrays, record: record.update(settings=[]),
        lambda arrays, record: record.update(best=7),
        lambda arrays, record: record.update(best=None),
        lambda arrays, record: arrays.pop("history"),
        lambda arrays, record: arrays.update(history=np.zeros((4, 3))),
        lambda arrays, record: arrays.update(history=np.zeros(4)),
        lambda arrays, record: arrays.update(history=np.full((4, 4), np.nan)),
        lambda arrays, record: arrays.update(history=np.full((4, 4), np.inf)),
        lambda arrays, record: arrays.pop("last.dense0.b"),
        lambda arrays, record: arrays.pop("best.dense1.W"),
        lambda arrays, record: arrays["last.dense1.W"].fill(np.nan),
        lambda arrays, record: arrays.update({"best.dense0.W": np.zeros((64, 17), np.float32)}),
        lambda arrays, record: arrays.update({"last.dense2.W": np.zeros((10, 10), np.float32)}),
    ],
)
def test_a_damaged_checkpoint_is_refused(stopped, digits, tmp_path, change):
    edit(stopped, change)
    with pytest.raises(NnliteError, match=r"checkpoint( is damaged.*; copy it again, or move it away| is of another)"):
        make_run(QUICK, digits, tmp_path, resume=True)


def test_a_checkpoint_cut_off_anywhere_is_refused(stopped):
    whole = stopped.read_bytes()
    for length in [*range(0, 60), *range(60, len(whole), 997)]:
        stopped.write_bytes(whole[:length])
        with pytest.raises(NnliteError, match="the checkpoint is damaged"):
            read_checkpoint(stopped, QUICK)
        with pytest.raises(NnliteError, match="the checkpoint is damaged"):
            epochs_done(stopped)


# --- a disk that fails


@contextmanager
def no_file_larger_than(size):
    """Have the kernel refuse to write more: a file of that size stands there, cut off, as on a disk that is full."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)


def test_a_disk_that_fills_up_within_a_checkpoint_leaves_the_last_one(stopped, digits, tmp_path):
    before = stopped.read_bytes()
    with no_file_larger_than(len(before) // 2), pytest.raises(NnliteError) as caught:
        make_run(QUICK, digits, tmp_path, resume=True)
    assert f"{stopped}: cannot write the checkpoint of epoch 5 (File too large); make room" in str(caught.value)
    assert stopped.read_bytes() == before
    assert names_in(tmp_path / "digits") == [".rect.checkpoint"]
    make_run(QUICK, digits, tmp_path, resume=True)
    assert bits(load_run(tmp_path / "digits" / "rect").net) == bits(train(QUICK, digits).net)


def test_a_disk_that_fills_up_within_a_run_leaves_the_old_one_and_the_checkpoint(digits, tmp_path):
    old = make_run(replace(QUICK, seed=1), digits, tmp_path)
    before = {path: path.read_bytes() for path in old.path.iterdir()}
    checkpoint = stop(QUICK, digits, tmp_path, 6, overwrite=True)
    with no_file_larger_than(2000), pytest.raises(NnliteError, match=r"rect: cannot write the run \(File too large\)"):
        make_run(QUICK, digits, tmp_path, resume=True)
    assert {path: path.read_bytes() for path in old.path.iterdir()} == before
    assert epochs_done(checkpoint) == (6, 6)
    assert make_run(QUICK, digits, tmp_path, resume=True).settings == QUICK
    assert names_in(tmp_path / "digits") == ["rect"]


@pytest.mark.parametrize(
    ("call", "number"),
    # renames: the checkpoint, the old run away, the new one in; fsync: of each file and folder before and after
    [*(("replace", number) for number in range(1, 4)), *(("fsync", number) for number in range(1, 10))],
)
def test_whichever_call_fails_there_is_a_run_and_the_training_goes_on(digits, tmp_path, monkeypatch, call, number):
    old = make_run(replace(QUICK, epochs=1), digits, tmp_path)
    new = replace(QUICK, epochs=1, seed=1)
    real, calls = getattr(os, call), []

    def fails(*args):
        calls.append(args)
        if len(calls) == number:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return real(*args)

    with monkeypatch.context() as patch:
        patch.setattr(f"nnlite.storage.files.os.{call}", fails)
        patch.setattr("nnlite.storage.files.exchange", lambda *_: False)
        with pytest.raises(NnliteError, match="No space left on device"):
            make_run(new, digits, tmp_path, overwrite=True)
    assert [run.path for run in list_runs(tmp_path)] == [old.path]
    assert set(names_in(tmp_path / "digits")) <= {"rect", ".rect.checkpoint"}
    go_on = {"resume": True} if checkpoint_of(old.path).exists() else {"overwrite": True}
    assert make_run(new, digits, tmp_path, **go_on).settings == new


def test_what_is_renamed_was_brought_to_the_disk_before_and_the_name_after(digits, tmp_path, monkeypatch):
    events = []
    real = {"fsync": os.fsync, "replace": os.replace}

    def fsync(number):
        events.append(("fsync", os.path.basename(os.readlink(f"/proc/self/fd/{number}"))))
        real["fsync"](number)

    def replaced(one, other):
        events.append(("rename", one.name))
        real["replace"](one, other)

    monkeypatch.setattr("nnlite.storage.files.os.fsync", fsync)
    monkeypatch.setattr("nnlite.storage.files.os.replace", replaced)
    make_run(replace(QUICK, epochs=1), digits, tmp_path)
    new = ".rect.checkpoint"
    assert events.pop(0) == ("fsync", tmp_path.name)  # that the folder digits is there
    assert events[:3] == [("fsync", new), ("rename", new), ("fsync", "digits")]
    files = ["SHA256SUMS", "history.csv", "results.json", "settings.json", "weights.safetensors"]
    assert sorted(events[3:8]) == [("fsync", name) for name in files]
    assert events[8:] == [("fsync", ".rect.new"), ("rename", ".rect.new"), ("fsync", "digits")]


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_file_or_folder_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch, in_one_step):
    if not in_one_step:
        monkeypatch.setattr("nnlite.storage.files.exchange", lambda *_: False)
    path = tmp_path / "folder"
    path.mkdir()
    (path / "old").touch()

    def half():
        with new_folder(path) as place:
            (place / "half").touch()
            raise KilledError

    with pytest.raises(KilledError):
        half()
    assert (names_in(tmp_path), names_in(path)) == (["folder"], ["old"])
    with new_folder(path) as place:
        (place / "new").touch()
    assert (names_in(tmp_path), names_in(path)) == (["folder"], ["new"])
    for words in ("one", "two"):
        with new_file(tmp_path / "file", replace=True) as place:
            place.write_text(words)
    assert (names_in(tmp_path), (tmp_path / "file").read_text()) == (["file", "folder"], "two")


def test_files_made_together_all_move_at_the_end_and_the_last_one_last(tmp_path, monkeypatch):
    (tmp_path / "b").write_text("old")
    moved, real = [], os.replace

    def replaced(one, other):
        moved.append(other.name)
        real(one, other)

    def make(stop):
        with new_files(tmp_path, last="b") as place:
            for name in "abc":
                (place / name).write_text("new")
            assert (tmp_path / "b").read_text() == "old"
            if stop:
                raise KilledError

    monkeypatch.setattr("nnlite.storage.files.os.replace", replaced)
    with pytest.raises(KilledError):
        make(stop=True)
    assert (names_in(tmp_path), moved) == (["b"], [])
    make(stop=False)
    assert (names_in(tmp_path), sorted(moved[:2]), moved[2]) == (["a", "b", "c"], ["a", "c"], "b")
    assert (tmp_path / "b").read_text() == "new"


def test_a_file_written_anew_has_the_permissions_of_any_other(tmp_path):
    (tmp_path / "plain").touch()
    for replace_it in (True, False):
        with new_file(tmp_path / str(replace_it), replace=replace_it) as place:
            place.touch()
    assert len({path.stat().st_mode for path in tmp_path.iterdir()}) == 1


def test_what_a_kill_has_left_is_put_right(tmp_path):
    path = tmp_path / "rect"
    for what in ("old", "new"):  # killed between the two renames
        beside(path, what).mkdir()
        (beside(path, what) / what).touch()
    recover(path)
    assert (names_in(tmp_path), names_in(path)) == (["rect"], ["old"])
    beside(path, "old").mkdir()  # killed after them
    recover(path)
    assert (names_in(tmp_path), names_in(path)) == (["rect"], ["old"])


# --- two at once


def test_a_second_process_is_refused_and_a_dead_one_holds_nothing(digits, tmp_path):
    path = tmp_path / "runs" / "digits" / "rect"
    path.parent.mkdir(parents=True)
    arguments = ["train", "--hidden", "16", "--epochs", "6", "--lr", "1.0", "--name", "rect"]
    with lock(path):
        for more in ([], ["--overwrite"], ["--resume"]):
            assert run([*arguments, *more], tmp_path) == 2
            said = (tmp_path / "output.txt").read_text().splitlines()[-1]
            assert said == (
                f"Error: run: runs/digits/rect is being trained by another process (pid {os.getpid()}); "
                f"wait for it, or give this one another place"
            )
    assert run(arguments, tmp_path, before=20) == -signal.SIGKILL
    assert ".rect.lock" in names_in(path.parent)
    assert make_run(QUICK, digits, tmp_path / "runs", resume=True).results.status == "finished"
    assert names_in(path.parent) == ["rect"]


@pytest.mark.parametrize("command", [["grid", "--hidden", 8, "--seed", "0,1,2"], ["reproduce", "fig1", "--hidden", 8]])
def test_a_grid_is_refused_where_another_process_trains_one_of_its_nets(nnlite, tmp_path, command):
    command += ["--epochs", 1, "--jobs", 1]
    plan = json.loads(nnlite("grid", "--hidden", 8, "--seed", "0,1,2", "--epochs", 1, "--dry-run", "--json").stdout)
    one = Path(plan[1]["path"]) if command[0] == "grid" else Path("reproduction/digits/runs/digits/rect-lr0.1-seed0")
    one.parent.mkdir(parents=True)
    with lock(one):
        result = nnlite(*command)
        assert result.exit_code == 2
        assert f"{one} is being trained by another process (pid {os.getpid()})" in result.stderr
    assert names_in(one.parent) == []
    assert nnlite(*command).exit_code == 0


def test_a_grid_may_hold_more_locks_than_the_system_allows_open_files_at_first(tmp_path):
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (128, before[1]))
    try:
        with locks([tmp_path / str(k) for k in range(300)]):
            assert len(names_in(tmp_path)) == 300
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert names_in(tmp_path) == []


def test_a_place_where_no_lock_can_be_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(NnliteError, match=r"^runs: cannot write to .*file \(Not a directory\)"),
        lock(tmp_path / "file" / "a"),
    ):
        pass


def test_of_many_that_want_the_lock_one_at_a_time_has_it(tmp_path):
    inside, most, had, refused = [], [], [], []

    def want():
        for _ in range(300):
            try:
                with lock(tmp_path / "rect"):
                    inside.append(1)
                    most.append(len(inside))
                    had.append(1)
                    inside.pop()
            except NnliteError:
                refused.append(1)

    threads = [threading.Thread(target=want) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (max(most), len(had) + len(refused)) == (1, 1800)
    assert had
    assert names_in(tmp_path) == []


def test_a_lock_file_that_its_last_holder_removed_meanwhile_is_no_lock(tmp_path, monkeypatch):
    real, name = fcntl.flock, beside(tmp_path / "rect", "lock")

    def removed_meanwhile(number, how):
        real(number, how)
        name.unlink()
        monkeypatch.setattr(fcntl, "flock", real)

    monkeypatch.setattr(fcntl, "flock", removed_meanwhile)
    with lock(tmp_path / "rect"):
        assert name.exists()
        with pytest.raises(NnliteError, match="being trained by another process"), lock(tmp_path / "rect"):
            pass


def test_a_file_system_without_locks_is_used_with_a_warning(digits, tmp_path, monkeypatch, caplog):
    def unknown(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unknown)
    with caplog.at_level(logging.WARNING):
        make_run(replace(QUICK, epochs=1), digits, tmp_path)
        with locks([tmp_path / "digits" / str(k) for k in range(3)]):
            pass
    assert caplog.text.count("files cannot be locked there (No locks available); do not train one run twice") == 1
    assert names_in(tmp_path / "digits") == ["rect"]


@pytest.mark.parametrize("name", [".rect.lock", ".rect.new", ".rect.old"])
@pytest.mark.parametrize("target", ["precious.txt", "nothing.txt", "folder"])
def test_a_strangers_link_leads_nowhere(digits, tmp_path, name, target):
    (tmp_path / "precious.txt").write_text("precious")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "kept").write_text("kept")
    (tmp_path / "digits").mkdir()
    (tmp_path / "digits" / name).symlink_to(tmp_path / target)
    with suppress(NnliteError):
        make_run(replace(QUICK, epochs=1), digits, tmp_path)
        assert name != ".rect.lock"
    assert (tmp_path / "precious.txt").read_text() == "precious"
    assert not (tmp_path / "nothing.txt").exists()
    assert names_in(tmp_path / "folder") == ["kept"]
    assert name == ".rect.lock" or names_in(tmp_path / "digits") == ["rect"]


def test_a_lock_that_says_nothing_is_held_by_somebody(tmp_path):
    with lock(tmp_path / "rect"):
        beside(tmp_path / "rect", "lock").write_bytes(b"\xff\xfe")
        with pytest.raises(NnliteError, match=r"by another process \(pid unknown\)"), lock(tmp_path / "rect"):
            pass


# --- read while it is written


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_run_that_is_replaced_is_read_as_one_of_the_two(digits, tmp_path, monkeypatch, in_one_step):
    if not in_one_step:
        monkeypatch.setattr("nnlite.storage.files.exchange", lambda *_: False)
    models = [replace(QUICK, epochs=1, seed=seed) for seed in (0, 1)]
    runs = [make_run(settings, digits, tmp_path / str(settings.seed)) for settings in models]
    path, done = tmp_path / "rect", threading.Event()

    def replace_it():
        while not done.is_set():
            for one in runs:
                with lock(path), new_folder(path) as place:
                    shutil.copytree(one.path, place, dirs_exist_ok=True)
                time.sleep(0.02)  # no training is quicker; a disk may be, and then no read fits between

    writer = threading.Thread(target=replace_it)
    writer.start()
    try:
        while not path.is_dir():
            time.sleep(0.001)
        for _ in range(200):
            found = load_run(path)
            assert bits(found.net) == bits(runs[found.settings.seed].net)
    finally:
        done.set()
        writer.join()


def test_what_was_replaced_in_every_attempt_is_an_error_and_no_mixture(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "ATTEMPTS", 3)
    read = []

    def replaced(folder):
        (tmp_path / "rect").rename(tmp_path / str(len(read)))
        (tmp_path / "rect").mkdir()
        read.append(folder)

    (tmp_path / "rect").mkdir()
    with pytest.raises(NnliteError, match="rect: another process replaces it again and again"):
        files.undisturbed(tmp_path / "rect", replaced)
    assert len(read) == 3


def test_a_run_whose_replacer_died_or_stopped_in_between_is_read(nnlite, tmp_path):
    nnlite("train", "--hidden", 8, "--epochs", 1, "--name", "rect")
    path = tmp_path / "runs" / "digits" / "rect"
    path.rename(beside(path, "old"))
    attack, card = ["attack", "--first", 1, "--adversary"], ["--to", "card", "--out", "card.md", "--overwrite"]
    reads = [["runs"], [*attack, "rect"], [*attack, "runs/digits/rect"]]
    reads += [["export", name, *card] for name in ("rect", "digits/rect", "runs/digits/rect")]
    for replacer in (nullcontext(), lock(path)):  # dead, and alive
        with replacer:
            for read in reads:
                result = nnlite(*read)
                assert result.exit_code == 0, result.stderr
                assert "rect" in result.stdout or read[0] == "export"
        assert names_in(path.parent) == [".rect.old"]  # to read changes nothing
    assert nnlite("train", "--hidden", 8, "--epochs", 1, "--name", "rect", "--resume").exit_code == 0
    assert names_in(path.parent) == ["rect"]


# --- a grid beside trainings


GRID = ["grid", "--hidden", "8", "--epochs", "2", "--lr", "0.1", "--jobs", "1"]


@pytest.fixture
def ready(nnlite, digits):
    """A run that was trained with other settings, in the place of one of a grid; and the settings of that."""
    plan = json.loads(nnlite(*GRID, "--dry-run", "--json").stdout)
    given = {key: tuple(value) if isinstance(value, list) else value for key, value in plan[0]["settings"].items()}
    settings = Settings(**given)
    return Path(plan[0]["path"]), settings


def test_a_run_that_is_finished_before_the_grid_has_its_lock_is_kept(nnlite, digits, monkeypatch, ready):
    path, settings = ready

    def finish_meanwhile(stacks, jobs):
        make_run(replace(settings, seed=7), digits, Path("runs"), name=path.name)

    monkeypatch.setattr("nnlite.cli.grid.check_fit", finish_meanwhile)
    result = nnlite(*GRID)
    assert result.exit_code == 2
    assert "was made with other settings" in result.stderr
    assert load_run(path).settings.seed == 7


def test_a_grid_does_not_replace_what_a_dead_process_was_replacing(nnlite, digits, ready):
    path, settings = ready
    make_run(replace(settings, seed=7), digits, Path("runs"), name=path.name)
    path.rename(beside(path, "old"))
    assert nnlite(*GRID).exit_code == 2
    assert load_run(path).settings.seed == 7


def test_a_grid_that_finishes_a_run_removes_its_checkpoint(nnlite, digits, ready):
    path, settings = ready
    stop(settings, digits, Path("runs"), 1, name=path.name)
    assert checkpoint_of(path).exists()
    assert nnlite(*GRID).exit_code == 0
    assert names_in(path.parent) == [path.name]
