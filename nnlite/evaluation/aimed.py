"""What an adversary aims at: away from the true class of an image, or from the predicted one, or towards one class."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from numpy.random import Generator

from nnlite.attacks import Attack, Crafted
from nnlite.backend import Array, get_xp
from nnlite.errors import NnliteError
from nnlite.inputs import UNIT, Box
from nnlite.network import Network


@dataclass(frozen=True)
class Aimed:
    """An attack with another aim than the labels that it is given; as an attack it keeps the promises of `attack`.

    Arguments:
        attack: What crafts.
        target: The class that the net is to predict: images of it stay as they are, all others are led towards it.
            None for noise that leads away from the label, whatever the net then says.
        predicted: Whether the adversary goes by the predictions of its own net and never sees a label. One-step noise
            that is made with the true label may leak it to a net that was trained on such noise (Kurakin et al. 2017,
            arXiv:1611.01236).

    NnliteError: a target for an attack that has no field `targeted`, and in `craft` one that the net does not know.
    """

    attack: Attack
    target: int | None = None
    predicted: bool = False

    def __post_init__(self) -> None:
        if self.target is not None and not hasattr(self.attack, "targeted"):
            raise NnliteError(f"target: expected an attack that can be targeted, found {self.attack}; choose another")

    @property
    def norm(self) -> str | None:
        """What phi is measured in."""
        return self.attack.norm

    @property
    def one_at_a_time(self) -> bool:
        """Whether blocks of images may not be attacked at the same time."""
        return getattr(self.attack, "one_at_a_time", False)

    @property
    def clip(self) -> bool:
        """Whether pixels stay within the box of the data."""
        return self.attack.clip

    def craft(self, net: Network, x: Array, y: Array, phi: Sequence[float], rng: Generator, box: Box = UNIT) -> Crafted:
        """Return what `attack` crafts of x (..., N, D) for this aim; y (..., N) is not looked at if predicted."""
        labels = net.predict(x) if self.predicted else y
        if self.target is None:
            return self.attack.craft(net, x, labels, phi, rng, box)
        if not 0 <= self.target < net.sizes[-1]:
            raise NnliteError(f"target: expected a class from 0 to {net.sizes[-1] - 1}, found {self.target}")
        xp, towards = get_xp(x, labels), cast(Attack, replace(cast(Any, self.attack), targeted=True))
        crafted = towards.craft(net, x, xp.full_like(labels, self.target), phi, rng, box)
        others = labels != self.target

        def kept(image: Array) -> Array:
            return xp.where(others[..., None], image, x)

        return replace(
            crafted,
            images=[kept(image) for image in crafted.images],
            failed=None if crafted.failed is None else crafted.failed & others,
            smallest=None if crafted.smallest is None else kept(crafted.smallest),
        )
