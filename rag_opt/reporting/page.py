"""A finished study → report.html: one file that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from rag_opt.analysis.details import tabulate_metrics
from rag_opt.analysis.formats import capitalize_first
from rag_opt.analysis.price import tabulate_settings
from rag_opt.reporting import summary, tables
from rag_opt.reporting.inference import format_method

if TYPE_CHECKING:
    from rag_opt.analysis.findings import Findings
    from rag_opt.reporting.figures import Plot
    from rag_opt.storages.snapshot import Trials

TEMPLATE = Path(__file__).with_name("page.html.j2")
PLOTLY = Path(__file__).with_name("plotly-cartesian.min.js")
"""The part of Plotly that draws on two axes (MIT; npm: plotly.js-cartesian-dist-min), a third of the whole."""


@dataclass(frozen=True)
class Section:
    """A table of the page with a line about it."""

    name: str
    title: str
    told: str
    header: list[str]
    rows: list[list[str]]


def render_report(findings: Findings, study: Trials, drawn: Sequence[Plot]) -> str:
    """The page of a study with these figures."""
    first = [plot for plot in drawn if plot.name == "intervals"]
    crossfitted = findings.confirmation is not None and findings.confirmation.crossfitted
    confirmed = "all of them confirm" if crossfitted else f"{findings.test:,} kept to confirm"
    about = f"{findings.documents:,} documents; {findings.dev:,} questions searched, {confirmed}"
    commands = "\n".join(f"# {label}\n{command}" for label, command in findings.commands.items())
    prints = "\n".join(f"{name}: {value}" for name, value in findings.fingerprints.items())
    return render_template(
        title=f"{findings.name}: report",
        verdict=summary.format_conclusion(findings, study),
        why=summary.format_recommendation(findings),
        command=findings.commands.get("replay", ""),
        first=first,
        plots=[plot for plot in drawn if plot not in first],
        tables=_build_sections(findings, study),
        losses=findings.losses,
        lines=[about, *summary.format_details(findings, study)],
        texts={
            "Commands": commands,
            "Search space": findings.space,
            "Pipeline (Mermaid)": findings.mermaid,
            "Fingerprints": prints,
        },
    )


def render_template(**content: object) -> str:
    """The template filled in; texts are escaped."""
    # A name that the template spells wrongly fails here; by default it would leave a gap in the page.
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.globals["drawn"] = _render_plot
    # What Plotly's own file holds is a script, not text.
    plotly = Markup(PLOTLY.read_text("utf-8").replace("</script", "<\\/script"))  # noqa: S704
    return environment.from_string(TEMPLATE.read_text("utf-8")).render(plotly=plotly, **content)


def _render_plot(plot: Plot, *, caption: bool = False) -> Markup:
    """The place of a figure, and its data, in which nothing can end the script element."""
    data = (plot.figure.to_json() or "{}").replace("<", "\\u003c")
    frame = (
        '<figure role="img" aria-label="{}: {}" class="{}" tabindex="0"><div class="plot" id="plot-{}"></div>{}'
        "</figure>"
        '<script type="application/json" data-plot="{}">{}</script>'
    )
    kind = "wide" if plot.wide else ""
    below = Markup("<figcaption>{}. {}</figcaption>").format(plot.title, plot.told) if caption else ""
    # Markup.format escapes what it puts in, but for what is Markup itself.
    return Markup(frame).format(plot.title, plot.told, kind, plot.name, below, plot.name, Markup(data))  # noqa: S704


def _build_sections(findings: Findings, study: Trials) -> list[Section]:
    unseen = format_method(findings)
    seen = "Scores on the questions that were searched: of many, the best is flattered."
    begun = "The configurations that the study began with, by their score on the questions that were searched."
    asked = "What calls to models cost a question on average; stored replies count like paid ones."
    others = f"Means of the finalists on the {findings.unseen}, of every metric that was measured."
    changed = "Every setting that is not the baseline's; a dash: it does not exist there."
    sections = [
        *(
            Section(
                f"finalists{place or ''}",
                f"Finalists: {each.metric}" if findings.others else "Finalists",
                unseen,
                *tables.tabulate_finalists(findings, place),
            )
            for place, each in enumerate(findings.confirmations)
        ),
        Section(
            "settings",
            capitalize_first(summary.format_settings_title(findings)),
            f"{changed} {summary.format_ablation(findings)}".rstrip(),
            *tabulate_settings(findings, study),
        ),
        Section("metrics", "Other metrics", others, *tabulate_metrics(findings)),
        Section("costs", "Calls to models", asked, *tables.tabulate_costs(findings, study)),
        Section("trials", "Top trials", seen, *tables.tabulate_top_trials(study, findings)),
        Section("seeds", "Where it began", begun, *tables.tabulate_seeds(study, findings)),
    ]
    return [section for section in sections if section.rows]
