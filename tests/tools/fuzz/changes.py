"""Changes to a file that keep its form most of the time, so that what stands behind the form is looked at, too.

Each takes the bytes of a file and a random.Random, and returns other bytes; an error where no form is left.
"""

import io
import json
import zipfile

import numpy as np

from nnlite.storage.tensors import METADATA

NASTY = [None, True, 0, 1, -1, 2**31, 2**63 - 1, 2**63, 10**400, 0.5, 1e300, -0.0, float("nan"), float("inf")]
NASTY += ["", "F64", "I64", "mnist", "l2", "dgl1", "../..", "\x1b[2J", "\ud800", "a" * 10_000, "0" * 64]
NASTY += [[], [[]], {}, {"": None}, [0] * 1000, [2**40, 2**40], ["l1,0.1,0.1"], "l1,0.1,exact,rotation"]
FLOATS = [np.nan, np.inf, -1.0, 0.05, 1e38, 1e-45]
CELLS = ["", "1", "2", "-1", "0.5", "1e999", "nan", "9" * 5000, "1_0", "\u0661", "\0", '"', '"1"', "x" * 5000, "1,1"]
TOML = ["", "nan", "inf", "-0.0", "-1", "0", "3", "0.5", "1e400", "0x" + "f" * 4000, "9" * 4400, str(2**63), "true"]
TOML += ["[]", "[[]]", "[[1], 2]", "[1, 2, 3]", "{a = 1}", "1979-05-27", "[" * 2000, '"\\u001b[2J"', '"../.."', '""']
TOML += ['"dgl1"', '"dgl2"', '"mnist"', '"gpu"', '"exact"', '["l1,0.1,0.1"]', '[["l1,0.1,0.1"], ["l1,,,"]]', "'inf'"]
FORMS = ["<f8", "<f4", "|u1", "<i8", "<U3", "<U0", "|V0", "|O", "<c16", "<M8[s]", ">f8", "|b1", "<f99"]
LENGTHS = [
    "(9, 2)",
    "(9,)",
    "(-1, 2)",
    "(0, 2)",
    "()",
    "(True, 2)",
    f"({2**40}, {2**40})",
    f"({'9' * 400},)",
    "(9L, 2)",
]
LENGTHS += [f"({'1,' * 70})", "[9, 2]", "9", "(9, 2", "'", "(" * 3000]
LINES = ["[[models]]", "[models]", "[[models]]\nname = 'x'", "a" + ".a" * 500 + " = 1", "# \x1b", "lr = ", "= 1", "[a"]


def change_json(content, rng):
    """Change one node of a JSON text, or have a key stand twice."""
    tree = json.loads(content)
    change_tree(tree, rng)
    text = json.dumps(tree)
    if rng.random() < 0.05:
        text = text.replace('{"', f'{{"{rng.choice(["", *tree])}": 0, "', 1)
    return text.encode()


def change_tree(tree, rng):
    """Replace, remove or add one node, somewhere."""
    if not isinstance(tree, dict | list):
        raise ValueError("no tree")
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


def change_arrays(content, rng):
    """Change a value of the arrays, or the JSON of the header or within it, and keep the lengths right."""
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8 : 8 + length])
    data, texts, kind = bytearray(content[8 + length :]), header.get(METADATA), rng.random()
    if kind < 0.3 and len(data) >= 4:
        place = rng.randrange(len(data) // 4) * 4
        data[place : place + 4] = np.float32(rng.choice(FLOATS)).tobytes()
    elif kind < 0.6 and texts:
        key = rng.choice(list(texts))
        texts[key] = change_json(texts[key], rng).decode()
    else:
        change_tree(header, rng)
    text = json.dumps(header).encode()
    return len(text).to_bytes(8, "little") + text + data


def change_csv(content, rng):
    """Change a cell, or take a row away, or have it stand twice."""
    rows = [row.split(",") for row in content.decode().split("\r\n")]
    place = rng.randrange(len(rows))
    if rng.random() < 0.2:
        rows[place : place + 1] = rng.choice([[], [rows[place]] * 2])
    else:
        rows[place][rng.randrange(len(rows[place]))] = rng.choice(CELLS)
    return "\r\n".join(",".join(row) for row in rows).encode()


def change_toml(content, rng):
    """Change the value of a key, or a line."""
    lines = content.decode().split("\n")
    place = rng.randrange(len(lines))
    key, equals, value = lines[place].partition(" = ")
    if equals and rng.random() < 0.7:
        values = [value, *rng.choices(TOML, k=2)]
        lines[place] = f"{key} = {rng.choice([values[1], f'[{values[1]}, {values[2]}]', f'[{value}, {values[1]}]'])}"
    else:
        lines[place : place + 1] = rng.choice([[], [lines[place], rng.choice(LINES)], [rng.choice(lines)] * 2])
    return "\n".join(lines).encode()


def change_npz(content, rng):
    """Change the header or a value of an array, or its name, or leave an array out; and pack it otherwise."""
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = [(one.filename, bytearray(file.read(one))) for one in file.infolist()]
    place, kind = rng.randrange(len(members)), rng.random()
    name, array = members[place]
    begin = 10 + int.from_bytes(array[8:10], "little")
    if kind < 0.6:
        form, order, shape = rng.choice(FORMS), rng.choice(["False", "True", "0"]), rng.choice(LENGTHS)
        text = f"{{'descr': '{form}', 'fortran_order': {order}, 'shape': {shape}}}\n".encode()
        array[8:begin] = len(text).to_bytes(2, "little") + text
    elif kind < 0.8 and len(array) - begin >= 8:
        value = begin + rng.randrange((len(array) - begin) // 8) * 8
        array[value : value + 8] = np.float64(rng.choice(FLOATS)).tobytes()
    else:
        members[place : place + 1] = rng.choice([[], [(name, array)] * 2, [("z.npy", array)], [("x_train.npy", array)]])
    packed = io.BytesIO()
    with zipfile.ZipFile(
        packed, "w", rng.choice([0, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
    ) as file:
        for one, array in members:
            file.writestr(one, bytes(array))
    return packed.getvalue()
