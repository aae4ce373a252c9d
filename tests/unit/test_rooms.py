"""The house's rules about its rooms: who may know whom, no circles, short modules, a true map."""

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

import mexc_trio

ROOT: Final = Path(mexc_trio.__file__).parent
TOOLS: Final = ROOT.parent / "tools"
MAP: Final = ROOT / "ARCHITECTURE.md"
LEAVES: Final = "the modules on top"
"""What every room may know: they know no room."""

_COMMAND: Final = {"settings", "clickhouse", "read"}
MAY_KNOW: Final[Mapping[str, set[str]]] = {
    LEAVES: set(),
    "settings": set(),
    "journal": set(),
    "exchange": {"settings"},
    "clickhouse": {"settings"},
    "read": {"settings", "clickhouse"},
    "analysis": {"clickhouse"},
    "record": {"settings", "exchange", "journal", "clickhouse"},
    # What a user does, each in a room of its own that knows none of the others.
    "query": _COMMAND,
    "export": _COMMAND,
    "backup": _COMMAND | {"journal"},
    "report": _COMMAND | {"analysis"},
    "verify": _COMMAND | {"analysis", "exchange", "journal"},
    "operate": {"settings", "clickhouse", "journal", "record"},
    "screen": {"settings", "record"},
    "metrics": {"clickhouse", "exchange", "record"},
    "cli": {
        "settings", "record", "query", "export", "backup", "report", "verify", "operate", "screen",
        "metrics",
    },
}  # fmt: skip
FRONT_DOORS: Final = {"mexc_trio", "mexc_trio.__main__"}
"""They hand on to a room, when somebody asks, and belong to none."""

LONGEST: Final = 300


@cache
def modules(root: Path = ROOT) -> Mapping[str, Path]:
    """Return all modules of a package by name."""
    found = {}
    for file in root.rglob("*.py"):
        parts = file.relative_to(root.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = file
    return found


def room(module: str) -> str:
    """Return where a module is."""
    parts = modules()[module].relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else LEAVES


@cache
def tree(file: Path) -> ast.Module:
    """Return what a file says."""
    return ast.parse(file.read_text())


def statements(body: Sequence[ast.AST]) -> Iterator[ast.AST]:
    """Yield statements and those inside them; of expressions there are ten times as many nodes."""
    for one in body:
        yield one
        for part in ("body", "orelse", "finalbody", "handlers", "cases"):
            yield from statements(getattr(one, part, ()))


def imports(module: str, root: Path = ROOT) -> Iterator[str]:
    """Yield the modules of ours that one imports, wherever in it, also to be checked only."""
    ours = modules(root)
    for node in statements(tree(ours[module]).body):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in ours)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module in ours:
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                yield name if name in ours else node.module


@cache
def arrows(root: Path = ROOT) -> frozenset[tuple[str, str]]:
    """Return who imports whom; to ask the package for its version is no import of an offer."""
    return frozenset(
        (module, other)
        for module in modules(root).keys() - FRONT_DOORS
        for other in imports(module, root)
        if other not in (module, "mexc_trio")
    )


def test_imports_point_one_way() -> None:
    """A room knows those that the table says, and its own modules."""
    found = {
        f"{module} imports {other}"
        for module, other in arrows()
        if room(other) not in {room(module), LEAVES, *MAY_KNOW[room(module)]}
    }
    assert not found
    assert MAY_KNOW.keys() == {room(module) for module in modules()}
    # The test sees imports at all, also those inside functions.
    assert ("mexc_trio.cli.files", "mexc_trio.export.export") in arrows()


def test_the_table_has_no_circle() -> None:
    """Rooms can be read one after the other, from the bottom."""
    assert list(TopologicalSorter(MAY_KNOW).static_order())


@pytest.mark.parametrize("root", [ROOT, TOOLS], ids=lambda root: root.name)
def test_no_files_import_each_other_in_a_circle(root: Path) -> None:
    """Each can be read after those that it needs."""
    graph: dict[str, set[str]] = {}
    for module, other in arrows(root):
        graph.setdefault(module, set()).add(other)
    assert list(TopologicalSorter(graph).static_order())


def test_no_module_is_too_long_to_be_read_in_one_sitting() -> None:
    """Who makes one longer cuts it by idea."""
    long = {
        str(file.relative_to(ROOT))
        for file in modules().values()
        if len(file.read_text().splitlines()) > LONGEST
    }
    assert not long


def test_one_name_is_one_class() -> None:
    """Who reads a class's name need not look from which of two modules it was imported."""
    places: dict[str, list[str]] = {}
    for module, file in modules().items():
        for node in tree(file).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                places.setdefault(node.name, []).append(module)
    assert not {name: found for name, found in places.items() if len(found) > 1}


def defined(file: Path) -> set[str]:
    """Return what a module defines: functions, classes, methods with their class, constants."""
    names = set()
    for node in tree(file).body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        if isinstance(node, ast.ClassDef):
            names |= {
                f"{node.name}.{one.name}"
                for one in node.body
                if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
            }
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            names.add(node.target.id)
    return names


def test_the_map_is_true() -> None:
    """Every file, room and function that ARCHITECTURE.md names is there."""
    text = MAP.read_text()
    hops = re.findall(r"^\| (\d+) \| `([\w/]+\.py)` \| `([\w.]+)` \|", text, re.MULTILINE)
    assert [int(number) for number, _, _ in hops] == list(range(1, len(hops) + 1))
    assert 5 <= len(hops) <= 10
    missing = {f"{file}: {name}" for _, file, name in hops if name not in defined(ROOT / file)}
    everything = set().union(*(defined(file) for file in modules().values()))
    for word in set(re.findall("`([^`\n]+)`", text)):
        if re.fullmatch(r"\w+/", word):
            missing |= {word} - {f"{one}/" for one in MAY_KNOW}
        elif "/" in word or word.endswith(".py"):
            if not any((root / word).exists() for root in (ROOT, ROOT.parent)):
                missing.add(word)
        elif re.fullmatch(r"_?[A-Z]\w*(\.\w+)?", word):
            missing |= {word} - everything
    assert not missing
    assert {f"{one}/" for one in MAY_KNOW if one != LEAVES} <= set(re.findall(r"`(\w+/)`", text))
