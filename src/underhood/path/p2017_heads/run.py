"""Vaswani et al. 2017, section 3.2.2: several small heads can look at several places and keep apart what they read."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from underhood.core.figures import Heat, Series
from underhood.core.trial import Trial
from underhood.models.base import parameter_count
from underhood.nn.attention import AttentionSpec
from underhood.nn.forward_context import ForwardContext
from underhood.path.lib.many_seeds import train_many

SYMBOLS, PAIRS, WIDTH, BATCH, LR = 16, 8, 32, 32, 0.01


class TwoLookUps(nn.Module):
    """Reads pairs of key and value, then two keys; answers with the value of each, or with both values as one set."""

    def __init__(self, heads: int, *, added: bool, seed: int):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def matrix(rows: int, columns: int, size: float = WIDTH**-0.5) -> nn.Parameter:
            return nn.Parameter(torch.randn(rows, columns, generator=generator) * size)

        self.keys, self.values = matrix(SYMBOLS, WIDTH, 1.0), matrix(SYMBOLS, WIDTH, 1.0)
        self.query, self.key, self.value = matrix(2 * WIDTH, WIDTH), matrix(WIDTH, WIDTH), matrix(WIDTH, WIDTH)
        self.output = matrix(WIDTH, SYMBOLS * (1 if added else 2))
        self.heads = heads

    def weights(self, tokens_BT: Tensor) -> Tensor:
        """How much each head takes from each of the eight pairs (B, H, 1, 8)."""
        wanted = self.keys[tokens_BT[:, -2:]].flatten(1)[:, None]  # both keys side by side
        q, k = self.split(wanted @ self.query), self.split(self.keys[tokens_BT[:, :PAIRS]] @ self.key)
        return (q @ k.mT * (WIDTH / self.heads) ** -0.5).softmax(dim=-1)

    def forward(self, tokens_BT: Tensor) -> Tensor:
        v = self.split(self.values[tokens_BT[:, PAIRS : 2 * PAIRS]] @ self.value)
        read = self.weights(tokens_BT) @ v
        return (read.transpose(1, 2).flatten(2) @ self.output)[:, 0].unflatten(-1, (-1, SYMBOLS))

    def split(self, x_BTD: Tensor) -> Tensor:
        """Cuts vectors into one piece per head."""
        return x_BTD.unflatten(-1, (self.heads, -1)).transpose(1, 2)


def run(trial: Trial) -> None:
    seeds = list(trial.each_seed())
    if trial.ablated("second_head"):
        for share in accuracy(trial, 1, seeds, added=False)[0]:
            trial.measure("two", share)
        return
    trial.measure("cost", cost_difference())
    oracle(trial)
    counts = (1, 2, WIDTH) if trial.scale == "smoke" else (1, 2, 4, 8, 16, WIDTH)
    right: dict[int, np.ndarray] = {}
    for heads in trial.each(counts, "heads"):
        right[heads], models = accuracy(trial, heads, seeds, added=False)
        if heads == 2:
            show_weights(trial, models[0])
    added, _ = accuracy(trial, 1, seeds, added=True)
    for number in range(len(seeds)):
        trial.measure("single", right[1][number])
        trial.measure("two", right[2][number])
        trial.measure("sum", added[number])
        trial.measure("too_many", right[2][number] - right[WIDTH][number])
    low, mean, high = (tuple(float(f(right[heads])) for heads in counts) for f in (np.min, np.mean, np.max))
    trial.plot(
        title="Two look-ups at once, with heads that share 32 dimensions",
        x="heads",
        y="pairs of answers that are right",
        log_x=True,
        series=[Series("all runs", counts, mean, low, high)],
    )


def accuracy(trial: Trial, heads: int, seeds: list[int], *, added: bool) -> tuple[np.ndarray, list[TwoLookUps]]:
    """The share of unseen questions with both answers right, by seed, after training; and the models."""
    models = [TwoLookUps(heads, added=added, seed=seed) for seed in seeds]
    steps = trial.by_scale(smoke=250, report=300)
    train_many(models, lambda step: questions(step, len(models)), set_loss if added else loss, steps=steps, lr=LR)
    tokens_NBT, answers_NBA = questions(10**6, len(models), 500)
    shares = []
    with torch.no_grad():
        for model, tokens_BT, answers_BA in zip(models, tokens_NBT, answers_NBA, strict=True):
            scores = model(tokens_BT)
            chosen_BA = scores[:, 0].topk(2).indices.sort(-1).values if added else scores.argmax(dim=-1)
            wanted_BA = answers_BA.sort(-1).values if added else answers_BA
            shares.append(float((chosen_BA == wanted_BA).all(dim=-1).float().mean()))
    return np.array(shares), models


def loss(scores_BAS: Tensor, answers_BA: Tensor) -> Tensor:
    return F.cross_entropy(scores_BAS.flatten(0, 1), answers_BA.flatten())


def set_loss(scores_B1S: Tensor, answers_BA: Tensor) -> Tensor:
    return F.mse_loss(scores_B1S[:, 0], F.one_hot(answers_BA, SYMBOLS).sum(1).float()) * SYMBOLS


def questions(step: int, models: int, batch: int = BATCH) -> tuple[Tensor, Tensor]:
    """Eight pairs of different keys and different values, two of the keys again, and the values of these two."""
    generator = torch.Generator().manual_seed(step)
    keys, values, order = (
        torch.rand(models, batch, count, generator=generator).argsort(-1) for count in (SYMBOLS, SYMBOLS, PAIRS)
    )
    at = order[..., :2]
    tokens = torch.cat((keys[..., :PAIRS], values[..., :PAIRS], keys.gather(-1, at)), dim=-1)
    return tokens, values.gather(-1, at)


def show_weights(trial: Trial, model: TwoLookUps) -> None:
    tokens_BT = questions(10**6, 1, 1)[0][0]
    with torch.no_grad():
        weights_HS = model.weights(tokens_BT)[0, :, 0]
    keys, wanted = tokens_BT[0, :PAIRS].tolist(), tokens_BT[0, -2:].tolist()
    trial.figure(
        Heat(
            title=f"Each head looks up a key of its own: asked for the values of {wanted[0]} and {wanted[1]}",
            values=tuple(map(tuple, weights_HS.tolist())),
            rows=tuple(f"head {head + 1}" for head in range(len(weights_HS))),
            columns=tuple(f"key {key}" for key in keys),
            note="Share of its weight that a head gives to each of the eight keys.",
        )
    )


def cost_difference() -> float:
    counted = []
    for heads in (1, 2, 4, 8, 16):
        module = AttentionSpec(heads=heads, rotary=None).build(64, 0)
        module.weights.register_forward_hook(lambda *_: None)  # written out, so that its products are counted
        x = torch.randn(1, 32, 64)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            module(x, ForwardContext(torch.zeros(1, 32, dtype=torch.long), None, None))
        counted.append((parameter_count(module), counter.get_total_flops()))
    base = np.array(counted[0], dtype=float)
    return float(np.abs(np.array(counted) / base - 1).max())


def oracle(trial: Trial) -> None:
    torch.manual_seed(0)
    ours = AttentionSpec(heads=4, rotary=None, bias=True, output_bias=True, causal=False).build(16, 0).double()
    theirs = nn.MultiheadAttention(16, 4, batch_first=True).double()
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([layer.weight for layer in (ours.query, ours.key, ours.value)]))
        theirs.in_proj_bias.copy_(torch.cat([layer.bias for layer in (ours.query, ours.key, ours.value)]))
        theirs.out_proj.load_state_dict(ours.output.state_dict())
        mine = ours(x, ForwardContext(torch.zeros(2, 7, dtype=torch.long), None, None))
        gap = float((mine - theirs(x, x, x)[0]).abs().max())
    trial.oracle("torch.nn.MultiheadAttention with the same weights", gap < 1e-12, f"largest difference {gap:.0e}")
