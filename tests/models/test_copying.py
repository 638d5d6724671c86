"""A decoder that copies before it has learnt anything, and one that begins without."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.models.copying import begin_copying, can_copy
from underhood.models.decoder import Decoder, DecoderSpec, qwen3_shaped
from underhood.nn.attention import Attention
from underhood.nn.forward_context import ForwardContext
from underhood.nn.norm import LayerNormSpec
from underhood.train.plan import SIZES

V, T = 1024, 64


def spec(*, d_model: int = 192, layers: int = 2, heads: int = 2, kv_heads: int | None = None) -> DecoderSpec:
    return qwen3_shaped(
        vocab_size=V, context_length=2 * T, d_model=d_model, layers=layers, heads=heads, kv_heads=kv_heads
    )


def fresh(shape: DecoderSpec, *, copying: bool, seed: int = 0) -> Decoder:
    model = shape.initialize(seed=seed, embed_std=0.1).eval()
    return begin_copying(model, seed=seed, embed_std=0.1) if copying else model


def twice(seed: int = 0) -> Tensor:
    """Eight random texts without repetition (8, T), each followed by itself."""
    generator = torch.Generator().manual_seed(seed)
    text = torch.stack([torch.randperm(V, generator=generator)[:T] for _ in range(8)])
    return torch.cat((text, text), dim=1)


@torch.no_grad()
def losses(model: Decoder, tokens: Tensor) -> Tensor:
    return F.cross_entropy(model(tokens)[:, :-1].mT, tokens[:, 1:], reduction="none")


@torch.no_grad()
def attention_of_head_0(model: Decoder, layer: int, tokens: Tensor) -> Tensor:
    """(B, T, T): how much each token of head 0 sees of each, worked out from queries and keys."""
    seen: list[Tensor] = []
    mixer = model.blocks[layer].mixer
    assert isinstance(mixer, Attention)

    def look(module: Attention, inputs: tuple[Tensor, ForwardContext], output: Tensor) -> None:
        q_BHTK, k_BGTK, _ = module.project(*inputs)
        score_BTT = q_BHTK[:, 0] @ k_BGTK[:, 0].mT / math.sqrt(module.head_dim)
        later_TT = torch.ones_like(score_BTT[0], dtype=torch.bool).triu(1)
        seen.append(score_BTT.masked_fill(later_TT, -torch.inf).softmax(dim=-1))

    hook = mixer.register_forward_hook(look)
    model(tokens)
    hook.remove()
    return seen[0]


@pytest.mark.parametrize("shape", [{}, {"kv_heads": 1}, {"heads": 4}, {"d_model": 64}, {"d_model": 256, "layers": 3}])
def test_repeated_text_costs_less_before_any_training(shape: dict[str, int]):
    tokens = twice()
    loss_BT = losses(fresh(spec(**shape), copying=True), tokens)
    first, second = loss_BT[:, : T - 1].mean(), loss_BT[:, T:].mean()
    assert first > math.log(V) - 0.1  # nothing to copy yet
    assert second < math.log(V) - (
        1 if shape.get("d_model", 192) >= 192 else 0.5
    )  # short codes are told apart less well
    without = losses(fresh(spec(**shape), copying=False), tokens)
    torch.testing.assert_close(without, torch.full_like(without, math.log(V)))  # the ablation: it knows nothing


def test_repeated_token_is_the_likeliest():
    tokens = twice(1)
    with torch.no_grad():
        guess_BT = fresh(spec(), copying=True)(tokens).argmax(dim=-1)
    assert (guess_BT[:, T:-1] == tokens[:, T + 1 :]).float().mean() > 0.9


def test_first_head_looks_one_back_and_second_where_the_token_was_before():
    model, tokens = fresh(spec(), copying=True), twice(2)
    location = torch.arange(1, 2 * T)
    by_distance = [
        attention_of_head_0(model, 0, tokens)[:, location[back - 1 :], location[back - 1 :] - back].mean()
        for back in (1, 2, 3)
    ]
    assert by_distance[0] > 0.4
    assert by_distance[0] > 2 * max(by_distance[1:])
    again = torch.arange(T, 2 * T - 1)
    assert attention_of_head_0(model, 1, tokens)[:, again, again - T + 1].mean() > 0.7


def test_every_planned_size_can_begin_by_copying():
    assert all(can_copy(size.spec(4096)) for size in SIZES)


def test_same_seed_gives_the_same_weights():
    first, other = (fresh(spec(), copying=True, seed=3) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), other.parameters(), strict=True))


def test_shapes_without_such_heads_are_refused():
    plain = spec()
    attention = plain.blocks[0].mixer
    shapes = [
        replace(plain, layers=1),
        replace(plain, tied=True),
        replace(plain, blocks=(replace(plain.blocks[0], post_norm=LayerNormSpec()),)),
        replace(plain, blocks=(replace(plain.blocks[0], mixer=replace(attention, qk_norm=None)),)),  # type: ignore[type-var]
        replace(plain, blocks=(replace(plain.blocks[0], mixer=replace(attention, rotary=None)),)),  # type: ignore[type-var]
    ]
    for shape in shapes:
        assert not can_copy(shape)
        with pytest.raises(ValueError, match="begin_copying takes"):
            begin_copying(shape.initialize(seed=0), seed=0, embed_std=0.1)
