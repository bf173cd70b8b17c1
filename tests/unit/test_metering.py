"""Metrics of other libraries that ask models: within the budget, in the ledger and in the forecast, by real clients."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.llm.budget import Budget, BudgetSpentError
from rag_opt.llm.client import Rehearsal
from rag_opt.metrics.adapters import get_model, get_price, score_with_evaluator, score_with_scorer
from rag_opt.metrics.metering import WROTE, Meter, estimate_case
from rag_opt.metrics.own import Case
from tests.services import counts, fault, reset

CASES = [
    Case("Who wrote the first program?", "Ada", ("Ada Lovelace",), ("Ada Lovelace wrote it.",), ("d1",), {"d1": 1}),
    Case("Where do owls hunt?", "At night", ("In the dark",), ("Owls hunt at night.",), ("d2",), {"d2": 1}),
]
PRICE = {"in": 1.0, "out": 2.0}


def correctness() -> object:
    from mlflow.genai.scorers import Correctness

    return Correctness(model="openai:/a-model-without-a-price")


def faithfulness() -> object:
    from haystack.components.evaluators import FaithfulnessEvaluator
    from haystack.components.generators.chat import OpenAIChatGenerator

    return FaithfulnessEvaluator(
        chat_generator=OpenAIChatGenerator(model="tiny"), progress_bar=False, raise_on_failure=False
    )


ASKING = [(correctness, score_with_scorer), (faithfulness, score_with_evaluator)]


@pytest.fixture
def asked(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> str:
    fault(endpoint, "none")
    reset(endpoint)
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_API_BASE", endpoint)
    monkeypatch.setenv("OPENAI_BASE_URL", endpoint)
    return endpoint


def make_meter(tmp_path: Path, tokens: float = math.inf, rehearsal: Rehearsal | None = None) -> Meter:
    llm = Resources.from_store(Store(tmp_path / "store")).llm
    return Meter("mine", replace(llm, budget=Budget("study", llm.replies, tokens), rehearsal=rehearsal), PRICE)


@pytest.mark.parametrize(("make", "score"), ASKING)
def test_what_they_ask_is_paid_as_the_endpoint_counts(asked, tmp_path, make: Callable, score: Callable) -> None:
    meter = make_meter(tmp_path)
    score(make(), CASES, meter)
    actual, spent = counts(asked), meter.llm.spent
    assert spent.calls == actual["chat"] == 2
    assert spent.tokens == actual["prompt_tokens"] + actual["completion_tokens"] > 0
    assert spent.usd == pytest.approx((actual["prompt_tokens"] + 2 * actual["completion_tokens"]) / 1e6)


@pytest.mark.parametrize(("make", "score"), ASKING)
def test_a_rehearsal_counts_their_calls_and_makes_none(asked, tmp_path, make: Callable, score: Callable) -> None:
    rehearsal = Rehearsal()
    assert np.isnan(score(make(), CASES, make_meter(tmp_path, rehearsal=rehearsal))).all()
    assert counts(asked)["chat"] == 0
    assert rehearsal.calls == {"metric mine": 2}
    guessed = sum(map(estimate_case, CASES))
    rows = [*rehearsal.new["metric mine"].values()]
    assert (sum(row.reads for row in rows), sum(row.writes for row in rows)) == (guessed, 2 * WROTE)
    assert sum(row.price(row.reads, row.writes) for row in rows) == pytest.approx((guessed + 4 * WROTE) / 1e6)


@pytest.mark.parametrize(("make", "score"), ASKING)
def test_a_spent_budget_ends_their_calls(asked, tmp_path, make: Callable, score: Callable) -> None:
    meter = make_meter(tmp_path, tokens=10)
    with pytest.raises(BudgetSpentError, match=r"budget.tokens=10 is spent"):
        score(make(), CASES, meter)
    assert counts(asked)["chat"] == meter.llm.spent.calls == 1


def test_what_asks_no_model_costs_nothing(tmp_path) -> None:
    from haystack.components.evaluators import AnswerExactMatchEvaluator
    from mlflow.genai.scorers import scorer

    @scorer
    def long(outputs: str) -> float:
        return float(len(outputs))

    meter, rehearsal = make_meter(tmp_path), Rehearsal()
    rehearsed = make_meter(tmp_path, rehearsal=rehearsal)
    for made, score in ((AnswerExactMatchEvaluator(), score_with_evaluator), (long, score_with_scorer)):
        assert not np.isnan(score(made, CASES, meter)).any()
        assert np.isnan(score(made, CASES, rehearsed)).all()
    assert (meter.llm.spent.calls, rehearsal.calls) == (0, {})


def test_what_a_server_of_this_machine_says_is_free() -> None:
    from haystack.components.evaluators import FaithfulnessEvaluator
    from haystack.components.generators.chat import OpenAIChatGenerator
    from haystack.utils import Secret

    def asking(url: str) -> FaithfulnessEvaluator:
        generator = OpenAIChatGenerator(model="tiny", api_base_url=url, api_key=Secret.from_token("none"))
        return FaithfulnessEvaluator(chat_generator=generator)

    assert get_price(asking("http://127.0.0.1:8080/v1"), {}) == {"in": 0.0, "out": 0.0}
    assert get_price(asking("https://llm.invalid/v1"), {}) is None
    assert get_price(asking("https://llm.invalid/v1"), {"tiny": PRICE}) == PRICE


def test_the_model_that_they_ask_is_known_by_its_name() -> None:
    assert get_model(correctness()) == "a-model-without-a-price"
    assert get_model(faithfulness()) == "tiny"
    assert get_model(object()) is None
