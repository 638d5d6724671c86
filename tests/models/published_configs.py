"""The keys of published ``config.json`` files (see ``published_configs.json``), whole and at a size for tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TABLE = json.loads((Path(__file__).parent / "published_configs.json").read_text(encoding="utf-8"))["models"]
_ROWS = {row["name"]: row for row in TABLE}
NAMES = list(_ROWS)

TINY_VOCABULARY = 61
_TINY = {
    "n_embd": 32, "n_head": 4, "n_layer": 2, "n_inner": 48, "n_positions": 64, "n_ctx": 64,
    "hidden_size": 32, "intermediate_size": 48, "num_attention_heads": 4, "head_dim": 8, "num_hidden_layers": 7,
    "num_experts": 4, "num_local_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24,
    "shared_expert_intermediate_size": 40, "vocab_size": TINY_VOCABULARY, "sliding_window": 5,
    "sliding_window_size": 5, "initializer_range": 0.3,
}  # fmt: skip


def config(name: str) -> dict[str, Any]:
    """All keys of the model's file."""
    row = _ROWS[name]
    keys = config(row["like"]) if "like" in row else {}
    return {key: value for key, value in keys.items() if key not in row.get("without", ())} | row["keys"]


def parameters(name: str) -> int | None:
    """The published number of parameters."""
    return _ROWS[name]["parameters"]


def tiny_config(name: str) -> dict[str, Any]:
    """The same keys with small sizes; switches, constants and what is null stay. Of Gemma 3 the language model only."""
    data = config(name)
    if "text_config" in data:
        data = {"vocab_size": TINY_VOCABULARY} | data["text_config"]
    same_heads = data.get("num_key_value_heads") == data.get("num_attention_heads")
    tiny = {key: _TINY[key] if key in _TINY and value else value for key, value in data.items()}
    if "num_key_value_heads" in data:
        tiny["num_key_value_heads"] = 4 if same_heads else min(2, data["num_key_value_heads"])
    if "layer_types" in data:
        tiny["layer_types"] = data["layer_types"][: _TINY["num_hidden_layers"]]
    if data.get("no_rope_layers"):
        tiny["no_rope_layers"] = data["no_rope_layers"][: _TINY["num_hidden_layers"]]
    for key, value in data.items():
        if key.endswith("_token_id") and value is not None:
            tiny[key] = [1] if isinstance(value, list) else 1
    scaling = data.get("rope_scaling") or {}
    rotated = int(_TINY["head_dim"] * data.get("partial_rotary_factor", 1.0)) // 2
    lists = {key: value[:rotated] for key, value in scaling.items() if isinstance(value, list)}
    return tiny | ({"rope_scaling": scaling | lists} if lists else {})
