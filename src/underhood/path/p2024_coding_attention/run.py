"""Raschka 2024, chapter 3: self-attention with and without weights, causal masks, dropout, several heads."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underhood.core.figures import Heat
from underhood.core.trial import Trial
from underhood.nn.attention import AttentionSpec
from underhood.nn.forward_context import ForwardContext
from underhood.path.lib import raschka_numbers as printed

TOKENS = ("Your", "journey", "starts", "with", "one", "step")
X = torch.tensor(
    [
        [0.43, 0.15, 0.89],
        [0.55, 0.87, 0.66],
        [0.57, 0.85, 0.64],
        [0.22, 0.58, 0.33],
        [0.77, 0.25, 0.10],
        [0.05, 0.80, 0.55],
    ]
)


def run(trial: Trial) -> None:
    see_all, divided = trial.ablated("mask"), not trial.ablated("scale")
    if trial.wants("example"):
        scores_TT = X @ X.T
        simple = [
            (scores_TT, printed.SCORES),
            (scores_TT.softmax(-1), printed.WEIGHTS),
            (scores_TT.softmax(-1) @ X, printed.CONTEXTS),
        ]
        trial.measure("simple", largest_difference(simple))
        trial.measure("example", largest_difference(worked_example(divided)))
    for seed in trial.each_seed():
        generator = torch.Generator().manual_seed(seed)
        x_TD, w = torch.randn(7, 8, generator=generator), torch.randn(3, 8, 8, generator=generator) / 8**0.5
        q_TD, k_TD, v_TD = (x_TD @ matrix for matrix in w)
        later = torch.cat([x_TD[:4], torch.randn(3, 8, generator=generator)])
        if trial.wants("masks"):
            weights_TT = (q_TD @ k_TD.T / 8**0.5).softmax(-1)
            zeroed_TT = weights_TT if see_all else weights_TT.tril()
            shares_TT = zeroed_TT / zeroed_TT.sum(-1, keepdim=True)
            trial.measure("masks", float((shares_TT @ v_TD - attention(q_TD, k_TD, v_TD)).abs().max()))
            after = [attention(*(x @ matrix for matrix in w), causal=not see_all)[:4] for x in (x_TD, later)]
            trial.measure("future", float((after[0] - after[1]).abs().max()))
            loose = [((x @ w[0]) @ (x @ w[1]).T / 8**0.5).softmax(-1).tril()[:4] @ (x @ w[2]) for x in (x_TD, later)]
            trial.measure("undivided", float((loose[0] - loose[1]).abs().max()))
            trial.measure("heads", float((stacked_heads(x_TD, w, 4) - split_heads(x_TD, w, 4)).abs().max()))
            trial.measure(
                "dropout", dropout_distance(q_TD, k_TD, v_TD, generator, trial.by_scale(smoke=2000, report=10_000))
            )
        if trial.wants("library"):
            ours = split_heads(x_TD, w, 4, causal=not see_all, divided=divided)
            trial.measure("library", float((ours - by_library(x_TD, w, 4)).abs().max()))
            if not trial.is_ablation and seed == 0:
                reference = F.scaled_dot_product_attention(q_TD[None], k_TD[None], v_TD[None], is_causal=True)[0]
                apart = float((reference - attention(q_TD, k_TD, v_TD)).abs().max())
                trial.oracle(
                    "torch's scaled_dot_product_attention agrees", apart < 1e-6, f"largest difference {apart:.1e}"
                )
    if not trial.is_ablation:
        show(trial)


def attention(q: Tensor, k: Tensor, v: Tensor, *, causal: bool = True, divided: bool = True) -> Tensor:
    """``softmax(q kᵀ / √d) v`` over the last two dimensions, with scores of later tokens at −∞."""
    scores = q @ k.transpose(-2, -1) / (k.shape[-1] ** 0.5 if divided else 1.0)
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(diagonal=1)
        scores = scores.masked_fill(later, -torch.inf)
    return scores.softmax(dim=-1) @ v


def stacked_heads(x_TD: Tensor, w: Tensor, heads: int) -> Tensor:
    """A narrow query, key and value matrix per head; the heads' results side by side."""
    narrow = w.chunk(heads, dim=-1)
    return torch.cat([attention(*(x_TD @ matrix for matrix in head)) for head in narrow], dim=-1)


def split_heads(x_TD: Tensor, w: Tensor, heads: int, **rules: bool) -> Tensor:
    """Three wide products, each cut into heads afterwards."""
    q, k, v = ((x_TD @ matrix).unflatten(-1, (heads, -1)).transpose(0, 1) for matrix in w)
    return attention(q, k, v, **rules).transpose(0, 1).flatten(1)


@torch.no_grad()
def by_library(x_TD: Tensor, w: Tensor, heads: int) -> Tensor:
    """The same by `nn.attention.Attention`, whose output projection is set to change nothing."""
    layer = AttentionSpec(heads=heads, rotary=None).build(x_TD.shape[1], 0)
    for linear, matrix in zip(
        (layer.query, layer.key, layer.value, layer.output), (*w, torch.eye(len(x_TD[0]))), strict=True
    ):
        linear.weight.copy_(matrix.T)
    return layer(x_TD[None], ForwardContext(torch.zeros(1, len(x_TD), dtype=torch.long), None, None))[0]


def linear_layers(seed: int, count: int, *, heads: int = 1) -> list[Tensor]:
    """Matrices as `count` layers of `nn.Linear` without biases draw them, one group of three per head."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return [nn.Linear(3, 2, bias=False).weight.detach().T for _ in range(count * heads)]


def worked_example(divided: bool) -> list[tuple[Tensor, list[float]]]:
    """What the chapter computes with weights, and what it prints."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(123)
        matrices = [torch.rand(3, 2) for _ in range(3)]
        torch.manual_seed(123)
        wide, output = [nn.Linear(3, 2, bias=False).weight.detach().T for _ in range(3)], nn.Linear(2, 2)
    linear = linear_layers(789, 3)
    first, second = linear_layers(123, 3, heads=2)[:3], linear_layers(123, 3, heads=2)[3:]
    whole, causal = {"causal": False, "divided": divided}, {"divided": divided}
    weights_TT = attention(X @ linear[0], X @ linear[1], torch.eye(6), **causal)
    heads = [attention(*(X @ matrix for matrix in head), **causal) for head in (first, second)]
    with torch.no_grad():
        joined = output(split_heads(X, torch.stack(wide), 2, **causal))
    return [
        (attention(*(X @ matrix for matrix in matrices), **whole), printed.RANDOM_MATRICES),
        (attention(*(X @ matrix for matrix in linear), **whole), printed.LINEAR_LAYERS),
        (weights_TT, printed.MASKED),
        (torch.cat(heads, dim=-1), printed.STACKED),
        (joined, printed.SPLIT),
    ]


def largest_difference(pairs: list[tuple[Tensor, list[float]]]) -> float:
    return max(float((ours.flatten() - torch.tensor(theirs)).abs().max()) for ours, theirs in pairs)


def dropout_distance(q: Tensor, k: Tensor, v: Tensor, generator: torch.Generator, draws: int) -> float:
    """How far the mean over many dropout masks (half of the weights) is from no dropout, in standard errors."""
    weights_TT = attention(q, k, torch.eye(len(k)))
    kept = (torch.rand(draws, *weights_TT.shape, generator=generator) < 0.5).float() * 2
    context_NTD = (weights_TT * kept) @ v
    error_TD = context_NTD.std(dim=0) / draws**0.5
    return float(((context_NTD.mean(dim=0) - weights_TT @ v).abs() / error_TD).max())


def show(trial: Trial) -> None:
    linear = linear_layers(789, 3)
    for causal, title in ((False, "Every token sees all"), (True, "The same scores behind a causal mask")):
        weights_TT = attention(X @ linear[0], X @ linear[1], torch.eye(6), causal=causal)
        note = "Rows attend to columns; seed 789, as in the chapter."
        values = tuple(map(tuple, weights_TT.tolist()))
        trial.figure(Heat(title=title, values=values, rows=TOKENS, columns=TOKENS, note=note))
