"""Pages of the web, found by a search service: SearXNG, Brave, Tavily, or what answers in one of their forms."""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any, Protocol
from urllib.parse import urlencode, urlsplit

import numpy as np

from rag_opt.components.checks import require, require_whole
from rag_opt.components.llm.endpoint import ADVICE, check_key
from rag_opt.components.ranking import score_by_rank, stack_rankings
from rag_opt.components.retrievers.fetching import FetchError, HttpResponse, fetch_url
from rag_opt.components.stage import Part, Stage
from rag_opt.errors import ComponentError
from rag_opt.records.documents import Document, Queries
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks, Rankings, Searches
from rag_opt.system.haystack import component
from rag_opt.text.tokenization import to_encodable

LONGEST = 20_000
"""Characters of a page that are kept."""

TRIES = 3
LOST = 0.1
"""The share of a batch's searches that may fail."""


class WebSearch(Protocol):
    """What finds pages."""

    def find_pages(self, query: str, count: int) -> list[Document]:
        """Up to `count` pages, best first; their id is their address. Raises FetchError."""


def search_searxng(base: str, query: str, count: int, key: str) -> HttpResponse:
    """SearXNG's JSON (settings: search.formats must list json)."""
    # SearXNG can't be told how many pages are wanted.
    del count, key
    return fetch_url("GET", f"{base}?{urlencode({'q': query, 'format': 'json'})}", {"Accept": "application/json"})


def search_brave(base: str, query: str, count: int, key: str) -> HttpResponse:
    """Brave's web search API."""
    sent = {"Accept": "application/json", "X-Subscription-Token": key}
    return fetch_url("GET", f"{base}?{urlencode({'q': query, 'count': count})}", sent)


def search_tavily(base: str, query: str, count: int, key: str) -> HttpResponse:
    """Tavily's search API."""
    body = json.dumps({"query": query, "max_results": count}).encode()
    return fetch_url("POST", base, {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}, body)


FORMS: dict[str, Callable[[str, str, int, str], HttpResponse]] = {
    "searxng": search_searxng,
    "brave": search_brave,
    "tavily": search_tavily,
}


class SearchService(Part):
    """A search service over HTTP: `form` is how it is asked, `key` names the variable with its key."""

    algorithm = "rag_opt.components.web.SearchService"

    def __init__(self, form: str, url: str | None, key: str | None) -> None:
        require(form in FORMS, f"web.service must be one of {', '.join(FORMS)}, not {form}")
        require(
            url is not None,
            "web.url: the web is searched by a service; name its address, such as "
            "web.url=http://localhost:8080/search for a SearXNG on this machine",
        )
        parts = urlsplit(str(url))
        require("@" not in parts.netloc, "web.url holds a password; name a variable with web.key instead")
        require(not parts.query, f"web.url has a query, which the search writes itself; {ADVICE.format('web.key')}")
        require(parts.scheme in ("http", "https"), f"web.url must be an http(s) address, not {url}")
        check_key("web.key", key)
        require(form == "searxng" or key is not None, f"web.service={form} wants a key: name its variable with web.key")
        self.form = form
        self.url = str(url)
        self.key = key

    def find_pages(self, query: str, count: int) -> list[Document]:
        """Up to `count` pages, best first; [] where the service finds none. Raises FetchError."""
        response = FORMS[self.form](self.url, query, count, os.environ.get(self.key or "", "").strip())
        host = urlsplit(self.url).hostname
        if response.status != 200:
            raise FetchError(f"{host} answered with status {response.status}", response.status)
        try:
            whole = json.loads(response.body)
        except (ValueError, RecursionError) as error:
            raise FetchError(f"{host}: its answer is not JSON") from error
        pages = list(_parse_pages(whole))
        # An answer of another form would otherwise be taken for one without a page, and kept.
        if not pages and not _is_empty(whole):
            raise FetchError(f"{host}: its answer has not the form of {self.form}")
        return pages[:count]


def _get_results(whole: Any) -> Any:
    # Brave's results stand within `web`, the others' at the top.
    node = whole.get("web", whole) if isinstance(whole, dict) else None
    return node.get("results") if isinstance(node, dict) else None


def _is_empty(whole: Any) -> bool:
    return isinstance(_get_results(whole), list) and not _get_results(whole)


def _parse_pages(whole: Any) -> Iterator[Document]:
    """The pages of an answer in any of the forms; what has no address or no text is left out."""
    rows = _get_results(whole)
    for row in rows if isinstance(rows, list) else []:
        fields = row if isinstance(row, dict) else {}
        # SearXNG and Tavily say `content`, Brave `description`.
        url, text = fields.get("url"), fields.get("content") or fields.get("description")
        if isinstance(url, str) and url and isinstance(text, str) and text.strip():
            title = fields.get("title")
            named = title[:500] if isinstance(title, str) else ""
            yield Document(to_encodable(url[:2000]), to_encodable(text.strip()[:LONGEST]), to_encodable(named))


@component
class WebRetriever(Stage):
    """The `results` best pages of the web for each query, behind the corpus' own chunks; kept for the day.

    A search that fails is tried again, twice. What still fails finds nothing, which is said; when more than a tenth of
    a batch fails the trial does: it would be measured as if there were no web.
    """

    algorithm = "rag_opt.components.web.WebRetriever"

    pays_per_query = True

    def __init__(self, service: Any, results: int, at_once: int) -> None:
        require_whole("results", results)
        require_whole("at_once", at_once)
        self.service = service
        self.results = results
        self.at_once = at_once

    @component.output_types(web_ranking=Rankings)
    def run(self, web_queries: Searches, chunks: Chunks) -> dict[str, Rankings]:
        queries = web_queries.variants[0]
        lists, seconds = self._search_all(queries)
        # Services cut a page differently for each question: another text is another page.
        pages = list(dict.fromkeys(page for found in lists for page in found))
        whole = chunks.append_documents(tuple(pages))
        place = {page: len(chunks) + number for number, page in enumerate(pages)}
        rows = [np.array([place[page] for page in found], np.int32) for found in lists]
        columns = stack_rankings(map(score_by_rank, rows), self.results)
        # With what was found: on another day the same question finds other pages.
        key = compute_key(self.fingerprint, queries.key, whole.key, columns["rows"].tolist())
        found = Rankings(whole, columns["rows"], columns["scores"], key, {key: seconds})
        return {"web_ranking": found.add_costs(web_queries)}

    def _search_all(self, queries: Queries) -> tuple[list[list[Document]], float]:
        """Per query its pages, and the seconds a query took, by the median."""
        with ThreadPoolExecutor(self.at_once) as pool:
            found = list(pool.map(self._search_cached, queries.texts))
        failed = [each for each in found if isinstance(each, FetchError)]
        if len(failed) > LOST * len(found):
            raise ComponentError(
                f"web: the search service failed for {len(failed)} of {len(found)} questions: {failed[0]}"
            ) from failed[0]
        if failed:
            self.notices.report_once(f"web: {len(failed)} questions were answered without it: {failed[0]}")
        lists = [[] if isinstance(each, FetchError) else each[0] for each in found]
        seconds = [each[1] for each in found if not isinstance(each, FetchError)]
        return lists, float(np.median(seconds)) if seconds else 0.0

    def _search_with_retries(self, query: str) -> list[Document]:
        """The pages of one search, each address once."""
        for left in reversed(range(TRIES)):
            try:
                pages = self.service.find_pages(query, self.results)
                found: dict[str, Document] = {}
                for page in pages:
                    found.setdefault(page.id, page)
                return list(found.values())
            except FetchError:
                if not left:
                    raise
                # Jittered, or all threads would come back at the same moment.
                time.sleep(random.uniform(0.5, 1.0) * 2 ** (TRIES - 1 - left))
        raise AssertionError  # the last round returns or raises

    def _search_cached(self, query: str) -> tuple[list[Document], float] | FetchError:
        # In UTC, so that a day ends at the same moment on every machine.
        day = datetime.now(UTC).date().isoformat()
        key = compute_key(self.service.fingerprint, query, self.results, day)

        def columns() -> dict[str, Any]:
            start = time.perf_counter()
            pages = self._search_with_retries(query)
            seconds = np.full(len(pages), time.perf_counter() - start)
            names = ("id", "text", "title")
            return {**{name: [getattr(page, name) for page in pages] for name in names}, "seconds": seconds}

        # A forecast asks nobody.
        if self.llm.rehearsal is not None:
            return [], 0.0
        try:
            table = self.store.get_table("web", key, columns)
        except FetchError as error:
            # Given back, not raised: a few of a batch may fail. Nothing is kept of it, so it is asked for again.
            return error
        rows = zip(*(table.columns[name] for name in ("id", "text", "title")), strict=True)
        return [Document(*row) for row in rows], table.seconds
