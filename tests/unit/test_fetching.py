"""Fetching seen by an attacker: where an address, a name, a redirect or a body tries to lead where it must not."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import httpcore
import pytest

from rag_opt.components.retrievers.fetching import (
    LARGEST,
    MOST_REDIRECTS,
    FetchError,
    HttpResponse,
    check_address,
    fetch_url,
)
from tests.services import fault

PUBLIC, OTHER = "93.184.216.34", "151.101.1.6"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\nConnection: close\r\n\r\nfine"
KEYS = {"Authorization": "Bearer canary-1", "X-Subscription-Token": "canary-2", "Cookie": "canary-3", "Accept": "a/b"}
PRIVATE = [
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "0.0.0.0",
    "0.1.2.3",
    "192.0.2.1",
    "198.18.0.1",
    "224.0.0.1",
    "239.1.1.1",
    "240.0.0.1",
    "255.255.255.255",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "fd00::1",
    "ff02::1",
    "ff0e::1",
    "2001:db8::1",
    "::ffff:10.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0.0.0.0",
]
WRAPPED = {
    "fec0::1": "site-local",
    "64:ff9b::a9fe:a9fe": "NAT64 of 169.254.169.254",
    "64:ff9b::7f00:1": "NAT64 of 127.0.0.1",
    "64:ff9b:1::1": "NAT64 for local use",
    "2002:a9fe:a9fe::": "6to4 of 169.254.169.254",
    "2002:7f00:1::": "6to4 of 127.0.0.1",
    "::169.254.169.254": "IPv4-compatible",
    "::127.0.0.1": "IPv4-compatible",
}


class Stream(httpcore.MockStream):
    """What a scripted host answers; what it is told is kept."""

    def __init__(self, answer: bytes, told: bytearray) -> None:
        super().__init__([answer, b""])
        self.told = told

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self.told += buffer


class Internet:
    """Names with their addresses (one list a look-up, the last for all further ones), and what stands at each."""

    def __init__(self) -> None:
        self.names: dict[str, list[list[str]]] = {}
        self.answers: dict[str, bytes] = {}
        self.looked_up: list[str] = []
        self.connected: list[str] = []
        self.told: dict[str, bytearray] = {}

    def name(self, host: str, *addresses: str, answer: bytes = OK) -> None:
        self.names[host] = [list(addresses)]
        self.answers.setdefault(addresses[0], answer)

    def get(self, host: str, port: int) -> list[tuple]:
        self.looked_up.append(host)
        script = self.names[host]
        found = script.pop(0) if len(script) > 1 else script[0]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in found]


@pytest.fixture
def internet(monkeypatch: pytest.MonkeyPatch) -> Internet:
    """No packet leaves this machine: what is no scripted address and not this machine can't be connected to."""
    net = Internet()
    really_look_up, really_connect = socket.getaddrinfo, httpcore.SyncBackend.connect_tcp

    def look_up(host, port, *args, **kwargs):
        return net.get(host, port) if host in net.names else really_look_up(host, port, *args, **kwargs)

    def connect(self, host, port, *args, **kwargs):
        net.connected.append(host)
        if host in net.answers:
            return Stream(net.answers[host], net.told.setdefault(host, bytearray()))
        if not host.startswith("127.") and host != "::1":
            raise httpcore.ConnectError(f"no way to {host}")
        return really_connect(self, host, port, *args, **kwargs)

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(httpcore.SyncBackend, "connect_tcp", connect)
    return net


def moved(to: str | bytes, status: int = 302) -> bytes:
    target = to if isinstance(to, bytes) else to.encode("utf-8")
    return b"HTTP/1.1 %d Found\r\nLocation: %s\r\nContent-Length: 0\r\nConnection: close\r\n\r\n" % (status, target)


Answer = Callable[[BaseHTTPRequestHandler], None]


@contextlib.contextmanager
def site(answer: Answer) -> Iterator[tuple[str, list[tuple[str, dict[str, str], bytes]]]]:
    """A server on this machine, and the (method and path, headers, body) of the requests it got."""
    requests: list[tuple[str, dict[str, str], bytes]] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            requests.append((f"{self.command} {self.path}", dict(self.headers), body))
            self.close_connection = True
            with contextlib.suppress(OSError):
                answer(self)

        do_POST = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.block_on_close = False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", requests
    finally:
        server.shutdown()
        server.server_close()


def raw(*parts: bytes, every: float = 0.0) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        for part in parts:
            handler.wfile.write(part)
            handler.wfile.flush()
            time.sleep(every)

    return answer


def get(url: str, timeout: float = 5.0, headers: dict[str, str] | None = None) -> HttpResponse:
    return fetch_url("GET", url, headers or {}, timeout=timeout)


def failing(url: str, timeout: float) -> float:
    """The seconds until fetching fails, as it must."""
    start = time.monotonic()
    with pytest.raises(FetchError):
        get(url, timeout)
    return time.monotonic() - start


# ---- addresses


@pytest.mark.parametrize("address", PRIVATE)
@pytest.mark.parametrize("local", [True, False])
def test_a_private_address_is_refused(address: str, local: bool) -> None:
    for plain in (True, False):
        with pytest.raises(FetchError, match="private address|only https"):
            check_address("host", address, local=local, plain=plain)


@pytest.mark.parametrize("address", WRAPPED)
def test_an_ipv6_address_that_means_a_private_one_is_refused(address: str) -> None:
    with pytest.raises(FetchError):
        check_address("host", address, local=False, plain=False)


@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.9.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_allowed_only_to_those_who_began_there(address: str) -> None:
    check_address("host", address, local=True, plain=True)
    with pytest.raises(FetchError, match="this machine"):
        check_address("host", address, local=False, plain=False)


@pytest.mark.parametrize("address", [PUBLIC, "2606:2800:220:1::1", "::ffff:8.8.8.8"])
def test_a_public_address_needs_https(address: str) -> None:
    check_address("host", address, local=True, plain=False)
    with pytest.raises(FetchError, match="only https"):
        check_address("host", address, local=True, plain=True)


@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0251.0376.0251.0376",
        "0xa9.254.0251.254",
        "169.254.43518",
        "10.1",
        "0",
        "0.0.0.0",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[::]",
        "192.168.0.1.",
    ],
)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_spelling_of_a_private_address_is_connected_to(internet: Internet, scheme: str, host: str) -> None:
    with pytest.raises(FetchError):
        get(f"{scheme}://{host}/latest/meta-data/")
    assert internet.connected == []


@pytest.mark.parametrize("host", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1", "[::ffff:7f00:1]", "[::1]"])
def test_a_page_elsewhere_may_not_lead_here_however_that_is_spelt(internet: Internet, host: str) -> None:
    for scheme in ("http", "https"):
        internet.name("public.test", PUBLIC)
        internet.answers[PUBLIC] = moved(f"{scheme}://{host}:9/")
        internet.connected.clear()
        with pytest.raises(FetchError, match="this machine"):
            get("https://public.test/")
        assert internet.connected == [PUBLIC]


def test_a_name_that_means_this_machine_is_no_way_here_either(internet: Internet) -> None:
    internet.name("public.test", PUBLIC, answer=moved("http://inside.test:8080/admin"))
    internet.name("inside.test", "127.0.0.1")
    with pytest.raises(FetchError, match="this machine"):
        get("https://public.test/")
    assert internet.connected == [PUBLIC]


def test_who_was_led_away_from_here_is_not_led_back(internet: Internet) -> None:
    internet.name("first.test", PUBLIC, answer=moved("http://localhost:9/"))
    with (
        site(raw(moved("https://first.test/"))) as (url, requests),
        pytest.raises(FetchError, match="this machine"),
    ):
        get(url)
    assert len(requests) == 1
    assert internet.connected == ["127.0.0.1", PUBLIC]


@pytest.mark.parametrize("addresses", [(PUBLIC, "10.0.0.1"), ("10.0.0.1", PUBLIC), (PUBLIC, OTHER, "fe80::1")])
def test_of_several_addresses_none_may_be_private(internet: Internet, addresses: Sequence[str]) -> None:
    internet.name("mixed.test", *addresses)
    with pytest.raises(FetchError, match="private address"):
        get("https://mixed.test/")
    assert internet.connected == []


def test_public_and_own_addresses_do_not_mix(internet: Internet) -> None:
    internet.name("public.test", PUBLIC, answer=moved("https://mixed.test/"))
    internet.name("mixed.test", OTHER, "127.0.0.1")
    with pytest.raises(FetchError, match="this machine"):
        get("https://public.test/")
    assert internet.connected == [PUBLIC]


def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(internet: Internet) -> None:
    internet.names["rebinding.test"] = [[PUBLIC], ["127.0.0.1"], ["169.254.169.254"]]
    internet.answers[PUBLIC] = OK
    assert get("https://rebinding.test/") == HttpResponse(200, b"fine")
    assert internet.looked_up == ["rebinding.test"]
    assert internet.connected == [PUBLIC]


def test_a_name_that_means_another_machine_at_its_redirect_is_checked_again(internet: Internet) -> None:
    internet.names["rebinding.test"] = [[PUBLIC], ["169.254.169.254"]]
    internet.answers[PUBLIC] = moved("/again")
    with pytest.raises(FetchError, match="private address"):
        get("https://rebinding.test/")
    assert internet.connected == [PUBLIC]


def test_a_service_on_one_of_two_own_addresses_is_found(internet: Internet) -> None:
    internet.names["localhost"] = [["::1", "127.0.0.1"]]
    with site(raw(OK)) as (url, _):
        assert get(url.replace("127.0.0.1", "localhost")).body == b"fine"


def test_a_name_nobody_knows_is_said(internet: Internet, monkeypatch) -> None:
    def unknown(*args: object, **kwargs: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(FetchError, match=r"nowhere\.test can't be resolved"):
        get("https://nowhere.test/")


# ---- schemes, passwords, redirects


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "ftp://public.test/",
        "gopher://127.0.0.1:6379/_INFO",
        "data:text/plain,hello",
        "javascript:alert(1)",
        "ws://127.0.0.1/",
        "//127.0.0.1/",
        "/etc/passwd",
        "",
        "http://",
        "http:///path",
        "https://user:word@public.test/",
        "https://user@public.test/",
        "https://@public.test/",
        "https://public.test@169.254.169.254/",
    ],
)
def test_other_schemes_and_passwords_are_refused(internet: Internet, url: str) -> None:
    internet.name("public.test", PUBLIC)
    with pytest.raises(FetchError):
        get(url)
    with site(raw(moved(url))) as (start, requests):
        # What names no host leads back to where it stands.
        if urlsplit(url).scheme and (urlsplit(url).netloc or not url.startswith("http")):
            with pytest.raises(FetchError):
                get(start)
            assert len(requests) == 1
    assert set(internet.connected) <= {"127.0.0.1"}


def test_a_password_in_an_address_is_not_repeated() -> None:
    with pytest.raises(FetchError) as caught:
        get("https://user:canary-word@public.test/")
    assert "canary-word" not in str(caught.value)


def test_plain_http_leads_to_no_public_host(internet: Internet) -> None:
    internet.name("public.test", PUBLIC)
    with pytest.raises(FetchError, match="only https"):
        get("http://public.test/")
    with site(raw(moved("http://public.test/"))) as (url, _), pytest.raises(FetchError, match="only https"):
        get(url)
    internet.name("secure.test", OTHER, answer=moved("http://public.test/"))
    with pytest.raises(FetchError, match="only https"):
        get("https://secure.test/")
    assert PUBLIC not in internet.connected


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_keys_and_body_do_not_travel_to_another_host(status: int) -> None:
    with site(raw(OK)) as (there, got), site(raw(moved(f"{there}/x", status))) as (url, sent):
        assert fetch_url("POST", url, KEYS, b"canary-4").status == 200
    assert sent[0][1]["Authorization"] == "Bearer canary-1"
    ((line, headers, body),) = got
    assert line == "GET /x"
    assert "canary" not in f"{headers}{body!r}"
    assert headers["Accept"] == "a/b"


def test_keys_lost_on_the_way_do_not_come_back() -> None:
    back = ""
    with (
        site(lambda handler: raw(OK if handler.path == "/end" else moved(f"{there}/"))(handler)) as (home, got),
        site(lambda handler: raw(moved(back))(handler)) as (there, _),
    ):
        back = f"{home}/end"
        assert get(home, headers=KEYS).status == 200
    assert "canary" in str(got[0][1])
    assert [line for line, _, _ in got] == ["GET /", "GET /end"]
    assert "canary" not in str(got[1][1])


def test_keys_do_not_travel_from_one_public_host_to_another(internet: Internet) -> None:
    internet.name("first.test", PUBLIC, answer=moved("https://second.test/"))
    internet.name("second.test", OTHER)
    get("https://first.test/", headers=KEYS)
    assert b"canary-1" in internet.told[PUBLIC]
    assert b"canary" not in internet.told[OTHER]
    assert b"Host: second.test" in internet.told[OTHER]


def test_a_redirect_on_the_same_host_keeps_the_key() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        raw(OK if handler.path == "/b" else moved("/b"))(handler)

    with site(answer) as (url, got):
        assert get(f"{url}/a", headers=KEYS).status == 200
    assert got[1][1]["Authorization"] == "Bearer canary-1"


def test_redirects_are_counted() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        left = int(handler.path[1:])
        raw(moved(f"/{left - 1}") if left else OK)(handler)

    with site(answer) as (url, got):
        assert get(f"{url}/{MOST_REDIRECTS}").status == 200
        got.clear()
        with pytest.raises(FetchError, match="redirects"):
            get(f"{url}/{MOST_REDIRECTS + 1}")
        assert len(got) == MOST_REDIRECTS + 1


@pytest.mark.parametrize("name", ["redirect_private", "redirect_loop", "huge"])
def test_faults_of_a_search_service_end_as_errors(web: str, name: str) -> None:
    fault(web, name)
    try:
        assert failing(f"{web}/searxng/search?q=cats&format=json", 5.0) < 4
    finally:
        fault(web, "none")


ESCAPES = "fetching: a ValueError that is no FetchError (the service chooses the address) leaves fetched()"


@pytest.mark.parametrize(
    "target",
    [
        "http://[bad",
        "https://[::1/",
        "https://public.test:99999/",
        "https://public.test:port/",
        "/\u00fc",
        "https://m\u00fcnchen.test/",
        f"https://{'a' * 70}.test/",
        "https://a..test/",
        "https://exa mple.test/",
        "https://public.test\\@169.254.169.254/",
        "https://169.254.169.254#@public.test/",
        "\\\\169.254.169.254\\",
        "https:///169.254.169.254/",
        "https://%31%36%39.254.169.254/",
        "https://169.254.169.254%00.public.test/",
    ],
)
def test_a_redirect_to_nonsense_is_an_error_of_fetching(internet: Internet, target: str) -> None:
    internet.name("public.test", PUBLIC)
    with site(raw(moved(target))) as (url, _), contextlib.suppress(FetchError):
        get(url)
    assert set(internet.connected) <= {"127.0.0.1", PUBLIC}


# ---- bodies, time


def body(size: int) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size + b"a" * size


def test_a_body_is_read_up_to_its_limit() -> None:
    with site(raw(body(LARGEST))) as (url, _):
        assert len(get(url).body) == LARGEST
    with site(raw(body(LARGEST + 1))) as (url, _), pytest.raises(FetchError, match="sends more than"):
        get(url)


def test_a_packed_body_stays_packed() -> None:
    import gzip

    bomb = gzip.compress(b"0" * 50_000_000)
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(bomb)
    with site(raw(head, bomb)) as (url, got):
        assert get(url).body == bomb
    assert got[0][1]["Accept-Encoding"] == "identity"


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n"


def test_a_silent_host_is_left_at_the_time_limit() -> None:
    with site(raw(b"", every=3)) as (url, _):
        assert failing(url, 0.4) < 1.2


def test_a_dripping_body_is_left_at_the_time_limit() -> None:
    with site(raw(HEAD + b"\r\n", *[b"a"] * 60, every=0.05)) as (url, _):
        assert failing(url, 0.4) < 1.2


def test_slow_redirects_share_one_time_limit() -> None:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(0.35)
        raw(OK if handler.path == "/xxx" else moved(f"{handler.path}x"))(handler)

    with site(answer) as (url, _):
        assert failing(f"{url}/", 0.6) < 1.2


def test_a_body_that_stops_is_left_at_the_time_limit() -> None:
    with site(raw(HEAD + b"\r\n", b"a", b"", b"", every=0.8)) as (url, _):
        assert failing(url, 1.0) < 1.4


@pytest.mark.parametrize("part", [b"X-A: b\r\n", b"a"])
def test_dripping_headers_are_left_at_the_time_limit(part: bytes) -> None:
    with site(raw(HEAD, *[part] * 30, every=0.08)) as (url, _):
        assert failing(url, 0.4) < 1.2


def test_interim_responses_without_end_are_left_at_the_time_limit() -> None:
    with site(raw(*[b"HTTP/1.1 103 Early Hints\r\n\r\n"] * 30, every=0.08)) as (url, _):
        assert failing(url, 0.4) < 1.2


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"\x00\xff\xfe no http at all\r\n\r\n",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nno\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000 + b"\r\n\r\n",
        b"HTTP/1.1 99999 What\r\n\r\n",
    ],
)
def test_what_is_no_http_is_an_error_of_fetching(answer: bytes) -> None:
    with site(raw(answer)) as (url, _):
        failing(url, 3.0)


def test_a_redirect_without_an_address_and_other_statuses_are_what_they_are() -> None:
    with site(raw(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\n\r\n")) as (url, _):
        assert get(url).status == 302
    with site(raw(b"HTTP/1.1 404 None\r\nContent-Length: 2\r\n\r\nno")) as (url, _):
        assert get(url) == HttpResponse(404, b"no")


def test_a_proxy_of_the_environment_sees_nothing(monkeypatch) -> None:
    with site(raw(OK)) as (proxy, seen), site(raw(OK)) as (url, _):
        for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy)
        assert get(url, headers=KEYS).status == 200
    assert seen == []


def test_a_header_can_not_be_smuggled_in() -> None:
    with site(raw(OK)) as (url, got):
        with contextlib.suppress(FetchError):
            get(f"{url}/x\r\nX-Evil: 1\r\n\r\nGET /second", headers={"Accept": "a"})
        with pytest.raises(FetchError):
            get(url, headers={"X-Key": "a\r\nX-Evil: 1"})
    assert all("X-Evil" not in headers for _, headers, _ in got)
