"""Unit tests start no process: what needs one is in `tests/process`."""

import sys
from collections.abc import Iterator

import pytest

_STARTS = frozenset({"subprocess.Popen", "os.fork", "os.forkpty", "os.posix_spawn", "os.system"})

_watched = False


def _hook(event: str, arguments: tuple[object, ...]) -> None:
    if _watched and event in _STARTS:
        raise AssertionError(f"a unit test starts a process: {arguments[:2]}")


sys.addaudithook(_hook)


@pytest.fixture(autouse=True)
def no_process() -> Iterator[None]:
    """Let a test fail that starts a process."""
    global _watched
    _watched = True
    yield
    _watched = False
