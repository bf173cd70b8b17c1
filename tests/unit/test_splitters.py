"""Splitters on texts in any script: nothing is longer than chunk_size, in whatever unit."""

from __future__ import annotations

import pytest

from rag_opt.cache.store import Store
from rag_opt.components.embedders.encoders import MiniLM
from rag_opt.components.embedders.hashing import Hashing
from rag_opt.components.resources import Resources
from rag_opt.components.splitters.chunkers import (
    RecursiveSplitter,
    SemanticSplitter,
    SentenceSplitter,
    SlidingWindowSplitter,
    WordSplitter,
)
from rag_opt.records.documents import Document, Documents
from rag_opt.records.keys import compute_key
from rag_opt.text.tokenization import count_tokens

TEXTS = {
    "chinese": "水獭住在河边，吃鱼。骆驼住在沙漠里，吃草！" * 60,
    "japanese": "カワウソは川に住み、魚を食べる。" * 60,
    "thai": "นากอยู่ริมแม่น้ำกินปลา" * 60,
    "khmer": "ភ្នំពេញជារាជធានី" * 60,
    "hindi": "ऊदबिलाव नदी में रहता है। ऊँट रेगिस्तान में रहता है। " * 40,
    "english": "An otter lives by the river and eats fish. A camel eats grass! " * 40,
    "a run": "x1/" * 20_000,
}
KINDS = (WordSplitter, SlidingWindowSplitter, SentenceSplitter, RecursiveSplitter)
Splitter = WordSplitter | SlidingWindowSplitter | SentenceSplitter | RecursiveSplitter | SemanticSplitter


def chunks(splitter: Splitter, *texts: str) -> list[str]:
    splitter.use(Resources.from_store(Store()))
    documents = Documents(tuple(Document(f"d{i}", text) for i, text in enumerate(texts)), compute_key(texts))
    return list(splitter.run(documents)["chunks"].texts)


def made(kind: type, size: int, **options: object):
    return kind(size, **({} if kind is WordSplitter else {"overlap": size // 5}), **options)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("script", TEXTS)
def test_no_chunk_is_longer_than_its_size_in_any_script(kind: type, script: str) -> None:
    text = TEXTS[script]
    found = chunks(made(kind, 50), text)
    assert len(found) > 5
    # Marks of punctuation belong to the word before them.
    assert max(map(count_tokens, found)) <= (1.3 * 50 if script != "a run" else 50 * 8)
    assert all(len(each) <= 300 for each in chunks(made(kind, 300, unit="characters"), text))


@pytest.mark.parametrize("kind", KINDS)
def test_no_chunk_has_more_tokens_than_its_size(kind: type) -> None:
    encoder = MiniLM("float32")
    encoder.use(Resources.from_store(Store()))
    for text in TEXTS.values():
        for each in chunks(made(kind, 64, unit="tokens", encoder=encoder), text[:3000]):
            # What is cut out of a word may be spelt by one piece more.
            assert len(encoder.tokenize(each)) <= 64 + 2


def test_sentences_end_at_the_full_stops_of_their_script() -> None:
    assert chunks(SentenceSplitter(10, 0), "水獭住在河边。骆驼住在沙漠！") == ["水獭住在河边。", "骆驼住在沙漠！"]
    assert chunks(SentenceSplitter(3, 0), "नदी में है। ऊँट है॥") == ["नदी में है।", "ऊँट है॥"]


def test_an_encoder_has_part_in_chunks_only_where_its_tokens_count() -> None:
    one, other = Hashing(64), Hashing(128)
    for unit, same in (("words", True), ("characters", True), ("tokens", False)):
        prints = {SentenceSplitter(9, 0, unit, encoder).fingerprint for encoder in (one, other)}
        assert (len(prints) == 1) == same
    assert SemanticSplitter(9, 0.1, one).fingerprint != SemanticSplitter(9, 0.1, other).fingerprint
    assert len({SentenceSplitter(9, 0, unit, one).fingerprint for unit in ("words", "characters", "tokens")}) == 3


def test_a_unit_that_can_not_be_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="unit must be one of words, characters, tokens, not letters"):
        WordSplitter(9, "letters")
    with pytest.raises(ValueError, match="give the splitter its encoder"):
        WordSplitter(9, "tokens")
