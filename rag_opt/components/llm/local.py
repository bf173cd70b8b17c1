"""Language models that run in this process, by transformers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_opt.components.checks import require
from rag_opt.components.llm.chat import CallError, Chat, check_token_limits
from rag_opt.components.llm.grammar import Constraint
from rag_opt.components.llm.request import Messages, Request, merge_system
from rag_opt.components.models.devices import AUTO, DEVICE, find_device
from rag_opt.components.models.hub import is_local_only
from rag_opt.components.models.memory import check_memory
from rag_opt.components.models.weights import hash_weights, quiet_transformers
from rag_opt.errors import ComponentError
from rag_opt.llm.replies import Reply
from rag_opt.records.keys import FORM, compute_key
from rag_opt.system import signals
from rag_opt.system.environment import disable_gc

if TYPE_CHECKING:
    from rag_opt.components.llm.decoding import Decoder

DTYPES = ("float32", "bfloat16", "float16")
CHOICE = "enable_thinking"
"""What a chat template calls the choice whether to think."""

TURN = threading.Lock()
"""Sampling by transformers is seeded for the whole process, so one such reply is generated at a time."""

LOADING = threading.Lock()
"""Threads that ask at once load a model once."""

SIDE_BY_SIDE = 8
"""Calls under way at a time: as many as a decoder's step has rows."""


@dataclass(frozen=True)
class Loaded:
    """A model that is ready: `decoder` continues several prompts at once, None for one that only transformers can run.

    `ends` are the tokens that end a text, `read_grammar` gives llguidance's view of the tokenizer, read once.
    """

    tokenizer: Any
    model: Any
    decoder: Decoder | None
    ends: frozenset[int]
    read_grammar: Callable[[], Any]


class LocalChat(Chat):
    """A causal language model with a chat template, from a folder or the hub, on `device` (auto: a GPU, if any).

    One whose template lets it choose (Qwen3) thinks only where it is given `thinking` tokens for that.
    """

    algorithm = "rag_opt.components.local.LocalChat"
    at_once = SIDE_BY_SIDE
    reads_whole = True

    def __init__(
        self, revision: str | None, dtype: str, thinking: int = 0, window: int | None = None, device: str = AUTO
    ) -> None:
        require(bool(DEVICE.fullmatch(str(device))), f"llm.device must be auto, cpu, cuda, cuda:1 or mps, not {device}")
        require(dtype in DTYPES, f"llm.dtype must be one of {', '.join(DTYPES)}, not {dtype}")
        check_token_limits(thinking, window)
        self.revision = revision
        self.dtype = dtype
        self.thinking = thinking
        self.window = window
        self.device = device
        self.prices = {}

    @property
    def fingerprint(self) -> str:
        return compute_key(FORM, "local chat, 2", self.revision, self.dtype, self.thinking)

    @property
    def precision(self) -> str:
        """What it computes in: part of what it says, and known before it is loaded."""
        return self.dtype

    def identify_model(self, model: str) -> Any:
        return hash_weights(model) or model

    def is_free(self) -> bool:
        return True

    def can_vary(self, request: Request) -> bool:
        return request.sampling.temperature > 0

    def load(self, model: str) -> None:
        """Load a model before it is asked; raises ComponentError where that can't be done."""
        self._get_model(model)

    def call_model(self, request: Request) -> Reply:
        return self.stream_reply(request, None)

    def stream_reply(self, request: Request, show: Callable[[str], None] | None) -> Reply:
        """As `call_model`; `show` is given the text piece by piece."""
        loaded = self._get_model(request.model)
        # Loading the model is no part of what a reply takes.
        start = time.perf_counter()
        read = self._read_prompt(loaded.tokenizer, request)
        length = int(read["input_ids"].shape[1])
        self._check_fits(length + request.sampling.max_tokens + self.thinking, loaded.model)
        signals.check_ending()
        choose = Choice(request, loaded, self.thinking, show)
        if loaded.decoder is None:
            written = _generate(loaded, read, choose)
            seconds = time.perf_counter() - start
        else:
            from rag_opt.components.llm.decoding import Job

            job = Job(read["input_ids"][0].tolist(), choose.room, choose)
            loaded.decoder.run(job)
            written, seconds = job.written, job.seconds
        text = loaded.tokenizer.decode(written, skip_special_tokens=True).strip()
        return Reply(text, length, len(written), seconds)

    def _get_model(self, name: str) -> Loaded:
        key = compute_key(self.identify_model(name), self.revision, self.precision, self.device)
        with LOADING:
            # The last one alone stays: two may not fit the memory.
            found: Loaded = self.store.get_object("language model", key, lambda: self._load_model(name), keep=1)
        return found

    def _read_prompt(self, tokenizer: Any, request: Request) -> Any:
        chooses = {CHOICE: self.thinking > 0} if CHOICE in str(tokenizer.chat_template) else {}
        try:
            return _apply_template(tokenizer, request.messages, chooses)
        except Exception as error:
            # A template is a program of the model's makers.
            raise ComponentError(f"llm: the chat template of '{request.model}' fails: {error}"[:300]) from error

    def _check_fits(self, tokens: int, model: Any) -> None:
        """Raise CallError where prompt and answer are longer than what the model was made for."""
        # Models that read images as well keep it one level down.
        known = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        if isinstance(known, int) and tokens > known:
            raise CallError(
                f"a prompt and its answer of {tokens:,} tokens do not fit the model's {known:,}; hand on fewer or "
                "shorter chunks"
            )

    def _load_model(self, name: str) -> Loaded:
        device = find_device("llm", self.device)
        where: Any = {"revision": self.revision, "local_files_only": is_local_only("llm", name, self.revision)}
        with disable_gc():
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer

            quiet_transformers()
        if Path(name).is_dir():
            check_memory("llm", Path(name), 4 if self.precision == "float32" else 2)
        try:
            tokenizer = AutoTokenizer.from_pretrained(name, **where)
            # No code that a model brings is run.
            model = AutoModelForCausalLM.from_pretrained(
                name, dtype=getattr(torch, self.precision), trust_remote_code=False, **where
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
        return prepare_model(tokenizer, placed.to(device).eval())


def prepare_model(tokenizer: Any, model: Any) -> Loaded:
    """A model with what its replies are made by."""
    from rag_opt.components.llm.decoding import Decoder, fits
    from rag_opt.components.llm.grammar import read_tokens

    # It may name several, as Llama 3's <|eot_id|> beside <|end_of_text|>; the tokenizer knows one.
    given = getattr(model.generation_config, "eos_token_id", None)
    given = given if isinstance(given, list) else [given]
    ends = frozenset(each for each in (*given, tokenizer.eos_token_id) if each is not None)
    decoder = Decoder(model) if fits(model) else None
    grammar = cache(lambda: read_tokens(tokenizer, model.get_output_embeddings().weight.shape[0]))
    return Loaded(tokenizer, model, decoder, ends, grammar)


class Choice:
    """Which token comes next: the likeliest, or one drawn by the request's temperature, top_p and seed.

    None at the end. Where the request has a schema, only what keeps to it. `show` is given the text as it comes.
    """

    def __init__(
        self, request: Request, loaded: Loaded, thinking: int, show: Callable[[str], None] | None = None
    ) -> None:
        import torch

        self.sampling = request.sampling
        self.room = request.sampling.max_tokens + thinking
        self.ends = loaded.ends
        self.dice = torch.Generator().manual_seed(request.sampling.seed + request.attempt)
        # What a model thinks first has no schema.
        wanted = request.schema if not thinking else None
        self.constraint = None if wanted is None else Constraint(loaded.read_grammar(), wanted, self.room)
        self.whole = False
        self.show = None if show is None else _show_tokens(loaded.tokenizer, show)

    def __call__(self, logits: Any) -> int | None:
        if self.whole:
            return None
        if self.constraint is not None:
            logits = self.constraint.forbid(logits)
        token = int(logits.argmax()) if self.sampling.temperature == 0 else self._draw(logits)
        if token in self.ends:
            return None
        if self.constraint is not None:
            self.whole = not self.constraint.accept(token)
        if self.show is not None:
            self.show(token)
        return token

    def _draw(self, logits: Any) -> int:
        """From the likeliest tokens that together have top_p (Holtzman et al. 2020, arXiv 1904.09751)."""
        import torch

        # On the CPU, where the generator is. Stable, so that equal logits always stand in the same order.
        chances, tokens = (logits.cpu() / self.sampling.temperature).softmax(0).sort(descending=True, stable=True)
        # The first one that reaches it is in.
        chances[chances.cumsum(0) - chances >= self.sampling.top_p] = 0
        return int(tokens[torch.multinomial(chances, 1, generator=self.dice)])


def _show_tokens(tokenizer: Any, show: Callable[[str], None]) -> Callable[[int], None]:
    """What shows tokens as text: a letter may be made of several."""
    from tokenizers.decoders import DecodeStream

    stream = DecodeStream(skip_special_tokens=True)

    def take(token: int) -> None:
        if piece := stream.step(tokenizer.backend_tokenizer, token):
            show(piece)

    return take


def _generate(loaded: Loaded, read: Any, choose: Choice) -> list[int]:
    """As a decoder would, for a model that only transformers can run: token by token, one text at a time."""
    import torch

    written: list[int] = []
    with TURN, torch.inference_mode():
        given = read.to(loaded.model.device)
        past: Any = None
        while len(written) < choose.room:
            signals.check_ending()
            out = loaded.model(**given, past_key_values=past, use_cache=True)
            token, past = choose(out.logits[0, -1].float()), out.past_key_values
            if token is None:
                break
            written.append(token)
            mask = torch.cat([given["attention_mask"], given["attention_mask"].new_ones(1, 1)], 1)
            # What was read before stands in the cache.
            given = {"input_ids": given["input_ids"].new_tensor([[token]]), "attention_mask": mask}
    return written


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
