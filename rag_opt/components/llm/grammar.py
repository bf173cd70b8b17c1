"""Replies that have the JSON schema they are asked for, whatever the model: what would break it is never chosen.

llguidance (https://github.com/guidance-ai/llguidance) tells after each token which ones may come next.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import numpy as np

from rag_opt.errors import ComponentError

SPARE = 24
"""Tokens that the keys and brackets of a reply take."""

PER_ITEM = 6
"""Tokens of a number in a list, its comma included."""

LARGEST = 10**6
"""Of a number that the schema does not bound."""


def bound_schema(schema: Mapping[str, Any], room: int) -> dict[str, Any]:
    """The schema with limits where it has none, so that a reply ends within so many tokens: a small model may go on.

    Letters that take several tokens each, as of other scripts, may still need more.
    """
    texts = max(1, json.dumps(schema).count('"type": "string"'))
    found: dict[str, Any] = _bound(schema, max(8, (room - SPARE) // texts), max(1, (room - SPARE) // PER_ITEM))
    return found


def _bound(node: Any, letters: int, items: int) -> Any:
    if isinstance(node, list):
        return [_bound(each, letters, items) for each in node]
    if not isinstance(node, Mapping):
        return node
    known: dict[str, dict[str, Any]] = {
        # Without what has to be escaped, which takes six tokens.
        "string": {"pattern": f'^[^"\\\\\\x00-\\x1f\\x7f]{{0,{letters}}}$'},
        "array": {"maxItems": items},
        "integer": {"minimum": -LARGEST, "maximum": LARGEST},
    }
    return {
        # What the schema says itself comes last, so it wins.
        **known.get(str(node.get("type")), {}),
        **{key: _bound(value, letters, items) for key, value in node.items()},
    }


class Constraint:
    """What may come next of a reply with a JSON schema, in one line; `tokenizer` is llguidance's.

    Raises ComponentError for a schema that it can't be made of.
    """

    def __init__(self, tokenizer: Any, schema: Mapping[str, Any], room: int) -> None:
        from llguidance import LLMatcher

        written = json.dumps(bound_schema(schema, room))
        # Otherwise the grammar allows white space without end between two keys.
        grammar = LLMatcher.grammar_from_json_schema(written, overrides={"whitespace_flexible": False})
        self._matcher = LLMatcher(tokenizer, grammar)
        self._check()
        # A bit a token, in words of 32.
        self._mask = np.zeros((1, (tokenizer.vocab_size + 31) // 32), np.int32)

    def forbid(self, logits: Any) -> Any:
        """The logits [vocabulary], those of tokens that may not come next at -inf."""
        import torch
        from llguidance.numpy import fill_next_token_bitmask

        fill_next_token_bitmask(self._matcher, self._mask)
        bits = np.unpackbits(self._mask[0].view(np.uint8), bitorder="little")[: len(logits)]
        allowed = torch.from_numpy(bits.astype(bool))
        # A model may have more rows than its tokenizer has tokens.
        allowed = torch.nn.functional.pad(allowed, (0, len(logits) - len(allowed)))
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))

    def accept(self, token: int) -> bool:
        """Take note of what was chosen; False where the reply is whole."""
        self._matcher.consume_token(token)
        self._check()
        return not self._matcher.is_stopped()

    def _check(self) -> None:
        if self._matcher.is_error():
            raise ComponentError(f"llm: a reply can't be held to its JSON schema: {self._matcher.get_error()}"[:300])


def read_tokens(tokenizer: Any, size: int) -> Any:
    """A tokenizer of transformers as llguidance reads it, in about a second; `size` tokens can be chosen."""
    from llguidance.hf import from_tokenizer

    return from_tokenizer(tokenizer, n_vocab=size)
