"""An attack from its name to its figures: one net crafts noise, others are scored on it, the images may be kept."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import numpy as np

from nnlite.backend import brief
from nnlite.datasets.samples import Dataset, Samples
from nnlite.evaluation.accuracy import AttackTable, Examples, evaluate_attack, first_of_each_class
from nnlite.evaluation.attack_file import NetId, Record, clean_sha256, new_attack, weights_of, weights_sha256
from nnlite.evaluation.named_attacks import ChosenAttack
from nnlite.evaluation.nets import Nets
from nnlite.network import Network


@dataclass(frozen=True, eq=False)
class Attacked:
    """The figures of an attack and, where they were asked for, examples to draw."""

    table: AttackTable
    examples: Examples | None
    __repr__ = brief()


def attack_nets(
    chosen: ChosenAttack,
    adversary: tuple[str, Network],
    victims: Mapping[str, Network],
    data: Dataset,
    *,
    first: int | None = None,
    dtype: str = "float32",
    device: str = "cpu",
    save: Path | str | None = None,
    with_examples: bool = False,
    on_progress: Callable[[float, int], None] = lambda done, total: None,
) -> Attacked:
    """Craft noise for the test images of `data`, and return how every victim does under it.

    Arguments:
        chosen: The attack, as `choose_attack` returns it.
        adversary: Name and net that craft the noise.
        victims: The nets that are scored, by name.
        data: The data set; see `Dataset.held` for columns that noise is to leave, or leave whole.
        first: How many of its test images are attacked; None for all.
        dtype: The type that the nets compute in, "float32" or "float64".
        device: Where they do, "cpu" or "gpu".
        save: The attack file that keeps the images; None to drop them.
        with_examples: Whether the first image of each class is attacked once more, to be drawn.
        on_progress: Called with the number of images that are done, which may be a fraction, and of all.

    NnliteError: as `evaluate_attack`, and for a file that exists already or cannot be written.
    """
    clean, seed = data.test[:first], chosen.seed or 0
    chosen = chosen.on(clean.shape)

    def ready(net: Network) -> Network:
        return (net if net.dtype == np.dtype(dtype) else net.astype(dtype)).to(device)

    net, nets = ready(adversary[1]), Nets(victims, lambda name: ready(victims[name]))
    asked = nets, clean.to(device), chosen.aimed, chosen.phi
    if save is None:
        table = evaluate_attack(net, *asked, seed=seed, on_progress=on_progress)
    else:
        record = _record(chosen, adversary, victims, data, clean)
        with new_attack(Path(save), record, clean, np.arange(len(clean)), dtype) as file:
            table = evaluate_attack(net, *asked, seed=seed, keep=file.keep, on_progress=on_progress)
            right = np.stack([correct.sum(axis=-1) for correct in table.correct.values()])
            others = np.count_nonzero(clean.labels != chosen.target) if table.reached else 0
            counts = [np.rint(share * others / 100).astype(np.int64) for share in table.reached.values()]
            file.score(right, np.stack(counts) if counts else None)
    return Attacked(table, first_of_each_class(net, *asked, seed=seed) if with_examples else None)


def _record(
    chosen: ChosenAttack, adversary: tuple[str, Network], victims: Mapping[str, Network], data: Dataset, clean: Samples
) -> Record:
    """Return what the attack file says about itself."""
    nets = chain([adversary], victims.items())  # one at a time
    first, *others = (NetId(name, weights_sha256(weights_of(net))) for name, net in nets)
    return Record(
        attack=f"{chosen.title}, {chosen.details}",
        norm=chosen.attack.norm,
        clip=chosen.attack.clip,
        phi=chosen.phi,
        data=data.name,
        source=data.description,
        clean=clean_sha256(clean),
        adversary=first,
        victims=tuple(others),
        target=chosen.target,
        labels=chosen.labels,
        columns=data.columns,
    )
