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
from nnlite.storage.files import read_text
from nnlite.storage.formats import expect_format
from nnlite.storage.kinds import Kind, expect, integer, number, sequence, text
from nnlite.storage.texts import parse_json
from nnlite.training.environment import environment

FORMAT = 1  # that of nnlite 0.1.0 as well, which did not say it
REPORT_LIMIT = 1 << 20  # bytes of a file; a report of all methods has 16,000
NAME, TIME = text(1, 200), number(0, 10**12)
REPORT = {  # what a picture needs of it
    "title": NAME,
    "threads": integer(1),
    "contestants": sequence(Kind("an object of name, ms and quartiles", lambda row: _is_row(row)), 1, 10_000),
}

RaceReport: TypeAlias = dict[str, Any]


def race_report(title: str, work: Workload, timings: Sequence[Timing], *, threads: int) -> RaceReport:
    """Return a race as JSON holds it: its title, the figures of each contestant, fastest first, and the machine.

    Ratios are to nnlite, which is the first of `timings`, and to the matrix products alone. Figures of what a library
    does not offer are None.
    """
    first = timings[0]
    matmuls = next((one for one in timings if one.name == MATMULS), first)
    return {
        "format": FORMAT,
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
        content = parse_json(read_text(path, REPORT_LIMIT))
        return [_checked(one) for one in (content if isinstance(content, list) else [content])]
    except OSError as error:
        raise NnliteError(f"{path}: cannot be read ({error.strerror}); give a file that --json has printed") from error
    except ValueError as error:
        raise NnliteError(f"{path}: expected what nnlite bench step --json prints: {error}") from error


def _checked(content: Any) -> RaceReport:
    """Return a report that a picture can be made of; NnliteError for anything else."""
    expect("report", Kind("an object", lambda value: isinstance(value, dict)), content)
    expect_format(content.get("format", 1), FORMAT, _version(content))
    for name, kind in REPORT.items():
        expect(name, kind, content.get(name))
    if all(row["ms"] is None for row in content["contestants"]):
        raise NnliteError("contestants: expected one or more with a time, found none")
    return dict(content)


def _version(content: Any) -> Any:
    """Return the version of nnlite that a report says it is of; None where it says none."""
    for name in ("machine", "versions", "nnlite"):
        content = content.get(name) if isinstance(content, dict) else None
    return content


def _is_row(row: Any) -> bool:
    if not isinstance(row, dict) or not NAME.fits(row.get("name")) or "ms" not in row:
        return False
    return row["ms"] is None or (TIME.fits(row["ms"]) and sequence(TIME, 2, 2).fits(row.get("quartiles")))


def machine(device: str = "cpu") -> dict[str, Any]:
    """Return the processor, the BLAS, the device, and the versions of all libraries that can be compared."""
    versions = {"nnlite": __version__}
    for name in ["numpy", *LIBRARIES.values()]:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return {"cpu": _cpu(), "blas": environment()["BLAS"], "device": device, "versions": versions}


def _cpu() -> str:
    """Return the name of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
