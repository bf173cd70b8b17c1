"""SIGKILL at any moment: nothing that was told is lost, nothing stays RUNNING, no place is taken twice."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from rag_opt.reporting import summary
from rag_opt.storages.attributes import get_attributes
from rag_opt.study.lifecycle import join_study
from rag_opt.study.loop import Session
from tests.faults.conftest import Figure
from tests.faults.workers import dies_in_trial, ended_well, killed_at_random, plan_of, start, study_of, told

STATES = (TrialState.COMPLETE, TrialState.PRUNED)


def counted(words: list[str]) -> int:
    """COMPLETE and PRUNED trials that were measured."""
    return sum(trial.state in STATES and "repeats" not in trial.user_attrs for trial in study_of(words).trials)


@pytest.fixture
def words(words: list[str]) -> list[str]:
    """A study without answers: so many processes need not load what scores these."""
    return [*words, "generator=none"]


@pytest.mark.parametrize("stored", ["sqlite", pytest.param("postgresql", marks=pytest.mark.long)], indirect=["stored"])
def test_nothing_that_was_told_is_lost_or_changed(stored, tmp_path, long: bool, figure: Figure) -> None:
    kills, ledger = (220 if long else 10), tmp_path / "ledger"
    words = [*stored, f"n_trials={4 * kills}"]
    met = killed_at_random(words, ledger, kills, at_once=2, seed=1)
    assert met >= 0.9 * kills, "the study was over before the kills were"
    study, rows = study_of(words), told(ledger)
    by_number = {trial.number: trial for trial in study.trials}
    lost = [row for row in rows if row["number"] not in by_number]
    changed = [
        row
        for row in rows
        if (trial := by_number[row["number"]]).state.name != row["state"]
        or trial.params != row["params"]
        or (row["values"] is not None and trial.values != row["values"])
    ]
    running = study.get_trials(states=(TrialState.RUNNING,))
    assert (len(lost), len(changed), len(running)) == (0, 0, 0)
    assert counted(words) == 4 * kills
    assert len(rows) >= 3 * kills
    name = "PostgreSQL" if "storage.url" in words[-2] else "SQLite"
    figure(
        "no finished trial is lost",
        f"{name}: {met} SIGKILLs, {len(rows)} trials in the fsynced ledger: {len(lost)} lost, {len(changed)} changed",
    )
    figure("no zombie", f"{name}: {len(running)} RUNNING after {met} SIGKILLs and one resume")


@pytest.mark.parametrize("moment", ["asked", "named", "drawn", "told"])
def test_a_kill_within_the_gate_leaves_no_zombie_and_no_lock(stored, tmp_path, moment: str, figure: Figure) -> None:
    """Before anything of the trial is noted, after its process is, after its parameters are, and before it is told."""
    ledger, words = tmp_path / "ledger", [*stored, "n_trials=6"]

    def dies(session: Session) -> None:
        calls = Counter[str]()

        def at(owner: object, name: str, after: bool = True) -> None:
            real = getattr(owner, name)

            def call(*args, **kwargs):
                calls[name] += 1
                if calls[name] == 3 and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                found = real(*args, **kwargs)
                if calls[name] == 3:
                    os.kill(os.getpid(), signal.SIGKILL)
                return found

            object.__setattr__(owner, name, call)

        if moment == "asked":
            at(session.study, "ask")
        elif moment == "named":
            at(session.scheduler, "ask_trial")
        elif moment == "drawn":
            at(session.plan.space, "suggest")
        else:
            at(session.study, "tell", after=False)

    worker = start(words, ledger, dies)
    assert worker.join() == -signal.SIGKILL
    zombie = study_of(words).get_trials(states=(TrialState.RUNNING,))
    assert len(zombie) == 1
    assert bool(get_attributes(zombie[0]).process) == (moment != "asked")
    ended_well([start(words, ledger)], ledger)
    study = study_of(words)
    assert [trial.number for trial in study.trials if trial.state == TrialState.RUNNING] == []
    assert get_attributes(study.trials[zombie[0].number]).interrupted
    assert counted(words) == 6
    figure("no zombie", f"killed in its turn, {moment}: 0 RUNNING after one resume")


@pytest.mark.parametrize("count", [3, *(pytest.param(other, marks=pytest.mark.long) for other in (1, 4, 8))])
def test_the_total_is_exact(stored, tmp_path, count: int, long: bool, figure: Figure) -> None:
    kills = 2 * count if long else min(count, 3)
    ledger, words = tmp_path / "ledger", [*stored, f"n_trials={8 * count + 4}"]
    met = killed_at_random(words, ledger, kills, count, seed=count)
    assert counted(words) == 8 * count + 4
    before = len(study_of(words).trials)
    ended_well([start(words, ledger)], ledger)
    assert len(study_of(words).trials) == before
    name = "PostgreSQL" if "storage.url" in words[-2] else "SQLite"
    figure(
        "exact total",
        f"{name}, {count} workers, {met} kills: {8 * count + 4} of {8 * count + 4}; a resume at the target ran 0",
    )


@pytest.mark.parametrize(
    ("stored", "sampler"),
    [
        ("sqlite", "rag"),
        pytest.param("postgresql", "tpe", marks=pytest.mark.long),
        *(pytest.param("sqlite", each, marks=pytest.mark.long) for each in ("gp", "tpe", "qmc", "random")),
        *(pytest.param("postgresql", each, marks=pytest.mark.long) for each in ("rag", "gp", "qmc", "random")),
    ],
    indirect=["stored"],
)
def test_one_worker_killed_at_three_points_draws_what_an_uninterrupted_one_does(
    stored, tmp_path, sampler: str, figure: Figure
) -> None:
    ledger, total = tmp_path / "ledger", 16
    words = [*stored, f"sampler={sampler}", f"n_trials={total}", "name=killed"]
    for after, batch in ((2, 1), (3, 4), (6, 7)):
        worker = start(words, ledger, dies_in_trial(after, batch))
        assert worker.join() == -signal.SIGKILL
    ended_well([start(words, ledger)], ledger)
    whole = [*words[:-1], "name=whole"]
    ended_well([start(whole, tmp_path / "other")], tmp_path / "other")
    killed, at_once = (
        [(t.params, t.values, t.state) for t in study_of(w).trials if not get_attributes(t).interrupted]
        for w in (words, whole)
    )
    assert killed == at_once
    assert sum(get_attributes(trial).interrupted for trial in study_of(words).trials) == 3
    name = "PostgreSQL" if any("storage.url" in word for word in words) else "SQLite"
    figure("resume = uninterrupted (one worker)", f"{name}, {sampler}: {total} trials bit-equal after 3 SIGKILLs")


def test_a_combination_that_a_kill_has_cost_is_tried_again_by_brute_force(words, tmp_path, figure: Figure) -> None:
    pinned = ["retriever=bm25", "sampler=brute_force", "n_trials=40", "retriever.b=0.75", "retriever.k1=1.2"]
    pinned += ["objective.metrics=[context.nDCG@10]"]
    words = [word for word in words if word != "sampler=random"] + pinned
    ledger = tmp_path / "ledger"
    met = killed_at_random(words, ledger, 3, 1, seed=4, within=0.2)
    study = study_of(words)
    tops = Counter(t.params["retriever.top_k"] for t in study.trials if t.state == TrialState.COMPLETE)
    space = plan_of(tuple(words)).space.parameters
    assert len(space) == 1
    drawn = space[0].distribution
    assert isinstance(drawn, IntDistribution)
    values = {*range(drawn.low, drawn.high + 1, drawn.step)}
    assert set(tops) == values
    assert met


def test_a_configuration_that_ends_every_process_is_given_up_and_its_place_taken(stored, tmp_path, figure) -> None:
    """The second configuration to begin with kills whoever measures it."""
    words = [word for word in stored if not word.startswith("retries")] + ["retries=2", "n_trials=8"]
    ledger, deaths = tmp_path / "ledger", 0

    def poisoned(session: Session) -> None:
        real = session.plan.dev.__class__.measure_config

        def measured(bench, given, report=None):
            if "retriever=bm25" in given.words:
                os.kill(os.getpid(), signal.SIGSEGV)
            return real(bench, given, report)

        session.plan.dev.__class__.measure_config = measured

    for _ in range(40):
        worker = start(words, ledger, poisoned)
        if worker.join() == 0:
            break
        assert worker.process.exitcode == -signal.SIGSEGV
        deaths += 1
    study = study_of(words)
    assert summary.format_given_up(study)
    given_up = [trial for trial in study.trials if get_attributes(trial).given_up]
    assert given_up
    assert all(get_attributes(trial).deaths == 3 and "retries=2" in trial.user_attrs["reason"] for trial in given_up)
    assert deaths == 3 * len(given_up)
    assert counted(words) == 8
    figure(
        "retries", f"a configuration that kills every process: {deaths} deaths, {len(given_up)} given up, 8 of 8 done"
    )


def test_each_slot_runs_once(stored, tmp_path, long: bool, figure: Figure) -> None:
    for repeat in range(10 if long else 1):
        ledger = tmp_path / f"ledger{repeat}"
        words = [*stored, "n_trials=100" if long else "n_trials=30", f"name=slots{repeat}"]
        count = 100 if long else 30
        plan = plan_of(tuple(words))
        with join_study(plan) as (study, member):
            for place in range(count):
                values = {"retriever": "bm25", "retriever.k1": 0.5 + place / 100}
                study.enqueue_trial(plan.space.to_trial_params({**values, "retriever.b": 0.5}))
            member.leave()
        workers = [start(words, ledger) for _ in range(8)]
        ended_well(workers, ledger)
        numbers = Counter(row["number"] for row in told(ledger))
        assert set(numbers.values()) == {1}
        assert len(numbers) == count
        assert {t.state for t in study_of(words).trials} <= {TrialState.COMPLETE, TrialState.PRUNED}
        assert counted(words) == count
    name = "PostgreSQL" if any("storage.url" in word for word in stored) else "SQLite"
    figure("each slot runs once", f"{name}: 8 processes, {count} enqueued, {repeat + 1} repeats: 0 double runs, 0 dead")


def test_many_writers(stored, tmp_path, long: bool, figure: Figure) -> None:
    processes, total = (16, 480) if long else (6, 36)
    ledger, words = tmp_path / "ledger", [*stored, f"n_trials={total}"]
    ended_well([start(words, ledger) for _ in range(processes)], ledger, 900)
    rows = {row["number"]: row for row in told(ledger)}
    study = study_of(words)
    right = [t for t in study.trials if rows[t.number]["values"] == (t.values or None)]
    assert counted(words) == total
    assert len(right) == len(study.trials)
    name = "PostgreSQL" if any("storage.url" in word for word in words) else "SQLite"
    figure("many writers", f"{name}: {processes} processes: {counted(words)} of {total} trials, every value right")
