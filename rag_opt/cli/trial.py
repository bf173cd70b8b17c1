"""`python -m rag_opt.trial <overrides>`: one configuration measured; it replays any trial of any study."""

from __future__ import annotations

from collections.abc import Sequence

import hydra
import numpy as np
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.table import Table
from rich.text import Text

from rag_opt.cli.shell import Refused, read_words, run_hydra
from rag_opt.config.compose import FOLDER, NAME, compose_config
from rag_opt.config.schema import check_shape
from rag_opt.config.settings import parse_settings
from rag_opt.config.trial import build_trial_config
from rag_opt.console.progress import Screen
from rag_opt.console.screens import report_line, report_lines
from rag_opt.console.terminal import build_console
from rag_opt.errors import ConfigError, RagOptError
from rag_opt.evaluation.evaluate import Questions
from rag_opt.evaluation.evaluator import Evaluator, build_resources, choose_method, divide_dataset, load_dataset
from rag_opt.evaluation.objective import build_objective, select_measurable
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.evaluation.unused import find_unused
from rag_opt.records.scores import Evaluation
from rag_opt.system import environment

# In the order in which `divide_dataset` gives them.
SPLITS = ("dev", "test")


def measure_configuration(overrides: Sequence[str]) -> Evaluation:
    """The evaluation of one configuration on the split that it names, without a study; the scores are printed."""
    config = compose_config(overrides)
    check_shape(config)
    if config.split not in SPLITS:
        raise ConfigError(f"split={config.split}: {' or '.join(SPLITS)} is expected")
    settings, objective, resources = parse_settings(config), build_objective(config), build_resources(config)
    environment.use_threads(settings.threads)
    trial = build_trial_config(config, overrides)
    pipeline = build_pipeline(trial, resources)
    with Screen():
        report_lines(find_unused(overrides, objective, [pipeline], command="trial"))
        dataset = load_dataset(config)
        # Before the division, since a crossfit keeps no question for the test half.
        settings = choose_method(dataset, config, settings, objective)
        metrics = select_measurable(objective, dataset, pipeline.has_generator)
        parts = divide_dataset(dataset, config, settings)
        part = parts[SPLITS.index(config.split)]
        questions = Questions.from_dataset(part, settings.batches, settings.seed)
        evaluation = Evaluator(tuple(overrides), questions, metrics, resources, objective.times).measure_config(trial)
        resources.store.save_usage()
    for stage, share in evaluation.served.items():
        if share < 1:
            report_line(f"{stage} got {share:.0%} of what it asked its model for, and went on without the rest")
    table = Table(title=f"{dataset.name}: {len(evaluation.query_ids)} {config.split} questions", title_justify="left")
    table.add_column("metric")
    table.add_column("mean", justify="right")
    table.add_column("questions measured", justify="right")
    for name, value in evaluation.means.items():
        measured = int((~np.isnan(evaluation.per_query[name])).sum())
        table.add_row(Text(name), f"{value:.6g}", str(measured))
    build_console().print(table)
    return evaluation


def run_job(_: DictConfig) -> dict[str, float]:
    """One Hydra job: the means."""
    try:
        return dict(measure_configuration(read_words(HydraConfig.get())).means)
    except RagOptError as error:
        raise Refused(error) from error


def main() -> None:
    """The command line."""
    run_hydra(hydra.main(version_base=None, config_path=str(FOLDER), config_name=NAME)(run_job))
