"""Settings: all that decides a training run."""

import math
from dataclasses import dataclass

from nnlite.backend import DEVICES
from nnlite.datasets import DATASETS
from nnlite.errors import NnliteError
from nnlite.methods import Regularisation
from nnlite.network import MAIN
from nnlite.rotation import ROTATION

USUAL_GAMMA = 0.5  # in the middle of the paper's range


@dataclass(frozen=True)
class Settings(Regularisation):
    """All that decides a training run; the defaults are the paper's net, batch and method Rect."""

    data: str = "digits"
    hidden: tuple[int, ...] = (784, 784, 784)
    lr: float = 0.1
    epochs: int = 60
    batch_size: int = 100
    multitask: bool = False
    gamma: float | None = None
    seed: int = 0
    device: str = "cpu"

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, known in {"data": DATASETS, "device": DEVICES}.items():
            value = getattr(self, name)
            if value not in known:
                raise NnliteError(f"{name}: expected one of {', '.join(known)}, found {value!r}")
        if self.multitask and self.gamma is None:
            raise NnliteError("gamma: a multi-task net needs the weight of its second loss; give for example 0.5")
        if self.gamma is not None and not self.multitask:
            raise NnliteError("gamma: only a multi-task net uses it; leave it out or add --multitask")
        tasks = {MAIN, *self.further_losses}
        for term in self.terms:
            if term.task not in tasks:
                raise NnliteError(f"term: expected the task {' or '.join(tasks)}, found {term.task!r}; see --multitask")
        for name in ("lr", "gamma"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise NnliteError(f"{name}: expected a finite number above 0, found {value}")
        for name, least in {"epochs": 1, "batch_size": 1, "seed": 0}.items():
            number = getattr(self, name)
            if not isinstance(number, int) or number < least:
                raise NnliteError(f"{name}: expected an integer of at least {least}, found {number}")
        if not all(isinstance(width, int) and width >= 1 for width in self.hidden):
            raise NnliteError(f"hidden: expected integer widths of at least 1, found {self.hidden}")

    @property
    def run_name(self) -> str:
        """The name of the run where the user gives none, such as dgl1-lam0.01-phi0.1, mt or mt-l1-lam0.001."""
        if not self.multitask:
            return self.slug
        stem = "mt" if self.reg == "none" else f"mt-{self.slug}"
        return stem if self.gamma == USUAL_GAMMA else f"{stem}-gamma{self.gamma:g}"

    @property
    def further_losses(self) -> dict[str, float]:
        """The weight of each further task's loss (Eq. 6)."""
        return {ROTATION: self.gamma} if self.gamma is not None else {}
