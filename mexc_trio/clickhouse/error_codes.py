"""What ClickHouse's error codes mean for a recorder: one of our own errors for each."""

import re
from typing import Final

from mexc_trio.errors import StoreError, StoreRejected, StoreUnavailable, TableDamaged, TableMissing


def error_of(code: int, text: str, store: str, user: str = "") -> StoreError:
    """Return an error of ClickHouse, by its code and text, as one of ours that names the store."""
    message = f"{store}: {_first_line(text)} (ClickHouse error {code})"
    error: StoreError = StoreRejected(message)
    if code in _NOT_LET_IN:
        error = StoreUnavailable(
            f"{store} does not let user {user!r} in: wrong user or password; see --store and "
            f"MEXC_TRIO_PASSWORD"
        )
    elif code in _PASSING or code >= _FIRST_OF_LIBRARIES:
        error = StoreUnavailable(message)
    elif code in _MISSING:
        error = TableMissing(message)
    elif code in _DAMAGED:
        error = TableDamaged(message)
    error.code = code
    return error


def _first_line(text: str) -> str:
    line = text.strip().split("\n", 1)[0]
    # Over the native protocol the stack trace stands behind it.
    line = re.sub(r"^(Code: \d+\.\s*|DB::Exception: )+", "", line)
    line = line.split(" Stack trace:")[0].strip()
    return line if len(line) <= 300 else line[:297] + "..."


def _codes(names: str) -> frozenset[int]:
    return frozenset(map(int, re.findall(r"\d+", names)))


# Errors that go away without anybody changing a schema: timeouts, memory, load, quotas, a full or
# read-only disk, a replica or a shard without its fellows, a server that starts or stops. READONLY
# is a user profile in read-only mode, which at the first start is told at once; with
# ALL_CONNECTION_TRIES_FAILED a shard is down.
_PASSING: Final = _codes("""
    3 UNEXPECTED_END_OF_FILE  74 CANNOT_READ_FROM_FILE_DESCRIPTOR
    75 CANNOT_WRITE_TO_FILE_DESCRIPTOR  76 CANNOT_OPEN_FILE  159 TIMEOUT_EXCEEDED  160 TOO_SLOW
    164 READONLY  173 CANNOT_ALLOCATE_MEMORY  198 DNS_ERROR  201 QUOTA_EXCEEDED
    202 TOO_MANY_SIMULTANEOUS_QUERIES  203 NO_FREE_CONNECTION  209 SOCKET_TIMEOUT
    210 NETWORK_ERROR  225 NO_ZOOKEEPER  236 ABORTED  241 MEMORY_LIMIT_EXCEEDED
    242 TABLE_IS_READ_ONLY  243 NOT_ENOUGH_SPACE  252 TOO_MANY_PARTS  254 NO_ACTIVE_REPLICAS
    279 ALL_CONNECTION_TRIES_FAILED  285 TOO_FEW_LIVE_REPLICAS
    286 UNSATISFIED_QUORUM_FOR_PREVIOUS_WRITE  289 REPLICA_IS_NOT_IN_QUORUM  290 LIMIT_EXCEEDED
    319 UNKNOWN_STATUS_OF_INSERT  369 ALL_REPLICAS_ARE_STALE  394 QUERY_WAS_CANCELLED
    415 ALL_REPLICAS_LOST  416 REPLICA_STATUS_CHANGED  425 SYSTEM_ERROR  439 CANNOT_SCHEDULE_TASK
    473 DEADLOCK_AVOIDED  571 DATABASE_REPLICATION_FAILED
    574 DISTRIBUTED_TOO_MANY_PENDING_BYTES  659 UNKNOWN_STATUS_OF_TRANSACTION
    667 NOT_INITIALIZED  700 USER_SESSION_LIMIT_EXCEEDED  733 TABLE_IS_BEING_RESTARTED
    745 SERVER_OVERLOADED  999 KEEPER_EXCEPTION
""")
# They pass, too, when an administrator has changed what is wrong. Newer servers say the last one.
_NOT_LET_IN: Final = _codes("""
    192 UNKNOWN_USER  193 WRONG_PASSWORD  194 REQUIRED_PASSWORD  195 IP_ADDRESS_NOT_ALLOWED
    516 AUTHENTICATION_FAILED
""")
_FIRST_OF_LIBRARIES: Final = 1000
"""From here on what a library of the server's threw: nothing that a statement is to blame for."""
_MISSING: Final = _codes("60 UNKNOWN_TABLE  81 UNKNOWN_DATABASE  218 TABLE_IS_DROPPED")
# What reading a table says whose files were cut short, zeroed or removed (tried).
_DAMAGED: Final = _codes("""
    32 ATTEMPT_TO_READ_AFTER_EOF  33 CANNOT_READ_ALL_DATA  40 CHECKSUM_DOESNT_MATCH
    89 UNKNOWN_COMPRESSION_METHOD  107 FILE_DOESNT_EXIST  117 INCORRECT_DATA
    128 TOO_LARGE_ARRAY_SIZE  131 TOO_LARGE_STRING_SIZE  246 CORRUPTED_DATA
    271 CANNOT_DECOMPRESS  432 UNKNOWN_CODEC
""")
