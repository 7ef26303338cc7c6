"""Attack a run with AutoAttack and foolbox through the bridge, and with nnlite's own attacks: who breaks more?

    build/torch/bin/python tests/tools/beside_others.py RUN --phi 0.1 --phi-l2 0.5

prints a row for each attack: the accuracy that it leaves on the same images, how many images it breaks that nnlite's
own, `nnlite audit` in L-infinity and apgd-l2 with fmn-l2 in L2, do not, and how many the other way round, and the
seconds. `make test-torch` makes the environment.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import foolbox
import numpy as np
import torch
import torchattacks

from nnlite.attacks import NORMS
from nnlite.backend import Array
from nnlite.cli.options import PHI, print_table
from nnlite.cli.own import data_of, find_anywhere
from nnlite.datasets.samples import Samples
from nnlite.evaluation.accuracy import draw, evaluate_attack
from nnlite.evaluation.auditing import AuditOptions, audit
from nnlite.evaluation.named_attacks import choose_attack
from nnlite.interop.torch import torch_module
from nnlite.network import Network

ROUNDING = 1e-6  # of a radius, in the float32 of others
WITHIN = {"LinfPGD": "linf", "LInfFMNAttack": "linf"}
NEAREST = {"DDNAttack": "l2", "L2FMNAttack": "l2", "L2DeepFoolAttack": "l2", "L2CarliniWagnerAttack": "l2"}


class Stretched(torch.nn.Module):
    """A model of pixels in [0, 1] that stand for [low, high]: AutoAttack keeps them there, whatever they mean."""

    def __init__(self, module: torch.nn.Module, low: float, high: float) -> None:
        super().__init__()
        self.module, self.low, self.width = module, low, high - low

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.module(self.low + self.width * x)


def autoattack(module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, phi: float, clip: bool) -> Array:
    """Return what AutoAttack, version standard, makes of the images, with the 100 steps of its authors."""
    low, high = (0.0, 1.0) if clip else (-1.0, 2.0)
    classes = module(x[:1]).shape[1]
    mapped = Stretched(module, low, high).eval()
    attack = torchattacks.AutoAttack(mapped, eps=phi / (high - low), n_classes=classes, seed=0)
    for part in attack._autoattack.attacks[:3]:  # APGD, APGD-T and FAB; torchattacks itself lets them take 10
        part.steps = 100
    return (low + (high - low) * attack((x - low) / (high - low), y)).detach().numpy()


def of_foolbox(name: str, module: torch.nn.Module, x: torch.Tensor, y: torch.Tensor, phi: float, clip: bool) -> Array:
    """Return what an attack of foolbox with its usual numbers makes of the images; one of no radius ignores phi."""
    fewer = {"steps": 1000} if name == "L2CarliniWagnerAttack" else {}  # it would take 90,000
    model = foolbox.PyTorchModel(module, bounds=(0, 1) if clip else (-1, 2), device="cpu")
    found, _, _ = getattr(foolbox.attacks, name)(**fewer)(model, x, y, epsilons=phi if name == "LinfPGD" else None)
    return found.detach().numpy()


def own(net: Network, samples: Samples, norm: str, phi: float, clip: bool) -> Array:
    """Return which images nnlite's own attacks leave correct, (N,)."""
    if norm == "linf":
        return audit(net, samples, {}, AuditOptions(phi=(phi,), clip=clip, proven=0)).worst[-1]
    left = []
    for name in ("apgd-l2", "fmn-l2"):
        attack = choose_attack(name, (phi,), clip=clip).attack
        left.append(evaluate_attack(net, {"net": net}, samples, attack, (phi,)).correct["net"][-1])
    return np.all(left, axis=0)


def rows(net: Network, samples: Samples, sizes: dict[str, float], shape: tuple[int, ...], clip: bool) -> Iterator[Any]:
    """Yield a row of the table for each attack of others."""
    x, y = samples.batch(slice(None))
    module, labels = torch_module(net), torch.tensor(y)
    images = torch.tensor(x).reshape(-1, 1, *shape[:2]) if len(shape) > 1 else torch.tensor(x).reshape(-1, 1, 1, *shape)
    ours = {}
    for norm, phi in sizes.items():
        start = time.perf_counter()
        ours[norm] = own(net, samples, norm, phi, clip)
        yield [f"nnlite, {norm} {phi:g}", _percent(ours[norm]), "", "", f"{time.perf_counter() - start:.0f}"]
    for name, norm in {"AutoAttack": "linf", **WITHIN, **NEAREST}.items():
        start, phi = time.perf_counter(), sizes[norm]
        if name == "AutoAttack":
            found = autoattack(module, images, labels, phi, clip)
        else:
            found = of_foolbox(name, module, images, labels, phi, clip)
        seconds, found = time.perf_counter() - start, found.reshape(x.shape)
        near = NORMS[norm](found.astype(np.float64) - x) <= phi + ROUNDING
        theirs = (net.predict(x) == y) & ~(near & (net.predict(found) != y))
        alone, missed = (ours[norm] & ~theirs).sum(), (theirs & ~ours[norm]).sum()
        yield [f"{name}, {norm} {phi:g}", _percent(theirs), f"{alone}", f"{missed}", f"{seconds:.0f}"]


def _percent(correct: Array) -> str:
    return f"{100 * correct.mean():.1f}"


@click.command()
@click.argument("name", metavar="RUN")
@click.option("--phi", type=PHI, default=0.1, help="L-infinity radius.")
@click.option("--phi-l2", type=PHI, default=0.5, help="L2 radius.")
@click.option("--clip/--no-clip", default=True)
@click.option("--examples", type=int, default=200)
@click.option("--data", default="", help="Path of one's own data.")
@click.option("--runs", type=click.Path(path_type=Path), default="runs")
def main(name: str, phi: float, phi_l2: float, clip: bool, examples: int, data: str, runs: Path) -> None:
    """Print the table of one run."""
    torch.set_num_threads(1)
    run = find_anywhere(name, runs)
    test = data_of(run, data or run.data.name).test
    samples = test[draw(len(test), examples, 0)]
    found = [*rows(run.net, samples, {"linf": phi, "l2": phi_l2}, run.data.shape, clip)]
    title = f"{name} on {len(samples)} test images of {run.data.name}, {'clipped' if clip else 'free'}"
    print_table(title, ["attack", "accuracy, %", "breaks alone", "misses", "s"], found)


if __name__ == "__main__":
    main()
