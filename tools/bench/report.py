"""What a benchmark found: its figures, their ratios and goals, for people and for programs."""

import datetime as dt
import os
import platform
import statistics
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import Any, Final

import attrs

_PACKAGES: Final = ("trio", "trio-websocket", "msgspec", "clickhouse-driver", "chdb-core")


class BenchError(Exception):
    """A benchmark that measured nothing worth reporting; the message says why."""


def say(text: str) -> None:
    """Show progress; it goes to standard error and leaves standard output to the report."""
    print(text, file=sys.stderr, flush=True)


@attrs.frozen
class Goal:
    """A bound that a figure's median is to keep."""

    bound: float
    at_least: bool

    def met_by(self, value: float) -> bool:
        """Whether a value keeps the bound."""
        return value >= self.bound if self.at_least else value <= self.bound

    def __str__(self) -> str:
        return f"{'>=' if self.at_least else '<='} {_number(self.bound)}"


@attrs.define
class Figure:
    """One thing that was measured, a value for each repetition."""

    name: str
    unit: str
    goal: Goal | None = None
    values: list[float] = attrs.field(factory=list)

    @property
    def median(self) -> float:
        """The middle value."""
        return statistics.median(self.values)


@attrs.define
class Report:
    """The figures of one benchmark, in the order in which they were first noted."""

    benchmark: str
    parameters: dict[str, Any]
    figures: dict[str, Figure] = attrs.field(factory=dict)
    notes: list[str] = attrs.field(factory=list)
    machine: dict[str, str] = attrs.field(factory=lambda: machine())

    def note(self, name: str, value: float, unit: str, goal: Goal | None = None) -> None:
        """Add the value of one repetition."""
        self.figures.setdefault(name, Figure(name, unit, goal)).values.append(value)

    def ratio(self, name: str, other: str, goal: Goal | None = None) -> None:
        """Add the ratio of two figures, repetition by repetition."""
        pairs = zip(self.figures[name].values, self.figures[other].values, strict=True)
        for value, reference in pairs:
            self.note(f"{name} / {other}", value / reference, "ratio", goal)

    def remark(self, text: str) -> None:
        """Add a sentence that the reader of the figures needs, once."""
        if text not in self.notes:
            self.notes.append(text)

    def table(self) -> str:
        """Return the report for people."""
        width = max(len(name) for name in self.figures)
        lines = [
            f"{self.benchmark}: {', '.join(f'{k}={v}' for k, v in self.parameters.items())}",
            ", ".join(f"{key} {value}" for key, value in self.machine.items()),
            "",
            f"{'':<{width}}  {'median':>9}  {'lowest':>9}  {'highest':>9}  {'n':>2}  unit",
        ]
        for figure in self.figures.values():
            spread = (figure.median, min(figure.values), max(figure.values))
            numbers = "  ".join(f"{_number(value):>9}" for value in spread)
            line = f"{figure.name:<{width}}  {numbers}  {len(figure.values):>2}  {figure.unit}"
            if figure.goal:
                verdict = "met" if figure.goal.met_by(figure.median) else "MISSED"
                line += f"  (goal {figure.goal}: {verdict})"
            lines.append(line)
        return "\n".join([*lines, "", *(f"- {note}" for note in self.notes)])

    def as_json(self) -> dict[str, Any]:
        """Return the report for programs."""
        return {
            "benchmark": self.benchmark,
            "parameters": self.parameters,
            "machine": self.machine,
            "figures": [
                {
                    "name": figure.name,
                    "unit": figure.unit,
                    "median": figure.median,
                    "lowest": min(figure.values),
                    "highest": max(figure.values),
                    "values": figure.values,
                    "goal": str(figure.goal) if figure.goal else None,
                    "met": figure.goal.met_by(figure.median) if figure.goal else None,
                }
                for figure in self.figures.values()
            ],
            "notes": self.notes,
        }


def machine() -> dict[str, str]:
    """Return what the figures depend on: the machine, its load, the versions."""
    found = {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "system": f"{platform.system()} {platform.machine()}",
        "cores": str(os.cpu_count()),
        "load before": f"{os.getloadavg()[0]:.2f}",
        "python": platform.python_version(),
    }
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "none"
    return found


def percentile(values: list[float], percent: float) -> float:
    """Return the value below which `percent` of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _number(value: float) -> str:
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
