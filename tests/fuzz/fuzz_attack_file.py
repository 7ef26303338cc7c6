"""Change an attack file and a run's weights in many ways: they are read, or refused by nnlite's own error.

    python tests/fuzz/fuzz_attack_file.py [INPUTS] [SEED]

Half of the inputs are changed byte by byte. The other half keep the lengths right and change one value or the JSON
inside, so that what they say is looked at, too. Exit code 1 for any other exception, for a second of work on one
input, and for 200 MB of memory more than the unchanged file took.
"""

import collections
import json
import random
import resource
import sys
import tempfile
import time
import traceback
from pathlib import Path

import numpy as np

from nnlite.adversarial import (
    KEY,
    Net,
    Record,
    check,
    clean_sha256,
    load_weights,
    new_attack,
    open_attack,
    weights_of,
    weights_sha256,
)
from nnlite.arrays import METADATA, new_arrays
from nnlite.datasets import load
from nnlite.errors import NnliteError
from nnlite.init import generator
from nnlite.network import mlp

PIECES = [
    b"",
    b"0",
    b"-1",
    b"9" * 20,
    b"9" * 5000,
    b"1e400",
    b"NaN",
    b"null",
    b"[",
    b"]",
    b"{",
    b"}",
    b'"',
    b"\\u",
    b"\0",
]
NASTY = [None, True, 0, 1, -1, 2**31, 2**63 - 1, 2**63, 10**400, 0.5, 1e300, -0.0, "", "F64", "I64", "mnist", "l2"]
NASTY += ["\x1b[2J", "\ud800", "a" * 10_000, "0" * 64, [], [[]], {}, {"": None}, [0] * 1000, [2**40, 2**40]]

SPLIT = load("digits").test
NET = mlp((64, 4, 10), generator(0, "weights"))
WEIGHTS = weights_of(NET)


def main(inputs, seed):
    rng = random.Random(seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        attack, weights = folder / "attack", folder / "weights.safetensors"
        write_attack(attack)
        layout = {
            f"dense{k}.{key}": (a.dtype, a.shape)
            for k, pair in enumerate(WEIGHTS)
            for key, a in zip("Wb", pair, strict=True)
        }
        with new_arrays(weights, layout, {}) as file:
            for k, pair in enumerate(WEIGHTS):
                for key, array in zip("Wb", pair, strict=True):
                    file.put(f"dense{k}.{key}", array)
        found = check(open_attack(attack), SPLIT, {"net": load_weights(folder)})
        assert not found.failures, found
        originals = {attack: attack.read_bytes(), weights: weights.read_bytes()}
        before, slowest, ends = peak(), 0.0, collections.Counter()
        for number in range(inputs):
            path = attack if rng.random() < 0.8 else weights
            content = change(originals[path], rng)
            path.write_bytes(content)
            start = time.perf_counter()
            try:
                if path == attack:
                    report = check(open_attack(path), SPLIT, {"net": WEIGHTS})
                    end = "differences found" if report.failures else "read, all well"
                else:
                    load_weights(folder)
                    end = "weights read"
            except NnliteError as error:
                end = "refused"
                if not str(error).isprintable() or len(str(error)) > 700:
                    end = f"a message that is no line of text: {str(error)[:200]!r}"
            except Exception:
                end = traceback.format_exc(limit=-2)
            slowest = max(slowest, time.perf_counter() - start)
            ends[end] += 1
            if number % 10_000 == 9_999:
                print(f"{number + 1:,} inputs", file=sys.stderr)
    more = peak() - before
    for end, count in ends.most_common():
        print(f"{count:9,}  {end}")
    print(f"slowest input {slowest:.3f} s, memory at most {before} MB at first, {more} MB more then")
    known = {"differences found", "read, all well", "weights read", "refused"}
    return 0 if ends.keys() <= known and slowest < 1 and more < 200 else 1


def write_attack(path):
    """Write a small file that is all right: noise of phi 0.1, made without an attack."""
    rows = np.array([0, 7, 499])
    x, y = SPLIT.batch(rows)
    net = Net("net", weights_sha256(WEIGHTS))
    record = Record("noise", "linf", True, (0.0, 0.1), "digits", clean_sha256(SPLIT[rows]), net, (net,))
    noisy = (x + np.float32(0.1)).clip(0, 1)
    with new_attack(path, record, SPLIT, rows, np.float32) as file:
        file.keep(0, [x, noisy])
        file.score(np.array([[(NET.predict(images) == y).sum() for images in (x, noisy)]]))


def change(content, rng):
    """Return a changed copy of a file."""
    return bytes(change_bytes(bytearray(content), rng) if rng.random() < 0.5 else change_header(content, rng))


def change_bytes(content, rng):
    for _ in range(rng.randint(1, 4)):
        kind, place = rng.random(), rng.randrange(len(content) + 1)
        if kind < 0.4:
            content[place : place + 1] = bytes([rng.randrange(256)])
        elif kind < 0.8:
            content[place : place + rng.randrange(8)] = rng.choice(PIECES)
        elif kind < 0.9:
            del content[place:]
        else:
            content[:8] = rng.randrange(1 << rng.randrange(1, 64)).to_bytes(8, "little")
    return content


def change_header(content, rng):
    """Change a value of the arrays, or the JSON of the header or of the record, and keep the lengths right."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    data, kind = bytearray(content[8 + length :]), rng.random()
    if kind < 0.3:
        place = rng.randrange(len(data) // 4) * 4
        data[place : place + 4] = np.float32(rng.choice([np.nan, np.inf, -1.0, 0.05, 1e38, 1e-45])).tobytes()
    elif kind < 0.6 and KEY in header[METADATA]:
        record = json.loads(header[METADATA][KEY])
        change_tree(record, rng)
        header[METADATA][KEY] = json.dumps(record)
    else:
        change_tree(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def change_tree(tree, rng):
    """Replace, remove or add one node, somewhere."""
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    if not keys:
        return
    key = rng.choice(keys)
    if isinstance(tree[key], dict | list) and tree[key] and rng.random() < 0.7:
        change_tree(tree[key], rng)
    elif rng.random() < 0.15:
        del tree[key]
    elif isinstance(tree, dict) and rng.random() < 0.2:
        tree[rng.choice([key + "x", "\x1b[0m", "\udfff", "images2"])] = rng.choice(NASTY)
    else:
        tree[key] = rng.choice([*NASTY, tree[rng.choice(keys)]])


def peak():
    """Return the largest memory so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1000  # kilobytes, on Linux


if __name__ == "__main__":
    numbers = [*map(int, sys.argv[1:])]
    sys.exit(main(*numbers, *(20_000, 0)[len(numbers) :]))
