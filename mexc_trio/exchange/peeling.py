"""The stream between the network and trio-websocket, at whose side the plain frames come out.

The library takes any stream that behaves like one of Trio's. It shakes hands, answers pings, puts
fragments together and judges whatever is odd; see `FramePeeler` for what never gets that far.
"""

import re
import ssl
from collections.abc import Callable, Sequence
from typing import Final

import attrs
import trio
from trio_util import AsyncBool

from mexc_trio.errors import ExchangeError, Loss
from mexc_trio.exchange.frames import FramePeeler
from mexc_trio.texts import one_line

Take = Callable[[Sequence[bytes]], None]
"""Takes the messages of one read, at least one, in order. It never waits."""

LONGEST_HOLD: Final = 8.0
"""Seconds for which nothing is read while it could not be kept; less than a pong may take."""

AT_ONCE: Final = 500
"""Messages that are taken before other tasks run: one read may bring 30,000 empty ones, for which
all other connections would wait for seconds."""
LONGEST_ANSWER: Final = 1 << 16
"""Bytes of an answer to the handshake, body included: of more the end is not waited for."""

# The end of an answer's head, as h11 finds it, so that the library finds the same one.
_BLANK_LINE: Final = re.compile(rb"\n\r?\n")
_SWITCHING: Final = b"HTTP/1.1 101 "
_CLOSE: Final = 0x88  # the first byte of a frame


@attrs.define(eq=False)
class PeelingStream(trio.abc.Stream):
    """Gives messages to whoever listens, and all else to the library, whose task it is to read.

    After the handshake nothing is read before somebody listens.
    """

    _stream: trio.abc.Stream
    _url: str
    _paused: AsyncBool = attrs.field(factory=AsyncBool)
    """While true, nothing more is read: it waits in the kernel, and then at the exchange."""
    said_goodbye: bool = attrs.field(default=False, init=False)
    """Whether the library has sent a close frame, be it the first one or the answer to one."""
    # The answer to the handshake until its head is complete; None when frames have begun.
    _answer: bytearray | None = attrs.field(factory=bytearray, init=False)
    # Frames that came together with it.
    _ahead: bytes = attrs.field(default=b"", init=False)
    _peeler: FramePeeler = attrs.field(factory=FramePeeler, init=False)
    _take: Take = attrs.field(default=lambda messages: None, init=False)
    _listening: trio.Event = attrs.field(factory=trio.Event, init=False)

    def listen(self, take: Take) -> None:
        """Give the messages to `take` from now on."""
        self._take = take
        self._listening.set()

    async def receive_some(self, max_bytes: int | None = None) -> bytes:
        """Read until there is something for the library, or the end.

        Raises BrokenResourceError for a connection that breaks, ExchangeError for one that ends
        before the handshake is answered or whose TLS breaks, and whatever the listener raises.
        """
        if self._answer is not None:
            return await self._read_answer(self._answer, max_bytes)
        await self._listening.wait()
        while True:
            data, self._ahead = self._ahead or await self._read(max_bytes), b""
            if not data:
                return b""
            payloads, rest = self._peeler.peel(data)
            for first in range(0, len(payloads), AT_ONCE):
                if first:
                    await trio.lowlevel.cancel_shielded_checkpoint()
                self._take(payloads[first : first + AT_ONCE])
            if rest:
                return rest

    async def _read_answer(self, answer: bytearray, max_bytes: int | None) -> bytes:
        """Read, for the library alone, but no further than to the end of the answer's head.

        If it says no, the library wants to read its body, too.
        """
        try:
            data = await self._read(max_bytes)
        except trio.BrokenResourceError:
            data = b""
        if not data:
            raise self._no_answer()
        answer += data
        head = _BLANK_LINE.search(answer)
        if head is None or not answer.startswith(_SWITCHING):
            if len(answer) > LONGEST_ANSWER:
                line = one_line(answer.split(b"\n", 1)[0][:100].decode("latin-1"))
                raise ExchangeError(f"{self._url} answers {line!r} and does not come to an end")
            return data
        self._answer, self._ahead = None, bytes(answer[head.end() :])
        return data[: len(data) - len(self._ahead)]

    async def _read(self, max_bytes: int | None) -> bytes:
        if self._paused.value:
            await self._released()
        try:
            return bytes(await self._stream.receive_some(max_bytes))
        except trio.BrokenResourceError as error:
            if isinstance(error.__cause__, ssl.SSLError):
                # The library would take it for a connection that was cut.
                reason = f"the connection's TLS broke: {error.__cause__.reason}"
                raise ExchangeError(reason, Loss.CLOSED) from error
            raise

    async def _released(self) -> None:
        with trio.move_on_after(LONGEST_HOLD):
            await self._paused.wait_value(False)
            return
        raise ExchangeError(
            f"nothing that comes could be kept for {LONGEST_HOLD:g} s", Loss.NO_RESOURCES
        )

    async def send_all(self, data: bytes | bytearray | memoryview) -> None:
        """Send, if that is possible; where it is not, reading comes to the end soon.

        The library would stop at once if it failed, and forget messages that it has received.
        """
        self.said_goodbye = self.said_goodbye or data[:1] == bytes([_CLOSE])
        try:
            await self._stream.send_all(data)
        except trio.BrokenResourceError:
            if self._answer is not None:
                raise self._no_answer() from None

    async def wait_send_all_might_not_block(self) -> None:
        """Wait until sending is possible."""
        await self._stream.wait_send_all_might_not_block()

    async def aclose(self) -> None:
        """Close; ExchangeError if the handshake was not answered.

        The library is silent about that, and whoever waits for the handshake would wait for ever.
        """
        await self._stream.aclose()
        if self._answer is not None:
            raise self._no_answer()

    def _no_answer(self) -> ExchangeError:
        return ExchangeError(f"{self._url} hung up instead of answering the handshake")
