"""Names of studies, documents, prompts and archives: nothing is ever written outside the folders that were given."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest

import rag_opt
from rag_opt.cli.study import run_study
from rag_opt.config.compose import compose_config, load_prompt, parse_overrides
from rag_opt.config.settings import parse_settings
from rag_opt.datasets import beir
from rag_opt.errors import ConfigError, DatasetError, RagOptError
from tests.conftest import DOCUMENTS, QUESTIONS, write_jsonl
from tests.faults.conftest import Figure
from tests.integration.commands import finished
from tests.unit.test_datasets import beir_folder

NAMES = [
    *("..", ".", "../x", "../../x", "a/../../x", "a/..", "./a", "a/./b", "a//b", "a/", "/a", "//a", "/etc/cron.d/x"),
    *(
        "a/b/c",
        "..\\x",
        "C:\\x",
        "C:x",
        "\\\\host\\share",
        "a\\..\\..\\x",
        "file:///tmp/x",
        "~",
        "~root",
        "$HOME",
        "${HOME}",
    ),
    *("%2e%2e%2fx", "..%2fx", "%00", "a%0ab", "a b", " a", "a ", "a.", "a..", "...", ".hidden", "-rf", "--help"),
    *(
        "con",
        "CON.txt",
        "nul",
        "aux.db",
        "com1",
        "LPT9.x",
        "a:b",
        "a|b",
        "a;touch made",
        "$(touch made)",
        "`touch made`",
    ),
    *(
        "a&b",
        "a>made",
        "<x>",
        "*",
        "?",
        "a?mode=memory",
        "a#b",
        "'a'",
        '"a"',
        "!a",
        "a\tb",
        "a\nb",
        "a\rb",
        "a\0b",
        "\x1b[2J",
    ),
    *(
        "\u2024\u2024/x",
        "\uff0e\uff0e\uff0fx",
        "a\u2215b",
        "a\u2044b",
        "\u202ea",
        "\u0430",
        "é",
        "e\u0301",
        "😀",
        "\ud800",
    ),
    *("a" * 201, "a" * 600, "x/" * 300, "a" * 200 + "/" + "b" * 201),
]


def below(folder: Path) -> dict[str, object]:
    """Everything below a folder: links with where they lead, files with their size."""

    def told(path: Path) -> object:
        if path.is_symlink():
            return path.readlink()
        return path.stat().st_size if path.is_file() else "folder"

    return {str(path.relative_to(folder)): told(path) for path in sorted(folder.rglob("*"))}


def quoted(text: str) -> str:
    """A value as Hydra's grammar quotes it."""
    escaped = text.replace("\\", "\\\\").replace("'", "\\'").replace("${", "\\${")
    return f"'{escaped}'"


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_name_that_is_no_folders_name_is_refused_and_nothing_is_written(animals, tmp_path, monkeypatch, name) -> None:
    work = tmp_path / "a" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    before = below(tmp_path)
    with pytest.raises(RagOptError, match="name|not key=value"):
        run_study([*animals, "studies_dir=studies", f"name={quoted(name)}"])
    assert below(tmp_path) == before


def test_names_reach_the_check_as_they_were_meant() -> None:
    read = {
        name: parse_overrides([f"name={quoted(name)}"])[0].value()
        for name in NAMES
        if not set(name) & set("\n\r\0\ud800\\$")
    }
    assert len(read) >= 60
    assert all(value == name for name, value in read.items())


VARIANTS = [
    *("dataset.path=../../x", "a=/b", "a=\\..\\x", "a=~", "a=$HOME", "a=$(x)"),
    *("a=%2e%2e%2f", "a=b\nc", "a=b\0c", "+a=b", "a=😀", "a=" + "b" * 600, "a='../x'", 'a="x"', "a=[1,2]", "a={b:c}"),
]


@pytest.mark.parametrize("variant", VARIANTS, ids=ascii)
def test_what_a_multirun_sweeps_stays_one_folder_below_the_name(tmp_path, variant: str) -> None:
    folder = parse_settings(compose_config([f"studies_dir={tmp_path}"]), variant).folder
    assert folder.parent == tmp_path / "quickstart"
    assert folder.resolve() == folder
    assert len(folder.name) <= 200


@pytest.mark.parametrize("variant", ["../x", "../../x", "/etc/x"])
def test_what_a_multirun_sweeps_is_refused_where_it_makes_no_name(tmp_path, variant: str) -> None:
    with pytest.raises(ConfigError, match="the multirun's overrides="):
        parse_settings(compose_config([f"studies_dir={tmp_path}"]), variant)


@pytest.mark.parametrize(
    "given", ["studies_dir=''", "studies_dir=' '", "studies_dir=null", "studies_dir=[a]", "studies_dir='~nobody-is-so/x'",
              "studies_dir='a?b'", "studies_dir='a#b'", "store.path=''", "store.path=null", "store.path='~nobody-is-so/x'"],
)  # fmt: skip
def test_a_root_that_is_no_folder_is_refused_and_nothing_is_written(animals, tmp_path, monkeypatch, given: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=f"^{given.partition('=')[0]}="):
        run_study([*animals, given])
    assert below(tmp_path) == {}


# ---- links


@pytest.mark.parametrize("place", ["study", "file", "trials", "trial", "parent"])
def test_a_link_out_of_the_studies_is_refused(animals, tmp_path, place: str) -> None:
    studies, outside = tmp_path / "studies", tmp_path / "outside"
    outside.mkdir()
    name = "animals/variant" if place == "parent" else "animals"
    links = {
        "study": studies / "animals",
        "parent": studies / "animals",
        "file": studies / "animals" / "report.html",
        "trials": studies / "animals" / "trials",
        "trial": studies / "animals" / "trials" / "0000",
    }
    links[place].parent.mkdir(parents=True)
    links[place].symlink_to(outside / "x.html" if place == "file" else outside)
    before = below(tmp_path)
    with pytest.raises(ConfigError, match="is a link out of studies_dir, to .*outside.*; remove it"):
        run_study([*animals, f"studies_dir={studies}", f"name={name}"])
    assert below(tmp_path) == before


def test_a_link_to_itself_is_refused(animals, tmp_path) -> None:
    (tmp_path / "studies").mkdir()
    (tmp_path / "studies" / "animals").symlink_to("animals")
    with pytest.raises(RagOptError, match="animals"):
        run_study([*animals, f"studies_dir={tmp_path / 'studies'}"])
    assert set(below(tmp_path)) == {"studies", "studies/animals"}


def test_the_studies_themselves_may_lie_behind_a_link(animals, tmp_path) -> None:
    (tmp_path / "large_disk").mkdir()
    (tmp_path / "studies").symlink_to(tmp_path / "large_disk")
    assert parse_settings(compose_config([*animals, f"studies_dir={tmp_path / 'studies'}"])).folder.name == "animals"


# ---- what data is called

HOSTILE = [
    *(
        "../../up",
        "..",
        "/etc/passwd",
        "C:\\x\\y",
        "\\\\host\\x",
        "~/x",
        "$HOME",
        "$(touch made)",
        "`touch made`",
        "; touch made",
    ),
    *(
        "a/b/c",
        "%2e%2e%2fx",
        "con",
        "NUL.txt",
        "x.",
        ".hidden",
        "-rf",
        "a\nb",
        "a\tb",
        "a\0b",
        "\x1b[2J",
        "<script>alert(1)</script>",
    ),
    *(
        "'; DROP TABLE trials; --",
        "{{7*7}}",
        "${sampler}",
        "%s%n",
        "\u202egnp.exe",
        "\uff0e\uff0e\uff0fx",
        "😀",
        "d" * 600,
        "?x#y",
    ),
]


def hostile_rows() -> tuple[list[dict], list[dict]]:
    """The animals under ids, titles and questions that aim at a file system, a shell, a page, a database."""
    rows = [{**DOCUMENTS[place % len(DOCUMENTS)], "id": name, "title": name} for place, name in enumerate(HOSTILE)]
    asked = [
        {**QUESTIONS[place % len(QUESTIONS)], "id": f"{name}?", "relevant": [name], "answer": name or "x"}
        for place, name in enumerate(HOSTILE)
    ]
    return rows, asked


def inside(path: str, roots: tuple[str, ...]) -> bool:
    return any(path == root or path.startswith(f"{root}/") for root in roots)


def test_a_study_over_hostile_names_stays_in_its_folders(tmp_path, monkeypatch) -> None:
    work = tmp_path / "one" / "two" / "work"
    work.mkdir(parents=True)
    monkeypatch.chdir(work)
    rows, asked = hostile_rows()
    data = work / "data; touch made"
    data.mkdir()
    documents, questions = write_jsonl(data / "$(touch made).jsonl", rows), write_jsonl(data / "..q.jsonl", asked)
    before = below(tmp_path)
    words = [
        *(
            "dataset=jsonl",
            f"dataset.documents={quoted(str(documents))}",
            f"dataset.questions={quoted(str(questions))}",
        ),
        *("embedder=hashing", "splitter=sentence", "index=chroma", "retriever.depth=6", "search_space=retrieval"),
        *("n_trials=2", "name=hostile", "studies_dir=studies", "store.path=store", "tracking.traces=finalists"),
    ]
    outcome = run_study(words)
    assert outcome.findings is not None, outcome.error
    added = set(below(tmp_path)) - set(before)
    here = work.relative_to(tmp_path).as_posix()
    assert [path for path in added if not inside(path, (f"{here}/studies", f"{here}/store"))] == []
    assert {path: told for path, told in below(tmp_path).items() if path in before} == before
    scores = json.loads((work / "studies/hostile/trials/0000/per_query.json").read_text("utf-8"))
    assert scores
    page = (work / "studies/hostile/report.html").read_text("utf-8")
    assert "<script>alert(1)</script>" not in page
    escaped = [path for path in added if any(mark in path for mark in ("..", "made", "passwd", "%2e", "script"))]
    assert escaped == []


@pytest.mark.parametrize(
    "name", ["../answer", "/etc/passwd", "a/b", "..", ".", "", "a.b", "~", "$HOME", "a\0b", "a\nb", "con:", "é", "a" * 101, "%2e%2e"],
    ids=ascii,
)  # fmt: skip
def test_a_prompt_is_a_file_of_its_own_folder(name: str) -> None:
    with pytest.raises(ConfigError, match="the name of a file in conf/prompt is expected"):
        load_prompt(name)


@pytest.mark.parametrize("name", ["../other/qrels.tsv", "/etc/passwd", "qrels/../../other/qrels.tsv"])
def test_qrels_are_a_file_of_their_folder(tmp_path, name: str) -> None:
    beir_folder(tmp_path / "other")
    with pytest.raises(DatasetError, match=r"dataset\.qrels=.*one file in the folder is expected"):
        beir.load(str(beir_folder(tmp_path / "set")), qrels=name)


@pytest.mark.parametrize("name", ["../escaped", "$(touch made)", "/absolute"])
def test_the_command_refuses_a_name_with_2(animals, tmp_path, name: str) -> None:
    work = tmp_path / "work"
    work.mkdir()
    found = finished(work, *animals, f"name={quoted(name)}", store=tmp_path / "work" / "store")
    assert found.returncode == 2
    assert "\nerror: name=" in found.stderr
    assert set(below(tmp_path)) == {"work"}


# ---- archives


def imported() -> Iterator[tuple[str, str]]:
    """(file, dotted name) of everything that rag_opt imports or takes from a module."""
    for path in sorted(Path(rag_opt.__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                yield from ((path.name, alias.name) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                yield from ((path.name, f"{node.module}.{alias.name}") for alias in node.names)
            elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                yield path.name, f"{node.value.id}.{node.attr}"


def test_no_archive_and_no_pickle_is_ever_read() -> None:
    # Whoever adds one: tarfile with filter="data"; of a zip its count, sizes and ratio checked before it is unpacked.
    known = list(imported())
    assert ("artifact_files.py", "hashlib") in known
    roots = {
        "tarfile",
        "zipfile",
        "gzip",
        "bz2",
        "lzma",
        "pickle",
        "cloudpickle",
        "dill",
        "joblib",
        "shelve",
        "marshal",
    }
    calls = {"shutil.unpack_archive", "torch.load", "yaml.unsafe_load", "yaml.full_load", "pandas.read_pickle"}
    used = {found for found in known if found[1].partition(".")[0] in roots or found[1] in calls}
    # Data files may be gzipped; how far they grow is bounded (tests/unit/test_datasets.py). Office files and books are
    # zip files: how much they hold is looked at first (tests/unit/test_documents.py), in a process of its own.
    zipped = {("archives.py", f"zipfile.{name}") for name in ("ZipFile", "BadZipFile")}
    assert used == zipped | {("files.py", name) for name in ("gzip", "gzip.open", "gzip.BadGzipFile")}
    loaders = {name for _, name in known if name.startswith("yaml.") and name.endswith("Loader")}
    assert loaders <= {"yaml.CSafeLoader", "yaml.SafeLoader"}


def test_there_are_enough_names(figure: Figure) -> None:
    assert len({*NAMES, *VARIANTS, *HOSTILE}) >= 40
    figure("paths", f"{len({*NAMES, *VARIANTS, *HOSTILE})} names of studies, sweeps and documents: 0 files outside")
