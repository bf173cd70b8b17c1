"""The Hydra edge: fast composition equals Hydra's, mistakes get one line, only trusted classes are built."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf, base

from rag_opt.config import compose as config
from rag_opt.config import schema, trust
from rag_opt.config.settings import parse_settings
from rag_opt.config.trial import compute_fingerprint
from rag_opt.errors import ConfigError, get_first_line


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["retriever=bm25", "retriever.k1=2.5", "retriever.top_k=3"],
        ["+experiment=msmarco", "retriever=hybrid", "retriever.fusion=rrf", "seed=3"],
        ["objective.metrics=[R@5, F1]", "splitter=recursive", "splitter.chunk_size=30"],
        ["embedder=static", "embedder.encoder.dimensions=64"],
        ["seeds=[]", "store.path=elsewhere"],
    ],
)
def test_a_composition_equals_hydras(overrides: list[str]) -> None:
    with initialize_config_dir(str(config.FOLDER), version_base=None):
        expected = compose("config", overrides=overrides)
    assert trust.to_plain(config.compose_config(overrides)) == trust.to_plain(expected)


AS_IT_COMES = """
import json, sys
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

with initialize_config_dir(sys.argv[1], version_base=None):
    found = [compose("config", overrides=words) for words in json.loads(sys.argv[2])]
print(json.dumps([OmegaConf.to_container(each, resolve=False) for each in found]))
"""


def test_hydra_composes_the_same_without_what_was_made_faster() -> None:
    words = [[], ["retriever=hybrid", "embedder.encoder=${embedder.encoder}"], ["+experiment=msmarco_rag", "seed=3"]]
    known = [sys.executable, "-c", AS_IT_COMES, str(config.FOLDER), json.dumps(words)]
    expected = json.loads(subprocess.run(known, capture_output=True, text=True, check=True).stdout)
    assert "rag_opt.config.hydra_patches" in sys.modules
    with initialize_config_dir(str(config.FOLDER), version_base=None):
        found = [compose("config", overrides=each) for each in words]
    assert [OmegaConf.to_container(each, resolve=False) for each in found] == expected


def test_a_parsed_interpolation_says_the_same_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["+experiment=msmarco_rag", "retriever=hybrid", "retriever.top_k=7"]
    found = [trust.to_plain(config.compose_config([*words, f"seed={seed}"])) for seed in (1, 2)]
    monkeypatch.setattr(base, "parse", vars(base)["parse"].__wrapped__)
    config.forget_files()
    assert found == [trust.to_plain(config.compose_config([*words, f"seed={seed}"])) for seed in (1, 2)]


def test_a_copy_of_a_configuration_shares_nothing_that_can_be_changed() -> None:
    OmegaConf.register_new_resolver("counted", lambda: next(numbers), use_cache=True, replace=True)
    numbers = iter(range(9))
    first = OmegaConf.create({"a": {"b": [1, {"c": "${x}"}], "d": None}, "x": 5, "once": "${counted:}"})
    assert first.once == 0
    OmegaConf.set_readonly(first.a, True)
    second = copy.deepcopy(first)
    assert second == first
    assert second.once == 0
    assert OmegaConf.is_readonly(second.a)
    OmegaConf.set_readonly(second.a, False)
    assert OmegaConf.is_readonly(first.a)
    assert second._metadata.resolver_cache is not first._metadata.resolver_cache
    second.x, second.a.d = 6, [7]
    OmegaConf.clear_cache(second)
    assert (first.a.b[1].c, second.a.b[1].c) == (5, 6)
    assert (first.a.d, first.once, second.once) == (None, 0, 1)
    assert second.a.b[1]._get_full_key("c") == "a.b[1].c"


def test_of_two_words_for_one_key_the_later_counts() -> None:
    found = config.compose_config(["retriever=bm25", "retriever.k1=2", "retriever=hybrid", "retriever.k1=1.5"])
    assert found.retriever.k1 == 1.5
    assert "hybrid_weight" in found.retriever


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("smpler=tpe", "'smpler' is not a key.*did you mean 'sampler'"),
        ("sampler=tpee", "sampler=tpee: there is no such choice.*did you mean 'tpe'"),
        ("retriever.topk=3", "'retriever.topk' is not a key in 'retriever'.*did you mean 'top_k'"),
        ("n_trial=3", "'n_trial' is not a key.*did you mean 'n_trials'"),
        ("+experiment=msmarko", "experiment=msmarko: there is no such choice.*did you mean 'msmarco'"),
        ("experiment=msmarco", r"write \+experiment="),
        ("+experimet=msmarco", "'experimet' is not a key.*did you mean 'experiment'"),
        ("dataset.pth=x", "'dataset.pth' is not a key in 'dataset'"),
        ("n_trials=[1,", "not key=value"),
        ("justaword", "not key=value"),
        ("sampler=tpe,gpp", "sampler=gpp: there is no such choice"),
        ("seed=interval(0,1)", "an interval is for the search space"),
    ],
)
def test_a_mistake_gets_one_line(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        schema.compose_command_line([override])
    assert "\n" not in str(caught.value)


def test_a_key_that_another_choice_has_is_not_proposed() -> None:
    with pytest.raises(ConfigError) as caught:
        config.compose_config(["retriever=bm25", "retriever.hybrid_weight=0.2"])
    assert "did you mean 'hybrid_weight'" not in str(caught.value)


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "builtins.open",
        "builtins.eval",
        "joblib.load",
        "pandas.eval",
        "urllib.request.urlopen",
        "subprocess.run",
        "rag_opt_evil.Thing",
        "rag_optional.thing",
        "",
    ],
)
def test_an_untrusted_target_is_refused_before_it_is_imported(target: str) -> None:
    for node in ({"_target_": target}, {"_target_": "rag_opt.cache.store.Store", "root": [{"_target_": target}]}):
        with pytest.raises(ConfigError, match="_target_.*not below a trusted module"):
            trust.build(node)


@pytest.mark.parametrize(
    "target",
    [
        "rag_opt.config.trust.importlib.import_module",
        "rag_opt.cache.artifact_files.shutil.rmtree",
        "optuna.storages.os.system",
    ],
)
def test_a_target_that_a_trusted_module_only_imported_is_refused(target: str) -> None:
    with pytest.raises(ConfigError, match="_target_"):
        trust.build({"_target_": target, "path": "/nowhere"})


@pytest.mark.parametrize(
    "target",
    [
        "rag_opt.config.trust._import_module",
        "rag_opt.text.tokenization.split_words",
        "rag_opt.cache.artifact_files.read_table",
        "optuna.create_study",
    ],
)
def test_a_function_is_no_target(target: str) -> None:
    with pytest.raises(ConfigError, match="_target_"):
        trust.build({"_target_": target, "text": "x"})


def test_a_callback_of_hydras_must_be_trusted_too() -> None:
    with pytest.raises(ConfigError, match="_target_: evil.Callback is not below a trusted module"):
        schema.compose_command_line(["+hydra.callbacks.evil={_target_: evil.Callback}"])


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("optuna.samplers.NoSampler", "does not exist"),
        ("optuna.nosuchmodule.Thing", "does not exist"),
        ("rag_opt", "does not exist|no module"),
    ],
)
def test_a_missing_target_is_said(target: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        trust.build({"_target_": target})


def test_a_refused_parameter_names_the_class() -> None:
    with pytest.raises(ConfigError, match="BM25Retriever: depth must be a whole number of at least 1"):
        trust.build({"_target_": "rag_opt.components.retrievers.bm25.BM25Retriever", "depth": 0})
    with pytest.raises(ConfigError, match="TPESampler: .*nonsense"):
        trust.build({"_target_": "optuna.samplers.TPESampler", "nonsense": 0})


def test_modules_of_ones_own_can_be_trusted() -> None:
    assert trust.build({"_target_": "fractions.Fraction", "numerator": 1}, ["fractions"]).numerator == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("n_trials=0", "n_trials=0"),
        ("n_trials=abc", "n_trials=abc"),
        ("n_trials=1.5", "n_trials=1.5"),
        ("n_trials=true", "n_trials=True"),
        ("seed=-1", "seed=-1"),
        ("timeout=0", "timeout=0"),
        ("timeout=soon", "timeout=soon"),
        ("evaluation.batches=0", "evaluation.batches=0"),
        ("dataset.test_share=0", "dataset.test_share=0"),
        ("dataset.test_share=1", "dataset.test_share=1"),
        ("dataset.split_seed=x", "dataset.split_seed=x"),
        ("name=''", "name=''"),
    ],
)
def test_a_wrong_value_names_its_key(override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_settings(config.compose_config([override]))


BAD_NAMES = [
    "..",
    "../x",
    "a/../b",
    "a/b/c",
    "a/",
    "/a",
    "/etc",
    "a\\b",
    ".hidden",
    "con",
    "NUL.txt",
    "a" * 201,
    "a\0b",
    "a b",
    "a\nb",
    "~",
    "x.",
    "é",
    "a..b",
    "-x",
    "$HOME",
    "a:b",
    "*",
]


@pytest.mark.parametrize("name", BAD_NAMES)
def test_a_name_that_leaves_the_folder_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="name="):
        parse_settings(OmegaConf.merge(OmegaConf.to_container(config.compose_config([])), {"name": name}))


def test_a_multiruns_study_is_known_by_its_whole_name(tmp_path: Path) -> None:
    found = parse_settings(config.compose_config([f"studies_dir={tmp_path}", "name='a/sampler=tpe,seed=0'"]))
    assert found.folder == tmp_path / "a" / "sampler=tpe,seed=0"


def test_a_variants_odd_characters_stay_out_of_the_folder(tmp_path: Path) -> None:
    found = parse_settings(config.compose_config([f"studies_dir={tmp_path}"]), "+experiment=a,dataset.path=../x/y")
    assert found.folder.parent == tmp_path / "quickstart"
    assert found.name == "quickstart/experiment=a,dataset.path=-.-x-y-d7e15423"


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("dataset.path=x/y", "dataset.path=x-y"),
        ("dataset.path=x/y", "dataset.path=x y"),
        (f"dataset.path={'long' * 60},sampler=tpe", f"dataset.path={'long' * 60},sampler=gp"),
        ("dataset.path=Jürgen", "dataset.path=J-rgen"),
    ],
)
def test_no_two_variants_share_a_name(tmp_path: Path, one: str, other: str) -> None:
    names = {
        parse_settings(config.compose_config([f"studies_dir={tmp_path}"]), variant).name for variant in (one, other)
    }
    assert len(names) == 2
    assert all(len(name.partition("/")[2]) <= 200 for name in names)


@pytest.mark.parametrize("given", [20241126, 3.1, None, True])
def test_a_name_that_a_file_made_a_number_is_refused(given: object) -> None:
    whole = OmegaConf.merge(OmegaConf.to_container(config.compose_config([])), {"name": given})
    with pytest.raises(ConfigError, match="name=.*not as text; in a file quote it"):
        parse_settings(whole)


def test_the_variant_of_a_multirun_is_a_folder_below(tmp_path: Path) -> None:
    found = parse_settings(config.compose_config([f"studies_dir={tmp_path}"]), "sampler=tpe,seed=0")
    assert found.folder == tmp_path / "quickstart" / "sampler=tpe,seed=0"
    assert found.name == "quickstart/sampler=tpe,seed=0"


def test_how_a_model_is_asked_is_part_of_a_pipeline_only_where_it_changes_what_is_said() -> None:
    asked = ["generator=openai", "llm.key=null"]
    same = ["llm.window=8000", "llm.parameters.seed=null", "llm.thinking=0", "llm.tries=2", "llm.timeout=5"]
    of = lambda *words: compute_fingerprint(config.compose_config([*asked, *words]))  # noqa: E731
    assert {of(word) for word in same} == {of()}
    assert len({of(), of("llm.thinking=100"), of("llm.base_url=http://localhost/v1"), of("llm.model=m")}) == 4


def test_a_file_may_be_chosen_by_what_another_group_is(tmp_path: Path) -> None:
    """Hydra's map of choices is left out where no file asks for it; one that does gets it."""
    texts = {
        "main.yaml": "defaults:\n- kind: small\n- size: ${kind}\n- _self_\n",
        "kind/small.yaml": "name: small\n",
        "kind/large.yaml": "name: large\n",
        "size/small.yaml": "value: 1\n",
        "size/large.yaml": "value: 9\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, "utf-8")
    with initialize_config_dir(str(tmp_path), version_base=None):
        assert compose("main").size.value == 1
        assert compose("main", overrides=["kind=large"]).size.value == 9


@pytest.mark.parametrize(
    ("error", "line"),
    [(ValueError("one\ntwo"), "one"), (ValueError(""), "ValueError"), (OSError("x" * 300), "x" * 200)],
)
def test_an_error_is_told_in_a_line_though_it_says_nothing(error: Exception, line: str) -> None:
    assert get_first_line(error) == line
