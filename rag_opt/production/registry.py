"""Bundles in MLflow's registry: logged as models from code, found by name, version or alias, promoted by a rule."""

from __future__ import annotations

import io
import json
import logging
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mlflow
import yaml
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from rag_opt.analysis.advice import BETTER, CHEAPER
from rag_opt.config.compose import compose_config
from rag_opt.config.trust import to_plain
from rag_opt.console.secrets import hide_secrets
from rag_opt.errors import ModelError
from rag_opt.production.bundle import BUNDLE, Bundle, Lineage
from rag_opt.production.requirements import list_requirements, skip_requirement_check
from rag_opt.production.stubs import stub_answers
from rag_opt.tracking.failures import shorten_error
from rag_opt.tracking.mlflow_file import get_database_file, silence_mlflow

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mlflow.entities.model_registry import ModelVersion, Prompt

CHAMPION, CHALLENGER, PREVIOUS = "champion", "challenger", "previous"
"""Aliases: what answers, what is tried beside it, and what answered before."""

ADDRESSES = ("MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")
PACKAGE = Path(__file__).parents[1]
MODEL_CODE = Path(__file__).with_name("model_code.py")
"""What MLflow runs to have a model. It is not imported here: that would make one."""

EXAMPLE = {"input": [{"role": "user", "content": "What is this about?"}]}
TAG = "rag_opt."
LINEAGE = f"{TAG}lineage"
NOBODY = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")
"""What MLflow answers where there is no such model, or no such alias of it."""

NAME = re.compile(r"[^/:.%\"']{1,250}")
ADDRESS = re.compile(r"models:/(?P<name>[^/@]+)(?:/(?P<version>\d+)|@(?P<alias>[\w-]+))?")


@dataclass(frozen=True)
class Registry:
    """A tracking server or file, at which models are registered."""

    uri: str
    client: MlflowClient
    fetched: dict[str, Path] = field(default_factory=dict)
    """Versions' folders: a version never changes, and what lies elsewhere is copied once."""

    @classmethod
    def connect(cls, uri: str | None = None) -> Registry:
        """The registry at `uri`, else at MLFLOW_TRACKING_URI, else that of the studies here."""
        silence_mlflow()
        place = uri or os.environ.get(ADDRESSES[0]) or str(to_plain(compose_config([]).tracking)["uri"])
        with explain_failures(place):
            return cls(place, MlflowClient(place, registry_uri=place))

    def find(self, address: str) -> ModelVersion:
        """The version that `models:/name`, `models:/name@alias` or `models:/name/3` means; the first is the champion.

        Raises ModelError where there is none.
        """
        found = ADDRESS.fullmatch(address)
        if found is None:
            raise ModelError(
                f"{address}: models:/<name>, models:/<name>@<alias> or models:/<name>/<version> is expected"
            )
        with explain_failures(self.uri, address):
            if found["version"]:
                return self.client.get_model_version(found["name"], found["version"])
            return self.client.get_model_version_by_alias(found["name"], found["alias"] or CHAMPION)

    def find_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version that an alias means; None where nothing has it."""
        try:
            return self.client.get_model_version_by_alias(name, alias)
        except MlflowException as error:
            if error.error_code in NOBODY:
                return None
            # Whoever can't be asked may well have one.
            raise ModelError(f"models:/{name}@{alias}: MLflow can't tell: {shorten_error(error)}") from error

    def fetch(self, found: ModelVersion) -> Path:
        """The folder with a version's bundle: where it lies, or a copy of what lies elsewhere."""
        address = f"models:/{found.name}/{found.version}"
        if address not in self.fetched:
            with explain_failures(self.uri, address), self.use():
                self.fetched[address] = Path(mlflow.artifacts.download_artifacts(address)) / "artifacts" / BUNDLE
        return self.fetched[address]

    def log(self, bundle: Bundle, name: str, prompts: Sequence[Prompt] = ()) -> ModelVersion:
        """The bundle as a new version of a registered model; its lineage stands in its tags."""
        if not NAME.fullmatch(name):
            raise ModelError(f"--name {name}: a name without / : . % and quotes is expected")
        with explain_failures(self.uri, name), self.use(), quiet_mlflow():
            place = self.find_experiment(str(to_plain(compose_config([]).tracking)["experiment"]))
            title = f"promote {bundle.lineage.study}"
            with (
                skip_requirement_check(),
                stub_answers(),
                mlflow.start_run(experiment_id=place, run_name=title, nested=True) as run,
            ):
                info = mlflow.pyfunc.log_model(
                    name=name,
                    python_model=str(MODEL_CODE),
                    artifacts={BUNDLE: str(bundle.folder)},
                    code_paths=[str(PACKAGE)],
                    pip_requirements=list_requirements(bundle.config.trusted),
                    input_example=EXAMPLE,
                    registered_model_name=name,
                    prompts=list(prompts) or None,
                    metadata=build_tags(bundle.lineage),
                )
            number = str(info.registered_model_version)
            for key, value in {**build_tags(bundle.lineage), f"{TAG}run": run.info.run_id}.items():
                self.client.set_model_version_tag(name, number, key, value)
            return self.client.get_model_version(name, number)

    def find_experiment(self, name: str) -> str:
        """The id of an experiment, made where there is none; beside a database file its files lie beside it, too."""
        found = self.client.get_experiment_by_name(name)
        if found:
            return str(found.experiment_id)
        path = get_database_file(self.uri)
        place = None if path is None else (path.absolute().parent / "mlartifacts").as_uri()
        return str(self.client.create_experiment(name, artifact_location=place))

    def set_alias(self, found: ModelVersion, alias: str) -> None:
        """Have an alias mean this version."""
        with explain_failures(self.uri, found.name):
            self.client.set_registered_model_alias(found.name, alias, str(found.version))

    def drop_alias(self, name: str, alias: str) -> None:
        """Have an alias mean nothing."""
        with explain_failures(self.uri, name):
            self.client.delete_registered_model_alias(name, alias)

    def crown(self, found: ModelVersion) -> None:
        """Make a version the champion; what was that before is known as the previous one."""
        before = self.find_alias(found.name, CHAMPION)
        if before is not None and str(before.version) != str(found.version):
            # First: after a kill in between the way back is known, and the champion still answers.
            self.set_alias(before, PREVIOUS)
        self.set_alias(found, CHAMPION)

    @contextmanager
    def use(self) -> Iterator[None]:
        """MLflow's own functions write to this registry within it."""
        known = {name: os.environ.get(name) for name in ADDRESSES}
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        try:
            yield
        finally:
            # What MLflow was told it writes into the environment, where it would pass for the user's word.
            mlflow.set_tracking_uri(known[ADDRESSES[0]])  # type: ignore[arg-type]  # None forgets it
            mlflow.set_registry_uri(known[ADDRESSES[1]] or "")
            for name in (name for name, value in known.items() if value is None):
                os.environ.pop(name, None)


def check_name(address: str) -> str:
    """The alias of models:/name@alias, "" of models:/name; raises ModelError for a version, which never changes."""
    found = ADDRESS.fullmatch(address)
    if found is None or found["version"]:
        raise ModelError(f"{address}: models:/<name> or models:/<name>@<alias> is expected: a version never changes")
    return found["alias"] or ""


def read_lineage(found: ModelVersion) -> Lineage | None:
    """Where a registered version comes from; None for one that was not promoted by this package."""
    try:
        return Lineage(**json.loads(found.tags[LINEAGE]))
    except (KeyError, ValueError, TypeError):
        return None


def check_succession(named: str, candidate: Lineage, champion: Lineage | None) -> None:
    """Raise ModelError where a model is not to take the champion's place."""
    why = explain_refusal(candidate, champion)
    if why:
        raise ModelError(
            f"{named}@{CHAMPION} stays: {why}. Leave out --alias and it becomes the {CHALLENGER}; --because '…' gives "
            "it the place all the same, and keeps the reason"
        )


def explain_refusal(candidate: Lineage, champion: Lineage | None) -> str:
    """Why a model is not to take the champion's place; "" where it may.

    It may where its study compared it with the champion's own configuration, on the same documents, and found it better
    beyond noise, or as good and cheaper, on questions that had no part in choosing it. The same configuration over
    other documents is an update's business, which asks both for the probes.
    """
    if champion is None:
        return "the present champion was not promoted by rag_opt, so nothing is known of what it computes"
    if candidate.corpus != champion.corpus:
        return (
            f"its study '{candidate.study}' was about other documents than the champion's: bring the champion up to "
            "date first (python -m rag_opt.update), and run the study on these"
        )
    if candidate.fingerprint == champion.fingerprint:
        # Built again.
        return ""
    if candidate.baseline != champion.fingerprint:
        return (
            f"its study '{candidate.study}' did not compare it with the present champion (study '{champion.study}'): "
            f"start one from that, python -m rag_opt.study best=studies/{champion.study} name=<another name>"
        )
    if candidate.case not in (BETTER, CHEAPER):
        known = format_difference(candidate)
        return f"its study did not show that it is better than the champion, or as good and cheaper ({known})"
    return ""


def build_tags(lineage: Lineage) -> dict[str, str]:
    """A lineage as a registered version's tags: as one can read it, and whole."""
    told = {key: f"{value:.6g}" if isinstance(value, float) else str(value) for key, value in asdict(lineage).items()}
    kept = {f"{TAG}{key}": told[key] for key in ("study", "trial", "commit", "metric", "case", "reason") if told[key]}
    if lineage.metric:
        kept[f"{TAG}difference"] = format_difference(lineage)
    return {**kept, LINEAGE: json.dumps(asdict(lineage))}


def format_difference(lineage: Lineage) -> str:
    """What was confirmed of a model, in a line."""
    if not lineage.metric:
        return "nothing was confirmed of it"
    if math.isnan(lineage.difference):
        return f"{lineage.metric}: it is its study's baseline"
    return f"{lineage.metric} {lineage.difference:+.4f} [{lineage.low:+.4f}, {lineage.high:+.4f}] against its baseline"


def register_prompts(client: MlflowClient, bundle: Bundle) -> list[Prompt]:
    """The prompts that a bundle's components fill in, as versions of MLflow's; the same content is registered once."""
    found = []
    for name, text in sorted(collect_prompts(bundle)):
        # search_prompt_versions raises for a name that is not there yet.
        known = client.search_prompt_versions(name, max_results=100) if client.get_prompt(name) else ()
        same = next((each for each in known if each.template == text), None)
        found.append(same or client.register_prompt(name, text))
    return found


def collect_prompts(bundle: Bundle) -> set[tuple[str, str]]:
    """(registered name, text) of each prompt of a bundle's configuration."""
    found = set()
    for stage, each in bundle.config.stages.items():
        named = each.values.get("prompt")
        for node in each.components.values():
            if isinstance(node.get("prompt"), dict):
                text = yaml.safe_dump(node["prompt"], sort_keys=False, allow_unicode=True)
                found.add((f"rag_opt.{named if isinstance(named, str) else stage}", text))
    return found


@contextmanager
def quiet_mlflow() -> Iterator[None]:
    """MLflow's own lines off: what was done is said in ours."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "mlflow.store", "mlflow.tracking", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(io.StringIO()), redirect_stderr(io.StringIO()):
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def explain_failures(uri: str, what: str = "") -> Iterator[None]:
    """What MLflow, or the disk behind it, raises becomes a ModelError."""
    try:
        yield
    except (MlflowException, OSError) as error:
        raise ModelError(
            f"{f'{what}: ' if what else ''}MLflow at {hide_secrets(uri)}: {shorten_error(error)}"
        ) from error


def get_model_name(given: Any) -> str:
    """A study's name as a model's: a multirun's have a slash."""
    return re.sub(r"[/:.%\"']+", "-", str(given))
