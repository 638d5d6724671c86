"""Sinusoidal, learned and relative positions against closed forms and other implementations."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from underhood.core.config import from_json, to_json
from underhood.infer.generate import generate
from underhood.infer.memory import can_be_paged
from underhood.infer.optimize import optimize_for_inference
from underhood.models.decoder import Decoder, DecoderSpec
from underhood.models.encoder_decoder import EncoderDecoderSpec, original_transformer
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import GatedMLPSpec
from underhood.nn.forward_context import ForwardContext
from underhood.nn.positions import LearnedPositionSpec, PositionSpec, SinusoidalPositionSpec, sinusoids
from underhood.nn.relative_attention import (
    RelativeAttention,
    RelativeAttentionSpec,
    distance_labels,
    relative_scores,
    relative_sums,
)

V, D = 31, 16
Positions = Literal["sinusoidal", "learned", "relative"] | None


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# Sinusoids


@pytest.mark.parametrize("offset", [1, 7, -3, 500])
def test_sinusoids_of_a_shifted_position_are_rotated_by_the_offset_alone(offset: int) -> None:
    positions = torch.arange(600, 1200)
    here, there = (sinusoids(at, 32, dtype=torch.float64) for at in (positions, positions + offset))
    angles = offset * 10_000.0 ** (-torch.arange(0, 32, 2, dtype=torch.float64) / 32)
    cos, sin = angles.cos(), angles.sin()
    rotation = torch.block_diag(*(torch.tensor([[c, s], [-s, c]]) for c, s in zip(cos, sin, strict=True)))
    torch.testing.assert_close(there, here @ rotation.to(torch.float64).T, rtol=0, atol=1e-10)


def test_sinusoids_match_transformers_marian_table() -> None:
    from transformers.models.marian.modeling_marian import MarianSinusoidalPositionalEmbedding

    for width in (8, 15):
        theirs = MarianSinusoidalPositionalEmbedding(40, width)
        table = theirs.create_weight() if hasattr(theirs, "create_weight") else theirs.weight
        ours = sinusoids(torch.arange(40), width, dtype=torch.float64)
        sines_first = torch.cat((ours[:, 0::2], ours[:, 1::2]), dim=-1)
        torch.testing.assert_close(sines_first.float(), table.detach(), rtol=0, atol=1e-6)


def test_sinusoidal_module_grows_its_table_and_has_nothing_to_learn() -> None:
    module = SinusoidalPositionSpec(base=100.0).build(4, 6)
    positions = torch.tensor([[0, 3], [9, 1]])
    torch.testing.assert_close(module(positions), sinusoids(positions, 6, base=100.0), rtol=0, atol=1e-6)
    assert not module.state_dict()


# Relative positions


def looped(module: RelativeAttention, x_TD: Tensor) -> Tensor:
    """Equations 3 and 4 of the paper, pair by pair: O(T² · K)."""
    spec, count = module.spec, len(x_TD)
    q, k, v = (layer(x_TD).unflatten(-1, (spec.heads, -1)) for layer in (module.query, module.key, module.value))
    output = torch.zeros_like(q)
    for head in range(spec.heads):
        for i in range(count):
            visible = range(i + 1) if spec.causal else range(count)
            label = {j: max(-spec.clip, min(spec.clip, j - i)) + spec.clip for j in visible}
            scores = [q[i, head] @ (k[j, head] + module.relative_keys[label[j]]) for j in visible]
            weights = (torch.stack(scores) / module.head_dim**0.5).softmax(0)
            for weight, j in zip(weights, visible, strict=True):
                shift = 0 if module.relative_values is None else module.relative_values[label[j]]
                output[i, head] += weight * (v[j, head] + shift)
    return module.output(output.flatten(1))


@torch.no_grad()
@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize(("clip", "values"), [(2, True), (20, True), (3, False), (0, True)])
def test_relative_attention_matches_the_equations_pair_by_pair(causal: bool, clip: int, values: bool) -> None:
    torch.manual_seed(0)
    spec = RelativeAttentionSpec(heads=2, clip=clip, values=values, causal=causal, bias=True, output_bias=True)
    module = spec.build(8, 0).double()
    x = random(1, 9, 8)
    output = module(x, ForwardContext(torch.zeros(1, 9, dtype=torch.long), None, None))
    torch.testing.assert_close(output[0], looped(module, x[0]), rtol=1e-12, atol=1e-12)


def test_relative_scores_match_the_skewing_of_a_padded_table() -> None:
    count = 7  # unclipped and causal, as Huang et al. 2018 skew: pad a column, reshape, drop a row
    q, table = random(2, 3, count, 4), random(2 * count - 1, 4, seed=1)
    past = q @ table[:count].T  # distances −(T − 1) … 0
    skewed = F.pad(past, (1, 0)).reshape(2, 3, count + 1, count)[:, :, 1:]
    labels = distance_labels(ForwardContext(torch.zeros(2, count, dtype=torch.long), None, None), count - 1)
    torch.testing.assert_close(relative_scores(q, table, labels).tril(), skewed.tril(), rtol=1e-12, atol=1e-12)


def test_relative_sums_have_the_gradients_of_the_plain_sum() -> None:
    labels = torch.tensor([[[0, 1, 2], [0, 0, 1]]])
    weights, values = random(1, 2, 2, 3).requires_grad_(), random(3, 4, seed=1).requires_grad_()
    ours = relative_sums(weights, values, labels)
    plain = torch.einsum("bhts,btsk->bhtk", weights, values[labels])
    torch.testing.assert_close(ours, plain)
    pull = random(*ours.shape, seed=2)
    gradients = [torch.autograd.grad(y, (weights, values), pull) for y in (ours, plain)]
    torch.testing.assert_close(*gradients)


@torch.no_grad()
def test_relative_attention_ignores_where_a_text_starts() -> None:
    torch.manual_seed(0)
    module = RelativeAttentionSpec(heads=2, clip=3).build(8, 0)
    x, tokens = torch.randn(1, 6, 8), torch.zeros(1, 6, dtype=torch.long)
    outputs = [module(x, ForwardContext(tokens, torch.arange(first, first + 6)[None], None)) for first in (0, 90)]
    torch.testing.assert_close(*outputs)


# In models


def decoder(positions: PositionSpec | None, mixer: AttentionSpec | RelativeAttentionSpec) -> Decoder:
    block = BlockSpec(mixer=mixer, feedforward=GatedMLPSpec(d_ff=24))
    spec = DecoderSpec(
        vocab_size=V, context_length=40, d_model=D, layers=2, blocks=(block,), embed_scale=4.0, positions=positions
    )
    assert from_json(DecoderSpec, to_json(spec)) == spec
    model = spec.initialize(seed=0)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.3
    return model.eval()


NO_ROTATION = AttentionSpec(heads=2, rotary=None)
MODELS = {
    "sinusoidal": (SinusoidalPositionSpec(), NO_ROTATION),
    "learned": (LearnedPositionSpec(), NO_ROTATION),
    "relative": (None, RelativeAttentionSpec(heads=2, clip=4)),
}


@pytest.mark.parametrize("name", MODELS)
def test_positions_tell_the_order_of_tokens(name: str) -> None:
    model, blind = decoder(*MODELS[name]), decoder(None, NO_ROTATION)
    swapped = torch.tensor([[5, 9, 7, 3], [9, 5, 7, 3]])
    first, second = model(swapped)[:, -1]
    assert not torch.allclose(first, second, atol=1e-3)
    blind.blocks = blind.blocks[:1]  # one layer's attention is a weighted bag; a second one sees the causal order
    torch.testing.assert_close(*blind(swapped)[:, -1])


@pytest.mark.parametrize("name", MODELS)
def test_optimized_models_write_what_the_plain_one_writes(name: str) -> None:
    model, prompts = decoder(*MODELS[name]), [[1, 2, 3], [4]]
    plain = [completion.ids for completion in generate(model, prompts, max_new_tokens=12, cache=False)]
    optimized = optimize_for_inference(model)
    assert [completion.ids for completion in generate(optimized, prompts, max_new_tokens=12)] == plain
    assert can_be_paged(model) == (name != "relative")


@torch.no_grad()
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "relative", None])
def test_encoder_decoder_takes_any_positions_and_decodes_with_a_cache(positions: Positions) -> None:
    spec = original_transformer(
        vocab_size=V, context_length=32, d_model=D, layers=2, heads=2, d_ff=24, positions=positions, clip=3
    )
    assert from_json(EncoderDecoderSpec, to_json(spec)) == spec
    model = spec.initialize(seed=0).eval()
    names = {name.partition(".")[0] for name, _ in model.named_parameters()}
    assert ("target_position_embed" in names) == (positions == "learned")
    source = torch.tensor([[5, 9, 7, 3, 2, 8]])
    given = model.given(model.encode(source))
    fast, slow = (generate(given, [[0], [0, 7]], max_new_tokens=8, cache=cache) for cache in (True, False))
    assert [completion.ids for completion in fast] == [completion.ids for completion in slow]
    swapped = model(source[:, [1, 0, 2, 3, 4, 5]], torch.tensor([[0]]))
    assert torch.allclose(swapped, model(source, torch.tensor([[0]])), atol=1e-5) == (positions is None)
