"""`python -m mexc_trio` is the command `mexc-trio`.

A signal is heard from here on. Its default ends the process without a word, and does nothing at all
to process 1 of a container. So nothing is imported before that takes its time.
"""

import os
import signal
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from types import FrameType


def main() -> int:
    """Run the command line and return its exit code."""
    # While modules are half imported nothing can be done in good order, and nothing needs to be.
    heard = [number for number in _END if signal.getsignal(number) != signal.SIG_IGN]  # by nohup
    for number in heard:
        signal.signal(number, _end)
    from mexc_trio.output import open_missing

    open_missing()
    from mexc_trio.cli.main import main as run

    for number in heard:
        interrupt = number == signal.SIGINT
        signal.signal(number, signal.default_int_handler if interrupt else _raise)
    return run()


_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _end(number: int, frame: "FrameType | None") -> None:
    text = f"mexc-trio: error: ended by {signal.Signals(number).name}\n"
    with suppress(OSError):  # standard error may be closed
        os.write(2, text.encode())
    os._exit(130 if number == signal.SIGINT else 143)


def _raise(number: int, frame: "FrameType | None") -> None:
    """Raise, until something listens, such as a recorder."""
    from mexc_trio.errors import Terminated

    raise Terminated(f"ended by {signal.Signals(number).name}")


if __name__ == "__main__":
    sys.exit(main())
