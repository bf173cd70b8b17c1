"""What a study names is used once before trial 0; what can't be used is said in one message."""

from __future__ import annotations

import re
import time
from pathlib import Path
from typing import Any

import pytest

from rag_opt.cache.store import Store
from rag_opt.components.llm.chat import CallError
from rag_opt.components.llm.endpoint import OpenAIChat
from rag_opt.components.models import hub
from rag_opt.errors import ComponentError
from rag_opt.llm.replies import Reply
from rag_opt.study import preflight
from rag_opt.study.plan import build_plan
from tests.conftest import own_space
from tests.services import counts, fault, reset
from tests.unit.scripted import on, saying


def words(animals: list[str], folder: Path, *more: str) -> list[str]:
    return [*animals, f"studies_dir={folder}/studies", f"store.path={folder}/store", "tracking=none", *more]


def poor(plan: Any) -> str:
    """Why its judge is refused."""
    with pytest.raises(ComponentError) as error:
        preflight.check_services(plan, plan.resources, asks=False)
    return str(error.value)


def refused(plan: Any, *, services: bool = False) -> str:
    with pytest.raises(ComponentError) as caught:
        preflight.check_components(plan, plan.resources, services=services)
    return str(caught.value)


def test_a_model_of_the_hub_that_can_not_be_had_is_said_within_seconds(animals, tmp_path: Path, no_hub: None) -> None:
    hub = ["embedder=hub", "embedder.encoder.precision=float32", "splitter=sentence"]
    plan = build_plan(words(animals, tmp_path, *hub))
    start = time.monotonic()
    told = refused(plan)
    assert time.monotonic() - start < 30, "the hub's client tries for a minute and a half"
    assert "embedder=hub: embedder: model 'sentence-transformers/all-mpnet-base-v2'" in told
    assert "the hub can't be reached" in told
    assert "leave it out of the search space" in told


def test_every_choice_that_can_not_be_used_is_in_one_message(animals, tmp_path: Path, no_hub: None) -> None:
    """A model that is no default, a folder that is none, a cross-encoder: wherever the space names them."""
    rows = {
        "retriever": "choice(bm25, hybrid)",
        "embedder": "choice(minilm, hub)",
        "embedder.encoder.model": {"values": "choice(/nope, some/model)", "when": {"embedder": "hub"}},
        "reranker": "choice(none, cross_encoder)",
    }
    given = [word for word in words(animals, tmp_path) if word not in ("embedder=hashing", "search_space=retrieval")]
    told = refused(build_plan([*given, *own_space(tmp_path, rows), "embedder.encoder.precision=float32"]))
    assert "embedder=hub embedder.encoder.model=/nope: embedder: model '/nope': there is no such folder" in told
    assert "embedder=hub embedder.encoder.model=some/model: " in told
    assert "reranker=cross_encoder: reranker: model 'cross-encoder/ms-marco-MiniLM-L6-v2'" in told
    assert "minilm" not in told
    assert len(told.splitlines()) == 5


@pytest.mark.parametrize("unit", ["words", "tokens"])
def test_what_is_pinned_to_bm25_needs_no_embedder(animals, tmp_path: Path, no_hub: None, unit: str) -> None:
    """Unless its tokens are what a splitter counts."""
    hub = ["embedder=hub", "embedder.encoder.precision=float32", "retriever=bm25"]
    plan = build_plan(words(animals, tmp_path, *hub, "splitter=sentence", f"splitter.unit={unit}"))
    if unit == "words":
        preflight.check_components(plan, plan.resources, services=False)
    else:
        assert "splitter=sentence: embedder: model" in refused(plan)


def test_models_that_come_with_the_program_are_not_loaded(animals, tmp_path: Path, monkeypatch) -> None:
    from rag_opt.components.embedders.encoders import MiniLM

    monkeypatch.setattr(MiniLM, "load_model", lambda _: pytest.fail("it was loaded"))
    given = [word for word in words(animals, tmp_path) if word != "embedder=hashing"]
    plan = build_plan([*given, "embedder=minilm", "embedder.encoder.precision=float32", "reranker=maxsim"])
    preflight.check_components(plan, plan.resources, services=True)
    preflight.check_components(plan, plan.resources, services=False)


def test_a_model_that_was_loaded_stays_loaded(animals, tmp_path: Path, tiny_models, monkeypatch) -> None:
    from rag_opt.components.rerankers.pairs import CrossEncoder

    loads, real = [], CrossEncoder.load_model
    monkeypatch.setattr(CrossEncoder, "load_model", lambda self: loads.append(1) or real(self))
    model = f"reranker.model={tiny_models['tiny_cross_encoder']}"
    plan = build_plan(words(animals, tmp_path, "reranker=cross_encoder", model, "retriever=bm25"))
    preflight.check_components(plan, plan.resources, services=False)
    plan.dev.measure_config(plan.shown[0])
    assert loads == [1]


def test_an_endpoint_is_asked_once_and_that_is_paid(animals, services, endpoint, tmp_path: Path) -> None:
    """The generator, the query and the judge share a model: one call; 52 more show whether the judge can judge."""
    reset(endpoint)
    more = ["generator=openai", "query=rewrite", "objective.metrics=[judge.correctness]", "objective.report=[]"]
    plan = build_plan(words(animals, tmp_path, *services, *more))
    preflight.check_components(plan, plan.resources, services=True)
    assert counts(endpoint)["chat"] == 1
    preflight.check_services(plan, plan.resources, asks=False)
    assert counts(endpoint)["chat"] == 53
    paid = plan.resources.llm.spent
    assert (paid.calls, paid.tokens > 0) == (53, True)
    plan.resources.llm.budget.tokens = 1
    preflight.check_services(plan, plan.resources, asks=True)
    assert counts(endpoint)["chat"] == 53, "a budget that is spent spares it"


def test_a_judge_that_gives_everything_the_same_is_no_objective(animals, services, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(OpenAIChat, "call_model", lambda *_: Reply('{"reason": "so", "score": 1}', 9, 9))
    given = words(animals, tmp_path, *services, "generator=openai", "query=rewrite")
    told = poor(build_plan([*given, "objective=judged"]))
    assert "judge.model=gpt-4o-mini: as a judge of correctness it gives 1 to a right answer and 1 to a wrong" in told
    # Where it is only reported, the study says so and goes on.
    plan = build_plan([*given, "objective.metrics=[F1]", "objective.report=[judge.correctness]"])
    preflight.check_components(plan, plan.resources, services=True)


@pytest.mark.parametrize(("name", "said"), [("unauthorized", "HTTP 401"), ("not_found", "HTTP 404"), ("reset", "")])
def test_an_endpoint_that_refuses_is_said(animals, services, endpoint, tmp_path: Path, name: str, said: str) -> None:
    plan = build_plan(words(animals, tmp_path, *services, "llm.tries=1", "generator=openai"))
    fault(endpoint, name)
    told = refused(plan, services=True)
    fault(endpoint, "none")
    assert "generator=openai, gpt-4o-mini: " in told
    assert said in told


def test_the_webs_service_is_asked(animals, tmp_path: Path) -> None:
    more = ["retriever=bm25_web", "web.url=http://127.0.0.1:9/search", "objective.metrics=[nDCG@10,tokens]"]
    plan = build_plan(words(animals, tmp_path, *more))
    assert "retriever=bm25_web, web.service: " in refused(plan, services=True)


@pytest.mark.parametrize("model", ["/nope", "./nope", "~/nope", "a/b/c"])
def test_a_folder_that_is_not_there_is_no_model_of_the_hub(model: str) -> None:
    with pytest.raises(ComponentError, match=re.escape(f"embedder: model '{model}': there is no such folder")):
        hub.is_local_only("embedder", model)


def test_a_model_that_is_kept_needs_no_hub(no_hub: None, monkeypatch, tmp_path: Path) -> None:
    monkeypatch.setattr(hub, "_is_cached", lambda *_: True)
    assert hub.is_local_only("embedder", "some/model") is True
    assert hub.is_local_only("embedder", str(tmp_path)) is False


def test_a_model_that_thinks_until_its_tokens_are_used_up_can_be_asked(store: Store) -> None:
    told = "Could not finish the message because max_tokens or model output limit was reached. Please try again."
    on(store, saying(CallError(f"HTTP 400: {told}", status=400))).probe_model("gpt-5")
    with pytest.raises(CallError):
        on(store, saying(CallError("HTTP 400: no such model", status=400))).probe_model("gpt-5")
