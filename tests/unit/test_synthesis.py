"""Answers from many documents: prompts that stay what they are, packs, refining, the tree, and what calls cost."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rag_opt.cache.store import Store
from rag_opt.components.generators.synthesis import (
    MODES,
    Synthesis,
    compact_and_refine,
    pack_texts,
    show_pieces,
    stuff,
    tree_summarize,
)
from rag_opt.components.llm.prompts import TAGS, build_messages, check_prompt, number_texts
from rag_opt.components.llm.reply_text import parse_json
from rag_opt.components.resources import Resources
from rag_opt.errors import ComponentError
from rag_opt.records.products import Usage
from rag_opt.text.tokenization import count_tokens
from tests.unit.hostile import HOSTILE, TAGS_SPELT
from tests.unit.scripted import FAILS, PROMPTS, Scripted, prompt, saying, spent, text_of
from tests.unit.test_components import asked, chunked, ranking

# ---- prompts

BARE = {"user": "D {documents} Q {question} J {{x}}"}
FILLED_IN = ("documents", "document", "question", "answer", "reference", "existing", "count", "passage", "other")
PARTS = [
    (path.stem, part)
    for path in sorted(PROMPTS.glob("*.yaml"))
    for part in prompt(path.stem)
    if isinstance(prompt(path.stem)[part], str) and part != "system"
]


def told(said: tuple[tuple[str, str], ...]) -> str:
    return said[-1][1]


def tags(text: str) -> dict[str, int]:
    """How often each of our tags is opened or closed, however it is written."""
    return {tag: len(re.findall(rf"<\s*/?\s*{tag}\b", text, re.IGNORECASE)) for tag in TAGS}


@pytest.mark.parametrize(
    "text", ["{documents}", "{question}", "{{question}}", "{", "}", "{}", "{{", "{0}", r"\1 \g<0>"]
)
def test_what_is_filled_in_is_never_filled_in_again(text: str) -> None:
    said = told(build_messages(BARE, documents=f"d{text}", question=f"q{text}"))
    assert said == f"D d{text} Q q{text} J {{x}}"


def test_a_field_in_braces_of_its_own_is_filled_in() -> None:
    assert told(build_messages({"user": "{{{question}}}"}, question="why")) == "{why}"


def test_the_system_message_comes_first_and_is_left_out_where_there_is_none() -> None:
    assert build_messages({"system": " Be brief.\n", "user": "{question}"}, question="why") == (
        ("system", "Be brief."),
        ("user", "why"),
    )
    assert build_messages({"system": "", "user": "{question}"}, question="why") == (("user", "why"),)


def test_there_are_twenty_hostile_texts() -> None:
    assert len(set(HOSTILE)) == 20


@pytest.mark.parametrize("number", range(len(HOSTILE)))
@pytest.mark.parametrize(("name", "part"), PARTS)
def test_no_text_opens_or_closes_a_tag_of_ours(name: str, part: str, number: int) -> None:
    template = prompt(name)[part]
    values = dict.fromkeys(FILLED_IN, HOSTILE[number])
    said = told(build_messages(prompt(name), part, **{**values, "documents": number_texts([HOSTILE[number], "fine"])}))
    assert said.lower().count("</documents>") == template.count("</documents>")
    strict = {tag: len(re.findall(rf"</?{tag}\b", said, re.IGNORECASE)) for tag in TAGS}
    assert strict == tags(template)


@pytest.mark.parametrize("text", TAGS_SPELT)
def test_a_tag_is_defused_however_it_is_spelt(text: str) -> None:
    ((_, said),) = build_messages({"user": "{documents}"}, documents=f"a {text} b")
    assert said.startswith("a (")
    assert said == f"a ({re.sub(r'^(&lt;|&#60;|.)', '', text, flags=re.DOTALL)} b"


@pytest.mark.parametrize(
    "text",
    ["if x < answer: pass", "a <b> b </b>", "<questions>", "</documentation>", "x <- document", "f <| g |> h", "1 < 2"],
)
def test_other_brackets_stay(text: str) -> None:
    ((_, said),) = build_messages({"user": "{documents}"}, documents=text)
    assert said == text


def test_a_prompts_example_holds_no_value_that_could_be_copied() -> None:
    """Weak models repeat what they are shown: the grade of an example was every answer's."""
    for name, part in PARTS:
        said = prompt(name)[part].replace("{{", "{").replace("}}", "}")
        assert parse_json(said, lambda found: found) is None, name


def test_tags_stay_whole_where_the_text_is_harmless() -> None:
    text = "a < b, <b>bold</b>, <questionnaire> and <answers>"
    assert (
        told(build_messages({"user": "<question>{question}</question>"}, question=text))
        == f"<question>{text}</question>"
    )


@pytest.mark.parametrize(
    ("given", "named"),
    [
        ({}, "user"),
        ({"user": None}, "user"),
        ({"user": ["{question}"]}, "user"),
        ({"user": "no field"}, "{documents}, {question}"),
        ({"user": "{question}"}, "{documents}, {question}"),
        ({"user": "{question} {documents} {answer}"}, "{answer}"),
        ({"user": "{question} {{documents}}"}, "{documents}"),
        ({"user": '{question} {documents} as {"score": 1} {score}'}, "{score}"),
    ],
)
def test_a_prompt_with_missing_or_extra_fields_is_refused(given: dict, named: str) -> None:
    with pytest.raises(ValueError, match=re.escape(named)):
        check_prompt(given, {"user": ("question", "documents")})


def test_a_prompt_with_its_fields_is_accepted_in_any_order_and_number() -> None:
    check_prompt({"user": "{documents} {question} {{x}} {question}"}, {"user": ("question", "documents")})
    check_prompt({"alone": "nothing"}, {"alone": ()})


def test_documents_are_numbered_from_one() -> None:
    assert number_texts(["a", "b\nc"]) == "[1] a\n\n[2] b\nc"


# ---- JSON in replies


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"a": 1}', {"a": 1}),
        ('Sure!\n```json\n{"a": {"b": [1]}}\n```\nDone.', {"a": {"b": [1]}}),
        ("", None),
        ("no", None),
        ("}{", None),
        ("{", None),
        ('{"a": 1', None),
        ("{'a': 1}", None),
        ('{"a": ' + "1" * 5000 + "}", None),
        ("[1, 2]", None),
    ],
)
def test_the_object_in_a_reply(text: str, found: object) -> None:
    assert parse_json(text, lambda said: said) == found


def test_a_reply_nested_without_end_is_no_object() -> None:
    assert parse_json('{"a": ' + "[" * 100_000 + "}", lambda said: said) is None


# ---- packs


@given(st.lists(st.text("ab ,.", max_size=30), max_size=12), st.integers(1, 8))
def test_packs_hold_the_texts_in_order_and_only_single_texts_exceed_the_limit(texts: list[str], limit: int) -> None:
    found = pack_texts(texts, limit)
    assert [text for pack in found for text in pack] == texts
    assert all(found)
    assert all(len(pack) == 1 or sum(map(count_tokens, pack)) <= limit for pack in found)
    sizes = [sum(map(count_tokens, pack)) for pack in found]
    starts = [count_tokens(pack[0]) for pack in found]
    assert all(size + start > limit for size, start in zip(sizes, starts[1:], strict=False)), "a pack had room left"


def test_packs_by_hand() -> None:
    assert pack_texts(["a b", "c", "d e", "f g h i j", "k"], 3) == [["a b", "c"], ["d e"], ["f g h i j"], ["k"]]


# ---- modes


class Ask:
    """Gives the scripted answers one after the other and remembers what it was asked."""

    def __init__(self, *script: str | None) -> None:
        self.left = iter(script)
        self.calls: list[tuple[str, dict[str, str]]] = []
        self.last: list[bool] = []

    def __call__(self, part: str, *, last: bool, **values: str) -> str | None:
        self.calls.append((part, values))
        self.last.append(last)
        return next(self.left)


THREE = ["a b", "c d", "e f"]


def first(text: str) -> tuple[str, dict[str, str]]:
    return "user", {"documents": f"[1] {text}"}


def refine(text: str, answer: str) -> tuple[str, dict[str, str]]:
    return "refine", {"documents": f"[1] {text}", "answer": answer}


def combine(*texts: str) -> tuple[str, dict[str, str]]:
    return "combine", {"documents": number_texts(texts)}


def test_stuff_asks_once_with_everything() -> None:
    ask = Ask("yes")
    assert stuff(ask, THREE, 1) == "yes"
    assert ask.calls == [("user", {"documents": "[1] a b\n\n[2] c d\n\n[3] e f"})]


def test_each_further_pack_refines_the_answer_so_far() -> None:
    ask = Ask("one", "two", "three")
    assert compact_and_refine(ask, THREE, 2) == "three"
    assert ask.calls == [first("a b"), refine("c d", "one"), refine("e f", "two")]
    assert ask.last == [False, False, True]


def test_small_texts_are_compacted_before_they_are_refined() -> None:
    ask = Ask("one", "two")
    assert compact_and_refine(ask, THREE, 4) == "two"
    assert ask.calls == [("user", {"documents": "[1] a b\n\n[2] c d"}), refine("e f", "one")]


@pytest.mark.parametrize(
    ("script", "calls", "answer"),
    [
        ((None, "two", "three"), [first("a b"), first("c d"), refine("e f", "two")], "three"),
        (("one", None, "three"), [first("a b"), refine("c d", "one"), refine("e f", "one")], "three"),
        (("one", "two", None), [first("a b"), refine("c d", "one"), refine("e f", "two")], "two"),
        ((None, None, None), [first("a b"), first("c d"), first("e f")], None),
    ],
    ids=["first", "middle", "last", "all"],
)
def test_a_call_that_fails_changes_no_answer(script: tuple, calls: list, answer: str | None) -> None:
    ask = Ask(*script)
    assert compact_and_refine(ask, THREE, 2) == answer
    assert ask.calls == calls


def test_a_tree_of_five_packs() -> None:
    """Answers of one word each, packs of two: 5 → 2 + 2 + 1 → 2 + 1 → 2."""
    ask = Ask(*"vwxyz", "p", "q", "r", "s", "t", "end")
    assert tree_summarize(ask, ["a b", "c d", "e f", "g h", "i j"], 2) == "end"
    assert ask.calls == [
        *map(first, ["a b", "c d", "e f", "g h", "i j"]),
        combine("v", "w"),
        combine("x", "y"),
        combine("z"),
        combine("p", "q"),
        combine("r"),
        combine("s", "t"),
    ]
    assert ask.last == [False] * 10 + [True]


def test_a_tree_of_one_pack_is_one_call() -> None:
    ask = Ask("yes")
    assert tree_summarize(ask, THREE, 100) == "yes"
    assert ask.calls == [("user", {"documents": "[1] a b\n\n[2] c d\n\n[3] e f"})]


@pytest.mark.parametrize(
    ("script", "above", "answer"),
    [
        ((None, "w", "x", "end"), [combine("w", "x")], "end"),
        (("v", None, "x", "end"), [combine("v", "x")], "end"),
        (("v", "w", None, "end"), [combine("v", "w")], "end"),
        ((None, "w", None), [], "w"),
        ((None, None, None), [], None),
        (("v", "w", "x", None, "end"), [combine("v", "w"), combine("x")], "end"),
        (("v", "w", "x", None, None), [combine("v", "w"), combine("x")], None),
    ],
)
def test_of_calls_that_fail_nothing_goes_up_the_tree(script: tuple, above: list, answer: str | None) -> None:
    ask = Ask(*script)
    assert tree_summarize(ask, THREE, 2) == answer
    assert ask.calls == [*map(first, THREE), *above]


def test_answers_longer_than_a_pack_go_up_two_by_two() -> None:
    long = "so many words that no pack can hold them"
    ask = Ask(*[long] * 5, *[long] * 3, *[long] * 2, "end")
    assert tree_summarize(ask, ["a b"] * 5, 2) == "end"
    assert [part for part, _ in ask.calls] == ["user"] * 5 + ["combine"] * 6
    assert ask.calls[5:] == [
        combine(long, long),
        combine(long, long),
        combine(long),
        combine(long, long),
        combine(long),
        combine(long, long),
    ]


@given(st.data(), st.lists(st.integers(0, 6), min_size=1, max_size=9), st.integers(1, 5), st.sampled_from(list(MODES)))
@settings(max_examples=150)
def test_every_mode_ends_and_answers_unless_all_calls_fail(
    data: st.DataObject, sizes: list[int], limit: int, mode: str
) -> None:
    calls, some = 0, False

    def ask(_: str, **__: str) -> str | None:
        nonlocal calls, some
        calls += 1
        assert calls <= 60
        said = data.draw(st.none() | st.integers(0, 9).map(lambda size: "w " * size))
        some = some or said is not None
        return said

    answer = MODES[mode](ask, ["w " * size for size in sizes], limit)
    assert answer is None or some
    if mode == "compact_and_refine":
        assert (answer is None) == (not some)
        assert calls == len(pack_texts(["w " * size for size in sizes], limit))


# ---- the stage

PARTS_TOLD = {
    "user": "USER {question} | {documents}",
    "refine": "REFINE {question} | {documents} | {answer}",
    "combine": "COMBINE {question} | {documents}",
    "alone": "ALONE {question}",
}


def synthesis(chat: Scripted, store: Store, mode: str = "stuff", pack: int = 2) -> Synthesis:
    stage = Synthesis(chat, "model", PARTS_TOLD, mode, pack, 0.5, 32, 0.9, 7)
    stage.use(Resources.from_store(store))
    return stage


def test_an_answer_a_query_with_its_calls_and_tokens(store: Store) -> None:
    chunks = chunked("red apple", "blue sky", "green sea")
    chat = saying("one", "two", "three", "alone")
    found = synthesis(chat, store, "compact_and_refine").run(
        asked("what?", "who?"), ranking(chunks, [(2, 3.0), (0, 2.0), (1, 1.0)], [])
    )["answers"]
    assert found.texts == ("three", "alone")
    assert [text_of(each) for each in chat.requests] == [
        "USER what? | [1] green sea",
        "REFINE what? | [1] red apple | one",
        "REFINE what? | [1] blue sky | two",
        "ALONE who?",
    ]
    (usage,) = found.usage.values()
    assert usage.stage == "generator"
    assert spent(usage) == ([3, 1], [30, 10], [15, 5], [0, 0])
    assert found.tokens.tolist() == [45, 15]
    assert found.costs[found.key] == pytest.approx((1.5 + 0.5) / 2)
    assert {each.sampling for each in chat.requests} == {synthesis(chat, store)._sampling}
    assert chat.requests[0].sampling.temperature == 0.5
    assert chat.requests[0].sampling.seed == 7


@pytest.mark.parametrize("mode", MODES)
def test_without_a_document_the_question_is_asked_alone(store: Store, mode: str) -> None:
    chat = saying("known")
    found = synthesis(chat, store, mode).run(asked("why?"), ranking(chunked("a b"), []))["answers"]
    assert found.texts == ("known",)
    assert [text_of(each) for each in chat.requests] == ["ALONE why?"]


@pytest.mark.parametrize("mode", MODES)
def test_a_call_that_fails_leaves_no_answer(store: Store, mode: str) -> None:
    found = synthesis(saying(FAILS, "fine"), store, mode).run(
        asked("why?", "who?"), ranking(chunked("a b"), [(0, 1.0)], [(0, 1.0)])
    )["answers"]
    assert found.texts == (None, "fine")
    assert spent(next(iter(found.usage.values()))) == ([1, 1], [0, 10], [0, 5], [1, 0])


def test_an_empty_answer_is_an_answer(store: Store) -> None:
    found = synthesis(saying(""), store).run(asked("why?"), ranking(chunked("a b"), [(0, 1.0)]))["answers"]
    assert found.texts == ("",)


def test_the_same_is_asked_once_but_counted_each_time(store: Store) -> None:
    chat = saying("yes")
    given = asked("why?", "why?"), ranking(chunked("a b"), [(0, 1.0)], [(0, 1.0)])
    synthesis(chat, store).run(*given)
    found = synthesis(chat, store).run(*given)["answers"]
    assert len(chat.requests) == 1
    assert found.texts == ("yes", "yes")
    assert spent(next(iter(found.usage.values()))) == ([1, 1], [10, 10], [5, 5], [0, 0])


def test_dollars_by_the_price_a_million_tokens(store: Store) -> None:
    chat = saying("yes", prices={"model": {"in": 2.0, "out": 8.0}})
    found = synthesis(chat, store).run(asked("why?"), ranking(chunked("a b"), []))["answers"]
    assert next(iter(found.usage.values())).usd.tolist() == pytest.approx([(10 * 2 + 5 * 8) / 1e6])


def test_dollars_are_unknown_without_a_price(store: Store) -> None:
    found = synthesis(saying("yes"), store).run(asked("why?"), ranking(chunked("a b"), []))["answers"]
    assert np.isnan(next(iter(found.usage.values())).usd).all()


def test_what_retrieval_has_cost_stays_beside_what_the_answer_costs(store: Store) -> None:
    one = np.ones(1, np.int32)
    before = Usage("query", one, one, one, one.astype(float), one)
    context = ranking(chunked("a b"), [(0, 1.0)])
    context = type(context)(context.chunks, context.rows, context.scores, "k", {"earlier": 2.0}, {"earlier": before})
    found = synthesis(saying("yes"), store).run(asked("why?"), context)["answers"]
    assert found.costs["earlier"] == 2.0
    assert {usage.stage for usage in found.usage.values()} == {"query", "generator"}
    assert found.tokens.tolist() == [15 + 2], "what the query stage read and wrote, too"


def test_a_fatal_error_ends_the_trial_at_once(store: Store) -> None:
    refused = type(FAILS)("HTTP 401: no such key", fatal=True)
    chat = Scripted(lambda _: refused)
    with pytest.raises(ComponentError, match="generator: model can't be asked: HTTP 401"):
        synthesis(chat, store).run(asked("a", "b"), ranking(chunked("a b"), [(0, 1.0)], [(0, 1.0)]))
    assert len(chat.requests) == 1


def test_queries_at_once_keep_their_order(store: Store) -> None:
    chat = Scripted(lambda each: text_of(each).upper(), at_once=8)
    words = [f"w{number}" for number in range(40)]
    found = synthesis(chat, store).run(asked(*words), ranking(chunked("a b"), *[[]] * 40))["answers"]
    assert found.texts == tuple(f"ALONE {word.upper()}" for word in words)


@pytest.mark.parametrize("change", [{"synthesis": "magic"}, {"pack_tokens": 0}, {"prompt": {"user": "{question}"}}])
def test_what_cannot_work_is_refused(change: dict) -> None:
    given = {"synthesis": "stuff", "pack_tokens": 9, "prompt": PARTS_TOLD, **change}
    with pytest.raises(ValueError, match="synthesis|pack_tokens|prompt"):
        Synthesis(saying(), "m", temperature=0, max_tokens=9, top_p=1, seed=0, **given)


@pytest.mark.parametrize(
    ("mode", "script", "answer"),
    [
        ("compact_and_refine", ("one", "two", "three"), "three"),
        ("tree_summarize", ("one", "two", "three", "four", "five", "six"), "six"),
        pytest.param("compact_and_refine", ("one", "two", FAILS), "two"),
        pytest.param("tree_summarize", ("one", FAILS, FAILS), "one"),
    ],
)
def test_the_answer_that_is_given_is_the_one_that_is_shown(store: Store, mode: str, script: tuple, answer: str) -> None:
    shown: list[str] = []
    stage = synthesis(saying(*script), store, mode)
    given = ranking(chunked(*THREE), [(0, 3.0), (1, 2.0), (2, 1.0)])
    with show_pieces(shown.append):
        assert stage.run(asked("why?"), given)["answers"].texts == (answer,)
    assert "".join(shown) == answer
