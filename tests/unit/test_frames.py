"""Whatever a server sends, however it arrives: the library alone would have heard the same."""

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from wsproto.connection import Connection, ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Event, Ping, Pong, TextMessage

from mexc_trio.exchange import frames
from mexc_trio.exchange.frames import FramePeeler
from tests.support.peers import frame

Heard = list[tuple[str, str | bytes | int]]
"""Messages and what else came, each with its kind."""


class Ear:
    """The library, and what it says."""

    def __init__(self) -> None:
        self.heard: Heard = []
        self._connection = Connection(ConnectionType.CLIENT)
        self._parts: list[str | bytes] = []

    def take(self, data: bytes) -> None:
        """Hear what that means."""
        if self.is_closed:
            return
        self._connection.receive_data(data)
        for event in self._connection.events():
            self._note(event)

    @property
    def is_closed(self) -> bool:
        """Whether it will hear no more."""
        return bool(self.heard) and self.heard[-1][0] == "close"

    def _note(self, event: Event) -> None:
        match event:
            case TextMessage() | BytesMessage():
                self._parts.append(event.data if isinstance(event.data, str) else bytes(event.data))
                if event.message_finished:
                    empty = b"" if isinstance(event, BytesMessage) else ""
                    self.heard.append(("message", empty.join(self._parts)))  # type: ignore[arg-type]
                    self._parts.clear()
            case Ping() | Pong():
                self.heard.append((type(event).__name__, bytes(event.payload)))
            case CloseConnection():
                self.heard.append(("close", int(event.code)))
            case _:
                raise AssertionError(event)


def alone(pieces: Iterable[bytes]) -> Heard:
    """Return what the library hears without us."""
    ear = Ear()
    for piece in pieces:
        ear.take(piece)
    return ear.heard


def peeled(pieces: Iterable[bytes]) -> Heard:
    """Return what is heard when the plain frames are peeled off."""
    peeler, ear = FramePeeler(), Ear()
    for piece in pieces:
        payloads, rest = peeler.peel(piece)
        ear.heard += [("message", payload.decode()) for payload in payloads]
        if rest:
            ear.take(rest)
    return ear.heard


def messages(heard: Heard) -> Heard:
    """Return those that carry data, and the end."""
    return [one for one in heard if one[0] not in ("Ping", "Pong")]


def controls(heard: Heard) -> Heard:
    """Return the others, and the end."""
    return [one for one in heard if one[0] != "message"]


payloads = st.one_of(
    st.text(max_size=40).map(str.encode),
    st.binary(max_size=40),
    st.sampled_from([0, 125, 126, 127, 65535, 65536]).map(lambda size: b"x" * size),
)
texts = st.text(max_size=40).map(str.encode).map(frame)
pings = st.builds(frame, st.binary(max_size=125), opcode=st.sampled_from([9, 10]))
fragments = st.lists(st.text(max_size=9).map(str.encode), min_size=2, max_size=4).map(
    lambda parts: b"".join(
        frame(part, opcode=0 if n else 1, final=n == len(parts) - 1) for n, part in enumerate(parts)
    )
)
closes = st.builds(
    frame, st.sampled_from([b"", b"\x03\xe8", b"\x03\xf4back soon"]), opcode=st.just(8)
)
odd = st.builds(
    frame,
    payloads,
    opcode=st.integers(0, 15),
    final=st.booleans(),
    reserved=st.sampled_from([0, 0, 0, 1, 2, 4, 7]),
    masked=st.sampled_from([False, False, True]),
    length=st.sampled_from(["shortest", "shortest", "two", "eight"]),
)
mixtures = st.lists(
    st.one_of(
        texts,
        texts,
        texts,
        pings,
        payloads.map(frame),
        fragments,
        odd,
        closes,
        st.binary(max_size=6),
    ),
    max_size=12,
)


@st.composite
def split(draw: st.DrawFn) -> tuple[list[bytes], bytes]:
    """Draw a mixture, cut anywhere into pieces."""
    whole = b"".join(draw(mixtures))
    cuts = sorted(draw(st.sets(st.integers(0, len(whole)), max_size=12)))
    edges = [0, *cuts, len(whole)]
    return [whole[a:b] for a, b in itertools.pairwise(edges)], whole


@settings(max_examples=500, deadline=None)
@given(split())
def test_the_library_alone_would_have_heard_the_same(drawn: tuple[list[bytes], bytes]) -> None:
    """The same messages in the same order, the same control frames in theirs, the same end.

    One thing comes later: of a plain frame that turns out not to be UTF-8 the library says so at
    the first bad byte, and here the whole frame is waited for.
    """
    pieces, _ = drawn
    ours, theirs = peeled(pieces), alone(pieces)
    # Whether the library has said that text is not UTF-8 before the frame was complete.
    no_text = [("close", 1007)]
    if theirs[-1:] != no_text or ours[-1:] == no_text:
        assert messages(ours) == messages(theirs)
        assert controls(ours) == controls(theirs)
    else:
        assert messages(ours) == messages(theirs)[:-1]
        assert controls(ours) == controls(theirs)[:-1]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.one_of(texts, pings, fragments, odd), min_size=1, max_size=4).map(b"".join))
def test_split_at_every_byte(whole: bytes) -> None:
    """It makes no difference where the network cuts."""
    whole = whole[:300]
    splits = [[whole[:at], whole[at:]] for at in range(len(whole))]
    at_once = peeled([whole])
    for pieces in [*splits, [whole[n : n + 1] for n in range(len(whole))]]:
        heard = peeled(pieces)
        assert messages(heard) == messages(at_once)
        assert controls(heard) == controls(at_once)


def test_plain_frames_never_reach_the_library() -> None:
    """Nor do they wait for anything: each is out with its last byte."""
    peeler = FramePeeler()
    whole = frame(b"one") + frame(b"two" * 50) + frame(b"three" * 20_000)
    assert peeler.peel(whole) == ([b"one", b"two" * 50, b"three" * 20_000], b"")
    assert peeler.peel(frame(b"four")[:-1]) == ([], b"")
    assert peeler.peel(frame(b"four")[-1:] + frame()) == ([b"four", b""], b"")
    assert not peeler.is_over


@pytest.mark.parametrize(
    "unusual",
    [
        frame(b"a", final=False),
        frame(b"a", opcode=0),
        frame(b"\x1f\x8b", opcode=2),
        frame(opcode=8),
        frame(b"a", opcode=3),
        frame(b"a", reserved=4),
        frame(b"a", masked=True),
        frame(b"\xff"),
        frame(b"a", length="two"),
        frame(b"a", length="eight"),
        frame(b"a" * 126, opcode=9),
        frame(b"a", opcode=9, final=False),
    ],
)
def test_what_says_something_of_the_next_frames_ends_it(unusual: bytes) -> None:
    """From there on the library gets every byte; before that it had the pings alone."""
    peeler = FramePeeler()
    ping = frame(b"?", opcode=9)
    payloads, rest = peeler.peel(frame(b"before") + ping + unusual + frame(b"after"))
    assert (payloads, rest) == ([b"before"], ping + unusual + frame(b"after"))
    assert peeler.is_over
    assert peeler.peel(frame(b"later")) == ([], frame(b"later"))


def test_a_frame_longer_than_any_is_the_library_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows its bound from the header, and collects nothing of it."""
    monkeypatch.setattr(frames, "LONGEST", 1000)
    peeler = FramePeeler()
    head = frame(b"a" * 1001)[:4]
    assert peeler.peel(head) == ([], head)
    assert peeler.is_over
