"""Recorder of MEXC futures market data into ClickHouse: every row once, every gap written down.

`open_store` reads what was recorded, in Python. Importing the package loads nothing else.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mexc_trio.query.store import RecordedStore, open_store

    __version__: str
else:

    def __getattr__(name: str) -> object:
        if name in ("open_store", "RecordedStore"):
            from mexc_trio.query import store

            return getattr(store, name)
        if name == "__version__":
            from importlib.metadata import PackageNotFoundError, version

            try:
                return version("mexc-trio")
            except PackageNotFoundError:  # run from a source tree that is not installed
                return "unknown"
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["RecordedStore", "__version__", "open_store"]
