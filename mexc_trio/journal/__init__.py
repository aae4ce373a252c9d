"""The durable queue between the exchange and the store.

What is written when. A frame's rows are collected in memory by `Queue.append`, and `Journal.flush`
writes all that was collected in one transaction. `Journal.keep_flushing` does so at the end of each
of Trio's turns, which is before the program waits for anything; when many frames come in one turn,
`append` itself flushes every `GROUP` calls. So frames that arrive together share a transaction (at
64 frames one costs 1 microsecond a frame, alone 14), and none waits.

What survives what. A flushed row is in the kernel: killing the process loses nothing. With
`keep_syncing`, it is on the disk at most 100 ms later, too. The file stays consistent through a
power cut either way, though its end may be lost.

What is remembered. For each table `acked`, the position up to which its rows are in the store, and
`table_rows`, how many rows the table had then. An INSERT with an unknown outcome is settled by
comparing `count()` with these two. Rows stay `retention` seconds after they were written, so that a
table that lost its tail with the power can be given it again.
"""

from mexc_trio.journal.journal import Journal, open_journal
from mexc_trio.journal.queue import Entry, Queue

__all__ = ["Entry", "Journal", "Queue", "open_journal"]
