"""HTTP for addresses that a configuration names: nothing inside a private network is reached, nothing endless is read.

A host is resolved once, every address it has is looked at, and the connection goes to the one that was looked at, so
that a name can't mean another machine a moment later. Redirects are followed by the same rules.
"""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore

REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 3
LARGEST = 2_000_000
"""Bytes of a body that are read."""


class FetchError(Exception):
    """A page that may not be fetched, or could not be."""


@dataclass(frozen=True)
class Fetched:
    """A response's status and its body."""

    status: int
    body: bytes


class Guarded(httpcore.NetworkBackend):
    """Connects to public addresses, and to this machine's own (`local`); only to the latter without TLS."""

    def __init__(self, *, local: bool, plain: bool) -> None:
        self.local = local
        self.plain = plain
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """A connection to the first address of the host; raises FetchError when any of its addresses is not allowed."""
        try:
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except OSError as error:
            raise FetchError(f"{host} can't be resolved") from error
        addresses = [str(each[4][0]) for each in found]
        for address in addresses:
            check_address(host, address, local=self.local, plain=self.plain)
        return self._backend.connect_tcp(addresses[0], port, timeout, local_address, socket_options)


def check_address(host: str, address: str, *, local: bool, plain: bool) -> None:
    """Raise FetchError unless an address is public, or this machine's where that is allowed."""
    found = ip_address(address.partition("%")[0])
    mapped = getattr(found, "ipv4_mapped", None)
    found = mapped or found
    if found.is_loopback:
        if not local:
            raise FetchError(f"{host} is this machine, to which a page elsewhere may not lead")
        return
    if plain:
        raise FetchError(f"{host}: only https is allowed, except on this machine")
    if not found.is_global or found.is_multicast:
        raise FetchError(f"{host} has the private address {found}, which is not fetched")


def fetched(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None = None, timeout: float = 10.0
) -> Fetched:
    """The response of an address, redirects followed; `timeout` holds for all of it. Raises FetchError."""
    deadline = time.monotonic() + timeout
    local = True
    for _ in range(MOST_REDIRECTS + 1):
        found, onward = _once(method, url, headers, body, deadline, local=local)
        if onward is None:
            return found
        # Whoever begins elsewhere may not be led here, nor take along what proves who asks.
        here, there = urlsplit(url), urlsplit(onward)
        local = local and (here.hostname or "") in ("localhost", "127.0.0.1", "::1")
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            headers = {name: value for name, value in headers.items() if name.lower() in ("accept", "content-type")}
        method, body, url = "GET", None, onward
    raise FetchError(f"{_host(url)}: more than {MOST_REDIRECTS} redirects")


def _once(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None, deadline: float, *, local: bool
) -> tuple[Fetched, str | None]:
    """One response, and where it leads on to."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise FetchError(f"{url[:80]!r} is no http(s) address without a password")
    left = max(0.01, deadline - time.monotonic())
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), left)
    backend = Guarded(local=local, plain=parts.scheme == "http")
    sent = {"Host": parts.netloc, "Accept-Encoding": "identity", "User-Agent": "rag_opt", **headers}
    try:
        with (
            httpcore.ConnectionPool(ssl_context=ssl.create_default_context(), network_backend=backend) as pool,
            pool.stream(method, url, headers=list(sent.items()), content=body, extensions={"timeout": timeouts}) as got,
        ):
            onward = dict(got.headers).get(b"location") or dict(got.headers).get(b"Location")
            if got.status in REDIRECTS and onward:
                return Fetched(got.status, b""), urljoin(url, onward.decode("latin-1"))
            return Fetched(got.status, _read(got.iter_stream(), deadline, parts.hostname)), None
    except (
        httpcore.NetworkError,
        httpcore.TimeoutException,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
        OSError,
    ) as error:
        raise FetchError(f"{parts.hostname}: {type(error).__name__}: {error}".rstrip(": ")) from error


def _read(stream: Iterable[bytes], deadline: float, host: str) -> bytes:
    read = bytearray()
    for part in stream:
        read += part
        if len(read) > LARGEST:
            raise FetchError(f"{host} sends more than {LARGEST:,} bytes")
        if time.monotonic() > deadline:
            raise FetchError(f"{host} takes too long")
    return bytes(read)


def _host(url: str) -> str:
    return urlsplit(url).hostname or url[:80]
