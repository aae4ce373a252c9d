"""Disks of a test's own, which may be small, full or read-only."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted(path: Path, *options: str) -> Iterator[Path]:
    """Mount something at a path; skip the test where that is not permitted."""
    path.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        ["mount", *options, str(path)], capture_output=True, text=True, check=False
    )
    if done.returncode:
        pytest.skip(f"mount: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", str(path)], check=True)


def fill(directory: Path, leave: int) -> Path:
    """Write a file that leaves so many bytes free."""
    path = directory / "ballast"
    with path.open("wb") as file:
        while (free := shutil.disk_usage(directory).free) > leave:
            try:
                file.write(bytes(min(65536, free - leave)))
                file.flush()
            except OSError:  # the recorder writes as well, and took the rest
                break
    return path
