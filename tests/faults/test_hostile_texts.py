"""Texts of others stay texts: a terminal obeys none, a model takes none for its instructions, none grants access."""

from __future__ import annotations

import html
import json
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import pytest

from rag_opt.cli.ask import answer_question
from rag_opt.cli.study import run_study
from rag_opt.cli.trial import measure_configuration
from rag_opt.components.llm.endpoint import OpenAIChat
from rag_opt.components.llm.prompts import TAGS
from rag_opt.components.llm.request import Request
from rag_opt.config.quoting import quote_text
from rag_opt.console.terminal import print_error
from rag_opt.errors import RagOptError
from rag_opt.llm.replies import Reply
from tests.conftest import DOCUMENTS, QUESTIONS, write_jsonl
from tests.faults.conftest import Figure
from tests.unit.hostile import COMMANDS, OBEYED, TAGS_SPELT
from tests.unit.scripted import PROMPTS, prompt

# ---- what a terminal would obey, and what grants access

CANARY = "c4nARY0123456789"
ADDRESSES = (
    f"https://b.example/k?sv=2022-11-02&sp=r&sig={CANARY}",
    f"https://b.example/k?X-Amz-Expires=60&X-Amz-Signature={CANARY}",
    f"https://b.example/k?X-Goog-Signature={CANARY}&x=1",
    f"https://b.example/k?Signature={CANARY}&Expires=1",
    f"https://me:{CANARY}@b.example/k",
    f"https://b.example/k#access_token={CANARY}",
)
ESCAPES = (
    *("\x1b[2J", "\x1b[31mred", "\x1b]0;gone\x07", "\x1b]52;c;YQ==\x07", "\x1bP1$r\x1b\\", "\x9b1A", "\x9d0;gone\x9c"),
    *("a\rb", "a\bb", "\x07", "\x7f", "\u202eb", "\u2066b", "\u2028b", "\u2029b", "a\x85b", "a\x0bb", "a\x0cb"),
)
Command = Callable[[], object]


def own(folder: Path, documents: object = DOCUMENTS, questions: object = QUESTIONS, name: str = "d") -> list[str]:
    """The words of a dataset of these rows, whatever its file is called."""
    folder.mkdir(parents=True, exist_ok=True)
    path = write_jsonl(folder / f"{name.replace('/', '|')}.jsonl", documents)
    asking = write_jsonl(folder / "q.jsonl", questions)
    return [
        "dataset=jsonl",
        f"dataset.documents={quote_text(str(path))}",
        f"dataset.questions={quote_text(str(asking))}",
    ]


def beside(words: list[str]) -> list[str]:
    """The words that say nothing of the dataset."""
    return [word for word in words if not word.startswith("dataset")]


def changed(rows: list[dict], change: Callable[[dict], dict]) -> list[dict]:
    return [row | change(row) for row in rows]


def ways(text: str, words: list[str], folder: Path) -> Iterator[tuple[str, Command]]:
    """By the place where a text of others stands, a command that may show it."""
    base = beside(words)
    named = changed(DOCUMENTS, lambda row: {"id": f"{row['id']}{text}", "title": text, "text": f"{text} {row['text']}"})
    sought = changed(QUESTIONS, lambda row: {"relevant": [f"{key}{text}" for key in row["relevant"]]})
    ids = [*base, *own(folder, named, sought)]
    pure = [*base, "retriever=bm25", *own(folder / "pure")]
    yield "ids, titles and texts, asked", lambda: answer_question([*ids, "retriever=bm25", "question=What purrs?"])
    twice = [*named, named[0]]
    yield "ids that occur twice", lambda: run_study([*base, *own(folder / "twice", twice, sought)])
    yield "ids that are not there", lambda: run_study([*base, *own(folder / "gone", DOCUMENTS, sought)])
    keys = changed(QUESTIONS, lambda _: {text: 1})
    yield "a key of a row", lambda: measure_configuration([*base, *own(folder / "keys", DOCUMENTS, keys)])
    yield "a file's name", lambda: measure_configuration([*base, *own(folder / "file", [{"id": 1}], QUESTIONS, text)])
    missing = f"dataset.documents={quote_text(f'{folder}/{text}')}"
    yield "a file that is not there", lambda: measure_configuration([*pure, missing])
    yield "a study's name", lambda: run_study([*pure, f"name={quote_text(text)}"])
    yield "a word", lambda: run_study([*pure, f"{text}=1"])
    yield "a choice", lambda: run_study([*pure, f"retriever={quote_text(text)}"])
    yield "a value", lambda: run_study([*pure, f"n_trials={quote_text(text)}"])
    yield (
        "a model",
        lambda: run_study(
            [*base, *own(folder / "model"), "embedder=hub", f"embedder.encoder.model={quote_text('/' + text)}"]
        ),
    )
    yield "an answer", lambda: answer_question([*pure, "generator=openai", *NO_SERVER, f"question={text}"])


NO_SERVER = ("llm.base_url=http://127.0.0.1:9", "llm.key=null")


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """What a model was asked that repeats the beginning of what it is told."""
    found: list[Request] = []

    def called(_: OpenAIChat, request: Request) -> Reply:
        found.append(request)
        return Reply(request.messages[-1][1][-200:], 9, 9, 0.01)

    monkeypatch.setattr(OpenAIChat, "call_model", called)
    monkeypatch.setattr(OpenAIChat, "stream_reply", lambda self, request, show: _shown(called(self, request), show))
    return found


def _shown(reply: Reply, show: Callable[[str], None]) -> Reply:
    show(reply.text or "")
    return reply


@pytest.mark.usefixtures("said")
def test_a_terminal_is_given_nothing_that_it_obeys_and_nothing_that_grants_access(
    words, tmp_path: Path, long: bool, capsys: pytest.CaptureFixture, figure: Figure
) -> None:
    shown = Counter[str]()
    texts = (*(f"x{escape}y" for escape in ESCAPES), COMMANDS, *ADDRESSES) if long else (COMMANDS + ADDRESSES[1],)
    for number, text in enumerate(texts):
        for place, command in ways(text, [*words, "preflight=true"], tmp_path / str(number)):
            try:
                command()
            except RagOptError as error:
                print_error(error)
            told = "".join(capsys.readouterr())
            assert not OBEYED.search(told), place
            assert CANARY not in told, place
            shown[place] += "\\x" in told or "\\u" in told or "\\r" in told or "***" in told
    assert all(shown.values()), shown
    figure(
        "texts of others at a terminal",
        f"{len(texts)} escape sequences and presigned addresses in {len(shown)} places each: shown "
        f"{shown.total()} times, 0 raw",
    )


# ---- what a model would take for its instructions

OURS = re.compile(rf"</*(?:{'|'.join(TAGS)})(?![a-z])|<[|]|<\uff5c")
UNSEEN = "".join(chr(each) for each in (0xAD, 0x200B, 0x200D, 0x2060, 0xFEFF, 0x180E, 0xFE0F))


def tags(text: str) -> Counter[str]:
    """The tags of ours and of chat templates that a reader of the text sees, however they are spelt."""
    seen = unicodedata.normalize("NFKC", html.unescape(text)).replace("\\", "/").casefold()
    shapeless = "".join(each for each in seen if not each.isspace() and unicodedata.category(each) not in ("Cf", "Mn"))
    return Counter(OURS.findall(shapeless))


def spelt(count: int) -> list[str]:
    """Tags of ours as nobody would write them."""
    chance = Random(0)
    found = list(TAGS_SPELT)
    while len(found) < count:
        name = "".join(chance.choice((each, each.upper(), chr(ord(each) + 0xFEE0))) for each in chance.choice(TAGS))
        pieces = [
            chance.choice(("<", "\uff1c", "&lt;", "&#60;", "&#x3c;")),
            chance.choice(("/", "\\", "\uff0f", "")),
            *name,
        ]
        tail = chance.choice((">", " >", " class='x'>", "\n>", "/>"))
        found.append("".join(f"{each}{chance.choice(('', '', ' ', *UNSEEN))}" for each in pieces) + tail)
    return found


PARTS = [part for path in PROMPTS.glob("*.yaml") for name, part in prompt(path.stem).items() if name != "system"]
WRITTEN = [tags(part) for part in PARTS if isinstance(part, str)]
JSON = json.dumps({"ranking": [1], "relevance": 3, "score": 3, "reason": "so", "queries": ["what"], "query": "what"})
STAGES = (
    ["generator=openai"],
    ["generator=openai", "generator.synthesis=compact_and_refine", "generator.pack_tokens=20"],
    ["generator=openai", "reranker=llm_listwise"],
    ["reranker=llm_pointwise", "query=hyde", "retriever=hybrid"],
    ["query=multi_query", "generator=openai", "objective.report=[judge.correctness,judge.faithfulness]"],
    ["query=rewrite", "generator=openai", "objective.report=[judge.context_relevance,judge.answer_relevance]"],
)


def test_no_text_opens_or_closes_a_tag_of_a_prompt(
    words, tmp_path: Path, long: bool, monkeypatch: pytest.MonkeyPatch, figure: Figure
) -> None:
    """Each spelling in a document, a question, an expected answer and a reply, by every stage that asks a model."""
    texts, asked_for = spelt(2000 if long else 48), list[Request]()

    def called(_: OpenAIChat, request: Request) -> Reply:
        asked_for.append(request)
        return Reply(JSON if request.schema else f"{texts[len(asked_for) % len(texts)]} so", 9, 9, 0.01)

    monkeypatch.setattr(OpenAIChat, "call_model", called)
    rows = [{"id": f"d{place}", "text": f"word{place} {text} it is"} for place, text in enumerate(texts)]
    questions = [
        {"question": f"What is word{place} {text}?", "answer": f"{text} it", "relevant": [f"d{place}"]}
        for place, text in enumerate(texts)
    ]
    given = [*beside(words), *own(tmp_path, rows, questions), *NO_SERVER, "retriever=bm25"]
    for stages in STAGES if long else (STAGES[0], STAGES[2], STAGES[4]):
        measure_configuration([*given, "retriever.top_k=3", "dataset.test_share=0.1", *stages])
    wrong = [request for request in asked_for if tags(request.messages[-1][1]) not in WRITTEN]
    assert [request.messages[-1][1] for request in wrong[:1]] == []
    figure("tags in prompts", f"{len(texts)} spellings in {len(asked_for):,} prompts: 0 open or close a tag of ours")


def test_a_prompt_that_is_too_long_is_not_sent_and_a_long_one_is_said(
    words, tmp_path: Path, long: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, figure: Figure
) -> None:
    sent: list[int] = []

    def called(_: OpenAIChat, request: Request) -> Reply:
        sent.append(request.characters)
        return Reply("so", request.characters // 4, 9, 0.01)

    monkeypatch.setattr(OpenAIChat, "call_model", called)
    lengths = (20_000, 110_000, 410_000, *((1_000_000, 3_000_000) if long else ()))
    for length in lengths:
        rows = [{"id": "a", "text": "purr bark " * (length // 10)}]
        questions = [{"question": f"What is {word}?", "answer": "so", "relevant": ["a"]} for word in ("purr", "bark")]
        given = [
            *beside(words),
            *own(tmp_path / str(length), rows, questions),
            *NO_SERVER,
            "retriever=bm25",
            "generator=openai",
        ]
        measure_configuration([*given, "llm.window=8192"])
        assert ("do not fit llm.window=8192" in capsys.readouterr().err) == (length > 100_000)
        assert max(sent, default=0) < 100_000
        measure_configuration(given)
        assert ("set llm.window" in capsys.readouterr().err) == (length > 100_000)
        assert max(sent) >= length
        sent.clear()
    figure(
        "a prompt too long",
        f"prompts of {lengths[0]:,} to {lengths[-1]:,} characters: above llm.window 0 sent; without it said",
    )
