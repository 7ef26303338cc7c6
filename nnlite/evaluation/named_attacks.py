"""Every attack by name, as a row: how it is made, what it can be told, and what is printed about it.

A row is all that `nnlite attack` knows of an attack. To add one, write it as nnlite.attacks.Attack says, in a file of
its own, and add its row: the command then takes its name and its options, and its help describes them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, NamedTuple

from nnlite.apgd import APGD
from nnlite.attacks import PGD, R1, R2, Attack, check_count
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import PAPER_PHI, check_phi
from nnlite.evaluation.aimed import Aimed
from nnlite.evaluation.attack_file import LABELS
from nnlite.evaluation.fmn import FMN
from nnlite.lbfgs import LBFGS
from nnlite.storage import kinds
from nnlite.storage.texts import did_you_mean

L2_PHI = (0.0, 0.25, 0.5, 1.0, 2.0)  # phi on each of D pixels is sqrt(D) phi long, so the paper's sizes are tiny here
NORM_NAMES = {"l2": "L2", "linf": "L-infinity"}


class Option(NamedTuple):
    """Something that an attack can be told: its type, and what it means."""

    type: type[int] | type[float]
    meaning: str


OPTIONS = {
    "steps": Option(int, "Steps"),
    "restarts": Option(int, "Starts, of which the best counts"),
    "stride": Option(float, "Size of a step, as a share of phi; 2.5 / steps if not given"),
    "queries": Option(int, "Queries for each image"),
    "seed": Option(int, "Seed of what is drawn at random"),
}


@dataclass(frozen=True)
class NamedAttack:
    """A row: an attack as the command line knows it.

    Arguments:
        label: The name that is printed.
        norm: What phi is measured in, as Attack says.
        make: Makes the attack; it is given the options but for the seed, and `clip` unless that is None.
        summary: What it does, in a line.
        options: The OPTIONS that it takes, with their defaults.
        clip: Whether pixels stay within [0, 1] unless the user says otherwise; None if they always do.
        phi: The sizes of noise unless the user gives others.
        extra: The extra of nnlite that it needs, "" for none.
        aliases: Its other names.
        effort: The numbers of the attack that say how hard it tries, beside its options.
        targets: Whether it can be led towards one class.
    """

    label: str
    norm: str | None
    make: Callable[..., Attack]
    summary: str
    options: Mapping[str, float | None] = field(default_factory=dict)
    clip: bool | None = None
    phi: tuple[float, ...] = PAPER_PHI
    extra: str = ""
    aliases: tuple[str, ...] = ()
    effort: tuple[str, ...] = ()
    targets: bool = True


@dataclass(frozen=True)
class ChosenAttack:
    """An attack with its name, what it is told, and what it aims at.

    Arguments:
        name: As the command line knows it.
        label: The name that is printed.
        attack: What it is without an aim.
        phi: The sizes of noise.
        seed: Of what it draws; None for one that draws nothing.
        target: The class that the net is to predict; None for noise that leads away from the labels.
        labels: Which labels the adversary is told, one of LABELS.
    """

    name: str
    label: str
    attack: Attack
    phi: tuple[float, ...]
    seed: int | None
    target: int | None = None
    labels: str = LABELS[0]

    @property
    def aimed(self) -> Attack:
        """What crafts."""
        aimed = Aimed(self.attack, self.target, predicted=self.labels == "predicted")
        return self.attack if aimed == Aimed(self.attack) else aimed

    def on(self, shape: tuple[int, ...]) -> "ChosenAttack":
        """Return it told the shape of an image, () for rows of a table, where it looks at that."""
        attack: Any = self.attack
        return replace(self, attack=replace(attack, shape=shape or None)) if hasattr(attack, "shape") else self

    @property
    def title(self) -> str:
        """What it makes, such as: PGD noise."""
        return f"{self.label} noise"

    @property
    def parameters(self) -> dict[str, float]:
        """How hard it tries, by names and numbers such as {"steps": 40}."""
        row = NAMED_ATTACKS[self.name]
        names = [*row.effort, *(option for option in row.options if option != "seed")]
        return {name: getattr(self.attack, "share" if name == "stride" else name) for name in names}

    @property
    def details(self) -> str:
        """How it is made, such as: L2 norm, steps 40, restarts 5, stride 0.0625, seed 0, clipped to [0, 1]."""
        norm, parameters = self.attack.norm, self.parameters
        words = [f"{NORM_NAMES[norm]} norm"] if norm and parameters else []  # a single step is known by its name
        words += [f"{name} {value:g}" for name, value in parameters.items()]
        words += [] if self.seed is None else [f"seed {self.seed}"]
        words += [] if self.target is None else [f"towards class {self.target}"]
        words += ["told predicted labels"] * (self.labels == "predicted")
        return ", ".join([*words, "clipped to [0, 1]" if self.attack.clip else "not clipped"])


def choose_attack(
    name: str,
    phi: Sequence[float] | None = None,
    *,
    clip: bool | None = None,
    target: int | None = None,
    labels: str = LABELS[0],
    **options: Any,
) -> ChosenAttack:
    """Return the attack of this name, told the given options, and all others as its row has them.

    Arguments:
        name: Of NAMED_ATTACKS, or another name of one.
        phi: The sizes of noise; None for those of the row.
        clip: Whether pixels stay within [0, 1]; None for what the row says.
        target: The class that the net is to predict; None for noise that leads away from the labels.
        labels: Which labels the adversary is told, one of LABELS.
        options: Those of OPTIONS that the row has.

    NnliteError: an unknown name, an option that the attack does not take or whose value it refuses, and a target for an
    attack that cannot be led towards a class.
    """
    name = next((known for known, row in NAMED_ATTACKS.items() if name in row.aliases), name)
    row = NAMED_ATTACKS.get(name)
    if row is None:
        near = did_you_mean(name, NAMED_ATTACKS)
        raise NnliteError(f"noise: expected one of {', '.join(NAMED_ATTACKS)}, found {name!r}{near}")
    for option in options:
        if option not in row.options:
            able = ", ".join(other for other, takes in NAMED_ATTACKS.items() if option in takes.options)
            only = f", only {able}" if able else ""
            raise NnliteError(f"{option}: noise {name} does not use it{only}; leave it out")
    if target is not None and not row.targets:
        able = ", ".join(other for other, takes in NAMED_ATTACKS.items() if takes.targets)
        raise NnliteError(f"target: noise {name} cannot be led towards one class, only {able}; leave it out")
    kinds.expect("labels", kinds.one_of(LABELS), labels)
    if row.clip is None and clip is False:
        raise NnliteError(f"clip: noise {name} always keeps pixels within [0, 1]; leave --no-clip out")
    told: dict[str, Any] = {**row.options, **options}
    seed = told.pop("seed", None)
    seed = None if seed is None else check_count("seed", seed, least=0)
    if row.clip is not None:
        told["clip"] = row.clip if clip is None else clip
    sizes = row.phi if phi is None else check_phi(phi)
    return ChosenAttack(name, row.label, row.make(**told), sizes, seed, target, labels)


def _art(name: str, norm: str, summary: str, **options: int) -> NamedAttack:
    """Return the row of one of ART's attacks; the toolbox is imported only when the attack is made."""

    def make(**told: Any) -> Attack:
        from nnlite.interop.art import ArtAttack

        return ArtAttack(name, **told)

    return NamedAttack(name, norm, make, summary, options, phi=_PHI[norm], extra="interop", targets=False)


_PHI = {"linf": PAPER_PHI, "l2": L2_PHI}
_PGD: dict[str, float | None] = {"steps": 40, "restarts": 1, "stride": None, "seed": 0}
_APGD = {"steps": APGD.steps, "restarts": APGD.restarts, "seed": 0}
_FMN = {"steps": 100}

NAMED_ATTACKS = {
    "r1": NamedAttack("R1", "linf", partial(replace, R1), "one step phi sign(J)", clip=False, aliases=("fgsm",)),
    "r2": NamedAttack("R2", None, partial(replace, R2), "one step phi 2J", clip=False),
    "pgd": NamedAttack("PGD", "linf", PGD, "projected gradient descent", _PGD, clip=True),
    "pgd-l2": NamedAttack("PGD", "l2", partial(PGD, "l2"), "projected gradient descent", _PGD, clip=True, phi=L2_PHI),
    "apgd": NamedAttack("APGD", "linf", APGD, "PGD that sets its strides, from many starts", _APGD, clip=True),
    "apgd-t": NamedAttack(
        "APGD-T",
        "linf",
        partial(APGD, losses=("targets",)),
        "the same, from the image towards each class in turn",
        {"steps": 70},
        clip=True,
        targets=False,
    ),
    "apgd-l2": NamedAttack("APGD", "l2", partial(APGD, "l2"), "as apgd", _APGD, clip=True, phi=L2_PHI),
    "lbfgs": NamedAttack(
        "L-BFGS", "l2", LBFGS, "smallest noise (Szegedy et al. 2013)", phi=L2_PHI, effort=("searches", "iterations")
    ),
    "fmn": NamedAttack("FMN", "linf", FMN, "smallest noise (Pintor et al. 2021)", _FMN, clip=True),
    "fmn-l2": NamedAttack("FMN", "l2", partial(FMN, "l2"), "as fmn", _FMN, clip=True, phi=L2_PHI),
    "square": _art("square", "linf", "random search, sees only logits", queries=1000, restarts=1, seed=0),
    "autopgd": _art("autopgd", "linf", "PGD that adapts its steps", steps=100, restarts=1, seed=0),
    "deepfool": _art("deepfool", "l2", "smallest noise, by linearising the net", steps=50),
    "carlini": _art("carlini", "l2", "smallest noise (Carlini and Wagner 2017)", steps=10),
    "hopskipjump": _art("hopskipjump", "l2", "smallest noise, sees only the predicted class", steps=10, seed=0),
}
