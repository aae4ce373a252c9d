"""Recorder of MEXC futures market data into ClickHouse: every row once, every gap written down."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("mexc-trio")
except PackageNotFoundError:  # run from a source tree that is not installed
    __version__ = "unknown"
