"""What components work with: the store keeps artifacts alone; calls, lines and depths lie beside it."""

from __future__ import annotations

from dataclasses import replace

from rag_opt.cache.store import Store
from rag_opt.components.generators.synthesis import Synthesis
from rag_opt.components.rerankers.mmr import MMR
from rag_opt.components.resources import Resources
from rag_opt.console.notices import Notices
from rag_opt.llm.client import Rehearsal
from tests.unit.scripted import Scripted, on, prompt, request, saying


def test_a_line_is_said_once_whatever_it_is_about(said) -> None:
    notices = Notices()
    for line in ("a call failed: #1", "a call failed: #2", "another"):
        notices.report_once(line, about="a call" if "call" in line else "")
    notices.report_once("another")
    assert said() == ["a call failed: #1", "another"]
    assert not notices.kept


def test_what_bears_on_results_is_said_once_and_kept_for_each_report(said) -> None:
    notices = Notices()
    notices.record_notice("chunks are cut")
    notices.kept.clear()
    notices.record_notice("chunks are cut")
    assert said() == ["chunks are cut"]
    assert [*notices.kept] == ["chunks are cut"]


def test_no_file_of_replies_is_made_before_one_is_looked_for(store: Store) -> None:
    resources = Resources.from_store(store)
    store.check()
    assert not resources.llm.asked
    assert resources.llm.spent.calls == 0
    assert not list(store.root.glob("replies.db*"))
    resources.llm.replies.get("key")
    assert resources.llm.asked
    assert (store.root / "replies.db").is_file()


def test_who_records_hears_what_is_said_meanwhile_kept_or_not(store: Store) -> None:
    chat = on(Resources.from_store(store), saying("one", "two", "three"))
    chat.get_reply(request("a"), "before")
    with chat.llm.collect_replies() as heard:
        chat.get_reply(request("a"), "kept")
        chat.get_reply(request("b"), "new")
    chat.get_reply(request("c"), "after")
    assert [(stage, asked.messages[0][1], reply.text) for stage, asked, reply in heard] == [
        ("kept", "a", "one"),
        ("new", "b", "two"),
    ]


def test_a_rehearsal_shares_replies_and_ends_with_its_own_client(store: Store) -> None:
    resources = Resources.from_store(store)
    rehearsing = replace(resources, llm=replace(resources.llm, rehearsal=Rehearsal()))
    chat = on(resources, saying("one", "two"))
    assert chat.get_reply(request("a"), "stage").text == "one"
    chat.use(rehearsing)
    assert chat.get_reply(request("a"), "stage").text == "one"
    assert chat.get_reply(request("b", example="e"), "stage").text == "e"
    chat.use(resources)
    assert chat.get_reply(request("b"), "stage").text == "two"
    assert len(chat.requests) == 2


def test_parts_work_with_what_their_component_works_with(store: Store) -> None:
    resources = Resources.from_store(store)
    chat: Scripted = saying()
    stage = Synthesis(chat, "model", prompt("answer"), "stuff", 100, 0.0, 10, 1.0, 0)
    stage.use(resources)
    assert stage.llm is chat.llm is resources.llm
    assert stage.store is chat.store is store
    assert stage.notices is chat.notices
    assert MMR.resources is not resources, "others keep what they had"
