"""The grid: what its file means, what is refused, and that stacks and processes train to the bits of one process."""

import itertools
import json
import sys
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
import strict_cupy
from tables import write_blobs

from nnlite.errors import NnliteError
from nnlite.grid.combinations import FILE_LIMIT, make_grid, read_grid
from nnlite.grid.jobs import check_fit, group_into_stacks, pending, train_and_evaluate, train_jobs
from nnlite.grid.pool import run_in_pool
from nnlite.storage.weights import WEIGHTS
from nnlite.training import memory
from nnlite.training.memory import available_memory, check_memory, largest_stack, stack_bytes
from nnlite.training.run_folder import SETTINGS, load_run
from nnlite.training.runs import make_run
from nnlite.training.settings import Settings
from nnlite.training.update import stack_key

RUNS = Path("runs")
EXAMPLE = """
epochs = 2
hidden = [8]
seed = [0, 1]

[[models]]
reg = "none"
lr = [0.1, 0.2]

[[models]]
reg = "dgl1"
lam = [0.001, 0.01]
phi = 0.1

[[models]]
name = "two-terms"
reg = "datagrad"
term = ["l1,0.01,0.1", "l2,0.01,exact"]
"""


@pytest.fixture
def written(tmp_path):
    """Write a grid file and read it."""

    def write(text):
        path = tmp_path / "grid.toml"
        path.write_text(text, "utf-8")
        return read_grid(path, RUNS)

    return write


def names(jobs):
    return [job.path.name for job in jobs]


def in_one_process(tasks, on_progress):
    """Carry out tasks here, in their order."""
    for index, task in enumerate(tasks):
        yield index, task[0](*task[1:])


def bits(jobs):
    return {job.path.name: (job.path / WEIGHTS).read_bytes() for job in jobs}


def train(jobs, workers=in_one_process, stack=1, on_cost=lambda cost: None):
    """Train what is missing; return the names in the order they ended, and what went wrong."""
    ended = list(train_jobs(group_into_stacks(pending(jobs), stack), workers, on_cost))
    return [job.path.name for job, _ in ended], [failure for _, failure in ended if failure]


# --- what a file means


def test_the_example_gives_the_runs_counted_by_hand(written):
    jobs = written(EXAMPLE)
    assert names(jobs) == [
        "rect-hidden8-epochs2",
        "rect-hidden8-lr0.2-epochs2",
        "rect-hidden8-epochs2-seed1",
        "rect-hidden8-lr0.2-epochs2-seed1",
        "dgl1-lam0.001-phi0.1-hidden8-epochs2",
        "dgl1-lam0.01-phi0.1-hidden8-epochs2",
        "dgl1-lam0.001-phi0.1-hidden8-epochs2-seed1",
        "dgl1-lam0.01-phi0.1-hidden8-epochs2-seed1",
        "two-terms-seed0",
        "two-terms-seed1",
    ]
    assert jobs[3].path == RUNS / "digits" / jobs[3].settings.run_name
    assert jobs[3].settings == Settings(hidden=(8,), epochs=2, lr=0.2, seed=1)
    assert jobs[5].settings == Settings(reg="dgl1", lam=0.01, phi=0.1, hidden=(8,), epochs=2)
    assert jobs[8].settings.term == ("l1,0.01,0.1", "l2,0.01,exact")


def test_a_list_of_lists_is_a_dimension_where_a_list_is_a_value(written):
    assert [one.settings.hidden for one in written("hidden = [16, 8]")] == [(16, 8)]
    jobs = written("hidden = [[], [8], [16, 8]]")
    assert [one.settings.hidden for one in jobs] == [(), (8,), (16, 8)]
    assert names(jobs) == ["rect-hiddennone", "rect-hidden8", "rect-hidden16-8"]
    terms = written('reg = "datagrad"\nterm = [["l1,0.1,0.1"], ["l1,0.1,0.1", "l2,0.1,0.1"]]')
    assert [len(one.settings.terms) for one in terms] == [1, 2]


def test_every_key_can_be_a_dimension(written):
    jobs = written('data = ["digits", "mnist"]\nbatch_size = [50, 100]\nepochs = [1, 2]\ndevice = ["cpu", "gpu"]')
    assert len({one.path for one in jobs}) == 16
    assert jobs[-1].path == RUNS / "mnist" / "rect-epochs2-gpu"


def test_what_train_takes_where_alpha_or_gamma_is_left_out_is_taken_here(written):
    assert written('reg = "goodfellow"\nphi = 0.1')[0].settings.alpha == 0.5
    assert written("multitask = true")[0].settings.gamma == 0.5
    assert names(written("multitask = true\ngamma = [0.25, 0.5]")) == ["mt-gamma0.25", "mt"]


def test_a_named_table_tells_its_own_runs_apart(written):
    text = '[[models]]\nname = "mine"\nreg = "dgl1"\nlam = [0.1, 0.2]\nphi = 0.3\n[[models]]\nlr = [0.1, 0.3]\n'
    assert names(written(text)) == ["mine-lam0.1", "mine-lam0.2", "rect", "rect-lr0.3"]


def test_numbers_that_agree_in_six_digits_have_two_names(written):
    assert names(written("lr = [0.12345678, 0.12345679]")) == ["rect-lr0.12345678", "rect-lr0.12345679"]
    assert names(written('[[models]]\nname = "x"\nlr = [0.1, 0.12345678]')) == ["x-lr0.1", "x-lr0.12345678"]


def test_a_grid_and_a_training_of_the_same_settings_are_one_run(digits, tmp_path):
    (job,) = make_grid([{"hidden": [8], "epochs": 1, "seed": 3}], tmp_path, "a test")
    assert make_run(job.settings, digits, tmp_path).path == job.path
    assert pending([job]) == []


@pytest.mark.parametrize(("batch", "folder"), [(20, "rect-batch-size20"), (40, "rect-hidden8-epochs1-batch40")])
def test_a_run_keeps_the_name_that_an_older_version_gave_it(digits, tmp_path, batch, folder):
    """In 0.1.0 a grid named a run by what varies in its file; the other run was never there."""
    table = {"hidden": [8], "epochs": 1, "batch_size": [20, 40]}
    make_run(Settings(hidden=(8,), epochs=1, batch_size=20), digits, tmp_path, name="rect-batch-size20")
    make_run(Settings(hidden=(8,), epochs=2, batch_size=40), digits, tmp_path, name="rect-batch-size40")  # another run
    (job,) = (job for job in make_grid([table], tmp_path, "a test") if job.settings.batch_size == batch)
    assert (job.path.name, bool(pending([job]))) == (folder, batch == 40)


# --- what is refused


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("lamm = 0.1", r"grid\.toml: unknown key 'lamm' \(did you mean 'lam' or"),
        ("zzz = 1", r"unknown key 'zzz'; the keys are reg, lam, .*, patience, and name"),
        ("[[models]]\n[[models]]\nlearning_rate = 1", r"grid\.toml, models 2: unknown key"),
        ("", "expected one or more settings.*found none"),
        ("models = []", "expected one or more settings.*found none"),
        ("lr = []", "lr: expected one or more values, found an empty list"),
        ("hidden = [[8], 8]", "hidden: expected a list, found 8"),
        ("hidden = 8", "hidden: expected a list, found 8"),
        ('hidden = ["8"]', r"hidden: expected a tuple of at most 100, each an integer .*, found \('8',\)"),
        ("hidden = [0]", r"hidden: expected a tuple of at most 100, each an integer of at least 1, .*, found \(0,\)"),
        ('lr = "fast"', "lr: expected a finite number above 0, found 'fast'"),
        ("lr = true", "lr: expected a finite number above 0, found True"),
        ("lr = -1", r"grid\.toml: lr: expected a finite number above 0"),
        ("lr = nan", "lr: expected a finite number above 0"),
        ("epochs = 1.5", "epochs: expected an integer from 1 to 100,000, found 1.5"),
        ("multitask = 1", "multitask: expected true or false, found 1"),
        ("p = 2", "p: expected one of 1, 2, inf, found 2"),
        ("reg = 'dgl9'", "reg: expected one of none"),
        ("reg = 'dgl1'", "lam: method dgl1 needs it"),
        ("lr = {a = 1}", "lr: expected a finite number above 0, found"),
        ("lr = 2020-01-01", "lr: expected a finite number above 0, found"),
        ("name = 'x'", r"name: belongs in a \[\[models\]\] table"),
        ("[[models]]\nname = 'a/b'", "name: expected a plain folder name"),
        ("[[models]]\nname = 3", "name: expected a plain folder name of at most 200 bytes, found 3"),
        ("models = 3", r"models: expected tables, each below a line \[\[models\]\]"),
        ("[models]\nlr = 1", "models: expected tables"),
        ("lr = ", "expected TOML"),
        ("lr = 1\nlr = 2", "expected TOML"),
        ("lr = [0.1, 0.1]", r"two nets are named digits/rect: their settings are equal"),
        ("[[models]]\nseed = [0, 1]\n[[models]]\nseed = 1", r"digits/rect-seed1: .* \(.*models 1; .*models 2\)"),
        (f"[[models]]\nname = '{'x' * 198}'\nlr = [1, 2]", "name: expected a plain folder name of at most 200 bytes"),
    ],
)
def test_a_wrong_file_is_refused_and_the_place_is_named(written, text, words):
    with pytest.raises(NnliteError, match=words):
        written(text)


def test_files_that_are_missing_too_large_or_no_text_are_refused(tmp_path, written):
    with pytest.raises(NnliteError, match="cannot be read"):
        read_grid(tmp_path / "nowhere.toml", RUNS)
    with pytest.raises(NnliteError, match="cannot be read"):
        read_grid(tmp_path, RUNS)
    with pytest.raises(NnliteError, match=r"it has 8,001 bytes, more than 8,000"):
        written("#" * (FILE_LIMIT + 1))
    (tmp_path / "image.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(NnliteError, match="expected TOML"):
        read_grid(tmp_path / "image.toml", RUNS)


def test_too_many_trainings_are_counted_and_not_made(written):
    many = list(range(1, 201))
    with pytest.raises(NnliteError, match="at most 10,000 nets, found 8,000,000; split it"):
        written(f"seed = {many}\nepochs = {many}\nbatch_size = {many}")


# --- stacks


def test_only_what_is_alike_stands_in_a_stack_and_the_longest_starts_first():
    table = {"hidden": [8], "lr": [0.1, 0.2], "seed": [0, 1, 2]}
    tables = [table, {**table, "reg": "dgl1", "lam": 0.01, "phi": 0.1}, {**table, "hidden": [9], "epochs": [30, 120]}]
    jobs = make_grid(tables, RUNS, "a test")
    stacks = group_into_stacks(jobs, 4)
    assert sorted(itertools.chain(*stacks), key=str) == sorted(jobs, key=str)
    assert sorted(map(len, stacks)) == [2, 2, 2, 2, 4, 4, 4, 4]
    assert all(len({stack_key(one.settings) for one in stack}) == 1 for stack in stacks)
    assert all(len({one.settings.seed for one in stack}) <= 2 for stack in stacks)  # each seed brings its own images
    costs = [sum(one.cost for one in stack) for stack in stacks]
    assert costs == sorted(costs, reverse=True)
    assert costs[0] == 4 * 120
    assert {len(stack) for stack in group_into_stacks(jobs)} == {1}


ALIKE = {"hidden": [8], "epochs": 3, "seed": [0, 1], "lr": [0.1, 0.3]}


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"reg": "dgl1", "lam": [0.001, 0.01], "phi": 0.1},
        {"reg": "l2", "lam": [0.1, 0.2]},
        {"multitask": True},
        {"decay": [0.8, 1.0], "patience": 1, "epochs": 9, "lr": 1.0},
    ],
    ids=["rect", "dgl1", "l2", "multi-task", "decay and patience"],
)
def test_a_stack_trains_to_the_bits_of_single_runs(digits, tmp_path, monkeypatch, more):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    jobs = make_grid([{**ALIKE, **more}], tmp_path / "stacked", "a test")
    assert len(group_into_stacks(jobs, 3)[0]) == 3
    assert train(jobs, stack=3)[1] == []
    for job in jobs:
        alone = make_run(job.settings, digits, tmp_path / "alone", name=job.path.name)
        stacked = load_run(job.path)
        assert {path.name for path in job.path.iterdir()} == {path.name for path in alone.path.iterdir()}
        for path in job.path.glob("*.safetensors"):
            assert path.read_bytes() == (alone.path / path.name).read_bytes()
        assert [epoch[:3] for epoch in stacked.history] == [epoch[:3] for epoch in alone.history]
        assert stacked.results == alone.results
        assert stacked.settings == alone.settings


# --- training


def test_each_seed_of_a_stack_is_trained_and_evaluated_on_its_own_split(digits, tmp_path, monkeypatch):
    splits = {
        0: replace(digits, train=digits.train[:200], validation=digits.validation[:50], test=digits.test[:60]),
        1: replace(
            digits, train=digits.train[300:500], validation=digits.validation[100:150], test=digits.test[90:150]
        ),
    }
    monkeypatch.setattr("nnlite.grid.jobs.load", lambda name, seed, **_: splits[seed])
    wanted = make_grid([{"hidden": [8], "epochs": 2, "seed": [0, 1]}], tmp_path / "stacked", "a test")
    train(wanted, stack=2)
    for one in wanted:
        alone = make_run(one.settings, splits[one.settings.seed], tmp_path / "alone", name=one.path.name)
        assert load_run(one.path).results == alone.results
        assert (one.path / WEIGHTS).read_bytes() == (alone.path / WEIGHTS).read_bytes()


def test_processes_train_to_the_bits_of_one_process(tmp_path, written):
    tables = [{"hidden": [8], "epochs": 2, "seed": [0, 1], "lr": [0.1, 0.2]}]
    one, many = (make_grid(tables, tmp_path / name, "a test") for name in ("one", "many"))
    told = []
    train(one)
    train(many, lambda tasks, on_progress: run_in_pool(tasks, on_progress, processes=2), 2, told.append)
    assert bits(many) == bits(one)
    assert len(set(bits(one).values())) == 4
    for job in many:  # as it was where it was trained
        assert json.loads((job.path / SETTINGS).read_text("utf-8"))["versions"]["BLAS threads"] == "1"
    assert sum(told) == sum(job.cost for job in many)
    assert len(told) > 4  # by epoch


def test_a_second_call_trains_what_is_missing_and_nothing_else(tmp_path):
    jobs = make_grid([{**ALIKE, "epochs": 1}], tmp_path, "a test")
    assert sorted(train(jobs, stack=2)[0]) == sorted(names(jobs))
    before = bits(jobs)
    times = {job.path: (job.path / WEIGHTS).stat().st_mtime_ns for job in jobs}
    assert train(jobs) == ([], [])
    lost = jobs[2]
    for file in lost.path.iterdir():
        file.unlink()
    lost.path.rmdir()
    assert train(jobs, stack=2) == ([lost.path.name], [])
    assert bits(jobs) == before
    changed = {path for path, then in times.items() if (path / WEIGHTS).stat().st_mtime_ns != then}
    assert changed == {lost.path}
    with pytest.raises(NnliteError, match="other settings"):
        pending([replace(lost, settings=replace(lost.settings, epochs=2))])


def test_a_net_that_diverges_is_said_and_the_others_of_its_stack_are_kept(tmp_path):
    jobs = make_grid([{"hidden": [16, 16, 16], "epochs": 1, "lr": [0.1, 1e8]}], tmp_path, "a test")
    told = []
    ended, failures = train(jobs, stack=2, on_cost=told.append)
    assert len(ended) == 2
    assert failures == [
        "rect-hidden16-16-16-lr1e+08-epochs1: diverged in epoch 1; nothing was saved. "
        "Try a smaller learning rate, such as --lr 1e+07"
    ]
    assert [job.path.is_dir() for job in jobs] == [True, False]
    assert pending(jobs) == [jobs[1]]
    assert sum(told) == 2  # what ends early is done, too


def test_a_net_that_diverges_later_is_kept_and_said(tmp_path):
    table = {"hidden": [16], "epochs": 20, "reg": "l2", "lam": [0.01, 200.0], "lr": 1.0}
    jobs = make_grid([table], tmp_path, "a test")
    _, (failure,) = train(jobs, stack=2)
    history = load_run(jobs[1].path).history
    assert failure.startswith(f"l2-lam200-hidden16-lr1-epochs20: diverged after epoch {len(history)}; its net of epoch")
    assert pending(jobs) == []


def test_an_epoch_that_is_told_twice_counts_once(tmp_path):
    (job,) = make_grid([{"hidden": [8], "epochs": 3}], tmp_path, "a test")
    told = []

    def dies_once(tasks, on_progress):
        for epoch in (1, 2, 1, 2, 3):
            on_progress(0, (0, epoch))
        yield from in_one_process(tasks, on_progress)

    train([job], dies_once, on_cost=told.append)
    assert sum(told) == 3


def test_a_folder_that_cannot_be_written_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NnliteError, match="cannot write to"):
        train(make_grid([{"lr": 0.1}], tmp_path / "file", "a test"), lambda *_: pytest.fail("trained all the same"))


# --- memory


@pytest.mark.parametrize("count", [1, 4])
@pytest.mark.parametrize(
    "settings",
    [
        Settings(hidden=(300, 300), epochs=1, batch_size=10),
        Settings(hidden=(64,), epochs=1),
        Settings(hidden=(128, 128), epochs=1, reg="dgl1", lam=0.01, phi=0.1),
        Settings(hidden=(64, 64), epochs=1, reg="datagrad", term=("l1,0.01,0.1", "l2,0.1,exact")),
    ],
    ids=["weights", "images", "passes", "terms"],
)
def test_the_estimate_is_within_a_factor_of_two_of_the_peak(settings, count, digits):
    models = [replace(settings, lr=0.1 + 0.01 * k) for k in range(count)]
    train_and_evaluate(models)  # what is imported and cached once is not the stack's
    tracemalloc.start()
    try:
        train_and_evaluate(models)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak / 2 < stack_bytes(models, digits) < 2 * peak


def test_a_stack_that_does_not_fit_is_refused_with_the_sizes_and_a_smaller_one(digits, monkeypatch, tmp_path):
    models = [Settings(lr=0.1 + 0.01 * k) for k in range(8)]
    free = stack_bytes(models[:5], digits)
    monkeypatch.setattr(memory, "available_memory", lambda device: free)
    assert largest_stack(models, digits) == 5
    check_memory([models[:5]], {"digits": digits})
    with pytest.raises(NnliteError, match=r"memory: 8 models .* need about \d+ MB, and \d+ MB are free .*--stack 4$"):
        check_memory([models], {"digits": digits})
    check_memory([models[:3], models[3:]], {"digits": digits})
    with pytest.raises(NnliteError, match=r"8 models .* --stack 2 or --jobs 1$"):
        check_memory([models[:3], models[3:]], {"digits": digits}, jobs=2)
    monkeypatch.setattr(memory, "available_memory", lambda device: 1000)
    assert largest_stack(models, digits) == 1
    with pytest.raises(NnliteError, match=r"1 model needs .* narrower --hidden"):
        train_and_evaluate(models[:1])
    with pytest.raises(NnliteError, match="memory: 1 model needs"):
        check_fit([make_grid([{"lr": 0.1}], tmp_path, "a test")], 2)


def test_all_that_fit_stand_in_a_stack_on_a_gpu(digits, monkeypatch):
    jobs = make_grid([{"device": "gpu", "lr": [0.1, 0.2, 0.3], "seed": [0, 1]}], RUNS, "a test")
    free = stack_bytes([job.settings for job in jobs[:4]], digits)
    monkeypatch.setattr(memory, "available_memory", lambda device: {"gpu": free}[device])
    assert [len(stack) for stack in group_into_stacks(jobs)] == [4, 2]


def test_memory_is_that_of_the_device(monkeypatch):
    assert 0 < available_memory("cpu") < psutil.virtual_memory().total
    pool = SimpleNamespace(free_bytes=lambda: 30)  # what CuPy holds and does not use
    monkeypatch.setitem(sys.modules, "cupy", strict_cupy)
    monkeypatch.setattr(strict_cupy.cuda.runtime, "memGetInfo", lambda: (100, 1000))
    monkeypatch.setattr(strict_cupy, "get_default_memory_pool", lambda: pool, raising=False)
    assert available_memory("gpu") == 130


# --- data of the user's own


def test_own_data_are_named_by_their_file_and_kept_by_their_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_blobs(tmp_path / "wine.csv")
    wine, digits = make_grid([{"data": ["wine.csv", "digits"], "epochs": 1}], tmp_path / "runs", "a test")
    assert (wine.settings.data, wine.path) == ("wine", tmp_path / "runs" / "wine" / "rect-epochs1")
    assert (wine.source, digits.source) == (str(tmp_path / "wine.csv"), "")
    assert len(group_into_stacks([wine, digits], 2)) == 2


def test_two_files_of_one_name_are_refused(tmp_path):
    (tmp_path / "old").mkdir()
    paths = [str(write_blobs(folder / "wine.csv")) for folder in (tmp_path, tmp_path / "old")]
    with pytest.raises(NnliteError, match=r"two data sets are named wine: .*; rename one"):
        make_grid([{"data": paths, "epochs": 1}], tmp_path / "runs", "a test")
