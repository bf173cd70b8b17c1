"""MLflow as a mirror of the study: one parent run, one nested run a trial, true statuses, repaired on resume.

What goes in comes from the finished trial and from the files that it left in the study's folder, so that a run which a
kill or an outage has cost can be made again at any time. Nothing here ends a study.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar
from urllib.parse import urlsplit
from urllib.request import url2pathname

import optuna
import yaml
from mlflow import MlflowClient
from mlflow.entities import DatasetInput, InputTag, Metric, Param, RunInfo
from optuna.trial import FrozenTrial, TrialState

from rag_opt.cache.artifact_files import link_file
from rag_opt.config.compose import load_prompt
from rag_opt.config.overrides import to_config_values
from rag_opt.config.settings import get_trial_folder
from rag_opt.console.screens import report_line
from rag_opt.errors import LostError
from rag_opt.storages.attributes import TrialAttributes, get_attributes
from rag_opt.storages.opening import get_ledger
from rag_opt.storages.processes import get_worker_origin
from rag_opt.system.permissions import format_owner
from rag_opt.tracking.failures import format_repair, shorten_error
from rag_opt.tracking.mlflow_file import WatchedFile
from rag_opt.tracking.params import find_prompts, format_metric_name, read_flat_file, to_milliseconds

if TYPE_CHECKING:
    from rag_opt.records.documents import Dataset
    from rag_opt.storages.locks import Member

STUDY_TAG = "rag_opt.study_id"
TRIAL_TAG = "rag_opt.trial"
# MLflow has no word for pruned, and FAILED would say that something went wrong.
STATUSES = {TrialState.COMPLETE: "FINISHED", TrialState.PRUNED: "KILLED", TrialState.FAIL: "FAILED"}

TAGS = (
    *(TrialAttributes.origin, TrialAttributes.reason, TrialAttributes.command),
    *(TrialAttributes.repeats, TrialAttributes.coverage),
)
"""What is noted of trials and stands among their runs' tags."""

PAGE = 1000
P = ParamSpec("P")
M = TypeVar("M", bound="Mirror")


def catch_failures(call: Callable[Concatenate[M, P], None]) -> Callable[Concatenate[M, P], None]:
    """The call, with a failure said once and otherwise left behind: tracking never ends a study."""

    @wraps(call)
    def safe(mirror: M, /, *args: P.args, **kwargs: P.kwargs) -> None:
        try:
            mirror.check()
            call(mirror, *args, **kwargs)
        except LostError:
            # Not the mirror is gone, but what it mirrors.
            raise
        except Exception as error:
            # Whatever the tracking server, its client or the disk may raise.
            mirror.failures += 1
            if mirror.failures == 1:
                foreign = format_owner(mirror.database.path) if mirror.database.path else ""
                report_line(
                    f"MLflow can't be written ({shorten_error(error)}{foreign}); {mirror.format_outcome(error)}"
                )

    return safe


class Mirror:
    """What counts the failures of a tracking client; `database` is its file, where it has one."""

    failures = 0
    database = WatchedFile(None)

    def check(self) -> None:
        """Raise FileNotFoundError when the file is gone: MLflow would try each statement in vain, or write nowhere."""
        if self.database.gone:
            raise FileNotFoundError(f"{self.database.path} was removed or replaced")

    def format_outcome(self, error: Exception) -> str:
        """What becomes of the study, and when what MLflow lacks will be there."""
        if self.database.gone:
            return "the study goes on, and makes it anew at its end"
        return f"the study goes on, {format_repair(error)}"


@dataclass
class MLflowCallback(Mirror):
    """Logs finished trials as nested runs of one parent; follows Optuna's callback signature (study, trial).

    `targets` are the names of the optimised metrics, `groups` the choices that no trial changes; `folder` is the
    study's, with trials/<number>/, into which `fetch` brings what another machine's trial has left.
    """

    client: MlflowClient
    experiment_id: str
    folder: Path
    targets: tuple[str, ...]
    fetch: Callable[[int], None] = lambda _: None
    parent_id: str = ""
    groups: Mapping[str, str] = field(default_factory=dict)
    database: WatchedFile = field(default_factory=lambda: WatchedFile(None))
    prompts: dict[tuple[str, str], Any] = field(default_factory=dict)

    @catch_failures
    def open(
        self,
        study: optuna.Study,
        member: Member,
        params: Mapping[str, str],
        dataset: Dataset,
        questions: Mapping[str, str],
    ) -> None:
        """Find or make the parent run, and log what was missed since; `questions` are the searched ones, id → text.

        To be called by one process at a time.
        """
        ledger = get_ledger(study)
        known = self.client.search_runs([self.experiment_id], f"tags.`{STUDY_TAG}` = '{ledger}'", max_results=1)
        if known:
            self.parent_id = known[0].info.run_id
        else:
            tags = {"rag_opt.study": study.study_name, STUDY_TAG: ledger}
            self.parent_id = self.client.create_run(
                self.experiment_id, run_name=study.study_name, tags=tags
            ).info.run_id
        # A resumed study's run has the status that its last session ended with.
        self.client.update_run(self.parent_id, status="RUNNING")
        self.client.log_batch(self.parent_id, params=[Param(key, value) for key, value in params.items()])
        inputs = self.client.get_run(self.parent_id).inputs
        if inputs is None or not inputs.dataset_inputs:
            self._log_dataset(self.parent_id, dataset, questions)
        self.reconcile(study, member)

    @catch_failures
    def __call__(self, study: optuna.Study, trial: FrozenTrial) -> None:  # noqa: ARG002 (Optuna's)
        """Log one finished trial; without a parent run it waits for the next resume."""
        if not self.parent_id:
            return
        run = self.client.create_run(
            self.experiment_id,
            start_time=to_milliseconds(trial.datetime_start),
            run_name=f"trial {trial.number}",
            # By tag: MLflow's active run, from which children are nested otherwise, is each thread's own.
            tags={"mlflow.parentRunId": self.parent_id, TRIAL_TAG: str(trial.number), **_format_tags(trial)},
        )
        self._log_trial(run.info, trial)

    @catch_failures
    def reconcile(self, study: optuna.Study, member: Member) -> None:
        """Make runs = finished trials: log those without a run, finish runs that a kill left open.

        Of trials that another living process logs to the same place it keeps its hands. To be called by one process at
        a time.
        """
        if not self.parent_id:
            return
        # Twice: a server that has just come back may refuse a single call.
        for _ in range(2):
            runs = self._find_child_runs()
            for trial in study.get_trials(deepcopy=False, states=tuple(STATUSES)):
                run = runs.get(trial.number)
                if (run is None or run.info.status == "RUNNING") and self._is_ours(trial, member):
                    if run is None:
                        self(study, trial)
                    else:
                        self._finish_run(run.info, trial)

    @catch_failures
    def _finish_run(self, run: RunInfo, trial: FrozenTrial) -> None:
        """Log what a half-written run lacks; one that can't be finished keeps no other from it."""
        self._log_trial(run, trial)

    def _is_ours(self, trial: FrozenTrial, member: Member) -> bool:
        origin = get_worker_origin(trial)
        return origin.name == member.me or origin.mlflow != self.parent_id or member.is_dead(origin.name)

    @catch_failures
    def link_prompts(self, names: set[str]) -> None:
        """Name the prompts that the whole study uses, the judges', on the parent run."""
        if self.parent_id:
            self._link_prompts(self.parent_id, names)

    def get_run_id(self, trial: int) -> str:
        """The id of a trial's run; raises KeyError where it has none."""
        return str(self._find_child_runs()[trial].info.run_id)

    @catch_failures
    def close(
        self,
        status: str,
        artifacts: Mapping[str, str],
        metrics: Mapping[str, float],
        files: Sequence[Path],
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Give the parent its results and its status; files that are not there are left out."""
        if not self.parent_id:
            return
        for name, text in artifacts.items():
            self.client.log_text(self.parent_id, text, name)
        parent = self.client.get_run(self.parent_id).info
        for path in files:
            if path.is_file():
                self._log_file(parent, path)
        for name, value in metrics.items():
            self.client.log_metric(self.parent_id, format_metric_name(name), value)
        for name, text in (tags or {}).items():
            self.client.set_tag(self.parent_id, name, text)
        self.client.set_terminated(self.parent_id, status)

    def _log_dataset(self, run_id: str, dataset: Dataset, questions: Mapping[str, str]) -> None:
        import pandas as pd
        from mlflow.data.pandas_dataset import from_pandas

        rows = pd.DataFrame({"id": list(questions), "question": list(questions.values())})
        # Eight digits, as MLflow's own digests have.
        data = from_pandas(rows, name=dataset.name, digest=dataset.fingerprint[:8])
        entity = DatasetInput(data._to_mlflow_entity(), [InputTag("mlflow.data.context", "dev")])
        self.client.log_inputs(run_id, datasets=[entity])

    def _log_trial(self, run: RunInfo, trial: FrozenTrial) -> None:
        self.fetch(trial.number)
        place = get_trial_folder(self.folder, trial.number)
        values = {**self.groups, **read_flat_file(place / "config.yaml"), **to_config_values(trial.params)}
        params = [Param(key, str(value)) for key, value in values.items()]
        self.client.log_batch(run.run_id, self._build_metrics(trial), params)
        self._link_prompts(run.run_id, find_prompts(values))
        for name in ("config.yaml", "per_query.json"):
            if (place / name).is_file():
                self._log_file(run, place / name, copied=name == "config.yaml")
        # Last: a run that a kill left half-written stays RUNNING, by which `reconcile` finds it.
        self.client.set_terminated(run.run_id, STATUSES[trial.state], to_milliseconds(trial.datetime_complete))

    def _log_file(self, run: RunInfo, path: Path, *, copied: bool = True) -> None:
        """Give a run a file: a link on this machine; elsewhere a copy, where it is to have one."""
        where = urlsplit(run.artifact_uri or "")
        if where.scheme == "file":
            place = Path(url2pathname(where.path))
            place.mkdir(parents=True, exist_ok=True)
            link_file(path, place / path.name)
        elif copied:
            self.client.log_artifact(run.run_id, str(path))

    def _link_prompts(self, run_id: str, names: set[str]) -> None:
        """Name the versions of the prompts that this trial used, as MLflow shows them."""
        if not names:
            return
        versions = [self._register_prompt(name) for name in sorted(names)]
        linked = [{"name": version.name, "version": str(version.version)} for version in versions]
        # link_prompt_version_to_run would write where MLflow's global address points.
        self.client.set_tag(run_id, "mlflow.linkedPrompts", json.dumps(linked))

    def _register_prompt(self, name: str) -> Any:
        """The registered version of a prompt's present content; the same content is registered once."""
        registered, text = f"rag_opt.{name}", yaml.safe_dump(load_prompt(name), sort_keys=False, allow_unicode=True)
        if (registered, text) not in self.prompts:
            found = None
            if self.client.get_prompt(registered) is not None:
                versions = self.client.search_prompt_versions(registered, max_results=PAGE)
                found = next((version for version in versions if version.template == text), None)
            self.prompts[registered, text] = found or self.client.register_prompt(registered, text)
        return self.prompts[registered, text]

    def _build_metrics(self, trial: FrozenTrial) -> list[Metric]:
        start, end = to_milliseconds(trial.datetime_start), to_milliseconds(trial.datetime_complete)
        running = f"running.{format_metric_name(self.targets[0])}"
        steps = [Metric(running, value, start, step) for step, value in trial.intermediate_values.items()]
        # A pruned trial's means are over a part of the questions: they stay out of the final metrics.
        means = get_attributes(trial).metrics if trial.state == TrialState.COMPLETE else {}
        return steps + [Metric(format_metric_name(name), value, end, 0) for name, value in means.items()]

    def _find_child_runs(self) -> dict[int, Any]:
        found: dict[int, Any] = {}
        token = None
        query = f"tags.`mlflow.parentRunId` = '{self.parent_id}'"
        while True:
            page = self.client.search_runs([self.experiment_id], query, max_results=PAGE, page_token=token)
            found |= {int(run.data.tags[TRIAL_TAG]): run for run in page if TRIAL_TAG in run.data.tags}
            token = page.token
            if not token:
                return found


def _format_tags(trial: FrozenTrial) -> dict[str, str]:
    return {each.name: str(trial.user_attrs[each.name]) for each in TAGS if each.name in trial.user_attrs}
