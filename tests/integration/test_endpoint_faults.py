"""Studies whose language model misbehaves: they end, every trial is measured or says which stage failed, and why.

Each fault meets one or two stages; with RAG_OPT_LONG=1 every fault meets every stage.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from rag_opt.cli.study import Outcome, run_study
from rag_opt.errors import OutageError
from rag_opt.study import failures
from tests.services import counts, fault, reset
from tests.services.openai_server import FAULTS

pytestmark = pytest.mark.integration

TRIALS = 2
ENDS = 60.0
"""Seconds within which a study must be over, whatever its model does."""

CANARY = "canary-7f3a91c2-value"
READ = "objective.metrics=[context.nDCG@10]"
"""What top_k, the only parameter that is searched here, makes a difference to."""

STAGES = {
    "generator": ["generator=openai", "objective.metrics=[F1]"],
    "hyde": ["query=hyde", READ],
    "multi_query": ["query=multi_query", READ],
    "rewrite": ["query=rewrite", READ],
    "listwise": ["reranker=llm_listwise"],
    "pointwise": ["reranker=llm_pointwise", "reranker.keep=2", "retriever.depth=3"],
    "judge": ["objective.metrics=[judge.correctness]"],
}
NAMES = {
    "generator": "generator",
    "hyde": "query",
    "multi_query": "query",
    "rewrite": "query",
    "listwise": "reranker",
    "pointwise": "reranker",
    "judge": "judge",
}
"""What a reason calls a stage."""

CAUSES = {
    "rate_limit": "HTTP 429",
    "rate_limit_long": "HTTP 429.*quota",
    "server_error": "HTTP 500",
    "unauthorized": "HTTP 401",
    "not_found": "HTTP 404.*does not exist",
    "bad_request": "HTTP 400.*not valid",
    "echo": "HTTP 400.*not valid",
    "invalid_json": "no completion",
    "wrong_schema": "no completion",
    "error_body_200": "no completion",
    "html_200": "no completion",
    "bad_gateway": "HTTP 502",
    "hang": "[Tt]imed? ?out",
    "slow_first_token": "[Tt]imed? ?out|Connection",
    "cut_stream": "Connection",
    "reset": "Connection",
    "empty_choices": "no choices",
}
"""Faults with which no call succeeds, and what a reason says of them."""

OUTSIDE = (
    *("rate_limit", "rate_limit_long", "server_error", "unauthorized", "bad_gateway"),
    *("hang", "slow_first_token", "cut_stream", "reset"),
)
"""Those of them that are the server's failure, whatever it is asked: they stop the study and count for nothing."""

UNREADABLE = ("null_content", "refusal", "empty_text", "garbage_json_content", "out_of_range", "length")
"""Faults that leave a stage without what it asked for: its trial is not what the configuration says, so it fails."""

IDLE = r"could be measured for \d+% of its questions|got \d+% of what it asked|nothing that .* says can be read"
"""What a reason says of a stage that did not do its work."""

IN_WORDS = ("generator", "hyde")
"""Stages that ask for words, in which half an answer is one; of the others' JSON half is none."""

PAIRS = {
    "rate_limit": ["generator"],
    "rate_limit_long": ["hyde"],
    "server_error": ["multi_query"],
    "unauthorized": ["listwise"],
    "not_found": ["rewrite"],
    "bad_request": ["listwise"],
    "echo": ["hyde"],
    "invalid_json": ["judge"],
    "wrong_schema": ["generator"],
    "error_body_200": ["rewrite"],
    "html_200": ["multi_query"],
    "bad_gateway": ["listwise"],
    "hang": ["generator"],
    "slow_first_token": ["rewrite"],
    "cut_stream": ["hyde"],
    "reset": ["judge"],
    "empty_choices": ["pointwise"],
    "null_content": ["generator", "hyde"],
    "refusal": ["judge"],
    "empty_text": ["generator"],
    "garbage_json_content": ["judge", "multi_query"],
    "out_of_range": ["listwise", "pointwise"],
    "length": ["generator", "judge"],
    "no_usage": ["generator"],
}
SHORT = {"hang": "llm.timeout=0.3", "slow_first_token": "llm.timeout=0.3"}
HEALED = [  # by the very same request: what asks in other words, or with another seed, meets the fault again
    ("rate_limit", "generator"),
    ("server_error", "multi_query"),
    ("bad_gateway", "judge"),
    ("reset", "rewrite"),
    ("cut_stream", "listwise"),
    ("hang", "hyde"),
    ("invalid_json", "pointwise"),
    ("wrong_schema", "rewrite"),
    ("html_200", "judge"),
    ("empty_choices", "generator"),
    ("error_body_200", "judge"),
]


def pairs() -> Iterator[Any]:
    for name, stage in product(FAULTS, STAGES):
        yield pytest.param(name, stage, marks=() if stage in PAIRS[name] else pytest.mark.long)


@pytest.fixture
def model(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(failures, "PAUSES", (0.0, 0.0))
    reset(endpoint)
    yield endpoint
    fault(endpoint, "none")


def studied(animals: list[str], folder: Path, url: str, stage: str, *more: str) -> tuple[Outcome, list[FrozenTrial]]:
    """A small study whose every trial asks the model in this stage, and its trials; it ended in time."""
    words = [
        *animals,
        f"llm.base_url={url}",
        "llm.key=null",
        "llm.timeout=1",
        "llm.tries=2",
        "preflight=false",
        "retriever=dense",
        "objective.report=[]",
        *STAGES[stage],
        "tracking=none",
        f"n_trials={TRIALS}",
        "pruner=none",
        "sampler=random",
        "evaluation.batches=1",
        f"store.path={folder}/store",
        f"studies_dir={folder}/studies",
    ]
    start = time.monotonic()
    try:
        outcome = run_study([*words, *more])
    except OutageError as error:
        outcome = Outcome("animals", folder, error=str(error))
    assert time.monotonic() - start < ENDS
    trials = optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/studies/animals/study.db").trials
    assert len(trials) == (failures.ALIKE if any("outage" in trial.user_attrs for trial in trials) else TRIALS)
    assert all(trial.state in (TrialState.COMPLETE, TrialState.FAIL) for trial in trials)
    return outcome, trials


def reasons(trials: list[FrozenTrial]) -> list[str]:
    return [trial.user_attrs["reason"] for trial in trials if trial.state == TrialState.FAIL]


def test_every_fault_and_every_stage_is_met() -> None:
    assert set(PAIRS) == set(FAULTS) == {*CAUSES, *UNREADABLE, "no_usage"}
    assert {stage for stages in PAIRS.values() for stage in stages} == set(STAGES)


@pytest.mark.parametrize(("name", "stage"), list(pairs()))
def test_a_study_ends_whatever_its_model_does(animals, tmp_path: Path, model: str, name: str, stage: str) -> None:
    fault(model, name)
    outcome, trials = studied(animals, tmp_path, model, stage, *([SHORT[name]] if name in SHORT else []))
    assert counts(model)["faults"] > 0
    cause = CAUSES.get(name, IDLE)
    for reason in reasons(trials):
        assert NAMES[stage] in reason
        assert re.search(cause, reason)
    failed = len(reasons(trials))
    fine = name == "no_usage" or (name == "length" and stage in IN_WORDS)
    assert failed == (0 if fine else len(trials))
    assert [("outage" in trial.user_attrs) for trial in trials] == [name in OUTSIDE] * len(trials)
    assert bool(outcome.error) == (failed == len(trials))
    if outcome.error:
        told = reasons(trials)[-1 if name in OUTSIDE else 0]
        assert told.partition(": ")[2] in outcome.error


@pytest.mark.parametrize(("name", "stage"), HEALED)
def test_what_a_retry_mends_is_mended(animals, tmp_path: Path, model: str, name: str, stage: str) -> None:
    fault(model, name, heal=True)
    outcome, trials = studied(animals, tmp_path, model, stage)
    assert counts(model)["faults"] > 0
    assert reasons(trials) == []
    assert all(trial.state == TrialState.COMPLETE for trial in trials)
    assert not outcome.error


@pytest.mark.parametrize(
    ("name", "stage", "cause"),
    [("null_content", "generator", "no text"), ("garbage_json_content", "judge", "read|JSON|broken")],
)
def test_a_trial_without_answers_says_why_there_are_none(
    animals, tmp_path: Path, model: str, name: str, stage: str, cause: str
) -> None:
    fault(model, name)
    _, trials = studied(animals, tmp_path, model, stage)
    for reason in reasons(trials):
        assert NAMES[stage] in reason
        assert re.search(cause, reason.replace("judge.correctness", ""))


@pytest.mark.parametrize("stage", ["generator", "judge", "rewrite"])
def test_a_key_that_the_server_repeats_is_nowhere(
    animals, tmp_path: Path, model: str, stage: str, monkeypatch, capfd
) -> None:
    monkeypatch.setenv("RAG_OPT_TEST_KEY", CANARY)
    fault(model, "unauthorized")
    outcome, trials = studied(animals, tmp_path, model, stage, "llm.key=RAG_OPT_TEST_KEY")
    assert counts(model)["authorization_seen"]
    assert len(reasons(trials)) == failures.ALIKE
    assert all("HTTP 401" in reason and "Bearer •••" in reason for reason in reasons(trials))
    told = capfd.readouterr()
    for text in (outcome.error, told.out, told.err, *(str(trial.user_attrs) for trial in trials)):
        assert CANARY not in text
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert any(path.name == "study.db" for path in files)
    assert [path for path in files if CANARY.encode() in path.read_bytes()] == []


def test_a_call_that_fails_now_and_then_leaves_a_study_that_ends(animals, tmp_path: Path, model: str) -> None:
    fault(model, "bad_gateway", every=4)
    _, trials = studied(animals, tmp_path, model, "generator", "llm.tries=5")
    assert all(trial.state == TrialState.COMPLETE for trial in trials), reasons(trials)


def test_a_study_goes_on_once_the_model_is_back(animals, tmp_path: Path, model: str) -> None:
    fault(model, "not_found")
    _, trials = studied(animals, tmp_path, model, "generator")
    assert len(reasons(trials)) == TRIALS
    fault(model, "none")
    outcome = run_study(
        [
            *animals,
            f"llm.base_url={model}",
            "llm.key=null",
            "retriever=dense",
            "objective.report=[]",
            *STAGES["generator"],
            "tracking=none",
            "n_trials=4",
            "pruner=none",
            "sampler=random",
            "evaluation.batches=1",
            f"store.path={tmp_path}/store",
            f"studies_dir={tmp_path}/studies",
        ]
    )
    assert not outcome.error
    assert outcome.findings.best is not None
