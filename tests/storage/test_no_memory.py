"""The memory runs out at any line: MemoryError, or an error of ours, and nothing is lost."""

import pytest
from no_memory import failures, torment_readers, torment_training

from nnlite.storage.locks import lock

pytestmark = [
    pytest.mark.once,
    # A file that was open at the line where the memory ran out is closed by Python itself, which tells of it.
    pytest.mark.filterwarnings("ignore:unclosed file:ResourceWarning"),
]
ALLOWED = {"MemoryError", "NnliteError", "RefusedError", "read"}


def test_a_reader_without_memory_says_so_and_reads_the_same_afterwards(tmp_path):
    names = set()
    for name, kinds, others in torment_readers(tmp_path, 97):
        names.add(name)
        assert kinds.keys() <= ALLOWED
        assert kinds["MemoryError"] > 0
        assert others == 0
    assert names == {"run", "checkpoint", "attack file", "plan", "grid", "report", "CSV", "NPZ", "lock"}


def test_a_training_without_memory_keeps_its_checkpoint_and_goes_on_to_the_same_bytes(tmp_path):
    kinds, lost = torment_training(tmp_path, 499)
    assert kinds.keys() <= ALLOWED
    assert kinds.total() > 15
    assert lost == 0


def test_a_lock_that_was_not_taken_is_free(tmp_path):
    def locked():
        with lock(tmp_path / "rect"):
            pass

    for error, _ in failures(locked, 1):
        assert isinstance(error, MemoryError)
        locked()
