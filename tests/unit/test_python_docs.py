"""The embedded questions against every CPython on the machine."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from rag_opt.datasets import python_docs

DUMP = "import json, sys, pydoc_data.topics as t; sys.stdout.write(json.dumps([sys.version_info[:3], t.topics]))"


def interpreters() -> list[str]:
    """Every Python from 3.11 on: on the path, in pyenv, the one that runs."""
    found = [sys.executable]
    found += [path for minor in range(11, 20) if (path := shutil.which(f"python3.{minor}"))]
    found += map(str, Path.home().glob(".pyenv/versions/*/bin/python3"))
    found += map(str, Path("/usr/bin").glob("python3.[0-9]*"))
    return list(dict.fromkeys(found))


def topics_of(interpreter: str) -> tuple[tuple[int, int, int], dict[str, str]] | None:
    done = subprocess.run([interpreter, "-c", DUMP], capture_output=True, text=True, timeout=60)
    if done.returncode:
        return None
    version, topics = json.loads(done.stdout)
    return tuple(version), topics


VERSIONS = {
    found[0]: found[1] for name in interpreters() if (found := topics_of(name)) and (3, 11) <= found[0][:2] < (3, 14)
}


def test_there_are_enough_questions_from_plain_to_hard() -> None:
    rows = python_docs.read_questions()
    assert len(rows) >= 400
    levels = Counter(row["level"] for row in rows)
    assert min(levels["plain"], levels["medium"], levels["hard"]) >= 80
    assert sum(len(row["evidence"]) > 1 for row in rows) >= 80
    assert len({row["question"].lower() for row in rows}) == len({row["id"] for row in rows}) == len(rows)
    assert all(1 <= len(row["answer"].split()) <= 25 for row in rows)


@pytest.mark.parametrize("version", sorted(VERSIONS), ids=lambda version: ".".join(map(str, version)))
def test_every_gold_topic_and_quote_is_in_this_python(version: tuple[int, int, int]) -> None:
    topics = {name: " ".join(text.split()) for name, text in VERSIONS[version].items()}
    for row in python_docs.read_questions():
        for gold in row["evidence"]:
            assert gold["topic"] in topics, row["id"]
            assert " ".join(gold["quote"].split()) in topics[gold["topic"]], row["id"]


@pytest.mark.parametrize("version", sorted(VERSIONS), ids=lambda version: ".".join(map(str, version)))
def test_questions_are_in_our_own_words(version: tuple[int, int, int]) -> None:
    """No eight words of a question in a row stand in the documentation."""
    corpus = " ".join(re.findall(r"\w+", " ".join(VERSIONS[version].values()).lower()))
    for row in python_docs.read_questions():
        words = re.findall(r"\w+", row["question"].lower())
        for start in range(len(words) - 7):
            assert " ".join(words[start : start + 8]) not in corpus, row["id"]


def test_the_dataset_carries_evidence_that_says_what_was_quoted() -> None:
    dataset = python_docs.load()
    texts = {document.id: document.text for document in dataset.documents}
    quotes = {row["id"]: [gold["quote"] for gold in row["evidence"]] for row in python_docs.read_questions()}
    for query in dataset.queries:
        spans = [texts[span.document_id][span.start : span.end] for span in query.evidence]
        assert [" ".join(span.split()) for span in spans] == [" ".join(quote.split()) for quote in quotes[query.id]]
        assert set(dataset.qrels[query.id]) == {span.document_id for span in query.evidence}
