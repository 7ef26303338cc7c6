"""Progress of long work, such as many trainings, on stderr."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from nnlite.cli.options import message


@contextmanager
def progress() -> Iterator[Callable[[float, float, str], None]]:
    """Show the whole work on stderr: as a bar on a terminal, as a line for each step elsewhere."""
    console = Console(stderr=True)
    start = time.monotonic()

    def line(done: float, total: float, text: str) -> None:
        if text:
            left = f", {(time.monotonic() - start) / done * (total - done) / 60:.0f} min left" if done else ""
            message(f"{100 * done / total if total else 100:3.0f} %{left}  {text}")

    if not console.is_terminal:
        yield line
        return
    columns = (BarColumn(), TaskProgressColumn(), TextColumn("left"), TimeRemainingColumn(elapsed_when_finished=True))
    with Progress(*columns, console=console, transient=True, speed_estimate_period=600) as bar:
        task = bar.add_task("")

        def draw(done: float, total: float, text: str) -> None:
            bar.update(task, completed=done, total=total)
            if text:
                bar.console.print(text, highlight=False, markup=False)

        yield draw
