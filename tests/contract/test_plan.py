"""What is wrong with a command line is said before the study's folder exists."""

from __future__ import annotations

from pathlib import Path

import optuna
import pytest
import yaml

from rag_opt.cli.study import run_study
from rag_opt.console.progress import Screen
from rag_opt.errors import (
    ComponentError,
    ConfigError,
    DatasetError,
    DriftError,
    MetricError,
    RagOptError,
    SearchSpaceError,
)
from rag_opt.study.plan import Plan, build_plan
from tests.conftest import QUESTIONS, own_space, write_jsonl


def plan(animals: list[str], tmp_path: Path, *overrides: str) -> Plan:
    return build_plan([*animals, f"studies_dir={tmp_path}", *overrides])


def names(found: Plan) -> list[str]:
    return [parameter.name for parameter in found.space.parameters]


def test_the_baseline_is_what_the_command_line_describes(animals, tmp_path) -> None:
    found = plan(animals, tmp_path)
    assert found.baseline["retriever"] == "hybrid"
    assert found.baseline["retriever.hybrid_weight"] == 0.5
    assert [seed["retriever"] for seed in found.seeds] == ["hybrid", "bm25", "dense", "hybrid"]
    assert found.seeds[3]["retriever.fusion"] == "rrf"
    assert "retriever.hybrid_weight" not in found.seeds[3]


def test_what_the_command_line_sets_is_not_searched(animals, tmp_path) -> None:
    found = plan(animals, tmp_path, "retriever=bm25", "retriever.top_k=4")
    assert names(found) == ["retriever.k1", "retriever.b"]
    assert list(found.seeds) == [{"retriever.k1": 1.2, "retriever.b": 0.75}]


def test_dev_and_test_share_documents_and_no_question(animals, tmp_path) -> None:
    found = plan(animals, tmp_path)
    dev, test = ({q.id for q in bench.questions.queries.items} for bench in (found.dev, found.test))
    assert not dev & test
    assert len(dev) + len(test) == len(QUESTIONS)
    assert found.dev.questions.documents.key == found.test.questions.documents.key


def test_the_order_of_questions_depends_on_the_seed_alone(animals, tmp_path) -> None:
    orders = [[q.id for q in plan(animals, tmp_path, f"seed={s}").dev.questions.queries.items] for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == sorted(orders[2])


def test_fingerprints_see_what_changes_a_score(animals, tmp_path) -> None:
    base = plan(animals, tmp_path).fingerprints
    for override, changed in {
        "dataset.test_share=0.5": {"dataset"},
        "objective=recall": {"objective"},
        "seed=1": {"objective"},
        "evaluation.batches=3": {"objective"},
        "generator=none": {"pipeline"},
        "retriever.top_k=5": {"pipeline", "choices"},
        "retriever.b=0.5 retriever=bm25": {"pipeline", "search space", "choices"},
        "n_trials=99": set(),
        "sampler=gp": set(),
    }.items():
        now = plan(animals, tmp_path, *override.split()).fingerprints
        assert {name for name in base if now[name] != base[name]} == changed, override


RANKERS = {
    "reranker": "choice(none, mmr)",
    "retriever": "choice(bm25, dense, hybrid)",
    "retriever.top_k": "range(3, 21)",
}
KEEPS = {**RANKERS, "reranker.keep": {"values": "range(1, 4)", "when": {"reranker": "mmr"}}}


@pytest.mark.parametrize(
    ("rows", "words", "kept", "said"),
    [
        (None, [], {}, "not searched: retriever.top_k, since nDCG@10 can't depend on it; to search it add a metric of"),
        (None, ["objective.metrics=[R@5,context.R@5]"], {"retriever.top_k": {}}, ""),
        (None, ["objective.constraints=['tokens <= 900']"], {"retriever.top_k": {}}, ""),
        (None, ["objective.metrics=[F1]"], {"retriever.top_k": {}}, ""),
        (None, ["reranker=mmr"], {"retriever.top_k": {}}, ""),
        (
            KEEPS,
            [],
            {"retriever.top_k": {"reranker": ("mmr",)}},
            "retriever.top_k is searched with reranker=mmr alone: otherwise nDCG@10 can't depend on it",
        ),
        (KEEPS, [], {"retriever.top_k": {"reranker": ("mmr",)}}, "not searched: reranker.keep, since nDCG@10"),
        (
            KEEPS,
            [
                "objective=quality_cost",
                "objective.metrics=[context.R@5,evidence_recall@5]",
                "objective.directions=null",
            ],
            {"retriever.top_k": {}, "reranker.keep": {"reranker": ("mmr",)}},
            "",
        ),
        (
            {
                "retriever": "choice(bm25, dense, hybrid)",
                "generator.max_tokens": "range(16, 65, 16)",
                "context": "none,assembled",
            },
            [],
            {},
            "since nDCG@10 can't depend on them; to search them add a metric of what is handed on to objective.metrics or",
        ),
        (
            {"embedder": "choice(minilm, static)", "retriever": "choice(bm25, dense, hybrid)"},
            [],
            {"embedder": {}},
            "",
        ),
        (
            {
                "splitter.overlap": {"values": "range(0, 61, 20)", "below": "splitter.chunk_size"},
                "splitter.chunk_size": "choice(50, 100)",
            },
            ["splitter=sentence"],
            {"splitter.overlap": {}},
            "",
        ),
    ],
)
def test_what_can_not_move_the_objective_is_not_searched_and_that_is_said(
    animals, tmp_path, capsys, rows, words: list[str], kept: dict, said: str
) -> None:
    pinned = [f"{name}=" for name in ("splitter", "embedder") if name in str((rows, words))]
    base = [word for word in animals if not word.startswith(tuple(pinned))]
    space = [] if rows is None else own_space(tmp_path, rows)
    evidence = [{**row, "evidence": [{"doc_id": "cats", "start": 0, "end": 4}]} for row in QUESTIONS]
    questions = write_jsonl(tmp_path / "q.jsonl", evidence)
    with Screen():
        found = plan(base, tmp_path, f"dataset.questions={questions}", *space, *words).space
    searched = {p.name: dict(p.when) for p in found.parameters}
    looked = ("retriever.top_k", "reranker.keep", "generator.max_tokens", "context", "embedder", "splitter.overlap")
    assert {name: when for name, when in searched.items() if name in looked and name in kept} == kept
    assert not {*looked} & {*searched} - {*kept, "embedder"}
    assert said in " ".join(capsys.readouterr().err.split())


def test_a_top_k_of_ones_own_retriever_that_ranks_no_further_is_searched(animals, tmp_path) -> None:
    conf = tmp_path / "conf" / "retriever"
    conf.mkdir(parents=True)
    own = {
        "top_k": 4,
        "components": {"fusion": {"_target_": "tests.unit.ranking_parts.Limited", "top_k": "${retriever.top_k}"}},
    }
    (conf / "mine.yaml").write_text(yaml.safe_dump({"defaults": ["bm25", "_self_"], **own}), "utf-8")
    space = own_space(tmp_path, {"retriever.top_k": "range(2, 5)"})
    found = plan(animals, tmp_path, *space, "retriever=mine", "trusted_modules=[tests]")
    assert names(found) == ["retriever.top_k"]


def test_a_space_that_can_not_move_the_objective_is_refused_with_advice(animals, tmp_path) -> None:
    space = own_space(tmp_path, {"retriever.top_k": "range(3, 21)", "generator.max_tokens": "range(16, 65, 16)"})
    message = "nothing to search: generator.max_tokens, retriever.top_k, since RR@10 can't.*context.nDCG@10, tokens, F1"
    with pytest.raises(SearchSpaceError, match=message):
        plan(animals, tmp_path, *space, "objective.metrics=[RR@10]")


def test_a_seed_that_says_what_is_not_searched_is_measured_without_that(animals, tmp_path) -> None:
    found = plan(animals, tmp_path, "seeds=[['retriever=bm25','retriever.top_k=5']]")
    assert [seed["retriever"] for seed in found.seeds] == ["hybrid", "bm25"]


def test_how_ranks_are_measured_is_part_of_what_a_study_is_made_of(animals, tmp_path) -> None:
    from rag_opt.storages.attributes import StudyAttributes
    from rag_opt.storages.drift import check_fingerprints

    now = plan(animals, tmp_path).fingerprints
    study = optuna.create_study()
    StudyAttributes.fingerprints.save(
        study, {name: value for name, value in now.items() if name != "measuring of ranks"}
    )
    with pytest.raises(
        DriftError, match="(?s)another measuring of ranks.*then unknown, now whatever is handed on"
    ) as caught:
        check_fingerprints(study, now, tmp_path)
    assert "name=<new name>" in str(caught.value)
    words = ["objective.metrics=[F1]", "objective.report=[]"]
    assert "measuring of ranks" not in plan(animals, tmp_path, *words).fingerprints


def test_a_choice_that_serves_nothing_is_refused_before_anything_is_written(animals, tmp_path) -> None:
    conf = tmp_path / "conf" / "reranker"
    conf.mkdir(parents=True)
    target = "haystack.components.builders.PromptBuilder"
    mine = {"components": {"mine": {"_target_": target, "template": "{{ query }}"}}}
    (conf / "mine.yaml").write_text(yaml.safe_dump(mine), "utf-8")
    space = own_space(tmp_path, {"reranker": "choice(none, mine)"})
    studies = tmp_path / "studies"
    with pytest.raises(
        SearchSpaceError, match="(?s)reranker: what serves there gives retrieved documents.*with reranker=mine"
    ):
        run_study([*animals, f"studies_dir={studies}", *space])
    assert not studies.exists()


def without_splitter(animals: list[str]) -> list[str]:
    return [word for word in animals if word != "splitter=none"]


BAD_SPACES = {
    "unknown key": ({"retriever.topk": "range(1, 4)"}, "'retriever.topk' is not a key"),
    "unknown group": ({"retriver": "choice(bm25, dense, hybrid)"}, "'retriver' is not a key"),
    "unknown choice": ({"retriever": "choice(bm25, elastic, hybrid)"}, "retriever=elastic: there is no such choice"),
    "missing when": (
        {"retriever": "choice(bm25, hybrid)", "retriever.hybrid_weight": "interval(0, 1)"},
        "(?s)hybrid_weight.*needs `when",
    ),
    "a value the component rejects": ({"retriever.b": "interval(0.5, 1.5)"}, "b must be from 0 to 1"),
    "fractions for a count": ({"retriever.top_k": "interval(3, 20)"}, "top_k must be a whole number"),
    "top_k from zero": ({"retriever.top_k": "range(0, 11)"}, "top_k must be a whole number of at least 1"),
    "an overlap that reaches chunk_size": (
        {
            "splitter": "choice(none, sentence)",
            "splitter.chunk_size": {"values": "choice(50, 100)", "when": {"splitter": "sentence"}},
            "splitter.overlap": {"values": "range(0, 61, 20)", "when": {"splitter": "sentence"}},
        },
        "overlap must be from 0 to chunk_size - 1 = 49, not 60",
    ),
    "a baseline outside": ({"retriever": "choice(bm25, dense)"}, "own retriever=hybrid is not in choice"),
    "nothing": ({}, "nothing to search"),
}


@pytest.mark.parametrize("case", BAD_SPACES, ids=str)
def test_a_space_that_can_not_be_searched_is_refused_and_nothing_is_written(animals, tmp_path, case: str) -> None:
    rows, message = BAD_SPACES[case]
    studies = tmp_path / "studies"
    with pytest.raises(SearchSpaceError, match=message):
        run_study([*without_splitter(animals), f"studies_dir={studies}", *own_space(tmp_path, rows)])
    assert not studies.exists()


BAD = {
    "everything set": (["retriever=dense", "retriever.top_k=3"], SearchSpaceError, "sets every parameter"),
    "an unknown metric": (["objective.metrics=[nDGC@10]"], MetricError, "did you mean 'nDCG@10'"),
    "an unknown reported metric": (["objective.report=[speed]"], MetricError, "'speed' is no metric"),
    "no metric": (["objective.metrics=[]"], ConfigError, "objective.metrics is empty"),
    "metrics as text": (["objective.metrics=F1"], ConfigError, "a list is expected, such as"),
    "a metric twice": (["objective.metrics=[F1,F1]"], ConfigError, "named twice"),
    "a wrong direction": (["objective.directions=[up]"], ConfigError, "'up' is neither"),
    "too few directions": (
        ["objective.metrics=[F1,tokens]", "objective.directions=[maximize]"],
        ConfigError,
        "one for each",
    ),
    "an answer metric without a generator": (
        ["objective=answer", "generator=none"],
        MetricError,
        "F1 needs a generator",
    ),
    "a share that leaves nothing": (["dataset.test_share=0.01"], DatasetError, "both sides need at least one"),
    "seeds that are no lists": (["seeds=[retriever=bm25]"], ConfigError, "not key=value|each is a list"),
    "an untrusted target": (["dataset._target_=os.system"], ConfigError, "os.system is not below a trusted module"),
    "a loader that gives something else": (
        ["dataset._target_=builtins.dict"],
        ConfigError,
        "builtins.dict is not below",
    ),
    "a dense stage without an embedder": (
        ["~embedder.components.chunk_embedder"],
        ComponentError,
        "vector_indexer: nothing before it gives 'vectors'",
    ),
    "a fractional top_k": (["retriever.top_k=2.5"], ConfigError, "top_k must be a whole number"),
    "an unknown stemmer": (["retriever.stemmer=klingon"], ConfigError, "stemmer must be null, auto or one of"),
    "a measure that needs another program": (["objective.metrics=[ERR@20]"], MetricError, "'ERR@20' is no metric"),
    "a store that can not be written": (
        ["store.path=/proc/nope"],
        RagOptError,
        "store.path: /proc/nope can't be read or written",
    ),
    "a sampler's unknown parameter": (["+sampler.nonsense=1"], ConfigError, "RagSampler: .*nonsense"),
    "an untrusted sampler": (["sampler._target_=os.system"], ConfigError, "os.system is not below a trusted module"),
    "an untrusted pruner": (["pruner._target_=os.system"], ConfigError, "os.system is not below a trusted module"),
    "brute force over intervals": (["sampler=brute_force"], SearchSpaceError, "can't try every value of retriever.k1"),
    "a child set while its parent is searched": (
        ["retriever.hybrid_weight=0.3"],
        SearchSpaceError,
        "hybrid_weight exists only with retriever=hybrid: set retriever=hybrid too",
    ),
    "a depth of zero": (["retriever.depth=0"], ConfigError, "depth must be a whole number"),
}


@pytest.mark.parametrize("case", BAD, ids=str)
def test_what_can_not_work_is_refused_and_nothing_is_written(animals, tmp_path, case: str) -> None:
    overrides, kind, message = BAD[case]
    studies = tmp_path / "studies"
    with pytest.raises(kind, match=message) as caught:
        run_study([*animals, f"studies_dir={studies}", *overrides])
    assert isinstance(caught.value, RagOptError)
    assert not studies.exists()


def test_a_null_default_is_a_value(animals, tmp_path) -> None:
    space = own_space(tmp_path, {"reranker.keep": "null,5", "retriever.top_k": "range(5, 11)"})
    words = ["reranker=mmr", "retriever=dense", "objective=quality_cost", *space]
    assert plan(animals, tmp_path, *words).baseline["reranker.keep"] is None


def test_an_answer_metric_without_references_is_refused(animals, tmp_path) -> None:
    rows = [{key: value for key, value in row.items() if key != "answer"} for row in QUESTIONS]
    questions = write_jsonl(tmp_path / "q.jsonl", rows)
    with pytest.raises(MetricError, match="F1 needs reference answers"):
        plan(animals, tmp_path, f"dataset.questions={questions}", "objective=answer")


def test_a_retrieval_metric_without_qrels_is_refused(animals, tmp_path) -> None:
    rows = [{key: value for key, value in row.items() if key != "relevant"} for row in QUESTIONS]
    questions = write_jsonl(tmp_path / "q.jsonl", rows)
    with pytest.raises(MetricError, match="nDCG@10 needs relevant documents"):
        plan(animals, tmp_path, f"dataset.questions={questions}")
    found = plan(animals, tmp_path, f"dataset.questions={questions}", "objective=answer")
    assert "nDCG@10" not in {metric.name for metric in found.dev.metrics}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["generator=openai", "generator.prompt=anwser"], "^prompt=anwser: .*did you mean 'answer'"),
        (["generator=openai", "generator.prompt=../answer"], "^prompt='../answer': the name of a file"),
        (["generator=openai", "llm.model=null"], "a model must be named"),
        (["query=rewrite", "retriever=hybrid", "llm.model=''"], "a model must be named"),
        (["reranker=llm_pointwise", "llm.model=null"], "a model must be named"),
        (["generator=openai", "objective=judged", "judge.model=null"], "a model must be named"),
        (["tracking.traces=finalist"], "^tracking.traces=finalist: one of none, finalists, all"),
        (
            ["query=hyde", "retriever=bm25"],
            "^hyde: it gives dense_queries, which nothing here takes; what serves in query",
        ),
        (["query=rm3", "retriever=dense"], "^rm3: it gives feedback, which nothing here takes"),
        (["search_space=answering"], r"'generator.prompt' is not a key in 'generator'.*; valid: max_tokens$"),
        (["budget.usd=-1"], "^budget.usd=-1: a number above 0"),
        (["budget.minutes=soon"], "^budget.minutes=soon: minutes above 0"),
        (["retriever=hybrid_web"], "name its address, such as web.url="),
        (["embedder=hashing", "reranker=maxsim"], "maxsim needs an embedder with token vectors"),
    ],
)
def test_what_a_model_or_the_web_lacks_is_said_before_anything_is_written(
    animals: list[str], tmp_path, services: list[str], words: list[str], message: str
) -> None:
    with pytest.raises(RagOptError, match=rf"(?m){message}"):
        plan([*animals, *services], tmp_path, *words)
    assert list(tmp_path.iterdir()) == []


def test_who_asks_models_is_known_without_drawing_a_configuration(animals: list[str], tmp_path, services) -> None:
    base = [*animals, *services]
    for words, asked in (([], False), (["generator=openai"], True), (["retriever=hybrid", SEARCHED], True)):
        found = plan(base, tmp_path, *words)
        assert found.asks_models == asked


SEARCHED = "+search_space.query='choice(none, rewrite)'"
