"""The `nnlite` command: the group that holds the others, and how errors end."""

import sys
from typing import Any

import click

import nnlite
from nnlite.cli.attack import attack
from nnlite.cli.audit import audit
from nnlite.cli.bench import bench
from nnlite.cli.data import data
from nnlite.cli.gradcheck import gradcheck
from nnlite.cli.options import message
from nnlite.cli.reproduce import reproduce
from nnlite.cli.runs import runs
from nnlite.cli.train import train
from nnlite.cli.verify import verify
from nnlite.errors import DivergedError, NnliteError

FAILED, BAD_INPUT, INTERRUPTED = 1, 2, 130


class Commands(click.Group):
    """A group that ends in one line and an exit code where nnlite raises its own error, or on Ctrl-C."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run the command; exit 1 for a failed training, 2 for bad input, 130 when interrupted."""
        try:
            return super().invoke(ctx)
        except NnliteError as error:
            message(f"Error: {error}")
            sys.exit(FAILED if isinstance(error, DivergedError) else BAD_INPUT)
        except KeyboardInterrupt as stop:
            message(str(stop) or "Interrupted.")
            sys.exit(INTERRUPTED)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(nnlite.__version__, prog_name="nnlite")
def main() -> None:
    """Train small neural nets with DataGrad, attack them, and check every gradient.

    Start with:

    \b
      nnlite train                                        the paper's Rect, on the embedded digits
      nnlite train --reg dgl1 --lam 0.01 --phi 0.1        DataGrad-L1 at the paper's best setting
      nnlite attack --adversary rect                      who stands up to Rect's noise
    """  # noqa: D301 - click wants the backspace itself


for command in (train, attack, verify, audit, reproduce, runs, data, gradcheck, bench):
    main.add_command(command)
