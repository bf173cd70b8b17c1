"""What all trials of a study share, and how one of their configurations is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from rag_opt.cache.store import GIGABYTE, Store
from rag_opt.components.resources import Resources
from rag_opt.config.settings import (
    AUTO,
    CROSSFIT,
    DOCUMENT,
    SPLIT,
    Settings,
    parse_folder,
    parse_groups,
    parse_own_splits,
)
from rag_opt.config.stages import FILES
from rag_opt.config.trial import TrialConfig, compose_trial
from rag_opt.config.trust import build, to_plain
from rag_opt.console.screens import report_lines
from rag_opt.datasets.duplicates import format_repeats, group_by_document, group_query_ids
from rag_opt.datasets.fresh import add_fresh
from rag_opt.datasets.splits import choose_splits, split_dataset
from rag_opt.errors import ConfigError
from rag_opt.evaluation.evaluate import Questions, Report, evaluate_pipeline
from rag_opt.evaluation.latency import time_pipeline
from rag_opt.evaluation.pipelines import RagPipeline, build_pipeline
from rag_opt.metrics.catalogue import TIMED, Metric
from rag_opt.records.documents import Dataset

if TYPE_CHECKING:
    from rag_opt.evaluation.objective import Objective
    from rag_opt.records.scores import Evaluation, Latency

FEW = 400
"""Questions below which all are searched and all confirm.

With 180 of them a crossfit shows as much as a split with 288 (studies/confirmation.py). With more, what it costs to ask
all of them in every trial weighs more, and that the search has learnt from each.
"""

OF_SPLIT = ("test_share", "split_seed", "search", "confirm", "test", "groups", FILES)
"""What a dataset's configuration says of dividing its questions, which no loader is given."""


@dataclass(frozen=True)
class Evaluator:
    """What all trials of a study share: the command line they start from, the questions, the metrics, the resources.

    `times`: each is timed apart from its evaluation, as where percentiles are measured.
    """

    base: tuple[str, ...]
    questions: Questions
    metrics: tuple[Metric, ...]
    resources: Resources
    times: bool = False

    def compose_overrides(self, words: Sequence[str]) -> TrialConfig:
        """The configuration that these words, such as a trial's, describe on top of the command line."""
        return compose_trial([*self.base, *words])

    def make_pipeline(self, config: TrialConfig) -> RagPipeline:
        """The pipelines of a configuration."""
        return build_pipeline(config, self.resources)

    def measure_latency(self, config: TrialConfig, narrow: float = 0.0) -> Latency | None:
        """What a question costs with this configuration, nothing cached; `narrow` as in rag_opt.evaluation.latency.

        None where every question has to be paid for.
        """
        pipeline = self.make_pipeline(config)
        return None if pipeline.pays_per_query else time_pipeline(pipeline, self.questions, narrow)

    def measure_stages(self, config: TrialConfig) -> dict[str, float]:
        """Seconds by part of the configuration's pipelines: indexing in all, the others per question.

        {} where every question has to be paid for.
        """
        pipeline, asked = self.make_pipeline(config), self.questions
        if pipeline.pays_per_query:
            return {}
        return pipeline.get_stage_seconds(asked.queries, asked.documents, pipeline.index_documents(asked.documents))

    def measure_config(self, config: TrialConfig, report: Report | None = None) -> Evaluation:
        """The scores of a configuration."""
        apart = self.times or any(metric.name in TIMED for metric in self.metrics)
        latency = self.measure_latency(config) if apart else None
        percentiles = None if latency is None else (latency.p50, latency.p95)
        # Another pipeline, since one that was timed works on an empty store.
        return evaluate_pipeline(self.make_pipeline(config), self.questions, self.metrics, report, percentiles)


def build_resources(config: DictConfig) -> Resources:
    """What a configuration's pipelines work with; raises ConfigError for a limit of the store that is none."""
    limit = to_plain(config.store.limit_gb)
    if limit is not None and (
        isinstance(limit, bool) or not isinstance(limit, int | float) or not 0 <= limit < math.inf
    ):
        raise ConfigError(f"store.limit_gb={limit}: a number of gigabytes, or null for no limit, is expected")
    folder = parse_folder("store.path", to_plain(config.store.path))
    return Resources.from_store(Store(folder, None if limit is None else int(limit * GIGABYTE)))


def load_dataset(config: DictConfig) -> Dataset:
    """The dataset of a configuration, with the questions that are searched or confirm; what was dropped is said."""
    node = {key: value for key, value in to_plain(config.dataset).items() if key not in OF_SPLIT}
    dataset = build(node, to_plain(config.trusted_modules))
    if not isinstance(dataset, Dataset):
        raise ConfigError(f"dataset._target_: {node.get('_target_')} gave no rag_opt.records.documents.Dataset")
    # Grouped first, so that what belongs together is not on both sides of the data set's own splits.
    dataset = choose_splits(_assign_groups(dataset, config), *parse_own_splits(config))
    report_lines(f"{dataset.name}: {note}" for note in (*dataset.notes, *format_repeats(dataset)))
    return dataset


def choose_method(dataset: Dataset, config: DictConfig, settings: Settings, objective: Objective) -> Settings:
    """The settings with the way to confirm that suits these questions, where `confirmation.method` leaves it open.

    A crossfit below FEW questions, where each one counts; not where questions that confirm are given, nor where it
    could show nothing: with several objectives, or constraints that the baseline may break.
    """
    if settings.method != AUTO:
        return settings
    given = dataset.confirming or to_plain(config.dataset).get("test") is not None
    if given or len(objective.names) > 1 or objective.constraints:
        return replace(settings, method=SPLIT)
    # Of a single one there is nothing to divide, which a split says.
    return replace(settings, method=CROSSFIT if 1 < len(group_query_ids(dataset)) < FEW else SPLIT)


def divide_dataset(dataset: Dataset, config: DictConfig, settings: Settings) -> tuple[Dataset, Dataset]:
    """(dev, test): what is searched and what confirms, with the fresh questions that `dataset.test` names."""
    dev, test = split_dataset(dataset, settings.test_share, settings.split_seed, crossfits=settings.crossfits)
    fresh = to_plain(config.dataset).get("test")
    if fresh is not None and settings.crossfits:
        raise ConfigError(
            f"dataset.test={fresh}: confirmation.method=crossfit searches all questions and keeps none; add them to "
            "the data set of another study, or choose confirmation.method=split"
        )
    test, notes = add_fresh(dev, test, fresh, by_document=settings.groups == DOCUMENT)
    report_lines(f"{dataset.name}: {note}" for note in notes)
    return dev, test


def _assign_groups(dataset: Dataset, config: DictConfig) -> Dataset:
    return group_by_document(dataset) if parse_groups(config) == DOCUMENT else dataset
