"""Answers by a language model from what was retrieved: all at once, refined pack by pack, or summarised as a tree."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING

from rag_opt.components.checks import require, require_whole
from rag_opt.components.llm.prompts import Prompt, build_messages, check_prompt, number_texts
from rag_opt.components.llm.request import Request, Sampling, check_model
from rag_opt.components.stage import Stage
from rag_opt.records.documents import Queries
from rag_opt.records.keys import compute_key
from rag_opt.records.products import Answers, Rankings, sum_tokens
from rag_opt.system.haystack import component
from rag_opt.text.tokenization import count_tokens

if TYPE_CHECKING:
    from rag_opt.components.llm.chat import Chat
    from rag_opt.components.llm.talks import Talk

Show = Callable[[str], None]

_show: ContextVar[Show | None] = ContextVar("show", default=None)


@contextmanager
def show_pieces(show: Show) -> Iterator[None]:
    """Within it `show` is given the pieces of answers as they come: one request of a server has its own."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)


FIELDS = {
    "user": ("question", "documents"),
    "refine": ("question", "documents", "answer"),
    "combine": ("question", "documents"),
    "alone": ("question",),
}


@component
class Synthesis(Stage):
    """An answer a query by a language model.

    - stuff: everything in one call;
    - compact_and_refine: packs of up to `pack_tokens`; the first gives an answer, each further one may improve it;
    - tree_summarize: each pack gives an answer, packs of answers give one again, until one is left.

    Within `show_pieces` the pieces of the final answer are shown as they come. Without any document the model answers
    from what it knows. A call that fails leaves no answer: not measurable.
    """

    algorithm = "rag_opt.components.synthesis.Synthesis"

    pays_per_query = True

    def __init__(
        self,
        chat: Chat,
        model: str,
        prompt: Prompt,
        synthesis: str,
        pack_tokens: int,
        temperature: float,
        max_tokens: int,
        top_p: float,
        seed: int,
    ) -> None:
        require(synthesis in MODES, f"synthesis must be one of {', '.join(MODES)}, not {synthesis}")
        require_whole("pack_tokens", pack_tokens)
        check_model(model)
        check_prompt(prompt, FIELDS)
        self.chat = chat
        self.model = model
        self.prompt = prompt
        self.synthesis = synthesis
        self.pack_tokens = pack_tokens
        self.temperature = temperature
        self.max_tokens = max_tokens
        self.top_p = top_p
        self.seed = seed
        self._sampling = Sampling(temperature, max_tokens, top_p, seed)

    @component.output_types(answers=Answers)
    def run(self, queries: Queries, context: Rankings) -> dict[str, Answers]:
        given = [(text, context.get_texts(row)) for row, text in enumerate(queries.texts)]
        # Looked up here: the calls are made in threads of their own, which do not know it.
        talks = self.chat.map_items("generator", partial(self._answer, _show.get()), given)
        key, usage = compute_key(self.fingerprint, queries.key, context.key), talks.usage
        tokens = sum_tokens({**context.usage, key: usage}, len(given))
        costs = {**context.costs, key: talks.seconds}
        return {"answers": Answers(tuple(talks.results), tokens, key, costs, {**context.usage, key: usage})}

    def _answer(self, shown: Show | None, talk: Talk, given: tuple[str, list[str]]) -> str | None:
        question, texts = given

        pieces: list[str] = []

        def show(piece: str) -> None:
            assert shown is not None
            pieces.append(piece)
            shown(piece)

        def ask(part: str, *, last: bool, **values: str) -> str | None:
            said = build_messages(self.prompt, part, question=question, **values)
            return talk.ask(Request(self.model, said, self._sampling), show if last and shown else None)

        answer = MODES[self.synthesis](ask, texts, self.pack_tokens) if texts else ask("alone", last=True)
        if shown is not None and answer is not None and "".join(pieces) != answer:
            # The last call failed or came to nothing: the answer is an earlier one.
            show(f"\n{answer}" if pieces else answer)
        return answer


Ask = Callable[..., str | None]
"""ask(part of the prompt, last=whether its text is the answer, **values) → the model's text, None where it failed."""


def stuff(ask: Ask, texts: Sequence[str], pack_tokens: int) -> str | None:
    """One call that holds everything."""
    del pack_tokens
    return ask("user", last=True, documents=number_texts(texts))


def compact_and_refine(ask: Ask, texts: Sequence[str], pack_tokens: int) -> str | None:
    """As many calls as there are packs, each but the first with the answer so far; one that fails changes nothing."""
    grouped = pack_texts(texts, pack_tokens)
    answer: str | None = None
    for place, pack in enumerate(grouped, 1):
        last = place == len(grouped)
        if answer is None:
            answer = ask("user", last=last, documents=number_texts(pack))
        else:
            answer = ask("refine", last=last, documents=number_texts(pack), answer=answer) or answer
    return answer


def tree_summarize(ask: Ask, texts: Sequence[str], pack_tokens: int) -> str | None:
    """Answers of packs, then answers from these, until there is one; of calls that fail nothing is taken up."""
    part, level = "user", list(texts)
    while True:
        grouped = pack_texts(level, pack_tokens)
        if part == "combine" and len(grouped) == len(level):
            # Answers too long for a pack with others: two by two, or it would never end.
            grouped = [level[start : start + 2] for start in range(0, len(level), 2)]
        found = [ask(part, last=len(grouped) == 1, documents=number_texts(pack)) for pack in grouped]
        level = [answer for answer in found if answer is not None]
        if len(level) <= 1:
            return level[0] if level else None
        part = "combine"


def pack_texts(texts: Sequence[str], pack_tokens: int) -> list[list[str]]:
    """Neighbouring texts together while they have up to `pack_tokens` words and marks; a longer one stands alone."""
    found: list[list[str]] = []
    room = 0
    for text in texts:
        size = count_tokens(text)
        if not found or size > room:
            found.append([])
            room = pack_tokens
        found[-1].append(text)
        room -= size
    return found


MODES: dict[str, Callable[[Ask, Sequence[str], int], str | None]] = {
    "stuff": stuff,
    "compact_and_refine": compact_and_refine,
    "tree_summarize": tree_summarize,
}
