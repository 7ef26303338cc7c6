"""The budget: what a file claims is compared with it before anything is allocated, and what is left is known."""

import json
import os
import resource
import subprocess
import sys
from dataclasses import replace

import numpy as np
import psutil
import pytest
from peak import peak

from nnlite.datasets import load
from nnlite.errors import NnliteError
from nnlite.storage import cgroups
from nnlite.storage.memory import BUDGET, available, budget, data_budget, expect_budget
from nnlite.storage.refusals import RefusedError
from nnlite.storage.tensors import open_arrays, write_arrays
from nnlite.storage.weights import WEIGHTS, net_layout
from nnlite.training.checkpoint import checkpoint_of
from nnlite.training.run_folder import SETTINGS, load_run
from nnlite.training.runs import make_run
from nnlite.training.settings import Settings

pytestmark = pytest.mark.once

SMALL = Settings(hidden=(4,), epochs=1)
MAIN = "from nnlite.cli.main import main; main()"


def claim(path, layout, metadata=None):
    """Write a file of these arrays, all of them holes, as tar -S unpacks it."""
    header, end = {"__metadata__": metadata} if metadata else {}, 0
    for name, (_, shape) in layout.items():
        start, end = end, end + 4 * int(np.prod(shape))
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    os.truncate(path, 8 + len(text) + end)


def hostile(run, hidden):
    """Give the run another width, in its settings and in a file of weights that takes no place on the disk."""
    content = json.loads((run / SETTINGS).read_text("utf-8"))
    content["settings"]["hidden"] = hidden
    del content["format"]  # as of 0.1.0, which has no checksums
    (run / SETTINGS).write_text(json.dumps(content), "utf-8")
    claim(run / WEIGHTS, net_layout([64, *hidden, 10], {}))


@pytest.fixture
def run(digits, tmp_path):
    """A run folder, to be changed."""
    return make_run(SMALL, digits, tmp_path / "runs", name="bomb").path


@pytest.mark.parametrize("command", [["runs", "--check"], ["attack", "--adversary", "bomb"], ["verify"]])
def test_a_hostile_run_costs_no_command_200_mb(nnlite, run, command):
    if command == ["verify"]:
        nnlite("attack", "--adversary", "bomb", "--first", 9, "--save", "file")
        command = ["verify", "file", "--run", "bomb"]
    hostile(run, [4000] * 12)  # no array of which is over the budget by itself
    assert (run / WEIGHTS).stat().st_size > 600e6
    assert peak(MAIN, *command, check=False) < 200 * 1024


def test_a_run_as_large_as_the_budget_costs_less_than_200_mb(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hostile(run, [4900, 4900])
    assert 95e6 < (run / WEIGHTS).stat().st_size < BUDGET
    assert peak(MAIN, "attack", "--adversary", "bomb", "--first", "1", "--phi", "0") < 200 * 1024


def test_what_is_over_the_budget_is_refused_with_the_way_to_allow_it(run, monkeypatch):
    hostile(run, [90, 90])
    monkeypatch.setenv("NNLITE_MEMORY", "50 kB")
    with pytest.raises(RefusedError, match=r"bomb.*claims 0 MB .* 0 MB are allowed .* set NNLITE_MEMORY=2MB$"):
        load_run(run)
    monkeypatch.setenv("NNLITE_MEMORY", "2MB")
    assert load_run(run).net.sizes == (64, 90, 90, 10)


def test_a_checkpoint_is_counted_with_both_its_nets(digits, tmp_path, monkeypatch):
    make_run(replace(SMALL, epochs=2), digits, tmp_path, name="rect", on_epoch=interrupt)
    size = checkpoint_of(tmp_path / "digits" / "rect").stat().st_size
    monkeypatch.setenv("NNLITE_MEMORY", f"{size // 2}B")
    with pytest.raises(NnliteError, match="hidden: the checkpoint of this net has"):
        make_run(replace(SMALL, epochs=2), digits, tmp_path, name="rect", resume=True)
    monkeypatch.setattr("nnlite.training.runs.check_budget", lambda *_: None)
    with pytest.raises(RefusedError, match="claims"):
        make_run(replace(SMALL, epochs=2), digits, tmp_path, name="rect", resume=True)


def interrupt(_):
    raise KeyboardInterrupt


def test_an_array_is_compared_with_the_budget_by_the_rows_that_are_read(tmp_path, monkeypatch):
    write_arrays(tmp_path / "file", {"labels": np.arange(100)})
    monkeypatch.setenv("NNLITE_MEMORY", "80")
    file = open_arrays(tmp_path / "file")
    assert file.read("labels", slice(5, 15)).tolist() == list(range(5, 15))
    with pytest.raises(RefusedError, match="claims"):
        file.read("labels", slice(5, 16))


@pytest.mark.parametrize(("hidden", "words"), [("1" + "0" * 18, "1 model needs about"), ("9000,9000", "checkpoint of")])
def test_a_net_that_is_too_large_is_refused_before_the_training(nnlite, hidden, words):
    result = nnlite("train", "--hidden", hidden, "--epochs", 1)
    assert (result.exit_code, result.stdout) == (2, "")
    assert words in result.stderr.splitlines()[-1]
    assert "narrower --hidden" in result.stderr


def test_no_more_memory_than_ulimit_leaves_is_promised():
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 44, limits[1]))
    try:
        wide = available()
        resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 50_000_000, limits[1]))
        assert 0 < available() <= 50_000_000 < wide
    finally:
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.mark.parametrize(("line", "folder", "names"), [
    ("0::/mine", "mine", ("memory.max", "memory.current", "inactive_file 7")),
    ("0::/", ".", ("memory.max", "memory.current", "inactive_file 7")),
    ("4:memory:/mine", "memory/mine", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file 7")),
    ("4:memory:/elsewhere", "memory", ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file 7")),
])  # fmt: skip
def test_no_more_memory_than_a_container_has_is_promised(tmp_path, monkeypatch, line, folder, names):
    (tmp_path / folder).mkdir(parents=True, exist_ok=True)
    limit, used, cached = names
    for name, text in ((limit, "1000\n"), (used, "900\n"), ("memory.stat", f"anon 1\n{cached}\n")):
        (tmp_path / folder / name).write_text(text)
    real = cgroups.read
    monkeypatch.setattr(cgroups, "ROOT", tmp_path)
    monkeypatch.setattr(cgroups, "read", lambda path: f"9:cpu:/\n{line}\n" if path.name == "cgroup" else real(path))
    assert available() == 107


def test_data_of_ones_own_may_be_as_large_as_what_is_on_the_disk_and_not_as_its_holes(tmp_path):
    path = tmp_path / "own.csv"
    path.write_text("a,b,y\n1,2,0\n3,4,1\n")
    os.truncate(path, 1 << 40)
    assert data_budget(path) == BUDGET
    with pytest.raises(RefusedError, match=r"own\.csv: it claims 1,099\.5 GB"):
        load(str(path))


@pytest.mark.parametrize(
    ("text", "size"), [("", BUDGET), ("7", 7), ("500MB", 500_000_000), ("1.5 gb", 1_500_000_000), ("2kB", 2000)]
)
def test_the_budget_is_read_from_the_environment(monkeypatch, text, size):
    monkeypatch.setenv("NNLITE_MEMORY", text)
    assert budget() == size


@pytest.mark.parametrize("text", ["all", "-1", "1e9", "5 XB", "9" * 10])
def test_a_budget_that_is_none_is_refused(monkeypatch, tmp_path, text):
    monkeypatch.setenv("NNLITE_MEMORY", text)
    with pytest.raises(NnliteError, match="NNLITE_MEMORY: expected a size such as 500MB"):
        expect_budget(tmp_path, 1)


def test_out_of_memory_at_a_checkpoint_is_said_in_one_line(tmp_path):
    """The library for tensors would panic here, by an exception that is no Exception."""
    code = (
        "import resource, numpy as np, pathlib, sys, psutil\n"
        "from nnlite.storage.tensors import write_arrays, open_arrays\n"
        "arrays = {'a': np.ones((2500, 2500), np.float32)}\n"
        "limit = psutil.Process().memory_info().vms + 15_000_000\n"
        "resource.setrlimit(resource.RLIMIT_AS, (limit, limit))\n"
        "write_arrays(pathlib.Path(sys.argv[1]), arrays)\n"  # which needs no copy
        "try:\n    open_arrays(pathlib.Path(sys.argv[1])).read('a')\n"
        "except Exception as error:\n    print(type(error).__name__)\n"
    )
    said = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "file")], capture_output=True, text=True, check=True
    )
    assert said.stdout in ("RefusedError\n", "MemoryError\n")
