"""The durable queue between the exchange and the store.

What is written when. A frame's rows are collected in memory by `Queue.append`, and `Outbox.flush`
writes all that was collected in one transaction. A session has that done at the end of each read,
before anything is waited for; when one read brings many frames, `append` itself flushes every
`outbox.GROUP` calls. So frames that arrive together share a transaction (at 64 frames one costs 1
microsecond a frame, alone 14), and none waits. What comes with no read, such as the gaps of a
symbol that ends, is flushed right afterwards by `Journal.keep_flushing`.

What survives what. A flushed row is in the kernel: killing the process loses nothing. With
`keep_syncing`, it is on the disk at most 100 ms later, too. The file stays consistent through a
power cut either way, though its end may be lost.

What is remembered. For each table `acked`, the position up to which its rows are in the store, and
`table_rows`, how many rows the table had then. An INSERT with an unknown outcome is resolved by
comparing `count()` with these two. Rows stay `retention` seconds after they were written, so that a
table that lost its tail with the power can be given it again.
"""

from mexc_trio.journal.entries import Entry, Marks, decode_marks
from mexc_trio.journal.file import fact_of
from mexc_trio.journal.journal import Journal, open_journal
from mexc_trio.journal.queue import Queue

__all__ = ["Entry", "Journal", "Marks", "Queue", "decode_marks", "fact_of", "open_journal"]
