"""What a configuration and its space name, used once before the first trial: models loaded, services asked."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from rag_opt.components.embedders.encoder import Encoder
from rag_opt.components.embedders.encoders import MiniLM, Static
from rag_opt.components.embedders.hashing import Hashing
from rag_opt.components.llm.chat import Chat
from rag_opt.components.rerankers.pairs import BETWEEN, MaxSim, PairScorer
from rag_opt.components.splitters.chunkers import SemanticSplitter, SizedSplitter
from rag_opt.components.stage import Stage, parameter_names
from rag_opt.config.compose import prompt_of
from rag_opt.config.trust import build, plain
from rag_opt.console.progress import track
from rag_opt.console.secrets import hide
from rag_opt.errors import ComponentError
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.llm.budget import BudgetSpentError
from rag_opt.metrics.catalogue import JUDGE
from rag_opt.metrics.judges import FIELDS, Judges
from rag_opt.records.keys import key_of

if TYPE_CHECKING:
    from rag_opt.components.resources import Resources
    from rag_opt.config.trial import TrialConfig
    from rag_opt.study.plan import Plan

PROVEN = (MiniLM, Static, Hashing, MaxSim)
"""What comes with this program, or is made of what does."""

ADVICE = "mend it, or leave it out of the search space; preflight=false finds out in the trials"


@dataclass(frozen=True)
class Use:
    """Something that a configuration uses: by what it is known, where it is named, and how it is used once."""

    key: str
    named: str
    once: Callable[[], object]
    service: bool


def check(plan: Plan, resources: Resources, *, services: bool) -> None:
    """Use each model, or each service, that the configuration or its space names once; raises ComponentError.

    What has been loaded stays in the store's memory. A service is asked the least there is, which is paid for; a budget
    that is spent spares it. A judge that decides is shown a right and a wrong answer.
    """
    uses = {use.key: use for use in _uses(plan, resources) if use.service == services}
    if not uses:
        return
    wrong = []
    with track("preflight: services asked" if services else "preflight: models loaded", len(uses)) as advance:
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
        lines = [f"  {named}: {_said(error)}" for named, error in wrong]
        raise ComponentError("\n".join(["before trial 0 this can't be used:", *lines, f"  {ADVICE}"])) from wrong[0][1]


def _said(error: Exception) -> str:
    text = hide(" ".join(str(error).split()))[:400]
    return text if isinstance(error, ComponentError) else f"{type(error).__name__}: {text}"


def _uses(plan: Plan, resources: Resources) -> Iterator[Use]:
    seen, needed = set[str](), _needed(plan, resources)
    for config in plan.shown:
        # What several stages share is known by its own group.
        for name, stage in sorted(config.stages.items(), key=lambda item: item[0] != "embedder"):
            for node in stage.components.values() if name in needed else ():
                # An interpolation is resolved here, so equal nodes make equal components.
                key = key_of(name, node)
                if key not in seen:
                    seen.add(key)
                    component = build(node, config.trusted)
                    yield from _used(component, _named(name, config, plan.dev.base), resources)
    yield from _judge(plan, resources)


def _needed(plan: Plan, resources: Resources) -> set[str]:
    """The stages of which any configuration takes something: with BM25 alone nothing is embedded."""
    found = set[str]()
    for config in plan.shown:
        parts = {part.name for part in build_pipeline(config, resources).parts}
        found |= {name for name, stage in config.stages.items() if parts & set(stage.components)}
    return found


def _named(stage: str, config: TrialConfig, base: Sequence[str]) -> str:
    """Where a component is named: its group's choice, and what the space sets in that group."""
    given = config.words[len(base) :]
    own = [word for word in given if word.startswith(f"{stage}.") and word.partition("=")[0].endswith("model")]
    return " ".join([f"{stage}={config.stages[stage].choice}", *own])


def _parts(component: Any) -> Iterator[Any]:
    """The objects that a component of ours is made of, nested ones too."""
    for name in parameter_names(type(component)) if isinstance(component, Stage) else ():
        part = getattr(component, name)
        if isinstance(part, Stage) or hasattr(part, "found"):
            yield part
            yield from _parts(part)


def _used(component: Any, named: str, resources: Resources) -> Iterator[Use]:
    """How the parts of a component are used once, those that can be and have not been.

    An encoder whose vectors the store has is proven.
    """
    if isinstance(component, Stage):
        component.use(resources)
    for part in _parts(component):
        if isinstance(part, PROVEN) or (isinstance(part, Encoder) and not _asks(component, part, resources)):
            continue
        if isinstance(part, Encoder):
            yield Use(part.fingerprint, named, partial(part.encode, ["What is this?"]), service=False)
        elif isinstance(part, PairScorer):
            pair = f"What is it?{BETWEEN}It is this."
            yield Use(part.fingerprint, named, partial(part.encode, [pair]), service=False)
        elif isinstance(part, Chat):
            model = str(getattr(component, "model", ""))
            yield Use(key_of(part.fingerprint, model), f"{named}, {model}", partial(part.prove, model), service=True)
        elif hasattr(part, "found"):
            key = key_of("search", getattr(part, "fingerprint", repr(part)))
            yield Use(key, f"{named}, web.service", partial(part.found, "What is this?", 1), service=True)


def _asks(component: Any, encoder: Encoder, resources: Resources) -> bool:
    """Whether a component will ask its encoder for anything: not one that counts words, nor for what is kept."""
    counts = isinstance(component, SizedSplitter) and not isinstance(component, SemanticSplitter)
    return not (counts and component.unit != "tokens") and not resources.store.keeps("vectors", encoder.fingerprint)


def _judge(plan: Plan, resources: Resources) -> Iterator[Use]:
    """The judge, where an objective or a report wants one."""
    if any(metric.name.startswith(JUDGE) for metric in plan.dev.metrics):
        node = plain(plan.config.judge)
        chat, model = build(node["chat"], plain(plan.config.trusted_modules)), str(node["model"])
        chat.use(resources)
        named = f"judge.model={model}"
        yield Use(key_of(chat.fingerprint, model), named, partial(chat.prove, model), service=True)
        for aspect in FIELDS:
            if any(metric.name == f"{JUDGE}{aspect}" for metric in plan.objective.deciding):
                judges = Judges(chat, model, {aspect: prompt_of(node["prompts"][aspect])}, repeats=1)
                yield Use(key_of("judge", aspect), named, partial(_tells, judges, aspect), service=True)


def _tells(judges: Judges, aspect: str) -> None:
    """Raise ComponentError where a judge that decides can't tell a right answer from a wrong one."""
    try:
        why = judges.blind(aspect)
    except ComponentError:
        # That it can't be asked is said already.
        return
    if why:
        raise ComponentError(why)
