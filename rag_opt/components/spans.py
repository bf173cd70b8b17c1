"""Where to cut a text: pure functions from a text to character spans [start, end)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

Span = tuple[int, int]
WORD = re.compile(r"\S+")
BLANK_LINE = re.compile(r"\n\s*\n")
LINE = re.compile(r"\n")


def words(text: str, span: Span) -> list[Span]:
    """The spans of the runs of non-space characters."""
    return [found.span() for found in WORD.finditer(text, *span)]


def trimmed(text: str, span: Span) -> Span:
    """The span without space at its ends; empty (start = end) when it holds nothing else."""
    start, end = span
    inner = text[start:end]
    first = start + len(inner) - len(inner.lstrip())
    return first, max(first, start + len(inner.rstrip()))


def between(text: str, span: Span, separator: re.Pattern[str]) -> list[Span]:
    """The trimmed, non-empty parts of the span that the separator divides it into."""
    start, parts = span[0], []
    for found in separator.finditer(text, *span):
        parts.append((start, found.start()))
        start = found.end()
    parts.append((start, span[1]))
    return [part for part in (trimmed(text, each) for each in parts) if part[0] < part[1]]


def windows(units: Sequence[Span], size: int, overlap: int = 0) -> list[Span]:
    """Spans of `size` units, each beginning `size - overlap` units after the one before."""
    step = size - overlap
    starts = range(0, max(1, len(units) - overlap), step) if units else range(0)
    return [(units[first][0], units[min(first + size, len(units)) - 1][1]) for first in starts]


def packed(pieces: Sequence[Span], lengths: Sequence[int], size: int, overlap: int = 0) -> list[Span]:
    """Neighbouring pieces joined while their lengths add up to at most `size`.

    A span begins with as many of the last span's pieces as fit in `overlap`, as long as it can then take a new one.
    """
    out: list[Span] = []
    first = 0
    while first < len(pieces):
        last, total = first, lengths[first]
        while last + 1 < len(pieces) and total + lengths[last + 1] <= size:
            last += 1
            total += lengths[last]
        out.append((pieces[first][0], pieces[last][1]))
        if last + 1 >= len(pieces):
            break
        first = _step_back(lengths, first, last, size, overlap)
    return out


def _step_back(lengths: Sequence[int], first: int, last: int, size: int, overlap: int) -> int:
    begin, repeated = last + 1, 0
    while begin - 1 > first and repeated + lengths[begin - 1] <= overlap:
        if repeated + lengths[begin - 1] + lengths[last + 1] > size:
            break
        begin -= 1
        repeated += lengths[begin]
    return begin


def pieces_of(text: str, spans: Iterable[Span], size: int) -> tuple[list[Span], list[int]]:
    """The spans and their lengths in words; a span of more than `size` words is cut into windows of `size`."""
    pieces: list[Span] = []
    lengths: list[int] = []
    for span in spans:
        units = words(text, span)
        parts = [span] if len(units) <= size else windows(units, size)
        pieces += parts
        lengths += [len(units)] if len(units) <= size else [len(words(text, part)) for part in parts]
    return pieces, lengths


def by_sentence(text: str, sentences: Sequence[Span], size: int, overlap: int) -> list[Span]:
    """Whole sentences, packed up to `size` words."""
    return packed(*pieces_of(text, sentences, size), size, overlap)


def recursive(text: str, sentences: Sequence[Span], size: int, overlap: int) -> list[Span]:
    """Paragraphs where they fit in `size` words, else lines, else sentences, else words; neighbours packed."""

    def in_sentences(_: str, span: Span) -> list[Span]:
        inside = ((max(start, span[0]), min(end, span[1])) for start, end in sentences)
        return [part for part in (trimmed(text, each) for each in inside if each[0] < each[1]) if part[0] < part[1]]

    levels: list[Callable[[str, Span], list[Span]]] = [
        lambda text, span: between(text, span, BLANK_LINE),
        lambda text, span: between(text, span, LINE),
        in_sentences,
        lambda text, span: windows(words(text, span), size),
    ]
    return _divided(text, trimmed(text, (0, len(text))), levels, size, overlap)


def _divided(
    text: str, span: Span, levels: Sequence[Callable[[str, Span], list[Span]]], size: int, overlap: int
) -> list[Span]:
    if span[0] == span[1]:
        return []
    if len(words(text, span)) <= size or not levels:
        return [span]
    out: list[Span] = []
    waiting: list[Span] = []
    for part in levels[0](text, span):
        if len(words(text, part)) <= size:
            waiting.append(part)
            continue
        out += packed(*pieces_of(text, waiting, size), size, overlap)
        out += _divided(text, part, levels[1:], size, overlap)
        waiting = []
    return out + packed(*pieces_of(text, waiting, size), size, overlap)


def at_breaks(text: str, sentences: Sequence[Span], breaks: Sequence[bool], size: int) -> list[Span]:
    """Sentences packed up to `size` words, never across a break (`breaks[i]`: between sentence i and i + 1)."""
    out: list[Span] = []
    begin = 0
    for position in range(len(sentences)):
        if position == len(sentences) - 1 or breaks[position]:
            out += by_sentence(text, sentences[begin : position + 1], size, 0)
            begin = position + 1
    return out
