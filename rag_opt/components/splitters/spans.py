"""Where to cut a text: pure functions from a text to character spans [start, end)."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from operator import add

from rag_opt.text.tokenization import Span, find_units, split_long_span

BLANK_LINE = re.compile(r"\n\s*\n")
LINE = re.compile(r"\n")


@dataclass(frozen=True)
class Ruler:
    """How long the parts of a text are, in units at [starts[i], ends[i]), and the `words` between which it is cut.

    `spaces`: whether what lies between two parts counts when they are joined.
    """

    text: str
    words: Sequence[Span]
    starts: Sequence[int]
    ends: Sequence[int]
    spaces: bool = False

    @classmethod
    def from_words(cls, text: str) -> Ruler:
        """Sizes in words; in scripts without spaces in characters."""
        words = find_units(text)
        return cls(text, words, *_split_columns(words))

    @classmethod
    def from_characters(cls, text: str) -> Ruler:
        """Sizes in characters, spaces included."""
        # Ranges, which take no memory however long the text is.
        return cls(text, find_units(text), range(len(text)), range(1, len(text) + 1), spaces=True)

    @classmethod
    def from_tokens(cls, text: str, tokens: Iterable[Span]) -> Ruler:
        """Sizes in these tokens of the text; one that spans too much to be a token counts as several."""
        found = chain.from_iterable(split_long_span(token) for token in tokens if token[0] < token[1])
        return cls(text, find_units(text), *_split_columns(list(found)))

    @property
    def whole(self) -> Span:
        """The text without space at its ends."""
        return trim_span(self.text, (0, len(self.text)))

    def count_units(self, span: Span) -> int:
        """How many units a span holds, wholly or in part."""
        # Those that begin before its end, less those that are over by its start.
        return max(0, bisect_left(self.starts, span[1]) - bisect_right(self.ends, span[0]))

    def cut_pieces(self, span: Span, size: int) -> list[Span]:
        """The words of a span, those of more than `size` units in parts of that size."""
        first, last = bisect_right(self.words, span[0], key=_get_end), bisect_left(self.words, span[1], key=_get_start)
        inside = ((max(start, span[0]), min(end, span[1])) for start, end in self.words[first:last])
        return [
            part
            for word in inside
            for part in ([word] if self.count_units(word) <= size else self._cut_word(word, size))
        ]

    def _cut_word(self, word: Span, size: int) -> list[Span]:
        first, last = bisect_right(self.ends, word[0]), bisect_left(self.starts, word[1])
        ends = [min(self.ends[min(place + size, last) - 1], word[1]) for place in range(first, last, size)]
        # Tokens may share a character; the last part ends where the word does.
        ends = [*sorted({end for end in ends if word[0] < end < word[1]}), word[1]]
        # There is one start more than ends: behind the last end nothing begins.
        return list(zip([word[0], *ends], ends, strict=False))


def _get_start(span: Span) -> int:
    return span[0]


def _get_end(span: Span) -> int:
    return span[1]


def _split_columns(spans: Sequence[Span]) -> tuple[list[int], list[int]]:
    return [start for start, _ in spans], [end for _, end in spans]


def trim_span(text: str, span: Span) -> Span:
    """The span without space at its ends; empty (start = end) when it holds nothing else."""
    start, end = span
    inner = text[start:end]
    first = start + len(inner) - len(inner.lstrip())
    return first, max(first, start + len(inner.rstrip()))


def split_span(text: str, span: Span, separator: re.Pattern[str]) -> list[Span]:
    """The trimmed, non-empty parts of the span that the separator divides it into."""
    start, parts = span[0], []
    for found in separator.finditer(text, *span):
        parts.append((start, found.start()))
        start = found.end()
    parts.append((start, span[1]))
    return [part for part in (trim_span(text, each) for each in parts) if part[0] < part[1]]


def pack_spans(pieces: Sequence[Span], ruler: Ruler, size: int, overlap: int = 0) -> list[Span]:
    """Neighbouring pieces joined while they are of length `size` at most.

    A span begins with as many of the last span's pieces as fit in `overlap`, as long as it can then take a new one.
    """
    lengths = [ruler.count_units(piece) for piece in pieces]
    gaps = [after[0] - before[1] if ruler.spaces else 0 for before, after in pairwise(pieces)]
    # Where each piece begins when all are joined, what lies between them included.
    places: list[int] = list(accumulate(map(add, lengths, gaps), initial=0))

    def joined(first: int, last: int) -> int:
        return places[last] - places[first] + lengths[last]

    out: list[Span] = []
    first = 0
    while first < len(pieces):
        last = first
        while last + 1 < len(pieces) and joined(first, last + 1) <= size:
            last += 1
        out.append((pieces[first][0], pieces[last][1]))
        if last + 1 >= len(pieces):
            break
        begin = last + 1
        # Never back to `first`, or the same span would come again without end.
        while begin - 1 > first and joined(begin - 1, last) <= overlap and joined(begin - 1, last + 1) <= size:
            begin -= 1
        first = begin
    return out


def pack_windows(ruler: Ruler, span: Span, size: int, overlap: int = 0) -> list[Span]:
    """Words joined up to `size`, each span beginning with the last words of the one before, up to `overlap`."""
    return pack_spans(ruler.cut_pieces(span, size), ruler, size, overlap)


def pack_sentences(ruler: Ruler, sentences: Iterable[Span], size: int, overlap: int) -> list[Span]:
    """Whole sentences, packed up to `size`; a longer one is cut between words."""
    pieces = [
        part
        for span in sentences
        for part in ([span] if ruler.count_units(span) <= size else pack_windows(ruler, span, size))
    ]
    return pack_spans(pieces, ruler, size, overlap)


def split_recursively(
    ruler: Ruler, sentences: Sequence[Span], size: int, overlap: int, within: Span | None = None
) -> list[Span]:
    """Paragraphs where they fit in `size`, else lines, else sentences, else words; neighbours packed.

    Of the whole text, or of the characters `within`.
    """

    def in_sentences(span: Span) -> list[Span]:
        # They are those of the whole document: a line may hold a part of one.
        inside = ((max(start, span[0]), min(end, span[1])) for start, end in sentences)
        parts = (trim_span(ruler.text, each) for each in inside if each[0] < each[1])
        return [part for part in parts if part[0] < part[1]]

    levels: list[Callable[[Span], list[Span]]] = [
        lambda span: split_span(ruler.text, span, BLANK_LINE),
        lambda span: split_span(ruler.text, span, LINE),
        in_sentences,
        lambda span: pack_windows(ruler, span, size),
    ]
    return _divide_span(ruler, trim_span(ruler.text, within or (0, len(ruler.text))), levels, size, overlap)


def _divide_span(
    ruler: Ruler, span: Span, levels: Sequence[Callable[[Span], list[Span]]], size: int, overlap: int
) -> list[Span]:
    if span[0] == span[1]:
        return []
    if ruler.count_units(span) <= size or not levels:
        return [span]
    out: list[Span] = []
    waiting: list[Span] = []
    for part in levels[0](span):
        if ruler.count_units(part) <= size:
            waiting.append(part)
            continue
        # What is divided further lies between: parts before it are not packed with parts behind it.
        out += pack_spans(waiting, ruler, size, overlap)
        out += _divide_span(ruler, part, levels[1:], size, overlap)
        waiting = []
    return out + pack_spans(waiting, ruler, size, overlap)


def split_at_breaks(ruler: Ruler, sentences: Sequence[Span], breaks: Sequence[bool], size: int) -> list[Span]:
    """Sentences packed up to `size`, never across a break (`breaks[i]`: between sentence i and i + 1)."""
    out: list[Span] = []
    begin = 0
    for position in range(len(sentences)):
        if position == len(sentences) - 1 or breaks[position]:
            out += pack_sentences(ruler, sentences[begin : position + 1], size, 0)
            begin = position + 1
    return out
