"""`python -m rag_opt.trial <overrides>`: one configuration measured; it replays any trial of any study."""

from __future__ import annotations

from collections.abc import Sequence

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.table import Table
from rich.text import Text

from rag_opt.cli.shell import Refused, run_hydra, search_path
from rag_opt.config.compose import FOLDER, NAME, composed
from rag_opt.config.settings import settings_of
from rag_opt.config.shape import check_shape
from rag_opt.config.trial import trial_of
from rag_opt.console.progress import Screen, say
from rag_opt.console.terminal import console
from rag_opt.datasets.checks import split
from rag_opt.errors import ConfigError, RagOptError
from rag_opt.evaluation.bench import Bench, loaded, resources_of
from rag_opt.evaluation.evaluate import Questions
from rag_opt.evaluation.objective import measurable, objective_of
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.evaluation.unused import unused
from rag_opt.records.measured import Evaluation
from rag_opt.system import environment

SPLITS = ("dev", "test")


def replayed(overrides: Sequence[str]) -> Evaluation:
    """The evaluation of one configuration on the split that it names, without a study; the scores are printed."""
    config = composed(overrides)
    check_shape(config)
    if config.split not in SPLITS:
        raise ConfigError(f"split={config.split}: {' or '.join(SPLITS)} is expected")
    settings, objective, resources = settings_of(config), objective_of(config), resources_of(config)
    environment.use_threads(settings.threads)
    trial = trial_of(config, overrides)
    pipeline = build_pipeline(trial, resources)
    with Screen():
        for line in unused(overrides, objective, [pipeline], command="trial"):
            say(line)
        dataset = loaded(config)
        metrics = measurable(objective, dataset, pipeline.has_generator)
        part = split(dataset, settings.test_share, settings.split_seed)[SPLITS.index(config.split)]
        questions = Questions.of(part, settings.batches, settings.seed)
        evaluation = Bench(tuple(overrides), questions, metrics, resources, objective.times).measured(trial)
        resources.store.settle()
    for stage, share in evaluation.served.items():
        if share < 1:
            say(f"{stage} got {share:.0%} of what it asked its model for, and went on without the rest")
    table = Table(title=f"{dataset.name}: {len(evaluation.query_ids)} {config.split} questions", title_justify="left")
    table.add_column("metric")
    table.add_column("mean", justify="right")
    table.add_column("questions measured", justify="right")
    for name, value in evaluation.means.items():
        measured = int((~np.isnan(evaluation.per_query[name])).sum())
        table.add_row(Text(name), f"{value:.6g}", str(measured))
    console().print(table)
    return evaluation


def job(_: DictConfig) -> dict[str, float]:
    """One Hydra job: the means."""
    try:
        return dict(replayed([*search_path(HydraConfig.get()), *HydraConfig.get().overrides.task]).means)
    except RagOptError as error:
        raise Refused(error) from error


def main() -> None:
    """The command line."""
    run_hydra(hydra.main(version_base=None, config_path=str(FOLDER), config_name=NAME)(job))
