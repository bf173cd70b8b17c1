"""Metrics that an objective describes: a user's own, Haystack's and MLflow's, a judge's grades."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rag_opt.config.fingerprints import replace_targets
from rag_opt.config.trust import build
from rag_opt.metrics import own
from rag_opt.metrics.adapters import get_price, score_with_evaluator, score_with_scorer
from rag_opt.metrics.aspects import FIELDS, Shown
from rag_opt.metrics.catalogue import JUDGE, MAXIMIZE, MINIMIZE, SPREAD, BatchResult, Metric
from rag_opt.metrics.judges import Judges
from rag_opt.metrics.metering import Meter, Price
from rag_opt.records.keys import compute_key

if TYPE_CHECKING:
    from rag_opt.records.documents import Scores


def build_own_metric(name: str, node: Any, trusted: Sequence[str], prices: Mapping[str, Price]) -> Metric:
    """The metric that an objective's file describes under `own`; raises MetricError or ConfigError.

    `prices` are dollars a million tokens by model, which what it asks models for is paid with.
    """
    kind, direction, needs = own.parse_own_metric(name, node)
    if kind != "function":
        made = build(node[kind], trusted)
        # By what it computes, not where its class lives: a study goes on after that has moved.
        version = compute_key(replace_targets(node[kind], trusted))
        score = score_with_evaluator if kind == "evaluator" else score_with_scorer
        price = get_price(made, prices)

        def values(seen: BatchResult) -> Scores:
            return score(made, build_cases(seen), Meter(name, seen.resources.llm, price))

        # Whether it asks a model can't be known of each, so questions come in batches, and pruning spares some.
        return Metric(name, direction, needs, values, version, pays=True)
    # As a partial: its name is checked and nothing is called, and `func` is what has the source for the version.
    function = own.get_given(name, node[kind]) or build({"_target_": node[kind], "_partial_": True}, trusted).func
    return Metric(
        name,
        direction,
        needs,
        lambda seen: own.apply_function(name, function, build_cases(seen)),
        own.hash_function(function),
    )


def build_judge_metric(aspect: str, judges: Judges, *, spread: bool = False) -> Metric:
    """A judge's grades, 1 to 5, or their standard deviation over its repeats."""

    def values(seen: BatchResult) -> Scores:
        # The grades' metric and the spread's share verdicts: whichever comes first has them made.
        if aspect not in seen.judging:
            answers: Sequence[str | None] = seen.answers or [None] * len(seen.queries)
            rows = zip(seen.queries, answers, seen.contexts, strict=True)
            shown = [Shown(query.text, query.answers, said, tuple(texts)) for query, said, texts in rows]
            # The same for all batches, so that failures in a row are counted.
            asked = seen.memory.setdefault("judges", judges.use_resources(seen.resources))
            earlier = seen.memory.setdefault(f"grades: {aspect}", [])
            seen.judging[aspect] = asked.mask_constant(aspect, asked.grade_aspect(aspect, shown), earlier)
        found = seen.judging[aspect]
        return found.spread if spread else found.grades

    # Only correctness is graded against references; the other aspects need an answer at most.
    needs = "answers" if aspect == "correctness" else "generator" if "answer" in FIELDS[aspect] else ""
    name = f"{JUDGE}{aspect}{SPREAD if spread else ''}"
    return Metric(name, MINIMIZE if spread else MAXIMIZE, needs, values, judges.compute_version(aspect), pays=True)


def build_cases(seen: BatchResult) -> list[own.Case]:
    """What a user's function is given, one case a query."""
    answers: Sequence[str | None] = seen.answers or [None] * len(seen.queries)
    rows = zip(seen.queries, answers, seen.contexts, seen.handed, strict=True)
    return [
        own.Case(query.text, said, query.answers, tuple(texts), tuple(ids), dict(seen.qrels.get(query.id, {})))
        for query, said, texts, ids in rows
    ]
