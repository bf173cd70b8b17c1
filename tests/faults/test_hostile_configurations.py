"""Configurations that would run code: each is refused, and nothing that they aim at has happened."""

from __future__ import annotations

import os
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from rag_opt.cli.study import run_study
from rag_opt.config.schema import compose_command_line
from rag_opt.config.trust import build
from rag_opt.errors import ConfigError, RagOptError
from tests.faults.conftest import Figure
from tests.integration.commands import finished

TARGETS = {
    # ---- elsewhere
    "joblib.load": "not below a trusted module",
    "builtins.open": "not below a trusted module",
    "builtins.eval": "not below a trusted module",
    "builtins.exec": "not below a trusted module",
    "builtins.__import__": "not below a trusted module",
    "os.system": "not below a trusted module",
    "posix.system": "not below a trusted module",
    "shutil.rmtree": "not below a trusted module",
    "subprocess.Popen": "not below a trusted module",
    "subprocess.run": "not below a trusted module",
    "urllib.request.urlopen": "not below a trusted module",
    "pip.main": "not below a trusted module",
    "pandas.eval": "not below a trusted module",
    "pandas.read_pickle": "not below a trusted module",
    "pickle.loads": "not below a trusted module",
    "torch.load": "not below a trusted module",
    "numpy.load": "not below a trusted module",
    "yaml.unsafe_load": "not below a trusted module",
    "importlib.import_module": "not below a trusted module",
    "runpy.run_path": "not below a trusted module",
    "code.InteractiveInterpreter": "not below a trusted module",
    "ctypes.CDLL": "not below a trusted module",
    "hydra.utils.call": "not below a trusted module",
    "hydra.utils.instantiate": "not below a trusted module",
    "functools.partial": "not below a trusted module",
    "functools.reduce": "not below a trusted module",
    "operator.attrgetter": "not below a trusted module",
    "operator.methodcaller": "not below a trusted module",
    "mlflow.pyfunc.load_model": "not below a trusted module",
    "chromadb.PersistentClient": "not below a trusted module",
    # ---- names that look like trusted ones
    "rag_opt_evil.Thing": "not below a trusted module",
    "\uff4fptuna.samplers.TPESampler": "not below a trusted module",
    "\u043eptuna.samplers.TPESampler": "not below a trusted module",
    "Optuna.samplers.TPESampler": "not below a trusted module",
    " optuna.samplers.TPESampler": "not below a trusted module",
    ".optuna.samplers.TPESampler": "not below a trusted module",
    "optuna": "_target_",
    "optuna.": "_target_",
    "optuna..samplers": "_target_",
    "optuna.samplers.\uff34PESampler": "does not exist",
    "optuna.samplers/../storages.RDBStorage": "_target_",
    "optuna\x00.samplers": "not below a trusted module",
    "": "not below a trusted module",
    # ---- what trusted modules have imported
    "optuna.storages._rdb.storage.os.system": "private",
    "optuna.logging.logging.os.system": "not below a trusted module",
    "optuna.storages.journal._file.os.remove": "private",
    "haystack.marshal.yaml.yaml.unsafe_load": "not below a trusted module",
    "haystack.utils.auth.os.system": "not below a trusted module",
    "rag_opt.cache.artifact_files.shutil.rmtree": "not below a trusted module",
    "rag_opt.config.compose.yaml.unsafe_load": "not below a trusted module",
    "rag_opt.config.trust.importlib.import_module": "not below a trusted module",
    "rag_opt.config.trust.partial": "not below a trusted module",
    # ---- dunders and methods
    "optuna.samplers.TPESampler.__init__.__globals__": "private",
    "optuna.samplers.TPESampler.__subclasses__": "private",
    "optuna.samplers.TPESampler.sample_relative": "function",
    "rag_opt.config.trust.build.__globals__.get": "private",
    "haystack.Pipeline.loads": "none of what a study is made of",
    "haystack.core.pipeline.Pipeline.from_dict": "none of what a study is made of",
    "haystack.utils.Secret.from_env_var": "function",
    # ---- functions of trusted modules
    "optuna.create_study": "none of what a study is made of",
    "optuna.delete_study": "none of what a study is made of",
    "haystack.utils.deserialize_callable": "function",
    "haystack.utils.request_with_retry": "function",
    "rag_opt.config.trust.build": "none of what a study is made of",
    "rag_opt.cache.artifact_files.remove": "none of what a study is made of",
    "rag_opt.cache.eviction.evict_artifacts": "none of what a study is made of",
    "rag_opt.components.embedders.embedding_cache.embed_texts": "function",
    # ---- classes of trusted modules that open, fetch, read, run
    "optuna.storages.RDBStorage": "none of what a study is made of",
    "optuna.storages.JournalStorage": "none of what a study is made of",
    "optuna.storages.journal.JournalFileBackend": "none of what a study is made of",
    "optuna.artifacts.FileSystemArtifactStore": "none of what a study is made of",
    "optuna.artifacts.Boto3ArtifactStore": "none of what a study is made of",
    "rag_opt.samplers.stock.from_hub": "add trusted_modules=\\[optunahub\\]",
    "haystack.Pipeline": "none of what a study is made of",
    "haystack.SuperComponent": "none of what a study is made of",
    "haystack.tools.Tool": "none of what a study is made of",
    "haystack.tools.PipelineTool": "none of what a study is made of",
    "haystack.components.agents.Agent": "none of what a study is made of",
    "haystack.components.fetchers.LinkContentFetcher": "none of what a study is made of",
    "haystack.components.converters.OutputAdapter": "none of what a study is made of",
    "haystack.components.converters.TextFileToDocument": "none of what a study is made of",
    "haystack.components.routers.ConditionalRouter": "none of what a study is made of",
    "haystack.components.writers.DocumentWriter": "none of what a study is made of",
    "rag_opt.cache.store.Store": "none of what a study is made of",
    "rag_opt.llm.replies.Replies": "none of what a study is made of",
    "rag_opt.cache.leases.Lease": "none of what a study is made of",
}


@pytest.mark.parametrize("target", TARGETS, ids=ascii)
def test_a_hostile_target_is_refused(target: str, tmp_path) -> None:
    kept, made = canaries(tmp_path)
    harm = {"path": str(kept), "url": f"sqlite:///{made}", "root": str(made), "file_path": str(made)}
    for node in (
        {"_target_": target, **harm},
        {"_target_": target, "_partial_": True},
        {"_target_": target, "_args_": [f"touch {made}"]},
        {"_target_": "optuna.samplers.RandomSampler", "seed": {"_target_": target}},
        {"_target_": "optuna.samplers.RandomSampler", "_args_": [[{"_target_": target}]]},
        {"_target_": "optuna.samplers.RandomSampler", "_recursive_": False, "seed": [{"a": {"_target_": target}}]},
    ):
        with pytest.raises(
            ConfigError,
            match=f"{TARGETS[target]}|^_args_ of" if "_args_" in node or "seed" in node else TARGETS[target],
        ) as caught:
            build(node)
        assert "\n" not in str(caught.value)
    assert kept.is_file()
    assert not made.exists()


@pytest.mark.parametrize(
    "target",
    [
        "optuna.samplers.TPESampler",
        "optuna.samplers.nsgaii.UniformCrossover",
        "optuna.pruners.PatientPruner",
        "rag_opt.study.racing.Race",
        "rag_opt.components.embedders.hashing.Hashing",
        "haystack.components.evaluators.AnswerExactMatchEvaluator",
        "haystack.components.rankers.LostInTheMiddleRanker",
        "haystack.document_stores.in_memory.InMemoryDocumentStore",
    ],
)
def test_what_a_study_is_made_of_is_built(target: str) -> None:
    given = {"wrapped_pruner": {"_target_": "optuna.pruners.NopPruner"}, "patience": 1} if "Patient" in target else {}
    given |= {"dimensions": 8} if "Hashing" in target else {}
    assert type(build({"_target_": target, **given})).__name__ == target.rpartition(".")[2]


def test_code_beside_a_model_is_never_run() -> None:
    node = {"_target_": "rag_opt.components.embedders.hashing.Hashing", "dimensions": 8}
    for hidden in (
        {"trust_remote_code": True},
        {"model_kwargs": {"trust_remote_code": "yes"}},
        {"a": [{"trust_remote_code": 1}]},
    ):
        with pytest.raises(ConfigError, match="trust_remote_code=.*runs code that comes with a model"):
            build({**node, **hidden})


def test_unnamed_arguments_can_not_hide_what_they_are() -> None:
    with pytest.raises(ConfigError, match="_args_ of optuna.samplers.TPESampler: name each parameter"):
        build({"_target_": "optuna.samplers.TPESampler", "_args_": [3]})


# ---- where a configuration may come from


def canaries(folder: Path) -> tuple[Path, Path]:
    """A file that must stay, and the name of one that must not come to be."""
    kept = folder / "kept"
    kept.write_text("alive", "utf-8")
    return kept, folder / "made"


Words = Callable[[str], list[str]]
"""The words of a configuration that would run this shell command."""


def sampler(command: str) -> str:
    return f"{{_target_: os.system, command: '{command}'}}"


BY_WORD: dict[str, Words] = {
    "a sampler": lambda do: ["sampler._target_=os.system", f"+sampler.command='{do}'"],
    "a sampler's part": lambda do: [f"sampler.seed={sampler(do)}"],
    "a sampler in the place of its group": lambda do: ["~sampler", f"+sampler={sampler(do)}"],
    "a list of a sampler": lambda do: [f"+sampler.extra=[1,[{sampler(do)}]]"],
    "unnamed arguments of a sampler": lambda do: [f"+sampler._args_=[{sampler(do)}]"],
    "a partial sampler": lambda do: ["sampler._target_=os.system", "+sampler._partial_=true"],
    "a pruner": lambda do: ["pruner._target_=os.system", f"+pruner.command='{do}'"],
    "an encoder": lambda do: ["embedder.encoder._target_=os.system", f"+embedder.encoder.command='{do}'"],
    "a component": lambda do: [f"+retriever.components.evil={sampler(do)}"],
    "a component's class": lambda do: ["retriever.components.fusion._target_=os.system"],
    "an index": lambda do: ["index.components.vector_indexer._target_=os.system"],
    "a chat": lambda do: ["generator=openai", "llm.key=null", "llm.chat._target_=subprocess.Popen"],
    "a judge": lambda do: ["objective=judged", "generator=openai", f"judge.chat={sampler(do)}"],
    "a dataset": lambda do: ["dataset._target_=os.system", f"+dataset.command='{do}'"],
    "a dataset's reader that is none": lambda do: ["dataset._target_=rag_opt.datasets.files.resolve_path"],
    "a metric's function": lambda do: ["+objective.own={x: {function: os.system}}"],
    "a metric's trusted function": lambda do: ["+objective.own={x: {function: rag_opt.cache.artifact_files.remove}}"],
    "a metric's evaluator": lambda do: [f"+objective.own={{x: {{evaluator: {sampler(do)}}}}}"],
    "a metric's scorer": lambda do: [f"+objective.own={{x: {{scorer: {sampler(do)}}}}}"],
    "an interpolated name": lambda do: ["question=os.system", "sampler._target_='${question}'"],
    "an interpolated part of a name": lambda do: ["question=system", "sampler._target_='os.${question}'"],
    "a name from the environment": lambda do: ["sampler._target_='${oc.env:HOSTILE}'"],
    "an interpolated sampler": lambda do: [f"question={sampler(do)}", "+sampler.seeds='${question}'"],
    "a resolver that makes a mapping": lambda do: ["+sampler.x='${oc.create:{_target_:os.system}}'"],
    "a resolver that reads text": lambda do: ["+sampler.x='${oc.decode:\"{_target_: os.system}\"}'"],
    "a resolver that is not there": lambda do: ["+sampler.x='${eval:1+1}'"],
    "a callback": lambda do: [f"+hydra.callbacks.evil={sampler(do)}"],
    "a callback through Hydra's own imports": lambda do: [
        f"+hydra.callbacks.evil={{_target_: hydra._internal.utils.os.system, command: '{do}'}}"
    ],
    "a callback through our own imports": lambda do: [
        f"+hydra.callbacks.evil={{_target_: rag_opt.cache.artifact_files.os.system, command: '{do}'}}"
    ],
    "a callback that calls": lambda do: ["+hydra.callbacks.evil={_target_: hydra.utils.call}"],
    "a callback inside a callback": lambda do: [
        f"+hydra.callbacks.evil={{_target_: rag_opt.cli.multirun.CompareStudies, x: {sampler(do)}}}"
    ],
    "an interpolated callback": lambda do: [f"question={sampler(do)}", "+hydra.callbacks.evil='${question}'"],
    "a callback by an interpolated name": lambda do: [
        "question=os.system",
        f"+hydra.callbacks.evil={{_target_: '${{question}}', command: '{do}'}}",
    ],
    "a launcher": lambda do: ["hydra.launcher._target_=os.system"],
    "a launcher through Hydra's own imports": lambda do: ["hydra.launcher._target_=hydra._internal.utils.os.system"],
    "a sweeper": lambda do: ["hydra.sweeper._target_=subprocess.Popen"],
    "a module as a search path": lambda do: ["hydra.searchpath=[pkg://antigravity]"],
    "a handler of a log": lambda do: ["+hydra.job_logging.handlers={x: {class: os.system}}"],
    "a formatter of Hydra's log": lambda do: ["+hydra.hydra_logging.formatters={x: {class: os.system}}"],
    "a study within a study": lambda do: ["sampler._target_=rag_opt.cli.study.run_study"],
    "a Haystack pipeline": lambda do: [
        f"+retriever.components.evil={{_target_: haystack.Pipeline, metadata: {sampler(do)}}}"
    ],
    "a template that runs as code": lambda do: [
        "+retriever.components.evil={_target_: haystack.components.routers.ConditionalRouter, routes: [], unsafe: true}"
    ],
    "a database as a sampler": lambda do: [
        "sampler._target_=optuna.storages.RDBStorage",
        "+sampler.url=sqlite:///made",
    ],
    "a sampler that unpickles": lambda do: ["sampler=random", "sampler._target_=optuna.samplers.CmaEsSampler"],
}


REASONS = re.compile(
    r"is not below a trusted module|is none of what a study is made of|is no class of|is a function|it lets templates run code|^trusted_modules="
    r"|add trusted_modules|could not determine a constructor|^hydra\.(searchpath|job_logging|hydra_logging):"
    r"|^storage\.url=.*text is expected|Unsupported interpolation type eval|^In 'query/mine': ConfigKeyError"
    r"|CMA-ES keeps its state in the study's database as a pickle"
)
"""What a refusal says; another message would mean that the attack was mistaken for a slip of the pen."""


def refused(animals: list[str], folder: Path, words: list[str]) -> str:
    """Why these words are refused: on the command line's way, or by the study itself; neither canary is touched."""
    kept, made = canaries(folder)
    given = [*animals, "retriever=hybrid", f"studies_dir={folder / 'studies'}", *words]
    with pytest.raises(RagOptError) as caught:
        (compose_command_line(given), run_study(given))
    assert kept.read_text("utf-8") == "alive"
    assert not made.exists()
    assert not (folder / "studies").exists()
    assert REASONS.search(str(caught.value)), caught.value
    return str(caught.value)


def harm(folder: Path) -> str:
    return f"touch {folder / 'made'}"


@pytest.mark.parametrize("case", BY_WORD, ids=str)
def test_a_hostile_command_line_is_refused(animals, tmp_path, monkeypatch, case: str) -> None:
    monkeypatch.setenv("HOSTILE", "os.system")
    monkeypatch.chdir(tmp_path)
    message = refused(animals, tmp_path, BY_WORD[case](harm(tmp_path)))
    assert "Traceback" not in message


BY_FILE = {
    "sampler": "_target_: os.system\ncommand: {do}\n",
    "pruner": "_target_: optuna.pruners.PatientPruner\nwrapped_pruner: {{_target_: os.system, command: {do}}}\n",
    "dataset": "_target_: subprocess.Popen\nargs: {do}\nshell: true\ntest_share: 0.3\nsplit_seed: 0\n",
    "embedder": "encoder: {{_target_: os.system, command: {do}}}\ncomponents:\n  query_embedder: "
    '{{_target_: rag_opt.components.embedders.embed.QueryEmbedder, encoder: "${{embedder.encoder}}"}}\n',
    "reranker": "keep: 3\ncomponents:\n  mine: {{_target_: os.system, command: {do}}}\n",
    "generator": "components:\n  mine: {{_target_: builtins.eval, _args_: [{do}]}}\n",
    "objective": "metrics: [x]\ndirections: null\nreport: []\nconstraints: []\nown: {{x: {{function: os.system}}}}\n",
    "search_space": "retriever.components.fusion._target_: choice(rag_opt.components.retrievers.fusion.Fusion, os.system)\n",
    "storage": "url: {{_target_: os.system, command: {do}}}\n",
    "tracking": "!!python/object/apply:os.system [{do}]\n",
    "splitter": "components: !!python/object/new:os.system [{do}]\n",
    "experiment": "# @package _global_\ntrusted_modules: [os]\nsampler: {{_target_: os.system, command: {do}}}\n",
    "index": "# @package _global_\nhydra: {{callbacks: {{evil: {{_target_: hydra.utils.os.system, command: {do}}}}}}}\n",
    "context": "# @package _global_\nhydra:\n  job_logging:\n    root: {{handlers: [x]}}\n"
    "    handlers: {{x: {{(): os.system, command: {do}}}}}\n",
    "query": "# @package _global_\nhydra: {{launcher: {{_target_: hydra._internal.utils.os.system, command: {do}}}}}\n",
}


@pytest.mark.parametrize("group", BY_FILE)
def test_a_hostile_file_in_a_folder_of_ones_own_is_refused(animals, tmp_path, group: str) -> None:
    file = tmp_path / "conf" / group / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text(BY_FILE[group].format(do=harm(tmp_path)), "utf-8")
    added = "+" if group == "experiment" else ""
    kept = [word for word in animals if word.partition("=")[0].partition(".")[0] != group]
    if group == "dataset":
        # What is refused here is the class; the files of the animals are not its own.
        kept = [word for word in animals if not word.startswith("dataset")]
    refused(kept, tmp_path, [f"hydra.searchpath=[file://{tmp_path}/conf]", f"{added}{group}=mine"])


def test_trust_is_said_on_the_command_line_alone(animals, tmp_path) -> None:
    file = tmp_path / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    file.write_text("# @package _global_\ntrusted_modules: [os]\n", "utf-8")
    words = [f"hydra.searchpath=[file://{tmp_path}/conf]", "+experiment=mine"]
    message = refused(animals, tmp_path, words)
    assert message.startswith("trusted_modules=['os'] is set by a configuration file")


# ---- in processes of their own: what was not imported


def evil_module(folder: Path) -> None:
    (folder / "evil.py").write_text(
        f"open({str(folder / 'made')!r}, 'w').close()\nclass Thing:\n    pass\ndef thing(*a, **k):\n    pass\n", "utf-8"
    )


@pytest.mark.parametrize(
    "words",
    [
        ["sampler._target_=evil.Thing"],
        ["+hydra.callbacks.evil={_target_: evil.Thing}"],
        ["hydra.searchpath=[pkg://evil]"],
        ["-m", "seed=0,1", "hydra.launcher._target_=evil.Thing"],
    ],
    ids=str,
)
def test_a_module_beside_the_study_is_not_imported(animals, tmp_path, words: list[str]) -> None:
    evil_module(tmp_path)
    found = finished(tmp_path, *animals, *words, store=tmp_path / "store")
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr
    assert not (tmp_path / "made").exists()


class Exploit:
    """What a pickle may hold."""

    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (self.command,)


@pytest.mark.parametrize("option", ["--config-path", "--config-name", "--experimental-rerun"])
def test_an_option_that_leaves_the_checked_configuration_is_refused(tmp_path, option: str) -> None:
    (tmp_path / "config.yaml").write_text(
        f"hydra: {{callbacks: {{evil: {{_target_: os.system, command: '{harm(tmp_path)}'}}}}}}\n", "utf-8"
    )
    (tmp_path / "evil.pickle").write_bytes(pickle.dumps(Exploit(harm(tmp_path))))
    value = {"--config-path": str(tmp_path), "--config-name": "evil"}.get(option, str(tmp_path / "evil.pickle"))
    found = finished(tmp_path, option, value, store=tmp_path / "store")
    assert found.returncode == 2, found.stderr
    assert f"\nerror: {option}=" in found.stderr
    assert not (tmp_path / "made").exists()


def test_a_refused_target_is_not_even_imported() -> None:
    program = (
        "import sys\nfrom rag_opt.config.trust import build\nfrom rag_opt.errors import ConfigError\n"
        "for name in ('antigravity', 'turtledemo.clock', 'xmlrpc.client', 'pip', 'joblib'):\n"
        "    before = set(sys.modules)\n"
        "    try:\n        build({'_target_': 'optuna.samplers.RandomSampler', 'seed': {'_target_': name + '.x'}})\n"
        "    except ConfigError:\n        pass\n    else:\n        sys.exit('built')\n"
        "    assert set(sys.modules) == before, set(sys.modules) - before\n"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert found.returncode == 0, found.stderr


def test_there_are_enough_hostile_configurations(figure: Figure) -> None:
    count = len(TARGETS) + len(BY_WORD) + len(BY_FILE)
    assert count >= 30
    figure("code from configuration", f"{count} hostile targets, command lines and files: refused, no side effect")
