"""What Haystack's components take and give, as JSON: for keys of calls, and to keep what a call gave."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rag_opt.records.keys import compute_key
from rag_opt.system.haystack import ByteStream, ChatMessage, ExtractedAnswer, GeneratedAnswer, SparseEmbedding
from rag_opt.system.haystack import Document as HaystackDocument

KINDS = {kind.__name__: kind for kind in (ChatMessage, GeneratedAnswer, ExtractedAnswer, ByteStream, SparseEmbedding)}
"""What is read back by its own from_dict; nothing else that a store might name is."""

DOCUMENT, KIND, VALUE, SCORE, DICT = "$document", "$kind", "$value", "$score", "$dict"

Put = Callable[[str, str], None]
"""put(key, text): where documents are kept, each once."""


class UnkeptError(TypeError):
    """A value that has no form here: the call that gave it is made each time."""


def encode(value: Any, put: Put | None = None) -> Any:
    """The value as plain containers; documents by their hash, which `put` keeps. Raises UnkeptError."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.number):
        return value.item()
    if isinstance(value, list | tuple):
        # A tuple comes back as a list.
        return [encode(each, put) for each in value]
    if isinstance(value, HaystackDocument):
        return _encode_document(value, put)
    if isinstance(value, Mapping):
        # Wrapped: a dict with a key such as $kind is not to be taken for one of ours.
        return {DICT: {str(key): encode(each, put) for key, each in value.items()}}
    # By name, too: a subclass would come back as its parent.
    if type(value).__name__ in KINDS and isinstance(value, KINDS[type(value).__name__]):
        text = json.dumps(value.to_dict(), default=_refuse)
        return {KIND: type(value).__name__, VALUE: json.loads(text)}
    raise UnkeptError(type(value).__name__)


def _refuse(value: Any) -> Any:
    if isinstance(value, np.number):
        return value.item()
    raise UnkeptError(type(value).__name__)


def decode(value: Any, get: Callable[[str], str]) -> Any:
    """What `encode` was given; `get(key)` gives a kept document's text. Raises KeyError where one is gone."""
    if isinstance(value, list):
        return [decode(each, get) for each in value]
    if not isinstance(value, dict):
        return value
    if DOCUMENT in value:
        return replace(_decode_document(get(value[DOCUMENT])), score=value[SCORE])
    if KIND in value:
        return KINDS[value[KIND]].from_dict(value[VALUE])
    return {key: decode(each, get) for key, each in value[DICT].items()}


def _encode_document(document: HaystackDocument, put: Put | None) -> dict[str, Any]:
    blob = None if document.blob is None else document.blob.to_dict()
    sparse = None if document.sparse_embedding is None else document.sparse_embedding.to_dict()
    text = json.dumps(
        [document.id, document.content, document.meta, encode_embedding(document.embedding), blob, sparse],
        default=_refuse,
    )
    key = compute_key("document", text)
    if put is not None:
        put(key, text)
    # The score beside it, so that a document that several queries find is kept once.
    return {DOCUMENT: key, SCORE: None if document.score is None else float(document.score)}


def _decode_document(text: str) -> HaystackDocument:
    name, content, meta, embedding, blob, sparse = json.loads(text)
    return HaystackDocument(
        id=name,
        content=content,
        meta=meta,
        embedding=decode_embedding(embedding),
        blob=None if blob is None else ByteStream.from_dict(blob),
        sparse_embedding=None if sparse is None else SparseEmbedding.from_dict(sparse),
    )


def encode_embedding(values: Any) -> str | None:
    """The numbers in base64, as float64, so that they come back to the bit; None for None."""
    return None if values is None else base64.b64encode(np.asarray(values, np.float64).tobytes()).decode()


def decode_embedding(text: str | None) -> list[float] | None:
    """The numbers that `encode_embedding` was given."""
    return None if text is None else np.frombuffer(base64.b64decode(text), np.float64).tolist()
