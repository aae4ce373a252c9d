"""Several lines of one symbol made into one stream: sans-I/O, with no clock of its own.

A line is one connection after the other to the exchange; here each connection is a `LineSource`.
What they bring is merged by what it is:

- Deals and dead letters are the same on every line, so each is taken once, from whoever brings it
  first. Which deal it is say its row and the exchange's id together. Where ids are lacking, equal
  rows are counted: as many are kept as that source brought which brought most.
- Books, tickers and the like are sampled for each connection, so all of them together would only
  be a doubled rate. One source leads. The newest of the others are buffered, and when the leader is
  late or gone, another takes over with what it holds that is newer than the last one taken.

What was missed is judged in the exchange's time, because lines have delays of their own: a source
has a channel from the acknowledgement of its subscription, or from the first message after it if
that does not say when it was, until the last message of any kind and any symbol on its connection.
Time that no source has is missed (`mexc_trio.exchange.missed`), and found as soon as one of them is
known to be lost.
"""

from collections import defaultdict
from collections.abc import Sequence

import attrs

from mexc_trio.exchange.heard import Heard
from mexc_trio.exchange.merging import Once, Sampled
from mexc_trio.exchange.messages import Data
from mexc_trio.exchange.missed import Missed, Reception, Why, find_missed
from mexc_trio.rows import Cause, Channel, Row
from mexc_trio.spans import EARLIEST, LATEST


@attrs.define(eq=False)
class LineSource:
    """One connection of a line, to one symbol's channels."""

    name: str = ""
    heard: Heard = attrs.field(factory=Heard)
    """Until when its connection is heard, as far as that is known."""
    clock: int = attrs.field(default=0, init=False)
    """The exchange's time of the newest message of the symbol."""
    receives: dict[Channel, Reception] = attrs.field(factory=dict, init=False)
    """By channel that it is subscribed to."""
    awaited: bool = attrs.field(default=False, init=False)
    """Whether there is a channel of which it is not known since when it is received."""
    mute: set[Channel] = attrs.field(factory=set, init=False)
    """Channels that have gone silent: only their own next message shows that they are received."""

    @property
    def reach(self) -> int:
        """The exchange's time before which the connection brings nothing more; 0 is unknown."""
        return max(self.clock, self.heard.reach)


@attrs.define(eq=False)
class Merger:
    """One symbol's sources, merged.

    Equal deals are recognised for at least `window` seconds, and forgotten within twice that: so
    much memory is needed, some 350 bytes a deal. A line that lags behind another by more would
    bring deals twice.
    """

    window: float
    sources: list[LineSource] = attrs.field(factory=list, init=False)
    """Those that are connected."""
    missed: list[Missed] = attrs.field(factory=list, init=False)
    """What was found that no line has. To be looked at, and emptied, before what any of the calls
    returns is stored, but for `before_missed`: an open end is that message."""
    _lost: defaultdict[Channel, list[Reception]] = attrs.field(
        factory=lambda: defaultdict(list), init=False
    )
    _once: Once = attrs.field(init=False)
    # By channel, of all but deals.
    _sampled: defaultdict[Channel, Sampled] = attrs.field(
        factory=lambda: defaultdict(Sampled), init=False
    )
    # What befell the last one of those that had a channel.
    _why: dict[Channel, Why] = attrs.field(factory=dict, init=False)
    # The exchange's time until which one was silent.
    _silent_until: dict[Channel, int] = attrs.field(factory=dict, init=False)
    # What was lost, the earliest first, while it is not known since when others have the channel.
    _uncertain: dict[Channel, Reception] = attrs.field(factory=dict, init=False)

    def __attrs_post_init__(self) -> None:
        self._once = Once(self.window)

    def join(self, name: str = "", heard: Heard | None = None) -> LineSource:
        """Return a source for a connection that has just been made."""
        source = LineSource(name, heard or Heard())
        self.sources.append(source)
        return source

    def subscribed(
        self, source: LineSource, channel: Channel, since: int = 0, last: int = 0
    ) -> None:
        """Note that a source has a channel since then; 0 is the next message.

        `last` is the last row that it has brought already; 0 if it has brought none.
        """
        if channel not in source.receives and channel not in source.mute:
            known = since if EARLIEST <= since < LATEST else 0
            source.receives[channel] = Reception(known, last=last)
            source.awaited = source.awaited or not known
            self._judge(channel)

    def take(self, source: LineSource, message: Data, now: float) -> Sequence[Data]:
        """Return what is to be stored now that a source has brought this, in its order."""
        rows, channel = message.rows, message.channel
        good = len(rows) - message.dead
        if good and channel is not None:
            self._note(source, channel, rows[0].ts, rows[good - 1].ts)
            if channel != "deal":
                return self._sampled[channel].take(source, message, now)
        return self._once.take(source, message, now)

    def know(self, deals: Sequence[tuple[Row, int]], now: float) -> None:
        """Note deals that are stored already, though a source that lags may yet bring them."""
        rows, ids = [row for row, _ in deals], [id_ for _, id_ in deals]
        self._once.take("fetched", Data("", "deal", rows, ids=ids), now)

    def lost(self, source: LineSource, why: Why = (Cause.CONNECTION_LOST, "")) -> Sequence[Data]:
        """Take leave of a source; return what is to be stored because another line takes over."""
        self.sources.remove(source)
        for channel in source.mute:
            self._ends_silence(channel, source.reach)
        for channel in list(source.receives):
            self._ended(source, channel, source.reach, why)
        taken: list[Data] = []
        for channel, sampled in self._sampled.items():
            taken += sampled.lost(source, self.sources, self._heard_of(channel))
        return taken

    def _ends_silence(self, channel: Channel, at: int) -> None:
        """Note until when one was silent that is so no more."""
        if EARLIEST <= at < LATEST:
            self._silent_until[channel] = max(at, self._silent_until.get(channel, 0))

    def _heard_of(self, channel: Channel) -> list[LineSource]:
        """Return the connected sources that have brought a channel, and are not silent in it."""
        return [
            one for one in self.sources if channel in one.receives and one.receives[channel].last
        ]

    def silent(
        self, source: LineSource, channel: Channel, why: Why = (Cause.CHANNEL_SILENT, "")
    ) -> Sequence[Data]:
        """Note that a channel of a source has been silent for too long, until its next message.

        Returns what is to be stored because another line takes over.
        """
        source.mute.add(channel)
        if reception := source.receives.get(channel):
            self._ended(source, channel, reception.last, why)
        if channel not in self._sampled:
            return ()
        left = [one for one in self.sources if one is not source]
        return self._sampled[channel].silent(source, left, self._heard_of(channel))

    def keep(self, channels: Sequence[Channel]) -> None:
        """Forget all channels but these: nobody wants them any more."""
        for source in self.sources:
            source.mute.intersection_update(channels)
            for gone in source.receives.keys() - set(channels):
                del source.receives[gone]
        for known in (self._lost, self._uncertain, self._why, self._silent_until, self._sampled):
            for gone in known.keys() - set(channels):
                del known[gone]

    def covers(self, source: LineSource, other: LineSource) -> bool:
        """Whether a source has all channels of another, since before that was heard of last."""
        received = {channel: one for channel, one in other.receives.items() if one.since}
        return source.reach > 0 and all(
            channel in source.receives and 0 < source.receives[channel].since <= other.reach
            for channel in received
        )

    def deals_until(self) -> int:
        """Return the last deal before which no line can bring another; 0 if there is none.

        A line that lags has yet to bring what came before the others' subscriptions.
        """
        received = [
            (reception, max(one.reach, reception.since))
            for one in self.sources
            if (reception := one.receives.get("deal"))
        ]
        if lost := self._uncertain.get("deal"):
            received.append((lost, lost.until))
        reach = last = 0
        for reception, until in sorted(received, key=lambda one: one[0].since):
            if reach and reception.since > reach:
                break
            if reception.since:
                reach, last = max(reach, until), max(last, reception.last or reception.since)
        return last

    @property
    def passes_through(self) -> bool:
        """Whether one source is left, and all that it brings is handed on as it comes."""
        buffers = any(sampled.buffers for sampled in self._sampled.values())
        return len(self.sources) == 1 and not buffers and not self._uncertain

    def is_received(self, channel: Channel) -> bool:
        """Whether a connected source is known to receive the channel."""
        return any(
            channel in source.receives and source.receives[channel].since for source in self.sources
        )

    def before_missed(self, messages: Sequence[Data]) -> list[Data]:
        """Return those of what a call has returned that come before what is missed from now on.

        A line that is silent had kept them.
        """
        if not self.missed:
            return []
        opened = {one.channel: one.start for one in self.missed if one.end is None}
        return [one for one in messages if one.rows[0].ts <= opened.get(one.channel or "", 0)]

    def _note(self, source: LineSource, channel: Channel, first: int, last: int) -> None:
        """Note the times of a message."""
        reception = source.receives.get(channel)
        if reception is None:  # before its acknowledgement, or after a silence
            reception = source.receives[channel] = Reception()
            source.awaited = True
        if channel in source.mute:
            source.mute.discard(channel)
            self._ends_silence(channel, first)
        if not EARLIEST <= last < LATEST:
            return  # such a time says nothing
        source.clock = max(source.clock, last)
        reception.last = last
        if not reception.first:
            reception.first = first if EARLIEST <= first < LATEST else last
        if source.awaited:
            source.awaited = False
            for name, one in source.receives.items():
                one.since = one.since or last
                self._judge(name)

    def _ended(self, source: LineSource, channel: Channel, until: int, why: Why) -> None:
        """End what a source has of a channel."""
        reception = source.receives.pop(channel)
        if reception.since:
            reception.until = max(until, reception.since)
            self._why[channel] = why
            # What ended before the living were last heard of can reveal nothing any more.
            living = (one.reach for one in self.sources if channel in one.receives)
            earliest = self._uncertain.setdefault(channel, reception).until
            oldest = min((reception.until, earliest, *living))
            lost = self._lost[channel]
            self._lost[channel] = [one for one in (*lost, reception) if one.until >= oldest]
        self._judge(channel)

    def _judge(self, channel: Channel) -> None:
        """Find out what nobody has, if something was lost and it can be known by now."""
        if channel not in self._uncertain:
            return
        living = [one.receives[channel] for one in self.sources if channel in one.receives]
        others = [*self._lost[channel], *(one for one in living if one.since)]
        is_silent = any(channel in one.mute for one in self.sources)
        silent = LATEST if is_silent else self._silent_until.get(channel, 0)
        missed = find_missed(channel, self._uncertain[channel], others, silent)
        if not missed or all(one.since for one in living):
            del self._uncertain[channel]
            self.missed += [one._replace(why=self._why[channel]) for one in missed]
