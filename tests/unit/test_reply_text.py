"""What a model's text says: thinking is no part of it, and JSON is found among words."""

from __future__ import annotations

from typing import Any

import pytest

from rag_opt.components.llm.reply_text import Shown, parse_integer, parse_json, remove_thinking

THOUGHTS = {
    "block": '<think>\nDocuments {1..n} say "score".\n</think>\n\nOslo',
    "no opening tag": "The documents mention a town, {it} must be that one.\n</think>\n\nOslo",
    "in one line": "<think>hm</think>Oslo",
    "nothing thought": "<think>\n\n</think>\n\nOslo",
    "capitals": "<THINK>hm</THINK> Oslo",
    "another name": "<thinking>hm</thinking>\nOslo",
    "spaces": "< think >hm</ think >\nOslo",
    "a namespace": "<seed:think>hm</seed:think>Oslo",
    "two": "<think>hm</think>\n<think>hm again</think>\nOslo",
    "one in another": "<think>They write <think> a </think> b </think>\nOslo",
    "spoken of within": "<think>They write `</think>` there.</think>\nOslo",
    "brackets": "[THINK]hm[/THINK]Oslo",
    "Kimi": "◁think▷hm◁/think▷Oslo",
    "gpt-oss": "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Oslo",
    "Command A": "<|START_THINKING|>hm<|END_THINKING|>Oslo",
    "after a word of greeting": "Sure.\n</think>\nOslo",
}
ANSWERS = [
    "Oslo",
    "",
    "  Oslo\n",
    "Wrap it in `<think>` and `</think>`.",
    'The tags are "<think>" and "</think>".',
    "Write <think> first and </think> last.",
    "I think so; a < b > c.",
    '{"score": 4, "reason": "it says </think> somewhere"}',
    "[Reasoning] Oslo is the capital.",
]


@pytest.mark.parametrize("name", THOUGHTS)
def test_what_a_model_thinks_is_no_part_of_its_answer(name: str) -> None:
    assert remove_thinking(THOUGHTS[name]) == "Oslo"


@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_that_speaks_of_tags_is_kept(text: str) -> None:
    assert remove_thinking(text) == text


@pytest.mark.parametrize("text", ["<think>hm", "<think>hm</think>", "hm</think>\n", "  <thinking>\nhm", "<think>"])
def test_of_thinking_alone_nothing_is_left(text: str) -> None:
    assert remove_thinking(text) == ""


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize("text", [*ANSWERS, *(THOUGHTS[name] for name in ("block", "in one line", "brackets", "Kimi"))])
def test_a_stream_shows_the_answer_alone(text: str, size: int) -> None:
    pieces: list[str] = []
    shown = Shown(pieces.append)
    for start in range(0, len(text), size):
        shown(text[start : start + size])
    shown.flush()
    assert "".join(pieces) == remove_thinking(text)


def test_a_stream_that_only_thinks_shows_nothing() -> None:
    pieces: list[str] = []
    shown = Shown(pieces.append)
    for piece in ("<th", "ink>", "hm ", "</think>", "\n"):
        shown(piece)
    shown.flush()
    assert pieces == []


def score(found: dict[str, Any]) -> Any:
    return found.get("score")


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('Here {as asked} it is:\n```json\n{"score": 4}\n```\nI hope {this} helps.', 4),
        ('As JSON: {"score": 1, "reason": "one sentence"}\n{"score": 4, "reason": "fine"}', 4),
        ('{"score": 4} with {"other": 5}', 4),
        ('{"score": 2, "reason": "it says {\\"score\\": 5}"}', 2),
        ('{"score": 2, "detail": {"score": 5}}', 2),
        ('{"verdict": {"score": 3}}', 3),
        ("{{{{ {'score': 4}", None),
        ("{" * 5_000 + '"score": 4}', None),
    ],
)
def test_the_last_object_with_what_is_wanted_is_read(text: str, found: int | None) -> None:
    assert parse_json(text, score) == found


@pytest.mark.parametrize(("value", "number"), [(4, 4), (4.0, 4), ("4", 4), (" 4.0 ", 4), ("+4", 4), (-1, -1), (0.0, 0)])
def test_whole_numbers_however_they_are_written(value: Any, number: int) -> None:
    assert parse_integer(value) == number


@pytest.mark.parametrize("value", [4.5, "4.5", True, None, [4], "", "four", "4 of 5", float("nan"), float("inf"), 1e30])
def test_what_is_no_whole_number(value: Any) -> None:
    assert parse_integer(value) is None
