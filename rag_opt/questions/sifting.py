"""What is sifted out of the questions that a model has written, each for the first reason that applies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rag_opt.components.tokenization import Reading, tokenize_texts
from rag_opt.datasets.duplicates import group_repeats
from rag_opt.metrics.answer import token_f1
from rag_opt.questions.flags import POINTS, find_copy, holds
from rag_opt.questions.kinds import COMPARISON, REASON, SENTENCE, UNANSWERABLE, MadeQuestion, Target
from rag_opt.records.documents import Query
from rag_opt.text.tokenization import split_words

if TYPE_CHECKING:
    from rag_opt.questions.searching import Search
    from rag_opt.questions.writing import Author

UNREAD = "nothing readable was written"
UNFOUNDED = "its answer is not in the sentence that it names"
ASTRAY = "asks about something else than its sentence"
DANGLING = "points at what who asks can't see"
COPIED = "most of it is copied from the text"
ELSEWHERE = "a search for it finds another document first"
REPEATED = "asks what another one asks"
CLOSED = "the model answers it without the text"
LOST = "the model can't answer it from that sentence"
REASONS = (UNREAD, UNFOUNDED, ASTRAY, DANGLING, COPIED, ELSEWHERE, REPEATED, CLOSED, LOST)
"""Why a question is left out, in the order in which that is looked at."""

ABOUT = 2
"""Words that a question has in common with the sentence that it was made of at least, and half of its own."""

IN_QUOTE = 0.5
"""The share of an answer's words that its quote holds at least."""

CONTENT = 4
"""Letters from which a word says what a text is about."""

WORDS = "what when where which whose does have this that these those there with from mean many much"
ASKING = frozenset(WORDS.split())
"""Words of questions that say nothing of what these are about."""

ALIKE = 0.5
"""The token F1 from which two answers are taken to say the same, where none holds the other."""


@dataclass(frozen=True)
class Sifted:
    """The questions that are left, and how many were left out for each reason; `examples` are the first of these."""

    kept: tuple[MadeQuestion, ...]
    dropped: Mapping[str, int]
    examples: Mapping[str, str]


def sift_questions(
    author: Author, targets: Sequence[Target], earlier: Sequence[MadeQuestion] = (), search: Search | None = None
) -> Sifted:
    """Have a question written for each target, and leave out what is none to trust, or repeats an earlier one.

    Those that have no answer of a few words can't be answered again: of one sentence each they are searched for
    instead, where there is a `search`; those that are to have no answer are sifted by their words alone.
    """
    written = author.write(targets)
    dropped, examples = Counter[str](), dict[str, str]()

    def drop(reason: str, made: MadeQuestion | None) -> None:
        dropped[reason] += 1
        examples.setdefault(reason, "" if made is None else made.question)

    left = list[MadeQuestion]()
    for made in written:
        reason = UNREAD if made is None else find_reason(made)
        if made is None or reason:
            drop(reason, made)
        else:
            left.append(made)
    # Before repeats: of two that ask the same the one is left whose own document is found.
    left = _split(left, _find_elsewhere(left, search), ELSEWHERE, drop)
    # Earlier ones come first, so of two that ask the same the new one goes.
    left = _split(left, _find_repeats([*earlier, *left])[len(earlier) :], REPEATED, drop)
    # Asking the model again comes last, since each answer has to be paid for.
    asked = [made for made in left if made.answer]
    known = dict(zip(map(id, asked), author.answer_alone(asked), strict=True))
    left = _split(left, [_says_same(made, known.get(id(made))) for made in left], CLOSED, drop)
    asked = [made for made in left if made.answer]
    read = dict(zip(map(id, asked), author.answer_from(asked), strict=True))
    lost = [id(made) in read and not _says_same(made, read[id(made)]) for made in left]
    return Sifted(tuple(_split(left, lost, LOST, drop)), dropped, examples)


def _split(
    made: Sequence[MadeQuestion], out: Sequence[bool], reason: str, drop: Callable[[str, MadeQuestion], None]
) -> list[MadeQuestion]:
    """Those that are not out; the others are dropped."""
    for each, gone in zip(made, out, strict=True):
        if gone:
            drop(reason, each)
    return [each for each, gone in zip(made, out, strict=True) if not gone]


def find_reason(made: MadeQuestion) -> str:
    """Why a question is left out by its words alone; "" where nothing speaks against it."""
    passages = made.target.passages
    if made.target.kind == SENTENCE:
        if not _is_about(made.question, made.quotes[0]):
            return ASTRAY
    # Reasons and comparisons are answered in words of one's own, and the last kind has no answer.
    elif made.target.kind not in (REASON, COMPARISON, UNANSWERABLE) and not _is_in(made.answer, made.quotes[0]):
        return UNFOUNDED
    if POINTS.search(made.question):
        return DANGLING
    return COPIED if find_copy(made.question, [passage.text for passage in passages]) else ""


def _is_about(question: str, sentence: str) -> bool:
    asked, said = (
        {word for word in words if len(word) >= CONTENT and word not in ASKING}
        for words in tokenize_texts((question, sentence), Reading(None, "english"))
    )
    return len(asked & said) >= max(ABOUT, len(asked) / 2)


def _is_in(answer: str, quote: str) -> bool:
    words, held = split_words(answer), frozenset(split_words(quote))
    return bool(words) and sum(word in held for word in words) >= IN_QUOTE * len(words)


def _find_repeats(made: Sequence[MadeQuestion]) -> list[bool]:
    queries = [Query(str(place), each.question, each.answers) for place, each in enumerate(made)]
    qrels = {str(place): {p.document_id: 1 for p in each.target.passages} for place, each in enumerate(made)}
    leaders = group_repeats(queries, qrels).tolist() if queries else []
    return [leader != place for place, leader in enumerate(leaders)]


def _find_elsewhere(made: Sequence[MadeQuestion], search: Search | None) -> list[bool]:
    asked = [each for each in made if each.target.kind == SENTENCE]
    found = dict(zip(map(id, asked), search(asked), strict=True)) if search is not None else {}
    # What was not searched for stays.
    return [not found.get(id(each), True) for each in made]


def _says_same(made: MadeQuestion, answer: str | None) -> bool:
    """Whether an answer is the question's own, or holds it."""
    return bool(answer) and (token_f1(str(answer), made.answer) >= ALIKE or holds(str(answer), [made.answer]))
