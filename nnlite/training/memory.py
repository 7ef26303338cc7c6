"""Memory: what nets need, estimated before they are made, and what there is."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from nnlite.backend import get_xp, to_device
from nnlite.datasets.rotation import ANGLES
from nnlite.datasets.samples import Dataset
from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import BLOCK
from nnlite.storage.memory import VARIABLE, available, budget, in_words
from nnlite.storage.tensors import size_of
from nnlite.storage.weights import net_layout
from nnlite.training.settings import Settings

_FLOAT = 4  # bytes of a float32
_ELSE = 400_000  # bytes: Python itself, and buffers while images are read


def available_memory(device: str) -> int:
    """Return the bytes that can be asked for on `device` ("cpu" or "gpu") without swapping."""
    xp = get_xp(to_device(np.empty(0), device))
    if xp is np:
        return available()
    free: int = xp.cuda.runtime.memGetInfo()[0] + xp.get_default_memory_pool().free_bytes()
    return free


def expect_free(needed: int, what: str, advice: str, device: str = "cpu") -> None:
    """Raise NnliteError where `what`, "1 model needs", takes more bytes than are free on the device."""
    free = available_memory(device)
    if needed > free:
        raise NnliteError(
            f"memory: {what} about {in_words(needed)}, and {in_words(free)} are free on the {device}; try {advice}"
        )


def count_parameters(sizes: Sequence[int]) -> int:
    """Return how many parameters Dense layers of these widths have, from the input to the logits."""
    return sum((fan_in + 1) * fan_out for fan_in, fan_out in pairwise(sizes))


def stack_bytes(models: Sequence[Settings], data: Dataset) -> int:
    """Return an estimate of the bytes that training `models` side by side needs at its peak, with the images.

    Each model needs its weights four times, the first, the current and the best ones and their gradients, and the
    larger of two: the arrays of the passes of a step, or those of a block of validation images.
    """
    common, seeds = models[0], len({one.seed for one in models})
    sizes = (data.features, *common.hidden, data.classes)
    parameters = count_parameters(sizes) + sum((sizes[-2] + 1) * classes for classes in common.heads.values())
    # What a layer sees and the error at its output, for Dense and ReLU; x, d_hat and dx; logits and their errors.
    inside = sum(common.hidden)
    row = 4 * inside + 3 * (data.features + data.classes)
    rows_of_a_gradient = 2 * max(map(sum, pairwise(sizes)))
    passes = 1 + common.multitask + len(common.terms)
    step = min(common.batch_size, len(data.train)) * passes * (row + rows_of_a_gradient)
    block = BLOCK * (2 * inside + data.features + data.classes)
    pixels = data.train.images.itemsize * data.features
    train = len(data.train) * (len(ANGLES) if common.multitask else 1)
    images = len(data.train) + len(data.validation) + len(data.test) + train
    return len(models) * _FLOAT * (4 * parameters + max(step, block)) + seeds * images * (pixels + 8) + _ELSE


def largest_stack(models: Sequence[Settings], data: Dataset) -> int:
    """Return how many of `models`, counted from the first, fit into the memory of their device together; at least 1."""
    free = available_memory(models[0].device)
    return max(1, bisect_right(range(1, len(models) + 1), free, key=lambda count: stack_bytes(models[:count], data)))


def check_budget(settings: Settings, data: Dataset) -> None:
    """Raise NnliteError where the checkpoint of a net, which holds it twice, is more than is read from one file."""
    layout = net_layout((data.features, *settings.hidden, data.classes), settings.heads)
    size, allowed = 2 * size_of(layout), budget()
    if size > allowed:
        raise NnliteError(
            f"hidden: the checkpoint of this net has {in_words(size)}, and {in_words(allowed)} are read from one file; "
            f"set {VARIABLE}={size // 10**6 + 1}MB, also where the run is used, or take narrower --hidden"
        )


def check_memory(stacks: Sequence[Sequence[Settings]], data: Mapping[str, Dataset], jobs: int = 1) -> None:
    """Raise NnliteError where the largest `jobs` of `stacks` do not fit into memory at the same time.

    data: the data sets by name.
    """
    if not stacks:
        return
    needs = sorted(((stack_bytes(stack, data[stack[0].data]), len(stack)) for stack in stacks), reverse=True)[:jobs]
    needed, models = (sum(column) for column in zip(*needs, strict=True))
    device = stacks[0][0].device
    smaller = [f"--stack {needs[0][1] // 2}"] if needs[0][1] > 1 else []
    fewer = [f"--jobs {max(1, int(len(needs) * available_memory(device) / needed))}"] if len(needs) > 1 else []
    advice = " or ".join(smaller + fewer) or "narrower --hidden or a smaller --batch-size"
    what = f"{models} models at the same time need" if models > 1 else "1 model needs"
    expect_free(needed, what, advice, device)
