"""Replies that are paid once, budgets that hold, and calls that are given up when they keep failing."""

from __future__ import annotations

import re
import sqlite3
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from rag_opt.cache.store import Store
from rag_opt.cli.store import main
from rag_opt.components.llm.chat import GIVE_UP_AFTER, UNREADABLE, CallError
from rag_opt.components.llm.request import TOKENS_A_WORD, Request, Sampling, estimate_tokens
from rag_opt.components.resources import Resources
from rag_opt.errors import ComponentError
from rag_opt.llm.budget import Budget, BudgetSpentError
from rag_opt.llm.client import Rehearsal
from rag_opt.llm.replies import FILE, Expenses, Replies, Reply
from tests.unit.scripted import FAILS, OUT, Scripted, on, request, saying


def within(place: Resources, **limits: object) -> Resources:
    """The same with a budget."""
    return replace(place, llm=replace(place.llm, budget=Budget("study", place.llm.replies, **limits)))


@pytest.fixture(params=["disk", "memory"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Resources:
    return Resources.from_store(Store(tmp_path / "store" if request.param == "disk" else None))


def all_of(chat: Scripted, texts: list[str]) -> list[Reply]:
    return [chat.get_reply(request(text), "query") for text in texts]


# ---- kept


@pytest.mark.parametrize("text", ["yes", "", "ü\U0001f600\u202e", "a\x00b\x1e", "long " * 50_000])
def test_a_reply_is_found_again_as_it_was(tmp_path: Path, text: str) -> None:
    reply = Reply(text, 3, 4, 0.25)
    Replies(tmp_path).put("key", reply)
    assert Replies(tmp_path).get("key") == reply
    assert Replies(tmp_path).get("other") is None


def test_the_same_request_is_called_once(place: Resources) -> None:
    chat = on(place, saying("one", "two"))
    assert [chat.get_reply(request("a"), "stage").text for _ in range(3)] == ["one"] * 3
    assert chat.get_reply(request("b"), "stage").text == "two"
    assert len(chat.requests) == 2


@pytest.mark.parametrize(
    "other",
    [
        {"model": "other"},
        {"messages": (("system", "a"),)},
        {"messages": (("user", "a"), ("user", "a"))},
        {"sampling": Sampling(temperature=0.1)},
        {"sampling": Sampling(seed=1)},
        {"sampling": Sampling(max_tokens=9)},
        {"sampling": Sampling(top_p=0.5)},
        {"schema": {"type": "object"}},
        {"attempt": 1},
    ],
)
def test_another_request_is_another_call(store: Store, other: dict) -> None:
    chat = on(store, saying("one", "two"))
    assert chat.get_reply(request("a"), "stage").text == "one"
    assert chat.get_reply(replace(request("a"), **other), "stage").text == "two"


def test_an_example_is_no_part_of_the_request(store: Store) -> None:
    chat = on(store, saying("one"))
    assert (
        chat.get_reply(request("a"), "stage").text
        == chat.get_reply(request("a", example="x"), "other stage").text
        == "one"
    )


def slow(_: Request) -> str:
    time.sleep(0.1)
    return "yes"


def test_what_16_threads_ask_at_once_is_called_once(place: Resources) -> None:
    place = within(place)
    chat = on(place, Scripted(slow))
    together = threading.Barrier(16)

    def ask(_: int) -> str | None:
        together.wait()
        return chat.get_reply(request("a"), "stage").text

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(16))) == ["yes"] * 16
    assert len(chat.requests) == 1
    assert place.llm.replies.get_spent("study").calls == 1


def test_what_several_stores_on_one_folder_ask_at_once_is_called_once(tmp_path: Path) -> None:
    chats = [on(Store(tmp_path), Scripted(slow)) for _ in range(4)]
    together = threading.Barrier(16)

    def ask(number: int) -> str | None:
        together.wait()
        return chats[number % 4].get_reply(request("a"), "stage").text

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(ask, range(16))) == ["yes"] * 16
    assert sum(len(chat.requests) for chat in chats) == 1


def test_different_requests_are_asked_side_by_side(place: Resources) -> None:
    together = threading.Barrier(8, timeout=20)
    chat = on(place, Scripted(lambda _: together.wait() is not None and "yes"))
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda number: chat.get_reply(request(str(number)), "stage").text, range(8)))
    assert found == ["yes"] * 8


def test_a_reply_without_a_text_is_paid_once_and_kept_with_its_reason(place: Resources) -> None:
    place = within(place)
    chat = on(place, saying(Reply(None, 10, 0, 0.5, "no text")))
    for _ in range(2):
        assert chat.get_reply(request("a"), "stage") == Reply(None, 10, 0, 0.5, "no text")
    assert place.llm.replies.get_spent("study") == Expenses(1, 10, 0.0, 0.5)


def test_replies_that_cannot_be_read_are_paid_once_whoever_asks_again(place: Resources) -> None:
    place = within(place)
    chat = on(place, saying("no", "none", "{}"))
    asked = request("a", schema={"required": ["score"]})
    for _ in range(2):
        (talk,) = chat.map_items(
            "stage", lambda talk, one: talk.ask_json(one, lambda said: said.get("score")), [asked]
        ).talks
        assert (talk.asked, talk.lost, talk.broken, len(talk.replies)) == (1, 1, 3, 3)
    assert [reply.text for reply in talk.replies] == ["no", "none", "{}"]
    assert place.llm.replies.get_spent("study").calls == len(chat.requests) == 3
    kept = place.llm.replies._execute("select text, reason from replies join unread using (key)")
    assert kept == [(text, "a reply that can't be read") for text in ("no", "none", "{}")]


def test_what_could_not_be_read_can_be_asked_for_again(tmp_path: Path, capsys) -> None:
    chat = on(Store(tmp_path), saying("fine", "no", "no", "no", '{"score": 3}'))
    asked = request("a", schema={"required": ["score"]})
    ask = lambda talk, one: talk.ask_json(one, lambda said: said.get("score"))  # noqa: E731
    score = lambda: chat.map_items("stage", ask, [asked])  # noqa: E731
    assert chat.get_reply(request("b"), "stage").text == "fine"
    assert score().results == [None]
    main(["forget", "--path", str(tmp_path)])
    assert "3 replies that could not be read are asked for again" in capsys.readouterr().out
    assert score().results == [3]
    assert chat.get_reply(request("b"), "stage").text == "fine", "what could be read stays"


def test_what_was_unreadable_is_read_once_it_can_be(place: Resources) -> None:
    chat = on(place, saying("no", "no", "no"))
    asked = request("a", schema={"required": ["score"]})
    ask = lambda read: chat.map_items("stage", lambda talk, one: talk.ask_json(one, read), [asked]).results  # noqa: E731
    assert ask(lambda said: said.get("score")) == [None]
    place.llm.replies._execute("update replies set text = '{\"score\": 3}'")
    assert ask(lambda said: said.get("score")) == [3]


def test_a_further_attempt_says_what_was_wrong_and_has_another_seed(place: Resources) -> None:
    chat = on(place, saying("no", '{"score": 3}'))
    asked = request("a", schema={"required": ["score"]})
    chat.map_items("stage", lambda talk, one: talk.ask_json(one, lambda said: said.get("score")), [asked])
    first, second = chat.requests
    assert first == asked
    assert second.attempt == 1
    ((_, said),) = second.messages
    assert said.startswith("a\n\nAn earlier reply could not be read")
    assert '"score"' in said


def test_a_stage_gives_up_after_so_many_requests_without_a_readable_reply(place: Resources, said) -> None:
    texts = ["no"] * 3 * (UNREADABLE - 1) + ['{"score": 1}'] + ["no"] * 3 * UNREADABLE
    chat = on(place, saying(*texts))
    score = lambda talk, number: talk.ask_json(  # noqa: E731
        request(str(number), schema={"required": ["score"]}), lambda found: found.get("score")
    )
    assert chat.map_items("reranker", score, range(UNREADABLE)).results == [None] * (UNREADABLE - 1) + [1]
    with pytest.raises(ComponentError, match=f"reranker: nothing that model says can be read, {UNREADABLE} times"):
        chat.map_items("reranker", score, range(100, 200))
    assert len(chat.requests) == len(texts)
    assert said() == ["reranker: model: a reply could not be read: 'no'; it goes on without"]
    with pytest.raises(ComponentError, match="nothing that model says"):
        chat.clone().map_items("reranker", score, range(100, 200))
    assert len(chat.requests) == len(texts), "kept: a later trial pays nothing to find out"


def test_a_model_that_says_the_same_at_temperature_0_is_not_asked_the_same_again(place: Resources) -> None:
    class Fixed(Scripted):
        def can_vary(self, request: Request) -> bool:
            return request.sampling.temperature > 0

    chat = on(place, Fixed(lambda _: Reply(None, 10, 0)))
    assert chat.map_items("stage", lambda talk, text: talk.ask(request(text)), ["a"]).results == [None]
    assert len(chat.requests) == 1


def test_an_older_store_is_read_and_gains_what_it_lacks(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / FILE) as base:
        base.executescript(
            "create table replies (key text primary key, text text, tokens_in integer, tokens_out integer, seconds real);"
            "insert into replies values ('old', '<think>hm</think> yes', 1, 2, 3.0);"
        )
    base.close()
    replies = Replies(tmp_path)
    assert replies.get("old") == Reply("<think>hm</think> yes", 1, 2, 3.0)
    replies.put("new", Reply(None, 1, 0, 0.0, "why"))
    assert Replies(tmp_path).get("new").reason == "why"


# ---- thinking, windows


def test_what_a_model_thinks_is_no_part_of_its_reply_but_kept_and_paid(place: Resources) -> None:
    place = within(place)
    chat = on(place, saying("<think>\n{hm}\n</think>\n\nOslo", "<think> for ever"))
    shown: list[str] = []
    for _ in range(2):
        found = chat.get_reply(request("a"), "stage", shown.append)
        assert (found.text, found.tokens_out) == ("Oslo", OUT)
    assert shown == ["Oslo", "Oslo"]
    assert place.llm.replies.get_spent("study").calls == 1
    talks = chat.map_items("stage", lambda talk, text: talk.ask(request(text)), ["b"])
    assert talks.results == [None]
    assert "llm.thinking" in place.llm.troubles["stage"]
    assert len(chat.requests) == 2, "another attempt would think as long"


def test_a_prompt_beyond_the_window_is_not_sent_and_a_long_one_is_said(place: Resources, said) -> None:
    chat = on(place, saying("yes", "yes"))
    assert chat.get_reply(request("word " * 30_000), "generator").text == "yes"
    assert chat.get_reply(request("words " * 30_000), "generator").text == "yes"
    (line,) = [line for line in said() if "llm.window" in line]
    assert re.search(r"150,000 characters, about \d\d,\d{3} tokens", line)
    chat.window = 8192
    found = chat.get_reply(request("longer " * 30_000), "generator")
    assert found.text is None
    assert re.search(r"210,000 characters, about \S+ tokens, and 256 more .* llm.window=8192", found.reason)
    assert len(chat.requests) == 2


def test_a_window_that_prompts_of_every_length_fill_is_noticed(place: Resources, said) -> None:
    """Ollama reads 2,048 tokens of 2,500 as of 4,000: each number could be right, that all are the same can't be."""
    counted = {
        "whole": lambda request: estimate_tokens(request),
        "cut": lambda request: min(2048, estimate_tokens(request)),
    }

    def answered(count: Callable[[Request], int], request: Request) -> Reply:
        return Reply("yes", count(request), 1)

    for count in counted.values():
        chat = on(place, Scripted(partial(answered, count)))
        for words in (1_000, 2_000, 2_400, 2_800, 3_200):
            chat.get_reply(request(f"{count} " + "word " * words), "generator")
        lines = [line for line in said() if "num_ctx" in line]
        assert len(lines) == (count is counted["cut"])
    assert "2,048 tokens" in lines[0]


@pytest.mark.parametrize(("read", "noticed"), [(64, True), (430, False), (200, False), (250, False)])
def test_a_server_that_reads_a_part_of_a_prompt_is_noticed(place: Resources, said, read: int, noticed: bool) -> None:
    """330 words: no tokenizer makes fewer than 165 tokens of them."""
    text = "The lighthouse of the harbour town was built from grey stone. " * 30
    chat = on(place, Scripted(lambda _: Reply("yes", read, 1)))
    for number in range(2):
        chat.get_reply(request(f"{number} {text}"), "generator")
    lines = [line for line in said() if "num_ctx" in line]
    assert len(lines) == noticed
    assert not noticed or "64 tokens" in lines[0]


def test_a_call_that_fails_is_neither_paid_nor_kept(place: Resources) -> None:
    place = within(place)
    chat = on(place, saying(FAILS, "now"))
    assert chat.get_reply(request("a"), "stage") == Reply(None, reason="no connection")
    assert place.llm.replies.get_spent("study").calls == 0
    assert chat.get_reply(request("a"), "stage").text == "now"


def test_a_kept_reply_costs_nothing(place: Resources) -> None:
    place = within(place)
    chat = on(place, saying("yes"))
    for _ in range(5):
        chat.get_reply(request("a"), "stage")
    assert place.llm.replies.get_spent("study").calls == 1


def test_a_reply_that_is_no_valid_text_does_not_end_the_study(store: Store) -> None:
    reply = on(store, saying("cats \ud800 purr")).get_reply(request("a"), "stage")
    assert reply.text is None or reply.text.startswith("cats")


# ---- the ledger


PRICES = {"model": {"in": 100_000.0, "out": 200_000.0}}
"""A call of 10 tokens in and 5 out costs 1 + 1 dollars."""


def test_payments_survive_reopening(tmp_path: Path) -> None:
    chat = on(within(Resources.from_store(Store(tmp_path))), saying("one", "two", prices=PRICES))
    chat.get_reply(request("a"), "stage")
    chat.get_reply(request("b"), "stage")
    assert Replies(tmp_path).get_spent("study") == Expenses(2, 30, pytest.approx(4.0), pytest.approx(1.0))
    assert Replies(tmp_path).get_spent("another study") == Expenses()


def test_dollars_that_are_not_known_count_as_none(place: Resources) -> None:
    place.llm.replies.record_payment("study", "stage", Reply("x", 1, 2, 0.5), float("nan"), 1)
    place.llm.replies.record_payment("study", "stage", Reply("x", 1, 2, 0.5), 0.25, 1)
    assert place.llm.replies.get_spent("study") == Expenses(2, 6, 0.25, 1.0)


def test_what_a_stage_reads_and_writes_on_average(place: Resources) -> None:
    """Guessed 10 + 30, read 20 + 40, written 1 + 5; 2 seconds in which any call was under way."""
    place.llm.replies.record_payment("one", "query", Reply("x", 20, 1, 1.0), 0, 10)
    place.llm.replies.record_payment("two", "query", Reply("x", 40, 5, 2.0), 0, 30)
    place.llm.replies.record_payment("two", "judge", Reply("x", 7, 7, 7.0), 0, 0)
    assert place.llm.replies.get_means() == {
        "query": (1.5, 3.0, pytest.approx(1.0, abs=0.05)),
        "judge": (7.0, 7.0, 7.0),
    }


def test_without_a_budget_nothing_is_entered(place: Resources) -> None:
    on(place, saying("one")).get_reply(request("a"), "stage")
    assert place.llm.replies.get_means() == {}


# ---- budgets


def asked_until_spent(place: Resources, **options: object) -> tuple[int, str]:
    """How many calls could be made, and why no more."""
    chat = on(place, Scripted(lambda _: "yes", **options))
    with pytest.raises(BudgetSpentError) as stopped:
        all_of(chat, [str(number) for number in range(100)])
    return len(chat.requests), str(stopped.value)


@pytest.mark.parametrize(
    ("limits", "calls"),
    [
        ({"tokens": 40}, 3),  # 15, 30, 45
        ({"tokens": 45}, 3),
        ({"tokens": 46}, 4),
        ({"tokens": 0}, 0),
        ({"tokens": 40, "reserve": Expenses(tokens=10)}, 2),  # 15, 30: with the reserve 40
        ({"tokens": 40, "reserve": Expenses(tokens=40)}, 0),
        ({"usd": 5.0}, 3),  # 2, 4, 6
        ({"usd": 5.0, "reserve": Expenses(usd=2.0)}, 2),
        ({"usd": 5.0, "tokens": 20}, 2),
        ({"usd": 5.0, "reserve": Expenses(tokens=1e9)}, 3),
        ({"deadline": 0.0}, 0),
    ],
)
def test_calls_are_made_until_the_budget_is_spent(place: Resources, limits: dict, calls: int) -> None:
    place = within(place, **limits)
    made, why = asked_until_spent(place, prices=PRICES)
    assert made == calls
    assert why.startswith("budget.")
    assert ("kept for the confirmation" in why) == ("reserve" in limits and limits["reserve"].tokens < 1e9)


def test_after_the_budget_is_spent_the_reserve_can_be_opened(place: Resources) -> None:
    place = within(place, tokens=60, reserve=Expenses(tokens=30))
    mine = place.llm.budget
    assert asked_until_spent(place)[0] == 2
    assert "30 paid, 30 kept" in mine.empty
    mine.open_reserve()
    assert mine.empty == ""
    chat = on(place, Scripted(lambda _: "yes"))
    assert [chat.get_reply(request(f"later {number}"), "stage").text for number in range(2)] == ["yes", "yes"]
    with pytest.raises(BudgetSpentError, match=r"budget.tokens=60 is spent: 60 paid$"):
        chat.get_reply(request("one more"), "stage")


def test_time_is_kept_for_the_confirmation(place: Resources) -> None:
    place = within(place, deadline=time.monotonic() + 1000, reserve=Expenses(seconds=2000))
    mine = place.llm.budget
    with pytest.raises(BudgetSpentError, match=r"budget.minutes is used up, the confirmation's share kept"):
        mine.check()
    mine.open_reserve()
    mine.check()
    with pytest.raises(BudgetSpentError, match="budget.minutes is used up$"):
        replace(mine, deadline=time.monotonic() - 1).check()


def test_what_is_kept_can_be_read_when_nothing_can_be_paid(place: Resources) -> None:
    chat = on(place, saying("yes"))
    chat.get_reply(request("a"), "stage")
    chat.use(within(place, tokens=0))
    assert chat.get_reply(request("a"), "stage").text == "yes"
    with pytest.raises(BudgetSpentError):
        chat.get_reply(request("b"), "stage")


def test_what_another_study_has_paid_is_no_concern_of_ours(place: Resources) -> None:
    place.llm.replies.record_payment("another study", "stage", Reply("x", 1000, 1000), 1000.0, 1)
    within(place, tokens=10, usd=1.0).llm.check_budget()


def test_a_spent_budget_holds_no_lock(place: Resources) -> None:
    place = within(place, tokens=0)
    assert asked_until_spent(place)[0] == 0
    place = replace(place, llm=replace(place.llm, budget=None))
    assert on(place, saying("yes")).get_reply(request("0"), "stage").text == "yes"


# ---- failures


def test_calls_that_fail_one_after_the_other_are_given_up(place: Resources) -> None:
    chat = on(place, Scripted(lambda _: CallError("no connection")))
    for number in range(GIVE_UP_AFTER - 1):
        assert chat.get_reply(request(str(number)), "query").text is None
    with pytest.raises(ComponentError, match=f"query: model can't be asked: {GIVE_UP_AFTER} calls in a row failed: no"):
        chat.get_reply(request("last"), "query")
    with pytest.raises(ComponentError, match="no connection"):
        chat.get_reply(request("another"), "query")
    assert len(chat.requests) == GIVE_UP_AFTER


def test_a_success_in_between_starts_the_count_again(place: Resources) -> None:
    almost = [FAILS] * (GIVE_UP_AFTER - 1)
    chat = on(place, saying(*almost, "yes", *almost, Reply(None, 1, 1), *almost, FAILS))
    found = [chat.get_reply(request(str(number)), "query").text for number in range(3 * GIVE_UP_AFTER - 1)]
    assert found.count("yes") == 1
    with pytest.raises(ComponentError, match=f"{GIVE_UP_AFTER} calls in a row"):
        chat.get_reply(request("last"), "query")


def test_a_kept_reply_is_no_success_of_a_call(place: Resources) -> None:
    chat = on(place, saying("yes", *[FAILS] * GIVE_UP_AFTER))
    chat.get_reply(request("kept"), "query")
    with pytest.raises(ComponentError, match=f"{GIVE_UP_AFTER} calls in a row"):
        all_of(chat, [text for number in range(GIVE_UP_AFTER) for text in ("kept", str(number))])
    assert chat.get_reply(request("kept"), "query").text == "yes"


def test_a_fatal_failure_is_the_last_call(place: Resources) -> None:
    chat = on(place, Scripted(lambda _: CallError("HTTP 401", fatal=True)))
    for _ in range(2):
        with pytest.raises(ComponentError, match="query: model can't be asked: HTTP 401"):
            chat.get_reply(request("a"), "query")
    assert len(chat.requests) == 1


# ---- rehearsals


def test_a_rehearsal_counts_calls_and_makes_none(place: Resources) -> None:
    chat = on(place, saying("kept", prices=PRICES))
    chat.get_reply(request("kept"), "query")
    rehearsal = Rehearsal()
    chat.use(replace(place, llm=replace(place.llm, rehearsal=rehearsal)))
    assert chat.get_reply(request("kept"), "query").text == "kept"
    assert chat.get_reply(request("new", example="e"), "query").text == "e"
    assert chat.get_reply(request("new", example="e"), "query").text == "e"
    assert rehearsal.calls == {"query": 3}
    (new,) = rehearsal.new["query"].values()
    assert (new.reads, new.writes) == (estimate_tokens(request("new")), TOKENS_A_WORD)
    assert new.most == request("new").sampling.max_tokens
    assert new.price(30, 7) == pytest.approx(30 * 0.1 + 7 * 0.2)
    assert len(chat.requests) == 1


# ---- damage


def test_a_damaged_file_is_put_aside_and_said(tmp_path: Path, said) -> None:
    (tmp_path / FILE).write_bytes(b"this is no database" * 1000)
    replies = Replies(tmp_path)
    replies.put("key", Reply("yes"))
    assert Replies(tmp_path).get("key").text == "yes"
    (aside,) = tmp_path.glob(f"{FILE}.damaged-*")
    assert aside.read_bytes().startswith(b"this is no database")
    (line,) = said()
    assert FILE in line
    assert aside.name in line
    assert "damaged" in line


def filled(folder: Path) -> Path:
    """A closed file of many pages."""
    replies = Replies(folder)
    for number in range(200):
        replies.put(f"key {number}", Reply("word " * 200))
    replies._base.close()
    with sqlite3.connect(folder / FILE) as base:
        base.execute("pragma wal_checkpoint(truncate)")
    base.close()
    return folder / FILE


def test_a_file_that_was_cut_off_to_nothing_is_a_new_one(tmp_path: Path) -> None:
    filled(tmp_path).write_bytes(b"")
    assert Replies(tmp_path).get("key 1") is None


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param("pages"),
        "cut",
        "header",
    ],
)
def test_wherever_a_file_is_damaged_replies_are_asked_for_again(tmp_path: Path, damage: str) -> None:
    path = filled(tmp_path / "store")
    content = path.read_bytes()
    assert len(content) > 20 * 4096
    broken = {
        "pages": content[:4096] + b"\xff" * (len(content) - 4096),
        "cut": content[: 4096 * 3],
        "header": b"\xff" * 100 + content[100:],
    }
    path.write_bytes(broken[damage])
    chat = on(Store(tmp_path / "store"), saying("again"))
    assert chat.get_reply(request("a"), "stage").text == "again"
    assert chat.get_reply(request("a"), "stage").text == "again"
    assert list((tmp_path / "store").glob(f"{FILE}.damaged-*"))


def test_what_machines_with_stores_of_their_own_have_paid_counts_for_all(animals, tmp_path: Path) -> None:
    """Two stores, one storage between them: each sees the other's payments before its next trial."""
    from rag_opt.storages.snapshot import StudySnapshot
    from rag_opt.study.lifecycle import join_study
    from rag_opt.study.plan import build_plan
    from rag_opt.study.spending import Spending

    found = []
    for name in ("one", "two"):
        words = [*animals, f"studies_dir={tmp_path}/{name}", f"store.path={tmp_path}/{name}/store", "budget.tokens=100"]
        plan = build_plan([*words, f"storage.url=sqlite:///{tmp_path}/shared.db", "tracking=none"])
        with join_study(plan) as (study, _):
            budget = plan.resources.llm.budget
            plan.resources.llm.replies.record_payment(budget.study, "answers", Reply("a", 50, 10), 0.0, 50)
            allowed = Spending(plan, study).can_start_trial(StudySnapshot(study))
            found.append((allowed, budget.elsewhere.tokens))
    assert found == [(True, 0), (False, 60)]


def test_the_reason_of_a_write_that_was_cut_short_is_not_the_next_replys(tmp_path: Path) -> None:
    replies = Replies(tmp_path)
    replies.put("other", Reply("", 1, 1, 0.1, "it could not be read"))
    # As a kill leaves it: the reason is there, the reply is not.
    replies._execute("insert into unread values (?, ?)", ("key", "it could not be read"))
    replies.put("key", Reply("yes", 1, 1, 0.1))
    kept = Replies(tmp_path).get("key")
    assert kept is not None
    assert not kept.reason
    assert replies.delete_unread() == 1
    assert replies.get("key") == kept
