"""Prompts that are continued together get what each gets alone, to the bit, and what transformers makes of it."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_opt.components.llm.decoding import BLOCK, WIDTH, Decoder, Job, fits
from rag_opt.components.llm.grammar import Constraint, bound_schema, read_tokens
from rag_opt.components.rerankers.llm import ORDER
from rag_opt.metrics.judges import SCHEMA as VERDICT


@pytest.fixture(scope="module")
def model(tiny_models: dict[str, str]) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_models["tiny_llm"]).eval()


@pytest.fixture(scope="module")
def tokenizer(tiny_models: dict[str, str]) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny_models["tiny_llm"])


def prompt(seed: int, length: int) -> list[int]:
    return torch.randint(6, 288, (length,), generator=torch.Generator().manual_seed(seed)).tolist()


class Follow:
    """The likeliest token each time; the logits that it was shown."""

    def __init__(self) -> None:
        self.seen: list[torch.Tensor] = []

    def __call__(self, logits: torch.Tensor) -> int:
        self.seen.append(logits.clone())
        return int(logits.argmax())


def follow(decoder: Decoder, tokens: list[int], room: int) -> tuple[list[int], torch.Tensor]:
    choose = Follow()
    job = Job(tokens, room, choose)
    decoder.run(job)
    return job.written, torch.stack(choose.seen)


PROMPTS = [(1, 5), (2, 5), (3, BLOCK), (4, BLOCK + 1), (5, 3 * BLOCK - 7), (6, 17), (1, 200), (1, 201), (7, 1), (8, 90)]


def test_texts_side_by_side_are_those_of_each_alone(model) -> None:
    """More of them than a step has rows, some of which begin alike; logits and not only tokens."""
    alone = [follow(Decoder(model), prompt(*each), 9) for each in PROMPTS]
    decoder = Decoder(model)
    with ThreadPoolExecutor(len(PROMPTS)) as pool:
        together = list(pool.map(lambda each: follow(decoder, prompt(*each), 9), PROMPTS))
    assert len(PROMPTS) > WIDTH
    for (words, logits), (same, other) in zip(alone, together, strict=True):
        assert words == same
        assert torch.equal(logits, other)


@settings(max_examples=15)
@given(st.permutations(PROMPTS), st.lists(st.integers(1, 12), min_size=len(PROMPTS), max_size=len(PROMPTS)))
def test_neither_order_nor_length_nor_what_was_read_before_changes_a_text(model, order, rooms) -> None:
    decoder = Decoder(model)
    with ThreadPoolExecutor(4) as pool:
        jobs = list(zip(order, rooms, strict=True))
        found = list(pool.map(lambda job: follow(decoder, prompt(*job[0]), job[1]), jobs))
    for (each, room), (words, logits) in zip(jobs, found, strict=True):
        alone, expected = follow(Decoder(model), prompt(*each), room)
        assert words == alone
        assert torch.equal(logits, expected)


@pytest.mark.parametrize("each", PROMPTS)
def test_it_writes_what_transformers_writes(tiny_models, each: tuple[int, int]) -> None:
    from transformers import AutoModelForCausalLM

    stock = AutoModelForCausalLM.from_pretrained(tiny_models["tiny_llm"]).eval()
    tokens = prompt(*each)
    known = torch.tensor([tokens])
    expected = stock.generate(known, attention_mask=torch.ones_like(known), max_new_tokens=12, do_sample=False)
    written, _ = follow(Decoder(stock), tokens, 12)
    # That one ends at an end-of-text token, which is for `choose` to see here.
    assert written[: expected.shape[1] - len(tokens)] == expected[0, len(tokens) :].tolist()


def test_one_that_is_broken_off_leaves_the_others_as_they_are(model) -> None:
    decoder = Decoder(model)
    expected, _ = follow(Decoder(model), prompt(1, 40), 30)

    def fail(logits: torch.Tensor) -> int:
        raise KeyError(int(logits.argmax()))

    with ThreadPoolExecutor(2) as pool:
        good = pool.submit(lambda: follow(decoder, prompt(1, 40), 30)[0])
        bad = pool.submit(decoder.run, Job(prompt(2, 40), 30, fail))
        assert good.result(timeout=60) == expected
        assert isinstance(bad.exception(timeout=60), KeyError)
    assert follow(decoder, prompt(1, 40), 30)[0] == expected


def test_what_a_model_fails_by_is_said_to_whoever_waits(tiny_models) -> None:
    from transformers import AutoModelForCausalLM

    decoder = Decoder(AutoModelForCausalLM.from_pretrained(tiny_models["tiny_llm"]).eval())
    for wrong in ([5, 10**6], [10**6]):
        with pytest.raises(IndexError):
            follow(decoder, wrong, 3)
    assert follow(decoder, prompt(1, 40), 3)[0]


def test_models_that_attend_otherwise_are_left_to_transformers(model) -> None:
    from copy import deepcopy

    assert fits(model)
    other = deepcopy(model)
    other.config.model_type = "gemma3"
    assert not fits(other)
    windowed = deepcopy(model)
    windowed.config.layer_types = ["full_attention", "sliding_attention"]
    assert not fits(windowed)


@settings(max_examples=25)
@given(st.integers(0, 10**6), st.sampled_from([VERDICT, ORDER]), st.sampled_from([48, 96, 200]))
def test_whatever_a_model_prefers_its_reply_has_the_schema(tokenizer, seed: int, schema: Any, room: int) -> None:
    """Also within the tokens that it may write; logits at random are the worst that a model can do."""
    size = len(tokenizer) + 3
    constraint = Constraint(read_tokens(tokenizer, size), schema, room)
    letters = torch.tensor([tokenizer.decode([each]).isascii() for each in range(len(tokenizer))] + [False] * 3)
    dice = torch.Generator().manual_seed(seed)
    written: list[int] = []
    going = True
    while going:
        logits = torch.randn(size, generator=dice).masked_fill(~letters, -1e9)
        token = int(constraint.forbid(logits).argmax())
        if token == tokenizer.eos_token_id:
            break
        written.append(token)
        going = constraint.accept(token)
    assert len(written) <= room
    found = json.loads(tokenizer.decode(written))
    assert list(found) == schema["required"]
    if schema is VERDICT:
        assert 1 <= found["score"] <= 5


def test_limits_that_a_schema_has_stay() -> None:
    limited = {"a": {"type": "array", "maxItems": 3}, "b": {"type": "array"}}
    found = bound_schema({"type": "object", "properties": limited}, 84)["properties"]
    assert (found["a"]["maxItems"], found["b"]["maxItems"]) == (3, 10)
