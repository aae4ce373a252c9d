"""`python -m mexc_trio` is the command `mexc-trio`."""

import signal
import sys
from types import FrameType

from mexc_trio.errors import INTERRUPTED, Terminated
from mexc_trio.output import open_missing


def main() -> int:
    """Run the command line and return its exit code."""
    open_missing()
    try:
        # It takes a moment, in which a signal is no bug either.
        _raise_terminated()
        from mexc_trio.cli.main import main as run
    except Terminated as error:
        print(f"mexc-trio: error: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        return INTERRUPTED
    return run()


def _raise_terminated() -> None:
    """Turn SIGTERM and SIGHUP into an exception until something listens for them.

    Their default ends the process without a word, and does nothing at all to process 1 of a
    container. What `nohup` has told to be ignored stays ignored.
    """
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:
            signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> None:
    raise Terminated(f"ended by {signal.Signals(number).name}")


if __name__ == "__main__":
    sys.exit(main())
