"""KV caches against transformers' own: a Llama and a Mistral with random weights, read in pieces by both."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from underhood.infer.cache import ContiguousCache
from underhood.infer.sliding_window_cache import SlidingWindowCache
from underhood.models.hub_weights import load_decoder

SHAPE = {
    "vocab_size": 60,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 96,
    "tie_word_embeddings": False,
}
PIECES = (9, 5, 1, 1, 7, 1, 6)


@torch.no_grad()
@pytest.mark.parametrize("family", ["Llama", "Mistral"])
def test_pieces_through_the_cache_match_transformers_past_key_values(family: str, tmp_path: Path):
    import transformers

    window = {"sliding_window": 12} if family == "Mistral" else {}
    torch.manual_seed(3)
    config = getattr(transformers, f"{family}Config")(**SHAPE, **window)
    peer = getattr(transformers, f"{family}ForCausalLM")(config).eval()
    for parameter in peer.parameters():
        parameter.add_(0.2 * torch.randn_like(parameter))
    peer.save_pretrained(tmp_path)
    model = load_decoder(tmp_path)
    tokens_BT = torch.randint(60, (1, sum(PIECES)))
    cache = (
        SlidingWindowCache(model.spec.state_specs, batch=1, window=12)
        if window
        else ContiguousCache.for_model(model, batch=1, capacity=sum(PIECES))
    )
    past = None
    for piece_BT in tokens_BT.split(PIECES, dim=1):
        theirs = peer(piece_BT, past_key_values=past, use_cache=True)
        past = theirs.past_key_values
        torch.testing.assert_close(model(piece_BT, cache=cache), theirs.logits, rtol=0, atol=1e-5)
