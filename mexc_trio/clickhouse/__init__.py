"""ClickHouse, embedded or a server, behind three calls."""

from mexc_trio.clickhouse.schema import Store
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget


def open_store(settings: Settings) -> Store:
    """Open the store that the settings name. A server is connected to at the first call.

    Raises:
        UsageError: the directory cannot be used.
        StoreLocked: another process has the directory.
        StoreRejected: the embedded engine is not installed.
        StoreError: the engine does not open the directory.
    """
    # Imported here because the engine takes most of a second, and a server's user has none.
    if isinstance(settings.store, EmbeddedTarget):
        from mexc_trio.clickhouse.embedded import EmbeddedStore

        return EmbeddedStore(settings.store.directory)
    from mexc_trio.clickhouse.server import ServerStore

    return ServerStore(settings.store, settings.store_connections)
