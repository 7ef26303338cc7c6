"""The summary of a grid: mean and spread over seeds, the best settings, and maps of lambda and phi.

What chooses is measured on the validation images, never on the test images: their accuracy, or that under PGD.
"""

import csv
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nnlite.errors import NnliteError
from nnlite.evaluation.accuracy import PAPER_PHI, evaluate_attack
from nnlite.evaluation.named_attacks import choose_attack
from nnlite.grid.jobs import Job, load_data
from nnlite.grid.pool import Executor
from nnlite.storage.files import current, new_file
from nnlite.training.run_folder import Record, load_record, load_run
from nnlite.training.settings import FIELDS

VALIDATION, TEST, NOISY, PGD = "valid.", "test", f"phi {PAPER_PHI[-1]:g}", "PGD"
CHOOSING = {"validation": VALIDATION, "pgd": PGD}

FloatArray = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Group:
    """The nets of the same settings but for the seed.

    Arguments:
        name: That of their runs, without the seed.
        jobs: One for each seed.
        records: Those of their runs; a net that diverged at once has none.
        figures: Accuracies in percent by name, (seeds,) of those that have a run.
    """

    name: str
    jobs: tuple[Job, ...]
    records: tuple[Record, ...]
    figures: Mapping[str, FloatArray]

    def mean(self, figure: str) -> float:
        """Return the mean over the seeds, or NaN where a net of them is missing: the others would look better."""
        return float(self.figures[figure].mean()) if self.is_complete else np.nan

    def spread(self, figure: str) -> float:
        """Return the standard deviation over the seeds, with n - 1 of n, or NaN for less than two."""
        return float(self.figures[figure].std(ddof=1)) if len(self.figures[figure]) > 1 else np.nan

    @property
    def is_complete(self) -> bool:
        """Whether each of the jobs has a run."""
        return len(self.records) == len(self.jobs)

    @property
    def status(self) -> str:
        """The status of all runs, or how many of them are finished, such as 2 of 3 finished."""
        statuses = [record.results.status for record in self.records]
        statuses += ["diverged"] * (len(self.jobs) - len(statuses))
        if len({*statuses}) == 1:
            return statuses[0]
        return f"{statuses.count('finished')} of {len(statuses)} finished"


@dataclass(frozen=True, eq=False)
class HeatMap:
    """A figure for each lambda and phi of settings that are else the same: values (lambdas, phis), NaN for none."""

    name: str
    lam: tuple[float, ...]
    phi: tuple[float, ...]
    values: FloatArray


def pgd_accuracies(
    jobs: Sequence[Job],
    phi: float,
    executor: Executor,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[Path, float]:
    """Return the accuracy under PGD on the validation images, in percent, of each job that has a run.

    Arguments:
        jobs: The nets.
        phi: The radius of the noise in the L-infinity norm; pixels stay within the box of the data.
        executor: Runs the tasks, one for each net, where the runs can be read.
        on_progress: Called with the number of nets that are done, and of all.
    """
    there = [job for job in jobs if current(job.path).is_dir()]
    found: dict[Path, float] = {}
    on_progress(0, len(there))
    for index, accuracy in executor([(pgd_accuracy, job, phi) for job in there]):
        found[there[index].path] = accuracy
        on_progress(len(found), len(there))
    return found


def pgd_accuracy(job: Job, phi: float) -> float:
    """Return the accuracy of the run of a job under PGD of 40 steps on its validation images, in percent."""
    chosen, device = choose_attack("pgd", (phi,)), job.settings.device
    validation = load_data(job.settings, job.source).validation.to(device)
    net = load_run(job.path).net.to(device)
    table = evaluate_attack(net, {"self": net}, validation, chosen.attack, chosen.phi, seed=chosen.seed or 0)
    return float(table.accuracy["self"][0])


def group_by_seed(jobs: Sequence[Job], pgd: Mapping[Path, float] | None = None) -> list[Group]:
    """Return the nets of a grid in groups that differ in their seed alone, in the order of the grid.

    pgd: what `pgd_accuracies` returned, where it was asked for.
    """
    groups: dict[tuple[str, object], list[Job]] = {}
    for job in jobs:
        name = re.sub(rf"-seed{job.settings.seed}(?=-|$)", "", job.path.name, count=1)
        groups.setdefault((name, dataclasses.replace(job.settings, seed=0)), []).append(job)
    return [_group(name, some, pgd) for (name, _), some in groups.items()]


def _group(name: str, jobs: Sequence[Job], pgd: Mapping[Path, float] | None) -> Group:
    records = [load_record(job.path) for job in jobs if current(job.path).is_dir()]
    results = [record.results for record in records]
    figures = {
        VALIDATION: [one.validation for one in results],
        TEST: [one.test for one in results],
        NOISY: [one.self_attack[-1] for one in results],
    }
    if pgd is not None:
        figures[PGD] = [pgd[record.path] for record in records]
    return Group(name, tuple(jobs), tuple(records), {key: np.array(values) for key, values in figures.items()})


def best_of(groups: Sequence[Group], by: str) -> Group | None:
    """Return the group of the highest mean of `by`, VALIDATION or PGD, the first of equals; None where none has one."""
    known = [group for group in groups if not np.isnan(group.mean(by))]
    return max(known, key=lambda group: group.mean(by), default=None)


def heat_maps(groups: Sequence[Group], by: str) -> list[HeatMap]:
    """Return a map of the means of `by` for settings that have several values of both lambda and phi."""
    alike: dict[tuple[object, ...], list[Group]] = {}
    for group in groups:
        settings = group.jobs[0].settings
        if settings.lam is not None and settings.phi is not None:
            other = (getattr(settings, name) for name in FIELDS if name not in ("lam", "phi", "seed"))
            alike.setdefault(tuple(other), []).append(group)
    maps = []
    for some in alike.values():
        places = {(group.jobs[0].settings.lam or 0.0, group.jobs[0].settings.phi or 0.0): group for group in some}
        lam, phi = (tuple(sorted({place[axis] for place in places})) for axis in (0, 1))
        if len(lam) > 1 and len(phi) > 1:
            values = [[places[x, y].mean(by) if (x, y) in places else np.nan for y in phi] for x in lam]
            first = some[0].jobs[0].settings
            name = first.run_name.replace(first.method_name, first.reg, 1)
            maps.append(HeatMap(re.sub(rf"-seed{first.seed}(?=-|$)", "", name, count=1), lam, phi, np.array(values)))
    return maps


def write_csv(groups: Sequence[Group], path: Path) -> None:
    """Write a line for each net to the CSV file `path`, which is replaced: its settings, its figures and its status.

    NnliteError where it cannot be written.
    """
    noise = [f"phi {phi:g}" for phi in PAPER_PHI]
    extra = [PGD] if any(PGD in group.figures for group in groups) else []
    try:
        with new_file(path, replace=True) as place, place.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(["group", "run", *FIELDS, "status", "best epoch", "epochs", "validation", *noise, *extra])
            for group in groups:
                found = {record.path: number for number, record in enumerate(group.records)}
                for job in group.jobs:
                    settings = [getattr(job.settings, name) for name in FIELDS]
                    texts = [",".join(map(str, value)) if isinstance(value, tuple) else value for value in settings]
                    row = [group.name, str(job.path), *texts]
                    if job.path not in found:
                        writer.writerow([*row, "diverged"])
                        continue
                    number = found[job.path]
                    record = group.records[number]
                    results = record.results
                    row += [results.status, results.best_epoch, record.epochs, results.validation, *results.self_attack]
                    writer.writerow([*row, *(group.figures[name][number] for name in extra)])
    except OSError as error:
        raise NnliteError(f"csv: cannot write {path} ({error.strerror}); choose another place") from error
