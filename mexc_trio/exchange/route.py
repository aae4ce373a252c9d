"""Connects by a route: directly, from an address of ours, or through a proxy.

The only user of python-socks. Whatever a proxy does instead of connecting is one `ExchangeError`
that names the proxy, and never its password.
"""

from typing import Final, cast

import trio
from python_socks import ProxyError, ProxyType
from python_socks.async_.trio.v2 import Proxy

from mexc_trio.errors import ExchangeError, loss_of, reason_of, words_of
from mexc_trio.settings.routes import Route

PROXY_TIMEOUT: Final = 10.0
"""Seconds that a proxy may take until it is connected with the exchange."""

_TYPES: Final = {"socks5": ProxyType.SOCKS5, "http": ProxyType.HTTP}


async def connect(route: Route, host: str, port: int) -> trio.abc.Stream:
    """Return a stream to a port of a host, whose name a proxy resolves itself.

    Raises OSError where there is no connection, ExchangeError where the proxy makes none.
    """
    if route.kind in _TYPES:
        return await _connect_through(route, host, port)
    if route.kind == "from":
        await _check_own_address(route.host)
        return await trio.open_tcp_stream(host, port, local_address=route.host)
    return await trio.open_tcp_stream(host, port)


async def _check_own_address(address: str) -> None:
    """Trio would only say that no address of the host suits ours."""
    family = trio.socket.AF_INET6 if ":" in address else trio.socket.AF_INET
    with trio.socket.socket(family) as probe:
        try:
            await probe.bind((address, 0))
        except OSError as error:
            why = f"{address} is no address of this machine: {error.strerror}"
            raise ExchangeError(why) from error


async def _connect_through(route: Route, host: str, port: int) -> trio.abc.Stream:
    name = route.proxy_url
    proxy = Proxy(
        _TYPES[route.kind], route.host, route.port, route.user or None, route.password or None,
        rdns=True,
    )  # fmt: skip
    try:
        with trio.fail_after(PROXY_TIMEOUT):
            stream = await proxy.connect(host, port, timeout=2 * PROXY_TIMEOUT)
    except trio.TooSlowError as error:
        raise ExchangeError(f"proxy {name} does not answer within {PROXY_TIMEOUT:g} s") from error
    except ProxyError as error:
        raise ExchangeError(f"proxy {name} does not connect: {words_of(error)}") from error
    except (OSError, trio.BrokenResourceError) as error:
        why = f"proxy {name} cannot be reached: {reason_of(error)}"
        raise ExchangeError(why, loss_of(error)) from error
    except (ValueError, IndexError) as error:  # bytes that the library did not expect
        raise ExchangeError(f"{name} is no such proxy: {words_of(error)}") from error
    return cast("trio.abc.Stream", stream.trio_stream)
