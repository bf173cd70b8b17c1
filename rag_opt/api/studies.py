"""Studies from Python: run, resumed, opened; what they found."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_opt.api.inputs import Rows, convert_dataset, convert_metric, convert_space, get_metric_name
from rag_opt.config.compose import compose_config, forget_files
from rag_opt.config.experiments import expand_best
from rag_opt.config.quoting import quote_arguments
from rag_opt.config.settings import parse_settings
from rag_opt.errors import ConfigError, StudyError
from rag_opt.system import environment

if TYPE_CHECKING:
    import optuna
    import pandas as pd
    from optuna.samplers import BaseSampler

    from rag_opt.analysis.confirmation import Confirmation
    from rag_opt.analysis.findings import Findings
    from rag_opt.system.haystack import Pipeline


class Result:
    """What a study recommends and what unseen questions say of it; printed, a few lines."""

    def __init__(self, findings: Findings, study: optuna.Study) -> None:
        # Imported where it is used, as below: `import rag_opt` loads nothing heavy.
        from rag_opt.reporting import summary

        now = findings.get_snapshot(study)
        self._lines = [
            line for line in (summary.format_conclusion(findings, now), summary.format_recommendation(findings)) if line
        ]
        self.confirmation: Confirmation | None = findings.confirmation
        self.config: Mapping[str, Any] = findings.config

    @property
    def overrides(self) -> tuple[str, ...]:
        """The recommended configuration as the words that differ from the command line's; () without one."""
        return self.confirmation.recommended_arm.words if self.confirmation else ()

    @property
    def keeps_baseline(self) -> bool:
        """Whether the baseline is recommended, although the search has selected another configuration."""
        return self.confirmation is not None and self.confirmation.keeps_baseline

    @property
    def difference(self) -> float:
        """The selected one's mean less the baseline's on unseen questions; nan where there is nothing to compare."""
        return self.confirmation.selected_arm.difference if self.confirmation else float("nan")

    @property
    def interval(self) -> tuple[float, float]:
        """The difference's interval (low, high), 96 % at the first look; both nan where there is nothing to compare."""
        selected = self.confirmation.selected_arm if self.confirmation else None
        return (selected.difference_low, selected.difference_high) if selected else (float("nan"), float("nan"))

    def __str__(self) -> str:
        return "\n".join([*self._lines, *(f"  {word}" for word in self.overrides)])

    def _repr_html_(self) -> str:
        first, *rest = self._lines or [""]
        words = "".join(f"<li><code>{escape(word)}</code></li>" for word in self.overrides)
        told = "".join(f"<p>{escape(line)}</p>" for line in rest)
        return f"<p><b>{escape(first)}</b></p>{told}<ul>{words}</ul>"


class Study:
    """A finished study: its findings, its trials, and what to do with the configuration that it recommends."""

    def __init__(self, folder: Path, findings: Findings, trials: optuna.Study) -> None:
        self.folder = folder
        self.findings = findings
        self.optuna_study = trials

    @property
    def name(self) -> str:
        return self.findings.name

    @property
    def result(self) -> Result:
        """What is recommended, and what unseen questions say of what the search selected."""
        return Result(self.findings, self.optuna_study)

    def trials_dataframe(self) -> pd.DataFrame:
        """A row a trial: number, state, questions, objective.*, param.*, metric.*, seconds.*."""
        from rag_opt.analysis.interchange import build_trials_table

        table = build_trials_table(
            self.findings.get_snapshot(self.optuna_study), self.findings.targets, self.findings.dev
        )
        return table.to_pandas()  # type: ignore[no-any-return]

    def best_pipeline(self) -> Pipeline:
        """The recommended configuration as a Haystack pipeline, its documents indexed; see `build_query_pipeline`.

        `best_pipeline().run({"query": "…"})["rag"]` has "documents" and "answer". Raises StudyError where none is
        recommended.
        """
        from rag_opt.api.pipeline import build_query_pipeline

        if "ask" not in self.findings.commands:
            raise StudyError(f"{self.folder}: it recommends no configuration that could be asked")
        # With the store, and whatever else, that the study's own command for this has.
        # The first three words are python -m rag_opt.ask.
        kept = shlex.split(self.findings.commands["ask"])[3:]
        more = [word for word in kept if not word.startswith(("best=", "question="))]
        return build_query_pipeline(expand_best(quote_arguments([f"best={self.folder.as_posix()}", *more])))

    def promote(
        self, name: str | None = None, alias: str | None = None, because: str = "", tracking: str | None = None
    ) -> str:
        """The recommended configuration as a version of a registered MLflow model; gives its `models:/name@alias`.

        `name` is the study's where none is given; see `python -m rag_opt.promote` for `alias`, `because` and
        `tracking`. Raises a RagOptError, and registers nothing, where it can't be promoted.
        """
        from rag_opt.production.promotion import promote_study

        return promote_study(self.folder, name, alias, because, tracking=tracking).address

    def __repr__(self) -> str:
        return f"<rag_opt.Study '{self.name}' in {self.folder}: {self.findings.trials} trials>"

    def _repr_html_(self) -> str:
        page = (self.folder / "report.html").as_posix()
        return f"{self.result._repr_html_()}<p>{escape(repr(self))}, {escape(page)}</p>"


def optimize(
    documents: Rows = None,
    questions: Rows = None,
    space: str | Mapping[str, Any] | None = None,
    *,
    n_trials: int = 25,
    metric: str | Sequence[str] | Callable[..., Any] | None = None,
    direction: str | None = None,
    sampler: str | BaseSampler | None = None,
    name: str = "study",
    studies_dir: str | Path = "studies",
    overrides: Sequence[str] = (),
) -> Study:
    """Search for the best configuration, or go on where a study of this name stopped, as `rag_opt.study` does.

    Args:
        documents: rows with "text" (and "id", "title"), as a list of dicts, a DataFrame, a Hugging Face dataset, or a
            path; a BEIR folder alone; None for Python's own language reference.
        questions: rows with "question" and "relevant" (document ids) or "answer"; the same kinds.
        space: the name of a space in conf/search_space, or a dict such as {"retriever": ["bm25", "dense"],
            "retriever.k1": (0.4, 3.0)}: a list is a choice, a pair a range.
        n_trials: how many trials the study has in all.
        metric: a name such as "nDCG@10", several of them, or a function of a `Case` that gives a number.
        direction: "maximize" or "minimize", where it is not the metric's own.
        sampler: a name such as "tpe", or any Optuna sampler (which seeds itself: no bit-equal resume).
        name: the study's name, its folder below `studies_dir`.
        studies_dir: where studies lie.
        overrides: what else a command line may say, such as "generator=none" or "n_workers=4".

    Returns:
        The finished study. Raises a RagOptError for whatever is wrong, before the first trial where it can be known.
    """
    from rag_opt.cli.study import run_study

    first = quote_arguments([f"name={name}", f"studies_dir={Path(studies_dir).as_posix()}", f"n_trials={n_trials}"])
    last = quote_arguments(overrides)
    forget_files()
    # Before anything is written: a name may lead anywhere.
    folder = parse_settings(compose_config(expand_best([*first, *last]))).folder
    dataset, searched = convert_dataset(documents, questions, folder), convert_space(space, folder, last)
    measured = [*convert_metric(metric, direction), *([f"sampler={sampler}"] if isinstance(sampler, str) else [])]
    with _provide_objects(metric, sampler, last):
        for each in (dataset, searched):
            each.write()
        # The space last, since its search path has that of the overrides in it.
        words = [*first, *quote_arguments(dataset.words), *measured, *last, *searched.words]
        outcome = run_study(expand_best(words), quiet=True)
    if outcome.findings is None or outcome.error:
        raise StudyError(outcome.error or f"{name}: nothing was run")
    return load_study(outcome.folder, outcome.url)


def load_study(folder: str | Path, storage: str | None = None) -> Study:
    """The finished study in a folder, whoever ran it; `storage` is its URL where it needs a password.

    Raises StudyError or StorageError where there is none.
    """
    from rag_opt.analysis.finished import open_finished

    environment.silence_optuna()
    findings, study = open_finished(Path(folder), storage)
    return Study(Path(folder), findings, study)


@contextmanager
def _provide_objects(metric: Any, sampler: Any, words: Sequence[str]) -> Iterator[None]:
    """Within it, Python objects stand where a command line has names; this process alone knows them."""
    from optuna.samplers import BaseSampler

    from rag_opt.metrics import own
    from rag_opt.study import sampling

    instance = None if sampler is None or isinstance(sampler, str) else sampler
    if not isinstance(instance, BaseSampler | None):
        raise ConfigError(f"sampler: a name such as 'tpe', or an Optuna sampler is expected, not {instance!r}"[:300])
    functions = {get_metric_name(metric): metric} if callable(metric) else {}
    several = [word for word in words if word.startswith("n_workers=") and word != "n_workers=1"]
    if several and (functions or instance is not None):
        kind = "metric" if functions else "sampler"
        raise ConfigError(f"{several[0]}: other processes can't have the {kind} that was given as an object; name one")
    # Context variables: a study in another thread of this process does not see these objects.
    with _set_variable(own.GIVEN, functions), _set_variable(sampling.GIVEN, instance):
        yield


@contextmanager
def _set_variable(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    token = variable.set(value)
    try:
        yield
    finally:
        variable.reset(token)
