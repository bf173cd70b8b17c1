"""What an encoder of texts is."""

from __future__ import annotations

from rag_opt.components.stage import Part
from rag_opt.records.documents import Floats
from rag_opt.text.tokenization import Span, find_token_spans


class Encoder(Part):
    """Texts → unit vectors. `name` is for people; the fingerprint decides what is reused."""

    name: str

    def prepare(self, count: int) -> None:
        """Make ready for so many texts: what is slow once, a model that loads, is no part of what a text takes."""

    def encode(self, texts: list[str]) -> Floats:
        """float32 [texts, dimensions], each row of length 1 (0 where a text has no known token)."""
        raise NotImplementedError

    @property
    def for_queries(self) -> Encoder:
        """The encoder of what is searched for."""
        return self

    @property
    def for_documents(self) -> Encoder:
        """The encoder of what is searched in."""
        return self

    @property
    def window(self) -> int | None:
        """How many tokens of a text are read, the model's own marks and prompt included; None: all."""
        return None

    def count_lengths(self, texts: list[str]) -> list[int]:
        """The tokens of each text as `window` counts them."""
        return [len(self.tokenize(text)) for text in texts]

    @property
    def vocabulary(self) -> str:
        """The content key of what cuts texts into tokens."""
        return self.fingerprint

    def tokenize(self, text: str) -> list[Span]:
        """The spans of the text's tokens, as far as the encoder reads them as they stand there."""
        return find_token_spans(text)
