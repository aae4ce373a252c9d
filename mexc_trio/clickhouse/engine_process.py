"""The child process in which the engine runs. The only module that touches chdb's extension.

The wheel `chdb-core` holds all of a ClickHouse server, which its own Python interface does not
offer: `chdb.query` and sessions run statements in the caller's process. The function `query` of its
extension module, however, is clickhouse-local, which reads the `config.xml` of the current
directory and takes SYSTEM START LISTEN. So this file is run as a program of its own, with no
package of ours or anybody's on its path:

    python -I -S engine_process.py EXTENSION STORE

It serves the directory STORE until its standard input ends, which it does when the parent ends,
however that ends. Signals are the parent's business: a supervisor sends them to all processes at
once, and the last rows have to be written still.
"""

import ctypes
import importlib.machinery
import importlib.util
import mmap
import os
import shutil
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

# The server of readers is started by the recorder, once nothing is left open that it must not see.
# The last statement never ends.
# Before anybody is let in, nothing is left to read files with (see _started).
_SERVE = """\
SELECT started('');
SYSTEM START LISTEN TCP;
SELECT sleepEachRow(1) FROM numbers(1000000000000) SETTINGS max_block_size = 1,
    function_sleep_max_microseconds_per_block = 0 FORMAT Null"""

_DEEPBIND = 8  # RTLD_DEEPBIND, by which the extension finds its own allocator first


def main() -> None:
    """Serve until the parent ends; returns only when that fails."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    start = Path.cwd() / "start"
    chdb = _load(Path(sys.argv[1]))
    shutil.rmtree(start, ignore_errors=True)
    start.mkdir(mode=0o700)
    for name in ("config.xml", "config.d"):  # the latter has no embedded engine
        if (start.parent / name).exists():
            (start / name).symlink_to(f"../{name}")
    os.chdir(start)
    chdb.set_signal_handlers_enabled(0)
    text = chdb._sqltypes.STRING  # noqa: SLF001 - there is no other way to name a type
    chdb.create_function("started", _started, [text], text)
    # The format is what the whole server answers in if nothing else is asked for.
    answer = chdb.query(_SERVE, "TabSeparated", path=sys.argv[2])
    sys.exit(f"engine: {answer.error_message() if answer is not None else 'it ended'}")


def _end_with_the_parent() -> None:
    while os.read(0, 1):
        pass
    # Every acknowledged INSERT is with the kernel; there is nothing to put in order.
    os._exit(0)


def _started(_: str) -> str:
    """Put away what only the start needed. It is called more than once for one statement."""
    _close_files()
    _let_go_of_code()
    return ""


def _close_files() -> None:
    """Take away the directory that clickhouse-local started in.

    It lets the function `file` read any file, whatever rights a user has. That looks for the
    directory of the user's files first, which is where the engine started, and fails without it.
    A function of ours with the same name would not do: a query that says it comes from an old
    server is read by the old analyzer, and that one finds the engine's own.
    """
    with suppress(FileNotFoundError):
        shutil.rmtree(Path.cwd())


def _let_go_of_code() -> None:
    """Unmap the pages of the extension that were read so far, some 130 MB.

    What is run again comes back by itself, from the file or the kernel's cache of it. Only what
    cannot be written to, and never was, may be let go of so.
    """
    if sys.platform != "linux":
        return
    madvise = ctypes.CDLL(None).madvise
    extension, place, rights, name = os.path.realpath(sys.argv[1]), "", "", ""
    for line in Path("/proc/self/smaps").read_text().splitlines():
        word, *words = line.split(maxsplit=5)
        if not word.endswith(":"):
            place, rights, name = word, words[0], words[4] if len(words) > 4 else ""
        elif word == "Anonymous:" and words[0] == "0" and name == extension and "w" not in rights:
            start, end = (int(one, 16) for one in place.split("-"))
            madvise(ctypes.c_void_p(start), ctypes.c_size_t(end - start), mmap.MADV_DONTNEED)


def _load(extension: Path) -> Any:
    """Load the extension alone: the package around it opens an engine of its own, and pandas."""
    os.chdir(extension.parent)  # where the libraries are that it needs
    if sys.platform == "linux":
        ctypes.CDLL(str(extension), mode=os.RTLD_NOW | _DEEPBIND)
    loader = importlib.machinery.ExtensionFileLoader("_chdb", str(extension))
    spec = importlib.util.spec_from_file_location("_chdb", extension, loader=loader)
    assert spec is not None  # noqa: S101 - it has a loader
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


if __name__ == "__main__":
    main()
