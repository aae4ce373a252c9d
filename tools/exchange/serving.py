"""The life of one WebSocket connection, from its handshake to its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import trio
from trio_websocket import ConnectionClosed, wrap_server_stream

from tools.exchange.connection import CLOSE_SECONDS, Connection, Wire
from tools.exchange.feed import send_automatically
from tools.exchange.requests import answer, reply

if TYPE_CHECKING:
    from tools.exchange.state import State

PATH: Final = "/edge"
_HANDSHAKE_SECONDS: Final = 10


async def serve_websocket(exchange: State, number: int, wire: Wire) -> None:
    """Shake hands, then serve a connection until it ends."""
    async with trio.open_nursery() as nursery:
        websocket = None
        wire.handshake.deadline = trio.current_time() + _HANDSHAKE_SECONDS
        with wire.handshake:
            request = await wrap_server_stream(nursery, wire)
            if request.path == PATH:
                websocket = await request.accept()
            else:
                await request.reject(404)
        if websocket is None:
            nursery.cancel_scope.cancel()
            return
        patience = trio.CancelScope(deadline=trio.current_time() + exchange.ping_limit)
        delays = exchange.delays or (0.0,)
        delay = delays[number % len(delays)]
        connection = Connection(number, websocket, wire, patience, delay=delay)
        exchange.opened.append(connection)
        exchange.notify()
        try:
            nursery.start_soon(_watch_pings, exchange, connection)
            if delay:
                nursery.start_soon(connection.send_late)
            if exchange.rate:
                nursery.start_soon(send_automatically, exchange, connection)
            while True:
                await answer(exchange, connection, await websocket.get_message())
                exchange.notify()
        except ConnectionClosed:
            pass
        finally:
            exchange.opened.remove(connection)
            exchange.notify()
        if connection.closing is not None:
            # trio-websocket's reader, which lives in this nursery, awaits the client's answer.
            await connection.closing.wait()
        nursery.cancel_scope.cancel()


async def _watch_pings(exchange: State, connection: Connection) -> None:
    """Close a connection that sent no application ping for too long.

    The exchange does so after 60 to 68 seconds, although data flows.
    """
    with connection.patience:
        await trio.sleep_forever()
    text = f"more than {exchange.ping_limit:g} seconds no response, close the channel"
    with trio.move_on_after(CLOSE_SECONDS):  # a client that does not read is closed as well
        await connection.send([reply(exchange, "rs.error", text)])
    await connection.close(1000, None)
