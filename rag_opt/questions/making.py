"""Questions made from documents: written and sifted in rounds until there are enough, then checked like any others."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from rag_opt.config.stages import FILES
from rag_opt.config.trial import compose_trial
from rag_opt.config.trust import to_plain
from rag_opt.console.progress import track
from rag_opt.datasets.checks import Judgement, build_dataset
from rag_opt.datasets.files import resolve_path
from rag_opt.datasets.folder import list_files
from rag_opt.errors import ConfigError
from rag_opt.evaluation.evaluator import load_dataset
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.llm.client import Rehearsal
from rag_opt.llm.replies import Expenses
from rag_opt.questions.check import SEARCH, QuestionCheck, check_questions
from rag_opt.questions.flags import SHARED
from rag_opt.questions.kinds import SENTENCE, UNANSWERABLE, MadeQuestion, Target
from rag_opt.questions.sifting import REASONS, Sifted, sift_questions
from rag_opt.questions.targets import draw_sentences, draw_targets
from rag_opt.records.documents import Document, Documents, Query, Quote
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Chunks
from rag_opt.study.forecast import price_calls

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from rag_opt.components.resources import Resources
    from rag_opt.questions.searching import Search
    from rag_opt.questions.writing import Author

MORE, MORE_SIMPLE = 4, 10
"""At most so many questions are written for one that is wanted; of a small model's fewer are of use."""

ROUND = 40
"""Questions that are written before it is looked how many are left."""


@dataclass(frozen=True)
class MadeSet:
    """Questions about `documents`: `check` of those with an answer, which are in `made` by id; `written` are all."""

    sifted: Sifted
    written: int
    check: QuestionCheck
    made: Mapping[str, MadeQuestion]
    documents: tuple[Document, ...]

    @property
    def unanswerable(self) -> list[MadeQuestion]:
        """Those that the documents do not answer, as far as can be told."""
        return [made for made in self.sifted.kept if made.target.kind == UNANSWERABLE]

    def build_rows(self) -> list[dict[str, Any]]:
        """The questions with an answer as rows of JSON Lines, with quotes, kind, difficulty and flags."""
        rows = []
        for each in self.check.questions:
            made = self.made[each.query.id]
            # By words alone: which document is meant is easy to see, hard, or not to be seen.
            difficulty = "easy" if each.rank == 1 else "medium" if each.rank else "hard"
            # Quotes, not characters: these are another parser's.
            evidence = [{"doc_id": quote.document_id, "quote": quote.text} for quote in _build_quotes(made)]
            kind = {"kind": made.target.kind, "difficulty": difficulty}
            rows.append({**each.to_row(), "evidence": evidence, **kind})
        return rows


def read_documents(config: DictConfig, resources: Resources, words: Sequence[str]) -> Documents:
    """The documents that a configuration names, read by its parser; of a folder no questions are needed."""
    node = to_plain(config.dataset)
    if node.get(FILES):
        folder = resolve_path(node["path"], "dataset.path")
        items: tuple[Document, ...] = list_files(folder, node["include"], node["ignore"], node["most_mb"]).files
    else:
        items = load_dataset(config).documents
    given = Documents(items, compute_key("documents", [each.content for each in items]))
    documents = build_pipeline(compose_trial([*words, *SEARCH]), resources).parse_documents(given)
    # What gave no text was said by the parser; nothing can be asked about it.
    read = tuple(each for each in documents.items if each.text.strip())
    if len(read) == len(documents.items):
        return documents
    # Another key: what is made of these is not what would be made of all.
    return replace(documents, items=read, key=compute_key("read", documents.key, [each.id for each in read]))


def cut_passages(documents: Documents, resources: Resources, words: Sequence[str]) -> Chunks:
    """The documents cut by the configuration's splitter."""
    pipeline = build_pipeline(compose_trial([*words, *SEARCH]), resources)
    splitter = next((part.component for part in pipeline.parts if part.stage == "splitter"), None)
    if splitter is None:
        raise ConfigError(
            "rag_opt.questions make: a pipeline of your own says nothing of how documents are cut; leave pipeline=… "
            "out, or choose a splitter: splitter=sentence"
        )
    chunks: Chunks = splitter.run(documents=documents)["chunks"]
    return chunks


def forecast_making(author: Author, targets: Sequence[Target], resources: Resources) -> Expenses:
    """What writing and sifting a question for each target will cost where all of them are left: no model is asked."""
    counted = Rehearsal()
    rehearsed = author.use_resources(replace(resources, llm=replace(resources.llm, rehearsal=counted)))
    sift_questions(rehearsed, targets)
    means = resources.llm.replies.get_means()
    stages = [price_calls(name, list(rows.values()), 1.0, means) for name, rows in counted.new.items()]
    columns = [vars(stage) for stage in stages]
    return Expenses(**{name: sum(column[name] for column in columns) for name in vars(Expenses())})


def choose_targets(chunks: Chunks, count: int, seed: int, *, simple: bool) -> list[Target]:
    """What so many questions are made of: passages, or (`simple`) one sentence each, as small models need it."""
    return (draw_sentences if simple else draw_targets)(chunks, count, seed)


def get_most(*, simple: bool) -> int:
    """How many questions are written at most for one that is wanted."""
    return MORE_SIMPLE if simple else MORE


def make_questions(
    author: Author, chunks: Chunks, count: int, seed: int, *, simple: bool, search: Search | None = None
) -> tuple[Sifted, int]:
    """So many questions, fewer where the passages are used up, and how many were written for them.

    The targets are the same for the same documents, count and seed, and replies are kept: who is interrupted goes on.
    """
    targets, place = choose_targets(chunks, get_most(simple=simple) * count, seed, simple=simple), 0
    kept, dropped, examples = list[MadeQuestion](), Counter[str](), dict[str, str]()
    with track("questions made", count) as advance:
        while place < len(targets) and len(kept) < count:
            # At least 0.1: it divides below, and is 0 as long as nothing is left.
            share = max(0.1, len(kept) / place) if place else 1.0
            size = min(ROUND, max(5, math.ceil((count - len(kept)) / share)))
            found = sift_questions(author, targets[place : place + size], kept, search)
            place += len(targets[place : place + size])
            new = found.kept[: count - len(kept)]
            kept += new
            dropped.update(found.dropped)
            examples |= {reason: told for reason, told in found.examples.items() if reason not in examples}
            advance(len(new))
    in_order = {reason: dropped[reason] for reason in REASONS if dropped[reason]}
    return Sifted(tuple(kept), in_order, examples), place


def check_made(
    sifted: Sifted, written: int, documents: Documents, words: Sequence[str], resources: Resources
) -> MadeSet:
    """The questions with an answer as a data set, checked; a document that answers one as well becomes relevant."""
    asked = [made for made in sifted.kept if made.target.kind != UNANSWERABLE]
    named = {f"q{number}": made for number, made in enumerate(asked, 1)}
    queries = [Query(name, made.question, made.answers, quotes=_build_quotes(made)) for name, made in named.items()]
    judgements = [
        Judgement(name, each, 1) for name, made in named.items() for each in _find_documents(made.target, documents)
    ]

    def check(judged: Sequence[Judgement]) -> QuestionCheck:
        return check_questions(build_dataset("questions", documents.items, queries, judged), words, resources)

    found = check(judgements)
    more = [
        Judgement(each.query.id, document, 1)
        for each in found.questions
        for flag in each.flags
        for document in (flag.documents if flag.name == SHARED else ())
    ]
    # Once more with these: ranks and flags depend on what is relevant.
    return MadeSet(sifted, written, check([*judgements, *more]) if more else found, named, documents.items)


def _build_quotes(made: MadeQuestion) -> tuple[Quote, ...]:
    pairs = zip(made.quotes, made.target.passages, strict=True)
    return tuple(Quote(passage.document_id, quote) for quote, passage in pairs)


def _find_documents(target: Target, documents: Documents) -> list[str]:
    own = [passage.document_id for passage in target.passages]
    # A sentence is the whole answer: whoever holds it answers as well.
    text = target.passages[0].text if target.kind == SENTENCE else ""
    return list(dict.fromkeys([*own, *(each.id for each in documents.items if text and text in each.text)]))
