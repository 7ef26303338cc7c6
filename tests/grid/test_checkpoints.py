"""A net that was stopped goes on from its checkpoint, to the same bits, and trains no epoch again that one holds."""

import json
import random
from collections import Counter
from dataclasses import replace

import pytest

from nnlite.errors import NnliteError
from nnlite.grid import checkpoints
from nnlite.grid.checkpoints import StackCheckpoints
from nnlite.grid.jobs import Job, group_into_stacks, pending, train_jobs
from nnlite.grid.pool import run_task
from nnlite.storage.files import new_file
from nnlite.storage.weights import WEIGHTS
from nnlite.training import checkpoint
from nnlite.training.checkpoint import epochs_done, write_checkpoint
from nnlite.training.loop import train
from nnlite.training.run_folder import load_run
from nnlite.training.settings import Settings

pytestmark = pytest.mark.once

EPOCHS = 12


class KilledError(BaseException):
    """Not KeyboardInterrupt, which a training answers by saving what it has."""


def jobs_in(folder, **more):
    """Three jobs that can be a stack, two with the images of one seed."""
    settings = [
        Settings(hidden=(8,), epochs=EPOCHS, lr=lr, seed=seed, **more) for lr, seed in ((0.1, 0), (0.2, 0), (0.1, 1))
    ]
    return [Job(folder / "digits" / f"{k}", one) for k, one in enumerate(settings)]


def train_here(jobs, stack, kill_at=10**9):
    """Train in this process until so many epochs were reported; return them, (settings, epoch), and if it was."""
    seen = []

    def executor(tasks, on_progress):
        for index, task in enumerate(tasks):

            def listen(progress, index=index):
                seen.append((tasks[index][1][progress[0]], progress[1]))
                if len(seen) == kill_at:
                    raise KilledError
                on_progress(index, progress)

            yield index, run_task(task, listen)

    try:
        list(train_jobs(group_into_stacks(pending(jobs), stack), executor, lambda cost: None))
    except KilledError:
        return seen, True
    return seen, False


def bits(jobs):
    return [(job.path / WEIGHTS).read_bytes() for job in jobs]


@pytest.fixture
def always(monkeypatch):
    """Write a checkpoint after each epoch, however long the last one took."""
    monkeypatch.setattr(checkpoints, "SHARE", 1)
    monkeypatch.setattr(checkpoints, "FIRST", 0)


@pytest.mark.usefixtures("always")
@pytest.mark.parametrize("stack", [1, 3])
def test_killed_at_random_epochs_each_epoch_is_trained_once_to_the_same_bits(tmp_path, stack):
    whole, stopped = jobs_in(tmp_path / "whole"), jobs_in(tmp_path / "stopped")
    once, _ = train_here(whole, stack)
    rng, seen, killed, kills = random.Random(stack), [], True, 0
    while killed and kills < 50:
        found, killed = train_here(stopped, stack, rng.randint(1, 7))
        seen += found
        kills += killed
    assert kills > 4
    assert max(Counter(seen).values()) == 1  # each was in a checkpoint before it was reported
    assert stack > 1 or set(seen) == set(once)
    assert bits(stopped) == bits(whole)
    assert not list((tmp_path / "stopped/digits").glob(".*"))
    seconds = [[epoch.seconds for epoch in load_run(job.path).history] for job in stopped]
    assert all(len(found) == EPOCHS for found in seconds)


@pytest.mark.usefixtures("always")
def test_a_stack_that_was_stopped_at_different_epochs_is_divided(tmp_path):
    whole, stopped = jobs_in(tmp_path / "whole"), jobs_in(tmp_path / "stopped")
    train_here(whole, 3)
    train_here(stopped[:1], 1, kill_at=5)
    train_here(stopped[1:], 2, kill_at=4)
    assert [epochs_done(job.checkpoint)[0] for job in stopped] == [5, 2, 2]
    seen, _ = train_here(stopped, 3)
    left = [
        (job.settings, done + 1 + k) for job, done in zip(stopped, (5, 2, 2), strict=True) for k in range(12 - done)
    ]
    assert Counter(seen) == Counter(left)
    assert bits(stopped) == bits(whole)


@pytest.mark.usefixtures("always")
def test_a_net_of_a_stack_that_diverges_does_so_again(tmp_path):
    def wild(folder):
        jobs = jobs_in(folder, reg="l2", lam=0.01)
        return [jobs[0], Job(jobs[1].path, replace(jobs[0].settings, lam=1600.0))]  # a step turns W into -2.2 W

    whole, stopped = wild(tmp_path / "whole"), wild(tmp_path / "stopped")
    train_here(whole, 2)
    epochs = len(load_run(whole[1].path).history)
    assert (load_run(whole[1].path).results.status, 1 < epochs < EPOCHS) == ("diverged", True)
    train_here(stopped, 2, kill_at=2 * epochs + 3)
    train_here(stopped, 2)
    assert bits(stopped) == bits(whole)
    assert [epoch[:3] for epoch in load_run(stopped[1].path).history] == [
        epoch[:3] for epoch in load_run(whole[1].path).history
    ]


def test_checkpoints_take_a_tenth_of_the_time_at_most(tmp_path, monkeypatch):
    clock, written = [0.0], []
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])

    def write(path, settings, state):
        clock[0] += 1
        written.append(state.epoch)

    monkeypatch.setattr(checkpoints, "write_checkpoint", write)
    kept = StackCheckpoints([tmp_path], [Settings()])
    for epoch in range(1, 31):
        clock[0] += 2
        kept.write([type("State", (), {"epoch": epoch})])
    assert written == [1, 6, 11, 16, 21, 26]  # 9 seconds or more in between


def test_a_training_that_is_over_within_a_second_writes_no_checkpoint(tmp_path, monkeypatch):
    clock, written = [5.0], []
    monkeypatch.setattr(checkpoints.time, "monotonic", lambda: clock[0])
    monkeypatch.setattr(checkpoints, "write_checkpoint", lambda path, settings, state: written.append(state.epoch))
    kept = StackCheckpoints([tmp_path], [Settings()])
    for epoch in range(1, 5):
        clock[0] += 0.4
        kept.write([type("State", (), {"epoch": epoch})])
    assert written == [3, 4]  # after 1.2 s, and again as it took no time


def test_a_checkpoint_of_other_settings_or_damaged_is_refused_before_anything_is_trained(digits, tmp_path):
    (job, *_) = jobs_in(tmp_path)
    job.path.parent.mkdir(parents=True)
    train(job.settings, digits, on_checkpoint=lambda state: write_checkpoint(job.checkpoint, job.settings, state))
    assert pending([job]) == [job]
    with pytest.raises(NnliteError, match=r"of another training \(lr 0.1, not 0.3\)"):
        pending([Job(job.path, replace(job.settings, lr=0.3))])
    job.checkpoint.write_bytes(job.checkpoint.read_bytes()[:-100])
    with pytest.raises(NnliteError, match="damaged"):
        pending([job])


@pytest.mark.usefixtures("always")
def test_a_disk_that_fills_up_leaves_finished_nets_and_checkpoints(tmp_path, monkeypatch):
    jobs, calls = jobs_in(tmp_path), []

    def full(path, **options):
        calls.append(path)
        if len(calls) > EPOCHS + 4:
            raise OSError(28, "No space left on device")
        return new_file(path, **options)

    monkeypatch.setattr(checkpoint, "new_file", full)
    with pytest.raises(
        NnliteError, match=r"cannot write the checkpoint of epoch 5 \(No space left .*repeat the command"
    ):
        train_here(jobs, 1)
    assert json.loads((jobs[0].path / "results.json").read_text("utf-8"))["status"] == "finished"
    assert epochs_done(jobs[2].checkpoint if jobs[2].checkpoint.exists() else jobs[1].checkpoint) == (4, EPOCHS)
    monkeypatch.undo()
    assert len(pending(jobs)) == 2
