"""The checkpoints of a stack: each net of it has its own, from which the stack goes on to the same bits."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nnlite.datasets.description import check_same
from nnlite.datasets.samples import Dataset
from nnlite.training.checkpoint import read_checkpoint, write_checkpoint
from nnlite.training.loop import TrainingState
from nnlite.training.settings import Settings

SHARE = 0.1  # of the time of a training, at most, that goes into its checkpoints; a small net's epoch is shorter
FIRST = 1.0  # seconds until the first one: a training that is over by then, as that of a tiny net, needs none


@dataclass
class StackCheckpoints:
    """The checkpoints of nets that are trained side by side.

    Arguments:
        paths: a checkpoint for each of `models`: all of them are there, of the same epoch, or none is.
        models: the settings of the nets.
    """

    paths: Sequence[Path]
    models: Sequence[Settings]
    _next: float = field(default_factory=lambda: time.monotonic() + FIRST)  # when the next ones may be written

    def read(self, data: Mapping[int, Dataset]) -> list[TrainingState]:
        """Return the states to go on from, none where the nets are new; NnliteError for damage or other data.

        Arguments:
            data: the data set of each seed.
        """
        if not all(path.exists() for path in self.paths):
            return []
        states = [read_checkpoint(path, one) for path, one in zip(self.paths, self.models, strict=True)]
        for path, one, state in zip(self.paths, self.models, states, strict=True):
            if state.trained.data:
                check_same(state.trained.data, data[one.seed].description, str(path))
        return states

    def write(self, states: Sequence[TrainingState]) -> None:
        """Write the states after an epoch, unless the last ones have taken more than SHARE of the time since.

        None within the time FIRST. A net that has diverged, or has come to rest, keeps its own last one. NnliteError
        where the disk fails.
        """
        began = time.monotonic()
        if began < self._next:
            return
        epoch = max(state.epoch for state in states)
        for path, one, state in zip(self.paths, self.models, states, strict=True):
            if state.epoch == epoch:
                write_checkpoint(path, one, state)
        ended = time.monotonic()
        self._next = ended + (ended - began) * (1 / SHARE - 1)
