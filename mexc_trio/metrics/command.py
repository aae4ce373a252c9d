"""Runs a command of the user's with a line on its standard input, and is never held up by it.

The command may hang, fail or flood: it is killed after a while with all that it has started, what
it prints is not read, and of what it complains about one line is told.
"""

import logging
import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from typing import Final

import attrs
import trio

log = logging.getLogger(__name__)

LONGEST: Final = 30.0
"""Seconds after which a command is killed."""
_KILLED: Final = 1.0
"""Seconds to wait for one that was killed: a disk that hangs may keep it."""
_COMPLAINT: Final = 200
"""Characters that are told of what it wrote to standard error."""


@attrs.define
class Command:
    """Tells of its troubles once, and again after it has worked."""

    _trouble: bool = attrs.field(default=False, init=False)

    async def run(self, words: Sequence[str], line: bytes, longest: float = LONGEST) -> None:
        """Run a command to its end, or to its end by force after `longest` seconds.

        `words` are the program and its arguments; `line` is on its standard input.
        """
        trouble = await _run(words, line, longest)
        if trouble and not self._trouble:
            log.warning("--on-event: %s %s", words[0], trouble)
        self._trouble = bool(trouble)


async def _run(words: Sequence[str], line: bytes, longest: float) -> str:
    """Run it; return what went wrong, or nothing."""
    # A pipe that is looked at once, at the end: one that floods it waits there until it is killed.
    try:
        complaints, its_end = os.pipe()
    except OSError as error:
        return f"does not start: {error.strerror}"
    os.set_blocking(complaints, False)
    try:
        try:
            process = await trio.lowlevel.open_process(
                words,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=its_end,
                start_new_session=True,
                env=_environment(),
            )
        except (OSError, ValueError) as error:
            return f"does not start: {getattr(error, 'strerror', None) or error}"
        finally:
            os.close(its_end)
        try:
            with trio.move_on_after(longest):
                assert process.stdin is not None  # noqa: S101 - it was asked for
                async with process.stdin:
                    with suppress(trio.BrokenResourceError):  # it may not want to read
                        await process.stdin.send_all(line)
                code = await process.wait()
                return f"ended with {code}{_stderr_text(complaints)}" if code else ""
            return f"took longer than {longest:.0f} s and was killed"
        finally:
            await _end(process)
    finally:
        os.close(complaints)


async def _end(process: trio.Process) -> None:
    """Kill what still runs, and what it has started."""
    if process.returncode is None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        with trio.CancelScope(shield=True), trio.move_on_after(_KILLED):
            await process.wait()


def _stderr_text(pipe: int) -> str:
    with suppress(BlockingIOError):
        text = " ".join(os.read(pipe, 4 * _COMPLAINT).decode(errors="replace").split())
        if text := "".join(one for one in text if one.isprintable())[:_COMPLAINT]:
            return f": {text}"
    return ""


def _environment() -> dict[str, str]:
    """Return our environment without what may be a secret of ours."""
    return {name: text for name, text in os.environ.items() if not name.startswith("MEXC_TRIO_")}
