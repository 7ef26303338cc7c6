"""The `nnlite` command: the group that holds the others, and how each of them ends."""

import errno
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

import click
from click.exceptions import NoArgsIsHelpError

import nnlite
from nnlite.cli.attack import attack
from nnlite.cli.audit import audit
from nnlite.cli.bench import bench
from nnlite.cli.certify import certify
from nnlite.cli.data import data
from nnlite.cli.explore import explore
from nnlite.cli.export import export
from nnlite.cli.gradcheck import gradcheck
from nnlite.cli.grid import grid
from nnlite.cli.predict import predict
from nnlite.cli.reproduce import reproduce
from nnlite.cli.runs import runs
from nnlite.cli.train import train
from nnlite.cli.verify import verify
from nnlite.errors import DivergedError, NnliteError, printable

FAILED, BAD_INPUT, BUG, INTERRUPTED, NO_READER = 1, 2, 70, 130, 141  # docs/files.md says when


class Commands(click.Group):
    """A group that ends each error in one line on stderr, and in an exit code that says of which kind it was."""

    def main(self, *args: Any, **options: Any) -> NoReturn:
        """Run the command that the arguments name, and exit."""
        sys.stdout = stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115 - None, where the caller has closed it
        sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
        if isinstance(stdout, io.TextIOWrapper):
            stdout.reconfigure(errors="backslashreplace")  # a name may hold what the terminal has no letter for
        try:
            with _sigterm_as_ctrl_c():
                try:
                    code = super().main(*args, **{**options, "standalone_mode": False})
                finally:
                    sys.stdout.flush()  # now, while an error can still be told
        except SystemExit as stop:  # click and rich end a broken pipe with 1, as if a check had failed
            broken = sys.stdout is not stdout or isinstance(stop.__context__, BrokenPipeError)
            code = NO_READER if broken else stop.code
        except (Exception, KeyboardInterrupt) as error:
            code, text = _ending(error)
            with suppress(OSError):  # nobody may be there to read it
                click.echo(text, err=True, nl=bool(text))
            _let_go()
        sys.exit(code)

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command, in colour unless NO_COLOR is set; with --debug show the traceback of an error, too."""
        ctx.color = False if os.environ.get("NO_COLOR") else None  # rich looks by itself, click does not
        try:
            return super().invoke(ctx)
        except click.exceptions.Exit:
            raise
        except Exception:
            if ctx.params["debug"]:
                traceback.print_exc()
            raise


def _ending(error: BaseException) -> tuple[int, str]:
    """Return the exit code, and what to say."""
    if isinstance(error, click.Abort):  # which click makes of some errors, Ctrl-C among them
        error = error.__cause__ or error
    match error:
        case NoArgsIsHelpError():
            return BAD_INPUT, error.format_message()
        case KeyboardInterrupt():
            return INTERRUPTED, _one_line(str(error) or "Interrupted.")
        case BrokenPipeError():  # of `nnlite runs | head -1`
            return NO_READER, ""
        case click.UsageError():
            command, what = error.ctx.command_path if error.ctx else "nnlite", error.format_message()
            code, text = BAD_INPUT, f"{what}{'' if what.endswith(('.', '?', '?)')) else '.'} See {command} --help"
        case NnliteError():
            code, text = FAILED if isinstance(error, DivergedError) else BAD_INPUT, str(error)
        case MemoryError():
            what = str(error) or "there is not enough"
            code, text = BAD_INPUT, f"memory: {what}; take smaller nets or batches, or fewer of them at a time"
        case OSError(errno=errno.EMFILE | errno.ENFILE):
            code, text = BAD_INPUT, "the system allows too few open files; raise ulimit -n"
        case OSError():
            what = f"{error.strerror or error}" + (f": {error.filename}" if error.filename else "")
            code, text = BAD_INPUT, f"the system refused ({what}); look at the disk, the path and its permissions"
        case _:
            what = f"{type(error).__name__}: {error}"
            code, text = BUG, f"a bug in nnlite ({what}); call nnlite --debug COMMAND ..., and report what it prints"
    return code, _one_line(f"Error: {text}")


def _one_line(text: str) -> str:
    """Return `text` as one line without control codes: a file from a stranger may have had a say in it."""
    return " ".join(printable(text).split())


def _let_go() -> None:
    """Drop output that cannot be written: at its very end Python would try once more, and complain."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


@contextmanager
def _sigterm_as_ctrl_c() -> Iterator[None]:
    """Take SIGTERM for Ctrl-C, so that what is kept on the one, and ended with it, is on the other, too."""
    if threading.current_thread() is not threading.main_thread():  # the only one that hears signals
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        handler = signal.getsignal(signal.SIGINT)  # a run being written holds it back, a job with & ignores it
        (handler if callable(handler) else signal.default_int_handler)(number, frame)

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@click.group("nnlite", cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--debug", is_flag=True, help="Show the traceback of an error, too.")
@click.version_option(nnlite.__version__, prog_name="nnlite")
def main(debug: bool) -> None:
    """Train small neural nets with DataGrad, attack them, and check every gradient.

    Start with:

    \b
      nnlite train                                   the paper's Rect, on digits
      nnlite train --reg dgl1 --lam 0.01 --phi 0.1   DataGrad-L1
      nnlite attack --adversary rect                 every run under Rect's noise
    """  # noqa: D301 - click wants the backspace itself


NAMED = train, attack, verify, audit, certify, explore, predict, export, grid, reproduce, runs, data, gradcheck, bench
for command in NAMED:
    main.add_command(command)
