"""`python -m rag_opt.ask question='…' [key=value ...]`: one question, and the answer as it is written."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from rag_opt.cli.shell import Refused, run_hydra, search_path
from rag_opt.config.compose import FOLDER, NAME, composed
from rag_opt.config.settings import settings_of
from rag_opt.config.shape import check_shape
from rag_opt.console.terminal import begin, inline, shown
from rag_opt.errors import ComponentError, ConfigError, RagOptError
from rag_opt.records.documents import Queries, Query
from rag_opt.records.products import Answers
from rag_opt.system import environment

if TYPE_CHECKING:
    from rag_opt.console.progress import Screen

SHOWN = 5
"""Sources that are named."""


def asked(overrides: Sequence[str]) -> str:
    """The answer of the configuration of these overrides to its `question`, printed as it comes, sources after it.

    "" where the configuration has no generator. Raises a RagOptError.
    """
    from rag_opt.components.generators.synthesis import Synthesis
    from rag_opt.config.trial import trial_of
    from rag_opt.console.progress import Screen
    from rag_opt.datasets.checks import documents_of
    from rag_opt.evaluation.bench import loaded, resources_of
    from rag_opt.evaluation.pipelines import build_pipeline
    from rag_opt.evaluation.unused import unused

    config = composed(overrides)
    check_shape(config)
    question = config.question
    if not isinstance(question, str) or not question.strip():
        raise ConfigError("question: what is asked is expected, such as question='What is a decorator?'")
    environment.use_threads(settings_of(config).threads)
    pipeline = build_pipeline(trial_of(config, overrides), resources_of(config))
    with Screen() as screen:
        for line in unused(overrides, None, [pipeline], command="ask"):
            screen.say(line)
        documents = documents_of(loaded(config))
        index = pipeline.index(documents)
    with Screen() as screen:
        for part in pipeline.parts:
            if isinstance(part.component, Synthesis):
                part.component.show = partial(_streamed, screen)
        found = pipeline.ask(Queries.of((Query("question", question.strip()),)), documents, index)
    answer = _told(found.get("answers"), streams=any(isinstance(part.component, Synthesis) for part in pipeline.parts))
    chunks = found["context"].chunks
    for row, score in found["context"].hits(0)[:SHOWN]:
        text = " ".join(chunks.texts[row].split())[:90]
        print(inline(f"  {chunks.document_ids[row]} ({score:.3f}): {text}"))
    pipeline.resources.store.settle()
    return answer


def _streamed(screen: Screen, piece: str) -> None:
    """Print a piece of the answer; a bar would wipe away the line that it stands in."""
    screen.rest()
    print(shown(piece), end="", flush=True)


def _told(answers: Answers | None, *, streams: bool) -> str:
    """The answer, printed unless it was as it came; raises ComponentError where the model gave none."""
    if answers is not None and answers.texts[0] is None:
        raise ComponentError("no answer: the call to the model failed, as said above")
    said = (answers.texts[0] or "") if answers is not None else ""
    print("\n" if streams else f"{shown(said)}\n" if said else "", end="")
    return said


def job(_: DictConfig) -> None:
    """One Hydra job."""
    try:
        asked([*search_path(HydraConfig.get()), *HydraConfig.get().overrides.task])
    except RagOptError as error:
        raise Refused(error) from error


def main() -> None:
    """The command line."""
    begin("rag_opt.ask: reading the configuration and loading models, which takes some seconds")
    run_hydra(hydra.main(version_base=None, config_path=str(FOLDER), config_name=NAME)(job))
