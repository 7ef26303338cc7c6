"""The model card: what a net is, what it was trained on and how robust it is, in Markdown that Hugging Face reads.

Its first lines are front matter in YAML; every text there is written as JSON writes it, which YAML takes as well. The
figures of robustness are those of an audit, each with what it means: proven, or only not broken.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any, NamedTuple

from nnlite.datasets.description import Description
from nnlite.errors import NnliteError
from nnlite.network import Network
from nnlite.storage import kinds
from nnlite.storage.files import read_text
from nnlite.storage.memory import expect_budget
from nnlite.storage.refusals import RefusedError
from nnlite.storage.texts import parse_json

PARSED = 50  # bytes of memory that one byte of JSON may become: a bracket is half of a list
SHOWN = 20  # classes and features that the card names
_OBJECT = kinds.Kind("an object", lambda value: isinstance(value, dict))
_OBJECTS = kinds.sequence(_OBJECT, 0, 1_000_000)
_TEXT = kinds.text(1, 500)
_ROW: Mapping[str, kinds.Kind] = {
    "attack": kinds.text(1, 100),
    "phi": kinds.NOT_NEGATIVE,
    **dict.fromkeys(("accuracy", "low", "high"), kinds.number(0, 100)),
    "examples": kinds.integer(1),
}


class Figure(NamedTuple):
    """An accuracy in percent at one phi, its 95 % interval, and over how many test samples."""

    phi: float
    accuracy: float
    low: float
    high: float
    examples: int

    def __str__(self) -> str:
        return f"{self.accuracy:.1f} [{self.low:.1f}, {self.high:.1f}]"


@dataclass(frozen=True)
class AuditFigures:
    """What a card says of an audit.

    Arguments:
        worst: What no attack has broken, for each phi.
        proven: What is proven, for each phi; none where nothing was tried.
        clip: Whether noise kept pixels within the range of the data.
        open: The questions whose answer is not "pass", with that answer.
    """

    worst: tuple[Figure, ...]
    proven: tuple[Figure, ...]
    clip: bool
    open: tuple[tuple[str, str], ...]


def read_audit(path: Path, run: str, data: str) -> AuditFigures:
    """Return the figures in what `nnlite audit RUN --json` has printed; NnliteError unless it is of this run."""
    try:
        size = path.stat().st_size
        expect_budget(path, PARSED * size)
        content = parse_json(read_text(path, size))
    except RefusedError:
        raise
    except OSError as error:
        raise NnliteError(f"audit: {path} cannot be read ({error.strerror}); give the path of a file") from error
    except ValueError as error:
        raise NnliteError(f"audit: expected what nnlite audit {run} --json prints, found no JSON ({error})") from error
    kinds.expect("audit", _OBJECT, content)
    if (found := (content.get("run"), content.get("data"))) != (run, data):
        raise NnliteError(f"audit: expected one of {run} on {data}, found {found[0]!r} on {found[1]!r}; audit this run")
    kinds.expect("audit: parameters", _OBJECT, content.get("parameters"))
    kinds.expect("audit: clip", kinds.BOOLEAN, content["parameters"].get("clip"))
    for name in ("rows", "verdicts"):
        kinds.expect(f"audit: {name}", _OBJECTS, content.get(name))
    figures: dict[str, list[Figure]] = {"worst": [], "proven": []}
    for row in content["rows"]:
        row = kinds.expect_object("audit: rows", _ROW, {name: row.get(name) for name in _ROW})
        if row["attack"] in figures:
            figures[row["attack"]].append(Figure(**{name: row[name] for name in Figure._fields}))
    if not figures["worst"]:
        raise NnliteError("audit: expected the worst case at each phi, found none; audit the run again")
    asked = [(verdict.get("question"), verdict.get("answer")) for verdict in content["verdicts"]]
    for text in chain(*asked):
        kinds.expect("audit: verdicts", _TEXT, text)
    return AuditFigures(
        worst=tuple(figures["worst"]),
        proven=tuple(figures["proven"]),
        clip=content["parameters"]["clip"],
        open=tuple(pair for pair in asked if pair[1] != "pass"),
    )


def model_card(
    name: str,
    net: Network,
    data: Description,
    test: float,
    settings: Mapping[str, Any],
    versions: Mapping[str, Any],
    audit: AuditFigures | None = None,
) -> str:
    """Return the card as text.

    Arguments:
        name: Of the run.
        net: Its net.
        data: What it was trained on.
        test: Its test accuracy without noise, in percent.
        settings: Of its training; what is None is left out.
        versions: Of what it was trained with.
        audit: What is known of its robustness; None where nothing is, which the card says.
    """
    parts = (_front(name, data, test, audit), _about(name, net, data, test), _robustness(data, audit))
    tables = (_table("Training", "setting", settings), _table("Versions", "what", versions))
    return "".join(f"{line}\n" for part in (*parts, *tables) for line in part)


def _front(name: str, data: Description, test: float, audit: AuditFigures | None) -> Iterator[str]:
    task = "image-classification" if data.samples == "images" else "tabular-classification"
    metrics = [{"type": "accuracy", "name": "test accuracy, %", "value": round(test, 2)}]
    for words, figures in (("not broken", audit.worst), ("proven", audit.proven)) if audit else ():
        metrics += [
            {"type": "accuracy", "name": f"{words} at phi {one.phi:g}, %", "value": round(one.accuracy, 2)}
            for one in figures
            if one.phi
        ]
    result = {"task": {"type": task}, "dataset": {"type": data.name, "name": data.name}, "metrics": metrics}
    yield "---"
    yield "library_name: nnlite"
    yield f"pipeline_tag: {task}"
    yield "tags: [datagrad, adversarial-robustness]"
    yield f"model-index: {json.dumps([{'name': name, 'results': [result]}], ensure_ascii=False)}"
    yield "---"
    yield ""


def _about(name: str, net: Network, data: Description, test: float) -> Iterator[str]:
    count = sum(array.size for layer in net.all_layers for array in layer.parameters.values())
    yield f"# {_plain(name)}"
    yield ""
    yield f"A multilayer perceptron of widths {'-'.join(map(str, net.sizes))} with {count:,} parameters in {net.dtype},"
    yield f"trained by nnlite. Without noise it is right on {test:.2f} % of the test {data.samples}."
    yield ""
    yield "## Data"
    yield ""
    train, validation, held_out = data.split.sizes
    yield f"{_plain(data.name)}: {train:,} training, {validation:,} validation and {held_out:,} test {data.samples} of"
    yield f"shape {'x'.join(map(str, data.shape))}, SHA-256 `{data.sha256 or 'not recorded'}`."
    yield ""
    yield f"Classes: {_listed(data.classes)}."
    if data.features:
        ranges = zip(data.features, data.low, data.high, strict=True)
        listed = _listed([f"{one} {low:g} to {high:g}" for one, low, high in ranges])
        yield f"Features, and the range of each that becomes [0, 1]: {listed}."
    else:
        yield f"Pixels from {data.low[0]:g} to {data.high[0]:g} become [0, 1]."
    yield ""


def _robustness(data: Description, audit: AuditFigures | None) -> Iterator[str]:
    yield "## Robustness"
    yield ""
    if audit is None:
        yield "Not audited: nothing is known of how this net does under attack. `nnlite audit` finds out."
        yield ""
        return
    within = "within the range of the data" if audit.clip else "not clipped"
    yield f"Accuracy in % under noise of at most phi on each of the scaled {data.values}, {within}; 95 % intervals:"
    yield ""
    yield f"| phi | proven, {_examples(audit.proven)} | not broken, {_examples(audit.worst)} |"
    yield "| ---: | ---: | ---: |"
    for proven, worst in zip_longest(audit.proven, audit.worst):
        yield f"| {(proven or worst).phi:g} | {proven or '-'} | {worst or '-'} |"
    yield ""
    yield "Proven: right whatever the noise within phi, a bound from below. Not broken: right under every attack of the"
    yield "audit, though a stronger one may exist, a bound from above. The truth lies between the two."
    yield ""
    for question, answer in audit.open:
        yield f"- {_plain(question)} {_plain(answer)}"
    yield (
        "Questions of the audit that are not listed here passed."
        if audit.open
        else "All questions of the audit passed."
    )
    yield ""


def _examples(figures: tuple[Figure, ...]) -> str:
    return f"{figures[0].examples:,} tested" if figures else "none tested"


def _table(title: str, head: str, values: Mapping[str, Any]) -> Iterator[str]:
    yield f"## {title}"
    yield ""
    yield f"| {head} | value |"
    yield "| --- | --- |"
    for name, value in values.items():
        shown = ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else value
        if shown is not None:
            yield f"| {_plain(name)} | {_plain(shown)} |"
    yield ""


def _listed(names: Any) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(_plain, names[:SHOWN])) + more


def _plain(value: Any) -> str:
    """Return a value as text that Markdown shows as it is: a name may come from a stranger."""
    text = "".join(char if char.isprintable() else " " for char in str(value))
    return "".join(f"\\{char}" if char in "\\`*_{}[]<>#|!" else char for char in text)
