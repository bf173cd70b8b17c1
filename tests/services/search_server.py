"""Web search over a file of pages, in the shapes of SearXNG, Brave and Tavily, with faults that can be switched."""

import argparse
import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

# Run as a script, only this folder is on the path.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.services.serving import (
    JSON_TYPE,
    NO_FAULT,
    Counts,
    FaultSwitch,
    RequestError,
    ServiceHandler,
    ServiceServer,
    serve,
)

FAULTS = ("redirect_private", "redirect_loop", "huge", "slow", "server_error", "invalid_json", "wrong_shape")
PRIVATE_ADDRESS = "http://169.254.169.254/"
LOOP_PATH = "/loop"
SLOW_SECONDS = 60.0
PAGE_SIZE = 10
WRONG_SHAPE = {"results": {"first": 1}, "web": []}


@dataclass(frozen=True)
class Page:
    url: str
    title: str
    content: str

    @property
    def words(self) -> set[str]:
        return words(f"{self.title} {self.content}")


def words(text: str) -> set[str]:
    return set(re.findall(r"\w+", text.lower()))


def read_pages(path: Path) -> list[Page]:
    lines = (line for line in path.read_text(encoding="utf-8").splitlines() if line.strip())
    return [Page(page["url"], page["title"], page["content"]) for page in map(json.loads, lines)]


class SearchServer(ServiceServer):
    pages: list[Page]

    def find(self, query: str) -> list[tuple[float, Page]]:
        """The pages that share words with the query, best first, with the share of its words they hold."""
        asked = words(query)
        scored = [(len(asked & page.words) / max(len(asked), 1), page) for page in self.pages]
        return sorted((entry for entry in scored if entry[0]), key=lambda entry: -entry[0])


class SearchHandler(ServiceHandler):
    server: SearchServer

    def answer(self, method: str, path: str) -> None:
        self.server.counts.add(requests=1)
        if self.headers.get("Authorization") or self.headers.get("X-Subscription-Token"):
            self.server.counts.see_authorization()
        # The loop outlives a change of fault in the middle of it.
        fault = "redirect_loop" if path == LOOP_PATH else self._fault(method)
        if fault in {NO_FAULT, "slow"}:
            if fault == NO_FAULT or self.wait(SLOW_SECONDS):
                self._search(method, path)
        else:
            self._misbehave(fault)

    def _fault(self, method: str) -> str:
        fault = self.server.faults.take(f"{method} {self.path} {self.body!r}")
        self.server.counts.add(faults=int(fault != NO_FAULT))
        return fault

    def _misbehave(self, fault: str) -> None:
        match fault:
            case "redirect_private":
                self.send_body(b"", "text/html", 302, Location=PRIVATE_ADDRESS)
            case "redirect_loop":
                self.send_body(b"", "text/html", 302, Location=LOOP_PATH)
            case "huge":
                self._send_endlessly()
            case "server_error":
                self.send_json({"error": "internal error"}, 500)
            case "invalid_json":
                self.send_body(b"{not json", JSON_TYPE)
            case "wrong_shape":
                self.send_json(WRONG_SHAPE)

    def _send_endlessly(self) -> None:
        self.start_chunks(JSON_TYPE)
        self.send_chunk(b'{"results": [{"url": "https://example.org/", "title": "Endless", "content": "')
        while True:
            self.send_chunk(b"a" * 65536)

    def _search(self, method: str, path: str) -> None:
        match method, path:
            case "GET", "/searxng/search":
                self._searxng()
            case "GET", "/brave/res/v1/web/search":
                self._brave()
            case "POST", "/tavily/search":
                self._tavily()
            case _:
                self.send_json({"error": f"no such path: {method} {path}"}, 404)

    def _searxng(self) -> None:
        self.server.counts.add(searxng=1)
        if self._parameter("format", "html") != "json":
            self.send_body(b"<html><body>Results</body></html>", "text/html")
            return
        query = self._parameter("q")
        start = (int(self._parameter("pageno", "1")) - 1) * PAGE_SIZE
        found = self.server.find(query)[start : start + PAGE_SIZE]
        self.send_json({"query": query, "number_of_results": len(found), "results": full_results(found)})

    def _brave(self) -> None:
        self.server.counts.add(brave=1)
        if not self.headers.get("X-Subscription-Token"):
            self.send_json({"type": "ErrorResponse", "error": {"code": "SUBSCRIPTION_TOKEN_INVALID"}}, 401)
            return
        query = self._parameter("q")
        found = self.server.find(query)[: int(self._parameter("count", "20"))]
        results = [{"url": page.url, "title": page.title, "description": page.content} for _, page in found]
        self.send_json({"type": "search", "query": {"original": query}, "web": {"type": "search", "results": results}})

    def _tavily(self) -> None:
        self.server.counts.add(tavily=1)
        if not re.fullmatch(r"Bearer \S+", self.headers.get("Authorization", "")):
            self.send_json({"detail": {"error": "Unauthorized: missing or invalid API key."}}, 401)
            return
        request = self.payload()
        query = request.get("query")
        if not isinstance(query, str) or not query:
            raise RequestError("query is missing")
        found = self.server.find(query)[: int(request.get("max_results", 5))]
        self.send_json({"query": query, "answer": None, "images": [], "results": full_results(found)})

    def _parameter(self, name: str, default: str | None = None) -> str:
        value = parse_qs(urlsplit(self.path).query).get(name, [default])[0]
        if value is None:
            raise RequestError(f"the parameter {name} is missing")
        return value


def full_results(found: list[tuple[float, Page]]) -> list[dict[str, Any]]:
    return [{"url": page.url, "title": page.title, "content": page.content, "score": score} for score, page in found]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pages", type=Path, required=True, help="JSON lines of url, title and content")
    parser.add_argument("--fault", choices=(NO_FAULT, *FAULTS), default=NO_FAULT)
    parser.add_argument("--every", type=int, default=1, help="apply the fault to each N-th request")
    options = parser.parse_args()
    counts = Counts("requests", "searxng", "brave", "tavily", "faults")
    server = SearchServer(SearchHandler, counts, FaultSwitch(FAULTS))
    server.pages = read_pages(options.pages)
    server.faults.choose(options.fault, options.every)
    serve(server)


if __name__ == "__main__":
    main()
