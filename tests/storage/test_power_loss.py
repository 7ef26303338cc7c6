"""The power is lost anywhere, and the old or the new is there, whole; tests/tools/power_loss.py tries each moment."""

from contextlib import nullcontext

import pytest
from power_loss import OLDER_SYSTEMS, THINGS, older_system, torment

pytestmark = pytest.mark.once
EVERY = {"a run and its checkpoints": 7, "a run replaced": 13}  # moments: they have the most


@pytest.mark.parametrize("system", [nullcontext, older_system], ids=["", OLDER_SYSTEMS])
@pytest.mark.parametrize("name", THINGS)
def test_after_a_loss_of_power_the_old_or_the_new_is_there_whole(name, system):
    with system():
        found = torment(THINGS[name], every=EVERY.get(name, 1), goes_on=49)
    assert found.states >= (40 if name in EVERY else 4)
    assert (found.differing, found.not_mended) == (0, 0)


@pytest.mark.parametrize(
    ("name", "fsync"),
    # a checkpoint, its name; a new folder, the file, its name
    [("a run and its checkpoints", 3), ("a run and its checkpoints", 4), *(("an attack file", k) for k in (1, 2, 3))],
)
def test_an_fsync_that_is_left_out_would_be_noticed(name, fsync):
    found = torment(THINGS[name], left_out=fsync, every=5 if "run" in name else 1, goes_on=10**6)
    assert found.fsyncs >= fsync
    assert found.differing > 0
