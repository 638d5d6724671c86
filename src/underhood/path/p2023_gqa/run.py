"""Ainslie et al. 2023: query heads that share keys and values, their quality and their memory."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.core.figures import Series
from underhood.core.trial import Trial
from underhood.models.decoder import Decoder
from underhood.models.presets import CONFIGS, preset
from underhood.nn.attention import Attention, AttentionSpec
from underhood.nn.feedforward import GatedMLPSpec
from underhood.nn.forward_context import ForwardContext
from underhood.path.lib.letter_models import continued, held_out_loss, letter_model, trained
from underhood.path.lib.seed_series import over_seeds

HEADS = 4
INNER = {4: 168, 2: 189, 1: 200}
"""Width of the feed-forward by key-value heads, so that all models have as many weights (to 0.1 %)."""
STEPS = 300


def run(trial: Trial) -> None:
    losses: dict[str, list[float]] = {name: [] for name in ("4 heads", "2", "1", "4 merged to 2", "2 fresh")}
    for seed in trial.each_seed():
        trial.measure("same", repeated_heads_error(seed, in_turn=trial.ablated("neighbours")))
        if trial.is_ablation or not trial.wants("quality"):
            continue
        models = {}
        for groups in trial.each(INNER, "key-value heads"):
            models[groups] = trained(shaped(groups, INNER[groups]), seed=seed, steps=STEPS, tell=trial.progress)
        merged = continued(fewer_heads(models[4], mean=True), seed=seed + 100, steps=STEPS // 10, tell=trial.progress)
        fresh = continued(fewer_heads(models[4], mean=False), seed=seed + 100, steps=STEPS // 10, tell=trial.progress)
        values = [held_out_loss(model) for model in (*models.values(), merged, fresh)]
        for row, value in zip(losses.values(), values, strict=True):
            row.append(value)
        trial.measure("quality", values[1] - values[0])
        trial.measure("single", values[2] - values[0])
        trial.measure("uptrained", values[3] - values[0])
        trial.measure("pooling", values[4] - values[3])
    if trial.is_ablation:
        return
    trial.measure("cache", cache_bytes(AttentionSpec(heads=32, kv_heads=8), 4096, 32) * 32_768 / 1e9)
    check(trial)
    if losses["2"]:
        trial.plot(
            title="Fewer key-value heads, about the same loss",
            x="key-value heads",
            y="nats per letter",
            kind="bars",
            names=tuple(losses),
            series=[over_seeds("mean over seeds", [*losses.values()])],
            note="Four query heads throughout; lines: range over seeds. The last two continue the first model.",
        )
    groups = (64, 32, 16, 8, 4, 2, 1)
    kilobytes = [cache_bytes(AttentionSpec(heads=64, kv_heads=count), 8192, 80) / 1000 for count in groups]
    trial.plot(
        title="Memory of a token in Llama-2 70B, had it other key-value heads",
        x="key-value heads",
        y="kilobytes",
        kind="bars",
        names=tuple(map(str, groups)),
        series=[Series("KV cache", tuple(range(len(groups))), tuple(kilobytes))],
        note="It has 8.",
    )


def shaped(groups: int, d_ff: int):
    return letter_model(mixer=AttentionSpec(heads=HEADS, kv_heads=groups), feedforward=GatedMLPSpec(d_ff=d_ff))


def repeated_heads_error(seed: int, *, in_turn: bool) -> float:
    """Largest difference from multi-head attention with the shared heads written out for every query head.

    Args:
        in_turn: the copies are dealt out in turn instead.
    """
    torch.manual_seed(seed)
    grouped = AttentionSpec(heads=8, kv_heads=2).build(64, 0)
    whole = AttentionSpec(heads=8).build(64, 0)
    order = torch.arange(8) % 2 if in_turn else torch.arange(8) // 4
    with torch.no_grad():
        for name in ("query", "output"):
            getattr(whole, name).weight.copy_(getattr(grouped, name).weight)
        for name in ("key", "value"):
            heads_GKD = getattr(grouped, name).weight.unflatten(0, (2, -1))
            getattr(whole, name).weight.copy_(heads_GKD[order].flatten(0, 1))
        x_BTD = torch.randn(2, 12, 64)
        ctx = ForwardContext(torch.zeros(2, 12), None, None)
        return float((grouped(x_BTD, ctx) - whole(x_BTD, ctx)).abs().max())


@torch.no_grad()
def fewer_heads(model: Decoder, *, mean: bool) -> Decoder:
    """The trained multi-head model with two key-value heads: means of neighbours, or fresh ones."""
    smaller = shaped(2, INNER[4]).initialize(seed=0)
    ours = dict(smaller.named_parameters())
    for name, theirs in model.named_parameters():
        if ours[name].shape == theirs.shape:
            ours[name].copy_(theirs)
    if mean:
        for old, new in zip(model.blocks, smaller.blocks, strict=True):
            for name in ("key", "value"):
                weight = getattr(cast(Attention, old.mixer), name).weight
                pooled = weight.unflatten(0, (2, 2, -1)).mean(dim=1).flatten(0, 1)
                getattr(cast(Attention, new.mixer), name).weight.copy_(pooled)
    return smaller


def cache_bytes(spec: AttentionSpec, d_model: int, layers: int) -> int:
    """Bytes of keys and values per token, in 16 bits."""
    return layers * sum(2 * heads * width for heads, width in spec.state_spec(d_model).vectors)


def check(trial: Trial) -> None:
    q_BHTK, k_BGTK, v_BGTK = (
        torch.randn(1, heads, 9, 8, generator=torch.Generator().manual_seed(heads)) for heads in (8, 2, 2)
    )
    ours = F.scaled_dot_product_attention(q_BHTK, k_BGTK, v_BGTK, is_causal=True, enable_gqa=True)
    scores: Tensor = q_BHTK @ k_BGTK.repeat_interleave(4, dim=1).mT / 8**0.5
    weights = scores.masked_fill(torch.ones(9, 9).triu(1).bool(), -torch.inf).softmax(dim=-1)
    worst = float((ours - weights @ v_BGTK.repeat_interleave(4, dim=1)).abs().max())
    trial.oracle(
        "torch's grouped attention is the formula with repeated heads", worst < 1e-6, f"difference {worst:.1e}"
    )
    shares = [CONFIGS[name]["num_key_value_heads"] for name in ("llama-2-70b", "mistral-7b-v0.1", "llama-3-8b")]
    trial.oracle("Llama-2 70B, Mistral and Llama 3 have eight", shares == [8, 8, 8], str(shares))
    [vectors] = {state.vectors for state in preset("llama-2-70b").state_specs}
    trial.oracle(
        "a token of Llama-2 70B keeps 8 keys and 8 values of 128", vectors == ((8, 128), (8, 128)), str(vectors)
    )
