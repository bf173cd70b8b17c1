"""Encoders: a vector depends on its text alone, precision and batch size are this machine's fastest."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_opt.cache.store import Store
from rag_opt.components.embedders.embedding_cache import embed_texts
from rag_opt.components.embedders.encoders import MiniLM
from rag_opt.components.embedders.minilm import find_minilm
from rag_opt.components.models import speed
from rag_opt.components.resources import Resources
from rag_opt.components.stage import IN_MEMORY

WORDS = "the quick brown fox jumps over a lazy dog while water boils".split()


@pytest.fixture(scope="module")
def minilm() -> MiniLM:
    return MiniLM("float32", 1024)


def test_minilm_is_the_librarys_minilm(minilm: MiniLM) -> None:
    from sentence_transformers import SentenceTransformer

    texts = ["A cat sleeps.", "", "Dogs bark at strangers in the night, and puppies chew shoes. " * 40, "Ünïcødé"]
    library = SentenceTransformer(str(find_minilm())).encode(texts, normalize_embeddings=True)
    np.testing.assert_allclose(minilm.encode(texts), library, atol=2e-6)


def test_bfloat16_is_near() -> None:
    texts = [f"{a} {b}" for a in WORDS for b in WORDS[:3]]
    exact, near = MiniLM("float32", 1024).encode(texts), MiniLM("bfloat16", 1024).encode(texts)
    assert (exact * near).sum(axis=1).min() > 0.999
    assert MiniLM("float32").fingerprint != MiniLM("bfloat16").fingerprint
    assert MiniLM("float32", 512).fingerprint == MiniLM("float32", 64).fingerprint


@settings(max_examples=20)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=20).map(" ".join), min_size=1, max_size=12), st.randoms())
def test_a_vector_does_not_depend_on_what_else_is_encoded(minilm: MiniLM, texts: list[str], random) -> None:
    together = minilm.encode(texts)
    np.testing.assert_allclose(np.concatenate([minilm.encode([text]) for text in texts]), together, atol=1e-6)
    order = random.sample(range(len(texts)), len(texts))
    np.testing.assert_allclose(minilm.encode([texts[i] for i in order]), together[order], atol=1e-6)


@pytest.mark.parametrize(("precision", "rounding"), [("float32", 1e-6), ("bfloat16", 0.01)])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_not_read(precision: str, rounding: float, side: str) -> None:
    encoder = MiniLM(precision, 256)
    encoder._model.tokenizer.padding_side = side
    try:
        texts = [" ".join(WORDS[: 1 + i % 11] * (1 + i % 7)) for i in range(60)]
        tokens = encoder.encode_tokens(texts)
        assert [len(vectors) for vectors in tokens] == encoder.count_lengths(texts)
        alone = [encoder.encode_tokens([text])[0] for text in texts]
        for together, single in zip(tokens, alone, strict=True):
            np.testing.assert_allclose(together, single, atol=rounding)
    finally:
        encoder._model.tokenizer.padding_side = "right"


def test_nothing_is_encoded_to_nothing(minilm: MiniLM) -> None:
    assert minilm.encode([]).shape == (0, 384)
    assert embed_texts(minilm, [], Store()).values.shape[0] == 0


def test_the_batch_size_is_measured_for_many_texts_only_and_kept(tmp_path, monkeypatch) -> None:
    calls = []
    batches = speed._time_batches
    monkeypatch.setattr(speed, "_time_batches", lambda model: [calls.append(1), batches(model)][1])
    for _ in range(2):
        encoder = MiniLM("float32")
        encoder.use(Resources.from_store(Store(tmp_path)))
        encoder.prepare(10)
        assert encoder._fast_batch is None
        encoder.prepare(100_000)
        assert encoder._fast_batch in speed.CPU_TOKENS
        IN_MEMORY.store._live.clear()
    assert len(calls) == 1


def test_a_precision_is_measured_where_the_model_will_run(tmp_path, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr(speed, "get_device", lambda: "cuda")
    monkeypatch.setattr(speed, "_describe_machine", lambda place: [place, str(tmp_path)])
    monkeypatch.setattr(speed, "_time_product", lambda name, place: asked.append((name, place)) or len(asked))
    for device in ("cpu", None, "cuda:1"):
        speed.get_fast_precision(Store(tmp_path), device)
    # The second GPU is as fast as the first.
    assert asked == [(name, place) for place in ("cpu", "cuda") for name in ("float32", "bfloat16")]


@pytest.mark.parametrize(("bfloat16", "expected"), [(0.001, "bfloat16"), (0.009, "float32"), (0.1, "float32")])
def test_bfloat16_is_taken_where_it_is_much_faster(tmp_path, monkeypatch, bfloat16: float, expected: str) -> None:
    seconds = {"float32": 0.01, "bfloat16": bfloat16}
    monkeypatch.setattr(speed, "_time_product", lambda name, _: seconds[name])
    monkeypatch.setattr(speed, "_describe_machine", lambda place: ["a machine", str(tmp_path)])
    assert speed.get_fast_precision(Store(tmp_path)) == expected
    # It is measured once, so that a noisy moment can't change what an embedding is.
    monkeypatch.setattr(speed, "_time_product", lambda *_: pytest.fail("measured again"))
    IN_MEMORY.store._live.clear()
    assert speed.get_fast_precision(Store(tmp_path)) == expected
