"""The command `reload`: has a running recorder read its settings file again, and tells what it did.

The recorder is the one in the state directory whose journal says that its settings came from this
file. One that was started without a file would end at SIGHUP: it gets none.
"""

import os
import signal
import sys
import time
from pathlib import Path
from typing import Final

from mexc_trio.errors import MexcTrioError, UsageError
from mexc_trio.journal import fact_of
from mexc_trio.locks import holder
from mexc_trio.record.reload import ANSWER, CONFIG
from mexc_trio.settings import Settings

PATIENCE: Final = 60.0
"""Seconds to wait for the recorder's answer: symbols that come may need tables first."""


def reload(settings: Settings) -> int:
    """Have the recorder read its settings again; return the exit code.

    Raises UsageError if there is no settings file, or no recorder that runs with it, MexcTrioError
    if that did not answer.
    """
    if settings.config is None:
        raise UsageError("there is no settings file; name the recorder's with --config")
    journal, pid = _recorder(settings.state_directory, settings.config.resolve())
    before = fact_of(journal, ANSWER)
    try:
        os.kill(pid, signal.SIGHUP)
    except OSError as error:
        raise MexcTrioError(f"process {pid} cannot be told: {error.strerror}") from error
    deadline = time.monotonic() + PATIENCE
    while (answer := fact_of(journal, ANSWER)) == before:
        if time.monotonic() > deadline:
            raise MexcTrioError(f"process {pid} does not answer; its log may say why")
        time.sleep(0.05)
    _, outcome, text = answer.split(" ", 2)
    if outcome != "ok":
        raise MexcTrioError(f"process {pid}: {text}")
    sys.stdout.write(f"process {pid}: {text}\n")
    return 0


def _recorder(directory: Path, config: Path) -> tuple[Path, int]:
    """Find the recorder whose settings came from a file; return its journal and its process."""
    without = 0
    for journal in sorted(directory.glob("journal*.sqlite")):
        pid = holder(journal.with_suffix(".lock"))
        if pid is None:
            continue
        file = fact_of(journal, CONFIG)
        if file == str(config):
            return journal, pid
        without = without or pid
    if without:
        raise UsageError(
            f"process {without} records in {directory}, and its settings did not come from {config}"
        )
    raise UsageError(f"no recorder runs in {directory}; see --store and --state-dir")
