"""What a store is, however it is spelt: by a host's name or address, by a link, after a move.

A store is a database, and an engine gives each database a UUID of its own, which stays for as long
as the database does. Databases of the old kind, Ordinary, have none: those are known by their host
and directory.
"""

import attrs

from mexc_trio.clickhouse.schema import Readable, literal
from mexc_trio.clickhouse.tables import GAPS
from mexc_trio.errors import StoreError

_NO_UUID = "00000000-0000-0000-0000-000000000000"


@attrs.frozen
class Identity:
    """What a store is."""

    lasting: str
    """The same for as long as the database is there; empty if it is not there (yet)."""
    here: str
    """The same on one machine only, which tells a database from a copy of it elsewhere."""


NOBODY = Identity("", "")
"""Of a store of which that is not known."""


def identity_of(store: Readable) -> Identity:
    """Ask a store what it is."""
    if in_keeper := _in_keeper(store):
        return Identity(in_keeper, in_keeper)
    found = store.query(
        f"SELECT hostName(), data_path, toString(uuid) FROM system.databases "
        f"WHERE name = {literal(store.database)}"
    )
    if not found:
        return NOBODY
    host, path, uuid = map(str, found[0])
    lasting = uuid if uuid != _NO_UUID else f"{host}:{path}"
    return Identity(lasting, f"{host}:{lasting}")


def _in_keeper(store: Readable) -> str:
    """Return what is the same on all hosts that have replicas of the ledger, and nowhere else."""
    try:
        found = store.query(
            f"SELECT zookeeper_path FROM system.replicas "
            f"WHERE database = {literal(store.database)} AND table = {literal(GAPS.name)}"
        )
        if not found:
            return ""
        path = str(found[0][0])
        made = store.query(
            f"SELECT czxid, toUnixTimestamp(ctime) FROM system.zookeeper "
            f"WHERE path = {literal(path)} AND name = 'log'"
        )
    except StoreError:  # Keeper is away, or is not for this user to read
        return ""
    return " ".join(map(str, (path, *made[0]))) if made else ""
