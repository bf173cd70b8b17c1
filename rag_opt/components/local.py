"""Language models that run in this process, by transformers."""

from __future__ import annotations

import threading
import time
from typing import Any

from rag_opt.components.chat import Chat, Request
from rag_opt.components.encoders import quiet_transformers, weights
from rag_opt.components.pace import device
from rag_opt.components.stage import require
from rag_opt.environment import no_collection
from rag_opt.errors import ComponentError
from rag_opt.keys import key_of
from rag_opt.replies import Reply

DTYPES = ("float32", "bfloat16", "float16")
TURN = threading.Lock()
"""Sampling is seeded for the whole process, so one reply is generated at a time."""


class LocalChat(Chat):
    """A causal language model with a chat template, from a folder or the hub; on the GPU where there is one."""

    def __init__(self, revision: str | None, dtype: str) -> None:
        require(dtype in DTYPES, f"llm.dtype must be one of {', '.join(DTYPES)}, not {dtype}")
        self.revision = revision
        self.dtype = dtype
        self.prices = {}

    def identity(self, model: str) -> Any:
        return weights(model) or model

    def free(self) -> bool:
        return True

    def called(self, request: Request) -> Reply:
        import torch

        key = key_of(self.identity(request.model), self.revision, self.dtype)
        with TURN:
            tokenizer, model = self.store.live("language model", key, lambda: self._loaded(request.model), keep=1)
            start = time.perf_counter()
            said = [{"role": role, "content": text} for role, text in request.messages]
            try:
                read = tokenizer.apply_chat_template(
                    said, add_generation_prompt=True, return_tensors="pt", return_dict=True
                )
            except Exception as error:
                # A template is a program of the model's makers.
                raise ComponentError(f"llm: the chat template of '{request.model}' fails: {error}"[:300]) from error
            read = read.to(model.device)
            torch.manual_seed(request.sampling.seed + request.attempt)
            with torch.inference_mode():
                found = model.generate(**read, **_options(request), pad_token_id=tokenizer.pad_token_id)
        written = found[0, read["input_ids"].shape[1] :]
        text = tokenizer.decode(written, skip_special_tokens=True).strip()
        return Reply(text, int(read["input_ids"].shape[1]), len(written), time.perf_counter() - start)

    def _loaded(self, name: str) -> tuple[Any, Any]:
        with no_collection():
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            quiet_transformers()
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, revision=self.revision)
            model = AutoModelForCausalLM.from_pretrained(
                name, revision=self.revision, dtype=getattr(torch, self.dtype), trust_remote_code=False
            )
        except Exception as error:
            # Damaged weights and tokenizers raise errors of their libraries' own.
            reason = (str(error).splitlines() or [type(error).__name__])[0][:200]
            raise ComponentError(
                f"llm: model '{name}' can't be loaded ({reason}); name a folder with such a model, or use llm=openai"
            ) from error
        if tokenizer.chat_template is None:
            raise ComponentError(f"llm: model '{name}' has no chat template; choose one that was made for chats")
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        placed: Any = model
        return tokenizer, placed.to(device()).eval()


def _options(request: Request) -> dict[str, Any]:
    sampling = request.sampling
    if sampling.temperature == 0:
        return {"max_new_tokens": sampling.max_tokens, "do_sample": False}
    return {
        "max_new_tokens": sampling.max_tokens,
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
