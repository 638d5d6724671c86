"""Training tokens per second of the encoder–decoder, ours beside torch.nn.Transformer and x-transformers.

    python benchmarks/bench_encoder_decoder.py [--shapes small base] [--rounds 3] [--threads 2]

All three train models of the same shape, without dropout, on the same batches of padded pairs, in turns: forward, loss,
backward, and a step of the same fused AdamW. Tokens are those of sources and targets, padding left out.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from x_transformers import XTransformer

from harness import compare, machine, options_from_command_line, print_json
from underhood.data.batch import IGNORE
from underhood.data.translation_batches import TranslationBatch, translation_batch
from underhood.models.base import parameter_count
from underhood.models.encoder_decoder import original_transformer
from underhood.nn.positions import sinusoids
from underhood.train.cross_entropy import LabelSmoothing
from underhood.train.translation_loss import translation_loss

END = 1
LIMIT = 1.0
"""The least ratio of our speed to either peer's that is promised."""


@dataclass(frozen=True)
class Shape:
    vocab_size: int
    d_model: int
    layers: int
    heads: int
    rows: int
    length: int


SHAPES = {
    "tiny": Shape(60, 64, 2, 4, 64, 24),
    "small": Shape(4_000, 256, 3, 4, 64, 24),
    "base": Shape(37_000, 512, 6, 8, 16, 32),
}
"""Models as of dates, of sentences on a laptop, and the paper's base model; rows and tokens of a batch."""


@dataclass(frozen=True)
class Options:
    """Training of encoder–decoders."""

    shapes: tuple[str, ...] = ("small", "base")
    rounds: int = 3
    steps: int = 4
    threads: int = 2


def batches_of(shape: Shape, count: int) -> list[TranslationBatch]:
    """Pairs of three quarters to all of the length, as batches sorted by length have them."""
    draw = torch.Generator().manual_seed(0)

    def ids() -> list[int]:
        length = int(torch.randint(3 * shape.length // 4, shape.length, (1,), generator=draw))
        return torch.randint(2, shape.vocab_size, (length,), generator=draw).tolist()

    return [translation_batch([(ids(), ids()) for _ in range(shape.rows)], END) for _ in range(count)]


class TorchTransformer(nn.Module):
    """torch.nn.Transformer with tied embeddings, scaled and with sinusoidal positions."""

    def __init__(self, shape: Shape):
        super().__init__()
        self.embed = nn.Embedding(shape.vocab_size, shape.d_model)
        nn.init.normal_(self.embed.weight, std=shape.d_model**-0.5)
        ff = 4 * shape.d_model
        self.body = nn.Transformer(
            shape.d_model, shape.heads, shape.layers, shape.layers, ff, dropout=0.0, batch_first=True
        )
        self.register_buffer("table", sinusoids(torch.arange(512), shape.d_model))

    def forward(self, source: Tensor, padding: Tensor, target: Tensor) -> Tensor:
        scale = math.sqrt(self.embed.embedding_dim)
        x, y = (self.embed(ids) * scale + self.table[: ids.shape[1]] for ids in (source, target))  # type: ignore[index]
        causal = nn.Transformer.generate_square_subsequent_mask(target.shape[1])
        states = self.body(
            x,
            y,
            tgt_mask=causal,
            tgt_is_causal=True,
            src_key_padding_mask=padding,
            memory_key_padding_mask=padding,
        )
        return F.linear(states, self.embed.weight)


def ours(shape: Shape) -> tuple[nn.Module, Callable[[Any, TranslationBatch], Tensor]]:
    model = original_transformer(
        vocab_size=shape.vocab_size,
        context_length=512,
        d_model=shape.d_model,
        layers=shape.layers,
        heads=shape.heads,
        d_ff=4 * shape.d_model,
    ).initialize(seed=0)
    loss_fn = translation_loss(LabelSmoothing(epsilon=0.1))
    return model, lambda model, batch: loss_fn(model, batch)[0] / batch.target_count


def torch_peer(shape: Shape) -> tuple[nn.Module, Callable[[Any, TranslationBatch], Tensor]]:
    def loss(model: TorchTransformer, batch: TranslationBatch) -> Tensor:
        assert batch.positions is not None
        logits = model(batch.source, batch.positions < 0, batch.tokens)
        return F.cross_entropy(logits.flatten(0, 1), batch.targets.flatten(), ignore_index=IGNORE, label_smoothing=0.1)

    return TorchTransformer(shape), loss


def x_peer(shape: Shape, flash: bool) -> tuple[nn.Module, Callable[[Any, TranslationBatch], Tensor]]:
    sides = {
        f"{side}_{key}": value
        for side in ("enc", "dec")
        for key, value in {
            "num_tokens": shape.vocab_size,
            "depth": shape.layers,
            "heads": shape.heads,
            "attn_dim_head": shape.d_model // shape.heads,
            "max_seq_len": 512,
            "attn_flash": flash,
        }.items()
    }
    model = XTransformer(dim=shape.d_model, tie_token_emb=True, ignore_index=IGNORE, pad_value=0, **sides)

    def loss(model: XTransformer, batch: TranslationBatch) -> Tensor:
        assert batch.positions is not None
        whole = torch.cat((batch.tokens, batch.targets[:, -1:]), dim=1)  # it shifts by itself
        whole[:, 1:] = batch.targets
        return model(batch.source, whole, mask=batch.positions >= 0)

    return model, loss


def trainer(model: nn.Module, loss: Callable[[Any, TranslationBatch], Tensor], batches: list[TranslationBatch]):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)
    model.train()

    def train() -> None:
        for batch in batches:
            optimizer.zero_grad(set_to_none=True)
            loss(model, batch).backward()
            optimizer.step()

    return train


def main() -> None:
    options = options_from_command_line(Options)
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {}
    goals = {}
    for name in options.shapes:
        shape = SHAPES[name]
        batches = batches_of(shape, options.steps)
        tokens = sum(batch.token_count for batch in batches)
        made = {
            "ours": ours(shape),
            "torch.nn.Transformer": torch_peer(shape),
            "x-transformers": x_peer(shape, False),
            "x-transformers, flash": x_peer(shape, True),
        }
        functions = {who: trainer(model, loss, batches) for who, (model, loss) in made.items()}
        timings = compare(functions, options.rounds)
        speeds = {who: tokens / timing.median for who, timing in timings.items()}
        for who, timing in timings.items():
            size = parameter_count(made[who][0])
            print(f"{name:6} {who:24} {size:12,} parameters  {speeds[who]:10,.0f} tokens/s  {timing}")
            if who != "ours":
                ratio = speeds["ours"] / speeds[who]
                goals[f"{name}: tokens/s over {who}"] = {"value": ratio, "limit": LIMIT, "holds": ratio >= LIMIT}
                print(f"       ours / {who}: {ratio:.2f}")
        results[name] = {who: timing.as_json() | {"tokens_per_s": speeds[who]} for who, timing in timings.items()}
    print_json("encoder_decoder", results, goals=goals, **machine("torch", "x-transformers"))


if __name__ == "__main__":
    main()
