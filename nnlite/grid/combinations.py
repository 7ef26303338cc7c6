"""The grid: jobs for all combinations of some settings, from a TOML file or from tables.

The keys are those of Settings, and a list is a dimension; a phi may be a text, such as "8/255". Each [[models]] table
inherits the keys above it and adds its own.
"""

import itertools
import math
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

from nnlite.datasets.loading import source_name
from nnlite.errors import NnliteError
from nnlite.grid.jobs import Job
from nnlite.storage.files import read_text
from nnlite.storage.kinds import FOLDER_NAME, Kind, expect, text
from nnlite.storage.texts import did_you_mean, parse_number, shown
from nnlite.training.runs import check_name, run_path
from nnlite.training.settings import FIELDS, LISTS, Settings, name_part, with_defaults

FILE_LIMIT = 8_000  # bytes: tomllib takes 0.2 s for one dotted key as long as the file, and 17 s for 64 kB
JOBS_LIMIT = 10_000  # beyond that it is a mistake and not a grid

TABLES = Kind(
    "tables, each below a line [[models]]",
    lambda value: isinstance(value, list) and all(isinstance(one, dict) for one in value),
)
LIST = Kind("a list", lambda value: isinstance(value, list))
TEXT = text(1, 4096)
_KEYS = list(FIELDS)
_IN_METHOD_NAME = {"reg", "gradient", "multitask", "gamma"}  # and the numbers that the method takes

Table: TypeAlias = Mapping[str, Any]


def read_grid(path: Path, runs: Path) -> list[Job]:
    """Return the jobs of a grid file, with their runs below the folder `runs`; NnliteError says what is wrong in it."""
    try:
        table = tomllib.loads(read_text(path, FILE_LIMIT))
    except OSError as error:
        raise NnliteError(f"{path}: cannot be read ({error.strerror}); give the path of a grid file") from error
    except (ValueError, RecursionError) as error:  # tomllib passes on what int() and deep nesting raise
        raise NnliteError(f"{path}: expected TOML ({error}); docs/grid.md shows an example") from error
    if "name" in table:
        raise NnliteError(f"{path}: name: belongs in a [[models]] table, since each needs its own; move it there")
    models = table.pop("models", None)
    if models is None:
        return make_grid([table], runs, str(path))
    expect(f"{path}: models", TABLES, models)
    return make_grid([{**table, **model} for model in models], runs, str(path))


def make_grid(tables: Sequence[Table], runs: Path, source: str) -> list[Job]:
    """Return a job for each combination of the values in each table.

    NnliteError: an unknown key, a value of the wrong type or out of range, no jobs or too many, two of the same name.

    Arguments:
        tables: settings by name, where a list holds several values; those of `hidden` and `term` are lists of lists.
            A key `name` takes the place of the method in the names of the runs.
        runs: the folder that the runs go into.
        source: where the tables come from, for errors.
    """
    places = [source] if len(tables) == 1 else [f"{source}, models {k}" for k in range(1, len(tables) + 1)]
    dimensions = [_dimensions(table, place) for table, place in zip(tables, places, strict=True)]
    count = sum(math.prod(map(len, values.values())) for values in dimensions)
    if not any(tables):
        raise NnliteError(f"{source}: expected one or more settings, such as lr = [0.05, 0.1], found none")
    if count > JOBS_LIMIT:
        raise NnliteError(f"{source}: expected at most {JOBS_LIMIT:,} nets, found {count:,}; split it")
    sources: dict[str, str] = {}
    for values, place in zip(dimensions, places, strict=True):
        if "data" in values:
            values["data"] = [_named(one, sources, place) for one in values["data"]]
    blocks = [
        [_settings(dict(zip(values, chosen, strict=True)), place) for chosen in itertools.product(*values.values())]
        for values, place in zip(dimensions, places, strict=True)
    ]
    varied = _varied([settings for block in blocks for settings in block])
    found: dict[Path, tuple[Settings, str]] = {}
    for block, table, place in zip(blocks, tables, places, strict=True):
        stem, own = table.get("name"), _varied(block)
        for settings in block:
            keys = own if stem else varied - _IN_METHOD_NAME - {*settings.method.takes}
            folder, older = runs / settings.data, _name_of_0_1_0(stem or settings.method_name, settings, keys)
            path = run_path(folder, settings, older, name=stem and _name(stem, settings, own))
            if path in found:
                other, where = found[path]
                raise NnliteError(
                    f"{source}: two nets are named {settings.data}/{path.name}: {_difference(other, settings)} "
                    f"({where}; {place}); change one, or give its [[models]] table a name"
                )
            found[path] = settings, place
    return [Job(path, settings, sources.get(settings.data, "")) for path, (settings, _) in found.items()]


def _named(source: Any, sources: dict[str, str], place: str) -> str:
    """Return the name of a data set, and keep in `sources` where one of the user's own is."""
    expect(f"{place}: data", TEXT, source)
    try:
        name = source_name(source)
    except NnliteError as error:
        raise NnliteError(f"{place}: {error}") from error
    if name == source:
        return name
    path = str(Path(source).absolute())  # a worker may run in another folder
    if sources.setdefault(name, path) != path:
        raise NnliteError(f"{place}: two data sets are named {name}: {sources[name]}, {path}; rename one")
    return name


def _dimensions(table: Table, place: str) -> dict[str, list[Any]]:
    """Return the values of each key."""
    dimensions = {}
    for key, value in table.items():
        if key == "name":
            expect(f"{place}: name", FOLDER_NAME, value)
            continue
        if key not in _KEYS:
            near = did_you_mean(key, _KEYS) or f"; the keys are {', '.join(_KEYS)}, and name in [[models]]"
            raise NnliteError(f"{place}: unknown key {shown(key)}{near}")
        several = isinstance(value, list) and (key not in LISTS or any(isinstance(one, list) for one in value))
        dimensions[key] = value if several else [value]
        if not dimensions[key]:
            raise NnliteError(f"{place}: {key}: expected one or more values, found an empty list")
        for one in dimensions[key] if key in LISTS else ():
            expect(f"{place}: {key}", LIST, one)
    return dimensions


def _settings(values: dict[str, Any], place: str) -> Settings:
    """Return the settings, with the same defaults as `nnlite train`."""
    changed: dict[str, Any] = {key: tuple(values[key]) for key in LISTS if key in values}
    try:
        if isinstance(phi := values.get("phi"), str):
            changed["phi"] = parse_number(phi)
        return Settings(**with_defaults(values | changed))
    except ValueError as error:
        raise NnliteError(f"{place}: {error}") from error


def _varied(models: Sequence[Settings]) -> set[str]:
    """Return the keys with more than one value, without `data`, since each data set has a folder of its own."""
    return {key for key in _KEYS if key != "data" and len({getattr(settings, key) for settings in models}) > 1}


def _name(stem: str, settings: Settings, keys: set[str]) -> str:
    """Return the name of a run in a table that has a name: that name, and what varies in the table."""
    given = {key: getattr(settings, key) for key in _KEYS if key in keys}
    return check_name("-".join([stem, *(name_part(key, value) for key, value in given.items() if value is not None)]))


def _name_of_0_1_0(stem: str, settings: Settings, keys: set[str]) -> str:
    """Return what version 0.1.0 called the run: the stem, and each of `keys`, which vary, with its value."""

    def short(value: Any) -> str:
        if isinstance(value, tuple):
            return "-".join(str(one).replace(",", "-") for one in value) or "none"
        return f"{value:g}" if isinstance(value, float) else str(value)

    given = {key: getattr(settings, key) for key in _KEYS if key in keys}
    parts = [f"{key.replace('_', '-')}{short(value)}" for key, value in given.items() if value is not None]
    return "-".join([stem, *parts])


def _difference(one: Settings, other: Settings) -> str:
    keys = [key for key in _KEYS if getattr(one, key) != getattr(other, key)]
    both = [", ".join(f"{key} {getattr(settings, key)}" for key in keys) for settings in (one, other)]
    return f"one with {both[0]}, one with {both[1]}" if keys else "their settings are equal"
