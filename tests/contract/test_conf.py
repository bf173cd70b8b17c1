"""Every file under conf/ composes, instantiates, and survives a save and a load."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
import yaml
from haystack import Pipeline

from rag_opt.cache.store import Store
from rag_opt.components.resources import Resources
from rag_opt.components.stage import Stage
from rag_opt.config import compose, experiments, schema
from rag_opt.config.compose import FOLDER, compose_config
from rag_opt.config.overrides import format_overrides
from rag_opt.config.settings import parse_settings
from rag_opt.config.stages import STAGES
from rag_opt.config.sweep_grammar import parse_space
from rag_opt.config.trial import compose_trial
from rag_opt.config.trust import build, to_plain
from rag_opt.errors import ConfigError
from rag_opt.evaluation.objective import build_objective
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.metrics.catalogue import get_metric
from rag_opt.study.plan import check_space
from rag_opt.study.sampling import build_pruner, build_sampler
from rag_opt.study.seeds import build_search_space, build_seeds
from tests.conftest import LONG

CHOICES = sorted(
    (path.parent.name, path.stem)
    for path in FOLDER.glob("*/*.yaml")
    if path.parent.name != "prompt" and not path.stem.startswith("_")
)
SERVED = {
    ("generator", "hf_local"): "generator.model={tiny_llm}",
    ("embedder", "multilingual"): "embedder.encoder.model={tiny_encoder}",
    ("reranker", "cross_encoder"): "reranker.model={tiny_cross_encoder}",
}
"""What a choice needs to work without a network."""

LOCAL = ("answers",)
WEB = "web.url=http://127.0.0.1:1/"
NEEDED = {
    "answering": ["generator=openai"],
    "small_model": ["generator=llm", "generator.max_tokens=32"],
    "whole": ["generator=openai", WEB],
    "parsing": ["dataset=folder"],
    "sources": ["generator=openai", WEB],
}
"""What a search space is made for."""


ELSEWHERE = [("embedder", "hub"), *(("index", store) for store in ("pgvector", "opensearch", "elasticsearch"))]
ELSEWHERE += [("parser", each) for each in ("plain", "pdfminer", "markitdown", "docling")]
"""What needs a hub, a server or files: see tests/integration/test_document_stores.py and test_documents.py."""


def of(group: str) -> list[str]:
    return [choice for name, choice in CHOICES if name == group]


def chosen(group: str, choice: str) -> list[str]:
    return [f"+experiment={choice}"] if group == "experiment" else [f"{group}={choice}"]


@pytest.mark.parametrize(("group", "choice"), CHOICES, ids=str)
def test_it_composes_says_what_it_is_and_survives_a_save_and_a_load(group: str, choice: str) -> None:
    found = compose_config(chosen(group, choice))
    schema.compose_command_line(chosen(group, choice))
    parse_settings(found)
    saved = to_plain(found)
    assert yaml.safe_load(yaml.safe_dump(saved)) == saved
    lines = (FOLDER / group / f"{choice}.yaml").read_text().splitlines()
    comment = lines[1] if lines[0].startswith("# @package") else lines[0]
    assert comment.startswith("# ")
    assert comment.endswith((".", ":"))


def test_the_groups_are_what_the_defaults_list_names() -> None:
    defaults = yaml.safe_load((FOLDER / "config.yaml").read_text())["defaults"]
    named = {next(iter(entry)) for entry in defaults if isinstance(entry, dict)}
    assert {group for group, _ in CHOICES} - {"experiment"} == {name for name in named if "hydra" not in name}


PIPELINES = [(stage, choice) for stage in STAGES for choice in of(stage)]


@pytest.mark.parametrize(("stage", "choice"), PIPELINES, ids=str)
def test_a_stage_builds_into_a_pipeline_that_haystack_can_save_and_load(
    stage: str, choice: str, store: Store, services: list[str]
) -> None:
    more = [WEB] if choice.endswith("web") and stage == "retriever" else []
    more += ["retriever=hybrid_web", WEB] if choice == "rewrite_web" else []
    more += ["dataset=folder"] if stage == "parser" else []
    pipeline = build_pipeline(compose_trial([*services, f"{stage}={choice}", *more]), Resources.from_store(store))
    for part in (pipeline.indexing, pipeline.querying):
        again = Pipeline.loads(part.dumps(), allowed_modules=["rag_opt.*"])
        assert set(again.graph.nodes) == set(part.graph.nodes)
        assert set(again.graph.edges) == set(part.graph.edges)
        for name in part.graph.nodes:
            mine, theirs = part.get_component(name), again.get_component(name)
            assert isinstance(mine, Stage)
            assert isinstance(theirs, Stage)
            assert mine.fingerprint == theirs.fingerprint


@pytest.mark.parametrize(("stage", "choice"), [pair for pair in PIPELINES if pair not in ELSEWHERE], ids=str)
def test_every_stage_answers_questions(
    animals: list[str],
    store: Store,
    stage: str,
    choice: str,
    services: list[str],
    web: str,
    tiny_models: dict[str, str],
    packaged_store: Path,
) -> None:
    """Every choice of every stage, measured end to end on the animals; only a hub model needs a network."""
    from rag_opt.study.plan import build_plan

    # To distil a static model takes half a minute: one is made for all tests.
    store = Store(packaged_store) if choice == "static" else store
    words = [*services, *animals]
    words += [SERVED[stage, choice].format(**tiny_models)] if (stage, choice) in SERVED else []
    words += ["retriever=hybrid"] if stage == "query" else []
    words += ["embedder=minilm"] if choice == "maxsim" else []
    words += [f"web.url={web}/searxng/search"] if choice.endswith("web") else []
    words += ["retriever=hybrid_web"] if choice == "rewrite_web" else []
    words = [word for word in words if not word.startswith(f"{stage}=")]
    words = [
        word for word in words if not (stage == "retriever" and choice == "none" and word.startswith("retriever."))
    ]
    space = "search_space=retrieval" if (stage, choice) != ("retriever", "none") else None
    if space is None:
        pipeline = build_pipeline(compose_trial([*words, "retriever=none"]), Resources.from_store(store))
        assert "answers" in pipeline.results
        return
    # The web alone has no depth, and what it finds is no document of the corpus.
    alone = (stage, choice) == ("retriever", "web")
    words = [word for word in words if not (alone and word == "retriever.depth=6")]
    # Of some only top_k is left to search, on which a ranking does not depend.
    words += ["objective.constraints=['tokens <= 100000']"]
    plan = build_plan([*words, f"{stage}={choice}", "store.path=" + str(store.root)])
    scores = plan.dev.measure_config(plan.shown[0]).means
    assert alone or 0.4 < scores["nDCG@10"] <= 1.0
    assert scores["latency"] > 0


@pytest.mark.parametrize("choice", [each for each in of("search_space") if each != "none"])
def test_a_search_space_can_be_searched(choice: str, store: Store, services: list[str]) -> None:
    words = [*services, *NEEDED.get(choice, []), f"search_space={choice}"]
    found = compose_config(words)
    space = parse_space(to_plain(found.search_space))
    check_space(space, compose_trial(words), Resources.from_store(store))
    seeds = build_seeds(found, space, words)
    assert len(seeds) >= (2 if choice == "sources" else 3)


@pytest.mark.parametrize("choice", of("experiment"))
def test_an_experiments_baseline_lies_in_its_space(choice: str, store: Store, services: list[str]) -> None:
    # The words that name a server are none of an experiment whose model runs here.
    overrides = [*([] if choice in LOCAL else services), f"+experiment={choice}", WEB]
    found = compose_config(overrides)
    space = build_search_space(found, overrides)
    check_space(space, compose_trial(overrides), Resources.from_store(store))
    build_seeds(found, space, overrides)
    build_objective(found)


@pytest.mark.parametrize("choice", of("objective"))
def test_an_objective_names_metrics_that_exist(choice: str, services: list[str]) -> None:
    objective = build_objective(compose_config([*services, f"objective={choice}"]))
    assert all(each.pays or get_metric(each.name).name == each.name for each in objective.metrics)
    assert len(objective.directions) == len(objective.targets)


def built_sampler(choice: str) -> Any:
    return build_sampler(compose_config([f"sampler={choice}"]), 1)


@pytest.mark.parametrize("choice", of("sampler"))
@pytest.mark.parametrize("pruner", of("pruner"))
def test_samplers_and_pruners_run_a_conditional_study(choice: str, pruner: str) -> None:
    space = parse_space({"a": "choice(x, y)", "b": {"values": "range(1, 4)", "when": {"a": "y"}}})
    study = optuna.create_study(
        sampler=built_sampler(choice), pruner=build_pruner(compose_config([f"pruner={pruner}"]))[0]
    )
    for step in range(3):
        trial = study.ask()
        values = space.suggest(trial)
        trial.report(float(values.get("b", step)), 1)
        trial.should_prune()
        study.tell(trial, 1.0)
    assert len(study.trials) == 3


@pytest.mark.parametrize("choice", of("tracking"))
def test_tracking_says_whether_it_is_on(choice: str) -> None:
    assert isinstance(to_plain(compose_config([f"tracking={choice}"]).tracking)["enabled"], bool)


@pytest.mark.parametrize("choice", of("storage"))
def test_a_storage_has_a_url(choice: str) -> None:
    assert to_plain(compose_config([f"storage={choice}"]).storage)["url"].startswith("sqlite:///{folder}/")


def test_conf_is_found_where_the_package_is(tmp_path: Path) -> None:
    assert FOLDER.is_dir()
    assert (FOLDER / "config.yaml").is_file()


# ---- Optuna's internals that we touch


def test_optunas_internals_are_where_storage_expects_them() -> None:
    from rag_opt.samplers.internals import allow_stop, is_stopped

    study = optuna.create_study(sampler=optuna.samplers.BruteForceSampler(seed=0))
    for _ in range(2):
        trial = study.ask()
        trial.suggest_categorical("a", ["x", "y"])
        with allow_stop(study):
            study.tell(trial, 0.0)
    assert is_stopped(study)
    from rag_opt.samplers.stock import BruteForce
    from rag_opt.storages.interruptions import interrupt_trial

    study = optuna.create_study(sampler=BruteForce(seed=0))
    for place in range(3):
        trial = study.ask()
        value = trial.suggest_categorical("a", ["x", "y"])
        if place == 0:
            first = value
            interrupt_trial(study, study.trials[0])
        else:
            assert not is_stopped(study)
            with allow_stop(study):
                study.tell(trial, 0.0)
    assert is_stopped(study)
    assert first in {trial.params["a"] for trial in study.trials[1:]}
    study = optuna.create_study(sampler=optuna.samplers.QMCSampler(seed=0))
    for _ in range(2):
        trial = study.ask()
        trial.suggest_float("a", 0, 1)
        study.tell(trial, 0.0)
    assert any(key.startswith("qmc:") for key in study._storage.get_study_system_attrs(study._study_id))


# ---- samplers from OptunaHub, from a local copy of a registry


def test_a_sampler_of_an_optunahub_package_needs_only_a_yaml_file(tmp_path: Path) -> None:
    pytest.importorskip("optunahub")
    package = tmp_path / "package" / "samplers" / "mine"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text(
        "import optuna\nclass Mine(optuna.samplers.RandomSampler):\n    pass\n", "utf-8"
    )
    node = {
        "_target_": "rag_opt.samplers.stock.from_hub",
        "package": "samplers/mine",
        "name": "Mine",
        "registry_root": str(tmp_path / "package"),
        "seed": 3,
    }
    with pytest.raises(ConfigError, match=r"add trusted_modules=\[optunahub\]"):
        build(node)
    sampler = build(node, ["optunahub"])
    assert type(sampler).__name__ == "Mine"
    study = optuna.create_study(sampler=sampler)
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=2)
    with pytest.raises(ConfigError, match="has no 'Other'"):
        build(node | {"name": "Other"}, ["optunahub"])
    with pytest.raises(ConfigError, match="can't be loaded"):
        build(node | {"package": "samplers/none"}, ["optunahub"])


def overrides_of(space: str, seed: int) -> list[list[str]]:
    """Random trials of a space, on top of what the space is made for."""
    base = [f"search_space={space}", *NEEDED.get(space, [])]
    found = build_search_space(compose_config(base), base)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    given = [format_overrides(found.suggest(study.ask())) for _ in range(6)]
    return [[*base, *each] for each in given]


@pytest.mark.parametrize("space", [each for each in of("search_space") if each != "none"])
def test_best_yaml_composes_to_the_configuration_of_any_trial(space: str, tmp_path: Path) -> None:
    """To the bit: every value of every stage and of what it is measured on, and the choices."""
    for number, overrides in enumerate(overrides_of(space, seed=7)[: None if LONG else 1]):
        folder = tmp_path / str(number)
        path = folder / experiments.PLACE
        path.parent.mkdir(parents=True)
        path.write_text(
            experiments.format_experiment(experiments.build_experiment(overrides), ["a study's best"]), "utf-8"
        )
        again = experiments.expand_best([f"best={folder}"])
        assert experiments._compose_plain(again) == experiments._compose_plain(overrides)
        assert repr(compose_trial(again).stages) == repr(compose_trial(overrides).stages)
        chosen = {
            group: choice for group, choice in compose.get_choices(overrides).items() if group in experiments.KEPT
        }
        assert chosen.items() <= compose.get_choices(again).items()


def test_a_best_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no .*best\.yaml; name the folder of a finished study"):
        experiments.expand_best([f"best={tmp_path}"])
    with pytest.raises(ConfigError, match="leave out"):
        experiments.expand_best([f"best={tmp_path}", "+experiment=squad"])


def test_a_best_is_found_before_that_of_another_folder_and_told_as_it_was_typed(tmp_path: Path) -> None:
    for name, choice in (("one", "dense"), ("other", "bm25")):
        path = tmp_path / name / experiments.PLACE
        path.parent.mkdir(parents=True)
        path.write_text(
            experiments.format_experiment(experiments.build_experiment([f"retriever={choice}"]), [name]), "utf-8"
        )
    other = f"hydra.searchpath=['file://{tmp_path}/other/conf']"
    again = experiments.expand_best([other, f"best={tmp_path}/one", "seed=3"])
    assert compose.get_choices(again)["retriever"] == "dense"
    assert experiments.collapse_best(again) == [f"best={tmp_path}/one", other, "seed=3"]
    assert experiments.collapse_best(["+experiment=squad", "seed=3"]) == ["+experiment=squad", "seed=3"]
