"""Settings that are typed and do nothing: no stage, no metric and no command of this kind reads them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from omegaconf import OmegaConf

from rag_opt.components.embedders.encoder import Encoder
from rag_opt.components.splitters.chunkers import SemanticSplitter, SizedSplitter
from rag_opt.components.stage import Stage, get_parameter_names
from rag_opt.config.compose import compose_config, get_choices, parse_overrides
from rag_opt.config.stages import STAGES, WHOLE, get_stages, is_whole
from rag_opt.config.trust import to_plain
from rag_opt.console.secrets import hide_secrets
from rag_opt.evaluation.wiring import MAY_REST, Part
from rag_opt.metrics.catalogue import JUDGE

if TYPE_CHECKING:
    from rag_opt.evaluation.objective import Objective
    from rag_opt.evaluation.pipelines import RagPipeline

READERS = {
    "llm": "asks a language model (such as generator=openai, query=rewrite, reranker=llm_listwise)",
    "price": "asks a language model, so nothing is paid",
    "budget.usd": "asks a language model, so nothing is paid",
    "budget.tokens": "asks a language model, so nothing is paid",
    "web": "asks the web (such as retriever=hybrid_web)",
}
"""What a part of the configuration is for."""

OTHER_COMMANDS = {
    "question": {"ask"},
    "split": {"trial"},
    "n_trials": {"study"},
    "n_workers": {"study"},
    "sampler": {"study"},
    "pruner": {"study"},
}
"""Keys that only these commands read; a command that a study prints leaves them out."""


def find_unused(
    overrides: Sequence[str],
    objective: Objective | None,
    pipelines: Sequence[RagPipeline],
    searched: Iterable[str] = (),
    command: str = "study",
) -> list[str]:
    """A line for each typed setting that does nothing; `searched` are the choices of the space, such as generator=x.

    `objective` is None where nothing is measured; `pipelines` are those of the configuration and of enough others to
    show every choice.
    """
    asked = _find_read_sections(overrides, objective, searched)
    serving = {stage for pipeline in pipelines for stage in _find_serving(pipeline.parts)}
    whole = get_choices(overrides)[WHOLE] if is_whole(compose_config(overrides)) else ""
    # What is brought may ask whom it likes, and says what that cost.
    asked |= {"llm"} if whole else set()
    lines = []
    for override in parse_overrides(overrides):
        key, word = override.key_or_group, hide_secrets(override.input_line or "")
        if whole and key.partition(".")[0] in STAGES:
            lines.append(f"{word} does nothing here: {WHOLE}={whole} is no pipeline of stages")
            continue
        readers = next((READERS[part] for part in READERS if key == part or key.startswith(f"{part}.")), None)
        if key.partition(".")[0] == "judge" and "judge" not in asked:
            lines.append(f"{word} does nothing here: no metric is a judge's (such as judge.correctness)")
        elif readers is not None and not asked & _get_sections(key):
            lines.append(f"{word} does nothing here: no stage and no metric {readers}")
        elif (stage := key.partition(".")[0]) in MAY_REST and stage not in serving:
            here = f"retriever={get_choices(overrides)['retriever']}"
            lines.append(f"{word} does nothing here: nothing takes what {stage} gives ({here})")
        elif command not in (others := OTHER_COMMANDS.get(key.partition(".")[0], {command})):
            lines.append(f"{word} does nothing here: it is for rag_opt.{min(others)}")
    return lines


def _find_serving(parts: Iterable[Part]) -> set[str]:
    """The stages of which the result takes something; the embedder's encoder may serve in another stage as well."""
    found = {part.stage for part in parts}
    elsewhere = [part.component for part in parts if part.stage != "embedder"]
    return found | ({"embedder"} if any(map(_needs_encoder, elsewhere)) else set())


def _needs_encoder(component: Any) -> bool:
    """Whether a component, or what it is made of, has texts encoded: a splitter that counts words does not."""
    if isinstance(component, SizedSplitter) and not isinstance(component, SemanticSplitter):
        return component.unit == "tokens"
    if not isinstance(component, Stage):
        # Of a component that is not ours nothing is known.
        return True
    parts = [getattr(component, name) for name in get_parameter_names(type(component))]
    return any(isinstance(part, Encoder) or (isinstance(part, Stage) and _needs_encoder(part)) for part in parts)


def _get_sections(key: str) -> set[str]:
    # A judge asks a language model as well, so prices and budgets are for either.
    return {"web"} if key.startswith("web") else {"llm", "judge"}


def _find_read_sections(overrides: Sequence[str], objective: Objective | None, searched: Iterable[str]) -> set[str]:
    """Of llm, web and judge those that some stage or metric reads."""
    # As it is written: once resolved, a value no longer says which section it came from.
    text = "".join(_iterate_texts(overrides, searched))
    found = {section for section in ("llm", "web") if f"${{{section}" in text}
    if objective is not None:
        metrics = {metric.name for metric in (*objective.metrics, *objective.deciding, objective.cost)}
        found |= {"judge"} if any(name.startswith(JUDGE) for name in metrics) else set()
        # Evaluators and scorers of other libraries may ask whom they like.
        found |= {"llm"} if to_plain(compose_config(overrides).objective).get("own") else set()
    return found


def _iterate_texts(overrides: Sequence[str], searched: Iterable[str]) -> Iterator[str]:
    """The stages' configuration as it is written, interpolations and all, of this one and of each choice."""
    config = compose_config(overrides)
    yield from (str(OmegaConf.to_container(config[stage], resolve=False)) for stage in get_stages(config))
    for choice in searched:
        if (stage := choice.partition("=")[0]) in STAGES:
            yield str(OmegaConf.to_container(compose_config([*overrides, choice])[stage], resolve=False))
