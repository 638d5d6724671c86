"""TransformerLens for `bench_inspect.py`: what its users write for a lens, a trace and a patch sweep."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


def tokenizer() -> Any:
    """A tokenizer that it wants to have, though only ids are given to it."""
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    vocabulary = {"<|endoftext|>": 0, "a": 1}
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(vocabulary, unk_token="a")),
        eos_token="<|endoftext|>",
        pad_token="<|endoftext|>",
    )


class Lens:
    """A transformers model in TransformerLens 4.

    Args:
        model: a `transformers` GPT-2.
    """

    def __init__(self, model: Any):
        from transformer_lens import TransformerBridge

        self.bridge = TransformerBridge.boot_transformers("gpt2", hf_model=model, tokenizer=tokenizer(), device="cpu")
        self.bridge.eval()

    @torch.no_grad()
    def forward(self, ids: Sequence[int]) -> Tensor:
        return self.bridge(torch.tensor([ids]))

    @torch.no_grad()
    def cached(self, ids: Sequence[int]) -> Any:
        """`run_with_cache` of the residual streams alone, the cheapest way that it offers."""
        _, cache = self.bridge.run_with_cache(
            torch.tensor([ids]), names_filter=lambda name: name.endswith(("hook_resid_pre", "hook_resid_post"))
        )
        return cache

    @torch.no_grad()
    def lens(self, ids: Sequence[int], k: int, position: int | None = None) -> tuple[Tensor, Tensor]:
        """The k likeliest tokens of every residual stream, (L + 1, P, k), and their probabilities."""
        cache = self.cached(ids)
        streams = cache.accumulated_resid(layer=None, incl_mid=False, pos_slice=position)[:, 0]
        normed = self.bridge.ln_final(streams)
        top = self.bridge.unembed(normed).softmax(dim=-1).topk(k, dim=-1)
        return top.indices, top.values

    @torch.no_grad()
    def patch_sweep(self, source: Sequence[int], target: Sequence[int], answer: int, other: int) -> Tensor:
        """The difference of two scores for every patched (layer, position)."""
        from transformer_lens.patching import get_act_patch_resid_pre

        clean = self.cached(source)

        def difference(logits_BTV: Tensor) -> Tensor:
            return logits_BTV[0, -1, answer] - logits_BTV[0, -1, other]

        return get_act_patch_resid_pre(self.bridge, torch.tensor([target]), clean, difference)


def integrated_gradients_by_captum(model: Any, ids: Sequence[int], answer: int, steps: int, rows: int) -> Tensor:
    """captum's integrated gradients of the embeddings from a prompt of token 0, (T), for one of our decoders.

    The function that it is given scores the last token only, as ours does.

    Args:
        rows: steps that it runs side by side.
    """
    from captum.attr import LayerIntegratedGradients

    def score(tokens_BT: Tensor) -> Tensor:
        hidden_B1D = model.hidden_states(tokens_BT, rows=slice(-1, None))
        return model.unembed(hidden_B1D)[:, -1, answer]

    explain = LayerIntegratedGradients(score, model.embed)
    values = explain.attribute(
        torch.tensor([ids]), n_steps=steps, method="gausslegendre", internal_batch_size=rows, baselines=None
    )
    assert isinstance(values, Tensor)
    return values[0].sum(dim=-1)
