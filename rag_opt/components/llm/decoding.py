"""Several prompts continued side by side, each to the bit as if it were alone.

A step costs about the same for one text as for WIDTH, so calls that come at once are answered together (continuous
batching, Yu et al. 2022, Orca). Whoever else is asked must not change an answer, which is kept: a step always has
WIDTH rows, prompts are read in blocks that begin at the same places (kept for prompts that begin alike, as in Kwon et
al. 2023, PagedAttention), and each row attends to its own past alone.
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention

from rag_opt.system import signals

WIDTH = 8
"""Rows of a step."""

BLOCK = 128
"""Tokens of a prompt that are read at once."""

KEPT_BLOCKS = 32
"""Blocks whose keys and values are kept; of SmolLM2-135M they take 190 MB in float32."""

ATTENTION = "rag_opt_rows"
"""What transformers knows the attention of single rows by."""

FAMILIES = ("llama", "qwen2", "qwen3", "smollm3")
"""Models all of whose layers attend to everything before, by the attention that they are told to use."""


def fits(model: Any) -> bool:
    """Whether a model's prompts can be continued side by side."""
    # Llama's configuration has no such list: all of its layers are full.
    layers = getattr(model.config, "layer_types", None) or ["full_attention"]
    return model.config.model_type in FAMILIES and set(layers) == {"full_attention"}


@dataclass(eq=False)
class Past:
    """Keys and values [layer][heads, tokens, size] of what a row has read."""

    keys: list[torch.Tensor]
    values: list[torch.Tensor]
    length: int = 0

    @classmethod
    def allocate(cls, config: Any, tokens: int, like: torch.Tensor) -> Past:
        """Room for so many tokens, in the precision and on the device of `like`."""
        # Qwen2's configuration, among others, does not name the size of a head.
        size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        shape = (config.num_key_value_heads, tokens, size)

        def room() -> list[torch.Tensor]:
            return [like.new_zeros(shape) for _ in range(config.num_hidden_layers)]

        return cls(room(), room())


@dataclass(eq=False)
class Rows:
    """The pasts of a step's rows, as transformers takes a cache: it gives back one entry a row."""

    pasts: Sequence[Past]

    def update(
        self, keys: torch.Tensor, values: torch.Tensor, layer: int, *_: Any, **__: Any
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Write what each row has read now behind its past; all of it, row by row."""
        found: tuple[list[torch.Tensor], list[torch.Tensor]] = [], []
        for row, past in enumerate(self.pasts):
            # The length moves on in `advance` alone, since each layer writes at the same place.
            end = past.length + keys.shape[2]
            for kept, new, all_of_it in ((past.keys, keys, found[0]), (past.values, values, found[1])):
                kept[layer][:, past.length : end] = new[row]
                all_of_it.append(kept[layer][:, :end])
        return found

    def advance(self, tokens: int) -> None:
        """Count so many tokens as read."""
        for past in self.pasts:
            past.length += tokens


def attend_rows(
    module: Any, query: torch.Tensor, keys: Any, values: Any, *_: Any, scaling: float | None = None, **__: Any
) -> tuple[torch.Tensor, None]:
    """Attention of each row [heads, tokens, size] to its own past and itself; [rows, tokens, heads, size]."""
    del module
    count = query.shape[2]
    found = []
    for row, (key, value) in enumerate(zip(keys, values, strict=True)):
        end = key.shape[1]
        mask = None
        if count > 1:
            # Not is_causal: PyTorch aligns that to the upper left, as if the row had no past.
            mask = torch.ones(count, end, dtype=torch.bool, device=query.device).tril(end - count)
        found.append(
            scaled_dot_product_attention(
                query[row : row + 1], key[None], value[None], attn_mask=mask, scale=scaling, enable_gqa=True
            )
        )
    return torch.cat(found).transpose(1, 2), None


# Compared by identity: `in` and `remove` below must not compare tensors.
@dataclass(eq=False)
class Job:
    """A prompt to be continued: at most `room` tokens, each chosen by `choose` from the logits [vocabulary].

    `choose` gives None where the text ends. `seconds` are those of the steps that it took part in, `error` what it has
    failed by, whoever took the step.
    """

    prompt: Sequence[int]
    room: int
    choose: Callable[[torch.Tensor], int | None]
    written: list[int] = field(default_factory=list)
    seconds: float = 0.0
    done: bool = False
    past: Past | None = None
    logits: torch.Tensor | None = None
    error: Exception | None = None

    def fail(self, error: Exception) -> None:
        """End it."""
        self.error, self.done = error, True

    def take(self) -> bool:
        """Choose the next token; False where the text has come to its end."""
        # Its prompt could not be read.
        if self.logits is None:
            return False
        try:
            token = self.choose(self.logits)
        except Exception as error:
            # It is its caller's, and nobody else's text ends by it.
            self.fail(error)
            return False
        if token is not None:
            self.written.append(token)
        self.done = token is None or len(self.written) >= self.room
        return not self.done


class Decoder:
    """A model, the jobs that wait for it, and the blocks of prompts that it has read before."""

    def __init__(self, model: Any) -> None:
        from transformers import AttentionInterface

        AttentionInterface.register(ATTENTION, attend_rows)
        model.set_attn_implementation(ATTENTION)
        self.model = model
        self._turn = threading.Lock()
        self._waiting: list[Job] = []
        self._active: list[Job] = []
        self._blocks: OrderedDict[tuple[int, ...], list[torch.Tensor]] = OrderedDict()
        # Fills a step up to WIDTH rows; its one place is written over each time.
        self._idle = Past.allocate(model.config, 1, model.lm_head.weight)

    def run(self, job: Job) -> None:
        """Continue a job to its end, together with others that are asked for meanwhile; raises what it fails by."""
        # Before the turn is taken: whoever has it may begin this one, too.
        self._waiting.append(job)
        # Whoever has the turn takes steps for all; the next one goes on where it left off.
        while not job.done:
            with self._turn, torch.inference_mode():
                try:
                    while not job.done:
                        # An interrupt ends it between two tokens, not behind the whole text.
                        signals.check_ending()
                        self._step()
                except BaseException:
                    # Nobody waits for it any more. In place, since others may be asking meanwhile.
                    for jobs in (self._active, self._waiting):
                        if job in jobs:
                            jobs.remove(job)
                    raise
        if job.error is not None:
            raise job.error

    def _step(self) -> None:
        """Begin what waits where there is room, then one token for each text."""
        while self._waiting and len(self._active) < WIDTH:
            job = self._waiting.pop(0)
            self._active.append(job)
            start = time.perf_counter()
            try:
                self._read(job)
            except Exception as error:
                # Memory that is lacking, or a model that fails.
                job.fail(error)
            job.seconds += time.perf_counter() - start
        start = time.perf_counter()
        going = [job for job in self._active if job.take()]
        self._active = going
        if not going:
            return
        # Every idle row of the last step has moved it on by one.
        self._idle.length = 0
        pasts = [job.past for job in going if job.past is not None] + [self._idle] * (WIDTH - len(going))
        tokens = [job.written[-1] for job in going] + [0] * (WIDTH - len(going))
        try:
            logits = self._forward(torch.tensor(tokens)[:, None], pasts)
        except Exception as error:
            # One step for all of them: which row it failed by can't be told.
            self._active = []
            for job in going:
                job.fail(error)
            return
        spent = time.perf_counter() - start
        for row, job in enumerate(going):
            job.logits = logits[row]
            job.seconds += spent

    def _read(self, job: Job) -> None:
        """Read a prompt block by block; of those read before the keys and values are taken."""
        like = self.model.lm_head.weight
        job.past = Past.allocate(self.model.config, len(job.prompt) + job.room, like)
        for start in range(0, len(job.prompt), BLOCK):
            end = min(start + BLOCK, len(job.prompt))
            # Known by all up to its end: a block's keys and values depend on what stands before it.
            whole = tuple(job.prompt[:end])
            # The last one is read in any case: what comes behind it is asked for.
            known = self._blocks.get(whole) if end < len(job.prompt) else None
            if known is not None:
                self._blocks.move_to_end(whole)
                for kept, block in zip((*job.past.keys, *job.past.values), known, strict=True):
                    kept[:, start:end] = block
                job.past.length = end
                continue
            job.logits = self._forward(torch.tensor([job.prompt[start:end]]), [job.past])[0]
            if end < len(job.prompt):
                # Copies, since a view would hold the memory of the whole row.
                self._keep(whole, [kept[:, start:end].clone() for kept in (*job.past.keys, *job.past.values)])

    def _keep(self, tokens: tuple[int, ...], block: list[torch.Tensor]) -> None:
        self._blocks[tokens] = block
        while len(self._blocks) > KEPT_BLOCKS:
            self._blocks.popitem(last=False)

    def _forward(self, tokens: torch.Tensor, pasts: Sequence[Past]) -> torch.Tensor:
        """The logits [rows, vocabulary], float32, behind the tokens [rows, tokens], which join the pasts."""
        rows, count = Rows(pasts), tokens.shape[1]
        places = torch.tensor([[past.length + step for step in range(count)] for past in pasts])
        device = self.model.device
        # Of a block only the last token's logits are read; all of them would be BLOCK times the vocabulary.
        found = self.model(
            input_ids=tokens.to(device),
            position_ids=places.to(device),
            cache_position=places[0].to(device),
            past_key_values=rows,
            use_cache=True,
            logits_to_keep=1,
        )
        rows.advance(count)
        logits: torch.Tensor = found.logits[:, -1].float()
        return logits
