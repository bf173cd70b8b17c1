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
from functools import cache
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Any
from urllib.parse import SplitResult, urljoin, urlsplit

import httpcore

from rag_opt.components.hosts import is_loopback

REDIRECTS = (301, 302, 303, 307, 308)
MOST_REDIRECTS = 3
LARGEST = 2_000_000
"""Bytes of a body that are read."""


class FetchError(Exception):
    """A page that may not be fetched, or could not be; `status_code` is what a server answered instead, if it did."""

    def __init__(self, reason: str, status_code: int | None = None) -> None:
        super().__init__(reason)
        self.status_code = status_code


@dataclass(frozen=True)
class HttpResponse:
    """A response's status and its body."""

    status: int
    body: bytes


class GuardedBackend(httpcore.NetworkBackend):
    """Connects to public addresses, and to this machine's own (`local`); only to the latter without TLS."""

    def __init__(self, *, local: bool, plain: bool, deadline: float) -> None:
        self.deadline = deadline
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
            # One entry an address: without the type there is one for each kind of socket.
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise FetchError(f"{host[:80]} can't be resolved") from error
        addresses = [str(each[4][0]) for each in found]
        # All of them before the first connection: a name with one private address is refused as a whole.
        for address in addresses:
            check_address(host, address, local=self.local, plain=self.plain)
        # The last one is tried below, where its error is raised.
        for address in addresses[:-1]:
            try:
                return DeadlineStream(
                    self._backend.connect_tcp(address, port, timeout, local_address, socket_options), self.deadline
                )
            except httpcore.ConnectError:
                continue
        return DeadlineStream(
            self._backend.connect_tcp(addresses[-1], port, timeout, local_address, socket_options), self.deadline
        )


class DeadlineStream(httpcore.NetworkStream):
    """A connection on which nothing is read or written after a moment of the monotonic clock, however it trickles."""

    def __init__(self, stream: httpcore.NetworkStream, deadline: float) -> None:
        self._stream = stream
        self._deadline = deadline

    def _get_timeout(self) -> float:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise FetchError("it takes too long")
        return left

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        # httpcore's limit begins anew with each read, so a server that drips would never reach it.
        del timeout
        return self._stream.read(max_bytes, self._get_timeout())

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        del timeout
        self._stream.write(buffer, self._get_timeout())

    def close(self) -> None:
        self._stream.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        del timeout
        return DeadlineStream(self._stream.start_tls(ssl_context, server_hostname, self._get_timeout()), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


EMBEDDED = [ip_network(each) for each in ("::/96", "::ffff:0:0/96", "64:ff9b::/96", "64:ff9b:1::/48")]
"""IPv6 addresses that end in an IPv4 address."""


def unwrap_address(address: str) -> IPv4Address | IPv6Address:
    """The address, or the IPv4 address that an IPv6 one stands for (mapped, compatible, NAT64, 6to4, Teredo)."""
    # Without the scope of a link-local address (fe80::1%eth0).
    found = ip_address(address.partition("%")[0])
    # ::1 lies in ::/96, too, but is this machine and not 0.0.0.1.
    if isinstance(found, IPv4Address) or found == IPv6Address("::1"):
        return found
    if found.sixtofour is not None:
        return found.sixtofour
    if found.teredo is not None:
        return found.teredo[1]
    return IPv4Address(int(found) & 0xFFFFFFFF) if any(found in network for network in EMBEDDED) else found


def check_address(host: str, address: str, *, local: bool, plain: bool) -> None:
    """Raise FetchError unless an address is public, or this machine's where that is allowed."""
    found = unwrap_address(address)
    if found.is_loopback:
        if not local:
            raise FetchError(f"{host} is this machine, to which a page elsewhere may not lead")
        return
    if plain:
        raise FetchError(f"{host}: only https is allowed, except on this machine")
    # To ipaddress fec0::/10, the old site-local range, is global.
    if not found.is_global or found.is_multicast or getattr(found, "is_site_local", False):
        raise FetchError(f"{host} has the private address {found}, which is not fetched")


def fetch_url(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None = None, timeout: float = 10.0
) -> HttpResponse:
    """The response of an address, redirects followed; `timeout` seconds are for all of it. Raises FetchError."""
    deadline = time.monotonic() + timeout
    local = _is_local(url)
    for _ in range(MOST_REDIRECTS + 1):
        found, onward = _fetch_once(method, url, headers, body, deadline, local=local)
        if onward is None:
            return found
        # Whoever begins elsewhere may not be led here, nor take along what proves who asks.
        local = local and _is_local(url)
        here, there = urlsplit(url), urlsplit(onward)
        if (here.scheme, here.netloc) != (there.scheme, there.netloc):
            headers = {name: value for name, value in headers.items() if name.lower() in ("accept", "content-type")}
        # Behind 307 and 308, too, so that what was posted is sent to nobody else.
        method, body, url = "GET", None, onward
    raise FetchError(f"{_get_host(url)}: more than {MOST_REDIRECTS} redirects")


def _fetch_once(
    method: str, url: str, headers: Mapping[str, str], body: bytes | None, deadline: float, *, local: bool
) -> tuple[HttpResponse, str | None]:
    """One response, and where it leads on to."""
    parts = _split_url(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
        raise FetchError("what it is led to is no http(s) address without a password")
    left = max(0.01, deadline - time.monotonic())
    timeouts = dict.fromkeys(("connect", "read", "write", "pool"), left)
    backend = GuardedBackend(local=local, plain=parts.scheme == "http", deadline=deadline)
    # Nothing here unpacks a body, since a packed one could grow far beyond LARGEST.
    sent = {"Host": parts.netloc, "Accept-Encoding": "identity", "User-Agent": "rag_opt", **headers}
    try:
        with (
            # httpcore itself asks no proxy of the environment, which would look up the host in the backend's place.
            httpcore.ConnectionPool(ssl_context=_get_ssl_context(), network_backend=backend) as pool,
            pool.stream(method, url, headers=list(sent.items()), content=body, extensions={"timeout": timeouts}) as got,
        ):
            # Names come as the server has spelt them.
            onward = dict(got.headers).get(b"location") or dict(got.headers).get(b"Location")
            if got.status in REDIRECTS and onward:
                return HttpResponse(got.status, b""), _join_url(url, onward.decode("latin-1"))
            return HttpResponse(got.status, _read_body(got.iter_stream(), deadline, parts.hostname)), None
    except (
        ValueError,
        TypeError,
        httpcore.NetworkError,
        httpcore.TimeoutException,
        httpcore.ProtocolError,
        httpcore.UnsupportedProtocol,
        OSError,
    ) as error:
        # Its own text may hold what was sent: a header with a key.
        raise FetchError(f"{parts.hostname}: {type(error).__name__}") from None


@cache
def _get_ssl_context() -> ssl.SSLContext:
    # Reading all certificates takes 20 ms, more than many a request.
    return ssl.create_default_context()


def _is_local(url: str) -> bool:
    """Whether an address names this machine by its very form."""
    try:
        return is_loopback(urlsplit(url).hostname or "")
    except ValueError:
        return False


def _split_url(url: str) -> SplitResult:
    """The parts of an address; raises FetchError where it is none."""
    try:
        parts = urlsplit(url)
        # Both raise ValueError: for what httpcore can't send, and for a port that is no number.
        url.encode("ascii")
        assert parts.port != 0
    except (ValueError, AssertionError) as error:
        raise FetchError("what it is led to is no http(s) address") from error
    return parts


def _join_url(url: str, onward: str) -> str:
    try:
        return urljoin(url, onward)
    except ValueError as error:
        raise FetchError(f"{_get_host(url)} leads to what is no address") from error


def _read_body(stream: Iterable[bytes], deadline: float, host: str) -> bytes:
    read = bytearray()
    for part in stream:
        read += part
        if len(read) > LARGEST:
            raise FetchError(f"{host} sends more than {LARGEST:,} bytes")
        if time.monotonic() > deadline:
            raise FetchError(f"{host} takes too long")
    return bytes(read)


def _get_host(url: str) -> str:
    return urlsplit(url).hostname or url[:80]
