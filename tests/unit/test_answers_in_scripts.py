"""Answers against references in any script; English as the official scripts have it."""

from __future__ import annotations

import re
import string
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from rag_opt.metrics import answer

ascii_texts = st.text(st.characters(max_codepoint=127), max_size=60) | st.lists(
    st.sampled_from("The cats' running a dog, an apple! an U.S. e-mail __init__ 3.5% relational (was) C++".split())
).map(" ".join)

ANSWERS = [
    "北京",
    "東京タワーです",
    "서울특별시",
    "สวัสดีน้ำ",
    "नई दिल्ली",
    "Москва",
    "القاهرة الكبرى",
    "ירושלים",
    "Αθήνα",
    "İstanbul",
    "Würzburg",
    "ភ្នំពេញ",
    "ရန်ကုန်",
    "👍🏽 да",
]


def as_squad(text: str) -> list[str]:
    """normalize_answer of SQuAD's evaluation script, as words."""
    unmarked = "".join(letter for letter in text.lower() if letter not in set(string.punctuation))
    return re.sub(r"\b(a|an|the)\b", " ", unmarked).split()


@given(ascii_texts)
def test_ascii_is_normalised_as_squads_script_does(text: str) -> None:
    assert answer.normalize_answer(text) == as_squad(text)


@given(ascii_texts, ascii_texts)
def test_rouge_of_ascii_is_rouge_scores_own(one: str, other: str) -> None:
    theirs = RougeScorer(["rouge1", "rougeL"], use_stemmer=True).score(other, one)
    assert answer.rouge_1(one, other) == theirs["rouge1"].fmeasure
    assert answer.rouge_l(one, other) == theirs["rougeL"].fmeasure


@pytest.mark.parametrize("metric", answer.PAIRWISE)
@pytest.mark.parametrize("text", ANSWERS)
def test_an_answer_equal_to_its_reference_scores_1(metric: str, text: str) -> None:
    score = answer.PAIRWISE[metric]
    assert score(text, text) == pytest.approx(1.0)
    assert score(unicodedata.normalize("NFD", text), unicodedata.normalize("NFC", text)) == pytest.approx(1.0)


@pytest.mark.parametrize("metric", ["EM", "F1", "ROUGE-1", "ROUGE-L"])
@pytest.mark.parametrize(
    ("given_text", "reference"),
    [("北京。", "北京"), ("القاهرة؟", "القاهرة"), ("«Москва»", "москва"), ("दिल्ली।", "दिल्ली"), ("¿Madrid?", "Madrid")],
)
def test_punctuation_of_any_script_does_not_count(metric: str, given_text: str, reference: str) -> None:
    assert answer.PAIRWISE[metric](given_text, reference) == 1.0


def test_without_spaces_characters_are_words() -> None:
    assert answer.normalize_answer("答案是Python 3。") == ["答", "案", "是", "python", "3"]
    # 2 characters in common, 5 given, 2 wanted
    assert answer.token_f1("答案是北京", "北京") == pytest.approx(2 * 2 / 7)
    assert answer.rouge_l("答案是北京", "北京") == pytest.approx(2 * 2 / 7)


def test_a_space_or_a_letter_makes_another_word() -> None:
    for other in ("Überänderung", "uber Anderung"):
        assert answer.rouge_1("über Änderung", other) == answer.token_f1("über Änderung", other) == 0.0
