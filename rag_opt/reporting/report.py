"""A study's report: what it leaves in its folder, in its storage and for the tracking server; read and written anew."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_opt.analysis.finished import PAGE, open_finished
from rag_opt.cache.artifact_files import link_file
from rag_opt.console.secrets import hide_secrets
from rag_opt.errors import StudyError

UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

if TYPE_CHECKING:
    import optuna

    from rag_opt.analysis.findings import Findings
    from rag_opt.storages.snapshot import Trials


def write_report(findings: Findings, study: optuna.Study, folder: Path) -> dict[str, str]:
    """Leave findings.json, report.md, report.html and best.yaml in the study's folder, note and figures in its storage.

    Gives the figures as Plotly's JSON, by name.
    """
    from rag_opt.analysis.interchange import write_trials
    from rag_opt.config.experiments import PLACE
    from rag_opt.reporting import page, summary
    from rag_opt.reporting.figures import build_plots

    # First: from it and the storage everything else can be written anew.
    findings.write(folder)
    # One moment for all files: trials that other workers add meanwhile are in none of them.
    now = findings.get_snapshot(study)
    drawn, best = build_plots(findings, now), summary.format_best_yaml(findings, now)
    texts = {
        "report.md": summary.format_markdown(findings, now),
        "best.yaml": best,
        # Once more as an experiment: `best=FOLDER` has Hydra find it there.
        PLACE: best,
        PAGE: page.render_report(findings, now, drawn),
    }
    for name, text in texts.items():
        if text:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text, "utf-8")
    write_trials(folder, now, findings.targets, findings.dev)
    figures = {plot.name: plot.figure.to_json() or "{}" for plot in drawn}
    _show_in_dashboard(study, folder, texts["report.md"], figures)
    return figures


def collect_metrics(findings: Findings, study: Trials) -> dict[str, float]:
    """The findings as numbers for the tracking server: test scores, dev score, latencies."""
    found = findings.confirmation
    values: dict[str, float] = {}
    if found is not None:
        target, arm = findings.targets[0], found.selected_arm
        compared = {"difference": arm.difference, "low": arm.difference_low, "high": arm.difference_high}
        values = {
            f"test.{target}": found.recommended_arm.test,
            **{f"test.{name}": value for name, value in compared.items()},
        }
        dev = study.get_trials(deepcopy=False)[found.recommended].values
        values |= {f"test.{each.metric}": each.recommended_arm.test for each in findings.others}
        values |= {f"best.{name}": value for name, value in zip(findings.targets, dev, strict=True)}
    for name, latency in findings.latencies.items():
        role = "recommended" if found is not None and name == f"trial {found.recommended}" else name
        values |= {f"{role}.latency_p50": latency.p50, f"{role}.latency_p95": latency.p95}
    # MLflow's database turns infinity into 1.8e308.
    return {name: value for name, value in values.items() if math.isfinite(value)}


def collect_tags(findings: Findings, study: Trials, config: Any) -> dict[str, str]:
    """What the tracking server is told in words: the verdict, the command, and how was searched."""
    from rag_opt.config.trust import to_plain
    from rag_opt.reporting import summary

    verdict, command = summary.format_conclusion(findings, study), findings.commands.get("replay", "")
    told = {"verdict": verdict, "recommended": summary.format_recommendation(findings), "command": command}
    told |= {key: str(to_plain(config[key]).get("_target_", "")) for key in ("sampler", "pruner")}
    told |= {f"budget.{key}": str(value) for key, value in to_plain(config.budget).items() if value is not None}
    # MLflow shows this tag as the run's description, in Markdown.
    told["mlflow.note.content"] = f"{verdict}\n\n```sh\n{command}\n```" if command else verdict
    # Hidden before it is cut: half a password would not be known for one.
    return {key: hide_secrets(text)[:5000] for key, text in told.items() if text}


def _show_in_dashboard(study: optuna.Study, folder: Path, note: str, figures: Mapping[str, str]) -> None:
    """The report as optuna-dashboard's note of the study, the page as an artifact, the figures that it lacks."""
    from optuna.artifacts import FileSystemArtifactStore, upload_artifact

    from rag_opt.reporting.figures import OWN
    from rag_opt.storages.attributes import StudyAttributes, get_study_attributes
    from rag_opt.storages.notes import save_study_figure, save_study_note

    save_study_note(study, note)
    for name in OWN & set(figures):
        save_study_figure(study, name, figures[name])
    place, page = folder / "artifacts", folder / PAGE
    place.mkdir(exist_ok=True)
    known = get_study_attributes(study).report
    # It names a file: one that came from elsewhere must not lead out of the folder.
    if not UUID.fullmatch(known):
        store = FileSystemArtifactStore(str(place))
        known = upload_artifact(artifact_store=store, file_path=str(page), study_or_trial=study)
        StudyAttributes.report.save(study, known)
    # Each report takes the place of the last: optuna-dashboard shows a link, so the page is kept once.
    link_file(page, place / known)


@contextmanager
def translate_read_errors(folders: Sequence[Path]) -> Iterator[None]:
    """Raise StudyError where what lies in the folders has not the form that a study gives it."""
    try:
        yield
    except (TypeError, ValueError, AttributeError, LookupError) as error:
        where = ", ".join(map(str, folders))
        raise StudyError(
            f"{where}: no report can be made of what lies there ({type(error).__name__}: {error}); "
            "run the study's command again, it writes findings.json anew"
        ) from error


def rewrite_report(folder: Path, storage: str | None = None) -> Path:
    """The report of a finished study, written anew from its folder and its storage; gives the page's path."""
    with translate_read_errors([folder]):
        write_report(*open_finished(folder, storage), folder)
    return folder / PAGE
