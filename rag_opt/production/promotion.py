"""What a study recommends, as a bundle and as a registered model."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from rag_opt.analysis import history
from rag_opt.analysis.finished import open_finished
from rag_opt.config.compose import compose_config
from rag_opt.config.experiments import expand_best, read_command
from rag_opt.config.quoting import quote_arguments
from rag_opt.config.trial import build_trial_config, compute_fingerprint
from rag_opt.console.secrets import hide_secrets
from rag_opt.datasets.checks import get_corpus
from rag_opt.errors import ConfigError, ModelError, StudyError
from rag_opt.evaluation.evaluator import build_resources, load_dataset
from rag_opt.production.bundle import BUNDLE, Bundle, Lineage
from rag_opt.production.bundling import build_probes, describe_versions, get_moment, write_bundle
from rag_opt.production.registry import (
    CHALLENGER,
    CHAMPION,
    Registry,
    check_succession,
    format_difference,
    get_model_name,
    read_lineage,
    register_prompts,
)
from rag_opt.storages.attributes import get_attributes

if TYPE_CHECKING:
    import optuna
    from mlflow.entities.model_registry import ModelVersion

    from rag_opt.analysis.findings import Findings

GIVEN = ("best=", "question=")


def bundle_study(
    folder: Path, place: Path, overrides: Sequence[str] = (), storage: str | None = None, reason: str = ""
) -> Bundle:
    """The bundle of what the study in `folder` recommends, written to `place`; `overrides` come on top of that.

    `reason` says why it is promoted although its study does not show that it should be. Raises StudyError where there
    is no finished study, or it recommends nothing, and ModelError where the bundle does not answer as the study did.
    """
    findings, study = open_finished(folder, storage)
    words = build_words(folder, findings, overrides)
    config = compose_config(words)
    dataset = load_dataset(config)
    documents = get_corpus(dataset)
    lineage = _build_lineage(findings, study, compute_fingerprint(config), documents.key, changed=bool(overrides))
    # These words are registered with the bundle, where others read them.
    hidden = build_trial_config(config, [hide_secrets(word) for word in words])
    lineage = replace(lineage, reason=reason, dataset=dataset.fingerprint)
    questions = [query.text for query in dataset.queries]
    return write_bundle(place, hidden, documents, build_resources(config), lineage, questions, build_probes(dataset))


def build_words(folder: Path, findings: Findings, overrides: Sequence[str] = ()) -> list[str]:
    """The overrides of what a study recommends; raises StudyError where it recommends nothing."""
    if "ask" not in findings.commands:
        raise StudyError(f"{folder}: it recommends no configuration that could be promoted")
    # With the store, and whatever else, that the study's own command for this has.
    # The first three words are python -m rag_opt.ask.
    kept = [word for word in shlex.split(findings.commands["ask"])[3:] if not word.startswith(GIVEN)]
    return expand_best(quote_arguments([f"best={folder.as_posix()}", *kept, *overrides]))


def _build_lineage(findings: Findings, study: optuna.Study, fingerprint: str, corpus: str, *, changed: bool) -> Lineage:
    """Where a bundle comes from; of one that was changed after the study nothing is confirmed."""
    confirmation = None if changed else findings.confirmation
    arm = confirmation.recommended_arm if confirmation else None
    # Trial -1: it was changed since, or nothing was confirmed.
    found = Lineage(
        study=findings.name,
        trial=arm.trial if arm else -1,
        made=get_moment(),
        fingerprint=fingerprint,
        corpus=corpus,
        commit=_find_commit(),
        versions=describe_versions(),
    )
    if confirmation is None or arm is None:
        return found
    # Where less is better the sign swaps the ends.
    edges = sorted((arm.difference_low * confirmation.sign, arm.difference_high * confirmation.sign))
    return replace(
        found,
        baseline=_fingerprint_baseline(findings, study),
        metric=confirmation.metric,
        difference=arm.difference * confirmation.sign,
        low=edges[0],
        high=edges[1],
        case=confirmation.case,
    )


def _fingerprint_baseline(findings: Findings, study: optuna.Study) -> str:
    """What stands for what the study's baseline computes; "" where that can't be composed any more."""
    baseline = history.find_baseline(findings.get_snapshot(study))
    command = get_attributes(baseline).command if baseline else ""
    try:
        return compute_fingerprint(compose_config(read_command(command))) if command else ""
    except (ConfigError, ValueError):
        return ""


def _find_commit() -> str:
    """The git commit of the folder that one works in; "" where it is none of git's."""
    from mlflow.utils.git_utils import get_git_commit

    return get_git_commit(str(Path.cwd())) or ""


@dataclass(frozen=True)
class Promotion:
    """A registered version, the alias that means it now, and what its study confirmed of it."""

    registry: Registry
    model: ModelVersion
    alias: str
    lineage: Lineage

    @property
    def address(self) -> str:
        """How the version is named from now on, whichever it is."""
        return f"models:/{self.model.name}@{self.alias}"


def promote_study(
    folder: Path,
    name: str | None = None,
    alias: str | None = None,
    because: str = "",
    overrides: Sequence[str] = (),
    tracking: str | None = None,
    storage: str | None = None,
) -> Promotion:
    """What a study recommends as a new version of a registered model, `name` or the study's.

    It becomes the challenger, or the champion where there is none. Where `alias` asks for the champion's place it has
    to be confirmed better than the present one, unless `because` says why it takes it all the same, which is kept.
    Raises a RagOptError, and leaves the registry as it was, where it can't be promoted.
    """
    if alias not in (None, CHAMPION, CHALLENGER):
        raise ModelError(f"--alias {alias}: {CHAMPION} or {CHALLENGER} is expected")
    registry = Registry.connect(tracking)
    # Beside the study: what is kept in its store is linked and not copied where both lie on one disk.
    with TemporaryDirectory(dir=folder if folder.is_dir() else None, prefix=".bundle-") as place:
        bundle = bundle_study(folder, Path(place) / BUNDLE, overrides, storage, because)
        named = name or get_model_name(bundle.lineage.study)
        champion = registry.find_alias(named, CHAMPION)
        if alias == CHAMPION and champion and not because:
            check_succession(f"models:/{named}", bundle.lineage, read_lineage(champion))
        prompts = register_prompts(registry.client, bundle)
        model = registry.log(bundle, named, prompts)
    # The alias last: only a version that is there in full is served by it.
    given = alias or (CHALLENGER if champion else CHAMPION)
    if given == CHAMPION:
        registry.crown(model)
    else:
        registry.set_alias(model, given)
    return Promotion(registry, model, given, bundle.lineage)


def format_promotion(found: Promotion) -> Iterator[str]:
    """What was promoted, what is known of it, and what to do next."""
    model, lineage = found.model, found.lineage
    yield f"{found.address} is version {model.version}: study {lineage.study}, trial {lineage.trial}"
    yield f"  {format_difference(lineage)}"
    if lineage.reason:
        yield f"  because: {lineage.reason}"
    place = hide_secrets(found.registry.uri)
    yield f"serve:  python -m rag_opt.serve {found.address}"
    if found.alias == CHALLENGER:
        yield f"canary: python -m rag_opt.serve models:/{model.name}@champion --canary {found.address}=0.1"
    yield f"mlflow: MLFLOW_TRACKING_URI={shlex.quote(place)} mlflow models serve -m {found.address} --env-manager local"
