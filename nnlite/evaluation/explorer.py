"""The explorer: nets, test images and what is known of both, in one HTML page that needs nothing else.

In the page the reader chooses an image or draws one, moves phi, and sees what the noise does to each net. Logits and
input gradients are computed there, by the two operations of `nnlite.network`; radii and accuracies are computed here.
The page loads nothing and asks no address for anything: explorer.html beside this file is its whole program.
"""

import base64
import html
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt

from nnlite.attacks import Noise
from nnlite.backend import Array
from nnlite.datasets.samples import Dataset, Samples
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import draw, evaluate_attack
from nnlite.evaluation.certifying import CertifyOptions, bracket
from nnlite.evaluation.radii import find_radii
from nnlite.layers import Dense, ReLU
from nnlite.network import Network
from nnlite.penalties import L1

USUAL_LIMIT, LARGE_LIMIT = 300_000, 2_000_000  # bytes of a page
MOST = 4  # nets side by side
STEPS = 10  # of the curve of accuracies, from phi = 0 to the largest
R1 = Noise(L1, clip=True)

OnPart = Callable[[str, float, float], None]  # is told what is computed, how much of it is done, and of how much


@dataclass(frozen=True)
class ExplorerOptions:
    """What a page shows.

    Arguments:
        phi: The largest noise on a pixel that the slider reaches, above 0 and at most 1.
        images: How many test images there are to choose from, drawn by the seed; each has its own radii.
        examples: How many the accuracies rest on, drawn likewise.
        seed: The seed of what is drawn.
        limit: How many bytes the page may have.
    """

    phi: float = 0.2
    images: int = 40
    examples: int = 200
    seed: int = 0
    limit: int = USUAL_LIMIT

    def __post_init__(self) -> None:
        CertifyOptions(phi=(self.phi,), examples=self.examples, seed=self.seed)
        CertifyOptions(examples=self.images)


def explorer_page(
    nets: Mapping[str, Network],
    data: Dataset,
    options: ExplorerOptions = ExplorerOptions(),
    *,
    notes: Mapping[str, str] | None = None,
    on_part: OnPart = lambda what, done, total: None,
) -> str:
    """Return the page as the text of an HTML file.

    Arguments:
        nets: One to four nets by name, not stacks, of Dense and ReLU layers.
        data: What they were trained on; the page holds test images of it.
        options: What the page shows.
        notes: A few words on each net, such as its method.
        on_part: Called with the name of the net that is looked at, how much of the work is done, and of how much.

    NnliteError: no net or too many, a stack, a net with layers of another kind or for other data, and a page that would
    be larger than the limit; all this is said before anything is computed.
    """
    if not 1 <= len(nets) <= MOST:
        raise NnliteError(f"nets: expected one to {MOST}, found {len(nets)}")
    for name, net in nets.items():
        if net.stacked:
            raise NnliteError(f"{name}: expected one net, found a stack; choose one of its models")
        if (net.sizes[0], net.sizes[-1]) != (data.features, data.classes):
            raise NnliteError(
                f"{name}: expected a net of {data.features} inputs and {data.classes} classes, as {data.name} has, "
                f"found {net.sizes[0]} and {net.sizes[-1]}"
            )
        for layer in net.layers:
            if type(layer) not in (Dense, ReLU):
                raise NnliteError(f"{name}: the page knows Dense and ReLU layers alone, found {type(layer).__name__}")
    rows = draw(len(data.test), options.images, options.seed)
    shown, known = data.test[rows], {name: {"name": name, **_weights(net)} for name, net in nets.items()}
    content: dict[str, Any] = {"data": _data(data), **_images(shown), "rows": rows.tolist(), "phi": options.phi}
    page = _page({**content, "nets": [*known.values()]})
    size = len(page.encode())
    if size > options.limit:
        more = f", or --large for up to {LARGE_LIMIT // 1000:,} kB" if size <= LARGE_LIMIT else ""
        raise NnliteError(
            f"explore: expected a page of at most {options.limit // 1000:,} kB, found {size / 1000:,.0f}; "
            f"take nets of fewer units, or fewer images{more}"
        )
    parts = 2 * len(nets)  # radii and accuracies of each
    for k, (name, net) in enumerate(nets.items()):
        found = _looked_at(net, data, shown, options, partial(_tell, on_part, name, 2 * k, parts))
        known[name] |= {"note": (notes or {}).get(name, "")} | found
    return _page({**content, "nets": [*known.values()]})


def _tell(on_part: OnPart, name: str, before: int, total: int, done: float) -> None:
    on_part(name, before + done, total)


def _looked_at(
    net: Network, data: Dataset, shown: Samples, options: ExplorerOptions, on_share: Callable[[float], None]
) -> dict[str, Any]:
    """Return the radii of the images shown, and the accuracies at some phi."""
    every = CertifyOptions(examples=None)
    radii = find_radii(net, shown, every, on_progress=lambda done, total: on_share(done / total))
    sizes = np.linspace(0, options.phi, STEPS + 1).round(6).tolist()
    asked = CertifyOptions(phi=tuple(sizes), examples=options.examples, seed=options.seed)
    found = bracket(net, data.test, asked, on_progress=lambda done, total: on_share(1 + done / total))
    if radii.interrupted or found.interrupted:
        raise KeyboardInterrupt
    step = evaluate_attack(net, {"net": net}, data.test[found.rows], R1, found.phi).accuracy["net"]
    curve = {"phi": sizes, "proven": found.accuracy["proven"], "worst": found.accuracy["worst"], "step": step}
    return {
        "proven": (np.floor(1e6 * radii.proven) / 1e6).tolist(),  # rounded so that both stay true
        "broken": [None if np.isinf(one) else one for one in (np.ceil(1e6 * radii.broken) / 1e6).tolist()],
        "curve": {key: np.round(values, 2).tolist() for key, values in curve.items()},
        "examples": len(found.rows),
    }


def _data(data: Dataset) -> dict[str, Any]:
    about = asdict(data.description)
    kept = ("name", "shape", "classes", "features", "low", "high")
    return {key: about[key] for key in kept} | {"samples": data.description.samples, "values": data.description.values}


def _images(shown: Samples) -> dict[str, Any]:
    x, y = shown.batch(slice(None))
    bytes_ = shown.images.dtype == np.uint8
    low, high = (np.asarray(end).tolist() for end in (shown.box.low, shown.box.high))
    images = {"bytes": _text(shown.images, np.uint8), "white": shown.white} if bytes_ else {"floats": _text(x)}
    return {"images": images, "labels": y.tolist(), "box": [low, high]}


def _weights(net: Network) -> dict[str, Any]:
    """Return the widths, and the weights and biases of each Dense layer one after another, as base64 of float32."""
    dense = [layer for layer in net.layers if isinstance(layer, Dense)]
    layers = ["dense" if isinstance(layer, Dense) else "relu" for layer in net.layers]
    values = np.concatenate([part.ravel() for layer in dense for part in (layer.W, layer.b)])
    return {"sizes": net.sizes, "layers": layers, "weights": _text(values)}


def _text(array: Array, dtype: npt.DTypeLike = np.float32) -> str:
    little = np.ascontiguousarray(array, np.dtype(dtype).newbyteorder("<"))
    return base64.b64encode(little.tobytes()).decode()


def _page(content: Mapping[str, Any]) -> str:
    """Return the program with `content` in it; "<" is escaped, so that no name in it can end the script."""
    text = json.dumps(content, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    program = resources.files("nnlite.evaluation").joinpath("explorer.html").read_text("utf-8")
    return program.replace("@@TITLE@@", html.escape(str(content["data"]["name"]))).replace("@@CONTENT@@", text)
