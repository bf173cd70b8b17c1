"""Rerankers that score a question and a passage together; each pair is scored once per scorer, in whatever study."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np

from rag_opt.components.checks import require, require_whole
from rag_opt.components.embedders.embedding_cache import score_pairs
from rag_opt.components.embedders.encoders import READY, SentenceTransformerEncoder
from rag_opt.components.embedders.truncation import report_unembedded, report_unread
from rag_opt.components.models.hub import is_local_only
from rag_opt.components.models.speed import ENDLESS, get_device
from rag_opt.components.models.weights import hash_weights, quiet_transformers
from rag_opt.components.ranking import split_ranking, stack_rankings
from rag_opt.components.stage import Part, Stage
from rag_opt.errors import ComponentError, get_first_line
from rag_opt.records.documents import Floats, Queries
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks, Rankings
from rag_opt.system.environment import disable_gc
from rag_opt.system.haystack import component

BETWEEN = "\x1e"
"""Between the question, which must not hold it, and the passage of a pair (a record separator)."""

TOKEN_VECTORS = 200_000_000
"""Bytes of token vectors that are kept in memory."""


class PairScorer(Part):
    """Question and passage, joined by BETWEEN → a score, float32 [pairs, 1]; kept as an encoder's vectors are."""

    name: str

    def prepare(self, count: int) -> None:
        """Make ready for so many pairs: what is slow once, a model that loads, is no part of what a pair takes."""

    def encode(self, pairs: list[str]) -> Floats:
        """The scores of the pairs; greater is more relevant."""
        raise NotImplementedError

    def report_truncated(self, chunks: Chunks) -> None:
        """Say how many chunks are longer than the scorer reads, where they are many."""


@component
class PairReranker(Stage):
    """A ranking in the order of a scorer's scores; `keep` chunks are handed on (None: all)."""

    algorithm = "rag_opt.components.pairs.PairReranker"

    handing = ("keep",)

    def __init__(self, scorer: PairScorer, keep: int | None = None) -> None:
        if keep is not None:
            require_whole("keep", keep)
        self.scorer = scorer
        self.keep = keep

    @component.output_types(ranking=Rankings)
    def run(self, queries: Queries, ranking: Rankings) -> dict[str, Rankings]:
        contents = ranking.chunks.contents
        # Pages of the web come with each question: there is nothing to count once.
        if ranking.chunks.base is None:
            self.scorer.report_truncated(ranking.chunks)
        hits = [[row for row in rows if row >= 0] for rows in ranking.rows.tolist()]
        pairs = [
            f"{text.replace(BETWEEN, '')}{BETWEEN}{contents[row]}"
            for text, rows in zip(queries.texts, hits, strict=True)
            for row in rows
        ]
        key = compute_key(self.fingerprint, queries.key, ranking.key)
        scores, seconds = score_pairs(self.scorer, pairs, self.store)
        ends = np.cumsum([len(rows) for rows in hits])
        found = []
        for mine, each in zip(hits, np.split(scores, ends[:-1]) if hits else [], strict=True):
            # Stable, so that equal scores stay in the retriever's order.
            order = np.argsort(-each, kind="stable")
            found.append((np.array(mine, np.int32)[order], each[order]))
        rows, scores, rest = split_ranking(stack_rankings(found, ranking.rows.shape[1]), self.keep)
        cost = {key: seconds / max(1, len(queries.items))}
        return {"ranking": Rankings(ranking.chunks, rows, scores, key, cost, rest=rest).add_costs(ranking)}


class MaxSim(PairScorer):
    """Late interaction on the embedder's own token vectors.

    Σ over the question's tokens of the greatest cosine to a passage's token (Khattab and Zaharia 2020, arXiv
    2004.12832), divided by the number of the question's tokens.
    """

    algorithm = "rag_opt.components.pairs.MaxSim"

    def __init__(self, encoder: SentenceTransformerEncoder) -> None:
        able = isinstance(encoder, SentenceTransformerEncoder)
        require(
            able, f"maxsim needs an embedder with token vectors (minilm, hub), which {type(encoder).__name__} is not"
        )
        self.encoder = encoder
        self.name = "maxsim"

    def encode(self, pairs: list[str]) -> Floats:
        split = [pair.partition(BETWEEN)[::2] for pair in pairs]
        vectors = self._tokens.get_vectors([text for pair in split for text in pair])
        return np.array([[maxsim(vectors[question], vectors[passage])] for question, passage in split], np.float32)

    def report_truncated(self, chunks: Chunks) -> None:
        report_unembedded(self.encoder, chunks, self.resources)

    def prepare(self, count: int) -> None:
        del count
        self.store.get_object("ready", self.fingerprint, lambda: len(self.encoder.encode_tokens([READY])))

    def forget(self) -> None:
        self._tokens.clear()

    @property
    def _tokens(self) -> Tokens:
        return self.store.get_object(
            "token vectors", self.encoder.fingerprint, lambda: Tokens(self.encoder.encode_tokens)
        )


def maxsim(question: Floats, passage: Floats) -> float:
    """The mean over the question's token vectors of the greatest cosine to one of the passage's; 0 without any."""
    if not len(question) or not len(passage):
        return 0.0
    return float((question @ passage.T).max(axis=1).mean())


class Tokens:
    """Unit token vectors by text, the last used ones kept."""

    def __init__(self, make: Callable[[list[str]], list[Floats]]) -> None:
        self._make = make
        self._known: OrderedDict[str, Floats] = OrderedDict()
        self._bytes = 0
        # Questions of a server are reranked by several threads.
        self._guard = threading.Lock()

    def clear(self) -> None:
        """Keep none."""
        with self._guard:
            self._known.clear()
            self._bytes = 0

    def get_vectors(self, texts: list[str]) -> dict[str, Floats]:
        """[tokens, dimensions] of each text."""
        wanted = list(dict.fromkeys(texts))
        with self._guard:
            # Gathered before anything is dropped: one call may ask for more than is kept.
            found = {text: self._known[text] for text in wanted if text in self._known}
        # Made without the lock: encoding takes long, and others may need what is there.
        missing = [text for text in wanted if text not in found]
        found |= dict(zip(missing, self._make(missing), strict=True)) if missing else {}
        with self._guard:
            for text in wanted:
                # Another thread may have made it meanwhile: what is held is counted once.
                if text not in self._known:
                    self._known[text] = found[text]
                    self._bytes += found[text].nbytes
                self._known.move_to_end(text)
            while self._bytes > TOKEN_VECTORS:
                self._bytes -= self._known.popitem(last=False)[1].nbytes
        return found


class CrossEncoder(PairScorer):
    """A cross-encoder of sentence-transformers, by its id on the hub or its folder; scores are its logits."""

    algorithm = "rag_opt.components.pairs.CrossEncoder"

    def __init__(self, model: str, revision: str | None = None, batch_size: int = 16) -> None:
        require_whole("batch_size", batch_size)
        self.model = model
        self.revision = revision
        self.batch_size = batch_size
        self.name = model.rpartition("/")[2]

    @property
    def fingerprint(self) -> str:
        return compute_key("cross-encoder", self.model, hash_weights(self.model), self.revision, get_device())

    def prepare(self, count: int) -> None:
        del count
        self.store.get_object("ready", self.fingerprint, lambda: len(self.encode([f"{READY}{BETWEEN}{READY}"])))

    def encode(self, pairs: list[str]) -> Floats:
        import torch

        split = [tuple(pair.partition(BETWEEN)[::2]) for pair in pairs]
        # Logits: the library's default for a single output is a sigmoid, behind which great scores can become equal.
        scores = self._model.predict(
            split, batch_size=self.batch_size, activation_fn=torch.nn.Identity(), show_progress_bar=False
        )
        return np.asarray(scores, np.float32).reshape(len(pairs), -1)[:, :1]

    @property
    def window(self) -> int | None:
        """How many tokens are read of question and passage together."""
        found: int | None = self._model.max_seq_length
        return found if found is not None and found < ENDLESS else None

    def count_lengths(self, texts: list[str]) -> list[int]:
        """The tokens of each passage, with the model's own marks."""
        given = self._model.tokenizer(texts, truncation=False, verbose=False)
        return [len(ids) for ids in given["input_ids"]]

    def report_truncated(self, chunks: Chunks) -> None:
        report_unread(self, chunks, self.resources)

    @property
    def _model(self) -> Any:
        return self.store.get_object("model", self.fingerprint, self.load_model)

    def load_model(self) -> Any:
        """The model; raises ComponentError when it can't be loaded."""
        kept = is_local_only("reranker", self.model, self.revision)
        with disable_gc():
            from sentence_transformers import CrossEncoder as Loaded

            quiet_transformers()
        try:
            # No code that a model brings is run.
            return Loaded(self.model, revision=self.revision, trust_remote_code=False, local_files_only=kept)
        except (OSError, ValueError) as error:
            raise ComponentError(
                f"reranker: cross-encoder '{self.model}' can't be loaded ({get_first_line(error)}). "
                "Without a network use reranker=maxsim, or a folder with such a model"
            ) from error
