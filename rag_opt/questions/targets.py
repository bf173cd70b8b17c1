"""Which passages questions are made of: documents in turn, in each its sections in turn, at random within these."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from itertools import islice

from rag_opt.questions.kinds import COMPARISON, SENTENCE, SHARES, Passage, Target
from rag_opt.records.documents import Documents, find_headings
from rag_opt.records.products import Chunks
from rag_opt.text.tokenization import split_words

SHORTEST = 80
"""Characters below which a passage says too little."""

SENTENCE_LENGTH = range(50, 301)
"""Characters of a sentence that a question is made of."""

PLAIN = 0.8
"""The share of its characters that are letters and spaces at least: the others are tables, code and links."""

LOOK = 50
"""Passages among which the one to compare with is looked for."""


def draw_targets(chunks: Chunks, count: int, seed: int) -> list[Target]:
    """So many targets, fewer where the passages are used up; the kinds by their shares, mixed.

    Long documents are asked about as often as short ones until those have no passage left.
    """
    passages = list(_iterate_passages(chunks, seed))
    targets = list[Target]()
    for kind in _mix_kinds(count, seed):
        if len(passages) < (2 if kind == COMPARISON else 1):
            continue
        first = passages.pop(0)
        chosen = (first, _take_nearest(passages, first)) if kind == COMPARISON else (first,)
        targets.append(Target(kind, chosen))
    return targets


def draw_sentences(chunks: Chunks, count: int, seed: int) -> list[Target]:
    """So many targets of one sentence each, fewer where there are no more: passages in turn, each once, then again."""
    draw, found = random.Random(seed), list[list[Passage]]()
    for passage in _iterate_passages(chunks, seed):
        sentences = [cut for sentence in passage.sentences if (cut := _narrow(passage, sentence.strip()))]
        draw.shuffle(sentences)
        found.append(sentences)
    rounds = range(max(map(len, found), default=0))
    drawn = (sentences[turn] for turn in rounds for sentences in found if turn < len(sentences))
    return [Target(SENTENCE, (each,)) for each in islice(drawn, count)]


def _narrow(passage: Passage, sentence: str) -> Passage | None:
    """The sentence alone, where it is one of plain words."""
    letters = sum(each.isalpha() or each == " " for each in sentence)
    start = passage.text.find(sentence)
    if len(sentence) not in SENTENCE_LENGTH or letters < PLAIN * len(sentence) or start < 0:
        return None
    start += passage.start
    return Passage(passage.document_id, start, start + len(sentence), sentence)


def _take_nearest(passages: list[Passage], first: Passage) -> Passage:
    """Of the next passages of other documents the one with most words in common, which is removed."""
    words = frozenset(split_words(first.text, least=4))
    # Where all of them are of its own document, the next one has to do.
    near = [place for place, each in enumerate(passages[:LOOK]) if each.document_id != first.document_id] or [0]
    best = max(near, key=lambda place: len(words & frozenset(split_words(passages[place].text, least=4))))
    return passages.pop(best)


def _mix_kinds(count: int, seed: int) -> list[str]:
    """So many kinds, as near to their shares as whole numbers come, in a random order."""
    wanted = {kind: share * count for kind, share in SHARES.items()}
    kinds = [kind for kind, number in wanted.items() for _ in range(int(number))]
    # Largest remainders first (Hamilton's method).
    rest = sorted(wanted, key=lambda kind: int(wanted[kind]) - wanted[kind])
    kinds += rest[: count - len(kinds)]
    random.Random(seed).shuffle(kinds)
    return kinds


def _iterate_passages(chunks: Chunks, seed: int) -> Iterator[Passage]:
    """All passages: one of each document in turn, those of a document by its sections in turn."""
    draw, documents = random.Random(seed), chunks.documents
    rows_of: dict[int, list[int]] = defaultdict(list)
    for row, document in enumerate(chunks.document_rows.tolist()):
        if len(chunks.texts[row].strip()) >= SHORTEST:
            rows_of[document].append(row)
    queues = [list(_order_rows(chunks, documents, rows, draw)) for rows in rows_of.values()]
    draw.shuffle(queues)
    while queues:
        for queue in queues:
            row = queue.pop()
            document = documents.items[chunks.document_rows[row]]
            yield Passage(document.id, int(chunks.starts[row]), int(chunks.ends[row]), chunks.texts[row])
        queues = [queue for queue in queues if queue]


def _order_rows(chunks: Chunks, documents: Documents, rows: Sequence[int], draw: random.Random) -> Iterator[int]:
    """The chunks of a document, one of each section in turn, last ones first."""
    sections: dict[tuple[str, ...], list[int]] = defaultdict(list)
    for row in rows:
        sections[find_headings(documents.items[chunks.document_rows[row]], int(chunks.starts[row]))].append(row)
    queues = list(sections.values())
    for queue in queues:
        draw.shuffle(queue)
    draw.shuffle(queues)
    turns = [row for turn in range(max(map(len, queues))) for queue in queues for row in queue[turn : turn + 1]]
    # Passages are taken from the end of these lists.
    yield from reversed(turns)
