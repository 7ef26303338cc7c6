"""A run checks its own content: a flipped bit is named, whichever file it is in, and sha256sum agrees."""

import json
import os
import re
import shutil
import subprocess
from dataclasses import replace

import numpy as np
import pytest

from nnlite.errors import NnliteError
from nnlite.evaluation.attack_file import load_weights
from nnlite.storage.refusals import RefusedError
from nnlite.storage.sums import SUMS, write_sums
from nnlite.storage.tensors import METADATA
from nnlite.storage.weights import WEIGHTS
from nnlite.training.checkpoint import KEY, checkpoint_of, read_checkpoint, write_checkpoint
from nnlite.training.loop import train
from nnlite.training.run_folder import FORMAT, HISTORY, LAST, RESULTS, SETTINGS, load_record, load_run, load_whole
from nnlite.training.runs import make_run
from nnlite.training.settings import Settings

QUICK = Settings(hidden=(4,), epochs=2)


@pytest.fixture(scope="module")
def made(digits, tmp_path_factory):
    """A run whose best epoch is not the last, so that it has all files; and the checkpoint of its training."""
    folder = tmp_path_factory.mktemp("sums")
    run = make_run(replace(QUICK, epochs=3, lr=3.0, seed=1), digits, folder / "runs", name="whole")
    assert (run.path / LAST).exists()
    return run.path


@pytest.fixture
def run(made, tmp_path):
    """A copy of the run folder, to be changed."""
    return shutil.copytree(made, tmp_path / "runs" / "digits" / "whole")


def flip(path, place):
    """Change the lowest bit of one byte: in a text a digit becomes another one."""
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)


def digit(path):
    """Return where the last digit of a text is: the fraction of a number, which any reader believes."""
    return path.read_bytes().rindex(re.findall(rb"\d", path.read_bytes())[-1])


def place_in(run, name):
    if name == SETTINGS:  # a digit of the version of NumPy
        return (run / name).read_bytes().index(b'"numpy": "') + len('"numpy": "')
    return -1 if name in (WEIGHTS, LAST) else digit(run / name)


@pytest.mark.parametrize("name", [WEIGHTS, LAST, SETTINGS, HISTORY, RESULTS])
def test_a_flipped_bit_is_named(run, name):
    load_whole(run)
    flip(run / name, place_in(run, name))
    with pytest.raises(NnliteError, match=rf"damaged \({name} is not what was written: its SHA-256, \w{{12}}\.\.\.,"):
        load_whole(run)
    read_later = {LAST: [], WEIGHTS: [load_run]}.get(name, [load_run, load_record])  # a list reads no weights
    for read in read_later:
        with pytest.raises(NnliteError, match=name):
            read(run)


def test_each_bit_of_the_weights_counts(run):
    content = (run / WEIGHTS).read_bytes()
    begin = 8 + int.from_bytes(content[:8], "little")
    for place in np.random.default_rng(0).integers(begin, len(content), 20):
        (run / WEIGHTS).write_bytes(content)
        flip(run / WEIGHTS, place)
        with pytest.raises(NnliteError, match=r"is not what was written|finite"):
            load_run(run)
        with pytest.raises(NnliteError, match=r"is not what was written|finite"):
            load_weights(run)


@pytest.mark.parametrize("change", [lambda path: flip(path, 3), os.unlink, lambda path: flip(path, -3)])
def test_damaged_or_missing_sums_are_named(run, change):
    change(run / SUMS)
    with pytest.raises(NnliteError, match=f"damaged .*{SUMS}"):
        load_run(run)


def test_sums_name_no_file_elsewhere(run, tmp_path):
    (run / SUMS).write_text((run / SUMS).read_text() + f"{'0' * 64}  ../../../elsewhere\n")
    load_whole(run)


@pytest.mark.skipif(shutil.which("sha256sum") is None, reason="needs sha256sum")
def test_sha256sum_checks_it(run):
    assert subprocess.run(["sha256sum", "--strict", "-c", SUMS], cwd=run, capture_output=True).returncode == 0
    flip(run / RESULTS, digit(run / RESULTS))
    assert subprocess.run(["sha256sum", "--strict", "-c", SUMS], cwd=run, capture_output=True).returncode == 1


def test_the_command_goes_past_what_is_damaged_and_says_what_it_found(nnlite, run):
    for name in ("bad", "old", "cut"):
        shutil.copytree(run, run.parent / name)
    (run.parent / "@eaDir").mkdir()
    flip(run.parent / "bad" / WEIGHTS, -1)
    (run.parent / "cut" / HISTORY).unlink()
    content = json.loads((run.parent / "old" / SETTINGS).read_text("utf-8"))
    del content["format"]
    (run.parent / "old" / SETTINGS).write_text(json.dumps(content), "utf-8")
    (run.parent / "old" / SUMS).unlink()
    assert nnlite("runs").exit_code == 0  # it reads no weights
    result = nnlite("runs", "--check")
    assert result.exit_code == 1
    assert "2 of 4 runs are damaged" in result.stdout
    state = {line.split()[0]: line.split()[1] for line in result.stdout.splitlines() if line.startswith("runs/")}
    assert state == {f"runs/digits/{name}": "damaged" for name in ("bad", "cut")} | {
        f"runs/digits/{name}": "whole" for name in ("old", "whole")
    }
    assert f"runs/digits/bad: the run folder is damaged ({WEIGHTS} is not what was written" in result.stderr
    assert "runs/digits/old: whole, as far as can be seen without SHA256SUMS" in result.stderr
    found = json.loads(nnlite("runs", "--check", "--json").stdout)
    assert [one["whole"] for one in found] == [False, False, True, True]
    for name in ("bad", "cut"):
        shutil.rmtree(run.parent / name)
    assert nnlite("runs", "--check").exit_code == 0


def test_attack_goes_past_a_flipped_bit_and_names_it(nnlite, run, caplog):
    shutil.copytree(run, run.parent / "bad")
    flip(run.parent / "bad" / WEIGHTS, -1)
    result = nnlite("attack", "--adversary", "whole", "--phi", "0", "--first", 5)
    assert result.exit_code == 0
    assert "bad" not in result.stdout
    assert any(f"skipped: runs/digits/bad: the run folder is damaged ({WEIGHTS}" in line for line in caplog.messages)


# --- formats


def test_a_run_of_a_newer_format_is_refused_with_the_version_that_reads_it(run):
    content = json.loads((run / SETTINGS).read_text("utf-8"))
    (run / SETTINGS).write_text(
        json.dumps({**content, "format": FORMAT + 1, "versions": {"nnlite": "9.1.0"}, "new": 1}), "utf-8"
    )
    write_sums(run)
    for read in (load_run, load_record):
        with pytest.raises(RefusedError, match=rf"format: expected {FORMAT} at most, .*nnlite '9\.1\.0' wrote it"):
            read(run)


@pytest.fixture
def checkpoint(digits, tmp_path):
    """The checkpoint of a training."""
    path = checkpoint_of(tmp_path / "rect")
    train(QUICK, digits, on_checkpoint=lambda state: write_checkpoint(path, QUICK, state))
    return path


def test_a_flipped_bit_in_a_checkpoint_is_named(checkpoint):
    read_checkpoint(checkpoint, QUICK)
    flip(checkpoint, -1)
    with pytest.raises(NnliteError, match="its arrays are not those that were written"):
        read_checkpoint(checkpoint, QUICK)


@pytest.mark.parametrize(("number", "words"), [(9, "expected 2 at most, found 9; nnlite '"), (0, "format: expected")])
def test_a_checkpoint_of_another_format_is_refused(checkpoint, number, words):
    content = checkpoint.read_bytes()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    header[METADATA][KEY] = json.dumps(json.loads(header[METADATA][KEY]) | {"format": number})
    text = json.dumps(header).encode()
    checkpoint.write_bytes(len(text).to_bytes(8, "little") + text + content[8 + length :])
    with pytest.raises(NnliteError, match=re.escape(words)):
        read_checkpoint(checkpoint, QUICK)
