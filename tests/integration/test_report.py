"""report.html in a real browser, reports written anew, studies compared, dashboards told."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from pathlib import Path

import optuna
import pytest

from rag_opt.analysis.findings import Findings
from rag_opt.analysis.finished import FILES, open_finished
from rag_opt.cli.study import Outcome, run_study
from rag_opt.console.terminal import build_console
from rag_opt.errors import StudyError
from rag_opt.reporting import report
from rag_opt.reporting.comparison import compare_studies
from rag_opt.reporting.figures import OWN
from rag_opt.storages.attributes import get_study_attributes
from tests.integration import commands

pytestmark = pytest.mark.integration

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
SCREENSHOTS = Path(os.environ.get("RAG_OPT_SCREENSHOTS", ".screenshots"))
FIGURES = {"intervals", "differences", "history", "importance", "slices", "contour", "trade_off", "stages"}
LARGEST = 2 * 1024 * 1024
OVERLAPPING = """() => [...document.querySelectorAll(".plot")].flatMap(plot => {
  const names = [...plot.querySelectorAll("text[class$=title], .xtick text")].filter(e => e.textContent.trim());
  const boxes = names.map(e => [e.textContent, e.getBoundingClientRect()]).filter(([, box]) => box.width);
  return boxes.flatMap(([one, a], i) => boxes.slice(i + 1).filter(([, b]) =>
    a.left + 1 < b.right && b.left + 1 < a.right && a.top + 1 < b.bottom && b.top + 1 < a.bottom
  ).map(([other]) => `${plot.id}: ${one} / ${other}`));
})"""
"""Names of axes and ticks that lie on each other."""

HINTS = """all => all.map(wide => [wide.scrollWidth > wide.clientWidth + 1, !wide.previousElementSibling.hidden])"""
"""Of each part that may be too wide: whether it is, and whether that is said."""

NASTY = "<img src=https://example.com/x onerror=alert(1)> & </script><script>alert(2)</script>"


def start(animals: list[str], folder: Path, *overrides: str) -> Outcome:
    base = [*animals, f"studies_dir={folder}/studies", f"store.path={folder}/store", "tracking=none", "n_trials=14"]
    return run_study([*base, "pruner=none", *overrides])


@pytest.fixture(scope="module")
def finished(animals, tmp_path_factory) -> Path:
    """The folder of a finished study of 14 trials, one of its questions written by an attacker."""
    folder = tmp_path_factory.mktemp("report")
    questions = next(word.partition("=")[2] for word in animals if word.startswith("dataset.questions="))
    text = Path(questions).read_text()
    own = folder / "questions.jsonl"
    own.write_text(re.sub(r'"question": "([^"]*)"', lambda m: f'"question": "{m[1]} {NASTY}"', text))
    return start([*animals, f"dataset.questions={own}"], folder, "n_trials=14").folder


def test_a_browser_shows_the_report_without_an_error_or_a_request(finished: Path) -> None:
    if CHROMIUM is None:
        assert "CI" not in os.environ, "CI needs Debian's package chromium"
        pytest.skip("no Chromium")
    from playwright.sync_api import sync_playwright

    wrong, asked = [], []
    SCREENSHOTS.mkdir(exist_ok=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        for name, width, scheme in (("desktop", 1280, "light"), ("phone", 390, "dark")):
            context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme)
            page = context.new_page()
            page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
            page.on("pageerror", lambda error: wrong.append(str(error)))
            page.on("dialog", lambda dialog: wrong.append(f"dialog {dialog.message}"))
            page.on("request", lambda request: asked.append(request.url))
            page.goto((finished / "report.html").resolve().as_uri())
            page.wait_for_selector("#plot-stages .main-svg")
            drawn = {plot.get_attribute("id") for plot in page.locator(".plot:has(.main-svg)").all()}
            assert {f"plot-{figure}" for figure in FIGURES} <= drawn
            assert "the baseline" in page.locator("#recommendation").inner_text()
            assert "python -m rag_opt.trial" in page.locator("#command").inner_text()
            captions = page.locator("header figcaption").all_inner_texts()
            assert captions == ["On unseen questions. With intervals; the dashed line is the baseline."]
            overlapping = page.evaluate(OVERLAPPING)
            assert overlapping == [], overlapping
            hints = page.locator(".wide").evaluate_all(HINTS)
            assert all(cut == hinted for cut, hinted in hints), hints
            assert width > 390 or sum(cut for cut, _ in hints) >= 3
            # Nothing but the plots that say so is wider than the screen.
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            page.screenshot(path=str(SCREENSHOTS / f"report-{name}.png"))
            page.keyboard.press("Tab")
            assert page.evaluate("document.activeElement.textContent") == "to the content"
        browser.close()
    assert wrong == []
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []


def test_the_report_is_written_anew_from_the_folder(finished: Path) -> None:
    before = {name: (finished / name).read_text() for name in FILES}
    for name in FILES:
        (finished / name).unlink()
    said = commands.finished(finished.parent, str(finished), module="rag_opt.report")
    assert said.returncode == 0, said.stderr
    assert "report.html" in said.stdout
    after = {name: (finished / name).read_text() for name in FILES}
    assert after["report.md"] == before["report.md"]
    assert after["best.yaml"] == before["best.yaml"]
    assert len(after["report.html"]) == pytest.approx(len(before["report.html"]), rel=0.01)


def test_a_folder_without_a_finished_study_is_refused_in_one_line(tmp_path) -> None:
    with pytest.raises(StudyError, match=r"no finished study: there is no findings\.json"):
        report.rewrite_report(tmp_path)
    (tmp_path / "findings.json").write_text("{")
    with pytest.raises(StudyError, match="can't be read"):
        report.rewrite_report(tmp_path)


def test_a_report_outlives_its_database(finished: Path, tmp_path) -> None:
    copy = shutil.copytree(finished, tmp_path / "animals")
    (copy / "study.db").unlink()
    findings = (copy / "findings.json").read_text().replace(str(finished / "study.db"), str(copy / "study.db"))
    (copy / "findings.json").write_text(findings)
    with pytest.raises(StudyError, match="is gone"):
        report.rewrite_report(copy)
    assert (copy / "report.md").read_text() == (finished / "report.md").read_text()
    assert not (copy / "study.db").exists()


def test_no_password_is_written(animals, tmp_path) -> None:
    from rag_opt.console.secrets import hide_secrets

    assert hide_secrets("storage.url=postgresql://me:geheim@host/db") == "storage.url=postgresql://me:***@host/db"
    assert "geheim" not in hide_secrets("storage.url='postgresql://me:geheim@host/db'")
    assert hide_secrets("n_trials=5") == "n_trials=5"


def test_a_page_of_several_objectives_has_its_front(animals, tmp_path) -> None:
    folder = start(animals, tmp_path, "objective=quality_cost", "name=two").folder
    text = (folder / "report.html").read_text()
    assert "Pareto front" in text
    assert {name for name in FIGURES | {"correlations"} if f'id="plot-{name}"' in text} == FIGURES | {"correlations"}


def test_one_trial_is_enough_for_a_report(animals, tmp_path) -> None:
    folder = start(animals, tmp_path, "n_trials=1", "name=one").folder
    assert "the baseline stays" in (folder / "report.html").read_text()


def test_a_study_that_went_on_says_that_its_questions_were_seen(animals, tmp_path) -> None:
    start(animals, tmp_path, "n_trials=4", "name=more")
    folder = start(animals, tmp_path, "n_trials=4", "name=more").folder
    assert "looked at" not in (folder / "report.md").read_text()
    start(animals, tmp_path, "n_trials=6", "name=more")
    assert "looked at 2 times" in (folder / "report.md").read_text()


def test_the_dashboard_has_the_note_and_the_page(finished: Path) -> None:
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{finished}/study.db")
    from optuna_dashboard import get_note
    from optuna_dashboard._custom_plot_data import get_plotly_graph_objects

    assert get_note(study) == (finished / "report.md").read_text()
    shown = get_plotly_graph_objects(study._storage.get_study_system_attrs(study._study_id))
    assert set(shown) == OWN
    assert all(json.loads(figure)["data"] for figure in shown.values())
    kept = finished / "artifacts" / get_study_attributes(study).report
    assert kept.samefile(finished / "report.html"), "it is kept once"
    report.rewrite_report(finished)
    assert kept.read_text() == (finished / "report.html").read_text()
    assert (finished / "report.html").stat().st_size < LARGEST


def test_a_link_that_lies_in_the_pages_place_is_not_followed(finished: Path, tmp_path) -> None:
    study = optuna.load_study(study_name="animals", storage=f"sqlite:///{finished}/study.db")
    kept = finished / "artifacts" / get_study_attributes(study).report
    (tmp_path / "mine").write_text("mine")
    kept.unlink()
    kept.symlink_to(tmp_path / "mine")
    report.rewrite_report(finished)
    assert (tmp_path / "mine").read_text() == "mine"


def test_studies_are_compared(animals, tmp_path) -> None:
    folders = [start(animals, tmp_path, f"name=seed{seed}", f"seed={seed}", "n_trials=6").folder for seed in (0, 1)]
    page = compare_studies([open_finished(folder) for folder in folders], folders)
    assert page == tmp_path / "studies" / "comparison.html"
    text = (tmp_path / "studies" / "comparison.md").read_text()
    assert "seed0" in text
    assert "seed1" in text
    assert "found the best on unseen questions" in text
    assert 'id="plot-regret"' in page.read_text()


def test_studies_of_other_questions_are_not_compared(animals, tmp_path) -> None:
    folders = [
        start(animals, tmp_path, f"name=split{seed}", f"dataset.split_seed={seed}", "n_trials=2").folder
        for seed in (0, 5)
    ]
    page = compare_studies([open_finished(folder) for folder in folders], folders)
    assert "scores are not comparable" in page.read_text()
    assert (tmp_path / "studies" / "comparison.md").read_text().count(
        "## studies of nDCG@10, 6 documents, 3 quest"
    ) == 2


def test_studies_of_different_metrics_share_neither_table_nor_order(animals, tmp_path) -> None:
    metrics = {"a": "P@10", "b": "nDCG@10", "c": "P@10"}
    words = ["retriever=bm25", "generator=none", "n_trials=1"]
    folders = [
        start(animals, tmp_path, f"name={name}", f"objective.metrics=[{metric}]", *words).folder
        for name, metric in metrics.items()
    ]
    lines = io.StringIO()
    screen = build_console(lines)
    page = compare_studies([open_finished(folder) for folder in folders], folders, screen)
    told = (tmp_path / "studies" / "comparison.md").read_text()
    first, second = told.split("## ")[1:]
    assert first.startswith("studies of P@10\n")
    assert "| a |" in first
    assert "| c |" in first
    assert "nDCG@10" not in first
    assert second.startswith("studies of nDCG@10\n")
    assert "| b |" in second
    assert "P@10" not in second
    assert "different metrics: their scores are not comparable. a found the best on unseen questions: P@10" in told
    shown = lines.getvalue()
    assert "These studies optimise different metrics: their scores are not comparable." in shown
    assert [shown.count(f"studies of {metric}") for metric in ("P@10", "nDCG@10")] == [1, 1]
    assert {f'id="{name}"' in page.read_text() for name in ("studies", "studies1", "scores1", "regret1")} == {True}


def test_what_bears_on_the_finalists_scores_is_in_the_report(animals, tmp_path: Path) -> None:
    questions = tmp_path / "strange.jsonl"
    rows = [{"id": f"q{i}", "question": f"жираф{i}", "relevant": ["cats"]} for i in range(20)]
    questions.write_text("\n".join(map(json.dumps, rows)), "utf-8")
    folder = start(
        animals, tmp_path, f"dataset.questions={questions}", "retriever=bm25", "generator=none", "n_trials=2"
    ).folder
    line = "BM25: 6 of 6 questions share no word with any chunk"
    assert line in (folder / "report.md").read_text("utf-8")
    assert line in Findings.read(folder).notes
    assert line in (folder / "report.html").read_text("utf-8")
