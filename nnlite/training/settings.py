"""Settings: all that decides a training run."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, get_args

from nnlite.backend import DEVICES
from nnlite.datasets.catalog import DATASETS
from nnlite.datasets.rotation import ANGLES, ROTATION
from nnlite.errors import NnliteError, shown
from nnlite.methods import Regularisation
from nnlite.network import MAIN

USUAL_GAMMA = 0.5  # in the middle of the paper's range
EPOCHS_LIMIT, LIST_LIMIT, TEXT_LIMIT = 100_000, 100, 200
LISTS = {"hidden": int, "term": str}  # one value of theirs is a list
# Files of version 0.1 lack them. Their defaults are what it did.
LATER_SETTINGS = {"alpha", "p", "term", "gradient"}


@dataclass(frozen=True)
class Settings(Regularisation):
    """All that decides a training run; the defaults are the paper's net, batch and method Rect.

    NnliteError for a value of another kind than its field, or out of its range.
    """

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
        for field in dataclasses.fields(self):
            _check_kind(field, getattr(self, field.name))
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
            if getattr(self, name) < least:
                raise NnliteError(f"{name}: expected an integer of at least {least}, found {getattr(self, name)}")
        if self.epochs > EPOCHS_LIMIT:
            raise NnliteError(f"epochs: expected at most {EPOCHS_LIMIT:,}, found {self.epochs:,}")
        if not all(width >= 1 for width in self.hidden):
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

    @property
    def sizes(self) -> tuple[int, ...]:
        """The widths of the net from the input to the logits, such as (784, 784, 784, 784, 10)."""
        data = DATASETS[self.data]
        return (math.prod(data.shape), *self.hidden, data.classes)

    @property
    def heads(self) -> dict[str, int]:
        """The number of classes of each further task."""
        return {ROTATION: len(ANGLES)} if self.multitask else {}


def read_settings(content: Any) -> Settings:
    """Return the Settings that an object of JSON holds; NnliteError where it lacks one, has more, or one is wrong."""
    names = {field.name for field in dataclasses.fields(Settings)}
    found = content.keys() if isinstance(content, dict) else set()
    if wrong := (names - found - LATER_SETTINGS) | (found - names):
        raise NnliteError(f"settings: expected {', '.join(sorted(names))}; missing or unknown: {shown(sorted(wrong))}")
    values: dict[str, Any] = {name: tuple(one) if isinstance(one, list) else one for name, one in content.items()}
    return Settings(**values)


def _check_kind(field: "dataclasses.Field[Any]", value: Any) -> None:
    if value is None and field.default is None:
        return
    listed = field.name in LISTS
    if listed and not (isinstance(value, tuple) and len(value) <= LIST_LIMIT):
        raise NnliteError(f"{field.name}: expected a tuple of at most {LIST_LIMIT}, found {shown(value)}")
    kind = LISTS[field.name] if listed else (*get_args(field.type), field.type)[0]
    for one in value if listed else [value]:
        if kind is bool:
            good, expected = isinstance(one, bool), "true or false"
        elif kind is str:
            good = isinstance(one, str) and one.isprintable() and len(one) <= TEXT_LIMIT
            expected = "a text of one line"
        else:
            integer = isinstance(one, int) and not isinstance(one, bool) and abs(one) < 1 << 63
            good = integer or (kind is float and isinstance(one, float))
            expected = "an integer below 2**63" if kind is int else "a number"
        if not good:
            raise NnliteError(f"{field.name}: expected {expected}, found {shown(one)}")
