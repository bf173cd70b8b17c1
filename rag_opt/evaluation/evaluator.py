"""What all trials of a study share, and how one of their configurations is measured."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from rag_opt.cache.store import GIGABYTE, Store
from rag_opt.components.resources import Resources
from rag_opt.config.settings import parse_folder, parse_own_splits
from rag_opt.config.trial import TrialConfig, compose_trial
from rag_opt.config.trust import build, to_plain
from rag_opt.console.progress import report_line
from rag_opt.datasets.duplicates import format_repeats
from rag_opt.datasets.splits import choose_splits
from rag_opt.errors import ConfigError
from rag_opt.evaluation.evaluate import Questions, Report, evaluate_pipeline
from rag_opt.evaluation.latency import time_pipeline
from rag_opt.evaluation.pipelines import RagPipeline, build_pipeline
from rag_opt.metrics.catalogue import TIMED, Metric
from rag_opt.records.documents import Dataset

if TYPE_CHECKING:
    from rag_opt.records.scores import Evaluation, Latency

OF_SPLIT = ("test_share", "split_seed", "search", "confirm")
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
    dataset = choose_splits(dataset, *parse_own_splits(config))
    for note in (*dataset.notes, *format_repeats(dataset)):
        report_line(f"{dataset.name}: {note}")
    return dataset
