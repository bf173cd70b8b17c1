"""Texts that are nearly the same: MinHash over runs of words (Broder 1997), found by locality-sensitive hashing."""

from __future__ import annotations

from collections.abc import Sequence

from rag_opt.text.tokenization import split_words

RUN = 5
"""Words of a run."""

ALIKE = 0.8
"""The share of the runs of either that both of two texts have, from which they are nearly the same."""

# A likeness of 0.8 is then estimated with a standard error of √(0.8 · 0.2 / 128) = 0.035.
PERMUTATIONS = 128


def find_near_copies(texts: Sequence[str]) -> list[list[int]]:
    """Groups of places of texts that are nearly the same, in order, each text in one group at most; [] without any."""
    from datasketch import MinHash, MinHashLSH

    index, groups = MinHashLSH(threshold=ALIKE, num_perm=PERMUTATIONS), dict[int, list[int]]()
    leaders: dict[int, int] = {}
    for place, text in enumerate(texts):
        words = split_words(text)
        if not words:
            continue
        # At least one run: a text of fewer words is a run as a whole.
        runs = {" ".join(words[start : start + RUN]).encode() for start in range(max(1, len(words) - RUN + 1))}
        sketch = MinHash(PERMUTATIONS)
        sketch.update_batch(sorted(runs))
        earlier = sorted(index.query(sketch))
        # The leader of what it is like, so that a chain of small changes is one group.
        leaders[place] = leader = leaders[earlier[0]] if earlier else place
        groups.setdefault(leader, []).append(place)
        index.insert(place, sketch)
    return [places for places in groups.values() if len(places) > 1]
