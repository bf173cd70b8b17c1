"""A folder of documents in a study: parsers are searched, what was read is kept, quotes are the same gold for all."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import sys
import time
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution

from rag_opt.cache.store import Store
from rag_opt.cli.documents import main, name_space, read_folder
from rag_opt.cli.study import run_study
from rag_opt.cli.trial import measure_configuration
from rag_opt.components.parsers import Parser
from rag_opt.components.resources import Resources
from rag_opt.config.compose import compose_config
from rag_opt.datasets.folder import list_files
from rag_opt.documents.parsed import UnreadableFileError
from rag_opt.documents.pool import Pool
from rag_opt.errors import DatasetError
from rag_opt.records.documents import Documents
from rag_opt.study.seeds import build_search_space
from tests.services import brought
from tests.services.files import make_bomb, make_pdf, write_office


@pytest.fixture
def office(tmp_path: Path) -> list[str]:
    """The words of a study over a folder of files of all formats."""
    rows = write_office(tmp_path / "docs")
    (tmp_path / "questions.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return [
        "dataset=folder",
        f"dataset.path={tmp_path}/docs",
        f"dataset.questions={tmp_path}/questions.jsonl",
        f"store.path={tmp_path}/store",
        f"studies_dir={tmp_path}/studies",
        "objective=evidence",
        "retriever=bm25",
        "generator=none",
        "tracking=none",
    ]


def test_every_format_is_found_by_its_words(office: list[str]) -> None:
    found = measure_configuration([*office, "dataset.test_share=0.1"])
    assert found.means["evidence_recall@20"] == 1.0
    assert found.coverage["evidence_recall@20"] == 1.0


def test_parsers_are_searched_and_nothing_is_read_twice(office: list[str], tmp_path: Path, capsys) -> None:
    words = [*office, "name=first", "n_trials=6", "sampler=brute_force", "pruner=none"]
    (tmp_path / "conf" / "search_space").mkdir(parents=True)
    space = "parser: choice(plain, pdfminer)\nsplitter: choice(sentence, markdown, page)\n"
    (tmp_path / "conf" / "search_space" / "read.yaml").write_text(space)
    words += [f"hydra.searchpath=[file://{tmp_path}/conf]", "search_space=read"]
    first = run_study(words)
    assert not first.error
    assert first.findings.trials == 6
    read = sorted(path.name for path in (tmp_path / "store" / "parsed").iterdir())
    # By each parser the PDF; all else is read alike, and so once.
    assert len(read) == 14
    ages = {path: path.stat().st_ctime_ns for path in (tmp_path / "store" / "parsed").iterdir()}
    again = run_study([*(word for word in words if not word.startswith("name=")), "name=again"])
    assert not again.error
    assert {path.name for path in ages} == {path.name for path in (tmp_path / "store" / "parsed").iterdir()}
    # A file that is changed is read anew, and no other.
    (tmp_path / "docs" / "handbook.md").write_text("# Handbook\n\nCore hours are from ten to three.\n")
    measure_configuration(office)
    assert len(list((tmp_path / "store" / "parsed").iterdir())) == len(read) + 1


def test_a_folder_is_given_in_python_and_asked(office: list[str], tmp_path: Path) -> None:
    import rag_opt

    rows = [json.loads(line) for line in (tmp_path / "questions.jsonl").read_text().splitlines()]
    study = rag_opt.optimize(
        tmp_path / "docs",
        rows,
        space={"parser": ["plain", "pdfminer"], "retriever.top_k": (1, 5)},
        n_trials=3,
        name="given",
        overrides=[word for word in office if not word.startswith("dataset")],
    )
    assert study.result
    found = study.best_pipeline().run({"query": "Where are the spare valves?"})["rag"]["documents"]
    places = {each.meta["document_id"]: each.meta for each in found}
    assert places["manual.pdf"]["page"] in ("1", "2")
    text = next(each.content for each in found if each.meta["document_id"] == "manual.pdf")
    assert "cabinet nine" in text


def test_a_parser_that_loses_gold_is_no_better_for_it(office: list[str], tmp_path: Path, capsys) -> None:
    path = tmp_path / "questions.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    for row in rows[:7]:
        row["evidence"][0]["quote"] = "words that stand in no file"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = measure_configuration([*office, "dataset.test_share=0.1"])
    assert found.coverage["evidence_recall@20"] == 1.0
    assert found.means["evidence_recall@20"] < 1.0
    assert "7 of 13 quotes are not in their documents" in capsys.readouterr().err


def test_the_command_shows_what_each_file_gives(office: list[str], tmp_path: Path, capsys) -> None:
    (tmp_path / "docs" / "broken.pdf").write_bytes(b"%PDF-1.4 nonsense")
    (tmp_path / "docs" / "photo.png").write_bytes(b"x")
    (tmp_path / "docs" / "copy.md").write_bytes((tmp_path / "docs" / "handbook.md").read_bytes())
    asked = ["--questions", f"{tmp_path}/questions.jsonl"]
    main([f"{tmp_path}/docs", "parser=plain,pdfminer", f"store.path={tmp_path}/store", *asked])
    said = " ".join(capsys.readouterr().out.split())
    assert "1 file left out (nothing here reads .png): 'photo.png'" in said
    assert "parser=plain: 14 of 15 files read" in said
    assert "'copy.md = handbook.md'" in said
    assert said.count("100.0%") == 2
    assert "study: python -m rag_opt.study dataset=folder" in said
    assert said.endswith("search_space=parsing")


@pytest.mark.parametrize(
    ("parsers", "tried"),
    [
        (["docling"], None),
        (["pdfminer", "plain"], ["plain", "pdfminer"]),
        (["plain", "docling"], ["plain", "docling"]),
        (["docling", "pdfminer", "docling"], ["plain", "docling", "pdfminer"]),
    ],
)
def test_the_study_that_is_named_tries_the_parsers_that_were_compared(
    parsers: list[str], tried: list[str] | None
) -> None:
    chosen = [f"parser={parsers[0]}"] if len(parsers) == 1 else []
    words = ["dataset=folder", "dataset.path=docs", *chosen, *shlex.split(name_space(parsers))]
    space = build_search_space(compose_config(words), words)
    found = [each.distribution for each in space.parameters if each.name == "parser"]
    assert found == ([CategoricalDistribution(tried)] if tried else [])


def test_no_question_is_said(office: list[str]) -> None:
    with pytest.raises(DatasetError, match="dataset.questions is not set"):
        run_study([word for word in office if not word.startswith("dataset.questions")])


def test_a_question_about_a_file_that_is_not_there_is_refused(office: list[str], tmp_path: Path) -> None:
    with (tmp_path / "questions.jsonl").open("a") as file:
        file.write('{"question": "What?", "evidence": [{"doc_id": "gone.pdf", "quote": "x"}]}\n')
    with pytest.raises(DatasetError, match="'gone.pdf'"):
        run_study(office)


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def parse_once(data: bytes, ending: str, tmp_path: Path, seconds: float = 20, megabytes: int = 1_024) -> str:
    path = tmp_path / f"file{ending}"
    path.write_bytes(data)
    with Pool(1, seconds, megabytes) as pool:
        return pool.parse(str(path), digest_of(path), "plain").text


def test_a_file_that_takes_too_long_costs_only_its_process(tmp_path: Path, monkeypatch) -> None:
    # A page that draws itself over and over.
    slow = make_pdf([["word"] * 40] * 3_000)
    (tmp_path / "slow.pdf").write_bytes(slow)
    (tmp_path / "fast.txt").write_text("quick")
    monkeypatch.setattr("rag_opt.documents.pool.STARTS", 1.0)
    with Pool(1, 0.2, 1_024) as pool:
        start = time.monotonic()
        with pytest.raises(UnreadableFileError, match=r"longer than parser.seconds=0.2"):
            pool.parse(str(tmp_path / "slow.pdf"), digest_of(tmp_path / "slow.pdf"), "plain")
        assert time.monotonic() - start < 10
        monkeypatch.setattr("rag_opt.documents.pool.STARTS", 30.0)
        assert pool.parse(str(tmp_path / "fast.txt"), digest_of(tmp_path / "fast.txt"), "plain").text == "quick"


@pytest.mark.skipif(sys.platform == "win32", reason="memory is bounded by the system")
def test_a_file_that_takes_too_much_memory_is_named(tmp_path: Path) -> None:
    rows = b"[" + b'"' + b"x" * 80_000_000 + b'"' + b"]"
    with pytest.raises(UnreadableFileError, match="memory"):
        parse_once(rows, ".json", tmp_path, megabytes=256)


def test_a_bomb_is_named_before_it_is_opened(tmp_path: Path) -> None:
    with pytest.raises(UnreadableFileError, match="it unpacks to"):
        parse_once(make_bomb(300), ".xlsx", tmp_path)


def test_a_process_that_dies_is_replaced(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "a.txt").write_text("a text")
    with Pool(1, 20, 1_024) as pool:
        assert pool.parse(str(tmp_path / "a.txt"), digest_of(tmp_path / "a.txt"), "plain").text == "a text"
        process = pool._all[0]._process
        assert process is not None
        os.kill(process.pid, 9)
        process.wait()
        # The next file is read by another one, and not blamed.
        assert pool.parse(str(tmp_path / "a.txt"), digest_of(tmp_path / "a.txt"), "plain").text == "a text"


def test_what_is_read_is_the_same_in_the_library_and_in_the_process(tmp_path: Path, office: list[str]) -> None:
    from rag_opt.documents.formats import parse_file

    _, readings = read_folder(tmp_path / "docs", [f"store.path={tmp_path}/store"])
    for each in readings[0].files:
        path = tmp_path / "docs" / each.name
        assert each.parsed == parse_file(path.read_bytes(), path.suffix, "plain")


def test_a_pipeline_of_ones_own_reads_a_folder_by_a_parser(office: list[str], tmp_path: Path) -> None:
    from haystack.document_stores.in_memory import InMemoryDocumentStore

    store = InMemoryDocumentStore()
    files = brought.write(tmp_path, brought.build_classic(store), brought.build_indexing(store))
    stages = ("retriever", "generator", "objective")
    words = [word for word in office if not word.startswith(stages)]
    (tmp_path / "conf" / "search_space").mkdir(parents=True)
    space = "parser: choice(plain, pdfminer)\nquerying.retriever.top_k: choice(3, 5)\n"
    (tmp_path / "conf" / "search_space" / "read.yaml").write_text(space)
    words += [*files, "trusted_modules=[tests]", f"hydra.searchpath=[file://{tmp_path}/conf]", "search_space=read"]
    outcome = run_study([*words, "objective=recall", "n_trials=4", "sampler=brute_force", "name=own"])
    assert not outcome.error
    assert outcome.findings.trials == 4
    assert outcome.findings.best > 0.5


def test_what_a_moment_has_cost_is_read_the_next_time(tmp_path: Path, office: list[str], capsys) -> None:
    handbook = tmp_path / "docs" / "handbook.md"
    listed = list_files(tmp_path / "docs")
    old = handbook.read_bytes()
    handbook.write_bytes(b"# Another\n")
    parser, store = Parser("plain", 60, 2), Store(tmp_path / "store")
    parser.use(Resources.from_store(store))
    documents = Documents(listed.files, "listed")
    first = {each.name: each for each in parser.read_files(documents)}
    assert "changed since the folder was listed" in first["handbook.md"].error
    assert not any(each.error for name, each in first.items() if name != "handbook.md")
    without = parser.run(documents=documents)["documents"]
    handbook.write_bytes(old)
    parser.use(Resources.from_store(Store(tmp_path / "store")))
    assert not any(each.error for each in parser.read_files(documents))
    # What was made of the texts without it is kept under another key.
    assert parser.run(documents=documents)["documents"].key != without.key


def test_a_text_that_takes_too_long_is_tried_again(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/slow.pdf").write_bytes(make_pdf([["word"] * 40] * 3_000))
    documents = Documents(list_files(tmp_path / "docs").files, "listed")
    monkeypatch.setattr("rag_opt.documents.pool.STARTS", 0.5)
    hasty = Parser("plain", 0.1, 2)
    hasty.use(Resources.from_store(Store(tmp_path / "store")))
    assert "longer than parser.seconds" in hasty.read_files(documents)[0].error
    monkeypatch.setattr("rag_opt.documents.pool.STARTS", 60.0)
    hasty.use(Resources.from_store(Store(tmp_path / "store")))
    assert not hasty.read_files(documents)[0].error


def test_characters_of_a_file_are_no_gold(office: list[str], tmp_path: Path) -> None:
    with (tmp_path / "questions.jsonl").open("a") as file:
        file.write('{"question": "What?", "evidence": [{"doc_id": "handbook.md", "start": 0, "end": 5}]}\n')
    with pytest.raises(DatasetError, match="parsers read differently: give a quote"):
        run_study(office)
