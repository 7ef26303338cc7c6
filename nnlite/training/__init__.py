"""Training one net: its settings, the epochs, checkpoints, and the run that is kept."""

from nnlite.training.loop import TrainingResult, TrainingState, train, train_stack
from nnlite.training.mix import mix
from nnlite.training.progress import show_epochs
from nnlite.training.run_folder import Run, load_run
from nnlite.training.runs import find_run, list_runs, make_run
from nnlite.training.settings import Settings

__all__ = ["Run", "Settings", "TrainingResult", "TrainingState"]
__all__ += ["find_run", "list_runs", "load_run", "make_run", "mix", "show_epochs", "train", "train_stack"]
