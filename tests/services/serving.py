"""What both servers share: counts, the fault switch, and HTTP answers good and broken."""

import contextlib
import json
import os
import select
import socket
import socketserver
import struct
import sys
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

NO_FAULT = "none"
JSON_TYPE = "application/json"


class RequestError(ValueError):
    """A request that the server answers with status 400."""


class Counts:
    """Named sums that many threads add to."""

    def __init__(self, *names: str) -> None:
        self._lock = threading.Lock()
        self._sums = dict.fromkeys(names, 0)
        self._authorization_seen = False

    def add(self, **amounts: int) -> None:
        with self._lock:
            for name, amount in amounts.items():
                self._sums[name] += amount

    def see_authorization(self) -> None:
        with self._lock:
            self._authorization_seen = True

    def zero(self) -> None:
        with self._lock:
            self._sums = dict.fromkeys(self._sums, 0)
            self._authorization_seen = False

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return {**self._sums, "authorization_seen": self._authorization_seen}


@dataclass
class FaultSwitch:
    """Says which request gets the chosen fault: each N-th, and with `heal` only the first of equal ones."""

    names: tuple[str, ...]
    name: str = NO_FAULT
    every: int = 1
    heal: bool = False
    _turn: int = 0
    _seen: set[str] = field(default_factory=set)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def choose(self, name: str, every: int = 1, heal: bool = False) -> None:
        if name not in (NO_FAULT, *self.names):
            raise RequestError(f"unknown fault {name!r}; there are: {', '.join((NO_FAULT, *self.names))}")
        if every < 1:
            raise RequestError(f"every must be at least 1, not {every}")
        with self._lock:
            self.name, self.every, self.heal = name, every, heal
        self.restart()

    def restart(self) -> None:
        with self._lock:
            self._turn = 0
            self._seen.clear()

    def take(self, request: str) -> str:
        """The fault for this request, or "none"; a healed request does not take a turn."""
        with self._lock:
            if self.name == NO_FAULT or (self.heal and request in self._seen):
                return NO_FAULT
            self._seen.add(request)
            self._turn += 1
            return NO_FAULT if self._turn % self.every else self.name


class ServiceServer(ThreadingHTTPServer):
    """A server on a free port of this machine."""

    request_queue_size = 256

    def __init__(self, handler: type["ServiceHandler"], counts: Counts, faults: FaultSwitch) -> None:
        self.counts = counts
        self.faults = faults
        super().__init__(("127.0.0.1", 0), handler)

    def server_bind(self) -> None:
        # HTTPServer looks the host's name up here, which can take seconds where no name server answers.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        # Clients that leave early are what several faults are about.
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class ServiceHandler(BaseHTTPRequestHandler):
    """Answers the control paths itself and leaves every other one to `answer`."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: ServiceServer
    body: bytes = b""

    def answer(self, method: str, path: str) -> None:
        raise NotImplementedError

    def do_GET(self) -> None:
        self._take("GET")

    def do_POST(self) -> None:
        self._take("POST")

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
        """Stay silent: the output of the tests is not the place for an access log."""

    def payload(self) -> dict[str, Any]:
        """The request's JSON object."""
        try:
            value = json.loads(self.body or b"{}")
        except ValueError as error:
            raise RequestError(f"the body is not JSON: {error}") from error
        if not isinstance(value, dict):
            raise RequestError("the body is not a JSON object")
        return value

    def send_json(self, value: Any, status: int = 200, **headers: str) -> None:
        self.send_body(json.dumps(value).encode(), JSON_TYPE, status, **headers)

    def send_body(self, body: bytes, kind: str, status: int = 200, **headers: str) -> None:
        self._start(status, kind, {"Content-Length": str(len(body)), **headers})
        self.wfile.write(body)

    def send_cut_body(self, body: bytes, kind: str) -> None:
        """Promise more than is sent, then close."""
        self._start(200, kind, {"Content-Length": str(len(body) + 64), "Connection": "close"})
        self.wfile.write(body[: len(body) // 2])
        self.close_connection = True

    def start_chunks(self, kind: str) -> None:
        self._start(200, kind, {"Transfer-Encoding": "chunked", "Cache-Control": "no-cache"})

    def send_chunk(self, data: bytes) -> None:
        """Send one chunk; an empty one ends the body."""
        self.wfile.write(b"%x\r\n%s\r\n" % (len(data), data))

    def wait(self, seconds: float) -> bool:
        """Sleep, but only while the client stays; says whether it stayed."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
            if self._client_left():
                self.close_connection = True
                return False
        return True

    def drop(self) -> None:
        """Reset the connection without any answer."""
        self.close_connection = True
        # With no time to linger, closing sends RST; the socket closes only once its reader is closed too.
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.rfile.close()
        self.connection.close()

    def _client_left(self) -> bool:
        if not select.select([self.connection], [], [], 0)[0]:
            return False
        return not self.connection.recv(1, socket.MSG_PEEK)

    def _start(self, status: int, kind: str, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        for name, value in headers.items():
            self.send_header(name.replace("_", "-"), value)
        self.end_headers()

    def _take(self, method: str) -> None:
        # Read before any answer: what stays unread would be taken for the connection's next request.
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        path = urlsplit(self.path).path
        try:
            if not self._control(method, path):
                self.answer(method, path)
        except RequestError as error:
            self.send_json({"error": {"message": str(error), "type": "invalid_request_error"}}, 400)

    def _control(self, method: str, path: str) -> bool:
        counts, faults = self.server.counts, self.server.faults
        match method, path:
            case "GET", "/counts":
                self.send_json(counts.snapshot())
            case "POST", "/reset":
                counts.zero()
                faults.restart()
                self.send_json(counts.snapshot())
            case "POST", "/fault":
                wanted = self.payload()
                faults.choose(str(wanted.get("name")), int(wanted.get("every", 1)), bool(wanted.get("heal", False)))
                self.send_json({"name": faults.name, "every": faults.every, "heal": faults.heal})
            case _:
                return False
        return True


def serve(server: ServiceServer, suffix: str = "") -> None:
    """Print the address and serve until stdin closes."""
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(f"http://127.0.0.1:{server.server_port}{suffix}", flush=True)
    with contextlib.suppress(KeyboardInterrupt):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    server.server_close()
