"""Diagnostics: what in the figures of a finished training is not to be trusted, in lines for the user."""

import math

from nnlite.datasets.samples import Dataset
from nnlite.training.run_folder import Run

FALL = 5.0  # from so many points on, a loss of validation accuracy is no wobble of single epochs


def diagnose(run: Run, data: Dataset) -> list[str]:
    """Return warnings, each a line: of label leaking, and of a net that grew much worse after its best epoch.

    Arguments:
        run: What was trained.
        data: What it was trained on; how many images it has says what may be chance.
    """
    return [*_label_leaking(run, len(data.test)), *_fall(run, len(data.validation))]


def _label_leaking(run: Run, images: int) -> list[str]:
    """Warn where the noise that is made to mislead the net helps it instead (Kurakin et al. 2017, arXiv:1611.01236)."""
    clean, (noisy, phi) = run.results.test, max(zip(run.results.self_attack, run.results.phi, strict=True))
    if noisy - clean <= _chance(clean, noisy, images):
        return []
    return [
        f"label leaking (Kurakin et al. 2017): test accuracy rises from {clean:.2f} % to {noisy:.2f} % under the net's "
        f"own R1 noise of phi {phi:g}, because the net reads the label from the noise; accuracy under one-step noise "
        f"then says nothing about robustness; use nnlite audit {run.path}"
    ]


def _fall(run: Run, images: int) -> list[str]:
    """Warn where each of the last tenth of the epochs lies far below the best one."""
    best, epoch, last = run.results.validation, run.results.best_epoch, run.history[-1]
    late = max(one.validation for one in run.history[-max(1, len(run.history) // 10) :])
    if best - late <= max(FALL, _chance(best, late, images)):
        return []
    return [
        f"validation accuracy fell from {best:.2f} % in epoch {epoch} to {last.validation:.2f} % in the last epoch, "
        f"{last.epoch}; the net of epoch {epoch} is kept"
    ]


def _chance(one: float, other: float, images: int) -> float:
    """Return how far apart two accuracies in percent may be by chance: two standard errors of their difference.

    They are taken for independent. Those of one net on the same images vary together, and their difference less.
    """
    return 2 * math.sqrt((one * (100 - one) + other * (100 - other)) / images)
