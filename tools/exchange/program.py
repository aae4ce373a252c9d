"""The exchange as a program: ``python -m tools.exchange``."""

from __future__ import annotations

import contextlib
import errno
import functools
import math
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated

import cyclopts
import trio

from tools.exchange.core import Exchange, open_exchange
from tools.exchange.faults import FAULTS, Fault
from tools.exchange.listing import believable
from tools.exchange.replay import read_frames

_Share = Annotated[float, cyclopts.Parameter(validator=cyclopts.validators.Number(gte=0, lte=1))]
_POSITIVE = cyclopts.validators.Number(gte=0)
_Positive = Annotated[float, cyclopts.Parameter(validator=_POSITIVE)]
_Names = Annotated[list[str] | None, cyclopts.Parameter(negative="")]
_Flag = Annotated[bool, cyclopts.Parameter(negative="")]

app = cyclopts.App(
    name="python -m tools.exchange",
    help="A simulated MEXC futures exchange on ws://127.0.0.1:PORT/edge. Ctrl-C stops it.\n\n"
    "Faults for --fault:\n\n"
    + "\n".join(f"- {kind}: {meaning}" for kind, meaning in FAULTS.items()),
    version_flags=[],
)


@app.default
def main(
    *,
    port: int = 8765,
    rest_port: int | None = None,
    rate: _Positive = 12.7,
    seed: int = 1,
    oddities: _Share = 0.02,
    contract: _Names = None,
    contracts: Annotated[int, cyclopts.Parameter(validator=_POSITIVE)] = 0,
    unknown: _Names = None,
    ping_limit: _Positive = 60.0,
    split_bytes: _Flag = False,
    shared: _Flag = False,
    loss: _Share = 0.0,
    delay: Annotated[list[float] | None, cyclopts.Parameter(negative="")] = None,
    log: Path | None = None,
    replay: Path | None = None,
    replay_loop: _Flag = False,
    fault: _Names = None,
    duration: _Positive | None = None,
) -> int:
    """Parse the command line and run.

    Parameters
    ----------
    port
        TCP port on 127.0.0.1; 0 takes a free one.
    rest_port
        TCP port of the REST interface, 0 for a free one; without it there is none.
    rate
        Frames a second for each subscribed symbol; 0 sends none (or, with --replay, sends as
        fast as they are taken).
    seed
        Makes prices, mix and oddities repeatable.
    oddities
        Share of frames, 0 to 1, with one of the exchange's oddities.
    contract
        A symbol that exists; repeat for more. Every well-formed one exists without, and the REST
        interface lists a few.
    contracts
        How many believable contracts to list; no others exist but those of --contract.
    unknown
        A pattern of symbols that do not exist, NOPE* without; repeat for more.
    ping_limit
        Seconds without an application ping after which a connection is closed.
    split_bytes
        Send everything in TCP segments of one byte.
    shared
        Send the same deals to all connections of a symbol; books are sampled for each.
    loss
        Share of the shared deals' frames, 0 to 1, that do not reach one of several connections.
    delay
        Seconds by which frames are late; of several, each connection has the next.
    log
        File that gets one line of JSON for each frame, before the frame is sent: n, connection,
        symbol, channel, frame, rows. A line that is there when the recorder was cut off need not
        have arrived; what arrived has a line.
    replay
        Send the frames of this file (one a line) in place of generated ones. Their rows are
        unknown (null in the log).
    replay_loop
        Begin the replay again after its end.
    fault
        KIND[/WHAT]@SECONDS[:DURATION], such as drop@5 or silent/deal@5:20; repeat for more.
        Without a duration it lasts. silent and noack take a channel, list and delist a symbol.
    duration
        Seconds after which it stops by itself.

    """
    try:
        faults = [Fault.parse(text) for text in fault or []]
        if rest_port is None and any(one.needs_rest for one in faults):
            raise ValueError("faults of the REST interface need --rest-port")
        listed = list(dict.fromkeys([*(contract or []), *believable(contracts)])) or None
        frames = read_frames(replay) if replay else []
        # Not "w": a second exchange that finds the port taken must leave the first one's log alone.
        with log.open("a", encoding="utf-8") if log else contextlib.nullcontext() as file:
            opened = open_exchange(
                port=port,
                rate=0.0 if replay else rate,
                seed=seed,
                oddities=oddities,
                ping_limit=ping_limit,
                contracts=listed,
                unknown=unknown if unknown is not None else ("NOPE*",),
                split_bytes=split_bytes,
                shared=shared,
                loss=loss,
                delays=delay or (),
                log=file,
                keep=False,
                rest_port=rest_port,
            )
            player = functools.partial(Exchange.replay, frames=frames, rate=rate, loop=replay_loop)
            trio.run(_serve, opened, player, faults, duration)
    except (OSError, ValueError) as error:
        taken = isinstance(error, OSError) and error.errno == errno.EADDRINUSE
        reason = f"{_ports(port, rest_port)} taken; choose another" if taken else error
        print(f"Simulated exchange: {reason}", file=sys.stderr)
        return 2
    return 0


def _ports(port: int, rest_port: int | None) -> str:
    return f"port {port} is" if rest_port is None else f"port {port} or {rest_port} is"


async def _serve(
    opened: contextlib.AbstractAsyncContextManager[Exchange],
    player: Callable[[Exchange], Awaitable[None]],
    faults: list[Fault],
    duration: float | None,
) -> None:
    started = trio.current_time()
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with opened as exchange, trio.open_nursery() as nursery:
            log = exchange.records.log
            if log is not None and log.seekable():
                log.truncate(0)
            print(f"Simulated exchange on {exchange.url}", flush=True)
            if exchange.rest is not None:
                print(f"Simulated REST on {exchange.rest.url}", flush=True)
            nursery.start_soon(player, exchange)
            for fault in faults:
                nursery.start_soon(fault.strike, exchange)
            with trio.move_on_after(math.inf if duration is None else duration):
                await anext(signals)
            nursery.cancel_scope.cancel()
    seconds = trio.current_time() - started
    print(
        f"Sent {exchange.frames:,} frames over {exchange.accepted} connections in {seconds:.1f} s"
    )
