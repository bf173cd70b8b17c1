"""A judge measured before it decides, by command and in studies; people's grades in place of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from rag_opt.analysis.findings import Findings
from rag_opt.cli.judge import main
from rag_opt.cli.study import run_study
from rag_opt.errors import RagOptError
from rag_opt.study.forecast import compute_forecast
from rag_opt.study.plan import build_plan
from tests.conftest import QUESTIONS, own_space, write_jsonl
from tests.services import counts, fault, reset
from tests.unit.hostile import HOSTILE

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def judged(animals, endpoint: str, tmp_path_factory) -> list[str]:
    """A study of animals whose answers a judge grades, ended, with verdicts that no other test pays again."""
    fault(endpoint, "none")
    folder = tmp_path_factory.mktemp("judged")
    words = [*animals, f"llm.base_url={endpoint}", "llm.key=null", "generator=openai", "objective=judged"]
    words += [f"studies_dir={folder}/studies", f"store.path={folder}/store", "tracking=none", "pruner=none"]
    words += ["n_trials=4", "sampler=random"]
    reset(endpoint)
    run_study(words)
    return words


def read(words: list[str]) -> Findings:
    """What the last run of this study has found."""
    place = next(word for word in words if word.startswith("studies_dir="))
    return Findings.read(Path(place.partition("=")[2]) / "animals")


def test_the_command_measures_a_judge_and_pays_once(endpoint: str, tmp_path: Path, capsys) -> None:
    fault(endpoint, "none")
    reset(endpoint)
    given = ["check", f"llm.base_url={endpoint}", "llm.key=null", f"store.path={tmp_path}/store", "--questions=6"]
    main(given)
    told = capsys.readouterr().out
    assert "weighted kappa" in told
    assert "paid: 60 calls" in told
    assert "judge.correctness: may decide (judge.floor=0.4)" in told
    assert "objective.metrics=[judge.correctness]" in told
    assert counts(endpoint)["chat"] == 60
    main(given)
    assert "every verdict was kept: nothing was paid" in capsys.readouterr().out
    assert counts(endpoint)["chat"] == 60
    main([*given, "judge.floor=0.99"])
    told = capsys.readouterr().out
    assert "judge.correctness: refused as an objective, below judge.floor=0.99, unless judge.trust=true" in told
    assert "objective.metrics" not in told


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["look"], "rag_opt.judge look: check is expected"),
        (["check", "--aspect=corectness"], "--aspect corectness: there is no such judge; did you mean 'correctness'?"),
        (["check", "judge.floor=3"], "judge.floor=3: a kappa is expected, from -1 to 1"),
        (["check", "judge.check=-1"], "judge.check=-1: a whole number of at least 0 is expected"),
        (["check", "judge.trust=maybe"], "judge.trust=maybe: true or false is expected"),
        (["check", "budget.tokens=300"], "budget.tokens=300 is spent"),
    ],
)
def test_what_is_wrong_with_a_check_is_said(given, said, endpoint: str, tmp_path: Path, capsys) -> None:
    fault(endpoint, "none")
    with pytest.raises(SystemExit) as ended:
        main([*given, f"llm.base_url={endpoint}", "llm.key=null", f"store.path={tmp_path}/store"])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_report_tells_what_its_judge_is_worth(judged: list[str], endpoint: str, tmp_path: Path) -> None:
    notes = read(judged).notes
    assert any(
        "judge.correctness by gpt-4o-mini: weighted kappa 0." in note and "50 labelled" in note for note in notes
    )
    assert any("put 1 to 5 for null" in note for note in notes)
    # What was forecast for measuring it is what it cost.
    reset(endpoint)
    told = compute_forecast(build_plan([*judged, f"store.path={tmp_path}/fresh"]))
    assert told.stages["judge check"].calls == 50
    assert counts(endpoint)["chat"] == 0


def test_a_judge_below_the_floor_decides_only_where_it_is_told_to(judged: list[str]) -> None:
    strict = [*judged, "judge.floor=0.95", "name=strict", "n_trials=2"]
    with pytest.raises(
        RagOptError, match=r"below judge.floor=0.95: it gives .* choose another judge.model, or judge.tru"
    ):
        run_study(strict)
    assert not run_study([*strict, "judge.trust=true"]).error


def grade(rows: list[dict], path: Path, grades: dict[str, int]) -> None:
    """Fill in what people give: a grade by the answer."""
    path.write_text("".join(json.dumps({**row, "grade": grades.get(row["answer"], 2)}) + "\n" for row in rows))


@pytest.fixture(scope="module")
def many(judged, tmp_path_factory) -> list[str]:
    """The same over 60 questions, of which 42 confirm: enough for people to correct by."""
    folder = tmp_path_factory.mktemp("many")
    rows = [
        {**row, "id": f"{row['id']}-{place}", "question": f"{row['question']} ({place})"}
        for place in range(6)
        for row in QUESTIONS
    ]
    path = write_jsonl(folder / "questions.jsonl", rows)
    words = [*judged, f"dataset.questions={path}", f"studies_dir={folder}", "dataset.test_share=0.7", "judge.check=4"]
    run_study(words)
    return words


def test_an_interval_allows_for_the_judge(many: list[str], tmp_path: Path) -> None:
    """A baseline that reads nothing: the same trials and verdicts, once of a judge that nothing is known of."""
    space = own_space(tmp_path, {"retriever": "choice(none, bm25)"})
    poor = tmp_path / "conf/experiment/poor.yaml"
    poor.parent.mkdir()
    poor.write_text("# @package _global_\ndefaults:\n  - override /retriever: none\n")
    words = [*many, *space, "+experiment=poor", "sampler=brute_force", "n_trials=2", f"studies_dir={tmp_path}"]
    words = [word for word in words if not word.startswith("retriever.depth")]
    run_study(words)
    known = Findings.read(tmp_path / "animals").confirmation
    run_study([*words, "judge.check=0"])
    unknown = Findings.read(tmp_path / "animals").confirmation
    ours, theirs = (next(arm for arm in each.arms if arm.role != "baseline") for each in (known, unknown))
    assert ours.difference == theirs.difference != 0
    assert ours.p == theirs.p
    assert ours.difference_low < theirs.difference_low
    assert ours.difference_high > theirs.difference_high


def test_peoples_grades_correct_the_judge(many: list[str]) -> None:
    folder = Path(many[-3].partition("=")[2]) / "animals"
    rows = [json.loads(line) for line in (folder / "to_grade.jsonl").read_text().splitlines()]
    assert {*rows[0]} == {"id", "aspect", "question", "reference", "answer", "grade"}
    assert all(row["grade"] is None for row in rows)
    raw = Findings.read(folder)
    assert raw.confirmation is not None
    graded = folder.parent / "graded.jsonl"
    grade(rows, graded, {})
    run_study([*many, f"judge.labels={graded}"])
    found = Findings.read(folder)
    assert found.confirmation is not None
    others = [arm for arm in found.confirmation.arms if arm.role != "baseline"]
    # All that they graded got a 2: no configuration is better, whatever the judge said; its own means stay as they are.
    assert [(arm.difference, arm.p) for arm in others] == [(0.0, 1.0)] * len(others)
    assert [arm.test for arm in found.confirmation.arms] == [arm.test for arm in raw.confirmation.arms]
    assert any(
        "with what people gave" in note and "they correct the difference of trial" in note for note in found.notes
    )
    # With a few grades nothing is corrected, and the interval is as wide as without them.
    grade(rows[:9], graded, {})
    run_study([*many, f"judge.labels={graded}"])
    few = Findings.read(folder)
    assert any("that takes 30 questions" in note for note in few.notes)
    assert few.confirmation.arms == raw.confirmation.arms


def test_grades_that_someone_has_begun_are_kept(many: list[str]) -> None:
    folder = Path(many[-3].partition("=")[2]) / "animals"
    path = folder / "to_grade.jsonl"
    before = path.read_text()
    begun = before.replace('"grade": null', '"grade": 4', 1)
    path.write_text("".join(begun.splitlines(keepends=True)[:-1]))
    run_study(many)
    # What was missing comes after it, what was graded stays.
    assert sorted(path.read_text().splitlines()) == sorted(begun.splitlines())
    path.write_text("half a line {")
    run_study(many)
    assert path.read_text() == "half a line {"
    path.write_text(before)


def test_a_judge_that_can_not_be_read_does_not_decide(judged, endpoint: str) -> None:
    fault(endpoint, "garbage_json_content")
    words = [*judged, "judge.model=babbler", "name=babble", "generator=none", "objective.report=[]", "n_trials=2"]
    try:
        with pytest.raises(RagOptError, match=r"nothing that babbler says can be read"):
            run_study([*words, "objective.metrics=[judge.context_relevance]"])
    finally:
        fault(endpoint, "none")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('{"id": "q1", "answer": "x", "grade": 6}', "graded.jsonl:1: grade 6 is no whole number from 1 to 5"),
        ('{"id": "q1", "answer": "x", "grade": true}', "grade True is no whole number"),
        ('{"id": "q1", "answer": "x", "grade": "4"}', "grade 4 is no whole number"),
        ('{"id": 1, "answer": "x", "grade": 4}', "'id' must be text"),
        ('{"id": "q1", "answer": "x", "grade": 4, "aspect": "taste"}', "aspect 'taste' is none of correctness"),
        (
            '{"id": "q1", "answer": "x", "grade": 4}\n{"id": "q1", "answer": "x", "grade": 3}',
            "has the grade 4 further up",
        ),
        ("[]", "a JSON object is expected"),
        ("", "the file is empty"),
    ],
)
def test_grades_that_are_none_are_refused_before_trial_0(judged, line: str, said: str, tmp_path: Path) -> None:
    path = tmp_path / "graded.jsonl"
    path.write_text(line)
    with pytest.raises(RagOptError, match=said.replace("(", r"\(")):
        build_plan([*judged, f"judge.labels={path}"])


def test_a_file_of_grades_that_is_not_there_is_named(judged: list[str]) -> None:
    with pytest.raises(RagOptError, match=r"judge.labels=nowhere.jsonl: no such file"):
        build_plan([*judged, "judge.labels=nowhere.jsonl"])
    with pytest.raises(RagOptError, match=r"judge.labels: .* add confirmation.method=split"):
        build_plan([*judged, "judge.labels=nowhere.jsonl", "confirmation.method=crossfit"])


@pytest.mark.parametrize("text", HOSTILE[:5])
def test_a_file_to_grade_holds_whatever_was_said(text: str, tmp_path: Path) -> None:
    from rag_opt.judge.grades import find_truths, read_grades, write_to_grade
    from rag_opt.records.documents import Query

    path = tmp_path / "to_grade.jsonl"
    assert write_to_grade(path, "correctness", [Query("q", text, (text,))], [[text], [text], [None]], 0) == 1
    rows = [json.loads(line) for line in path.read_text("utf-8").split("\n") if line]
    path.write_text("".join(json.dumps({**row, "grade": 5}) + "\n" for row in rows))
    assert find_truths(read_grades(path), "correctness", ["q"], [text]).tolist() == [5.0]


def test_a_check_that_has_no_price_is_no_budget_in_dollars(tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("A_KEY", "x")
    far = ["llm.base_url=https://llm.invalid/v1", "llm.key=A_KEY", "judge.model=unpriced", f"store.path={tmp_path}"]
    with pytest.raises(SystemExit):
        main(["check", *far, "budget.usd=1"])
    assert "budget.usd is set, but unpriced has no price" in capsys.readouterr().err
