"""A study whose unseen questions are looked at again, and which is given fresh ones."""

from __future__ import annotations

import pytest

from rag_opt.analysis.findings import Findings
from rag_opt.cli.study import run_study
from rag_opt.errors import ConfigError
from tests.conftest import own_space, write_jsonl

pytestmark = pytest.mark.integration

FRESH = [
    {"question": "Which pet makes a purring noise when it is content?", "relevant": ["cats"]},
    {"question": "What do loyal animals that bark like to chase?", "relevant": ["dogs"]},
]


@pytest.fixture
def words(animals, tmp_path) -> list[str]:
    base = [*animals, f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store", "tracking=none"]
    fewest = ["objective.metrics=[tokens]", "objective.report=[nDCG@10]", "retriever=bm25", "pruner=none"]
    return [*base, *own_space(tmp_path, {"retriever.top_k": "range(1, 11)"}), *fewest, "sampler=random"]


def test_fresh_questions_join_those_that_confirm_and_the_trials_stay(words, tmp_path, capsys) -> None:
    first = run_study([*words, "sampler=brute_force", "n_trials=10"])
    assert first.findings.confirmation.look == 1
    more = write_jsonl(tmp_path / "more.jsonl", FRESH)
    capsys.readouterr()
    again = run_study([*words, "sampler=brute_force", "n_trials=10", f"dataset.test={more}"])
    assert "fresh questions of more.jsonl that confirm, too: 2" in capsys.readouterr().err
    assert (again.findings.trials, again.findings.dev) == (first.findings.trials, first.findings.dev)
    assert again.findings.test == first.findings.test + 2
    # Another set of questions is another test, and what it may claim is less.
    assert again.findings.confirmation.look == 2
    for outcome, share in ((first, 0.8), (again, 0.16)):
        arm = outcome.findings.confirmation.selected_arm
        assert arm.adjusted == pytest.approx(min(1.0, arm.p / share))
    report = (again.folder / "report.md").read_text("utf-8")
    assert "99.2 % bootstrap intervals" in report
    assert "96 %" not in report
    assert Findings.read(again.folder).confirmation.look == 2


def test_a_study_that_goes_on_spends_what_it_may_claim(words) -> None:
    looks = []
    for trials in (3, 3, 8):
        found = run_study([*words, f"n_trials={trials}"]).findings
        looks.append((found.confirmation.selected, found.confirmation.look, found.looks))
    assert looks[0] == looks[1]
    assert looks[0][1:] == (1, 1)
    assert looks[2][2] == 2
    assert looks[2][1] == (1 if looks[2][0] == looks[0][0] else 2)
    report = (run_study([*words, "n_trials=8"]).folder / "report.md").read_text("utf-8")
    assert "looked at 2 times as this study grew" in report
    assert ("is choice 2 that these questions judge: it is tested at 0.8 %" in report) == (looks[2][1] == 2)


def test_a_crossfit_has_no_place_for_fresh_questions(words, tmp_path) -> None:
    more = write_jsonl(tmp_path / "more.jsonl", FRESH)
    with pytest.raises(ConfigError, match=r"dataset\.test=.*crossfit searches all questions and keeps none"):
        run_study([*words, "n_trials=3", "confirmation.method=crossfit", f"dataset.test={more}"])


def test_groups_and_what_more_trials_may_gain_are_in_the_report(words) -> None:
    # The same words but for the metric: something has to be left to gain.
    mine = [word for word in words if not word.startswith("objective.")]
    folder = run_study([*mine, "objective.metrics=[context.nDCG@10]", "dataset.groups=document", "n_trials=4"]).folder
    found = Findings.read(folder)
    assert found.confirmation.grouped
    report = (folder / "report.md").read_text("utf-8")
    assert "Another trial is expected to gain" in report
