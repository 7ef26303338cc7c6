"""Names, places and leftovers: what is ours is known by its name, what a kill leaves goes, and no link is followed."""

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from nnlite.errors import NnliteError
from nnlite.grid.jobs import Job, train_jobs
from nnlite.storage import files, locks
from nnlite.storage.companions import KINDS, beside, owner_of, owners
from nnlite.storage.exchange import exchange
from nnlite.storage.files import expect_replaceable, expect_writable, new_file, new_files, new_folder
from nnlite.storage.locks import lock, remove_abandoned_locks, try_lock
from nnlite.storage.places import new_place
from nnlite.storage.tensors import new_arrays
from nnlite.training.runs import list_records, make_run
from nnlite.training.settings import Settings

QUICK = Settings(hidden=(4,), epochs=1)
STRANGE = [
    "..old",
    "...old",
    ".old",
    ".new",
    ".lock",
    ".checkpoint",
    "..checkpoint",
    ".a b\x1b.old",
    ".\udcff.lock",
    "..a.new",
]


def names_in(folder):
    return sorted(path.name for path in folder.iterdir())


# --- names


@pytest.mark.parametrize("kind", KINDS)
def test_a_companion_is_known_by_its_name(tmp_path, kind):
    for name in ("rect", "a.old", "a b", "dgl1-lam0.01-phi0.1"):
        assert owner_of(beside(tmp_path / name, kind)) == (tmp_path / name, kind)
        beside(tmp_path / name, kind).touch()
    assert [path.name for path in owners(tmp_path, kind)] == ["a b", "a.old", "dgl1-lam0.01-phi0.1", "rect"]


@pytest.mark.parametrize("name", [*STRANGE, ".rect.other", "rect.old", ".rect", "." + "x" * 201 + ".old"])
def test_another_hidden_name_is_none(tmp_path, name):
    assert owner_of(tmp_path / name) is None


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_hidden_names_of_others_stop_no_command_and_stay(nnlite, digits, tmp_path, kind):
    path = make_run(QUICK, digits, tmp_path / "runs", name="rect").path
    for name in STRANGE:
        (path.parent / name).touch() if kind == "file" else (path.parent / name).mkdir()
    before = names_in(path.parent)
    for command in (["runs"], ["runs", "--check"], ["attack", "--adversary", "rect", "--phi", "0", "--first", 1]):
        result = nnlite(*command)
        assert (result.exit_code, "rect" in result.stdout) == (0, True)
    assert nnlite("train", "--hidden", 4, "--epochs", 1, "--name", "other").exit_code == 0
    assert names_in(path.parent) == sorted([*before, "other"])


# --- the start looks at what the end needs


def start(digits, folder, **options):
    make_run(QUICK, digits, folder, on_epoch=lambda _: pytest.fail("trained all the same"), **options)


def stopped(digits, folder):
    """Stop a training after its first epoch, and return its checkpoint."""

    def stop(_):
        raise RuntimeError

    with pytest.raises(RuntimeError):
        make_run(QUICK, digits, folder, name="rect", on_epoch=stop)
    return beside(folder / "digits" / "rect", "checkpoint")


def test_a_write_protected_run_is_kept(digits, tmp_path, monkeypatch):
    path = make_run(QUICK, digits, tmp_path, name="rect").path
    path.chmod(0o555)
    monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & stat.S_IWUSR))  # root may all
    with pytest.raises(NnliteError, match=r"rect could not be written in the end \(it is write-protected\); choose an"):
        start(digits, tmp_path, name="rect", overwrite=True)
    assert names_in(path.parent) == ["rect"]


def test_another_users_run_in_a_sticky_folder_is_told_before_the_training(digits, tmp_path, monkeypatch):
    path = make_run(QUICK, digits, tmp_path, name="rect").path
    path.parent.chmod(0o1777)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(NnliteError, match="it is another user's"):
        start(digits, tmp_path, name="rect", overwrite=True)


def test_another_users_checkpoint_in_a_sticky_folder_is_told_before_the_training(digits, tmp_path, monkeypatch):
    checkpoint = stopped(digits, tmp_path)
    checkpoint.parent.chmod(0o1777)
    monkeypatch.setattr(os, "geteuid", lambda: checkpoint.stat().st_uid + 1)
    for options in ({"resume": True}, {"overwrite": True}):
        with pytest.raises(NnliteError, match=r"\.rect\.checkpoint could not be written .* another user's"):
            start(digits, tmp_path, name="rect", **options)
    tasks = train_jobs([[Job(tmp_path / "digits" / "rect", QUICK)]], pytest.fail, lambda _: None)
    with pytest.raises(NnliteError, match=r"\.rect\.checkpoint could not be written in the end"):
        next(tasks)


def test_a_write_protected_file_is_not_replaced(tmp_path, monkeypatch):
    path = tmp_path / "picture.png"
    path.touch(0o444)
    monkeypatch.setattr(os, "access", lambda path, mode: bool(os.stat(path).st_mode & stat.S_IWUSR))  # root may all
    for expect in (expect_writable, expect_replaceable):
        with pytest.raises(OSError, match="it is write-protected"):
            expect(path)
    path.chmod(0o644)
    expect_writable(path)


def test_a_file_in_the_place_of_a_folder_is_told_as_such(tmp_path):
    (tmp_path / "file").touch()
    for path in (tmp_path / "file" / "x", tmp_path / "file" / "x" / "y"):
        with pytest.raises(NotADirectoryError):
            expect_writable(path)


def test_a_place_that_cannot_be_cleared_is_told_before_the_training(digits, tmp_path, monkeypatch):
    path = tmp_path / "digits" / "rect"
    beside(path, "new").mkdir(parents=True)
    monkeypatch.setattr(files.shutil, "rmtree", lambda *_, **__: None)  # as of another user's
    with pytest.raises(NnliteError, match=r"rect could not be written in the end \(File exists\)"):
        start(digits, tmp_path, name="rect")


def test_another_users_stale_lock_is_no_hindrance(digits, tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    name = beside(tmp_path / "digits" / "rect", "lock")
    name.write_text("12345")
    real = os.open

    def opened(path, flags, *more, **others):
        if str(path) == str(name) and flags & os.O_RDWR:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        return real(path, flags, *more, **others)

    def refused(path, **_):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "open", opened)
    with lock(tmp_path / "digits" / "rect"):
        with pytest.raises(NnliteError, match="being trained by another process"), lock(tmp_path / "digits" / "rect"):
            pass
        monkeypatch.setattr(Path, "unlink", refused)  # in a sticky folder
    monkeypatch.undo()
    assert name.read_text() == "12345"


def test_too_few_open_files_are_told_as_such(tmp_path, monkeypatch):
    def full(*_, **__):
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(os, "open", full)
    with (
        pytest.raises(NnliteError, match="one more open file than the system allows; raise ulimit -n"),
        lock(tmp_path / "a"),
    ):
        pass


def test_where_folders_cannot_be_fsynced_a_run_is_kept_all_the_same_and_that_is_said_once(
    digits, tmp_path, monkeypatch, caplog
):
    real = os.fsync

    def fsync(number):
        if stat.S_ISDIR(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL))
        real(number)

    files._warn_of_no_fsync.cache_clear()
    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("a", "b"):
        make_run(QUICK, digits, tmp_path, name=name)
    assert [run.name for run in list_records(tmp_path)] == ["a", "b"]
    assert caplog.text.count("fsync: ") == 1


# --- links and umask


def test_nothing_is_written_through_a_link_below_runs(digits, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "digits").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(NnliteError, match=r"runs/digits is a link, and may lead anywhere; give the folder"):
        start(digits, tmp_path / "runs")
    assert names_in(tmp_path / "elsewhere") == []


def test_a_link_in_the_place_of_a_lock_is_named_and_not_followed(nnlite, tmp_path):
    (tmp_path / "runs" / "digits").mkdir(parents=True)
    (tmp_path / "runs" / "digits" / ".a.lock").symlink_to(tmp_path / "elsewhere")
    result = nnlite("train", "--hidden", 8, "--epochs", 1, "--name", "a")
    assert result.exit_code == 2
    assert "run: runs/digits/.a.lock is a link, and may lead anywhere" in result.stderr
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("in_one_step", [True, False])
def test_a_link_in_the_place_of_a_run_is_replaced_and_not_followed(digits, tmp_path, monkeypatch, in_one_step):
    if not in_one_step:
        monkeypatch.setattr(files, "exchange", lambda *_: False)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "kept").touch()
    (tmp_path / "rect").symlink_to(tmp_path / "elsewhere")
    with new_folder(tmp_path / "rect") as place:
        (place / "new").touch()
    assert (names_in(tmp_path / "rect"), names_in(tmp_path / "elsewhere")) == (["new"], ["kept"])
    assert names_in(tmp_path) == ["elsewhere", "rect"]


@pytest.mark.parametrize("mask", [0o077, 0o027, 0o022])
def test_files_and_folders_have_the_mode_that_the_umask_says(tmp_path, mask):
    before = os.umask(mask)
    try:
        with new_arrays(tmp_path / "attack", {"a": (np.dtype("<f4"), (1,))}, {}) as writer:
            writer.put("a", np.ones(1, np.float32))
        with new_file(tmp_path / "file", replace=True) as place:
            place.touch()
        with new_folder(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"attack": 0o666 & ~mask, "file": 0o666 & ~mask, "folder": 0o777 & ~mask}


def test_two_folders_are_exchanged_in_one_step(tmp_path):
    for name in "ab":
        (tmp_path / name).mkdir()
        (tmp_path / name / f"of {name}").touch()
    assert exchange(tmp_path / "a", tmp_path / "b") == (sys.platform in ("linux", "darwin"))
    assert (names_in(tmp_path / "a"), names_in(tmp_path / "b")) == (["of b"], ["of a"])
    assert not exchange(tmp_path / "a", tmp_path / "none")
    assert names_in(tmp_path) == ["a", "b"]


def test_what_can_be_replaced_is_left_as_it_is(tmp_path):
    (tmp_path / "a").mkdir()
    expect_replaceable(tmp_path / "a")
    expect_replaceable(tmp_path / "b")
    assert names_in(tmp_path) == ["a"]


@pytest.mark.parametrize("replace", [True, False])
def test_a_file_is_on_the_disk_before_it_has_its_name_and_the_name_after(tmp_path, monkeypatch, replace):
    events, real = [], {name: getattr(os, name) for name in ("fsync", "replace", "link")}

    def fsync(number):
        folder = stat.S_ISDIR(os.fstat(number).st_mode)
        events.append("sync the folder" if folder else "sync the file")
        real["fsync"](number)

    def named(name):
        def call(*args, **options):
            events.append("name")
            return real[name](*args, **options)

        return call

    monkeypatch.setattr(os, "fsync", fsync)
    for name in ("replace", "link"):
        monkeypatch.setattr(os, name, named(name))
    with new_file(tmp_path / "new" / "file", replace=replace) as place:
        place.write_text("content")
    assert events == ["sync the folder", "sync the file", "name", "sync the folder"]
    assert (tmp_path / "new" / "file").read_text() == "content"


# --- leftovers

KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from nnlite.storage.files import new_file, new_files
from nnlite.storage.locks import locks
from nnlite.storage.places import new_place
from nnlite.storage.tensors import new_arrays

folder = Path(sys.argv[1])
with (
    new_place(folder),
    new_files(folder) as files,
    new_file(folder / "replaced", replace=True) as file,
    new_arrays(folder / "attack", {"a": (np.dtype("<f4"), (1000,))}, {}) as writer,
    locks([folder / "a", folder / "b"]),
):
    (files / "half").touch()
    file.touch()
    writer.put("a", np.zeros(500, np.float32))
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_kill_leaves_is_removed_by_the_next_call_and_what_is_in_use_is_not(tmp_path):
    (tmp_path / ".nnlite-mine.new").mkdir()  # not as ours are called
    (tmp_path / ".nnlite-abcd1234.new").touch()  # no folder
    with new_place(tmp_path) as alive, lock(tmp_path / "alive"):
        assert subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)]).returncode == -signal.SIGKILL
        left = {*names_in(tmp_path)} - {alive.name, ".alive.lock", ".nnlite-mine.new", ".nnlite-abcd1234.new"}
        assert len(left) == 5  # three places and two locks; the attack file had no name yet
        assert "attack" not in left
        with new_files(tmp_path) as place:
            (place / "whole").touch()
        remove_abandoned_locks(tmp_path)
        assert {*names_in(tmp_path)} == {alive.name, ".alive.lock", ".nnlite-mine.new", ".nnlite-abcd1234.new", "whole"}
    assert names_in(tmp_path) == [".nnlite-abcd1234.new", ".nnlite-mine.new", "whole"]


def test_a_place_that_another_process_takes_for_abandoned_is_left_to_it(tmp_path, monkeypatch):
    make, made = tempfile.mkdtemp, []

    def seen(**how):
        made.append(make(**how))
        if len(made) == 1:  # between its name and its lock
            others.append(os.open(made[0], os.O_RDONLY))
            assert try_lock(others[0])
        return made[-1]

    others = []
    monkeypatch.setattr(tempfile, "mkdtemp", seen)
    with new_place(tmp_path) as place:
        assert str(place) == made[1]
    os.close(others[0])


def test_a_lock_that_another_process_looks_at_is_waited_for(tmp_path, monkeypatch):
    name = beside(tmp_path / "a", "lock")
    name.touch()
    number = os.open(name, os.O_RDONLY)
    assert try_lock(number)
    monkeypatch.setattr(time, "sleep", lambda seconds: os.close(number))
    with lock(tmp_path / "a"):
        pass


def test_a_lock_that_took_the_place_of_an_abandoned_one_stays(tmp_path, monkeypatch):
    name = beside(tmp_path / "a", "lock")
    name.touch()

    def late(number):  # its owner was about to lock it, and another one came after
        name.unlink()
        name.touch()
        return try_lock(number)

    monkeypatch.setattr(locks, "try_lock", late)
    remove_abandoned_locks(tmp_path)
    assert name.exists()


def test_the_locks_that_a_killed_grid_left_are_removed_by_the_next_training(digits, tmp_path):
    (tmp_path / "digits").mkdir()
    beside(tmp_path / "digits" / "done", "lock").write_text("1")
    make_run(QUICK, digits, tmp_path, name="other")
    assert names_in(tmp_path / "digits") == ["other"]


def test_a_forked_child_keeps_no_lock_of_its_dead_parent(tmp_path):
    code = (
        "import os, sys, time\n"
        "from pathlib import Path\n"
        "from nnlite.storage.locks import lock\n"
        "with lock(Path(sys.argv[1])):\n"
        "    if os.fork() == 0:\n"
        "        os.close(1)\n        time.sleep(60)\n        os._exit(0)\n"
        "    print('forked', flush=True)\n    time.sleep(60)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "rect")], stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout.readline() == b"forked\n"
        with pytest.raises(NnliteError, match="being trained"), lock(tmp_path / "rect"):
            pass
        parent.kill()
        parent.wait()
        try:
            for _ in range(100):  # until the child has come to close it
                try:
                    with lock(tmp_path / "rect"):
                        break
                except NnliteError:
                    time.sleep(0.05)
            else:
                pytest.fail("the child holds it")
        finally:
            os.killpg(parent.pid, signal.SIGKILL)
