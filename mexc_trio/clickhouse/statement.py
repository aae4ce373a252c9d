"""What a statement would do, by the engine's own parser, before it runs.

The engine in this process was made for its user's own scripts. Under `readonly = 1` it refuses to
write, to change a setting and to reach most of what lies outside; yet it still follows
INTO OUTFILE, reads any file with the function `file`, any variable of ours with `python`, and lets
KILL and SYSTEM pass. None of that is for whoever can reach a port. So each statement is parsed
first, by the engine, and what counts is its parse tree and never its text.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

import attrs

from mexc_trio.clickhouse.schema import literal
from mexc_trio.errors import StoreRejected

Ask = Callable[[str], str]
"""Runs one statement of ours and returns its answer as raw text."""

_SELECT: Final = "SelectWithUnionQuery"
_KINDS: Final = frozenset(
    {_SELECT, "ExplainQuery", "ShowTablesQuery", "ShowColumnsQuery", "ShowIndexesQuery"}
)

# Table functions that make rows out of nothing or out of our tables. All others are refused, also
# those of engines to come; names that are no table function are parameterized views.
_TABLE_FUNCTIONS: Final = frozenset(
    {
        "generaterandom",
        "generateseries",
        "generate_series",
        "merge",
        "null",
        "numbers",
        "numbers_mt",
        "primes",
        "sqlstandardvalues",
        "values",
        "view",
        "zeros",
        "zeros_mt",
    }
)

# The parser makes no tree of these, but does of a statement with the same end. As the engine
# itself writes them, so there is one spelling.
_SAME_END: Final = (
    (re.compile(r"(?:DESCRIBE|EXISTS|SHOW CREATE) (?:TABLE|VIEW) "), "SELECT * FROM "),
    (re.compile(r"(?:EXISTS|SHOW CREATE) DATABASE "), "SHOW TABLES FROM "),
    (re.compile(r"SHOW (?:ENGINES|FUNCTIONS|GRANTS|PROCESSLIST)\b"), "SHOW DATABASES"),
)

_READONLY: Final = 164
_OUTFILE: Final = 348
_DENIED: Final = 497
"""ClickHouse's own codes for what is refused here."""


def _refused(code: int, text: str) -> StoreRejected:
    error = StoreRejected(text)
    error.code = code
    return error


def _no_read() -> StoreRejected:
    return _refused(
        _READONLY,
        "only SELECT, SHOW, DESCRIBE, EXISTS and EXPLAIN can be run: reading never changes what "
        "is recorded",
    )


@attrs.frozen
class Statement:
    """A statement that may run."""

    sql: str
    format: str
    """The format that it asks for itself; empty if it leaves that open."""
    is_select: bool
    """Whether its answer can be had piece by piece."""

    def without_format(self) -> str:
        """Return the statement without its own format."""
        before, _, after = self.sql.rpartition(f" FORMAT {self.format}")
        return before + after if self.format else self.sql


@attrs.frozen
class Rules:
    """What no statement may use, of all that the engine at hand has."""

    table_functions: frozenset[str]
    functions: frozenset[str]

    @classmethod
    def of_engine(cls, ask: Ask) -> "Rules":
        """Ask an engine what it has."""
        tables = ask("SELECT name FROM system.table_functions FORMAT TSVRaw")
        functions = ask(
            "SELECT name FROM system.functions WHERE 'file' IN (name, alias_to) "
            "OR categories = 'AI' OR startsWith(name, 'AI') FORMAT TSVRaw"
        )
        return cls(
            frozenset(map(str.casefold, tables.splitlines())) - _TABLE_FUNCTIONS,
            frozenset(map(str.casefold, functions.splitlines())),
        )

    def check(self, ask: Ask, sql: str, parameters: Mapping[str, str]) -> Statement:
        """Return the statement, in the engine's own spelling, if it may run.

        Args:
            ask: asks the engine.
            sql: one statement.
            parameters: values of its {name:Type} placeholders.

        Raises:
            StoreRejected: it may not run, or is no statement.
        """
        # One statement comes out of this, whatever went in: no second one, no comments.
        try:
            spelled = ask(f"SELECT formatQuerySingleLine({literal(sql)}) FORMAT TSVRaw").strip()
        except StoreRejected as error:
            raise _refused(error.code, str(error).split(": In scope SELECT format")[0]) from error
        parsed = spelled
        for pattern, substitute in _SAME_END:
            parsed = pattern.sub(substitute, parsed, count=1) if pattern.match(parsed) else parsed
        try:
            text = ask(f"SELECT parseQueryToJSON({literal(parsed)}) FORMAT TSVRaw")
        except StoreRejected as error:
            # All that it makes no tree of, such as INSERT with data.
            raise _no_read() from error
        tree = json.loads(text)
        kinds = [tree["type"], tree.get("query", tree)["type"]]
        if not _KINDS.issuperset(kinds):
            raise _no_read()
        for node in _nodes(tree):
            self._check_node(node, parameters)
        format_ = tree.get("format_ast", {}).get("name", "")
        return Statement(spelled, format_, kinds[0] == _SELECT and parsed == spelled)

    def _check_node(self, node: Mapping[str, Any], parameters: Mapping[str, str]) -> None:
        if "out_file" in node:
            raise _refused(_OUTFILE, "INTO OUTFILE cannot be used; redirect the output instead")
        called = node.get("table_function", {}).get("name", "")
        if called.casefold() in self.table_functions:
            raise _refused(_DENIED, f"table function {called} cannot be used: it is no table")
        if node.get("type") == "TableIdentifier":
            return  # a contract may be called FILE_USDT
        names = [value for value in node.values() if isinstance(value, str)]
        if node.get("type") == "QueryParameter":
            names.append(parameters.get(node["name"], ""))
        for name in names:
            # Not only calls: APPLY and the arguments of arrayMap take a function's name, too.
            if name.casefold() in self.functions:
                raise _refused(_DENIED, f"function {name} cannot be used: it reads no table")


def _nodes(tree: Any) -> Iterator[Mapping[str, Any]]:
    """Yield the nodes of a parse tree that are no literals."""
    if isinstance(tree, list):
        for branch in tree:
            yield from _nodes(branch)
    elif isinstance(tree, dict) and tree.get("type") != "Literal":
        yield tree
        for branch in tree.values():
            yield from _nodes(branch)
