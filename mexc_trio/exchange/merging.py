"""What several connections bring, made one: what is the same for all, and what each has its own of.

Sans-I/O: times are Trio's and come from the caller.
"""

from collections import deque
from collections.abc import Hashable, Sequence
from typing import Final, TypeAlias

import attrs
import msgspec

from mexc_trio.exchange.messages import Data
from mexc_trio.rows import Row
from mexc_trio.spans import EARLIEST, LATEST

Source: TypeAlias = Hashable
"""Stands for one connection."""

LATE: Final = 3.0
"""Seconds that a leader may take to bring something as new as another line has brought."""
BUFFERED_FOR: Final = 10.0
"""Seconds for which messages of lines that do not lead are buffered."""
RENUMBERED: Final = 10.0
"""Seconds after which a leader whose messages all seem old is believed: its numbers are new."""


@attrs.define
class _Copies:
    """Equal rows, of which some may be one and the same deal."""

    ids: set[int] = attrs.field(factory=set)
    unnamed: dict[Source, int] = attrs.field(factory=dict)
    """How many without an id each source has brought."""

    @property
    def count(self) -> int:
        return max(len(self.ids), *self.unnamed.values(), 0)

    def add(self, source: Source, id_: int) -> bool:
        """Add what a source has brought; return whether it is one more than there were."""
        before = self.count
        if id_:
            self.ids.add(id_)
        else:
            self.unnamed[source] = self.unnamed.get(source, 0) + 1
        return self.count > before


@attrs.define(eq=False)
class Once:
    """Rows that are the same on every line."""

    window: float
    # Those of this window and of the one before. A row that came once is the usual case and has
    # its source and id for `_Copies`; dead letters are keyed by their text alone, since their time
    # may be that of receipt.
    _seen: dict[Row | str, tuple[Source, int] | _Copies] = attrs.field(factory=dict, init=False)
    _before: dict[Row | str, tuple[Source, int] | _Copies] = attrs.field(factory=dict, init=False)
    _until: float = attrs.field(default=0.0, init=False)

    def take(self, source: Source, message: Data, now: float) -> Sequence[Data]:
        """Return the message as far as it is new: all, a part, or nothing of it."""
        if now >= self._until:
            self._before = self._seen
            self._seen = {}
            self._until = now + self.window
        rows, ids = message.rows, message.ids
        good = len(rows) - message.dead
        new = [
            index
            for index, row in enumerate(rows)
            if self._is_new(
                row if index < good else row.m, source, ids[index] if index < len(ids) else 0
            )
        ]
        if len(new) == len(rows):
            return (message,)
        if not new:
            return ()
        dead = sum(index >= good for index in new)
        return (
            msgspec.structs.replace(
                message,
                rows=[rows[index] for index in new],
                ids=[ids[index] for index in new if index < len(ids)],
                dead=dead,
                missed=message.missed if dead else (),
            ),
        )

    def _is_new(self, key: Row | str, source: Source, id_: int) -> bool:
        known = self._seen.get(key)
        if known is None:
            known = self._before.get(key)
            if known is None:
                self._seen[key] = source, id_
                return True
        if isinstance(known, tuple):
            if id_ and known[1] == id_:
                return False
            copies = _Copies()
            copies.add(*known)
            self._seen[key] = known = copies
        return known.add(source, id_)


@attrs.define(eq=False)
class Sampled:
    """Messages of one channel that each line has its own of."""

    _newest: int = attrs.field(default=0, init=False)
    """The place in the exchange's order of the last one taken: a version, or a time."""
    _leader: Source | None = attrs.field(default=None, init=False)
    # Whether the leader has passed the last one taken: from then on its own order holds.
    _is_past: bool = attrs.field(default=False, init=False)
    # Whether a message like the last one taken is new: no line was left, and the exchange sends the
    # present book to each new connection.
    _may_repeat: bool = attrs.field(default=True, init=False)
    _heard: float = attrs.field(default=0.0, init=False)  # of the leader
    _buffered: dict[Source, deque[tuple[float, Data]]] = attrs.field(factory=dict, init=False)

    @property
    def buffers(self) -> bool:
        """Whether there are messages that may yet be stored."""
        return any(self._buffered.values())

    def take(self, source: Source, message: Data, now: float) -> Sequence[Data]:
        """Return what is to be stored now that a source has brought this."""
        before = self._take_over(source, now) if self._leader is None else ()
        if source is self._leader:
            self._heard = now
            if self._is_past:
                return [*before, *self._taken([message])]
            self._buffer(source, message, now)
            return self._pass(now)
        buffered = self._buffer(source, message, now)
        while buffered and not self._is_newer(buffered[0][1]):
            buffered.popleft()
        while buffered and buffered[0][0] < min(now - BUFFERED_FOR, self._heard):
            buffered.popleft()  # the leader lives, and its numbers are others
        if buffered and self._heard <= buffered[0][0] <= now - LATE:
            return self._take_over(source, now)
        return ()

    def lost(
        self, source: Source, left: Sequence[Source], heard: Sequence[Source]
    ) -> Sequence[Data]:
        """Take leave of a source; return what another takes over with.

        `left` are the other sources, and `heard` those that have brought something and are not
        silent.
        """
        self._buffered.pop(source, None)
        if not left:
            self._leader, self._may_repeat = None, True
        return self.silent(source, left, heard)

    def silent(
        self, source: Source, left: Sequence[Source], heard: Sequence[Source]
    ) -> Sequence[Data]:
        """Have another lead if a source that is silent does; the rest is as of `lost`."""
        if source is not self._leader:
            return ()
        # A silent one may have kept something newer.
        taken: Sequence[Data] = ()
        if left:  # who holds the newest, or else who has been there for longest
            best = max(heard or left, key=self._newest_buffered)
            taken = self._take_over(best, self._heard)
        if not heard:
            self._leader = None  # who is heard next leads at once
        return taken

    def _buffer(self, source: Source, message: Data, now: float) -> deque[tuple[float, Data]]:
        buffered = self._buffered.setdefault(source, deque())
        buffered.append((now, message))
        return buffered

    def _take_over(self, source: Source, now: float) -> Sequence[Data]:
        self._leader, self._is_past, self._heard = source, False, now
        buffered = self._buffered.get(source)
        while buffered and not self._is_newer(buffered[0][1]):
            buffered.popleft()  # the last leader brought it, too
        return self._pass(now) if buffered else ()

    def _pass(self, now: float) -> Sequence[Data]:
        """Return what the leader holds from the first that is newer than the last one taken."""
        assert self._leader is not None  # noqa: S101 - callers have seen to it
        buffered = self._buffered.get(self._leader, deque())
        newer = [message for _, message in buffered]
        while newer and not self._is_newer(newer[0]):
            del newer[0]
        if not newer and buffered and buffered[0][0] <= now - RENUMBERED:
            newer = [message for _, message in buffered]
        if not newer:
            return ()
        self._is_past = True
        del self._buffered[self._leader]
        return self._taken(newer)

    def _taken(self, messages: Sequence[Data]) -> Sequence[Data]:
        self._newest = _sequence(messages[-1]) or self._newest
        self._may_repeat = False
        return messages

    def _is_newer(self, message: Data) -> bool:
        number = _sequence(message)
        return not number or number > self._newest or (self._may_repeat and number == self._newest)

    def _newest_buffered(self, source: Source) -> int:
        buffered = self._buffered.get(source)
        return _sequence(buffered[-1][1]) if buffered else 0


def _sequence(message: Data) -> int:
    """Return a message's place in the exchange's order; 0 if it has none."""
    if message.channel == "depth":
        return message.version
    ts = message.rows[0].ts
    return ts if EARLIEST <= ts < LATEST else 0
