"""Time certificates beside the matrix products that they form.

    python tests/tools/certificate_times.py RUN... --phi 0.02,0.05 --images 50

prints for each run and phi the milliseconds of an image, in one thread, the time of its products alone, by NumPy and
into arrays that exist already, and the ratio: medians over --rounds turns. A certificate takes no
layer but Dense itself, so the arrays of the net record what they are multiplied with.
"""

import time
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import click
import numpy as np
import threadpoolctl

from nnlite.backend import Array
from nnlite.bench.matmuls import Matmul, multiply
from nnlite.certify import margins
from nnlite.cli.options import PHIS, print_table
from nnlite.cli.own import data_of, find_anywhere
from nnlite.network import Network
from nnlite.storage.memory import keep_freed_memory


class Remembering(np.ndarray):
    """An array that appends the factors of each matrix product with it, or with what was made of it, to `factors`."""

    factors: ClassVar[list[tuple[Array, Array]]] = []

    def __array_ufunc__(self, ufunc: Any, method: str, *given: Any, out: Any = (), **options: Any) -> Any:
        """Do what the plain arrays would."""
        plain, into = ([_plain(one) for one in some] for some in (given, out))
        if ufunc is np.matmul:
            self.factors.append(tuple(plain))
        made = getattr(ufunc, method)(*plain, **({"out": tuple(into)} if into else {}), **options)
        return out[0] if out else made.view(Remembering) if isinstance(made, np.ndarray) else made


def _plain(array: Any) -> Any:
    return array.view(np.ndarray) if isinstance(array, Remembering) else array


def matmuls_of(net: Network, x: Array, y: Array, phi: float) -> list[Matmul]:
    """Return the matrix products of the certificates of the images x (N, D)."""
    Remembering.factors.clear()
    margins(net.map(lambda array: array.view(Remembering)), x, y, phi)
    outs: dict[tuple[int, ...], Array] = {}
    listed = []
    for a, b in Remembering.factors:
        shape = a.shape[:-1] + b.shape[1:]
        listed.append((a, b, outs.setdefault(shape, np.empty(shape))))
    return listed


def milliseconds(work: Any, images: int) -> float:
    """Return how long `work` takes, for each of so many images."""
    began = time.perf_counter()
    work()
    return 1e3 * (time.perf_counter() - began) / images


@click.command()
@click.argument("names", metavar="RUN...", nargs=-1, required=True)
@click.option("--phi", type=PHIS, default=(0.05,))
@click.option("--images", type=int, default=50)
@click.option("--rounds", type=int, default=5)
@click.option("--runs", type=click.Path(path_type=Path), default="runs")
def main(names: tuple[str, ...], phi: tuple[float, ...], images: int, rounds: int, runs: Path) -> None:
    """Print the table."""
    keep_freed_memory()
    rows = []
    for name in names:
        run = find_anywhere(name, runs)
        x, y = data_of(run, run.data.name).test.batch(slice(0, images))
        for size in phi:
            matmuls = matmuls_of(run.net, x, y, size)
            works = partial(margins, run.net, x, y, size), partial(multiply, matmuls)
            turns = [[milliseconds(work, images) for work in works] for _ in range(rounds)]
            own, floor = np.median(turns, axis=0)
            ratio = np.median([one / other for one, other in turns])
            rows.append([name, f"{size:g}", f"{own:.2f}", f"{floor:.2f}", f"{ratio:.2f}"])
    print_table(f"certificates of {images} images, one thread", ["", "phi", "ms", "products", "ratio"], rows)


if __name__ == "__main__":
    with threadpoolctl.threadpool_limits(1):
        main()
