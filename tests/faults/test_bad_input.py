"""Datasets and configurations that can't be used: each is refused before trial 0, in one message, leaving nothing."""

from __future__ import annotations

import gzip
import json
import os
import signal
import socket
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from rag_opt.cli.study import run_study
from rag_opt.datasets import jsonl
from rag_opt.errors import DatasetError, RagOptError
from tests.conftest import DOCUMENTS, QUESTIONS, write_jsonl
from tests.faults.conftest import Figure
from tests.integration.commands import finished
from tests.unit.test_datasets import ARTICLE, CORPUS, QRELS, QUERIES, RECORD

Make = Callable[[Path], list[str]]
"""Writes the files of a case below a folder; gives the words that name them."""

SECONDS = 30
"""However bad the input is, a refusal takes no longer."""


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """Ends a test that hangs, as one that opens a pipe would."""

    def late(*_: object) -> None:
        raise TimeoutError(f"not refused within {SECONDS} s")

    before = signal.signal(signal.SIGALRM, late)
    signal.alarm(SECONDS)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, before)


def written(path: Path, content: object) -> Path:
    """The file with bytes, text, or rows as JSON Lines; None writes none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif isinstance(content, str):
        path.write_text(content, "utf-8")
    elif content is not None:
        write_jsonl(path, content)
    return path


def own(documents: object = DOCUMENTS, questions: object = QUESTIONS) -> Make:
    def make(folder: Path) -> list[str]:
        paths = written(folder / "d.jsonl", documents), written(folder / "q.jsonl", questions)
        return ["dataset=jsonl", f"dataset.documents={paths[0]}", f"dataset.questions={paths[1]}"]

    return make


def question(**change: object) -> Make:
    """Ten questions, of which the second has these values."""
    return own(questions=[{**row, **(change if place == 1 else {})} for place, row in enumerate(QUESTIONS)])


def beir(corpus: object = CORPUS, queries: object = QUERIES, qrels: object = QRELS, *words: str) -> Make:
    def make(folder: Path) -> list[str]:
        for name, content in (("corpus.jsonl", corpus), ("queries.jsonl", queries), ("qrels.tsv", qrels)):
            written(folder / "set" / name, content)
        return ["dataset=beir", f"dataset.path={folder / 'set'}", *words]

    return make


def records(content: object, name: str = "r.jsonl") -> Make:
    return lambda folder: ["dataset=msmarco", f"dataset.path={written(folder / name, content)}"]


def record(**change: object) -> Make:
    return records([RECORD, {**RECORD, "query_id": 8, **change}])


def squad(content: object) -> Make:
    return lambda folder: ["dataset=squad", f"dataset.path={written(folder / 's.json', content)}"]


def article(change: Callable[[dict], object]) -> Make:
    """A SQuAD file whose one article was changed."""
    copy = json.loads(json.dumps(ARTICLE))
    change(copy)
    return squad(json.dumps({"data": [copy]}))


def answer(**given: object) -> Make:
    return article(lambda copy: copy["paragraphs"][0]["qas"][0].update(answers=[{"text": "Cats", **given}]))


def special(make: Callable[[Path], object]) -> Make:
    """Something that is no file, in the place of the documents."""

    def made(folder: Path) -> list[str]:
        make(folder / "d.jsonl")
        return own(documents=None)(folder)

    return made


def at(path: str) -> Make:
    return lambda folder: [*own()(folder), f"dataset.documents='{path}'"]


def zipped(folder: Path) -> list[str]:
    with zipfile.ZipFile(folder / "z", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("d.jsonl", b"0" * 50_000_000)
    return own(documents=(folder / "z").read_bytes())(folder)


def listening(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        # A socket's name is short; the link leads to it.
        server.bind(name := tempfile.mktemp())
        path.symlink_to(name)


ROWS = "\n".join(json.dumps(row) for row in DOCUMENTS)
D, Q = "d.jsonl", "q.jsonl"
DEEP = "[" * 200_000
BIG = "9" * 5000

DATASETS: dict[str, tuple[Make, list[str]]] = {
    # ---- files that are none, or hold something else
    "no path": (lambda _: ["dataset=beir"], ["dataset.path is not set", "dataset.path=path/to/data"]),
    "a missing file": (own(documents=None), ["dataset.documents=", D, "no such file or folder"]),
    "a missing folder": (
        lambda f: ["dataset=beir", f"dataset.path={f}/x"],
        ["dataset.path=", "no such file or folder"],
    ),
    "a folder in place of a file": (special(Path.mkdir), [D, "a text file is expected"]),
    "a file in place of a folder": (
        lambda f: ["dataset=beir", f"dataset.path={written(f / D, DOCUMENTS)}"],
        ["dataset.path=", "a folder with corpus.jsonl"],
    ),
    "a pipe": (special(os.mkfifo), [D, "a text file is expected"]),
    "a socket": (special(listening), [D, "a text file is expected"]),
    "an endless device": (at("/dev/zero"), ["/dev/zero", "a text file is expected"]),
    "an empty device": (at("/dev/null"), ["/dev/null", "a text file is expected"]),
    "a file that can't be read": (at("/proc/self/mem"), ["/proc/self/mem", "can't be read"]),
    "a link to itself": (special(lambda path: path.symlink_to(path)), [D, "no such file or folder"]),
    "a link to nothing": (special(lambda path: path.symlink_to("gone")), [D, "no such file or folder"]),
    "a path of 6,000 characters": (at("a" * 6000), ["dataset.documents=aaa", "can't be looked for"]),
    "a name of 600 characters": (at("a" * 600), ["dataset.documents=aaa", "can't be looked for"]),
    "the home of nobody": (at("~nobody-is-called-so/d"), ["dataset.documents=~nobody", "can't be looked for"]),
    "an empty path": (at(""), ["dataset.documents is not set"]),
    "an empty file": (own(documents=""), [D, "the file is empty"]),
    "blank lines": (own(documents="\n \n\t\n"), [D, "the file is empty"]),
    "a byte order mark alone": (own(documents=b"\xef\xbb\xbf"), [D, "the file is empty"]),
    "Latin-1": (own(documents=b'{"id": "a", "text": "caf\xe9"}'), [D, "not UTF-8 text at byte", "convert it"]),
    "UTF-16": (own(documents=ROWS.encode("utf-16")), [D, "not UTF-8 text at byte 0"]),
    "NUL bytes": (own(documents=b"\0" * 4000), [f"{D}:1: not JSON"]),
    "a raw NUL in a text": (own(documents='{"id": "a", "text": "x\0y"}'), [f"{D}:1: not JSON", "control character"]),
    "random bytes": (own(documents=bytes(range(128, 256)) * 99), [D, "not UTF-8"]),
    "Parquet": (records(b"PAR1\x15\x04\xff\xfe" + bytes(200) + b"PAR1", "r.parquet"), ["r.parquet", "not UTF-8"]),
    "a folder of Parquet alone": (
        lambda f: ["dataset=msmarco", f"dataset.path={written(f / 'p' / 'r.parquet', b'PAR1').parent}"],
        ["dataset.path=", "no *.jsonl"],
    ),
    "gzip under another ending": (own(documents=gzip.compress(ROWS.encode())), [D, "not UTF-8"]),
    "a gzip bomb": (own(documents=gzip.compress(b"0" * 50_000_000)), [D, "not UTF-8"]),
    "a zip bomb": (zipped, [D, "not UTF-8|not JSON"]),
    # ---- JSON Lines
    "a line cut off": (own(documents=ROWS[:-9]), [f"{D}:6: not JSON", "one object a line"]),
    "one line of 20 MB, cut off": (own(documents='{"id": "a", "text": "' + "x" * 20_000_000), [f"{D}:1: not JSON"]),
    "200,000 brackets": (own(documents='{"id": ' + DEEP), [f"{D}:1: not JSON", "recursion"]),
    "an id of 5,000 digits": (own(documents='{"text": "x", "id": ' + BIG + "}"), [f"{D}:1: not JSON", "digits"]),
    "a list in place of an object": (own(documents='["a", "b"]'), [f"{D}:1: a JSON object", "not list"]),
    "one JSON list, pretty": (own(documents=json.dumps(DOCUMENTS, indent=1)), [f"{D}:1: not JSON"]),
    "a text in place of an object": (own(documents=ROWS + '\n"x"'), [f"{D}:7: a JSON object", "not str"]),
    "CSV": (own(documents="id,text\na,Cats purr.\n"), [f"{D}:1: not JSON"]),
    "an id of true": (own(documents=[{"id": True, "text": "x"}]), [f"{D}:1: 'id' must be", "not True"]),
    "an id of 1.5": (own(documents=[{"id": 1.5, "text": "x"}]), [f"{D}:1: 'id' must be", "not 1.5"]),
    "a blank id": (own(documents=[{"id": " ", "text": "x"}]), [f"{D}:1: 'id' must be"]),
    "a text that is a list": (own(documents=[{"id": "a", "text": ["x"]}]), [f"{D}:1: 'text' must be text"]),
    "a title that is a number": (own(documents=[{"text": "x", "title": 5}]), [f"{D}:1: 'title' must be text, not 5"]),
    "a document twice": (own(documents=[*DOCUMENTS, DOCUMENTS[0]]), ["document ids occur more than once: 'cats'"]),
    "a lone surrogate in an id": (
        own(documents='{"id": "\\ud800", "text": "x"}'),
        ["document ids hold lone surrogates", "rename them"],
    ),
    "only blank documents": (
        own([{"id": "a", "text": " \u00a0\n"}], [{"question": "Who?", "answer": "I"}]),
        ["1 of 1 documents have no text", "'a'"],
    ),
    "one question alone": (own(questions=QUESTIONS[:1]), ["1 queries can't be divided", "dataset.test_share"]),
    "a question without text": (question(question=None), [f"{Q}:2: 'question' must be text, not None; the keys"]),
    "a blank question": (question(question=" \t"), ["1 queries have no text", "'q2'"]),
    "a question's id that is a list": (question(id=[2]), [f"{Q}:2: 'id' must be"]),
    "a question's id twice": (question(id="q1"), ["query ids occur more than once: 'q1'"]),
    "questions without gold": (
        own(questions=[{"question": f"What is {n}?"} for n in range(9)]),
        ["no query has a relevant document or a reference answer"],
    ),
    "gold that does not exist": (question(relevant=["unicorns"]), ["not in the document file: 'unicorns'"]),
    "gold that is null": (question(relevant=[None]), [f"{Q}:2: 'relevant' must be", "None"]),
    "gold that is an object": (question(relevant=[{"id": "dogs"}]), [f"{Q}:2: 'relevant' must be"]),
    "gold that is true": (question(relevant=True), [f"{Q}:2: 'relevant' must be", "True"]),
    "a grade of NaN": (question(relevant={"dogs": float("nan")}), [f"{Q}:2: the grade of document 'dogs'", "nan"]),
    "a grade in words": (question(relevant={"dogs": "high"}), [f"{Q}:2: the grade", "'high'"]),
    "a grade of 1.5": (question(relevant={"dogs": 1.5}), [f"{Q}:2: the grade", "1.5"]),
    "a grade of 31 digits": (question(relevant={"dogs": 10**30}), [f"{Q}:2: the grade", "nine digits"]),
    "only negative grades": (
        own(questions=[{"question": "Who?", "relevant": {"cats": -1}}] * 1),
        ["no query has a relevant document"],
    ),
    "answers that are numbers": (question(answers=[5]), [f"{Q}:2: 'answers' must be a list of texts"]),
    "an answer of 0": (question(answer=0), [f"{Q}:2: 'answer' must be a list of texts, not 0"]),
    "an answer of false": (question(answer=False), [f"{Q}:2: 'answer' must be a list of texts, not False"]),
    "evidence of 0": (question(evidence=0), [f"{Q}:2: evidence must be"]),
    "an answer that is an object": (question(answer={"text": "x"}), [f"{Q}:2: 'answer' must be"]),
    "evidence that is a text": (question(evidence="cats"), [f"{Q}:2: evidence must be"]),
    "evidence without a document": (question(evidence=[{"start": 0, "end": 1}]), [f"{Q}:2: 'doc_id' must be"]),
    "evidence beyond the text": (
        question(evidence=[{"doc_id": "dogs", "start": 0, "end": 10**30}]),
        ["evidence of query 'q2'", "which has 85"],
    ),
    "evidence before the text": (
        question(evidence=[{"doc_id": "dogs", "start": -3, "end": 2}]),
        ["evidence of query 'q2' is characters [-3, 2)"],
    ),
    # ---- BEIR
    "no corpus": (beir(corpus=None), ["corpus.jsonl: no such file"]),
    "no queries": (beir(queries=None), ["queries.jsonl: no such file"]),
    "no qrels": (beir(qrels=None), ["neither qrels.tsv nor qrels/*.tsv"]),
    "an empty corpus": (beir(corpus=""), ["corpus.jsonl: the file is empty"]),
    "qrels of two columns": (beir(qrels="query-id\tcorpus-id\nq1\t1\n"), ["qrels.tsv:2: ", "'q1\\t1'"]),
    "qrels of five columns": (beir(qrels="q1\t0\t1\t1\t1\n"), ["qrels.tsv:1: "]),
    "qrels as CSV": (beir(qrels="query-id,corpus-id,score\nq1,1,1\n"), ["qrels.tsv:2: ", "separated by tabs"]),
    "a header in line 2": (beir(qrels="\nquery-id\tcorpus-id\tscore\nq1\t1\t1\n"), ["qrels.tsv:2: "]),
    "qrels with NaN": (beir(qrels=QRELS + "q1\t3\tnan\n"), ["qrels.tsv:4: ", "whole number"]),
    "qrels with a sign too many": (beir(qrels=QRELS + "q1\t3\t+-2\n"), ["qrels.tsv:4: "]),
    "qrels with 5,000 digits": (beir(qrels=QRELS + f"q1\t3\t{BIG}\n"), ["qrels.tsv:4: "]),
    "qrels with an empty id": (beir(qrels=QRELS + "\t3\t1\n"), ["query ids that are not in the query file: ''"]),
    "qrels judged twice": (beir(qrels=QRELS + "q1\t1\t2\n"), ["'q1' and document '1' are judged twice", "keep one"]),
    "qrels of unknown documents": (beir(qrels=QRELS + "q1\t99\t1\n"), ["document ids that are not in", "'99'"]),
    "qrels that are a folder": (beir(CORPUS, QUERIES, QRELS, "dataset.qrels=."), ["a text file is expected"]),
    "qrels that are a number": (beir(CORPUS, QUERIES, QRELS, "dataset.qrels=5"), ["dataset.qrels=5", "qrels/test.tsv"]),
    "a seed that is a list": (
        beir(CORPUS, QUERIES, QRELS, "dataset.num_queries=1", "dataset.seed=[1]"),
        ["dataset.seed=[1]: a whole number"],
    ),
    "half a question": (beir(CORPUS, QUERIES, QRELS, "dataset.num_queries=0.5"), ["dataset.num_queries=0.5"]),
    # ---- MS MARCO
    "a record without passages": (records([{"query": "x"}]), ["r.jsonl:1: not an ms_marco v2.1 record", "'passages'"]),
    "passages that are a list": (record(passages=[]), ["r.jsonl:2: not an ms_marco"]),
    "more passages than flags": (
        record(passages={"is_selected": [1], "passage_text": ["a", "b"]}),
        ["r.jsonl:2: not an ms_marco"],
    ),
    "flags in words": (
        record(passages={"is_selected": [0, "no"], "passage_text": ["a", "b"]}),
        ["r.jsonl:2: not an ms_marco", "'no'"],
    ),
    "passages that are null": (
        record(passages={"is_selected": [0, 1], "passage_text": [None, None]}),
        ["r.jsonl:2: 'passage_text' must be a list of texts"],
    ),
    "a query that is null": (record(query=None), ["r.jsonl:2: 'query' must be text"]),
    "a query's id that is an object": (record(query_id={"a": 1}), ["r.jsonl:2: 'query_id' must be"]),
    "answers that are one number": (record(answers=5), ["r.jsonl:2: 'answers' must be"]),
    # ---- SQuAD
    "SQuAD cut off": (squad(json.dumps({"data": [ARTICLE]})[:-20]), ["s.json:1: not JSON", "complete"]),
    "SQuAD as a list": (squad("[]"), ["s.json: not SQuAD", "'data'"]),
    "SQuAD of 200,000 brackets": (squad(DEEP), ["s.json: not JSON", "recursion"]),
    "SQuAD of 5,000 digits": (squad('{"data": ' + BIG + "}"), ["s.json: not JSON", "digits"]),
    "articles that are texts": (squad('{"data": ["x"]}'), ["s.json: article 0: 'title' must be"]),
    "a title that is null": (article(lambda copy: copy.update(title=None)), ["article 0: 'title' must be"]),
    "a context that is null": (
        article(lambda copy: copy["paragraphs"][0].update(context=None)),
        ["article 0: 'context' must be text"],
    ),
    "an answer's start in words": (answer(answer_start="zero"), ["article 0: 'answer_start' must be", "'zero'"]),
    "an answer's start of NaN": (answer(answer_start=float("nan")), ["article 0: 'answer_start' must be", "nan"]),
    "an infinite start": (answer(answer_start=float("inf")), ["article 0: 'answer_start' must be", "inf"]),
    "an answer somewhere else": (answer(answer_start=3), ["article 0: answer 'Cats'", "is not at 3"]),
    "nothing but impossible questions": (
        article(lambda copy: [each["qas"][0].update(answers=[]) for each in copy["paragraphs"]]),
        ["there are no queries"],
    ),
}


def stripped(animals: list[str]) -> list[str]:
    return [word for word in animals if not word.startswith("dataset")]


def check(message: str, fragments: list[str]) -> None:
    """All fragments stand in the message, of those with | between them one; it is a message, not a dump."""
    for fragment in fragments:
        assert any(each in message for each in fragment.split("|")), f"{fragment!r} is not in: {message}"
    assert len(message.splitlines()) <= 5
    assert len(message) < 2500
    assert "Traceback" not in message


@pytest.mark.parametrize("case", DATASETS, ids=str)
def test_a_bad_dataset_is_refused_with_its_place_and_nothing_is_left(animals, tmp_path, case: str) -> None:
    make, fragments = DATASETS[case]
    studies = tmp_path / "studies"
    with pytest.raises(RagOptError) as caught:
        run_study([*stripped(animals), "retriever=bm25", *make(tmp_path), f"studies_dir={studies}"])
    check(str(caught.value), fragments)
    assert not studies.exists()


@pytest.mark.parametrize("hidden", ["file", "folder"])
def test_what_may_not_be_read_is_said(hidden: str) -> None:
    # Everything below pytest's own folders is closed to other users already.
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        documents, questions = write_jsonl(folder / D, DOCUMENTS), write_jsonl(folder / Q, QUESTIONS)
        folder.chmod(0o755 if hidden == "file" else 0)
        documents.chmod(0) if hidden == "file" else None
        root = os.geteuid() == 0
        try:
            if root:
                # What root may read anyway, nobody may not.
                os.seteuid(65534)
            with pytest.raises(DatasetError, match=rf"{D}: can't be (read|looked for): .*[Pp]ermission denied"):
                jsonl.load(str(documents), str(questions))
        finally:
            if root:
                os.seteuid(0)
            folder.chmod(0o755)


# ---- configurations


def file(name: str, content: str | bytes, *words: str) -> Make:
    """A file of a configuration folder of one's own, and the words that use it."""

    def make(folder: Path) -> list[str]:
        written(folder / "conf" / name, content)
        return [f"hydra.searchpath=[file://{folder}/conf]", *words]

    return make


def said(*words: str) -> Make:
    return lambda _: list(words)


def space(rows: str) -> Make:
    return file("search_space/mine.yaml", rows, "search_space=mine")


CONFIGURATIONS: dict[str, tuple[Make, list[str]]] = {
    # ---- keys and groups
    "a wrong key": (said("n_trial=3"), ["'n_trial' is not a key", "did you mean 'n_trials'"]),
    "a wrong key in a group": (said("retriever.topk=3"), ["'retriever.topk'", "did you mean 'top_k'"]),
    "a wrong group": (said("smpler=tpe"), ["'smpler'", "did you mean 'sampler'"]),
    "an unknown sampler": (said("sampler=tpee"), ["sampler=tpee", "did you mean 'tpe'"]),
    "an unknown pruner": (said("pruner=nope"), ["pruner=nope: there is no such choice in conf/pruner/", "'none'"]),
    "an unknown dataset": (said("dataset=hotpot"), ["dataset=hotpot: there is no such choice"]),
    "an experiment without +": (said("experiment=msmarco"), ["write +experiment="]),
    "an unknown experiment": (said("+experiment=msmarko"), ["experiment=msmarko", "did you mean 'msmarco'"]),
    "a word": (said("justaword"), ["'justaword' is not key=value"]),
    "an open bracket": (said("n_trials=[1,"), ["'n_trials=[1,' is not key=value", "quote"]),
    "a group as a mapping": (said("splitter={a: 1}"), ["splitter=<choice> is expected"]),
    "a group that is null": (said("price=null"), ["price=null", "can't be composed"]),
    "a group that is removed": (said("~objective"), ["objective is missing"]),
    "a group that is a number": (said("sampler=5"), ["sampler=5", "can't be composed"]),
    "a key that is removed": (said("~evaluation.batches"), ["evaluation.batches is missing"]),
    "a section that is null": (said("budget=null"), ["budget is missing", "budget.<key>="]),
    "a section that is a number": (said("evaluation=5"), ["evaluation is 5", "evaluation.<key>="]),
    "components that are a text": (said("splitter.components=abc"), ["splitter.components is abc"]),
    "a component that is null": (
        said("generator.components.extractive=null"),
        ["generator.components.extractive is missing"],
    ),
    "a component without a class": (
        said("~generator.components.extractive._target_"),
        ["generator.components.extractive._target_=None", "dotted name of a class"],
    ),
    "an encoder that is null": (
        said("embedder.encoder=null", "retriever=dense"),
        ["chunk_embedder: its encoder is None", "_target_"],
    ),
    "seeds that are a number": (said("seeds=5"), ["seeds=5: a list is expected"]),
    "a seed of numbers": (said("seeds=[[5]]"), ["seeds: each is a list of key=value", "[5]"]),
    "trusted modules that are a text": (said("trusted_modules=abc"), ["trusted_modules=abc: a list"]),
    # ---- types and numbers
    "no trials": (said("n_trials=0"), ["n_trials=0", "at least 1"]),
    "half a trial": (said("n_trials=1.5"), ["n_trials=1.5"]),
    "trials in words": (said("n_trials=many"), ["n_trials=many"]),
    "a negative seed": (said("seed=-1"), ["seed=-1"]),
    "a share of NaN": (said("dataset.test_share=nan"), ["dataset.test_share=nan", "below 1"]),
    "a share of 2": (said("dataset.test_share=2"), ["dataset.test_share=2"]),
    "a timeout of NaN": (said("timeout=nan"), ["timeout=nan", "minutes above 0"]),
    "a coverage of NaN": (said("evaluation.coverage=nan"), ["evaluation.coverage=nan"]),
    "a store of infinite size": (said("store.limit_gb=1e400"), ["store.limit_gb=inf"]),
    "a store of NaN": (said("store.limit_gb=nan"), ["store.limit_gb=nan"]),
    "a store nowhere": (said("store.path=null"), ["store.path=", "a folder is expected"]),
    "a store that is a file": (
        lambda f: [f"store.path={written(f / 'file', 'x')}"],
        ["store.path:", "can't be read or written"],
    ),
    "a storage nowhere": (said("storage.url=null"), ["storage.url=None"]),
    "tracking that is a word": (said("tracking.enabled=perhaps"), ["tracking.enabled=perhaps", "true or false"]),
    "tracking nowhere": (said("tracking.uri=null"), ["tracking.uri=None"]),
    "an unknown kind of traces": (said("tracking.traces=some"), ["tracking.traces=some", "finalists"]),
    "top_k of zero": (said("retriever=bm25", "retriever.top_k=0"), ["top_k must be a whole number of at least 1"]),
    "b of NaN": (said("retriever=bm25", "retriever.b=nan"), ["b must be from 0 to 1", "nan"]),
    "a race from no question": (said("pruner.least=0"), ["least must be at least 2"]),
    "a race that never begins": (said("pruner.least=nan"), ["least must be at least 2", "nan"]),
    "a budget below zero": (said("budget.usd=-1"), ["budget.usd=-1"]),
    "a sampler's unknown parameter": (said("+sampler.nonsense=1"), ["RagSampler", "nonsense"]),
    # ---- objectives
    "an unknown metric": (said("objective.metrics=[nDGC@10]"), ["'nDGC@10'", "did you mean 'nDCG@10'"]),
    "a metric that is a number": (said("objective.metrics=[1]"), ["objective.metrics=[1]"]),
    "a metric twice": (said("objective.metrics=[F1,F1]"), ["named twice"]),
    "a wrong direction": (said("objective.directions=[up]"), ["'up' is neither"]),
    "a bound that is none": (said("objective.constraints=[cheap]"), ["objective.constraints: 'cheap'", "<="]),
    "a bound on nothing": (said("objective.constraints=['speed <= 3']"), ["'speed' is no metric"]),
    "a cost that should be great": (said("confirmation.cost=nDCG@10"), ["confirmation.cost=nDCG@10", "tokens"]),
    "answers from no generator": (said("objective=answer", "generator=none"), ["F1 needs a generator"]),
    # ---- interpolations
    "an interpolation of nothing": (said("seed='${nosuch}'"), ["seed: ", "'nosuch' not found", "give it a value"]),
    "an interpolation in a component": (said("retriever.k1='${nosuch}'"), ["retriever.k1: ", "'nosuch'"]),
    "a circle": (said("seed='${n_trials}'", "n_trials='${seed}'"), ["seed: ", "Recursive interpolation"]),
    "an unknown resolver": (said("seed='${roll:6}'"), ["seed: ", "Unsupported interpolation type roll"]),
    "a variable that is not set": (said("name='${oc.env:NOBODY_SET_THIS}'"), ["name: ", "NOBODY_SET_THIS"]),
    "a value that is still missing": (said("seed='???'"), ["Missing mandatory value: seed", "give it a value"]),
    "an unknown prompt": (said("generator=openai", "generator.prompt=anwser"), ["prompt=anwser", "'answer'"]),
    # ---- spaces
    "an empty space": (space("{}"), ["search_space"]),
    "an empty range": (space("retriever.top_k: range(9, 3)"), ["retriever.top_k", "is empty"]),
    "an interval backwards": (space("retriever.b: interval(1, 0)"), ["retriever.b", "is empty"]),
    "a range without end": (space("retriever.top_k: range(3, inf)"), ["retriever.top_k"]),
    "a logarithm of zero": (space("retriever.k1: tag(log, interval(0, 1))"), ["retriever.k1"]),
    "a parent that is not there": (
        space("retriever.b: {values: 'interval(0, 1)', when: {retriver: bm25}}"),
        ["retriever.b: its parent 'retriver' is not in the space"],
    ),
    "a condition that never holds": (
        space("retriever: choice(bm25, hybrid)\nretriever.b: {values: 'interval(0, 1)', when: {retriever: dense}}"),
        ["`when` can never hold", "retriever=dense"],
    ),
    "parents in a circle": (
        space(
            "retriever.top_k: {values: 'range(3, 9)', below: retriever.depth}\n"
            "retriever.depth: {values: 'range(3, 9)', below: retriever.top_k}"
        ),
        ["depend on each other in a circle"],
    ),
    "a choice twice": (space("retriever: choice(bm25, bm25)"), ["names a value twice"]),
    "a choice that is not there": (space("retriever: choice(hybrid, elastic)"), ["retriever=elastic"]),
    "brute force over intervals": (said("sampler=brute_force"), ["can't try every value of retriever.k1"]),
    # ---- files of one's own
    "YAML that does not parse": (
        file("sampler/mine.yaml", "_target_: optuna.samplers.RandomSampler\nseed: [1\n", "sampler=mine"),
        ["sampler/mine.yaml:", "not YAML"],
    ),
    "YAML with a tab": (file("sampler/mine.yaml", "a:\n\tb: 1\n", "sampler=mine"), ["mine.yaml:2: not YAML"]),
    "YAML with a key twice": (file("sampler/mine.yaml", "a: 1\na: 2\n", "sampler=mine"), ["mine.yaml:2: not YAML"]),
    "YAML that is a list": (
        file("sampler/mine.yaml", "- a\n- b\n", "sampler=mine"),
        ["sampler is ['a', 'b']: keys with values are expected"],
    ),
    "YAML that is not UTF-8": (file("sampler/mine.yaml", b"a: caf\xe9\n", "sampler=mine"), ["not UTF-8"]),
    "YAML that is empty": (file("sampler/mine.yaml", "", "sampler=mine"), ["sampler"]),
    "a default that is not there": (
        file("sampler/mine.yaml", "defaults: [nosuch]\n", "sampler=mine"),
        ["In 'sampler/mine': Could not load 'sampler/nosuch'"],
    ),
    "a sampler that is none": (
        file("sampler/mine.yaml", "_target_: optuna.samplers.nsgaii.UniformCrossover\n", "sampler=mine"),
        ["sampler._target_=optuna.samplers.nsgaii.UniformCrossover", "no sampler"],
    ),
    "a pruner that is a sampler": (said("pruner._target_=optuna.samplers.RandomSampler"), ["RandomSampler"]),
    "a class that does not exist": (said("sampler._target_=optuna.samplers.Magic"), ["Magic does not exist"]),
    "a package that is not there": (
        file(
            "sampler/mine.yaml", "_target_: nosuchpackage.Sampler\n", "sampler=mine", "trusted_modules=[nosuchpackage]"
        ),
        ["nosuchpackage.Sampler", "there is no module 'nosuchpackage'"],
    ),
    "a package that another needs": (
        file(
            "sampler/mine.yaml", "_target_: optuna.samplers.CmaEsSampler\n", "sampler=mine", "trusted_modules=[cmaes]"
        ),
        ["CMA-ES keeps its state in the study's database as a pickle", "choose another one"],
    ),
    "a search path that is a module": (
        said("hydra.searchpath=[pkg://json]"),
        ["hydra.searchpath: pkg://json", "file://"],
    ),
}


@pytest.mark.parametrize("case", CONFIGURATIONS, ids=str)
def test_a_bad_configuration_is_refused_with_its_key_and_nothing_is_left(animals, tmp_path, case: str) -> None:
    make, fragments = CONFIGURATIONS[case]
    studies = tmp_path / "studies"
    words = [f"studies_dir={studies}", *make(tmp_path)]
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(RagOptError) as caught:
        run_study([*animals, *words])
    check(str(caught.value), fragments)
    assert sorted(tmp_path.rglob("*")) == before


def test_there_are_enough_of_both(figure: Figure) -> None:
    assert len(DATASETS) >= 60
    assert len(CONFIGURATIONS) >= 40
    figure(
        "bad input", f"{len(DATASETS)} datasets and {len(CONFIGURATIONS)} configurations, each refused as it must be"
    )


def sections() -> list[str]:
    """The keys of conf/config.yaml that hold keys, and the groups."""
    from rag_opt.config.stages import STAGES

    return ["store", "evaluation", "web", "judge", "budget", "confirmation", *STAGES, "sampler", "pruner", "tracking"]


@pytest.mark.parametrize("key", sections())
def test_no_section_in_a_wrong_shape_gets_past_the_check(animals, tmp_path, key: str) -> None:
    with pytest.raises(RagOptError):
        run_study([*animals, f"studies_dir={tmp_path / 'studies'}", f"{key}=5"])
    assert not (tmp_path / "studies").exists()


BY_COMMAND = {
    "a pipe": (special(os.mkfifo), ["a text file is expected"]),
    "an interpolation": (said("seed='${nosuch}'"), ["seed: ", "'nosuch' not found"]),
    "YAML": (
        lambda f: ["sampler=mine", "--config-dir", str(written(f / "conf/sampler/mine.yaml", "a: [1\n").parents[1])],
        ["mine.yaml:2: not YAML"],
    ),
    "a prompt": (
        lambda f: [
            *("generator=openai", "generator.prompt=mine", "llm.key=null", "--config-dir"),
            str(written(f / "conf/prompt/mine.yaml", "user: [1\n").parents[1]),
        ],
        ["prompt/mine.yaml: can't be read as YAML", "line 2"],
    ),
    "a folder that is not there": (
        lambda f: ["--config-dir", f"{f}/none"],
        ["--config-dir=", "there is no such folder"],
    ),
    "a shape": (said("budget=null"), ["budget is missing"]),
}


@pytest.mark.parametrize("case", BY_COMMAND, ids=str)
def test_the_command_ends_with_2_and_one_message(animals, tmp_path, case: str) -> None:
    make, fragments = BY_COMMAND[case]
    found = finished(tmp_path, *animals, "tracking=none", *make(tmp_path), store=tmp_path / "store")
    assert found.returncode == 2, found.stderr
    assert "Traceback" not in found.stderr + found.stdout
    message = found.stderr[found.stderr.index("error: ") :]
    check(message, fragments)
    assert not (tmp_path / "studies").exists()
