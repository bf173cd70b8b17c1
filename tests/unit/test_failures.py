"""Failures of what surrounds a study are told from a configuration's own, by their kind and by what else fails."""

from __future__ import annotations

import errno
import socket
import sqlite3
from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState

from rag_opt.components.llm.chat import CallError
from rag_opt.components.retrievers.fetching import FetchError, fetch_url
from rag_opt.errors import ComponentError, OutageError, StoreError
from rag_opt.storages.attributes import TrialAttributes
from rag_opt.storages.snapshot import StudySnapshot
from rag_opt.study import failures
from rag_opt.study.failures import Cause, find_cause
from rag_opt.system.permissions import catch_disk_errors


def caught(call: Callable[[], object]) -> BaseException:
    try:
        call()
    except BaseException as error:
        return error
    raise AssertionError("nothing was raised")


def raised_from(error: BaseException, cause: BaseException) -> BaseException:
    def call() -> None:
        raise error from cause

    return caught(call)


def hidden(error: BaseException, cause: BaseException) -> BaseException:
    def call() -> None:
        try:
            raise cause  # noqa: TRY301
        except BaseException:
            raise error from None

    return caught(call)


def stored(number: int, path) -> BaseException:
    def call() -> None:
        with catch_disk_errors(path):
            raise OSError(number, "said by the system")

    return caught(call)


def answered(status: int) -> BaseException:
    """What the openai client raises for a status, as a stage hands it on."""
    import httpx
    from openai import APIStatusError

    request = httpx.Request("POST", "http://127.0.0.1/")
    error = APIStatusError("said", response=httpx.Response(status, request=request), body=None)
    return raised_from(ComponentError("generator: can't be asked"), hidden(CallError("HTTP"), error))


def refused() -> BaseException:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    return caught(lambda: fetch_url("GET", f"http://127.0.0.1:{port}/", {}))


def sqlite_full() -> BaseException:
    base = sqlite3.connect(":memory:")
    base.execute("pragma max_page_count = 1")
    return caught(lambda: base.execute("create table t (x)"))


@pytest.mark.parametrize(("number", "cause"), [(errno.ENOSPC, Cause.DISK), (errno.EDQUOT, Cause.DISK)])
def test_a_full_disk_is_no_configurations_failure(tmp_path, number: int, cause: Cause) -> None:
    assert find_cause(stored(number, tmp_path)) is cause
    assert find_cause(stored(errno.EACCES, tmp_path)) is Cause.FILES
    assert find_cause(OSError(number, "no guard at all")) is cause
    assert find_cause(sqlite_full()) is cause
    assert find_cause(raised_from(StoreError("store.path: …"), sqlite_full())) is cause
    assert find_cause(RuntimeError("database or disk is full")) is cause


@pytest.mark.parametrize(
    ("status", "cause"),
    [
        (401, Cause.KEY),
        (403, Cause.KEY),
        (429, Cause.LIMIT),
        (500, Cause.ERRORS),
        (502, Cause.SERVICE),
        (503, Cause.SERVICE),
        (400, None),
        (404, None),
    ],
)
def test_what_a_server_answers_says_whose_failure_it_is(status: int, cause: Cause | None) -> None:
    assert find_cause(answered(status)) is cause
    assert find_cause(FetchError("said", status)) is cause


def test_who_does_not_answer_is_away() -> None:
    assert find_cause(refused()) is Cause.NETWORK
    assert find_cause(caught(lambda: socket.getaddrinfo("no-such-host.invalid", 80))) is Cause.NETWORK
    assert find_cause(ConnectionResetError(errno.ECONNRESET, "reset")) is Cause.SILENCE
    assert find_cause(TimeoutError()) is Cause.SILENCE
    httpx = pytest.importorskip("httpx")
    assert find_cause(httpx.ReadTimeout("late")) is Cause.SILENCE
    assert find_cause(hidden(ComponentError("hub"), httpx.ConnectError("no route"))) is Cause.NETWORK


def test_memory_may_be_the_configurations_own_fault() -> None:
    import torch

    for error in (
        MemoryError(),
        torch.OutOfMemoryError("CUDA"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ):
        assert find_cause(error) is Cause.MEMORY
    assert not Cause.MEMORY.certain


@pytest.mark.parametrize(
    "error",
    [
        ValueError("b is 0"),
        ValueError("the answer was: no space left"),
        FileNotFoundError(errno.ENOENT, "nope"),
        PermissionError(errno.EACCES, "closed"),
        KeyError("x"),
        SystemExit(3),
        AssertionError(),
        ComponentError("the chat template fails"),
    ],
)
def test_all_else_is_the_configurations_own(error: BaseException) -> None:
    assert find_cause(error) is None


def test_a_model_that_the_hub_does_not_have_is_the_configurations_own() -> None:
    class RepositoryNotFoundError(Exception):
        status_code = 401

    assert find_cause(raised_from(OSError("not a model"), RepositoryNotFoundError())) is None


def test_the_calls_that_left_questions_open_say_whose_failure_that_is() -> None:
    uncovered, away = ValueError("F1 could be measured for 0 %"), answered(503)
    assert find_cause(uncovered, {"generator": away}) is Cause.SERVICE
    assert find_cause(uncovered, {"generator": "a reply could not be read"}) is None
    assert failures.format_reason(uncovered, {"generator": away}).endswith("; generator: generator: can't be asked")


def trials_of(*ends: str) -> StudySnapshot:
    """A study whose trials ended so: `C`omplete, `F`ailed, or by a cause, with `<n` the trial that it tries again."""
    study = optuna.create_study()
    for end in ends:
        kind, _, before = end.partition("<")
        about = {TrialAttributes.retries.name: int(before)} if before else {}
        study.enqueue_trial({}, user_attrs=about)
        trial = study.ask()
        if kind in Cause.__members__:
            TrialAttributes.interrupted.save(trial, True)
            TrialAttributes.outage.save(trial, kind)
        study.tell(trial, 1.0 if kind == "C" else None, TrialState.COMPLETE if kind == "C" else TrialState.FAIL)
    return StudySnapshot(study)


@pytest.mark.parametrize(
    ("ends", "since", "count"),
    [
        (["DISK", "DISK<0", "DISK<1"], 0, 3),
        (["DISK", "DISK<0", "DISK<1"], 3, 0),
        (["DISK", "C", "DISK<0"], 0, 2),
        (["DISK", "DISK", "MEMORY", "MEMORY"], 0, 2),
        (["DISK", "DISK", "C"], 0, 1),
        (["C", "F"], 0, 0),
        (["SERVICE", "C", "SERVICE<0", "C", "SERVICE<2"], 0, 3),
    ],
)
def test_failures_in_a_row_are_counted_within_a_session(ends: list[str], since: int, count: int) -> None:
    now = trials_of(*ends)
    assert len(failures.get_failure_streak(now, since)) == count
    if count < failures.ALIKE:
        failures.check_outage(now, since)
    else:
        with pytest.raises(OutageError, match="the same command goes on from here"):
            failures.check_outage(now, since)


def test_what_may_be_the_configurations_fault_waits_for_another_one() -> None:
    def waiting(*ends: str, since: int = 0) -> list[int]:
        return [trial.number for trial in failures.find_postponed(trials_of(*ends), since)]

    assert waiting("C", "MEMORY") == [1]
    assert waiting("C", "MEMORY", "C") == []
    assert waiting("C", "DISK") == []
    assert waiting("C", "MEMORY", "MEMORY") == [1, 2]
    assert waiting("C", "MEMORY", since=2) == [], "a new command begins with what an earlier one has left"


def test_what_fails_while_others_are_measured_has_failed_by_itself() -> None:
    alone, beside = trials_of("MEMORY", "MEMORY<0", "F<1"), trials_of("MEMORY", "C", "MEMORY<0", "C", "F<2")
    assert not failures.is_own_failure(alone, 2, Cause.MEMORY, 0)
    assert failures.is_own_failure(beside, 4, Cause.MEMORY, 0)
    assert not failures.is_own_failure(beside, 4, Cause.SERVICE, 0), "no configuration can be at fault"


def test_failures_are_grouped_by_what_they_say() -> None:
    lines = failures.format_failures(_study_with_reasons())
    assert lines == [
        "3 trials failed: 2 × ValueError: … is too many; 1 × KeyError",
        "2 trials lost to what surrounds the study, to be tried again: 2 × the disk is full",
    ]


@pytest.mark.parametrize(("retried", "told"), [([3], "1 of them to be tried again"), ([3, 4], "and tried again")])
def test_what_was_tried_again_is_no_more_to_be(retried: list[int], told: str) -> None:
    study = _study_with_reasons()
    for number in retried:
        trial = study.ask()
        TrialAttributes.retries.save(trial, number)
        study.tell(trial, 1.0)
    assert (
        failures.format_failures(study)[1] == f"2 trials lost to what surrounds the study, {told}: 2 × the disk is full"
    )


def _study_with_reasons() -> optuna.Study:
    study = optuna.create_study()
    for reason, cause in (
        ("ValueError: 3 is too many", ""),
        ("ValueError: 4 is too many", ""),
        ("KeyError", ""),
        ("x", "DISK"),
        ("y", "DISK"),
    ):
        trial = study.ask()
        trial.set_user_attr("reason", reason)
        if cause:
            TrialAttributes.interrupted.save(trial, True)
            TrialAttributes.outage.save(trial, cause)
        study.tell(trial, state=TrialState.FAIL)
    return study
