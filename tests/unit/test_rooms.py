"""What a user does is in a package of its own, which needs none of its kind."""

import ast
from pathlib import Path
from typing import Final

import mexc_trio

ROOT: Final = Path(mexc_trio.__file__).parent
ROOMS: Final = ("query", "verify", "export", "backup", "report", "screen", "metrics")


def imported(file: Path) -> set[str]:
    """Return the packages of ours that a module imports, wherever in it."""
    names = []
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            names += [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
    return {name.split(".")[1] for name in names if name.startswith("mexc_trio.")}


def test_no_room_imports_another() -> None:
    """What two of them need is below them, so that each can be read alone."""
    found = {
        f"{file.relative_to(ROOT)} imports {other}"
        for room in ROOMS
        for file in (ROOT / room).rglob("*.py")
        for other in imported(file) & set(ROOMS) - {room}
    }
    assert not found
    # The test sees imports at all, also those inside functions.
    assert "export" in imported(ROOT / "cli" / "files.py")
