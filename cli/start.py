"""Where `nnlite` begins: Ctrl-C and SIGTERM end it quietly while the commands are still being imported."""

import os
import signal
from types import FrameType


def start() -> None:
    """Import the commands, and run the one that the arguments name."""
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # as of a job in the background
            signal.signal(number, _end)
    from nnlite.cli.main import main  # not at the top: it takes most of the time that a short command takes

    for number, handler in before.items():
        signal.signal(number, handler)
    main()


def _end(number: int, frame: FrameType | None) -> None:
    os._exit(130)  # as cli/main.py ends what is interrupted later: nothing has been begun yet
