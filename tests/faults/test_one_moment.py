"""One report is made from one moment of the study, whatever other commands add to it meanwhile."""

from __future__ import annotations

import json
import re
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState, create_trial

from rag_opt.cli import report as command
from rag_opt.cli.study import run_study
from rag_opt.evaluation.evaluator import Evaluator
from rag_opt.reporting import report
from tests.faults.conftest import Figure


def loaded(folder: Path) -> optuna.Study:
    return optuna.load_study(study_name="animals", storage=f"sqlite:///{folder}/studies/animals/study.db")


def rows(text: str, heading: str) -> list[list[str]]:
    """The rows of the table under a heading of report.md."""
    part = text.partition(f"## {heading}")[2].partition("\n## ")[0]
    lines = [line for line in part.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def agrees(folder: Path, finished: int) -> None:
    """Whether the report speaks of so many trials, and names the same best one everywhere."""
    text = (folder / "report.md").read_text("utf-8")
    (best,) = (row[0] for row in rows(text, "Top trials") if "best" in row[-1].split(", "))
    (tested,) = (row[0] for row in rows(text, "nDCG@10 on") if "best" in row[1].split(", "))
    assert best == tested
    found = json.loads((folder / "findings.json").read_text("utf-8"))
    assert found["confirmation"]["best"] == int(best)
    assert re.search(rf"^{finished} trials \(", text, re.MULTILINE)
    assert max(int(row[0]) for row in rows(text, "Top trials")) < finished


@pytest.mark.parametrize("step", ["confirming", "writing"])
def test_trials_that_are_added_while_a_report_is_made_are_not_in_it(
    words, tmp_path, monkeypatch, capsys, step: str, figure: Figure
) -> None:
    six = [*words, "n_trials=6"]
    added = []

    def more(call):
        def after(*args, **kwargs):
            study = loaded(tmp_path)
            if len(study.trials) >= 6 and all(trial.state.is_finished() for trial in study.trials):
                like = study.trials[0]
                attrs = {"metrics": {"nDCG@10": 0.999, "tokens": 1.0}, "origin": "random"}
                study.add_trial(
                    create_trial(values=[0.999], params=like.params, distributions=like.distributions, user_attrs=attrs)
                )
                added.append(len(study.trials))
            return call(*args, **kwargs)

        return after

    if step == "confirming":
        monkeypatch.setattr(Evaluator, "measure_config", more(Evaluator.measure_config))
    else:
        monkeypatch.setattr(report, "write_report", more(report.write_report))
    findings = run_study(six).findings
    folder = tmp_path / "studies/animals"
    assert added
    assert findings.trials == 6
    agrees(folder, 6)
    monkeypatch.undo()
    capsys.readouterr()
    command.main([str(folder)])
    agrees(folder, 6)
    assert f"{len(added)} trials were finished since" in capsys.readouterr().out
    figure("one moment", f"trials added while {step}: not in the report, which agrees with itself")


def test_a_trial_that_was_under_way_is_still_so_in_the_report_of_that_time(words, tmp_path) -> None:
    findings = run_study([*words, "n_trials=6"]).findings
    study = loaded(tmp_path)
    best = findings.confirmation.best
    earlier = type(findings)(**{**vars(findings), "unfinished": (best,)}).get_snapshot(study)
    assert [trial.number for trial in earlier.get_trials(states=(TrialState.RUNNING,))] == [best]
    assert earlier.unfinished == (best,)
    assert study.trials[best].state == TrialState.COMPLETE
