"""ClickHouse, beside us or anywhere: tables, the client, the engine as a child process."""

from mexc_trio.clickhouse.schema import Store
from mexc_trio.errors import UsageError
from mexc_trio.settings import Settings
from mexc_trio.settings.targets import EmbeddedTarget


def open_store(settings: Settings, *, readers: bool = False) -> Store:
    """Open the store that the settings name. A server is connected to at the first call.

    With `readers` an embedded engine answers others, too, where the settings say. The caller closes
    the store. Raises UsageError for a directory that cannot be used, StoreLocked if another process
    has it, StoreRejected if the engine is not installed, StoreError if it does not open the
    directory.
    """
    if isinstance(settings.store, EmbeddedTarget):
        if settings.cluster:
            raise UsageError(f"cluster = {settings.cluster} takes a server: see --store")
        from mexc_trio.clickhouse.embedded import EmbeddedStore

        listen = settings.listen if readers else None
        if listen is not None and not listen.is_loopback and not settings.reader_password:
            raise UsageError(
                f"listen = {listen} lets other machines in: choose a password for their user, "
                f"reader, with reader_password in settings.ini or MEXC_TRIO_READER_PASSWORD"
            )
        return EmbeddedStore(settings.store.directory, listen, settings.reader_password)
    if settings.store.others or settings.cluster:
        from mexc_trio.clickhouse.replicas import ReplicatedStore

        connections, cluster = settings.store_connections, settings.cluster or ""
        return ReplicatedStore(settings.store, connections, cluster=cluster)
    from mexc_trio.clickhouse.server import ServerStore

    return ServerStore(settings.store, settings.store_connections)
