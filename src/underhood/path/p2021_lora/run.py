"""Hu et al. 2021: low-rank corrections of frozen layers; how many numbers they have, and how much they learn."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from underhood.align.classify import ClassifierSpec
from underhood.core.figures import Series
from underhood.core.text_files import read_text
from underhood.core.trial import Trial
from underhood.data.letters import ALPHABET, plain, plain_english, symbols
from underhood.models.base import parameter_count
from underhood.models.decoder import Decoder, qwen3_shaped
from underhood.models.presets import preset
from underhood.nn.lora import LoRASpec, fold, lora_layers, merge
from underhood.path.lib.gpt3_family import MEANT, gpt3_shaped
from underhood.path.lib.in_memory import with_random_layers

NOVEL = "text/books/alice.txt"
CONTEXT, BATCH = 64, 16
SPEC = qwen3_shaped(vocab_size=len(ALPHABET), context_length=CONTEXT, d_model=64, layers=2, heads=4)
RANKS = (1, 2, 4, 16)
LEARNT = ("rank_one", "rank_four", "saturates", "unembedding")


def run(trial: Trial) -> None:
    if trial.wants("trainable"):
        count(trial)
    novel = trial.file(NOVEL)
    if novel is None:
        for key in LEARNT:
            trial.skip_claim(key, f"needs {NOVEL} below --data")
    shares: dict[str, list[float]] = {}
    for seed in trial.each_seed():
        equalities(trial, seed)
        if trial.scale == "report" and novel is not None:
            gains = learn(trial, seed, torch.from_numpy(symbols(plain(read_text(novel)))))
            for name, gain in gains.items():
                shares.setdefault(name, []).append(gain / gains["all weights"])
            for key, name in (("rank_one", "rank 1"), ("rank_four", "rank 4"), ("unembedding", "unembedding")):
                trial.measure(key, shares[name][-1])
            trial.measure("saturates", shares["rank 16"][-1] - shares["rank 4"][-1])
    if shares:
        show(trial, shares)


def count(trial: Trial) -> None:
    """Numbers to train of two published models; their weights are not allocated."""
    with torch.device("meta"):
        classifier = ClassifierSpec(labels=("ham", "spam")).build(preset("gpt2").build())
        gpt3 = gpt3_shaped(*MEANT["175B"][:4]).build()
    trial.measure("whole", parameter_count(classifier))
    for key, model, rank, targets in (
        ("trainable", classifier, 16, ("model.blocks.*", "head")),
        ("gpt3", gpt3, 4, ("query", "value")),
    ):
        LoRASpec(rank=rank, alpha=rank, targets=targets).apply(model)
        trial.measure(key, trainable(model))


def trainable(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


@torch.no_grad()
def equalities(trial: Trial, seed: int) -> None:
    """What holds of every model: it begins as it was, merges to the same, and has the same make afterwards."""
    model = with_random_layers(SPEC.initialize(seed=seed), seed).eval()
    tokens_BT = torch.randint(27, (4, CONTEXT), generator=torch.Generator().manual_seed(seed))
    before, layers = model(tokens_BT), [(name, parameter.shape) for name, parameter in model.named_parameters()]
    LoRASpec(rank=4, alpha=8).apply(model, seed=seed)
    generator = torch.Generator().manual_seed(seed + 1)
    if trial.ablated("zero"):
        stir(model, generator)
    trial.measure("start", float((model(tokens_BT) - before).abs().max()))
    stir(model, generator)
    beside = model(tokens_BT)
    if trial.ablated("scale"):
        for _, layer in lora_layers(model):
            layer.scale = 1.0
    merge(model)
    trial.measure("merged", float((model(tokens_BT) - beside).abs().max() / beside.abs().max()))
    fold(model)
    after = [(name, parameter.shape) for name, parameter in model.named_parameters()]
    trial.measure("same_make", len(set(layers) ^ set(after)))


def stir(model: Decoder, generator: torch.Generator) -> None:
    """Random numbers for every B, as large as A's."""
    for _, layer in lora_layers(model):
        bound = 1 / math.sqrt(layer.in_features)
        layer.lora_B.copy_(torch.empty(layer.lora_B.shape).uniform_(-bound, bound, generator=generator))


def learn(trial: Trial, seed: int, novel_N: Tensor) -> dict[str, float]:
    """What each way of fine-tuning gains on held-out pages of the novel, in nats per letter."""
    reference = torch.from_numpy(symbols(" ".join(plain_english(only_topics=True)[0])))
    cut = round(0.8 * len(novel_N))
    held_out = windows(novel_N[cut:], 400, torch.Generator().manual_seed(0))
    base = train(SPEC.initialize(seed=seed), reference, seed, steps=400, rate=4e-3)
    before, gains = nats(base, held_out), {}
    arms = ["all weights", "unembedding", *(f"rank {rank}" for rank in RANKS)]
    for arm in trial.each(arms, "way"):
        model = copy.deepcopy(base)
        if arm.startswith("rank"):
            LoRASpec(rank=int(arm[5:]), alpha=2 * int(arm[5:])).apply(model, seed=seed)
        elif arm == "unembedding":
            model.requires_grad_(False).unembed.requires_grad_(True)
        rate = 1e-2 if arm.startswith("rank") else 2e-3
        gains[arm] = before - nats(train(model, novel_N[:cut], seed + 1000, steps=150, rate=rate), held_out)
    return gains


def train(model: Decoder, text_N: Tensor, seed: int, *, steps: int, rate: float) -> Decoder:
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate, weight_decay=0.01)
    for step in range(steps):
        ids_BT = windows(text_N, BATCH, generator)
        loss = F.cross_entropy(model(ids_BT[:, :-1]).flatten(0, 1), ids_BT[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        for group in optimizer.param_groups:
            group["lr"] = rate * (1 - step / steps)
        optimizer.step()
    return model


def windows(text_N: Tensor, count: int, generator: torch.Generator) -> Tensor:
    starts_B1 = torch.randint(len(text_N) - CONTEXT - 1, (count, 1), generator=generator)
    return text_N[starts_B1 + torch.arange(CONTEXT + 1)]


@torch.no_grad()
def nats(model: Decoder, ids_NT: Tensor) -> float:
    return float(F.cross_entropy(model(ids_NT[:, :-1]).flatten(0, 1), ids_NT[:, 1:].flatten()))


def show(trial: Trial, shares: dict[str, list[float]]) -> None:
    table = torch.tensor([shares[f"rank {rank}"] for rank in RANKS])
    middle, low, high = (tuple(x.tolist()) for x in (table.mean(1), table.amin(1), table.amax(1)))
    alone = sum(shares["unembedding"]) / len(shares["unembedding"])
    trial.plot(
        title="How much of the gain of all weights each rank reaches",
        x="rank",
        y="share of the gain",
        series=[Series("mean and range over seeds", tuple(map(float, RANKS)), middle, low, high)],
        levels=((1.0, "all weights"), (alone, f"the unembedding alone: {alone:.0%}")),
    )
