"""Where a model runs: what is named has to be there, and that is said before it is loaded."""

from __future__ import annotations

import pytest
import torch

from rag_opt.cache.store import Store
from rag_opt.components.llm.local import LocalChat
from rag_opt.components.llm.smollm2 import SmolLM2Chat
from rag_opt.components.models.devices import find_device
from rag_opt.components.resources import Resources
from rag_opt.config.compose import compose_config
from rag_opt.config.trial import compute_fingerprint
from rag_opt.errors import ComponentError


def test_without_a_gpu_all_runs_on_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert find_device("llm", "auto") == find_device("llm", "cpu") == "cpu"


def test_a_gpu_that_is_there_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert find_device("llm", "auto") == "cuda"
    assert find_device("llm", "cuda:1") == "cuda:1"
    with pytest.raises(
        ComponentError, match=r"llm.device=cuda:2: GPUs that this PyTorch finds here: 2; choose llm.device=auto"
    ):
        find_device("llm", "cuda:2")


@pytest.mark.parametrize(
    ("wanted", "why"), [("cuda", "this PyTorch was built without GPUs"), ("mps", "finds no GPU of Apple's here")]
)
def test_one_that_is_not_there_is_said_before_a_model_is_loaded(wanted, why, tiny_models, monkeypatch) -> None:
    monkeypatch.setattr(torch.version, "cuda", None)
    monkeypatch.setattr(torch.version, "hip", None)
    chat = LocalChat(None, "float32", device=wanted)
    chat.use(Resources.from_store(Store()))
    packaged = SmolLM2Chat(device=wanted)
    packaged.use(Resources.from_store(Store()))
    told = rf"llm.device={wanted}: .*{why}.*choose llm.device=auto"
    with pytest.raises(ComponentError, match=told):
        chat.load(tiny_models["tiny_llm"])
    with pytest.raises(ComponentError, match=told):
        packaged.load("smollm2")


@pytest.mark.parametrize("given", ["gpu", "cuda:x", "", 3, None])
def test_what_is_no_device_is_refused(given: object) -> None:
    with pytest.raises(ValueError, match="llm.device must be auto, cpu, cuda, cuda:1 or mps"):
        LocalChat(None, "float32", device=given)


def test_where_it_runs_refuses_no_resumed_study() -> None:
    found = {
        compute_fingerprint(
            compose_config(["generator=hf_local", "llm=hf_local", f"llm.device={device}"]), ["generator"]
        )
        for device in ("auto", "cpu")
    }
    assert len(found) == 1
