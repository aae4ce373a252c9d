"""Which start of the machine this is: what was not synced before another start may be lost."""

import subprocess
import sys
from pathlib import Path


def boot_id() -> str:
    """Return what stays the same until the machine starts anew; empty where nobody knows."""
    if sys.platform == "linux":
        try:
            return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            return ""
    if sys.platform == "darwin":
        command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
        try:
            answer = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        except OSError:
            return ""
        return answer.stdout.strip()
    return ""
