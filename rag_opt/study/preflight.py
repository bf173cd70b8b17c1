"""What a configuration and its space name, used once before the first trial: models loaded, services asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from rag_opt.components.embedders.encoder import Encoder
from rag_opt.components.embedders.encoders import MiniLM, Static
from rag_opt.components.embedders.hashing import Hashing
from rag_opt.components.llm.chat import Chat
from rag_opt.components.rerankers.pairs import BETWEEN, MaxSim, PairScorer
from rag_opt.components.splitters.chunkers import SemanticSplitter, SizedSplitter
from rag_opt.components.stage import Stage, get_parameter_names
from rag_opt.config.stages import WHOLE
from rag_opt.config.trust import build
from rag_opt.console.progress import track
from rag_opt.console.secrets import hide_secrets
from rag_opt.errors import ComponentError
from rag_opt.evaluation.judging import build_judges, find_aspects
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.evaluation.stock import is_stock
from rag_opt.llm.budget import BudgetSpentError
from rag_opt.metrics.catalogue import JUDGE, RANKS
from rag_opt.records.keys import compute_key
from rag_opt.study.judges import check_judges

if TYPE_CHECKING:
    from rag_opt.components.resources import Resources
    from rag_opt.config.trial import TrialConfig
    from rag_opt.study.plan import Plan

PROVEN = (MiniLM, Static, Hashing, MaxSim)
"""What comes with this program, or is made of what does."""

LONGEST = 800
"""Characters of a reason."""

ADVICE = "mend it, or leave it out of the search space; preflight=false finds out in the trials"


@dataclass(frozen=True)
class Use:
    """Something that a configuration uses: by what it is known, where it is named, and how it is used once."""

    key: str
    named: str
    once: Callable[[], object]
    service: bool


def check_components(plan: Plan, resources: Resources, *, services: bool) -> None:
    """Use each model, or each service, that the configuration or its space names once; raises ComponentError.

    What has been loaded stays in the store's memory. A service is asked the least there is, which is paid for; a budget
    that is spent spares it.
    """
    # By key: a model that several stages share is loaded once, and a service is paid once.
    uses = {use.key: use for use in _find_uses(plan, resources) if use.service == services}
    if not uses:
        return
    wrong = []
    with track("preflight: services asked" if services else "preflight: models loaded", len(uses)) as advance:
        # To the end, past the first failure: all that has to be mended is in one message.
        for use in uses.values():
            try:
                use.once()
            except BudgetSpentError:
                return
            except Exception as error:
                # A model's files, a library or a server may fail in any way.
                wrong.append((use.named, error))
            advance(1)
    if wrong:
        lines = [f"  {named}: {_format_error(error)}" for named, error in wrong]
        raise ComponentError("\n".join(["before trial 0 this can't be used:", *lines, f"  {ADVICE}"])) from wrong[0][1]


def check_services(plan: Plan, resources: Resources, *, asks: bool) -> None:
    """`check_components` for services where any will be asked; then what judges are worth, by kept verdicts, too."""
    if asks:
        check_components(plan, resources, services=True)
    check_judges(plan, resources)


def _format_error(error: Exception) -> str:
    # Hidden before it is cut: half of a secret would not be known for one.
    text = hide_secrets(" ".join(str(error).split()))[:LONGEST]
    return text if isinstance(error, ComponentError) else f"{type(error).__name__}: {text}"


def _find_external_uses(plan: Plan, resources: Resources) -> Iterator[Use]:
    """A pipeline that is brought whole, asked the first question: what it gives is kept for trial 0."""
    config = plan.shown[0]
    if WHOLE not in config.stages:
        return

    def ask() -> None:
        pipeline, asked = build_pipeline(config, resources), plan.dev.questions
        ranks = [metric.name for metric in plan.objective.deciding if metric.reads == RANKS]
        if ranks and any(getattr(part.component, "gives", ("",))[0] is None for part in pipeline.parts):
            raise ComponentError(
                f"it gives no documents, which {ranks[0]} needs: name what does, pipeline.outputs.documents=…, or "
                "choose objective=answer"
            )
        index = pipeline.index_documents(asked.documents)
        pipeline.ask(asked.queries.make_batch(np.zeros(1, np.int32)), asked.documents, index)

    yield Use("pipeline", f"{WHOLE}={config.stages[WHOLE].choice}", ask, service=False)


def _find_uses(plan: Plan, resources: Resources) -> Iterator[Use]:
    yield from _find_external_uses(plan, resources)
    seen, needed = set[str](), _find_needed_stages(plan, resources)
    for config in plan.shown:
        # What several stages share is known by its own group.
        for name, stage in sorted(config.stages.items(), key=lambda item: item[0] != "embedder"):
            for node in stage.components.values() if name in needed else ():
                # An interpolation is resolved here, so equal nodes make equal components.
                key = compute_key(name, node)
                if key not in seen and not is_stock(str(node.get("_target_"))):
                    seen.add(key)
                    # `cache` says whether what the component gives is kept, and is no parameter of it.
                    component = build({key: value for key, value in node.items() if key != "cache"}, config.trusted)
                    yield from _find_part_uses(component, _format_choice(name, config, plan.dev.base), resources)
    yield from _find_judge_uses(plan, resources)


def _find_needed_stages(plan: Plan, resources: Resources) -> set[str]:
    """The stages of which any configuration takes something: with BM25 alone nothing is embedded."""
    found = set[str]()
    for config in plan.shown:
        parts = {part.name for part in build_pipeline(config, resources).parts}
        found |= {name for name, stage in config.stages.items() if parts & set(stage.components)}
    return found


def _format_choice(stage: str, config: TrialConfig, base: Sequence[str]) -> str:
    """Where a component is named: its group's choice, and what the space sets in that group."""
    given = config.words[len(base) :]
    own = [word for word in given if word.startswith(f"{stage}.") and word.partition("=")[0].endswith("model")]
    return " ".join([f"{stage}={config.stages[stage].choice}", *own])


def _find_parts(component: Any) -> Iterator[Any]:
    """The objects that a component of ours is made of, nested ones too."""
    for name in get_parameter_names(type(component)) if isinstance(component, Stage) else ():
        part = getattr(component, name)
        if isinstance(part, Stage) or hasattr(part, "find_pages"):
            yield part
            yield from _find_parts(part)


def _find_part_uses(component: Any, named: str, resources: Resources) -> Iterator[Use]:
    """How the parts of a component are used once, those that can be and have not been.

    An encoder whose vectors the store has is proven.
    """
    if isinstance(component, Stage):
        component.use(resources)
    for part in _find_parts(component):
        if isinstance(part, PROVEN) or (isinstance(part, Encoder) and not _needs_encoder(component, part, resources)):
            continue
        if isinstance(part, Encoder):
            yield Use(part.fingerprint, named, partial(part.encode, ["What is this?"]), service=False)
        elif isinstance(part, PairScorer):
            pair = f"What is it?{BETWEEN}It is this."
            yield Use(part.fingerprint, named, partial(part.encode, [pair]), service=False)
        elif isinstance(part, Chat):
            # A server that answers may lack this model, so each of its models is asked for.
            model = str(getattr(component, "model", ""))
            yield Use(
                compute_key(part.fingerprint, model),
                f"{named}, {model}",
                partial(part.probe_model, model),
                service=True,
            )
        elif hasattr(part, "find_pages"):
            key = compute_key("search", getattr(part, "fingerprint", repr(part)))
            yield Use(key, f"{named}, web.service", partial(part.find_pages, "What is this?", 1), service=True)


def _needs_encoder(component: Any, encoder: Encoder, resources: Resources) -> bool:
    """Whether a component will ask its encoder for anything: not one that counts words, nor for what is kept."""
    counts = isinstance(component, SizedSplitter) and not isinstance(component, SemanticSplitter)
    return not (counts and component.unit != "tokens") and not resources.store.has_folder(
        "vectors", encoder.fingerprint
    )


def _find_judge_uses(plan: Plan, resources: Resources) -> Iterator[Use]:
    """The judge, where an objective or a report wants one."""
    if any(metric.name.startswith(JUDGE) for metric in plan.dev.metrics):
        aspects = find_aspects(metric.name for metric in plan.dev.metrics)
        judges = build_judges(plan.config, aspects, repeats=1).use_resources(resources)
        named = f"judge.model={judges.model}"
        probe = partial(judges.chat.probe_model, judges.model)
        yield Use(compute_key(judges.chat.fingerprint, judges.model), named, probe, service=True)
