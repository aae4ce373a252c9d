"""The command line from its words to its exit code, and every error as one line."""

import os
import sys
from collections.abc import Sequence

import cyclopts

# Imported for the commands that they add to the app.
from mexc_trio.cli import commands, files  # noqa: F401
from mexc_trio.cli.options import app
from mexc_trio.errors import INTERRUPTED, MexcTrioError, UsageError, leaves
from mexc_trio.logs import end_with
from mexc_trio.output import steady_stderr
from mexc_trio.settings.values import mask
from mexc_trio.texts import printable


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    with steady_stderr():
        return _main(arguments)


def _main(arguments: Sequence[str] | None) -> int:
    try:
        result = app(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
    except cyclopts.UnusedCliTokensError as error:
        command = " ".join(("mexc-trio", *(error.command_chain or ())))
        words = " ".join(map(repr, error.unused_tokens or ()))
        hint = "; the statement goes in quotes" if command == "mexc-trio sql" else ""
        return _fail(mask(f"{command} takes no {words}{hint}"), UsageError.exit_code)
    except cyclopts.CycloptsError as error:
        return _fail(mask(str(error)), UsageError.exit_code)
    except BrokenPipeError:
        # The reader of our output has seen enough, as in `mexc-trio verify | head`. Without this,
        # the interpreter would complain when it flushes on exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return MexcTrioError.exit_code
    except BaseException as error:
        causes = leaves(error)
        ours = [cause for cause in causes if isinstance(cause, MexcTrioError)]
        interrupts = [cause for cause in causes if isinstance(cause, KeyboardInterrupt)]
        if len(ours) + len(interrupts) < len(causes):
            raise  # a bug, whose traceback is wanted
        if interrupts:
            return _fail("interrupted", INTERRUPTED)
        # A group may hold the same error several times, once for each symbol that met it.
        text = "; ".join(dict.fromkeys(map(str, ours)))
        return _fail(text, max(cause.exit_code for cause in ours))
    return result if isinstance(result, int) else 0


def _fail(text: str, exit_code: int) -> int:
    end_with(printable(" ".join(text.split())))
    return exit_code
