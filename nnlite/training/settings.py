"""Settings: all that decides a training, and one table of what each setting may be, for the command line as well.

A new setting is a field here. One that a method takes is also a parameter in its row of `nnlite.methods.METHODS`, and
nothing else: the options of the commands, the keys of a grid file and the names of runs are derived from the fields.
"""

import dataclasses
import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nnlite.backend import DEVICES
from nnlite.datagrad import Term
from nnlite.datasets.description import NAME, Description
from nnlite.datasets.own import FRACTIONS, check_fractions
from nnlite.datasets.rotation import ANGLES, ROTATION
from nnlite.errors import NnliteError
from nnlite.methods import DUALS, METHODS, Method
from nnlite.network import MAIN
from nnlite.penalties import PENALTIES
from nnlite.storage import kinds
from nnlite.storage.kinds import Kind, expect, expect_fields
from nnlite.storage.texts import parse_number

GRADIENTS = ("finite", "exact")
# What a method or a second task takes where the user says nothing.
DEFAULTS = {
    "alpha": 0.5,  # Goodfellow et al. took it in all experiments
    "steps": 10,  # Zhang et al. took as many on CIFAR-10, Madry et al. 7
    "gamma": 0.5,  # the middle of the paper's range
}
# What a setting is called in the name of a run, where that is not its own name: "" where the value says it all.
CALLED = {"batch_size": "batch", "device": "", "gradient": "", "term": ""}
LONGEST_NAME = 120  # bytes: an encrypted home folder allows 143, and a checkpoint's name is 12 longer
FLOAT32 = np.finfo(np.float32)  # what a net is trained in
# Every file has these. Settings that came later may be absent; their defaults are what an older version did.
REQUIRED = {"reg", "lam", "phi", "data", "hidden", "lr", "epochs", "batch_size", "multitask", "gamma", "seed", "device"}


def _setting(default: Any, kind: Kind, about: str, example: Any = None) -> Any:
    """Return a field with the kind of its values, a line of help, and an example where it is a number of a method."""
    return dataclasses.field(default=default, metadata={"kind": kind, "about": about, "example": example})


@dataclass(frozen=True)
class Settings:
    """All that decides a training; the defaults are the paper's net and batch, and its method Rect.

    None stands for a number that the method, or a net of one task, does not take. NnliteError for a value that is
    missing, not used, or not of its kind.

    Arguments:
        reg: the name of the method in `nnlite.methods.METHODS`.
        lam: the weight of the penalty.
        phi: the step of the finite difference, that is the size of the noise.
        alpha: the weight of the clean loss; the adversarial loss has the rest.
        p: the norm of the noise.
        steps: how many steps of PGD craft a sample.
        term: the terms of Eq. 1, each as `parse_term` reads it.
        gradient: how the penalty is differentiated; the exact gradient takes no phi.
        gamma: the weight of the rotation loss (Eq. 6).
        data: the name of the data set, or the stem of the user's own file.
        label: the column of labels in a CSV file, None for the last one.
        split: the shares of training, validation and test samples, where a file of one's own does not say.
        decay: what the learning rate is multiplied by after each epoch.
        patience: the number of epochs without a better validation accuracy after which training stops.
    """

    reg: str = _setting("none", kinds.one_of(METHODS), "Method of training; nnlite train --help lists them.")
    lam: float | None = _setting(
        None, kinds.NOT_NEGATIVE, "Lambda; that of l1 and l2 is on the paper's scale, beside the batch sum.", 0.01
    )
    phi: float | None = _setting(
        None, kinds.POSITIVE, "Size of the noise, which is the step of the finite difference; 8/255 will do.", 0.1
    )
    alpha: float | None = _setting(
        None, kinds.number(0, 1), "Weight of the clean loss, for methods that mix in samples.", DEFAULTS["alpha"]
    )
    p: str | None = _setting(None, kinds.one_of(DUALS), "Norm of the noise, for lyu.", "inf")
    steps: int | None = _setting(
        None, kinds.integer(1), "Steps of PGD that craft each sample, for pgd and trades.", DEFAULTS["steps"]
    )
    term: tuple[str, ...] | None = _setting(
        None,
        kinds.sequence(kinds.text(1, 200), 0, 100, tuple),
        "A term of Eq. 1, for datagrad; repeatable.",
        ("l1,0.01,0.1",),
    )
    gradient: str = _setting(
        "finite",
        kinds.one_of(GRADIENTS),
        "Gradient of DataGrad's penalty: by a finite step phi, or exact, without phi.",
    )
    data: str = _setting("digits", kinds.FOLDER_NAME, "Data set: a name of nnlite data, or the path of your own.")
    label: str | None = _setting(None, NAME, "Column of labels in a CSV file.  [default: the last one]")
    split: tuple[float, ...] = _setting(
        FRACTIONS,
        kinds.sequence(kinds.number(0, 1), 3, 3, tuple),
        "Shares of training, validation and test, where your own file has none.",
    )
    hidden: tuple[int, ...] = _setting(
        (784, 784, 784), kinds.sequence(kinds.integer(1), 0, 100, tuple), 'Widths of the hidden layers; "" for none.'
    )
    lr: float = _setting(0.1, kinds.POSITIVE, "Learning rate.")
    epochs: int = _setting(60, kinds.integer(1, 100_000), "Number of epochs.")
    batch_size: int = _setting(100, kinds.integer(1), "Examples in a step.")
    multitask: bool = _setting(False, kinds.BOOLEAN, "Add a head that tells how far an image is rotated (Eq. 6).")
    gamma: float | None = _setting(None, kinds.POSITIVE, "Weight of the rotation loss, with --multitask.")
    seed: int = _setting(0, kinds.integer(0), "Seed of the weights, the shuffling and the split.")
    device: str = _setting("cpu", kinds.one_of(DEVICES), "NumPy or, with CuPy, one GPU.")
    decay: float = _setting(
        1.0,
        kinds.Kind("a number above 0 and at most 1", lambda value: kinds.is_finite(value) and 0 < value <= 1),
        "What the learning rate is multiplied by after each epoch, such as 0.95; 1 leaves it as it is.",
    )
    patience: int | None = _setting(
        None, kinds.integer(1), "Stop after so many epochs without a better validation accuracy.  [default: never]"
    )

    def __post_init__(self) -> None:
        for name, field in FIELDS.items():
            value = getattr(self, name)
            if value is not None or field.default is not None:
                expect(name, field.metadata["kind"], value)
        check_fractions(self.split)
        self._check_numbers()
        if self.multitask and self.gamma is None:
            example = DEFAULTS["gamma"]
            raise NnliteError(
                f"gamma: a multi-task net needs the weight of its second loss; give for example {example}"
            )
        if self.gamma is not None and not self.multitask:
            raise NnliteError("gamma: only a multi-task net uses it; leave it out or add --multitask")
        tasks = {MAIN, *self.auxiliary_losses}
        for term in self.terms:
            if term.task not in tasks:
                raise NnliteError(f"term: expected the task {' or '.join(tasks)}, found {term.task!r}; see --multitask")
            _check_float32(term)

    def _check_numbers(self) -> None:
        """Raise NnliteError where a number of the method is missing, or one is given that it does not take."""
        if self.gradient == "exact" and not self.method.has_exact:
            able = ", ".join(name for name, method in METHODS.items() if method.has_exact)
            raise NnliteError(f"gradient: method {self.reg} has no penalty on the gradient; exact is for {able}")
        taken = numbers_taken(self.reg, self.gradient)
        for name in EXAMPLES:
            value = getattr(self, name)
            if value is None and name in taken:
                example = " ".join(map(_as_option, taken))
                raise NnliteError(f"{name}: method {self.reg} needs it; give for example {example}")
            if value is not None and name not in taken:
                exact = name in self.method.takes
                why = "the exact gradient takes no step" if exact else f"method {self.reg} does not use it"
                raise NnliteError(f"{name}: {why}; leave it out")

    @property
    def method(self) -> Method:
        """The row of METHODS that `reg` names."""
        return METHODS[self.reg]

    @property
    def terms(self) -> tuple[Term, ...]:
        """The terms of Eq. 1."""
        given = {**vars(self), "term": tuple(map(parse_term, self.term or ()))}
        return self.method.terms(**{name: given[name] for name in self.method.parameters})

    @property
    def method_name(self) -> str:
        """The method with its numbers, such as rect, dgl1-lam0.01-phi0.1, mt or mt-l1-lam0.001."""
        parts = ["mt"] if self.multitask else []
        if self.reg != "none" or not self.multitask:
            parts.append("rect" if self.reg == "none" else self.reg)
        parts += ["exact"] if self.gradient == "exact" else []
        parts += [name_part(name, getattr(self, name)) for name in numbers_taken(self.reg, self.gradient)]
        if self.gamma not in (None, DEFAULTS["gamma"]):
            parts.append(name_part("gamma", self.gamma))
        return "-".join(parts)

    @property
    def run_name(self) -> str:
        """The name of the run where the user gives none: the method, and whatever else differs from the defaults.

        Such as rect, rect-seed1, or dgl1-lam0.01-phi0.1-hidden64-64-epochs20. Settings that differ in more than their
        data, which is the folder of the run, have names that differ; one too long for a file system ends in a hash.
        """
        other = FIELDS.keys() - {"reg", "gradient", "multitask", "gamma", "data", *EXAMPLES}
        given = {name: getattr(self, name) for name in FIELDS if name in other}
        parts = [name_part(name, value) for name, value in given.items() if value != FIELDS[name].default]
        name = "-".join([self.method_name, *parts])
        if len(name) <= LONGEST_NAME:
            return name
        digest = hashlib.sha256(name.encode()).hexdigest()[:12]
        return f"{name[: LONGEST_NAME - len(digest) - 1].rstrip('-')}-{digest}"

    def learning_rate(self, epoch: int) -> float:
        """Return the learning rate of an epoch, counted from 1: lr decay^(epoch - 1), as PyTorch's ExponentialLR."""
        return self.lr * self.decay ** (epoch - 1)

    @property
    def auxiliary_losses(self) -> dict[str, float]:
        """The weight of the loss of each task beside the main one (Eq. 6)."""
        return {ROTATION: self.gamma} if self.gamma is not None else {}

    def sizes(self, data: Description) -> tuple[int, ...]:
        """Return the widths of the net from the input to the logits, such as (784, 784, 784, 784, 10)."""
        return (math.prod(data.shape), *self.hidden, len(data.classes))

    @property
    def heads(self) -> dict[str, int]:
        """The number of classes of each task beside the main one."""
        return {ROTATION: len(ANGLES)} if self.multitask else {}


FIELDS = {field.name: field for field in dataclasses.fields(Settings)}
# The settings whose single value is a list.
LISTS = [name for name, field in FIELDS.items() if isinstance(field.default or field.metadata["example"], tuple)]
# The numbers that methods take, and for each a value that gives no warning.
EXAMPLES = {name: found for name, field in FIELDS.items() if (found := field.metadata["example"]) is not None}


def _check_float32(term: Term) -> None:
    """Raise NnliteError where a step moves no white pixel, or the weight lambda/phi is none, in float32."""
    least, most = float(FLOAT32.eps) / 2, float(FLOAT32.max)
    if term.phi is not None and not least < term.phi <= most:
        raise NnliteError(
            f"phi: expected more than {least:.1g}, or no step moves a white pixel in float32, and at most {most:.1g}, "
            f"found {term.phi:g}; take a step such as 0.1, or the exact gradient"
        )
    if not term.weight <= most:
        raise NnliteError(
            f"lam: expected lambda/phi of at most {most:.1g}, all that float32 holds, found {term.weight:g}"
        )


def numbers_taken(reg: str, gradient: str) -> tuple[str, ...]:
    """Return the names of the numbers that a method takes: the exact gradient takes no phi."""
    return tuple(name for name in METHODS[reg].takes if (name, gradient) != ("phi", "exact"))


def name_part(name: str, value: Any) -> str:
    """Return a setting as it stands in the name of a run, such as lr0.2, hidden64-64 or batch50.

    Numbers are written in full where six digits do not tell them apart. No character is one that a file system refuses.
    """
    return CALLED.get(name, name.replace("_", "-")) + _short(value)


def _short(value: Any) -> str:
    if isinstance(value, tuple):
        return "-".join(map(_short, value)) or "none"
    if isinstance(value, float):
        return short if float(short := f"{value:g}") == value else repr(value)
    return re.sub(r"[^a-zA-Z0-9.+]+", "-", str(value)).strip("-")


def with_defaults(given: Mapping[str, Any], defaults: Mapping[str, Any] = DEFAULTS) -> dict[str, Any]:
    """Return the settings that were given, and the default of each number that is taken but missing, or None.

    Nothing is checked here; `Settings` does that.
    """
    chosen = {name: value for name, value in given.items() if value is not None}
    reg = chosen.get("reg", "none")
    known = isinstance(reg, str) and reg in METHODS
    taken = numbers_taken(reg, chosen.get("gradient", "finite")) if known else ()
    if chosen.get("multitask"):
        taken = (*taken, "gamma")
    return {name: value for name, value in defaults.items() if name in taken} | chosen


def parse_term(text: str) -> Term:
    """Read a term of Eq. 1, penalty, lambda, phi or exact, and task, as l1,0.01,8/255 or l2,0.01,exact,rotation."""
    name, *numbers = text.split(",")
    try:
        lam, phi, task = (*numbers, MAIN) if len(numbers) == 2 else numbers
        term = Term(PENALTIES[name], float(lam), None if phi == "exact" else parse_number(phi), task)
    except (ValueError, KeyError) as error:
        raise NnliteError(
            f"term: expected PENALTY,LAMBDA,PHI or PENALTY,LAMBDA,PHI,TASK, with one of {', '.join(PENALTIES)} "
            f"and a phi or the word exact, found {text!r}"
        ) from error
    expect("lam", kinds.NOT_NEGATIVE, term.lam)
    if term.phi is not None:
        expect("phi", kinds.POSITIVE, term.phi)
    return term


def read_settings(content: Any) -> Settings:
    """Return the Settings that a JSON object holds; NnliteError where one is missing, unknown or wrong."""
    values = expect_fields("settings", FIELDS, content, FIELDS.keys() - REQUIRED)
    lists = {name: tuple(value) for name, value in values.items() if isinstance(value, list)}
    return Settings(**(values | lists))


def _as_option(name: str) -> str:
    value = EXAMPLES[name]
    return f"--{name} {value[0] if isinstance(value, tuple) else value}"
