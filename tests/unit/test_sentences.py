"""Sentence boundaries: trained on a corpus once, and the same ever after."""

from __future__ import annotations

import time

import pytest
from nltk.tokenize.punkt import PunktSentenceTokenizer, PunktTrainer

from rag_opt.cache.store import Store
from rag_opt.components.splitters import sentences
from rag_opt.console.progress import Screen
from rag_opt.records.documents import Document, Documents

TEXT = (
    "Prof. Ada met Dr. Babbage in St. Ives. He said approx. nothing. Then Prof. Ada left for St. Ives. "
    "The engine ran. However, Dr. Babbage had approx. two cogs left. It stopped. "
)
DOCUMENTS = Documents(tuple(Document(f"d{row}", TEXT * 20) for row in range(3)), "corpus")


def test_what_was_learnt_is_kept_and_says_the_same(tmp_path, monkeypatch) -> None:
    first = sentences.get_sentences(DOCUMENTS, Store(tmp_path))
    trainer = PunktTrainer()
    for document in DOCUMENTS.items:
        trainer.train(document.text, finalize=False)
    trainer.finalize_training()
    expected = list(PunktSentenceTokenizer(trainer.get_params()).span_tokenize(TEXT * 20))
    assert first == [expected] * 3

    def again(_: Documents) -> None:
        raise AssertionError("trained twice")

    monkeypatch.setattr(sentences, "_train_punkt", again)
    other = Store(tmp_path)
    cut = [TEXT[a:b] for a, b in expected if b <= len(TEXT)]
    assert len(cut) == 3
    assert sentences.segment_texts([TEXT], DOCUMENTS, other) == [cut]
    assert sentences.get_sentences(DOCUMENTS, other) == first


@pytest.mark.parametrize("texts", [(), ("",), ("...",)])
def test_a_corpus_that_teaches_nothing_is_cut_all_the_same(tmp_path, texts) -> None:
    documents = Documents(tuple(Document(f"d{row}", text) for row, text in enumerate(texts)), repr(texts))
    for _ in range(2):
        assert sentences.segment_texts(["One. Two."], documents, Store(tmp_path)) == [["One.", "Two."]]


def test_work_that_takes_long_is_said(tmp_path, monkeypatch) -> None:
    import io

    now = iter(range(0, 10_000, 3))
    monkeypatch.setattr(time, "monotonic", lambda: float(next(now)))
    file = io.StringIO()
    with Screen(file):
        # Texts that no other test has: what was learnt of those is shared (tests/sharing.py).
        sentences.get_sentences(Documents((Document("d", TEXT * 3),), "new"), Store(None))
    assert "learning where sentences end" in file.getvalue()
    assert "sentences, documents" in file.getvalue()
