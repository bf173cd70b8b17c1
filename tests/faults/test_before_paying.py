"""What a study names is tried before its first trial, and a budget counts what is paid: nothing else."""

from __future__ import annotations

import math
from pathlib import Path
from random import Random

import optuna
import pytest

from rag_opt.cli.study import run_study
from rag_opt.components.llm.endpoint import OpenAIChat
from rag_opt.components.llm.request import Request
from rag_opt.errors import ComponentError
from rag_opt.llm.replies import Reply
from tests.conftest import LONG, own_space
from tests.faults.conftest import Figure
from tests.faults.test_copies import file_of
from tests.services import fault

NOBODY = "http://127.0.0.1:9"
"""Where nothing listens."""

ASKING = (f"llm.base_url={NOBODY}", "llm.key=null", "llm.tries=1")
FLOAT = "embedder.encoder.precision=float32"
CHOSEN: dict[str, object] = {
    "retriever": "choice(hybrid, dense)",
    "reranker": "choice(none, cross_encoder)",
    "reranker.model": {"values": "choice(/none, /never)", "when": {"reranker": "cross_encoder"}},
}
Case = tuple[tuple[str, ...], tuple[str, ...]]
UNUSABLE: dict[str, Case] = {
    "an embedder": (
        ("embedder=hub", "embedder.encoder.model=/nope", FLOAT),
        ("model '/nope': there is no such",),
    ),
    "a generator": ((*ASKING, "generator=openai"), ("generator=openai, gpt-4o-mini: ",)),
    "the web": ((f"web.url={NOBODY}/search", "retriever=bm25_web"), ("retriever=bm25_web, web.service: ",)),
}
"""Words that name what can't be used, and what is said of each."""

MORE: dict[str, Case] = {
    "a reranker": (
        ("reranker=cross_encoder", "reranker.model=/nope"),
        ("reranker=cross_encoder: reranker: model '/nope'",),
    ),
    "a judge": ((*ASKING, "generator=openai", "objective.report=[judge.correctness]"), ("judge.model=gpt-4o-mini: ",)),
    "a query": ((*ASKING, "query=hyde"), ("query=hyde, gpt-4o-mini: ",)),
    "a reranker that asks": ((*ASKING, "reranker=llm_pointwise"), ("reranker=llm_pointwise, gpt-4o-mini: ",)),
    "a model of the hub": (("embedder=hub", FLOAT), ("all-mpnet-base-v2'", "the hub can't be reached")),
}
FAULTS = (
    "unauthorized",
    "not_found",
    "bad_request",
    "server_error",
    "bad_gateway",
    "reset",
    "invalid_json",
    "html_200",
)


def refused(words: list[str], told: tuple[str, ...], name: str) -> None:
    """That a study is refused in a message that says all of this, before a trial is begun."""
    with pytest.raises(ComponentError, match="before trial 0 this can't be used") as caught:
        run_study([*words, f"name={name}"])
    assert [part for part in told if part not in str(caught.value)] == []
    study = optuna.load_study(study_name=name, storage=f"sqlite:///{file_of(words).parents[1]}/{name}/study.db")
    assert study.trials == []


@pytest.mark.usefixtures("no_hub")
def test_what_can_not_be_used_is_named_before_the_first_trial(words, tmp_path: Path, figure: Figure) -> None:
    """One by one, and all that a space names in one message."""
    cases = UNUSABLE | (MORE if LONG else {})
    given = [word for word in words if word not in ("embedder=hashing", "search_space=retrieval")]
    small = [*given, *own_space(tmp_path / "small", {"retriever.k1": "interval(0.4, 3.0)"}), "embedder=hashing"]
    for number, (added, told) in enumerate(cases.values()):
        refused([*small, *added], told, f"case_{number}")
    models = ("embedder=hub: embedder: model '/nope'", "reranker.model=/none: ", "reranker.model=/never: ")
    refused([*given, *own_space(tmp_path, CHOSEN), *UNUSABLE["an embedder"][0]], models, "space")
    figure(
        "preflight", f"{len(cases) + len(models)} models and services that can't be used: each named, 0 trials begun"
    )


@pytest.mark.skipif(not LONG, reason="the long version")
def test_a_service_that_answers_wrongly_is_named_too(words, endpoint: str, figure: Figure) -> None:
    given = [*words, *ASKING, f"llm.base_url={endpoint}", "generator=openai"]
    try:
        for name in FAULTS:
            fault(endpoint, name)
            refused(given, ("generator=openai, ",), name)
    finally:
        fault(endpoint, "none")
    figure("preflight", f"a service that answers with {', '.join(FAULTS)}: named, 0 trials begun")


# ---- a budget

TRIALS = 4
TOKENS_IN, TOKENS_OUT = 100, 5
A_CALL = TOKENS_IN + TOKENS_OUT
AT_ONCE, QUESTIONS = 8, 7
ANEW: dict[str, object] = {"generator.max_tokens": "range(64, 320, 64)"}
"""A space of as many configurations as there are trials, each of which asks for other replies."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What a model that costs something was asked; no page is drawn, which is no part of this."""
    found: list[Request] = []

    def called(_: OpenAIChat, request: Request) -> Reply:
        found.append(request)
        return Reply("Cats purr", TOKENS_IN, TOKENS_OUT, 0.01)

    monkeypatch.setattr(OpenAIChat, "call_model", called)
    monkeypatch.setattr("rag_opt.components.llm.endpoint.is_loopback", lambda _: False)
    monkeypatch.setattr("rag_opt.reporting.report.write_report", lambda *_: {})
    return found


def asking(words: list[str], *more: str) -> list[str]:
    given = ["generator=openai", "objective.metrics=[F1]", "objective.report=[]", "pruner=none", f"n_trials={TRIALS}"]
    return [*words, *ASKING, "retriever=bm25", *given, *more]


def budgets(count: int, paid: int) -> list[str]:
    """Budgets from next to nothing to what a study has paid for."""
    chance = Random(0)
    return ["budget.tokens=1", "budget.usd=1e-7", *(f"budget.tokens={chance.randrange(1, paid)}" for _ in range(count))]


def test_a_budget_counts_what_is_paid(words, tmp_path: Path, calls: list[Request], long: bool, figure: Figure) -> None:
    """What the store has ends nothing; what is paid ends a study within the calls that are under way."""
    run_study(asking(words))
    paid, free = len(calls) * A_CALL, budgets(20 if long else 0, len(calls) * A_CALL)
    calls.clear()
    for place, budget in enumerate(free):
        found = run_study(asking(words, budget, f"name=again_{place}")).findings
        assert (found.trials, found.paid["calls"], found.confirmation is None) == (TRIALS, 0, False)
        assert f"{budget} " in found.commands["continue"], "it was not used up"
    assert calls == []
    above, shares = [], (0.5, 0.6, 0.7, 0.8, 0.9) if long else (0.7,)
    given = [*(word for word in words if word != "search_space=retrieval"), *own_space(tmp_path, ANEW)]
    for share in shares:
        calls.clear()
        limit = int(share * TRIALS * QUESTIONS * A_CALL)
        found = run_study(
            asking(given, f"name=paid_{share}", f"store.path={tmp_path}/{share}", f"budget.tokens={limit}")
        ).findings
        assert (found.paid["calls"], found.confirmation is None) == (len(calls), False)
        assert found.paid["tokens"] >= 0.5 * limit
        assert f"budget.tokens={limit} " not in f"{found.commands['continue']} ", "it was used up"
        above.append(len(calls) - limit / A_CALL)
    assert max(above) <= AT_ONCE
    figure(
        "a budget counts what is paid",
        f"{len(free)} studies whose replies are kept, with budgets of 1 to {paid:,} tokens: all trials, confirmed, "
        f"0 calls; {len(shares)} that pay, with {min(shares):.0%} to {max(shares):.0%} of what their trials need: ended "
        f"at most {max(0, math.ceil(max(above)))} calls above it, confirmed",
    )
