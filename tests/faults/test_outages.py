"""What surrounds a study fails for a while: nothing is lost, nothing counts, and the same command goes on.

RAG_OPT_LONG=1 fills a real disk (a small tmpfs, as root) in place of having the system say that it is full.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from rag_opt.cli.study import run_study
from rag_opt.errors import OutageError
from rag_opt.evaluation.evaluator import Evaluator
from rag_opt.storages.attributes import get_attributes
from rag_opt.study import failures
from tests.conftest import LONG
from tests.faults.conftest import Figure
from tests.integration.commands import finished
from tests.services import fault

TRIALS = 6


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(failures, "PAUSES", (0.0, 0.0))


def trials_of(folder: Path) -> list[FrozenTrial]:
    url = f"sqlite:///{folder}/studies/animals/study.db"
    return optuna.load_study(study_name="animals", storage=url).trials


def counted(trials: list[FrozenTrial]) -> list[FrozenTrial]:
    return [trial for trial in trials if not get_attributes(trial).interrupted]


def like(trials: list[FrozenTrial]) -> list[Any]:
    """What a study has measured: parameters and values in their order."""
    return [(trial.params, trial.values, trial.state) for trial in counted(trials)]


@pytest.fixture
def disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[bool], list[str]]]:
    """A disk that is full or not; gives the words of a study whose store lies on it."""
    place = tmp_path / "disk"
    place.mkdir()
    if LONG and os.geteuid() == 0 and shutil.which("mount"):
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)], check=True)
        filler = place / "filler"

        def full(now: bool) -> list[str]:
            if now:
                with filler.open("wb") as file:
                    file.write(b"0" * (900 << 10))
            else:
                filler.unlink()
            return [f"store.path={place}/store"]

        yield full
        subprocess.run(["umount", "--lazy", str(place)], check=True)  # its vectors are still mapped
        return
    real = os.replace

    def refused(source: Any, target: Any, **more: Any) -> None:
        if place in Path(target).parents:
            raise OSError(errno.ENOSPC, "No space left on device")
        real(source, target, **more)

    def said(now: bool) -> list[str]:
        monkeypatch.setattr(os, "replace", refused if now else real)
        return [f"store.path={place}/store"]

    yield said


def test_a_full_disk_stops_a_study_and_its_trials_are_tried_again(words, tmp_path: Path, disk, figure: Figure) -> None:
    """The baseline too; then the study is what it would have been."""
    given = [*words, "sampler=rag", "pruner=none", "embedder.encoder.dimensions=4096", f"n_trials={TRIALS}"]
    whole = [*given, f"studies_dir={tmp_path}/whole"]
    run_study(whole)
    given = [*given, *disk(True)]
    for times in (1, 2):
        with pytest.raises(OutageError, match="3 trials in a row failed alike: the disk is full") as caught:
            run_study(given)
        assert "store.path" in str(caught.value)
        assert "the same command goes on from here" in str(caught.value)
        trials = trials_of(tmp_path)
        assert len(trials) == 3 * times
        assert counted(trials) == []
    disk(False)
    outcome = run_study(given)
    trials = trials_of(tmp_path)
    assert outcome.error == ""
    assert outcome.findings.confirmation.recommended is not None
    assert [trial.user_attrs["origin"] for trial in counted(trials)][:1] == ["baseline"]
    undisturbed = optuna.load_study(study_name="animals", storage=f"sqlite:///{tmp_path}/whole/animals/study.db")
    assert like(trials) == like(undisturbed.trials)
    figure(
        "a disk that fills", f"stopped after 3 trials, twice; {TRIALS} of {TRIALS} and the baseline once there was room"
    )


def test_a_server_that_is_out_of_order_stops_a_study_and_the_same_command_goes_on(
    animals, services, endpoint, tmp_path: Path, figure: Figure
) -> None:
    given = [
        *animals,
        *services,
        *("generator=openai", "objective.metrics=[F1]", "objective.report=[]", "retriever=bm25", "tracking=none"),
        *("llm.tries=1", "sampler=random", "pruner=none", f"n_trials={TRIALS}", "preflight=false"),
        f"studies_dir={tmp_path}/studies",
        f"store.path={tmp_path}/store",
    ]
    fault(endpoint, "bad_gateway")
    with pytest.raises(OutageError, match="a service is out of order") as caught:
        run_study(given)
    assert "HTTP 502" in str(caught.value)
    assert len(trials_of(tmp_path)) == failures.ALIKE
    fault(endpoint, "none")
    outcome = run_study(given)
    assert outcome.error == ""
    found = counted(trials_of(tmp_path))
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * TRIALS
    assert found[0].user_attrs["origin"] == "baseline"
    report = (tmp_path / "studies/animals/report.md").read_text()
    assert "3 trials lost to what surrounds the study, and tried again: 3 × a service is out of order" in report
    figure("a model's server that is out of order", f"stopped after 3 trials; {TRIALS} of {TRIALS} once it was back")


def test_workers_stop_together_after_few_tries(animals, services, endpoint, tmp_path: Path) -> None:
    given = [
        *animals,
        *services,
        *("generator=openai", "objective.metrics=[F1]", "objective.report=[]", "retriever=bm25", "tracking=none"),
        *("llm.tries=1", "sampler=random", "n_trials=12", "n_workers=2", "preflight=false"),
        f"studies_dir={tmp_path}/studies",
        f"store.path={tmp_path}/store",
    ]
    fault(endpoint, "bad_gateway")
    done = finished(tmp_path, *given)
    fault(endpoint, "none")
    assert done.returncode == 2, done.stderr
    assert "trials in a row failed alike: a service is out of order" in done.stderr
    assert "the same command goes on from here" in done.stderr
    trials = trials_of(tmp_path)
    assert counted(trials) == []
    assert failures.ALIKE <= len(trials) <= failures.ALIKE + 2, "no storm of tries"


@pytest.mark.parametrize(("error", "tries"), [(MemoryError(), failures.ALIKE), (ValueError("its own"), 1)])
def test_a_configuration_that_alone_fails_has_failed_by_itself(
    words, tmp_path: Path, monkeypatch, error: Exception, tries: int
) -> None:
    """What may lie outside is tried again after others, and then counts as every other failure does at once."""
    real = Evaluator.measure_config

    def greedy(self, given, report=None):
        if {"retriever.fusion=rrf", "retriever.k1=1.2"} <= set(given.words):
            raise error
        return real(self, given, report)

    monkeypatch.setattr(Evaluator, "measure_config", greedy)
    outcome = run_study([*words, "pruner=none", "n_trials=10"])
    trials = trials_of(tmp_path)
    failed = [trial for trial in trials if trial.state == TrialState.FAIL and "repeats" not in trial.user_attrs]
    assert sum("repeats" not in trial.user_attrs for trial in counted(trials)) == 10
    assert len(failed) == tries
    assert [bool(get_attributes(trial).outage) for trial in failed] == [True] * (tries - 1) + [False]
    assert failed[-1].user_attrs["reason"].startswith(type(error).__name__)
    assert [b - a for a, b in pairwise(trial.number for trial in failed)] == [2] * (tries - 1), "after another one each"
    assert outcome.error == ""
    report = (tmp_path / "studies/animals/report.md").read_text()
    assert "1 of 10 trials failed**" in report
    assert f"1 trial failed: 1 × {type(error).__name__}" in report


def test_memory_that_every_configuration_lacks_stops_the_study(words, tmp_path: Path, monkeypatch) -> None:
    def greedy(*_: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "measure_config", greedy)
        with pytest.raises(OutageError, match="the memory is full"):
            run_study([*words, "pruner=none", f"n_trials={TRIALS}"])
    assert len({str(trial.params) for trial in trials_of(tmp_path)}) == failures.ALIKE, "three configurations"
    run_study([*words, "pruner=none", f"n_trials={TRIALS}"])
    found = counted(trials_of(tmp_path))
    assert [trial.state for trial in found] == [TrialState.COMPLETE] * TRIALS
    assert [trial.user_attrs["origin"] for trial in found[:3]] == ["baseline", "seed", "seed"]


def test_a_study_all_of_whose_trials_fail_says_why(words, tmp_path: Path, monkeypatch) -> None:
    def broken(*_: object) -> None:
        raise ValueError("no ranks today")

    monkeypatch.setattr(Evaluator, "measure_config", broken)
    outcome = run_study([*words, "n_trials=4"])
    assert "no ranks today" in outcome.error, "so the command's exit status is 1"
    assert "4 of 4 trials failed" in outcome.error


def test_a_confirmation_that_can_not_be_made_is_made_by_the_same_command(words, tmp_path: Path, monkeypatch) -> None:
    real = Evaluator.measure_config

    def away(self, given, report=None):
        if self.questions.count < 5:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "refused")
        return real(self, given, report)

    given = [*words, f"n_trials={TRIALS}"]
    with monkeypatch.context() as patched:
        patched.setattr(Evaluator, "measure_config", away)
        with pytest.raises(OutageError, match="could not be confirmed: the network or a service can't be reached"):
            run_study(given)
    assert len(counted(trials_of(tmp_path))) >= TRIALS
    assert run_study(given).findings.confirmation is not None
