"""Language models that run in this process, by transformers."""

from __future__ import annotations

import threading
import time
from typing import Any

from rag_opt.components.llm.chat import CallError, Chat, check_token_limits
from rag_opt.components.llm.request import Messages, Request, merge_system
from rag_opt.components.models.hub import is_local_only
from rag_opt.components.models.speed import get_device
from rag_opt.components.models.weights import hash_weights, quiet_transformers
from rag_opt.components.stage import require
from rag_opt.errors import ComponentError
from rag_opt.llm.replies import Reply
from rag_opt.records.keys import FORM, compute_key
from rag_opt.system import signals
from rag_opt.system.environment import disable_gc

DTYPES = ("float32", "bfloat16", "float16")
CHOICE = "enable_thinking"
"""What a chat template calls the choice whether to think."""

TURN = threading.Lock()
"""Sampling is seeded for the whole process, so one reply is generated at a time."""


class LocalChat(Chat):
    """A causal language model with a chat template, from a folder or the hub; on the GPU where there is one.

    One whose template lets it choose (Qwen3) thinks only where it is given `thinking` tokens for that.
    """

    algorithm = "rag_opt.components.local.LocalChat"

    def __init__(self, revision: str | None, dtype: str, thinking: int = 0, window: int | None = None) -> None:
        require(dtype in DTYPES, f"llm.dtype must be one of {', '.join(DTYPES)}, not {dtype}")
        check_token_limits(thinking, window)
        self.revision = revision
        self.dtype = dtype
        self.thinking = thinking
        self.window = window
        self.prices = {}

    @property
    def fingerprint(self) -> str:
        return compute_key(FORM, "local chat", self.revision, self.dtype, self.thinking)

    def identify_model(self, model: str) -> Any:
        return hash_weights(model) or model

    def is_free(self) -> bool:
        return True

    def can_vary(self, request: Request) -> bool:
        return request.sampling.temperature > 0

    def call_model(self, request: Request) -> Reply:
        import torch
        from transformers import StoppingCriteriaList

        key = compute_key(self.identify_model(request.model), self.revision, self.dtype)
        with TURN:
            tokenizer, model = self.store.get_object(
                "language model", key, lambda: self._load_model(request.model), keep=1
            )
            # Loading the model is no part of what a reply takes.
            start = time.perf_counter()
            chooses = {"enable_thinking": self.thinking > 0} if CHOICE in str(tokenizer.chat_template) else {}
            try:
                read = _apply_template(tokenizer, request.messages, chooses)
            except Exception as error:
                # A template is a program of the model's makers.
                raise ComponentError(f"llm: the chat template of '{request.model}' fails: {error}"[:300]) from error
            length = int(read["input_ids"].shape[1])
            self._check_fits(length + request.sampling.max_tokens + self.thinking, model)
            read = read.to(model.device)
            torch.manual_seed(request.sampling.seed + request.attempt)
            signals.check_ending()
            with torch.inference_mode():
                found = model.generate(
                    **read,
                    **_build_options(request, self.thinking),
                    pad_token_id=tokenizer.pad_token_id,
                    stopping_criteria=StoppingCriteriaList([_check_stop]),
                )
        written = found[0, length:]
        text = tokenizer.decode(written, skip_special_tokens=True).strip()
        return Reply(text, length, len(written), time.perf_counter() - start)

    def _check_fits(self, tokens: int, model: Any) -> None:
        """Raise CallError where prompt and answer are longer than what the model was made for."""
        known = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if isinstance(known, int) and tokens > known:
            raise CallError(
                f"a prompt and its answer of {tokens:,} tokens do not fit the model's {known:,}; hand on fewer or "
                "shorter chunks"
            )

    def _load_model(self, name: str) -> tuple[Any, Any]:
        where: Any = {"revision": self.revision, "local_files_only": is_local_only("llm", name, self.revision)}
        with disable_gc():
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            quiet_transformers()
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **where)
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=getattr(torch, self.dtype), trust_remote_code=False, **where
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
            # generate() wants one, which many causal models lack; a single prompt has no padding.
            tokenizer.pad_token = tokenizer.eos_token
        placed: Any = model
        return tokenizer, placed.to(get_device()).eval()


def _apply_template(tokenizer: Any, messages: Messages, chooses: dict[str, bool]) -> Any:
    """The tokens of messages; some templates, such as Gemma 2's, raise an error for a system's."""

    def tokens(messages: Messages) -> Any:
        said = [{"role": role, "content": text} for role, text in messages]
        return tokenizer.apply_chat_template(
            said, add_generation_prompt=True, return_tensors="pt", return_dict=True, **chooses
        )

    try:
        return tokens(messages)
    except Exception:
        if (merged := merge_system(messages)) == messages:
            raise
        return tokens(merged)


def _check_stop(*_: Any, **__: Any) -> bool:
    """Asked after each token whether the text is to end there: never, but the study may be."""
    signals.check_ending()
    return False


def _build_options(request: Request, thinking: int) -> dict[str, Any]:
    sampling = request.sampling
    room = sampling.max_tokens + thinking
    if sampling.temperature == 0:
        return {"max_new_tokens": room, "do_sample": False}
    return {
        "max_new_tokens": room,
        "do_sample": True,
        "temperature": sampling.temperature,
        "top_p": sampling.top_p,
    }
