"""A simulated MEXC futures exchange: its WebSocket protocol, its oddities, its misbehaviour.

As a program it stands in for ``wss://contract.mexc.com/edge``::

    python -m tools.exchange --port 8765
    mexc-trio BTC_USDT --url ws://127.0.0.1:8765/edge

In a test it runs in process and does what it is told at a precise moment::

    async with open_exchange() as exchange:
        ...                                       # connect a recorder to exchange.url
        await exchange.subscribed("BTC_USDT")
        await exchange.push("BTC_USDT", "deal")
        await exchange.drop()
        assert stored == exchange.rows("BTC_USDT")

With ``--rest-port`` (``rest_port``) it has the REST interface too, at ``exchange.rest.url``: the
list of contracts, which can be listed and delisted meanwhile, and deals and candles of what it has
sent.

It numbers every push frame it sends and knows the rows that a recorder must store for it, so that
what was stored can be held against what was sent. A record of a frame is made (and its line is in
the log file, handed to the operating system) before the first byte of the frame is sent. Whatever
a recorder received is therefore recorded here; the last frames of a connection that broke may be
recorded and not have arrived.
"""

from tools.exchange.core import Exchange, open_exchange
from tools.exchange.door import HOST
from tools.exchange.faults import Fault
from tools.exchange.handshakes import Handshake
from tools.exchange.listing import SYMBOL, believable
from tools.exchange.records import Record
from tools.exchange.replay import read_frames
from tools.exchange.rest import Rest, Trouble
from tools.exchange.serving import PATH

__all__ = [
    "HOST",
    "PATH",
    "SYMBOL",
    "Exchange",
    "Fault",
    "Handshake",
    "Record",
    "Rest",
    "Trouble",
    "believable",
    "open_exchange",
    "read_frames",
]
