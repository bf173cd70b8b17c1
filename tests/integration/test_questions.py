"""The page of a check in a real browser, and a study over what was chosen in it."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path

import pytest

from rag_opt.cli.questions import main
from rag_opt.cli.study import run_study
from tests.conftest import DOCUMENTS, write_jsonl
from tests.integration.test_report import CHROMIUM, NASTY, SCREENSHOTS
from tests.services import counts, reset
from tests.services.files import write_office

pytestmark = pytest.mark.integration


@pytest.fixture
def checked(animals: list[str], tmp_path: Path) -> tuple[list[str], Path]:
    """The words of a data set with one question of an attacker and one that repeats another; its check's folder."""
    (given,) = (word.removeprefix("dataset.questions=") for word in animals if word.startswith("dataset.questions="))
    rows = [json.loads(line) for line in Path(given).read_text().splitlines()]
    rows += [{**rows[0], "id": "again"}, {**rows[1], "id": "nasty", "question": f"Which one? {NASTY}"}]
    (tmp_path / "mine.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    rest = [word for word in animals if not word.startswith("dataset.questions=")]
    named = [word for word in rest if word.startswith("dataset")]
    out = tmp_path / "out"
    main(
        ["check", *named, f"dataset.questions={tmp_path}/mine.jsonl", f"store.path={tmp_path}/store", "--out", str(out)]
    )
    return rest, out


def test_questions_are_chosen_in_a_browser_and_a_study_takes_those(
    checked: tuple[list[str], Path], tmp_path: Path
) -> None:
    if CHROMIUM is None:
        assert "CI" not in os.environ, "CI needs Debian's package chromium"
        pytest.skip("no Chromium")
    from playwright.sync_api import sync_playwright

    words, out = checked
    wrong: list[str] = []
    asked: list[str] = []
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": 1000, "height": 900})
        page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("dialog", lambda dialog: wrong.append(dialog.message))
        page.on("request", lambda request: asked.append(request.url))
        page.goto((out / "questions.html").resolve().as_uri())
        count = len((out / "questions.checked.jsonl").read_text().splitlines())
        assert page.locator("#count").inner_text() == f"{count - 1} of {count} accepted"
        page.select_option("#which", "repeated")
        assert page.locator("article:visible").count() == 1
        assert "asks what another one asks" in page.locator("article:visible .flag").inner_text()
        page.select_option("#which", "")
        nasty = page.locator("article", has_text="onerror=alert")
        nasty.get_by_label("accept").uncheck()
        assert "rejected" in (nasty.get_attribute("class") or "")
        SCREENSHOTS.mkdir(exist_ok=True)
        page.screenshot(path=str(SCREENSHOTS / "questions.png"))
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        with page.expect_download() as download:
            page.click("#save")
        saved = tmp_path / "chosen.jsonl"
        download.value.save_as(saved)
        browser.close()
    assert wrong == []
    assert all(url.startswith(("file:", "blob:", "data:")) for url in asked), asked
    rows = {row["id"]: row for row in map(json.loads, saved.read_text("utf-8").splitlines())}
    assert {name for name, row in rows.items() if not row["accept"]} == {"again", "nasty"}
    places = [f"studies_dir={tmp_path}/studies", f"store.path={tmp_path}/store"]
    given = [*words, f"dataset.questions={saved}", *places]
    outcome = run_study([*given, "tracking=none", "n_trials=2", "retriever=bm25"])
    assert outcome.findings.dev + outcome.findings.test == count - 2, "those that are accepted"


def test_questions_are_made_from_a_folder_paid_once_and_studied(
    endpoint: str, services: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_office(tmp_path / "docs")
    for name in ("broken1.pdf", "broken2.pdf", "broken3.pdf"):
        (tmp_path / "docs" / name).write_bytes(b"%PDF-1.4 nonsense")
    for number in range(6):
        text = " ".join(
            f"Part {number}{letter} of the machine is oiled in month {letter}{number}." for letter in "abcdef"
        )
        (tmp_path / "docs" / f"machine{number}.md").write_text(f"# Machine {number}\n\n{text}\n")
    words = ["dataset=folder", f"dataset.path={tmp_path}/docs", *services, f"store.path={tmp_path}/store"]
    reset(endpoint)
    main(["make", *words, "--count", "12", "--out", str(tmp_path / "out")])
    said = capsys.readouterr()
    assert "forecast: " in said.err
    assert "questions written" in said.out
    assert "rank retrieval settings well" in said.out
    rows = [json.loads(line) for line in (tmp_path / "out/questions.jsonl").read_text().splitlines()]
    assert len(rows) >= 4
    assert all({"question", "answers", "relevant", "evidence", "kind", "difficulty"} <= set(row) for row in rows)
    assert all(set(span) == {"doc_id", "quote"} for row in rows for span in row["evidence"])
    page = (tmp_path / "out/questions.html").read_text()
    saved = json.loads(page.partition('id="rows">')[2].partition("</script>")[0])
    assert saved == rows, "what the page saves is what was written"
    paid = counts(endpoint)["chat"]
    assert f"paid for: {paid} calls" in said.out
    main(["make", *words, "--count", "12", "--out", str(tmp_path / "again")])
    assert counts(endpoint)["chat"] == paid, "what was said is kept"
    assert (tmp_path / "again/questions.jsonl").read_bytes() == (tmp_path / "out/questions.jsonl").read_bytes()
    assert "paid for: 0 calls" in capsys.readouterr().out
    given = [*words, f"dataset.questions={tmp_path}/out/questions.jsonl", f"studies_dir={tmp_path}/studies"]
    capsys.readouterr()
    outcome = run_study(
        [*given, "generator=none", "objective=evidence", "tracking=none", "n_trials=2", "retriever=bm25"]
    )
    assert "questions were made by a model" in capsys.readouterr().err
    assert outcome.findings.documents == len(list((tmp_path / "docs").rglob("*.*")))


def test_the_study_that_is_named_runs_whatever_data_set_the_documents_are_of(
    services: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "beir"
    (folder / "qrels").mkdir(parents=True)
    texts = {row["id"]: f"{row['text']} " * 2 for row in DOCUMENTS}
    write_jsonl(folder / "corpus.jsonl", [{"_id": name, "text": text} for name, text in texts.items()])
    write_jsonl(folder / "queries.jsonl", [{"_id": "q", "text": "Who purrs?"}])
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\nq\tcats\t1\n")
    words = ["dataset=beir", f"dataset.path={folder}", *services, f"store.path={tmp_path}/store"]
    main(["make", *words, "--count", "4", "--out", str(tmp_path / "out")])
    (line,) = [each for each in capsys.readouterr().out.splitlines() if each.startswith("study: ")]
    given = shlex.split(line)[4:]
    assert "dataset=beir" not in given
    places = ["generator=none", "objective=ndcg", "tracking=none", "n_trials=1", "retriever=bm25"]
    outcome = run_study([*given, *places, f"studies_dir={tmp_path}/studies"])
    assert outcome.findings.documents == len(texts)


def test_a_budget_ends_the_making_and_nothing_is_lost(
    endpoint: str, services: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_office(tmp_path / "docs")
    words = ["dataset=folder", f"dataset.path={tmp_path}/docs", *services, f"store.path={tmp_path}/store"]
    reset(endpoint)
    with pytest.raises(SystemExit):
        main(["make", *words, "budget.tokens=600", "--count", "8", "--out", str(tmp_path / "out")])
    assert "a larger budget goes on from there" in capsys.readouterr().err
    before = counts(endpoint)["chat"]
    assert before
    main(["make", *words, "--count", "8", "--out", str(tmp_path / "out")])
    whole = counts(endpoint)["chat"]
    reset(endpoint)
    main(["make", *words, "--count", "8", f"store.path={tmp_path}/other", "--out", str(tmp_path / "other")])
    assert counts(endpoint)["chat"] == whole, "in two goes as much is paid as in one"


def test_a_model_without_a_price_is_refused_a_budget_in_dollars(
    services: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rag_opt.components.llm.endpoint.is_loopback", lambda _: False)
    write_office(tmp_path / "docs")
    words = ["dataset=folder", f"dataset.path={tmp_path}/docs", *services, f"store.path={tmp_path}/store"]
    with pytest.raises(SystemExit):
        main(["make", *words, "llm.model=unheard", "budget.usd=1", "--out", str(tmp_path)])
    assert "unheard has no price" in capsys.readouterr().err
