"""Progress of a training: a line for each epoch, on the command line, or in a notebook that asks for it."""

from collections.abc import Callable

from nnlite.training.loop import Epoch


def epoch_line(epoch: Epoch, epochs: int) -> str:
    """Return how an epoch of `epochs` has ended, in words."""
    return f"epoch {epoch.epoch}/{epochs}  loss {epoch.loss:.4f}  validation {epoch.validation:.2f} %"


def show_epochs(epochs: int) -> Callable[[Epoch], None]:
    """Return an `on_epoch` for `train` and `make_run` that prints one line, which each epoch writes anew.

    A terminal and a notebook both show it; rich's own bar would need ipywidgets in a notebook.
    """

    def show(epoch: Epoch) -> None:
        print("\r" + epoch_line(epoch, epochs), end="\n" if epoch.epoch == epochs else "", flush=True)

    return show
