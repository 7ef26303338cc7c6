"""How far long work has come, on stderr: as a bar on a terminal, in lines elsewhere."""

import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from nnlite.cli.options import message
from nnlite.errors import printable

PATIENCE, PAUSE = 2.0, 30.0  # seconds: work that takes less is not worth a line; from one line to the next


class Progress(ABC):
    """Shows how far the work has come; call it with how much is done, of how much, and what is under way."""

    def __init__(self, what: str) -> None:
        self.what, self.done, self.total = what, 0.0, 0.0
        self.known = False  # whether it was called yet
        self.since, self.start = time.monotonic(), 0.0  # when what is under way began, and what was done then

    def __call__(self, done: float, total: float, what: str = "", *, note: str = "") -> None:
        """Show that `done` of `total` is done; without `what` it is still what was under way before.

        note: a line that stays.
        """
        if not self.known or done < self.done:
            self.since, self.start = time.monotonic(), done
        changed = what not in ("", self.what)
        self.what, self.done, self.total, self.known = what or self.what, done, total, True
        self.show(changed)
        if note:
            self.note(note)

    @property
    def percent(self) -> int:
        """How much is done; 100 where there is nothing to do."""
        return int(100 * self.done / self.total) if self.total else 100

    @property
    def left(self) -> str:
        """The time until the end, such as "0:01:40 left", or "" while it cannot be known."""
        if not self.start < self.done < self.total:
            return ""
        return f"{_clock((time.monotonic() - self.since) * (self.total - self.done) / (self.done - self.start))} left"

    @abstractmethod
    def show(self, changed: bool) -> None:
        """Show the state, in which there is something new under way if `changed`."""

    @abstractmethod
    def note(self, text: str) -> None:
        """Print a line that stays."""


@contextmanager
def progress(what: str, *, each: bool = False, still: bool = False) -> Iterator[Progress]:
    """Show how far the work has come while the block runs, at first under the name `what`; a bar is wiped out after it.

    Arguments:
        what: what is under way.
        each: whether everything that is under way is worth a line of its own, also within the first PATIENCE seconds.
        still: whether the bar moves only when it is called, as nothing else may run beside what is being timed.
    """
    console = Console(stderr=True)
    if console.is_terminal and not console.is_dumb_terminal:
        bar = Bar(what, console)
        with Live(bar, console=console, transient=True, refresh_per_second=10, auto_refresh=not still) as live:
            bar.refresh = live.refresh if still else bar.refresh
            yield bar
    else:
        lines = Lines(what, each)
        try:
            yield lines
        finally:
            lines.timer.cancel()


class Bar(Progress):
    """A line at the bottom of the terminal: what is under way, a bar, percent, and the time that is left."""

    def __init__(self, what: str, console: Console) -> None:
        super().__init__(what)
        self._console = console
        self.refresh: Callable[[], None] = lambda: None

    def __rich__(self) -> Table:
        """Return the line as it is now; until something is done the bar pulses, and the time is what has passed."""
        line = Table.grid(padding=(0, 1), expand=True)
        line.width = self._console.width - 3  # so that the ^C of a terminal does not begin a line of its own
        line.add_column(no_wrap=True, max_width=line.width - 30)
        line.add_column(ratio=1)
        line.add_column(no_wrap=True, justify="right")
        line.add_column(no_wrap=True)
        bar = ProgressBar(self.total, self.done, pulse=not self.done)
        passed = _clock(time.monotonic() - self.since)
        line.add_row(Text(printable(self.what)), bar, f"{self.percent if self.known else 0} %", self.left or passed)
        return line

    def show(self, changed: bool) -> None:
        """Draw the line, unless it is drawn ten times a second anyway."""
        self.refresh()

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(printable(text), highlight=False, markup=False, emoji=False)


class Lines(Progress):
    """Lines for a file or a pipe: one for whatever is under way, and one every PAUSE seconds."""

    def __init__(self, what: str, each: bool) -> None:
        super().__init__(what)
        self._last, self._told = self.since, -1
        self._quiet_until = self.since + (0 if each else PATIENCE)
        self.timer = threading.Timer(PATIENCE, lambda: self.note(self.what))
        self.timer.daemon = True
        self.timer.start()

    def show(self, changed: bool) -> None:
        """Print a line if it is time for one."""
        now = time.monotonic()
        if (changed and now >= self._quiet_until) or (now >= self._last + PAUSE and self.percent != self._told):
            self.note(self.what)

    def note(self, text: str) -> None:
        """Print a line, and with it how far the work has come."""
        self.timer.cancel()
        self._last, self._told = time.monotonic(), self.percent
        left = f", {self.left}" if self.left else ""
        message(f"{self.percent:3} %{left}  {text}" if self.known else text)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=round(seconds)))
