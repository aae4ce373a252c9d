"""Where a recorder says how it does: /metrics, /live and /ready, and the file that says where.

Nothing that happens here reaches the recorder: a port that is taken is a warning, and it is tried
again now and then.
"""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Final

import attrs
import trio

from mexc_trio.files import write_own
from mexc_trio.metrics import page
from mexc_trio.metrics.server import Response, serve
from mexc_trio.metrics.snapshot import Snapshot, take_snapshot
from mexc_trio.record.recording import Recording

log = logging.getLogger(__name__)

FILE: Final = "metrics.url"
"""The file in the state directory that holds the address of the metrics."""
FRESH: Final = 1.0
"""Seconds for which a page is good. A thousand scrapes at once cost what one costs."""
TRY_AGAIN: Final = 30.0
"""Seconds until a port that was taken is tried again."""
NAMED: Final = 100
"""Symbols that are not ready and are named; the rest are counted."""


async def serve_endpoints(recording: Recording) -> None:
    """Answer over HTTP until cancelled, where that is wanted."""
    address = recording.settings.metrics
    if address is None:
        return
    said = ""
    while True:
        try:
            listeners = await trio.open_tcp_listeners(address.port, host=address.host)
            break
        except OSError as error:
            reason = str(error.strerror or error)
            if reason != said:
                log.warning(
                    "no metrics at %s: %s; recording goes on (see --metrics)", address, reason
                )
                said = reason
        await trio.sleep(TRY_AGAIN)
    url = f"http://{address.reachable(listeners[0].socket.getsockname()[1])}/metrics"
    with _published(recording.settings.state_directory / FILE, url):
        log.info("metrics at %s (see --metrics)", url)
        await serve(listeners, Pages(recording).get, local=address.is_loopback)


@contextmanager
def _published(path: Path, url: str) -> Iterator[None]:
    """Say in a file where the metrics are, for as long as they are there."""
    text = url + "\n"
    try:
        write_own(path, text)
    except OSError as error:
        log.warning("%s cannot be written: %s", path, error.strerror)
    try:
        yield
    finally:
        with suppress(OSError):
            if path.read_text("ascii") == text:  # else it is of another recorder by now
                path.unlink()


@attrs.define(eq=False)
class Pages:
    """The pages of one recorder."""

    _recording: Recording
    _snapshot: Snapshot | None = None
    _text: bytes | None = None
    """The page of metrics; None where it was not made of `_snapshot` yet."""
    _made: float = -FRESH
    _making: trio.Lock = attrs.field(factory=trio.Lock)

    async def get(self, path: str) -> Response | None:
        """Return what there is at a path."""
        match path:
            case "/metrics":
                async with self._making:
                    found = await self._current()
                    if self._text is None:
                        self._text = await page.render(found, self._recording.collectors)
                    return Response(self._text, content_type=page.CONTENT_TYPE)
            case "/live":
                return Response(b"the loop turns\n")
            case "/ready":
                async with self._making:
                    return readiness(await self._current())
            case _:
                return None

    async def _current(self) -> Snapshot:
        if self._snapshot is None or trio.current_time() - self._made >= FRESH:
            self._snapshot, self._text = await take_snapshot(self._recording), None
            self._made = trio.current_time()
        return self._snapshot


def readiness(found: Snapshot) -> Response:
    """Return what is ready, and what is not and why, as JSON; status 503 if anything is not."""
    store: dict[str, Any] = {"name": found.store, "up": found.away is None}
    if found.away is not None:
        store["away_seconds"] = round(found.away, 1)
    said = {
        "ready": found.ready,
        "store": store,
        "symbols": {str(state): number for state, number in found.states.items()},
        "not_ready": dict(islice(found.troubled.items(), NAMED)),
        "more_not_ready": max(0, len(found.troubled) - NAMED),
    }
    return Response(
        json.dumps(said, indent=2).encode() + b"\n", 200 if found.ready else 503, "application/json"
    )
