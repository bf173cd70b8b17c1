"""No data runs as code: nothing in the package could do it, and poisoned databases, stores and files are refused."""

from __future__ import annotations

import ast
import hashlib
import io
import json
import pickle
import shutil
import sqlite3
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import optuna
import pyarrow as pa
import pytest
import yaml

from rag_opt.cli.study import run_study
from rag_opt.errors import ConfigError, RagOptError, StorageError, StudyError
from rag_opt.llm.replies import Replies
from rag_opt.reporting.report import rewrite_report
from tests.conftest import ROOT, own_space

EVIL = '<script>alert("canary")</script><img src=x onerror=alert(1)>"\'</title>'

# ---- nothing in the package could

PICKLES = {"pickle", "cPickle", "_pickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
BUILTINS = {"eval", "exec", "compile", "__import__"}
SAFE_LOADERS = {"SafeLoader", "CSafeLoader", "TupleSafeLoader"}
SHELLS = {("os", "system"), ("os", "popen"), ("torch", "load"), ("pd", "read_pickle"), ("pandas", "read_pickle")}
MUST_BE = {"shell": False, "trust_remote_code": False, "weights_only": True, "allow_pickle": False}
"""Arguments of any call that may have one constant value only."""


def name_of(node: ast.AST) -> str:
    return node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""


def owner_of(node: ast.AST) -> str:
    return name_of(node.value) if isinstance(node, ast.Attribute) else ""


def ways_to_run_data(source: str) -> Iterator[str]:
    """What in a module's source could run data as code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [each.name for each in node.names]
            yield from (f"imports {name}" for name in names if name.partition(".")[0] in PICKLES)
        elif isinstance(node, ast.Name) and node.id in BUILTINS:
            yield node.id
        elif isinstance(node, ast.Call):
            yield from wrong_calls(node)


def wrong_calls(node: ast.Call) -> Iterator[str]:
    called, owner = name_of(node.func), owner_of(node.func)
    given = {each.arg: each.value for each in node.keywords}
    for argument, only in MUST_BE.items():
        if argument in given and getattr(given[argument], "value", None) is not only:
            yield f"{called}({argument}=…)"
    if (owner, called) in SHELLS or (called == "eval" and node.args):
        yield f"{owner}.{called}"
    if owner in ("np", "numpy") and called == "load" and "allow_pickle" not in given:
        yield "np.load without allow_pickle=False"
    if owner == "yaml" and called in ("load", "load_all"):
        loader = given.get("Loader", node.args[1] if len(node.args) > 1 else node)
        if name_of(loader) not in SAFE_LOADERS:
            yield "yaml.load without a safe loader"
    if owner == "yaml" and called.startswith(("unsafe_", "full_")):
        yield f"yaml.{called}"


@pytest.mark.parametrize("path", sorted((ROOT / "rag_opt").rglob("*.py")), ids=lambda path: path.stem)
def test_no_module_can_run_data(path: Path) -> None:
    assert list(ways_to_run_data(path.read_text("utf-8"))) == []


@pytest.mark.parametrize(
    "planted",
    [
        *(f"import {name}" for name in sorted(PICKLES)),
        "from pickle import loads",
        "def f(x):\n    import joblib.numpy_pickle",
        "eval('1')",
        "list(map(eval, texts))",
        "exec(text)",
        "code = compile(text, '', 'exec')",
        "__import__(name)",
        "frame.eval(text)",
        "yaml.load(text)",
        "yaml.load(text, yaml.Loader)",
        "yaml.load(text, Loader=yaml.FullLoader)",
        "yaml.unsafe_load(text)",
        "torch.load(path)",
        "np.load(path)",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "subprocess.run(words, shell=True)",
        "os.system(text)",
        "AutoModel.from_pretrained(name, trust_remote_code=True)",
        "load(path, weights_only=False)",
        "pd.read_pickle(path)",
    ],
)
def test_a_planted_way_is_seen(planted: str) -> None:
    assert list(ways_to_run_data(planted))


@pytest.mark.parametrize(
    "harmless", ["re.compile('a')", "model.eval()", "yaml.load(t, CSafeLoader)", "np.load(p, allow_pickle=False)"]
)
def test_a_harmless_one_is_not(harmless: str) -> None:
    assert list(ways_to_run_data(harmless)) == []


# ---- poisoned data


class Touching:
    """What leaves a file behind when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.fixture
def canary(tmp_path: Path) -> Iterator[Path]:
    """The file that is there once poisoned data has run; no test leaves it."""
    path = tmp_path / "canary"
    yield path
    assert not path.exists(), "data was executed"


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, animals: list[str]) -> Path:
    """A folder with a finished study and its store, to be copied before it is spoilt."""
    folder = tmp_path_factory.mktemp("finished")
    assert not run_study(words(animals, folder)).error
    return folder


def words(animals: list[str], folder: Path, *more: str) -> list[str]:
    given = [
        *animals,
        "tracking=none",
        "sampler=random",
        "n_trials=3",
        "objective.report=[]",
        f"studies_dir={folder}/studies",
    ]
    return [*given, f"store.path={folder}/store", *more]


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def study(copy: Path) -> Path:
    return copy / "studies" / "animals"


def spoilt(study: Path, *statements: tuple) -> None:
    """Write into a study's database as somebody else could."""
    base = sqlite3.connect(study / "study.db")
    for statement, *values in statements:
        base.execute(statement, values)
    base.commit()
    base.close()


def attribute(key: str, value: str) -> list[tuple]:
    """The statements that give every trial this attribute, as JSON or what is none."""
    new = "insert into trial_user_attributes(trial_id, key, value_json) select trial_id, ?, ? from trials"
    return [("delete from trial_user_attributes where key = ?", key), (new, key, value)]


def poison(study: Path, canary: Path) -> None:
    """A pickle where CMA-ES keeps its state."""
    new = "insert into trial_system_attributes(trial_id, key, value_json) select trial_id, ?, ? from trials"
    for name in ("cma", "sepcma", "cmawm"):
        spoilt(study, (new, f"{name}:optimizer:0", json.dumps(pickle.dumps(Touching(canary)).hex())))


def own_sampler(folder: Path, node: dict, name: str = "own") -> str:
    place = folder / "conf" / "sampler"
    place.mkdir(parents=True, exist_ok=True)
    (place / f"{name}.yaml").write_text(yaml.safe_dump(node), "utf-8")
    return f"sampler={name}"


CMA = {"_target_": "optuna.samplers.CmaEsSampler", "n_startup_trials": 1}
INSIDE = {"_target_": "optuna.samplers.PartialFixedSampler", "fixed_params": {}, "base_sampler": CMA}


@pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning")
def test_a_pickle_in_a_database_is_not_read_by_cma_es(animals, tmp_path: Path, canary: Path) -> None:
    space = {"retriever.k1": "interval(0.4, 3)", "retriever.b": "interval(0, 1)"}
    given = words(animals, tmp_path, *own_space(tmp_path, space), "retriever=bm25", "seeds=[]")
    assert not run_study(given).error
    study = tmp_path / "studies" / "animals"
    poison(study, canary)
    with pytest.raises(ConfigError, match="CMA-ES keeps its state .* as a pickle.* choose another one"):
        run_study([*given, "n_trials=5", own_sampler(tmp_path, CMA)])
    # Inside another sampler it is found out only when it would read.
    run_study([*given, "n_trials=5", own_sampler(tmp_path, INSIDE, "inside")])
    trials = optuna.load_study(study_name="animals", storage=f"sqlite:///{study}/study.db").trials
    assert [trial.state.name for trial in trials] == ["COMPLETE"] * 3 + ["FAIL"] * 2
    assert all("CMA-ES keeps its state" in trial.user_attrs["reason"] for trial in trials[3:])


RAW = """
import optuna, pickle, sys
from pathlib import Path
from optuna.distributions import FloatDistribution
from tests.faults.test_code_from_data import Touching
space = {name: FloatDistribution(0, 1) for name in "xy"}
held = {"cma:optimizer:0": pickle.dumps(Touching(Path(sys.argv[1]))).hex()}
study = optuna.create_study(sampler=optuna.samplers.CmaEsSampler())
old = optuna.trial.create_trial(params=dict(x=0.5, y=0.5), distributions=space, value=1.0, system_attrs=held)
study.add_trial(old)
study.ask(space)
"""


def test_such_a_pickle_would_run_without_the_refusal(tmp_path: Path) -> None:
    """The poison is real: Optuna as it is executes it, with or without the package that CMA-ES needs."""
    subprocess.run([sys.executable, "-c", RAW, str(tmp_path / "ran")], cwd=ROOT, capture_output=True)
    assert (tmp_path / "ran").exists()


TRIAL_ATTRIBUTES = ("origin", "command", "reason", "metrics", "usage", "coverage", "repeats", "questions", "seconds")
ODD = {
    "markup": json.dumps(EVIL),
    "a list": '["a", 1]',
    "markup as keys": json.dumps({EVIL: EVIL}),
    "null": "null",
    "no JSON": "{",
    "a megabyte": json.dumps("x" * 1_000_000),
}


def report_of(study: Path, *, forgiving: bool = True) -> str:
    """What a poisoned study's report says: the page's source, or "" where it is refused with an error of ours."""
    try:
        page = rewrite_report(study).read_text("utf-8")
    except RagOptError:
        assert forgiving
        return ""
    assert "<script>alert" not in page
    assert "<img src=x" not in page
    return page


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_odd_attributes_of_trials_are_escaped_or_refused(study: Path, canary: Path, odd: str) -> None:
    whole = (study / "study.db").read_bytes()
    for key in TRIAL_ATTRIBUTES:
        for path in study.glob("study.db*"):
            path.unlink()
        (study / "study.db").write_bytes(whole)
        spoilt(study, *attribute(key, odd))
        report_of(study)


ROWS = {
    "a parameter's name": ("update trial_params set param_name = ? where param_name = 'retriever.k1'", EVIL),
    "a choice's name": (
        "update trial_params set distribution_json = ? where param_name = 'retriever'",
        json.dumps({"name": "CategoricalDistribution", "attributes": {"choices": [EVIL] * 9}}),
    ),
}


@pytest.mark.parametrize("statement", ROWS.values(), ids=ROWS.keys())
def test_markup_in_names_is_shown_escaped(study: Path, statement: tuple) -> None:
    spoilt(study, statement, *attribute("reason", json.dumps(EVIL)))
    assert "&lt;script&gt;" in report_of(study, forgiving=False) or "\\u003cscript" in (
        study / "report.html"
    ).read_text("utf-8")


UNREADABLE = {
    "a distribution": ("update trial_params set distribution_json = 'abc'",),
    "a distribution's class": ("update trial_params set distribution_json = ?", '{"name": "Evil"}'),
    "a choice that is none": ("update trial_params set param_value = 99 where param_name = 'retriever'",),
    "a parameter's value": ("update trial_params set param_value = 'abc'",),
    "a state": ("update trials set state = 'WEIRD'",),
    "a value": ("update trial_values set value = 'abc'",),
    "no value": ("update trial_values set value = null",),
    "no values": ("delete from trial_values",),
    "a date": ("update trials set datetime_start = 'abc'",),
    "a study's attribute": ("update study_user_attributes set value_json = '[7]' where key = 'rag_opt:fingerprints'",),
    "metrics": attribute("metrics", '{"nDCG@10": "high"}')[1],
}


@pytest.mark.parametrize("statement", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_a_database_that_no_study_has_written_is_refused(animals, copy, study, statement: tuple) -> None:
    spoilt(study, ("delete from trial_user_attributes where key = 'metrics'",), statement)
    with pytest.raises(StorageError, match="holds what this program does not write"):
        rewrite_report(study)
    with pytest.raises(StorageError, match="holds what this program does not write"):
        run_study(words(animals, copy, "n_trials=5"))


@pytest.mark.parametrize("name", ["../../../../escaped", "/escaped", "..", "a\\..\\b"])
def test_a_database_names_no_file_outside_the_study(study: Path, tmp_path: Path, name: str) -> None:
    """The page is copied to where a study's attribute says: once, that was anywhere."""
    given = str(tmp_path) + name if name.startswith("/") else name
    spoilt(
        study,
        (
            "update study_user_attributes set value_json = ? where key = 'rag_opt:report_artifact'",
            json.dumps(given),
        ),
    )
    before = {path for path in tmp_path.rglob("*") if study not in path.parents}
    report_of(study, forgiving=False)
    assert {path for path in tmp_path.rglob("*") if study not in path.parents} == before


# ---- files of a study


def findings_with(study: Path, **changed: object) -> None:
    path = study / "findings.json"
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), **changed}), "utf-8")


@pytest.mark.parametrize("odd", [EVIL, {EVIL: EVIL}], ids=["markup", "keys"])
def test_poisoned_findings_are_escaped_or_refused(study: Path, canary: Path, odd: object) -> None:
    whole = (study / "findings.json").read_text("utf-8")
    for key in json.loads(whole):
        (study / "findings.json").write_text(whole, "utf-8")
        findings_with(study, **{key: odd})
        report_of(study)


@pytest.mark.parametrize("content", [b"\x80\x04junk", b"[" * 100_000, b"[]", b"", b"7"])
def test_findings_that_are_none_are_refused(study: Path, canary: Path, content: bytes) -> None:
    (study / "findings.json").write_bytes(content or pickle.dumps(Touching(canary)))
    with pytest.raises(StudyError, match=r"findings\.json: can't be read"):
        rewrite_report(study)


SCORES = [b"7", b"[]", b'{"columns": 7, "data": 3}', b"[" * 100_000, b"\x80\x04junk", b""]
SCORES += [b'{"columns": ["query_id", "nDCG@10"], "data": [["q1", "abc"]]}']
SCORES += [b'{"columns": ["query_id", "nDCG@10"], "data": [["q1", {}]]}']


def test_poisoned_scores_count_as_none(animals, copy: Path, study: Path, canary: Path) -> None:
    for total, contents in enumerate((SCORES[:4], SCORES[4:]), 4):
        for path, content in zip(sorted(study.glob("trials/*/per_query.json")), contents, strict=False):
            path.write_bytes(content or pickle.dumps(Touching(canary)))
            packed = zlib.compress(path.read_bytes())
            number = int(path.parent.name)
            spoilt(study, ("update rag_opt_files set content = ? where trial = ?", packed, number))
        assert run_study(words(animals, copy, f"n_trials={total}", "pruner=race")).findings.trials >= total


# ---- the store


def summed(body: bytes) -> bytes:
    return body + hashlib.sha256(body).digest()


def arrow(metadata: dict | None) -> bytes:
    file = io.BytesIO()
    table = pa.table({"evil": [EVIL]}).replace_schema_metadata(metadata)
    with pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table)
    return file.getvalue()


TABLES: dict[str, Callable[[Path], bytes]] = {
    "a pickle": lambda canary: pickle.dumps(Touching(canary)),
    "a pickle and its hash": lambda canary: summed(pickle.dumps(Touching(canary))),
    "junk between magic words": lambda _: summed(b"ARROW1\0\0" + b"junk" * 99 + b"\x10\0\0\0ARROW1"),
    "no seconds": lambda _: summed(arrow(None)),
    "seconds that are none": lambda _: summed(arrow({"rag_opt": "{"})),
}


def spoil(store: Path, pattern: str, content: bytes, *, manifest: bool = False) -> None:
    """Put this content into every such file, with manifests that agree where asked for."""
    found = [path for path in store.rglob(pattern) if path.is_file()]
    assert found
    for path in found:
        path.write_bytes(content)
    for path in store.rglob("artifact.json") if manifest else ():
        agree(path.parent)


def agree(folder: Path) -> None:
    """Give a folder's manifest the hashes of what is there now."""
    path = folder / "artifact.json"
    files = [each for each in folder.rglob("*") if each.is_file() and each != path]
    sums = {each.relative_to(folder).as_posix(): hashlib.sha256(each.read_bytes()).hexdigest() for each in files}
    path.write_text(json.dumps({**json.loads(path.read_text("utf-8")), "sha256": sums}), "utf-8")


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES.keys())
def test_a_table_that_is_none_is_made_again(animals, copy, canary, content, capfd) -> None:
    spoil(copy / "store", "*.arrow", content(canary))
    shutil.rmtree(copy / "studies")
    assert not run_study(words(animals, copy)).error
    assert "is damaged; it is made again" in capfd.readouterr().err


def test_a_forged_table_fails_the_trial_with_a_reason(animals, copy: Path, canary: Path) -> None:
    spoil(copy / "store", "*.arrow", summed(arrow({"rag_opt": '{"seconds": 1.0}'})))
    shutil.rmtree(copy / "studies")
    assert "The first failed with" in run_study(words(animals, copy)).error


def objects(canary: Path) -> bytes:
    """An array of objects, as numpy keeps it: a pickle."""
    file = io.BytesIO()
    np.save(file, np.array([Touching(canary), 1], object), allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("right", [False, True], ids=["wrong hashes", "right hashes"])
def test_an_index_of_pickled_objects_is_not_read(animals, copy, canary, right: bool, capfd) -> None:
    spoil(copy / "store", "*.npy", objects(canary), manifest=right)
    shutil.rmtree(copy / "studies")
    shutil.rmtree(copy / "store" / "rankings")
    run_study(words(animals, copy))
    # With hashes that agree no one can tell: numpy refuses the objects, and the trial says so.
    wanted = "failed" if right else "is damaged; it is made again"
    assert wanted in capfd.readouterr().err


def test_a_pickle_beside_a_chroma_index_is_not_read(animals, tmp_path: Path, canary: Path) -> None:
    given = words(animals, tmp_path, "index=chroma", "retriever=dense", "objective.metrics=[context.nDCG@10]")
    assert not run_study(given).error
    segments = [path.parent for path in (tmp_path / "store" / "chroma").rglob("header.bin")]
    assert segments
    for folder in segments:
        # Where Chroma kept its metadata before it was written in Rust.
        (folder / "index_metadata.pickle").write_bytes(pickle.dumps(Touching(canary)))
        agree(folder.parent)
    shutil.rmtree(tmp_path / "studies")
    shutil.rmtree(tmp_path / "store" / "rankings")
    run_study(given)


@pytest.mark.parametrize("what", ["a pickle", "junk", "another table", "odd rows"])
def test_a_poisoned_file_of_replies_is_put_aside_or_read_as_text(tmp_path, canary, what: str, said) -> None:
    path = tmp_path / "replies.db"
    if what in ("a pickle", "junk"):
        path.write_bytes(pickle.dumps(Touching(canary)) if what == "a pickle" else b"junk" * 999)
    else:
        base = sqlite3.connect(path)
        columns = "key text primary key, text text, tokens_in integer, tokens_out integer, seconds real"
        base.execute(f"create table replies ({'evil text' if what == 'another table' else columns})")
        if what == "odd rows":
            base.execute(
                "insert into replies values ('key', ?, 'many', ?, 'x')", (EVIL, pickle.dumps(Touching(canary)))
            )
        base.commit()
        base.close()
    try:
        found = Replies(tmp_path).get("key")
    except RagOptError:
        assert what == "another table"
    else:
        assert found is None or found.text == EVIL
        assert what == "odd rows" or any("was put aside" in line for line in said())


def test_the_poisons_are_counted(figure) -> None:
    modules = len(list((ROOT / "rag_opt").rglob("*.py")))
    poisons = len(ODD) + len(ROWS) + len(UNREADABLE) + len(SCORES) + len(TABLES)
    assert poisons >= 20
    figure(
        "code from data",
        f"{modules} modules without a way to run data; {poisons} poisoned attributes, rows, findings, scores and tables "
        "and a real pickle in a database: none ran, each refused, escaped or made again",
    )
