"""`python -m rag_opt.ask question='…' [key=value ...]`: one question, and the answer as it is written."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rag_opt.cli.shell import Refused, read_words, run_hydra
from rag_opt.config.compose import FOLDER, NAME, compose_config
from rag_opt.config.schema import check_shape
from rag_opt.config.settings import parse_settings
from rag_opt.console.terminal import print_first_line, sanitize_line, sanitize_text
from rag_opt.errors import ComponentError, ConfigError, RagOptError
from rag_opt.records.documents import Queries, Query
from rag_opt.records.products import Answers
from rag_opt.system import environment

if TYPE_CHECKING:
    from rag_opt.console.progress import Screen

SHOWN = 5
"""Sources that are named."""


def answer_question(overrides: Sequence[str]) -> str:
    """The answer of the configuration of these overrides to its `question`, printed as it comes, sources after it.

    "" where the configuration has no generator. Raises a RagOptError.
    """
    from rag_opt.components.generators.synthesis import Synthesis, show_pieces
    from rag_opt.config.trial import build_trial_config
    from rag_opt.console.progress import Screen
    from rag_opt.datasets.checks import get_corpus
    from rag_opt.evaluation.evaluator import build_resources, load_dataset
    from rag_opt.evaluation.pipelines import build_pipeline
    from rag_opt.evaluation.unused import find_unused

    config = compose_config(overrides)
    check_shape(config)
    question = config.question
    if not isinstance(question, str) or not question.strip():
        raise ConfigError("question: what is asked is expected, such as question='What is a decorator?'")
    environment.use_threads(parse_settings(config).threads)
    pipeline = build_pipeline(build_trial_config(config, overrides), build_resources(config))
    with Screen() as screen:
        for line in find_unused(overrides, None, [pipeline], command="ask"):
            screen.report_line(line)
        documents = get_corpus(load_dataset(config))
        index = pipeline.index_documents(documents)
    with Screen() as screen, show_pieces(partial(_print_piece, screen)):
        found = pipeline.ask(Queries.from_items((Query("question", question.strip()),)), documents, index)
    answer = _print_answer(
        found.get("answers"), streams=any(isinstance(part.component, Synthesis) for part in pipeline.parts)
    )
    chunks = found["context"].chunks
    for row, score in found["context"].get_hits(0)[:SHOWN]:
        text = " ".join(chunks.texts[row].split())[:90]
        print(sanitize_line(f"  {chunks.format_place(row)} ({score:.3f}): {text}"))
    pipeline.resources.store.save_usage()
    return answer


def _print_piece(screen: Screen, piece: str) -> None:
    """Print a piece of the answer; a bar would wipe away the line that it stands in."""
    screen.stop_live()
    print(sanitize_text(piece), end="", flush=True)


def _print_answer(answers: Answers | None, *, streams: bool) -> str:
    """The answer, printed unless it was as it came; raises ComponentError where the model gave none."""
    if answers is not None and answers.texts[0] is None:
        raise ComponentError("no answer: the call to the model failed, as said above")
    said = (answers.texts[0] or "") if answers is not None else ""
    # What streams was printed as it came, without an end of line.
    print("\n" if streams else f"{sanitize_text(said)}\n" if said else "", end="")
    return said


def run_job(_: DictConfig) -> None:
    """One Hydra job."""
    try:
        answer_question(read_words(HydraConfig.get()))
    except RagOptError as error:
        raise Refused(error) from error


def main() -> None:
    """The command line."""
    print_first_line("rag_opt.ask: reading the configuration and loading models, which takes some seconds")
    run_hydra(hydra.main(version_base=None, config_path=str(FOLDER), config_name=NAME)(run_job))
