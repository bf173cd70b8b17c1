"""Models that bring prompts are used as sentence-transformers' own encode_query and encode_document use them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag_opt.cache.store import Store
from rag_opt.components.embedders.embed import ChunkEmbedder, QueryEmbedder
from rag_opt.components.embedders.encoders import MiniLM, SentenceTransformerEncoder
from rag_opt.components.embedders.hashing import Hashing
from rag_opt.components.rerankers.pairs import CrossEncoder
from rag_opt.components.resources import Resources
from rag_opt.components.splitters.chunkers import NoSplitter, SentenceSplitter
from rag_opt.console.notices import Notices
from rag_opt.console.progress import Screen
from rag_opt.records.documents import Document, Documents, Queries, Query
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks, Searches
from tests.services import tiny_models

PROMPTS = {"query": "Represent this question for searching relevant passages: ", "document": "passage: "}
TEXTS = ["which otter lives here", "a camel", "the squirrel is up in the tree", "word " * 60, ""]


def encoder(model: str, resources: Resources | None = None, **options: object) -> SentenceTransformerEncoder:
    made = SentenceTransformerEncoder(model, None, "float32", None, **options)
    made.use(resources or Resources.from_store(Store()))
    return made


def chunks(*texts: str, title: str = "") -> Chunks:
    documents = tuple(Document(f"d{i}", text, title) for i, text in enumerate(texts))
    return NoSplitter().run(Documents(documents, compute_key(texts, title)))["chunks"]


@pytest.mark.parametrize("pools_prompt", [True, False])
@pytest.mark.parametrize(
    ("prompts", "default"),
    [
        (PROMPTS, None),
        (PROMPTS, "query"),
        ({"query": "q: ", "passage": "p: "}, None),
        ({"document": "d: "}, "document"),
        ({}, None),
    ],
)
def test_queries_and_documents_are_encoded_as_the_library_encodes_them(
    tmp_path: Path, prompts: dict[str, str], default: str | None, pools_prompt: bool
) -> None:
    """The same vectors, whether the prompt is pooled or not, truncated or not."""
    ours = encoder(tiny_models.sentence_encoder(tmp_path, prompts, default=default, pools_prompt=pools_prompt))
    theirs = ours.load_model()
    for mine, wanted in (
        (ours.for_queries.encode(TEXTS), theirs.encode_query(TEXTS, normalize_embeddings=True)),
        (ours.for_documents.encode(TEXTS), theirs.encode_document(TEXTS, normalize_embeddings=True)),
        (ours.encode(TEXTS), theirs.encode(TEXTS, normalize_embeddings=True)),
    ):
        np.testing.assert_allclose(mine, wanted, atol=2e-6)


def test_a_model_of_two_routes_reads_queries_by_one_and_documents_by_the_other(tmp_path: Path) -> None:
    ours = encoder(tiny_models.two_routes(tmp_path))
    theirs = ours.load_model()
    asked, found = ours.for_queries.encode(TEXTS), ours.for_documents.encode(TEXTS)
    np.testing.assert_allclose(asked, theirs.encode_query(TEXTS, normalize_embeddings=True), atol=2e-6)
    np.testing.assert_allclose(found, theirs.encode_document(TEXTS, normalize_embeddings=True), atol=2e-6)
    assert not np.allclose(asked, found)
    assert ours.for_queries.fingerprint != ours.for_documents.fingerprint
    assert ours.for_documents.count_lengths(["a camel"]) == [4]


def test_own_prompts_replace_those_of_the_model(tmp_path: Path) -> None:
    model = tiny_models.sentence_encoder(tmp_path, PROMPTS)
    ours = encoder(model, query_prompt="find: ", document_prompt="")
    theirs = ours.load_model()
    asked = theirs.encode_query(TEXTS, prompt="find: ", normalize_embeddings=True)
    np.testing.assert_allclose(ours.for_queries.encode(TEXTS), asked, atol=2e-6)
    assert ours.for_documents is ours
    with pytest.raises(ValueError, match="query_prompt must be a text or null, not 3"):
        encoder(model, query_prompt=3)


def test_the_pipelines_embedders_use_them(tmp_path: Path) -> None:
    ours = encoder(tiny_models.sentence_encoder(tmp_path, PROMPTS))
    theirs = ours.load_model()
    vectors = ChunkEmbedder(ours).run(chunks("a camel", "an otter"))["vectors"].values
    np.testing.assert_allclose(
        vectors, theirs.encode_document(["a camel", "an otter"], normalize_embeddings=True), atol=2e-6
    )
    asked = Queries.from_items((Query("q", "a camel"),))
    found = QueryEmbedder(ours).run(Searches((asked,)))["query_vectors"].vectors[0].values
    np.testing.assert_allclose(found, theirs.encode_query(["a camel"], normalize_embeddings=True), atol=2e-6)


def test_a_text_has_two_entries_only_where_its_prompts_differ(tmp_path: Path) -> None:
    ours = encoder(tiny_models.sentence_encoder(tmp_path, PROMPTS))
    prints = {ours.fingerprint, ours.for_queries.fingerprint, ours.for_documents.fingerprint}
    assert len(prints) == 3
    same = encoder(ours.model, query_prompt="x: ", document_prompt="x: ")
    assert same.for_queries.fingerprint == same.for_documents.fingerprint
    for plain in (MiniLM("float32"), Hashing()):
        assert plain.for_queries is plain.for_documents is plain


def test_what_the_encoder_does_not_read_is_counted_and_told_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """32 tokens, of which the prompt and the model's marks take 4."""
    resources = Resources.from_store(Store(tmp_path / "store"))
    model = tiny_models.sentence_encoder(tmp_path, {"document": "passage: "})
    long, short = "river " * 29, "river " * 28
    with Screen():
        for _ in range(2):
            ours = encoder(model, resources)
            embedder = ChunkEmbedder(ours)
            embedder.use(resources)
            embedder.run(chunks(long, short, long, "camel"))
            embedder.run(chunks(short, "camel"))
    line = "model reads 32 tokens: 2 of 4 chunks are longer, the rest is not embedded"
    assert capsys.readouterr().err.count(line) == 1
    assert [each for each in resources.notices.said if "reads 32" in each] == [
        f"{line}; splitter=tokens splitter.chunk_size=28 stays within"
    ]


def test_without_a_report_nothing_is_counted_and_no_model_is_loaded(tmp_path: Path) -> None:
    resources = replace(Resources.from_store(Store()), notices=Notices(reporting=False))
    scorer = CrossEncoder("/no/such/model")
    scorer.use(resources)
    scorer.report_truncated(chunks("river " * 600))
    assert "windows" not in resources.store.misses
    resources.notices.record_notice("half of all chunks are cut")
    assert not resources.notices.kept


def test_what_a_cross_encoder_does_not_read_is_told(tmp_path: Path) -> None:
    scorer = CrossEncoder(tiny_models.cross_encoder(tmp_path))
    scorer.use(resources := Resources.from_store(Store()))
    scorer.report_truncated(chunks("river " * 600, "an otter"))
    name = tmp_path.name
    assert list(resources.notices.kept) == [
        f"{name} reads 512 tokens: 1 of 2 chunks are longer, the rest is not read; a smaller splitter.chunk_size stays within"
    ]


def test_the_size_that_is_advised_fits(tmp_path: Path) -> None:
    ours = encoder(tiny_models.sentence_encoder(tmp_path, PROMPTS))
    long = Documents((Document("d", "River otters eat fish. " * 40, "All about otters"),), "long")
    whole = NoSplitter().run(long)["chunks"]
    embedder = ChunkEmbedder(ours)
    embedder.use(resources := Resources.from_store(Store()))
    embedder.run(whole)
    (line,) = (each for each in resources.notices.said if "tokens" in each)
    size = int(line.partition("chunk_size=")[2].split()[0])
    cut = SentenceSplitter(size, 0, "tokens", ours)
    cut.use(resources)
    pieces = cut.run(long)["chunks"]
    assert max(ours.for_documents.count_lengths(pieces.contents)) <= 32
    assert len(pieces) > 1
