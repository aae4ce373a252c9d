"""A recorder that runs is asked to rewrite tables: it alone knows whether rows are on their way."""

import logging
import secrets
import time
from collections.abc import Sequence
from contextlib import closing

from mexc_trio.clickhouse import open_store
from mexc_trio.clickhouse.tables import TableEngine
from mexc_trio.errors import MexcTrioError
from mexc_trio.journal import fact_of
from mexc_trio.locks import holder
from mexc_trio.operate.holding import journal_of
from mexc_trio.output import say
from mexc_trio.record.requests import ANSWER, RewritingProgress, RewritingRequest
from mexc_trio.settings import Settings

log = logging.getLogger(__name__)


def ask_recorder(
    settings: Settings, symbols: Sequence[str], engine: TableEngine | None = None
) -> int | None:
    """Have the recorder of a store rewrite tables, and tell what it does; return the exit code.

    None if no recorder runs. For `engine` see `RewritingRequest`. Raises StoreError if the store
    does not answer, MexcTrioError if the recorder that was asked has ended.
    """
    with closing(open_store(settings)) as store:
        journal = journal_of(settings, store)
    pid = holder(journal.with_suffix(".lock"))
    if pid is None:
        return None
    request = RewritingRequest(secrets.token_hex(8), tuple(symbols), engine)
    request.leave(journal)
    say(f"asking process {pid}, which records")
    said = 0
    try:
        while True:
            answer = RewritingProgress.read(fact_of(journal, ANSWER))
            if answer.id == request.id:
                for line in answer.done[said:]:
                    say(line)
                said = len(answer.done)
                if answer.ended:
                    break
            if holder(journal.with_suffix(".lock")) != pid:
                raise MexcTrioError(
                    f"process {pid} has ended; each table is whole, the old one or the new. Give "
                    f"the command again"
                )
            time.sleep(0.1)
    finally:
        request.take_back(journal)
    for line in answer.failed:
        log.error("%s", line)
    return 1 if answer.failed else 0
