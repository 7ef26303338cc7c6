"""Race reports: what a race found, as JSON, and read back to be drawn."""

import platform
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from nnlite import __version__
from nnlite.bench.peers import LIBRARIES, MATMULS
from nnlite.bench.race import Timing
from nnlite.bench.workload import UNITS, Workload
from nnlite.errors import NnliteError
from nnlite.storage.files import read_file
from nnlite.storage.tensors import parse_json
from nnlite.training.environment import makers

REPORT_LIMIT, NAME_LIMIT = 1 << 20, 200  # bytes of a file, where all methods take 16,000; characters of a name

RaceReport: TypeAlias = dict[str, Any]


def race_report(title: str, work: Workload, timings: Sequence[Timing], *, threads: int) -> RaceReport:
    """Return a race as JSON holds it: its title, the figures of each contestant, fastest first, and the machine.

    Ratios are to nnlite, which is the first of `timings`, and to the matrix products alone. Figures of what a library
    does not offer are None.
    """
    first = timings[0]
    matmuls = next((one for one in timings if one.name == MATMULS), first)
    return {
        "title": title,
        "kind": work.kind,
        "unit": ("models x " if len(work.models) > 1 else "") + UNITS[work.kind],
        "threads": threads,
        "rounds": len(first.seconds),
        "contestants": [
            {
                "name": one.name,
                "ms": one.quartiles[1] if one.seconds else None,
                "quartiles": [one.quartiles[0], one.quartiles[2]] if one.seconds else None,
                "to_products": one.ratio(matmuls) if one.seconds else None,
                "to_nnlite": one.ratio(first) if one.seconds else None,
                "per_second": 1e3 * work.amount / one.quartiles[1] if one.seconds else None,
                "difference": one.difference,
            }
            for one in sorted(timings, key=lambda one: one.quartiles[1] if one.seconds else np.inf)
        ],
        "machine": machine(work.settings.device),
    }


def read_reports(path: Path) -> list[RaceReport]:
    """Return the race reports in a JSON file that holds one or a list; NnliteError for any other file."""
    try:
        content = parse_json(read_file(path, REPORT_LIMIT).decode("utf-8"))
        return [_checked(one) for one in (content if isinstance(content, list) else [content])]
    except OSError as error:
        raise NnliteError(f"{path}: cannot be read ({error.strerror}); give a file that --json has printed") from error
    except ValueError as error:
        raise NnliteError(f"{path}: expected what nnlite bench step --json prints: {error}") from error


def _checked(content: Any) -> RaceReport:
    """Return a report that can be drawn; ValueError for anything else."""

    def is_text(value: Any) -> bool:
        return isinstance(value, str) and len(value) <= NAME_LIMIT

    def is_time(value: Any) -> bool:
        return type(value) in (int, float) and 0 <= value < 1e12

    def is_row(row: Any) -> bool:
        if not isinstance(row, dict) or not is_text(row.get("name")) or "ms" not in row:
            return False
        pair = row.get("quartiles")
        timed = is_time(row["ms"]) and isinstance(pair, list) and len(pair) == 2 and all(map(is_time, pair))
        return row["ms"] is None or timed

    known = isinstance(content, dict) and is_text(content.get("title")) and type(content.get("threads")) is int
    rows = content.get("contestants") if known else None
    if not isinstance(rows, list) or not all(map(is_row, rows)) or all(row["ms"] is None for row in rows):
        raise ValueError("it is not a race with a title, threads, and contestants with their ms and quartiles")
    return dict(content)


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return the processor, the BLAS, the device, and the versions of all libraries that can be compared."""
    versions = {"nnlite": __version__}
    for name in ["numpy", *LIBRARIES.values()]:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"cpu": _cpu(), "blas": makers()["BLAS"], "device": device, "versions": versions}


def _cpu() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
