"""Folders as others publish chat models: tiny random Llamas by transformers, with a tokenizer and a chat template."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch

from text.published_templates import STYLES, tokenizer_of


def make_published(folder: Path, style: str, *, end_ids: list[int] | None = None, context: int = 256) -> Any:
    """Saves such a folder; returns transformers' model.

    Args:
        style: whose template and special tokens, see `text.published_templates`.
        end_ids: what ``generation_config.json`` says ends an answer; left out, the style's end of turn.
    """
    from transformers import LlamaConfig, LlamaForCausalLM

    chosen, tokenizer = STYLES[style], tokenizer_of(style)
    ids = {name: tokenizer.token_to_id(name) for name in chosen.special}
    last = [ids[chosen.end]] if chosen.end else [ids[chosen.variables["eos_token"]]]
    torch.manual_seed(3)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=context,
        bos_token_id=ids.get(chosen.variables.get("bos_token", "")),
        eos_token_id=end_ids or last,
        initializer_range=0.25,  # lively: a usual one would say one word over and over
    )
    model = LlamaForCausalLM(config).eval()
    model.save_pretrained(folder)
    tokenizer.save(str(folder / "tokenizer.json"))
    says = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": chosen.source} | chosen.variables
    (folder / "tokenizer_config.json").write_text(json.dumps(says), encoding="utf-8")
    return model
