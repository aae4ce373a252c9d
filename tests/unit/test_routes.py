"""What `--route` and `route =` can say: nonsense is one line, and no password is shown."""

from pathlib import Path

import pytest

from mexc_trio.errors import UsageError
from mexc_trio.settings.description import describe
from mexc_trio.settings.routes import Route, parse_routes, routes_text
from mexc_trio.settings.sources import load

SECRET = "s3cret"  # noqa: S105


@pytest.mark.parametrize(
    ("text", "route", "masked"),
    [
        ("direct", Route(), "direct"),
        ("DIRECT", Route(), "direct"),
        (
            "direct via wss://futures.mexc.com/edge",
            Route(via="wss://futures.mexc.com/edge"),
            "direct via wss://futures.mexc.com/edge",
        ),
        ("socks5://proxy:9050", Route("socks5", "proxy", 9050), "socks5://proxy:9050"),
        ("socks5://proxy", Route("socks5", "proxy", 1080), "socks5://proxy:1080"),
        (
            f"socks5://me:{SECRET}@[::1]:1",
            Route("socks5", "::1", 1, "me", SECRET),
            "socks5://***@[::1]:1",
        ),
        (
            "http://a%40b:%2C%2F@proxy:3128 via ws://127.0.0.1:1/edge",
            Route("http", "proxy", 3128, "a@b", ",/", "ws://127.0.0.1:1/edge"),
            "http://***@proxy:3128 via ws://127.0.0.1:1/edge",
        ),
        ("from:192.0.2.7", Route("from", "192.0.2.7"), "from:192.0.2.7"),
        ("from:2001:db8::1", Route("from", "2001:db8::1"), "from:2001:db8::1"),
    ],
)
def test_every_form_is_read_and_shown_without_its_secrets(
    text: str, route: Route, masked: str
) -> None:
    """The URL of a proxy, an address, or neither, and for each an exchange of its own."""
    (read,) = parse_routes(text)
    assert (read, str(read)) == (route, masked)
    assert SECRET not in repr(read)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is no route"),
        ("directly", "is no route"),
        (f"socks4://me:{SECRET}@proxy:1", "is no route"),
        ("https://proxy:1", "is no route"),
        ("socks5://", "is not of the form"),
        ("socks5://proxy:0", "is not of the form"),
        ("socks5://proxy:65536", "is not a URL"),
        (f"socks5://me:{SECRET}/x@proxy:1", "not"),
        ("http://proxy:1/path", "is not of the form"),
        ("http://two words:1", "is not of the form"),
        (f"socks5://me:{SECRET * 50}@proxy:1", "255 bytes"),
        ("from:", "is not an IP address"),
        ("from:eth0", "is not an IP address"),
        ("direct via http://x", "is not a socket's URL"),
        ("direct via wss://a via wss://b", "several exchanges"),
    ],
)
def test_nonsense_is_told_in_one_line_without_secrets(text: str, said: str) -> None:
    """The line says what is not what."""
    with pytest.raises(UsageError, match=said) as caught:
        parse_routes(text)
    assert SECRET not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_symbol_has_the_routes_of_its_section(tmp_path: Path) -> None:
    """And the others those of the whole; the command line comes before both."""
    config = tmp_path / "settings.ini"
    config.write_text(
        f"[mexc-trio]\nroute = direct, socks5://me:{SECRET}@proxy:1\n"
        f"[BTC_USDT]\nroute = http://me:{SECRET}@other:2\n"
    )
    options = {"config": str(config)}
    settings = load(options, ["BTC_USDT", "ETH_USDT"], {})
    assert settings.for_symbol("BTC_USDT").route == (Route("http", "other", 2, "me", SECRET),)
    assert settings.for_symbol("ETH_USDT").route == settings.route
    assert routes_text(settings.route) == "direct, socks5://***@proxy:1"
    described = "\n".join(describe(settings))
    assert "[BTC_USDT] route = http://***@other:2" in described
    assert SECRET not in described
    typed = load({**options, "route": "from:192.0.2.7"}, ["BTC_USDT"], {})
    assert typed.for_symbol("BTC_USDT").route == (Route("from", "192.0.2.7"),)
