"""Killed anywhere, called again, and it ends with the same bytes; tests/tools/kills.py does it some hundred times."""

import pytest
from kills import content, is_readable, run, torment

pytestmark = pytest.mark.once
SMALL = ["train", "--hidden", "8", "--epochs", "2", "--name", "rect"]


@pytest.mark.parametrize("more", [[], ["--overwrite"]], ids=["a new run", "another run replaced"])
def test_killed_before_every_other_file_operation_it_goes_on_to_the_same_bytes(tmp_path, more):
    def folder(name):
        (tmp_path / name).mkdir()
        if more:
            assert run([*SMALL, "--seed", "1"], tmp_path / name) == 0
        return tmp_path / name

    whole = folder("whole")
    assert run([*SMALL, *more], whole) == 0
    runs_seen = set()
    for operation in range(1, 100, 2):
        place = folder(str(operation))
        if run([*SMALL, *more], place, before=operation) == 0:
            break
        assert is_readable(place)
        runs_seen.add(len(list(place.glob("runs/digits/rect"))))
        resume = not more or any(place.glob("runs/digits/.*.checkpoint"))
        assert run([*SMALL, "--resume"] if resume else [*SMALL, *more], place) == 0, (place / "output.txt").read_text()
        assert content(place) == content(whole)
        assert [path.name for path in (place / "runs" / "digits").iterdir()] == ["rect"]  # and nothing hidden
    else:
        pytest.fail("it should have ended by itself")
    assert operation > 30  # locks, checkpoints, the folder: all of it was cut off somewhere
    assert runs_seen == ({1} if more else {0, 1})  # the old one is there until the new one is


@pytest.mark.parametrize(
    ("name", "kills"),
    [
        ("train, a search that draws", 4),
        ("train, another run replaced", 4),
        ("grid", 2),
        ("attack --save", 2),
        ("audit --plot", 1),
        ("reproduce, long", 1),
    ],
)
def test_killed_at_random_moments_it_goes_on_to_the_same_bytes(name, kills):
    figures = torment(name, kills, seed=1)
    assert figures.kills >= kills
    assert figures.ended >= 1
    assert (figures.unreadable, figures.differing, figures.leftovers, figures.repeated) == (0, 0, 0, 0)


def test_other_bytes_would_be_noticed(tmp_path):
    for name, seed in [("one", 0), ("other", 1)]:
        (tmp_path / name).mkdir()
        assert run([*SMALL, "--seed", str(seed)], tmp_path / name) == 0
    assert content(tmp_path / "one").keys() == content(tmp_path / "other").keys()
    assert content(tmp_path / "one") != content(tmp_path / "other")
    (tmp_path / "one" / "runs" / "digits" / "rect" / "weights.safetensors").unlink()
    assert not is_readable(tmp_path / "one")
