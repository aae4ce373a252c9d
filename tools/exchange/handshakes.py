"""What a new connection meets in place of a working exchange."""

from __future__ import annotations

import http
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tools.exchange.connection import Wire

Handshake = Literal["accept", "close", "stall", "garbage", "403", "503"]
"""What a new connection meets: a working exchange, or one of its failures.

``close`` accepts TCP and closes at once, ``stall`` never answers, ``garbage`` answers with bytes
that are no HTTP, ``403`` and ``503`` answer with that HTTP status and a page of HTML, as the
exchange's firewall does.
"""


async def fail_handshake(wire: Wire, failure: Handshake) -> None:
    """Misbehave as one of the failures says."""
    if failure == "close":
        return
    received = await wire.receive_some()  # the request
    if failure == "stall":
        while received:  # until the client gives up
            received = await wire.receive_some()
    elif failure == "garbage":
        await wire.send_all(b"\x15\x03\x01 this is no HTTP\r\n\r\n")
    else:
        status = http.HTTPStatus(int(failure))
        page = html_page(status)
        answer = (
            f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: text/html\r\n"
            f"Content-Length: {len(page)}\r\nConnection: close\r\n\r\n{page}"
        )
        await wire.send_all(answer.encode())


def html_page(status: http.HTTPStatus) -> str:
    """Return a page as firewalls and broken gateways send it."""
    return f"<html><body><h1>{status.phrase}</h1></body></html>"
