"""The proxy as a command."""

import argparse
import signal
import sys
from typing import Self

import attrs
import trio

from tools.proxy.core import LOOPBACK, open_proxy
from tools.proxy.faults import Armed, Direction, Fault, Kind


@attrs.frozen
class _Address:
    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Self:
        host, colon, port = text.rpartition(":")
        if not colon or not port.isdecimal() or not 0 < int(port) < 65536:
            raise argparse.ArgumentTypeError(f"{text!r} is not HOST:PORT")
        return cls(host or LOOPBACK, int(port))


def parse_fault(text: str) -> Fault:
    """Read KIND[=SECONDS]:DIRECTION:BYTES[:PATTERN], as given on the command line."""
    try:
        kind, direction, count, *pattern = text.split(":", maxsplit=3)
        kind, _, seconds = kind.partition("=")
        return Fault(
            Direction(direction),
            int(count),
            Kind(kind),
            pattern="".join(pattern).encode(),
            seconds=float(seconds or 0),
        )
    except ValueError as error:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not KIND[=SECONDS]:DIRECTION:BYTES[:PATTERN] ({error})"
        ) from None


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.proxy", description="A TCP proxy with faults, until Ctrl-C."
    )
    parser.add_argument("--listen", type=_Address.parse, required=True, metavar="HOST:PORT")
    parser.add_argument("--to", type=_Address.parse, required=True, metavar="HOST:PORT")
    parser.add_argument("--delay", type=float, default=0.0, help="seconds that every chunk waits")
    parser.add_argument(
        "--fault",
        type=parse_fault,
        action="append",
        default=[],
        metavar="KIND[=SECONDS]:DIRECTION:BYTES[:PATTERN]",
        help=f"KIND: {', '.join(kind.value for kind in Kind)}; DIRECTION: to-server, to-client;"
        " BYTES that pass first, counted from PATTERN's end if there is one; may be repeated",
    )
    return parser.parse_args()


async def _announce(armed: Armed) -> None:
    await armed.fired.wait()
    fault = armed.fault
    print(f"{fault.kind.value} after {fault.after_bytes} bytes {fault.direction.value}", flush=True)


async def _run(arguments: argparse.Namespace) -> None:
    listen, to = arguments.listen, arguments.to
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_proxy(to.host, to.port, host=listen.host, port=listen.port) as proxy:
            proxy.delay = arguments.delay
            print(f"{listen.host}:{listen.port} -> {to.host}:{to.port}", flush=True)
            async with trio.open_nursery() as nursery:
                for fault in arguments.fault:
                    nursery.start_soon(_announce, proxy.arm(fault))
                async for _ in signals:
                    nursery.cancel_scope.cancel()
                    break
        for direction in Direction:
            total = sum(connection.passed[direction] for connection in proxy.history)
            print(f"{total} bytes {direction.value}, {len(proxy.history)} connections")


def main() -> int:
    """Run the proxy that the command line describes."""
    arguments = _arguments()
    try:
        trio.run(_run, arguments)
    except OSError as error:
        print(f"proxy: cannot listen on {arguments.listen.host}: {error}", file=sys.stderr)
        return 1
    return 0
