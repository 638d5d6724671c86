"""Encoder, decoder and cross-attention against torch.nn.Transformer with the same weights."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from underhood.core.protocols import LanguageModel
from underhood.infer.generate import generate
from underhood.models.encoder_decoder import EncoderDecoder, SequenceToSequence, original_transformer
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import Block
from underhood.nn.forward_context import EncoderMemory, ForwardContext

pytestmark = pytest.mark.filterwarnings("ignore:.*nested.tensor")

V, D, HEADS, HIDDEN, LAYERS = 23, 16, 4, 40, 2
Norm = Literal["pre", "post"]


def built(norm: Norm) -> EncoderDecoder:
    spec = original_transformer(
        vocab_size=V, context_length=32, d_model=D, layers=LAYERS, heads=HEADS, d_ff=HIDDEN, norm=norm
    )
    model = spec.initialize(seed=0).eval()
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        if parameter.ndim == 1:  # biases and norms that differ from their beginnings
            parameter.data += torch.randn(parameter.shape, generator=generator) * 0.2
    return model


def oracle(model: EncoderDecoder, norm: Norm) -> nn.Transformer:
    theirs = nn.Transformer(D, HEADS, LAYERS, LAYERS, HIDDEN, dropout=0.0, batch_first=True, norm_first=norm == "pre")
    if norm == "post":  # the paper has no norm behind its last block
        theirs.encoder.norm = theirs.decoder.norm = None
    with torch.no_grad():
        for layer in range(LAYERS):
            copy_layer(model.encoder.blocks[layer], theirs.encoder.layers[layer], norm)
            copy_layer(model.decoder.blocks[layer], theirs.decoder.layers[layer], norm)
        if norm == "pre":
            theirs.encoder.norm.load_state_dict(model.encoder.norm.state_dict())
            theirs.decoder.norm.load_state_dict(model.decoder.norm.state_dict())
    return theirs.eval()


def copy_layer(block: Block, layer: nn.Module, norm: Norm) -> None:
    names = [piece.name for piece in block.sublayers]
    attentions = {"mixer": "self_attn", "cross": "multihead_attn"}
    for number, name in enumerate(names, start=1):
        side = "norm" if norm == "pre" else "stream_norm"
        getattr(layer, f"norm{number}").load_state_dict(getattr(block, f"{name}_{side}").state_dict())
        piece = getattr(block, name)
        if name in attentions:
            target = getattr(layer, attentions[name])
            inputs = (piece.query, piece.key, piece.value)
            target.in_proj_weight.copy_(torch.cat([linear.weight for linear in inputs]))
            target.in_proj_bias.copy_(torch.cat([linear.bias for linear in inputs]))
            target.out_proj.load_state_dict(piece.output.state_dict())
        else:
            layer.linear1.load_state_dict(piece.up.state_dict())
            layer.linear2.load_state_dict(piece.down.state_dict())


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def padded(lengths: list[int]) -> Tensor:
    """Positions of rows that end in padding."""
    positions = torch.arange(max(lengths)).repeat(len(lengths), 1)
    return positions.masked_fill(positions >= torch.tensor(lengths)[:, None], -1)


@torch.no_grad()
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_encoder_matches_torch_transformer_encoder(norm: Norm) -> None:
    model = built(norm)
    x, positions = random(3, 9, D), padded([9, 4, 7])
    ours = model.encoder(x, ForwardContext(positions, positions, None))
    theirs = oracle(model, norm).encoder(x, src_key_padding_mask=positions < 0)
    real = positions >= 0
    torch.testing.assert_close(ours[real], theirs[real], rtol=1e-5, atol=1e-5)
    whole = model.encoder(x, ForwardContext(positions, None, None))
    torch.testing.assert_close(whole, oracle(model, norm).encoder(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_decoder_with_cross_attention_matches_torch_transformer_decoder(norm: Norm) -> None:
    model = built(norm)
    x, memory, positions = random(3, 6, D), random(3, 9, D, seed=1), padded([9, 4, 7])
    tokens = torch.zeros(3, 6, dtype=torch.long)
    ours = model.decoder(x, ForwardContext(tokens, None, None, memory=EncoderMemory(memory, positions)))
    theirs = oracle(model, norm).decoder(
        x,
        memory,
        tgt_mask=nn.Transformer.generate_square_subsequent_mask(6),
        memory_key_padding_mask=positions < 0,
        tgt_is_causal=True,
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_encoder_decoder_matches_torch_transformer_from_tokens_to_scores() -> None:
    model = built("post")
    generator = torch.Generator().manual_seed(3)
    source, target = (torch.randint(V, (2, length), generator=generator) for length in (8, 5))
    theirs = oracle(model, "post")
    embedded = [
        model._embedded(model.embed, model.position_embed, tokens, ForwardContext(tokens, None, None))
        for tokens in (source, target)
    ]
    hidden = theirs(*embedded, tgt_mask=nn.Transformer.generate_square_subsequent_mask(5))
    torch.testing.assert_close(model(source, target), hidden @ model.embed.weight.T, rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_conditioned_model_generates_with_a_cache_what_it_generates_without() -> None:
    model = built("pre")
    assert isinstance(model, SequenceToSequence)
    given = model.given(model.encode(torch.tensor([[1, 2, 3, 4, 5]])))
    assert isinstance(given, LanguageModel)
    prompts = [[0], [0, 7, 8]]
    fast, slow = (generate(given, prompts, max_new_tokens=8, cache=cache) for cache in (True, False))
    assert [completion.ids for completion in fast] == [completion.ids for completion in slow]
    other = model.given(model.encode(torch.tensor([[9, 9, 9]])))
    assert not torch.allclose(given(torch.tensor([[0]])), other(torch.tensor([[0]])))


@torch.no_grad()
def test_prefix_is_seen_by_all_and_the_rest_is_causal() -> None:
    attention = AttentionSpec(heads=2, rotary=None).build(8, 0)
    tokens, x = torch.zeros(2, 6, dtype=torch.long), random(2, 6, 8)
    prefix = torch.tensor([[3], [0]])
    output = attention(x, ForwardContext(tokens, None, None, prefix_B1=prefix))
    changed = x.clone()
    changed[:, 2] += 1.0
    differs = (attention(changed, ForwardContext(tokens, None, None, prefix_B1=prefix)) - output).abs().amax(-1) > 1e-6
    assert differs.tolist() == [[True] * 6, [False, False, True, True, True, True]]


@torch.no_grad()
def test_hooks_see_and_change_attention_weights_rotated_queries_and_the_residual_stream() -> None:
    from underhood.models.decoder import qwen3_shaped

    model = qwen3_shaped(vocab_size=V, context_length=16, d_model=D, layers=1, heads=2).initialize(
        seed=0, embed_std=0.5
    )
    model.blocks[0].mixer.output.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    tokens = torch.arange(6)[None]
    plain, block, seen = model.hidden_states(tokens), model.blocks[0], {}
    for name in ("mixer.weights", "mixer.query_rotary", "mixer_residual", "feedforward_residual"):
        block.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: seen.update({name: output}))
    torch.testing.assert_close(model.hidden_states(tokens), plain)
    weights = seen["mixer.weights"].flatten(1, 2)
    assert weights.shape == (1, 2, 6, 6)
    torch.testing.assert_close(weights.sum(-1), torch.ones(1, 2, 6))
    assert float(weights.triu(1).abs().max()) == 0.0
    handle = block.mixer_residual.register_forward_hook(lambda _, __, output: output * 0)
    assert not torch.allclose(model.hidden_states(tokens), plain)
    handle.remove()
