"""Pages of the web: asked for in three forms, kept for the day, ranked behind the corpus and fused with it."""

from __future__ import annotations

import contextlib
import json
import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.components.retrievers import web as module
from rag_opt.components.retrievers.fetching import FetchError, fetch_url
from rag_opt.components.retrievers.fusion import BELOW, Fusion
from rag_opt.components.retrievers.web import LONGEST, SearchService, WebRetriever
from rag_opt.errors import ComponentError
from rag_opt.llm.client import Rehearsal
from rag_opt.records.documents import Document, Documents, Queries, Query
from rag_opt.records.products import Chunks, Rankings, Searches
from tests.conftest import DOCUMENTS
from tests.services import counts, fault, reset
from tests.unit.hostile import HOSTILE

PATHS = {"searxng": "/searxng/search", "brave": "/brave/res/v1/web/search", "tavily": "/tavily/search"}


@pytest.fixture(autouse=True)
def _key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TRIES", 1)
    monkeypatch.setattr(module, "LOST", 0.7)
    monkeypatch.setenv("RAG_OPT_TEST_KEY", "canary-value")


@pytest.fixture
def pages(web: str) -> Iterator[str]:
    fault(web, "none")
    reset(web)
    yield web
    fault(web, "none")


def service(base: str, form: str = "searxng") -> SearchService:
    return SearchService(form, base + PATHS[form], "RAG_OPT_TEST_KEY")


def searches(*texts: str) -> Searches:
    return Searches((Queries.from_items(tuple(Query(str(place), text) for place, text in enumerate(texts))),))


def corpus(count: int = 3) -> Chunks:
    items = tuple(Document(f"d{place}", f"text of document {place}") for place in range(count))
    ends = np.array([len(each.text) for each in items], np.int32)
    rows = np.arange(count, dtype=np.int32)
    return Chunks(Documents(items, "docs"), rows, np.zeros(count, np.int32), ends, "chunks")


def retriever(found: Any, store: Store, results: int = 3, at_once: int = 2) -> WebRetriever:
    made = WebRetriever(found, results, at_once)
    made.use(Resources.from_store(store))
    return made


def found(made: WebRetriever, *texts: str, chunks: Chunks | None = None) -> Rankings:
    return made.run(searches(*texts), chunks or corpus())["web_ranking"]


def ids(ranking: Rankings, query: int = 0) -> list[str]:
    return [ranking.chunks.document_ids[row] for row, _ in ranking.get_hits(query)]


class Told:
    """A search service that answers every query with `answer(query)`: JSON, or bytes as they are."""

    def __init__(self) -> None:
        self.answer: Callable[[str], Any] = lambda query: {"results": []}
        self.asked: list[str] = []
        self.url = ""


@pytest.fixture
def told() -> Iterator[Told]:
    told = Told()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = parse_qs(urlsplit(self.path).query, keep_blank_values=True)["q"][0]
            told.asked.append(query)
            said = told.answer(query)
            body = said if isinstance(said, bytes) else json.dumps(said).encode()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with contextlib.suppress(OSError):
                self.wfile.write(body)

        def log_message(self, *args: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads, server.block_on_close = True, False
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    told.url = f"http://127.0.0.1:{server.server_port}"
    yield told
    server.shutdown()
    server.server_close()


def asking(told: Told, store: Store, **options: Any) -> WebRetriever:
    return retriever(SearchService("searxng", told.url, None), store, **options)


def page(name: str, content: Any = "some text", title: Any = "A title") -> dict[str, Any]:
    return {"url": f"https://example.org/{name}", "title": title, "content": content}


# ---- the three forms


@pytest.mark.parametrize("form", PATHS)
def test_every_form_finds_the_same_pages(pages: str, form: str) -> None:
    best = service(pages, form).find_pages("Which animals purr and sleep in the day? Cats", 2)
    assert len(best) == 2
    assert best[0].id == "https://example.org/cats"
    assert best[0].text == DOCUMENTS[0]["text"]
    assert best[0].title == "cats"
    assert counts(pages)[form] == counts(pages)["requests"] == 1
    assert service(pages, form).find_pages("zzzz qqqq", 5) == []


@pytest.mark.parametrize("form", ["brave", "tavily"])
def test_a_service_that_wants_a_key_is_not_asked_without_one(pages: str, form: str) -> None:
    with pytest.raises(ValueError, match=rf"web.service={form} wants a key: .*web.key"):
        SearchService(form, pages + PATHS[form], None)


@pytest.mark.parametrize("form", ["brave", "tavily"])
@pytest.mark.parametrize("value", ["canary\nvalue", "canary\r\nX-Evil: 1", "canary\x00value"])
def test_a_key_that_no_header_can_carry_does_not_show(
    pages: str, store: Store, form: str, value: str, monkeypatch
) -> None:
    monkeypatch.setattr(os, "environ", {"RAG_OPT_TEST_KEY": value})
    made = retriever(service(pages, form), store)
    with pytest.raises(ComponentError) as caught:
        found(made, "cats")
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("form", PATHS)
@pytest.mark.parametrize("query", ["a&b=c#d?e/%20+", "", "\x00\r\nHost: evil", "\U0001f600 caf\u00e9", "q" * 5000])
def test_a_query_is_data(pages: str, form: str, query: str) -> None:
    with contextlib.suppress(FetchError):  # such as a query that is empty, or too long for an address
        service(pages, form).find_pages(query, 2)
    assert counts(pages)["requests"] == 1


def test_a_query_arrives_as_it_is(told: Told, store: Store) -> None:
    told.answer = lambda query: {"results": [page("a")]}
    texts = ["a&b=c#d?e/%20+", "caf\u00e9 \U0001f600", "  spaces  ", "a\x00b\r\nc"]
    found(asking(told, store), *texts)
    assert sorted(told.asked) == sorted(texts)


@pytest.mark.parametrize(
    ("form", "url", "key", "message"),
    [
        ("google", "http://localhost/", None, r"web\.service must be one of"),
        ("searxng", None, None, r"web\.url: the web is searched by a service"),
        ("searxng", "file:///etc/passwd", None, r"web\.url must be an http\(s\) address"),
        ("searxng", "localhost:8080", None, r"web\.url must be an http\(s\) address"),
        ("brave", "http://localhost/", "tvly-canary-0123456789", "key itself"),
        ("brave", "http://localhost/", "RAG_OPT_NOT_SET", r"web\.key=RAG_OPT_NOT_SET.*not set"),
    ],
)
def test_what_can_not_be_asked_is_refused(form: str, url: str | None, key: str | None, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        SearchService(form, url, key)
    assert "canary" not in str(caught.value)


def test_a_password_in_the_address_is_refused_and_not_repeated(store: Store) -> None:
    with pytest.raises((ValueError, ComponentError)) as caught:
        found(retriever(SearchService("searxng", "https://user:canary@example.org/search", None), store), "cats")
    assert "canary" not in str(caught.value)


# ---- kept for the day


def test_what_was_found_is_kept_for_the_day(pages: str, tmp_path: Path, monkeypatch) -> None:
    texts = ["cats purr", "dogs bark"]
    first = found(retriever(service(pages), Store(tmp_path)), *texts)
    assert counts(pages)["requests"] == 2
    again = found(retriever(service(pages), Store(tmp_path)), *texts)
    assert counts(pages)["requests"] == 2
    assert [ids(again, row) for row in (0, 1)] == [ids(first, row) for row in (0, 1)]
    assert again.key == first.key
    assert again.chunks.contents == first.chunks.contents
    found(retriever(service(pages), Store(tmp_path), results=2), *texts)
    assert counts(pages)["requests"] == 4, "another number of results is another question"

    class Tomorrow(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return datetime.now(tz) + timedelta(days=1)

    monkeypatch.setattr(module, "datetime", Tomorrow)
    tomorrow = found(retriever(service(pages), Store(tmp_path)), *texts)
    assert counts(pages)["requests"] == 6
    assert ids(tomorrow) == ids(first)
    assert Tomorrow.now(UTC) > datetime.now(UTC)


def test_nothing_found_is_kept_too(pages: str, tmp_path: Path) -> None:
    for _ in range(2):
        ranking = found(retriever(service(pages), Store(tmp_path)), "zzzz", "cats purr")
        assert ids(ranking, 0) == []
        assert ids(ranking, 1)
    assert counts(pages)["requests"] == 2


def test_what_failed_is_asked_again(pages: str, tmp_path: Path) -> None:
    fault(pages, "server_error", every=2)
    first = found(retriever(service(pages), Store(tmp_path), at_once=1), "cats purr", "dogs bark")
    assert [bool(ids(first, row)) for row in (0, 1)] == [True, False]
    fault(pages, "none")
    reset(pages)
    again = found(retriever(service(pages), Store(tmp_path), at_once=1), "cats purr", "dogs bark")
    assert all(ids(again, row) for row in (0, 1))
    assert counts(pages)["requests"] == 1
    assert again.key != first.key


def test_a_key_is_in_nothing_that_is_kept(pages: str, tmp_path: Path) -> None:
    found(retriever(service(pages, "tavily"), Store(tmp_path)), "cats purr")
    assert not any(b"canary" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_a_rehearsal_asks_nobody(pages: str, store: Store) -> None:
    mine = retriever(service(pages), store)
    mine.use(replace(mine.resources, llm=replace(mine.llm, rehearsal=Rehearsal())))
    ranking = found(mine, "cats purr")
    assert ids(ranking) == []
    assert counts(pages)["requests"] == 0


# ---- faults


@pytest.mark.parametrize(
    "name", ["redirect_private", "redirect_loop", "huge", "slow", "server_error", "invalid_json", "wrong_shape"]
)
def test_one_query_that_fails_finds_nothing_and_all_are_an_error(
    pages: str, store: Store, name: str, monkeypatch
) -> None:
    monkeypatch.setattr(module, "fetch_url", partial(fetch_url, timeout=1.5))
    fault(pages, name, every=2)
    ranking = found(retriever(service(pages), store, at_once=1), "cats purr", "dogs bark", "bees make honey")
    assert [bool(ids(ranking, row)) for row in range(3)] == [True, False, True]
    fault(pages, name)
    with pytest.raises(ComponentError, match=r"web: the search service failed for 2 of 2 questions: .+"):
        found(retriever(service(pages), store), "fish breathe", "trees")


def test_no_service_at_all_is_said(store: Store) -> None:
    made = retriever(SearchService("searxng", "http://127.0.0.1:9/search", None), store)
    with pytest.raises(ComponentError, match=r"web: the search service failed for 1 of 1 questions: 127\.0\.0\.1"):
        found(made, "cats")


def test_no_questions_are_no_error(pages: str, store: Store) -> None:
    assert found(retriever(service(pages), store)).rows.shape == (0, 3)


# ---- hostile pages


def test_pages_without_address_or_text_are_left_out(told: Told, store: Store) -> None:
    rows = [
        {"title": "no address", "content": "text"},
        {"url": "", "content": "text"},
        {"url": 5, "content": "text"},
        {"url": None, "content": "text"},
        page("no-text", None),
        page("empty", ""),
        page("blank", " \n\t "),
        page("number", 5),
        page("list", ["text"]),
        None,
        5,
        "text",
        [],
        page("good", "  good text \n", title=None),
        page("odd-title", "text", title={"a": 1}),
    ]
    told.answer = lambda query: {"results": rows}
    ranking = found(asking(told, store, results=20), "cats")
    assert ids(ranking) == ["https://example.org/good", "https://example.org/odd-title"]
    assert ranking.get_texts(0) == ["good text", "text"]


@pytest.mark.parametrize("place", range(len(HOSTILE)))
def test_a_hostile_page_is_data(told: Told, tmp_path: Path, place: int) -> None:
    text = HOSTILE[place]
    told.answer = lambda query: {"results": [page("evil", text, title=text), page("good", "good text")]}
    for _ in range(2):
        ranking = found(asking(told, Store(tmp_path)), "cats")
        assert ids(ranking) == ["https://example.org/evil", "https://example.org/good"]
        assert ranking.get_texts(0)[0] == text.strip()[:LONGEST]
    assert len(told.asked) == 1


def test_a_page_of_a_megabyte_is_cut(told: Told, tmp_path: Path) -> None:
    huge = {"url": "https://example.org/" + "u" * 10**5, "title": "t" * 10**5, "content": "c " * 500_000}
    told.answer = lambda query: {"results": [huge]}
    ranking = found(asking(told, Store(tmp_path)), "cats")
    ((document,),) = [ranking.chunks.documents.items[3:]]
    assert len(document.text) <= LONGEST
    assert len(document.title) <= 500
    assert len(document.id) <= 2000


def test_no_more_pages_are_taken_than_were_asked_for(told: Told, store: Store) -> None:
    told.answer = lambda query: {"results": [page(str(number)) for number in range(1000)]}
    assert ids(found(asking(told, store, results=4), "cats")) == [f"https://example.org/{n}" for n in range(4)]


@pytest.mark.parametrize("field", ["url", "title", "content"])
def test_half_a_character_is_no_error(told: Told, tmp_path: Path, field: str) -> None:
    told.answer = lambda query: {"results": [{**page("a"), field: "https://example.org/\ud800 text"}]}
    assert len(ids(found(asking(told, Store(tmp_path)), "cats"))) == 1


def test_an_answer_nested_without_end_is_a_failed_search(told: Told, store: Store) -> None:
    told.answer = lambda query: b"[" * 500_000 if query == "evil" else {"results": [page("a")]}
    ranking = found(asking(told, store), "cats", "evil")
    assert [len(ids(ranking, row)) for row in (0, 1)] == [1, 0]


def test_a_page_that_is_listed_twice_is_there_once(told: Told, store: Store) -> None:
    told.answer = lambda query: {"results": [page("a"), page("b"), page("a")]}
    assert ids(found(asking(told, store), "cats")) == ["https://example.org/a", "https://example.org/b"]


def test_a_query_gets_the_text_that_was_found_for_it(told: Told, store: Store) -> None:
    told.answer = lambda query: {"results": [page("same", f"a snippet about {query}")]}
    ranking = found(asking(told, store), "cats", "dogs")
    assert [ranking.get_texts(row) for row in (0, 1)] == [["a snippet about cats"], ["a snippet about dogs"]]


@pytest.mark.parametrize(
    "body", [b"", b"null", b"[]", b"5", b'"text"', b"{}", b'{"results": 5}', b'{"web": null}', b"\xff\xfe", b"NaN"]
)
def test_an_answer_of_another_form_is_a_failed_search(told: Told, store: Store, body: bytes) -> None:
    told.answer = lambda query: body
    with pytest.raises(ComponentError, match="its answer"):
        found(asking(told, store), "cats")


# ---- ranked behind the corpus


def test_pages_stand_behind_the_corpus_and_its_chunks_stay(pages: str, store: Store) -> None:
    chunks = corpus(4)
    ranking = found(retriever(service(pages), store), "cats purr", "dogs bark and cats purr", chunks=chunks)
    assert ranking.chunks.base is chunks
    assert ranking.chunks.document_ids[:4] == chunks.document_ids
    assert ranking.chunks.texts[:4] == chunks.texts
    hits = ranking.rows[ranking.rows >= 0]
    assert hits.min() >= 4
    assert len(ranking.chunks) == 4 + len(set(hits.tolist())), "a page that two queries find is there once"
    assert ranking.scores[0, 0] == 1.0
    assert np.all(np.diff(ranking.scores[1][ranking.rows[1] >= 0]) < 0)
    titles = [ranking.chunks.contents[row].split("\n")[0] for row, _ in ranking.get_hits(0)]
    assert titles[0] == "cats"


def test_a_page_with_the_id_of_a_document_is_another_chunk(told: Told, store: Store) -> None:
    told.answer = lambda query: {"results": [{"url": "d0", "title": "", "content": "not the document"}]}
    ranking = found(asking(told, store), "cats")
    assert ranking.get_texts(0) == ["not the document"]


Hits = list[tuple[int, float]]


def slow_fusion(rankings: list[Hits], method: str, weights: list[float], scaling: str, rrf_k: int) -> dict[int, float]:
    """The score of every chunk, one after the other, from the words of Fusion's docstring."""
    total: dict[int, float] = {}
    for hits, weight in zip(rankings, weights, strict=True):
        shares: dict[int, float] = {}
        lacking = 0.0
        if method == "rrf":
            shares = {row: 1 / (rrf_k + rank) for rank, (row, _) in enumerate(hits, 1)}
            weight = 1.0
        elif hits:
            values = [score for _, score in hits]
            middle = sum(values) / len(values)
            deviation = math.sqrt(sum((value - middle) ** 2 for value in values) / len(values))
            origin, width = (min(values), max(values) - min(values)) if scaling == "minmax" else (middle, deviation)
            flat = 0.5 if scaling == "minmax" else 0.0
            shares = {row: (score - origin) / width if width > 0 else flat for row, score in hits}
            lacking = ((min(values) - origin) / width if width > 0 else 0.0) - BELOW
        for each in {row for ranking in rankings for row, _ in ranking}:
            total[each] = total.get(each, 0.0) + weight * shares.get(each, lacking)
    return total


@st.composite
def three_rankings(draw: st.DrawFn) -> tuple[int, list[list[Hits]]]:
    """How many chunks the corpus has, and by query the hits of BM25, dense and the web (whose rows stand behind)."""
    size, new, queries = draw(st.integers(1, 6)), draw(st.integers(0, 4)), draw(st.integers(1, 3))
    scores = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 3.5, 8.0])

    def hits(first: int, count: int) -> Hits:
        rows = draw(st.lists(st.integers(first, first + count - 1), unique=True, max_size=count)) if count else []
        return list(zip(rows, sorted((draw(scores) for _ in rows), reverse=True), strict=True))

    by_query = [[hits(0, size), hits(0, size), hits(size, new)] for _ in range(queries)]
    web = [[(row, 1 / rank) for rank, (row, _) in enumerate(rankings[2], 1)] for rankings in by_query]
    return size, [[*rankings[:2], found] for rankings, found in zip(by_query, web, strict=True)]


def as_rankings(chunks: Chunks, by_query: list[Hits], depth: int, key: str) -> Rankings:
    rows = np.full((len(by_query), depth), -1, np.int32)
    scores = np.full((len(by_query), depth), -np.inf, np.float32)
    for query, hits in enumerate(by_query):
        for place, (row, score) in enumerate(hits):
            rows[query, place], scores[query, place] = row, score
    return Rankings(chunks, rows, scores, key)


@given(
    three_rankings(),
    st.sampled_from(["weighted", "rrf"]),
    st.sampled_from(["minmax", "zscore"]),
    st.sampled_from([0.0, 0.25, 0.5, 1.0]),
    st.sampled_from([0.0, 0.25, 0.75, 1.0]),
    st.integers(1, 12),
    st.sets(st.sampled_from(["bm25", "dense"])),
)
def test_three_rankings_fuse_as_they_do_one_by_one(
    drawn: tuple[int, list[list[Hits]]],
    method: str,
    scaling: str,
    hybrid: float,
    share: float,
    top_k: int,
    local: set[str],
) -> None:
    size, by_query = drawn
    chunks = corpus(size)
    pages = tuple(Document(f"https://p{n}", f"page {n}") for n in range(4))
    whole = chunks.append_documents(pages)
    names = [*(name for name in ("bm25", "dense") if name in local), "web"]
    place = {"bm25": 0, "dense": 1, "web": 2}
    given_ = {
        f"{name}_ranking": as_rankings(
            whole if name == "web" else chunks,
            [rankings[place[name]] for rankings in by_query],
            4 if name == "web" else size,
            name,
        )
        for name in names
    }
    left = 1 - share if local else 0.0
    both = {"bm25": 1 - hybrid, "dense": hybrid} if len(local) == 2 else dict.fromkeys(local, 1.0)
    weights = [left * both[name] for name in names[:-1]] + [share if local else 1.0]
    fusion = Fusion(top_k, method, hybrid, scaling, 60, share)
    fusion.use(Resources.from_store(Store()))
    ranking = fusion.run(**given_)["ranking"]
    assert ranking.chunks is whole
    for query, rankings in enumerate(by_query):
        hits = ranking.get_hits(query)
        used = [rankings[place[name]] for name in names]
        assert len({row for row, _ in hits}) == len(hits)
        if not local:
            assert hits == [(row, np.float32(score)) for row, score in used[0]][:top_k]
            continue
        expected = slow_fusion(used, method, weights, scaling, 60)
        assert len(hits) == min(top_k, len(expected))
        best = sorted(expected.values(), reverse=True)[: len(hits)]
        assert [score for _, score in hits] == pytest.approx(best, abs=2e-6)
        assert [expected[row] for row, _ in hits] == pytest.approx(best, abs=2e-6)


def test_a_web_weight_of_one_reads_the_web_first(pages: str, store: Store) -> None:
    web_ranking = found(retriever(service(pages), store), "cats purr and dogs bark")
    chunks = web_ranking.chunks.base
    assert chunks is not None
    local = as_rankings(chunks, [[(0, 5.0), (1, 2.0)]], 3, "bm25")
    for share, first in ((1.0, web_ranking.rows[0, 0]), (0.0, 0)):
        fusion = Fusion(3, web_weight=share)
        fusion.use(Resources.from_store(store))
        assert fusion.run(bm25_ranking=local, web_ranking=web_ranking)["ranking"].rows[0, 0] == first


class Flaky:
    """Fails so many times, then finds a page."""

    fingerprint = "flaky"

    def __init__(self, failures: dict[str, int]) -> None:
        self.failures = failures

    def find_pages(self, query: str, count: int) -> list[Document]:
        del count
        self.failures[query] = self.failures.get(query, 0) - 1
        if self.failures[query] >= 0:
            raise FetchError("the service is busy")
        return [Document(f"https://a.test/{query}", query)]


def test_a_search_that_fails_is_tried_again(store: Store, monkeypatch) -> None:
    monkeypatch.setattr(module, "TRIES", 3)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    assert ids(found(retriever(Flaky({"cats": 2}), store), "cats")) == ["https://a.test/cats"]


def test_few_lost_searches_are_no_web_and_many_end_the_trial(store: Store, monkeypatch) -> None:
    monkeypatch.setattr(module, "LOST", 0.1)
    few = retriever(Flaky({"q0": 9}), store)
    assert ids(found(few, *(f"q{number}" for number in range(10)))) == []
    with pytest.raises(ComponentError, match="failed for 2 of 10 questions: the service is busy"):
        found(retriever(Flaky({"p0": 9, "p1": 9}), store), *(f"p{number}" for number in range(10)))
