"""The attack file: the images that an attack made, and how many of them each net got right, for others to check.

    rows       int64 (N,)              which images of the split were attacked
    labels     int64 (N,)              their labels
    images0    float32 (N, D)          what became of them at the first phi, then images1, ...
    right      int64 (victims, phi)    how many of them each victim classified correctly
    reached    int64 (victims, phi)    how many of other classes each took for the target, where the noise has one

and a Record, as JSON, among the metadata. `verify` recomputes everything from the images: the size of the noise, the
range of the pixels, and the class that a net sees. It runs neither nnlite's attacks nor its engine, so that no error
there can hide itself; its few lines of plain NumPy are meant to be read.
"""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import numpy as np
import numpy.typing as npt

from nnlite import __version__
from nnlite.backend import Array, to_host
from nnlite.datasets.columns import FREE, Columns
from nnlite.datasets.description import CLASSES_LIMIT, FEATURES_LIMIT, NAME, Description, read_description
from nnlite.datasets.samples import Samples, whole_numbers
from nnlite.errors import NnliteError
from nnlite.evaluation.threads import OnProgress, OnShare, side_by_side
from nnlite.inputs import Box
from nnlite.layers import Dense
from nnlite.network import Network
from nnlite.storage import kinds
from nnlite.storage.files import current, undisturbed
from nnlite.storage.formats import expect_format
from nnlite.storage.sums import SUMS, check_sums
from nnlite.storage.tensors import DTYPES, ArrayFile, Layout, Writer, check_layout, new_arrays, open_arrays
from nnlite.storage.texts import did_you_mean, parse_json
from nnlite.storage.weights import WEIGHTS, read_any_net

FORMAT, KEY, SPLIT = 3, "nnlite-attack", "test"
LABELS = ("true", "predicted")
ENDING = ".safetensors"
BLOCK = 250  # examples at a time, as in nnlite.evaluation.accuracy: products of other shapes may round otherwise
INT64 = DTYPES["I64"]

Weights: TypeAlias = Sequence[tuple[Array, Array]]  # W (in, out) and b (out,) of each layer on the way to the logits
IntArray: TypeAlias = npt.NDArray[np.int64]
R = TypeVar("R")

TEXT = kinds.text(1, 500)
NET = kinds.object_of({"name": TEXT, "sha256": kinds.SHA256})
FIELDS = {  # of a Record
    "attack": TEXT,
    "norm": kinds.one_of(["linf", "l2", None]),
    "clip": kinds.BOOLEAN,
    "phi": kinds.sequence(kinds.PHI, 1, 1000),
    "data": kinds.FOLDER_NAME,
    "clean": kinds.SHA256,
    "adversary": NET,
    "victims": kinds.sequence(NET, 1, 1000),
    "split": kinds.one_of([SPLIT]),
    "nnlite": TEXT,
    "format": kinds.one_of([1, 2, FORMAT]),
}
LATER = {"source": 2, "target": 3, "labels": 3, "columns": 3}  # fields, and the format that brought them
AIM = {
    "target": kinds.optional(kinds.integer(0, CLASSES_LIMIT - 1)),
    "labels": kinds.one_of(LABELS),
}
COLUMNS = {
    "frozen": kinds.sequence(NAME, 0, FEATURES_LIMIT),
    "limits": kinds.Kind(
        "an object of numbers of at least 0",
        lambda value: isinstance(value, dict) and all(map(kinds.NOT_NEGATIVE.fits, value.values())),
    ),
    "whole": kinds.sequence(NAME, 0, FEATURES_LIMIT),
}


@dataclass(frozen=True)
class NetId:
    """The name of a net, and the SHA-256 of its weights, which is the same whichever file they are kept in."""

    name: str
    sha256: str


@dataclass(frozen=True)
class Record:
    """What an attack file says about itself.

    attack: the name of the attack and its options, in words. norm: what phi is measured in, "linf", "l2", or None
    where phi is no radius; clip: whether the pixels were kept within [0, 1]. clean: the SHA-256 of the clean images
    and their labels. source: the data that they are of; None in files of nnlite 0.1.0. target: the class that the noise
    leads to, None for noise that leads away from the labels. labels: which labels the adversary was told, one of
    LABELS. columns: what the noise did with the columns of a table. Files of older formats lack the last three.
    """

    attack: str
    norm: str | None
    clip: bool
    phi: tuple[float, ...]
    data: str
    clean: str
    adversary: NetId
    victims: tuple[NetId, ...]
    split: str = SPLIT
    nnlite: str = __version__
    format: int = FORMAT
    source: Description | None = None
    target: int | None = None
    labels: str = LABELS[0]
    columns: Columns = FREE


@dataclass(frozen=True)
class AttackFile:
    """An attack file whose header is consistent; the arrays are still on disk."""

    record: Record
    arrays: ArrayFile

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of images, and the number of pixels in each."""
        return self.arrays.layout["images0"][1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixels, and of the nets' arithmetic."""
        return self.arrays.layout["images0"][0]


class AttackWriter:
    """Fills an attack file while the attack runs."""

    def __init__(self, writer: Writer) -> None:
        self._writer = writer

    def keep(self, start: int, images: Sequence[Array]) -> None:
        """Write a block of images, one array (n, D) for each phi, from image number `start` on."""
        for k, block in enumerate(images):
            self._writer.put(f"images{k}", to_host(block), start)

    def score(self, correct: IntArray, reached: IntArray | None = None) -> None:
        """Write how many images each victim got right, and took for the target, at each phi: (victims, phi)."""
        self._writer.put("right", correct)
        if reached is not None:
            self._writer.put("reached", reached)


@contextmanager
def new_attack(
    path: Path, record: Record, split: Samples, rows: IntArray, dtype: npt.DTypeLike
) -> Iterator[AttackWriter]:
    """Yield an AttackWriter for the images `rows` of `split`; only a block that ends without an error leaves a file.

    dtype: that of the images, float32 or float64. NnliteError: a record that could not be read back, a name of another
    kind of file, a file that exists already or cannot be written.
    """
    check_ending(path)
    text = json.dumps(asdict(record))
    try:
        _record(parse_json(text))
    except ValueError as error:
        raise NnliteError(f"{path}: cannot keep the attack: {error}") from error
    with new_arrays(path, layout(record, (len(rows), split.images.shape[1]), dtype), {KEY: text}) as writer:
        writer.put("rows", rows)
        writer.put("labels", split.labels[rows])
        yield AttackWriter(writer)


def check_ending(path: Path) -> None:
    """Raise NnliteError where the name of an attack file ends like that of a file of another kind."""
    if path.suffix.lower() not in ("", ENDING):
        raise NnliteError(
            f"save: an attack file is safetensors: expected a name that ends in {ENDING}, found {path.name!r}"
        )


def open_attack(path: Path | str) -> AttackFile:
    """Read the record of an attack file; NnliteError for another kind of file, or parts that do not fit together."""
    arrays = open_arrays(Path(path))
    try:
        if KEY not in arrays.metadata:
            raise ValueError(f"its metadata hold no text {KEY}")
        record = _record(parse_json(arrays.metadata[KEY]))
        dtype, shape = arrays.layout.get("images0", (INT64, ()))
        if len(shape) != 2 or 0 in shape or dtype.kind != "f":
            raise ValueError("there is no array images0 of float pixels, shape (N, D)")
        check_layout(arrays.layout, layout(record, shape, dtype))
    except ValueError as error:
        what = "an attack file of nnlite, as nnlite attack --save writes"
        raise NnliteError(f"{path}: expected {what}: {error}") from error
    return AttackFile(record, arrays)


def layout(record: Record, shape: tuple[int, ...], dtype: npt.DTypeLike) -> Layout:
    """Return the arrays of an attack file for N images of D pixels, `shape` (N, D)."""
    images = {f"images{k}": (np.dtype(dtype), shape) for k in range(len(record.phi))}
    one_each, counts = (INT64, shape[:1]), (INT64, (len(record.victims), len(record.phi)))
    reached = {} if record.target is None else {"reached": counts}
    return {"rows": one_each, "labels": one_each, **images, "right": counts, **reached}


def sha256(*arrays: Array) -> str:
    """Return the SHA-256 of some arrays, on the host, in this order: of dtype, shape and values of each."""
    digest = hashlib.sha256()
    for array in arrays:
        little = np.ascontiguousarray(array, array.dtype.newbyteorder("<"))
        digest.update(f"{little.dtype.str} {little.shape}\n".encode())
        digest.update(little.tobytes())
    return digest.hexdigest()


def clean_sha256(samples: Samples) -> str:
    """Return the SHA-256 of images, as bytes and what counts as white, and labels."""
    return sha256(samples.images, np.array(samples.white, np.float64), samples.labels.astype(INT64))


def weights_of(net: Network) -> Weights:
    """Return the weights of a net on the host; auxiliary heads play no part in an attack."""
    return [(to_host(layer.W), to_host(layer.b)) for layer in net.layers if isinstance(layer, Dense)]


def weights_sha256(weights: Weights) -> str:
    """Return the SHA-256 of all W and b, from the first layer to the last."""
    return sha256(*(array for pair in weights for array in pair))


def load_weights(folder: Path) -> Weights:
    """Return the weights of the run in `folder`; NnliteError unless they are a chain of finite float32 layers."""
    path = folder / WEIGHTS
    file = open_arrays(path)
    try:
        weights = weights_of(read_any_net(file))
        if (folder / SUMS).exists():  # nnlite 0.1.0 wrote none
            check_sums(folder, [WEIGHTS])
        return weights
    except ValueError as error:
        raise NnliteError(f"{path}: {error}; choose another run, or train it again") from error


def find_weights(name: str, data: str, runs: Path) -> tuple[str, Weights]:
    """Return name and weights of the run `name` on `data` below `runs`, or of the run in the folder `name`."""
    for folder in (runs / data / name, Path(name)):
        if name and os.path.isfile(current(folder) / WEIGHTS):  # False, not an error, for a name too long
            return folder.resolve().name, undisturbed(folder, load_weights)
    near = did_you_mean(name, (path.name for path in (runs / data).glob("[!.]*")))
    raise NnliteError(f"run: expected the name of a run on {data} below {runs}, or its path, found {name!r}{near}")


@dataclass(frozen=True)
class Size:
    """What was measured at one phi: the largest norm of the noise, its limit, and the range of the pixels.

    limit: None where phi is no radius.
    """

    phi: float
    norm: float
    limit: float | None
    low: float
    high: float


@dataclass(frozen=True)
class Score:
    """How many images a net classifies correctly at each phi, as recorded, None if nothing was, and as found.

    reached: how many images of other classes it takes for the target, as found; None for noise without a target.
    """

    run: NetId
    recorded: tuple[int, ...] | None
    found: tuple[int, ...]
    note: str
    reached: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Failure:
    """One difference between what a file says and what was found, at phi number `k`, or at all of them for None."""

    k: int | None
    text: str


@dataclass
class Verification:
    """All that was found; `failures` is empty if everything is as the file says."""

    sizes: list[Size] = field(default_factory=list)
    scores: list[Score] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


def verify(
    file: AttackFile,
    split: Samples,
    runs: Mapping[str, Weights],
    *,
    on_progress: OnProgress = lambda done, total: None,
) -> Verification:
    """Compare the images of an attack file with the clean ones of `split`, and have `runs`, by name, classify them.

    The norm is computed in float64; it may exceed phi by `slack`, as the attack rounded its pixels. Columns of a table
    must have been treated as the record says. A run that the file names must classify exactly as many images correctly
    as recorded, and take as many for the target. The weights of one run at a time are asked for. `on_progress` is
    called with how many images are done, and of how many, at all phi and for all runs together. NnliteError: a split or
    a run for images of another size, rows that the split does not have.
    """
    record, rows = file.record, _rows(file, split)
    about, held = record.source, record.columns.held
    if about and held:
        split = split.limited(np.array([held.get(name, np.inf) for name in about.features]))
    whole = about and record.columns.whole and whole_numbers(about, record.columns.whole)
    verification, blocks = Verification(), [slice(start, start + BLOCK) for start in range(0, len(rows), BLOCK)]
    sizes = [len(rows[block]) for block in blocks]
    parts, count = itertools.count(), (len(runs) + 1) * len(record.phi)  # the images at one phi, for a run or measured

    def in_blocks(k: int, look: Callable[[Array, slice], R]) -> list[R]:
        part = next(parts)

        def work(number: int, _: OnShare) -> R:
            with np.errstate(all="ignore"):  # what is not finite is a failure of its own
                return look(file.arrays.read(f"images{k}", blocks[number]), blocks[number])

        return [*side_by_side(work, sizes, lambda done, total: on_progress(part * total + done, count * total))]

    counted = [_classify(file, split.labels[rows], name, runs[name], in_blocks) for name in runs]

    def blame(k: int | None, bad: npt.NDArray[np.bool_], what: str) -> None:
        if bad.any():
            where = f"{bad.sum():,} of {len(rows):,} images, the first in row {rows[bad.argmax()]:,}"
            verification.failures.append(Failure(k, f"{what}: {where}"))

    found = clean_sha256(split[rows])
    if found != record.clean:
        both = f"SHA-256 {found[:12]} here, {record.clean[:12]} in the file"
        verification.failures.append(Failure(None, f"the clean images or their labels are others: {both}"))
    blame(None, file.arrays.read("labels") != split.labels[rows], "labels that differ from those of the data")

    def measure(image: Array, block: slice) -> tuple[tuple[npt.NDArray[Any], ...], Any]:
        clean, _ = split.batch(rows[block], file.dtype)
        measures = _measure(image, clean, record.norm, split.box.take(rows[block]))
        return measures, whole.fractions(image).any(axis=-1) if whole else None

    for k, phi in enumerate(record.phi):
        measured, fractions = zip(*in_blocks(k, measure), strict=True)
        finite, noise, low, high, changed, beyond = (np.concatenate(parts) for parts in zip(*measured, strict=True))
        limit = None if record.norm is None else phi + slack(phi, file.dtype)
        verification.sizes.append(Size(phi, float(noise.max()), limit, float(low.min()), float(high.max())))
        blame(k, ~finite, "NaN or infinity")
        if limit is not None:
            blame(k, noise > limit, "noise larger than phi")
        if record.clip:
            blame(k, beyond > 0, f"pixels outside {split.box}")
        if whole:
            blame(k, np.concatenate(fractions), f"fractions in {', '.join(record.columns.whole)}")
        if phi == 0:
            blame(k, changed, "pixels that differ from the clean image")
    recorded = [file.arrays.read(name) for name in ("right", "reached") if name in file.arrays.layout]
    if any((counts < 0).any() or (counts > len(rows)).any() for counts in recorded):
        verification.failures.append(Failure(None, f"recorded counts outside 0 to {len(rows):,}"))
    for run, counts in counted:
        _compare(verification, record, run, recorded, counts[: len(recorded)], len(rows))
    return verification


def _classify(
    file: AttackFile,
    labels: IntArray,
    name: str,
    weights: Weights,
    in_blocks: Callable[[int, Callable[[Array, slice], IntArray]], list[IntArray]],
) -> tuple[NetId, list[tuple[int, ...]]]:
    """Return the id of a run, and how many images it gets right, and takes for the target, at each phi."""
    if len(weights[0][0]) != file.shape[1]:
        raise NnliteError(
            f"{name}: expected a run for images of {file.shape[1]} pixels, found one for {len(weights[0][0])}"
        )
    net = [(W.astype(file.dtype, copy=False), b.astype(file.dtype, copy=False)) for W, b in weights]
    target, counts = file.record.target, []
    for k in range(len(file.record.phi)):
        seen = np.concatenate(in_blocks(k, lambda images, block: predict(net, images)))
        counts.append((int((seen == labels).sum()), int(((seen == target) & (labels != target)).sum())))
    return NetId(name, weights_sha256(weights)), [*zip(*counts, strict=True)]


def slack(phi: float, dtype: npt.DTypeLike) -> float:
    """Return how far rounding in `dtype` may carry noise beyond phi: 16 units in the last place of 1 + phi."""
    return 16 * float(np.finfo(dtype).eps) * (1 + phi)


def predict(weights: Weights, x: Array) -> IntArray:
    """Return the class of each image of x (N, D) by the net of Dense layers `weights`, with ReLU between them."""
    for W, b in weights[:-1]:
        x = np.maximum(x @ W + b, 0)
    W, b = weights[-1]
    return np.asarray((x @ W + b).argmax(axis=-1))


def _measure(image: Array, clean: Array, norm: str | None, box: Box) -> tuple[npt.NDArray[Any], ...]:
    """Return of each image: is it finite, its noise, least and largest value, is it changed, how far beyond the box."""
    noise = image.astype(np.float64) - clean.astype(np.float64)
    size = np.sqrt((noise**2).sum(axis=-1)) if norm == "l2" else np.abs(noise).max(axis=-1)
    bits = f"u{image.dtype.itemsize}"
    changed = np.any(image.view(bits) != clean.view(bits), axis=-1)
    box = box.like(image)
    beyond = np.maximum(box.low - image, image - box.high).max(axis=-1)
    return np.all(np.isfinite(image), axis=-1), size, image.min(axis=-1), image.max(axis=-1), changed, beyond


def _compare(
    verification: Verification,
    record: Record,
    run: NetId,
    counts: Sequence[IntArray],
    found: Sequence[tuple[int, ...]],
    examples: int,
) -> None:
    """Add the score of `run`, and where it differs from the record; counts of correct images come first."""
    names = {net.name: net.sha256 for net in (record.adversary, *record.victims)}
    known = [k for k, net in enumerate(record.victims) if net.sha256 == run.sha256]
    known.sort(key=lambda k: record.victims[k].name != run.name)  # one net may have been scored by two names
    recorded, note = tuple(map(int, counts[0][known[0]])) if known else None, ""
    if recorded is not None:
        for what, expected, seen in zip(
            ("classifies {} correctly", "takes {} for the target"), counts, found, strict=False
        ):
            for k, (said, count) in enumerate(zip(map(int, expected[known[0]]), seen, strict=True)):
                if said != count:
                    words = what.format(f"{count:,} of {examples:,} images")
                    verification.failures.append(Failure(k, f"{run.name} {words}, recorded are {said:,}"))
    elif run.sha256 == record.adversary.sha256:
        note = f"{run.name} crafted the noise, but was not scored: its accuracy is compared with nothing"
    elif run.name in names:
        text = f"{run.name} has other weights: SHA-256 {run.sha256[:12]} here, {names[run.name][:12]} in the file"
        verification.failures.append(Failure(None, text))
    else:
        note = f"{run.name} is unknown to the file: its accuracy is compared with nothing"
    verification.scores.append(Score(run, recorded, found[0], note, *found[1:]))


def _rows(file: AttackFile, split: Samples) -> IntArray:
    """Return the row numbers of a file, which rise and lie in the split; the sizes are checked first."""
    path, (count, features) = file.arrays.path, file.shape
    if features != split.images.shape[1]:
        raise NnliteError(f"{path}: expected images of {split.images.shape[1]} pixels, as the data, found {features}")
    if count > len(split):
        raise NnliteError(f"{path}: expected {len(split):,} images at most, as many as the data, found {count:,}")
    rows = file.arrays.read("rows")
    if rows[0] < 0 or rows[-1] >= len(split) or (rows[1:] <= rows[:-1]).any():
        raise NnliteError(f"{path}: expected rising row numbers below {len(split):,}, found others")
    return rows


def _record(content: Any) -> Record:
    """Return the Record that a JSON object holds; NnliteError names the field that is wrong."""
    if isinstance(content, dict):  # another format may have other fields
        expect_format(content.get("format"), FORMAT, content.get("nnlite"))
    version = content["format"] if isinstance(content, dict) else 1
    later = [name for name, since in LATER.items() if since <= version]
    fields = kinds.expect_fields("record", [*FIELDS, *later], content)
    source = fields.get("source") and read_description(fields["source"])
    more = {name: fields[name] for name in AIM if name in later}
    kinds.expect_object("record", {name: AIM[name] for name in more}, more)
    columns = _columns(fields["columns"], source) if "columns" in later else FREE
    record = kinds.expect_object("record", FIELDS, {name: fields[name] for name in FIELDS})
    adversary, *victims = (NetId(**net) for net in (record["adversary"], *record["victims"]))
    names = [net.name for net in victims]
    kinds.expect("victims", kinds.Kind("different names", lambda value: len(set(value)) == len(value)), names)
    phi = tuple(map(float, record["phi"]))
    nets = {"adversary": adversary, "victims": tuple(victims)}
    return Record(**{**record, **more, **nets, "phi": phi}, source=source, columns=columns)


def _columns(content: Any, source: Description | None) -> Columns:
    """Return the Columns that a JSON object holds; NnliteError names the field that is wrong."""
    found = kinds.expect_object("record: columns", COLUMNS, content)
    columns = Columns(tuple(found["frozen"]), found["limits"], tuple(found["whole"]))
    columns.check("the file", source.features if source else ())
    return columns
