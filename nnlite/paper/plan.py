"""The plan: all settings of a reproduction, and what they mean for each of the paper's models."""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nnlite.errors import NnliteError
from nnlite.paper.tables import FAMILIES, Model
from nnlite.storage.kinds import expect
from nnlite.storage.texts import did_you_mean
from nnlite.training.settings import DEFAULTS, FIELDS, Settings

LATER = ("family_epochs",)  # settings that a plan of 0.1.0 does not have; it meant their defaults


@dataclass(frozen=True)
class Plan:
    """The settings of a reproduction. Several lr or gamma mean a search on the validation set.

    mt_epochs and mt_lr are for the multi-task nets, whose epoch takes five times as long; without mt_lr they take lr.
    family_epochs are pairs of a family and its number of epochs, in place of either: a weight penalty acts slowly.
    """

    data: str = "digits"
    epochs: int = 30
    mt_epochs: int = 8
    seeds: tuple[int, ...] = (0,)
    lr: tuple[float, ...] = (0.1,)
    mt_lr: tuple[float, ...] = ()
    gamma: tuple[float, ...] = (DEFAULTS["gamma"],)
    hidden: tuple[int, ...] = (784, 784, 784)
    device: str = "cpu"
    family_epochs: tuple[tuple[str, int], ...] = ()

    def __post_init__(self) -> None:
        for name in ("seeds", "lr", "gamma"):
            if not getattr(self, name):
                raise NnliteError(f"{name}: expected one or more numbers, found none")
        for family, epochs in self.family_epochs:
            if family not in FAMILIES:
                known, near = ", ".join(FAMILIES), did_you_mean(family, FAMILIES)
                raise NnliteError(f"family_epochs: expected a family of {known}, found {family!r}{near}")
            expect("family_epochs", FIELDS["epochs"].metadata["kind"], epochs)

    def epochs_of(self, family: str) -> int:
        """Return for how many epochs the nets of a family are trained."""
        return dict(self.family_epochs).get(family, self.mt_epochs if FAMILIES[family][1] else self.epochs)

    def candidates(self, model: Model) -> list[tuple[float, float | None]]:
        """Return the (lr, gamma) to try for `model`; gamma is None for a single task."""
        if model.multitask:
            return list(itertools.product(self.mt_lr or self.lr, self.gamma))
        return [(lr, None) for lr in self.lr]

    def as_json(self) -> dict[str, Any]:
        """Return the settings as they are read back from JSON, in which a tuple is a list."""
        found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return found

    def differing(self, found: Mapping[str, Any]) -> list[str]:
        """Return the names of the settings that are others in the JSON `found`; what came later may be absent there."""
        defaults = Plan().as_json()
        later = {name: defaults[name] for name in LATER}
        return [name for name, value in self.as_json().items() if {**later, **found}.get(name) != value]

    def settings(self, model: Model, seed: int, lr: float, gamma: float | None) -> Settings:
        """Return the training settings of `model`."""
        return Settings(
            reg=model.reg,
            lam=model.lam,
            phi=model.phi,
            data=self.data,
            hidden=self.hidden,
            lr=lr,
            epochs=self.epochs_of(model.family),
            multitask=model.multitask,
            gamma=gamma,
            seed=seed,
            device=self.device,
        )
