"""TLS with a server that is not Python's: OpenSSL's own, told what to do by its standard input."""

import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import attrs
import pytest
import trio

from mexc_trio.exchange.tls import TlsStream, open_tls
from tests.support.peers import trusted_authority
from tests.support.running import DEADLINE, environment

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl")

HOST = "localhost"


@attrs.define(eq=False)
class Peer:
    """`openssl s_server`: a line of one letter is a command, any other is sent."""

    process: trio.Process
    said: bytes = b""

    async def tell(self, line: str) -> None:
        """Type a line."""
        assert self.process.stdin is not None
        await self.process.stdin.send_all(f"{line}\n".encode())

    async def until(self, text: bytes) -> bytes:
        """Read on until it says something; return what stands behind that in its line."""
        assert self.process.stdout is not None
        with trio.fail_after(DEADLINE):
            while b"\n" not in self.said.partition(text)[2]:
                more = await self.process.stdout.receive_some()
                assert more, f"it ended, and said {self.said!r}"
                self.said += more
        rest, _, self.said = self.said.partition(text)[2].partition(b"\n")
        return rest


@asynccontextmanager
async def connected(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str
) -> AsyncIterator[tuple[TlsStream, Peer]]:
    """Give both ends of a connection."""
    authority, certificate = trusted_authority(tmp_path, monkeypatch), tmp_path / "server.pem"
    authority.issue_cert(HOST).private_key_and_cert_chain_pem.write_to_path(str(certificate))
    process = await trio.lowlevel.open_process(
        ["openssl", "s_server", "-accept", "127.0.0.1:0", "-msg", f"-{version}",
         "-cert", str(certificate), "-key", str(certificate)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment(),
    )  # fmt: skip
    try:
        peer = Peer(process)
        port = int(await peer.until(b"ACCEPT 127.0.0.1:"))
        with trio.fail_after(DEADLINE):
            network = await trio.open_tcp_stream("127.0.0.1", port)
            async with network:
                yield await open_tls(network, HOST), peer
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()


@pytest.mark.parametrize("command", ["k", "K"])
async def test_new_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    """TLS 1.3 may change them at any time, and ask us to change ours: nothing is lost."""
    async with connected(tmp_path, monkeypatch, "tls1_3") as (stream, peer):
        for turn in range(3):
            await peer.tell(f"before {turn}")
            assert await stream.receive_some() == b"before %d\n" % turn
            await peer.tell(command)
            await peer.until(b"KeyUpdate")
            await peer.tell(f"after {turn}")
            assert await stream.receive_some() == b"after %d\n" % turn
            await stream.send_all(b"ours %d\n" % turn)
            await peer.until(b"ours %d" % turn)


async def test_renegotiation_is_declined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In TLS 1.2 a server can ask for it. What it sends besides is read; then it hangs up."""
    async with connected(tmp_path, monkeypatch, "tls1_2") as (stream, peer):
        await peer.tell("r")
        await peer.until(b"HelloRequest")
        await peer.tell("after")
        assert await stream.receive_some() == b"after\n"
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
        await peer.until(b"fatal handshake_failure")
        with pytest.raises(trio.BrokenResourceError):
            await stream.send_all(b"x")


async def test_what_is_not_encrypted_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever is in the middle cannot put in a word."""
    async with connected(tmp_path, monkeypatch, "tls1_3") as (stream, peer):
        await peer.tell("P")  # it sends a plain text
        with pytest.raises(trio.BrokenResourceError):
            await stream.receive_some()
