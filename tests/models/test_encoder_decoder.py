"""Encoder, decoder and cross-attention against torch.nn.Transformer with the same weights."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from underhood.core.protocols import LanguageModel
from underhood.data.translation_batches import pad_sources
from underhood.infer.beam import BeamSpec, beam_search, beam_search_batch
from underhood.infer.generate import generate
from underhood.models.base import parameter_count
from underhood.models.encoder_decoder import EncoderDecoder, SequenceToSequence, original_transformer
from underhood.nn.attention import AttentionSpec
from underhood.nn.forward_context import EncoderMemory, ForwardContext
from underhood.path.lib.torch_transformer import largest_difference, torch_transformer

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
    theirs = torch_transformer(model).encoder(x, src_key_padding_mask=positions < 0)
    real = positions >= 0
    torch.testing.assert_close(ours[real], theirs[real], rtol=1e-5, atol=1e-5)
    whole = model.encoder(x, ForwardContext(positions, None, None))
    torch.testing.assert_close(whole, torch_transformer(model).encoder(x), rtol=1e-5, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("norm", ["pre", "post"])
def test_decoder_with_cross_attention_matches_torch_transformer_decoder(norm: Norm) -> None:
    model = built(norm)
    x, memory, positions = random(3, 6, D), random(3, 9, D, seed=1), padded([9, 4, 7])
    tokens = torch.zeros(3, 6, dtype=torch.long)
    ours = model.decoder(x, ForwardContext(tokens, None, None, memory=EncoderMemory(memory, positions)))
    theirs = torch_transformer(model).decoder(
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
    assert largest_difference(model, source, target) < 1e-5


def test_loss_gradients_match_torch_transformer() -> None:
    model = built("pre")
    theirs = torch_transformer(model)
    x, y = random(3, 9, D).requires_grad_(), random(3, 6, D, seed=1).requires_grad_()
    tokens = torch.zeros(3, 6, dtype=torch.long)
    memory = EncoderMemory(model.encoder(x, ForwardContext(torch.zeros(3, 9), None, None)))
    ours = model.decoder(y, ForwardContext(tokens, None, None, memory=memory))
    expected = theirs(x, y, tgt_mask=nn.Transformer.generate_square_subsequent_mask(6), tgt_is_causal=True)
    pull = random(*ours.shape, seed=2)
    torch.testing.assert_close(*(torch.autograd.grad(output, (x, y), pull) for output in (ours, expected)))


@pytest.mark.parametrize(
    ("sizes", "count"),
    [({}, 63_082_496), ({"d_model": 1024, "heads": 16, "d_ff": 4096}, 214_245_376)],
    ids=["base", "big"],
)
def test_parameters_of_base_and_big_are_those_of_the_paper(sizes: dict[str, int], count: int) -> None:
    """With 37,000 shared tokens and biases in attention; table 3 rounds to 65 and 213 million."""
    spec = original_transformer(vocab_size=37_000, context_length=512, **sizes)
    with torch.device("meta"):
        assert parameter_count(spec.build()) == count


@torch.no_grad()
@pytest.mark.parametrize("positions", ["sinusoidal", "learned", "relative"])
def test_batch_of_32_gets_what_each_source_gets_alone(positions: Literal["sinusoidal", "learned", "relative"]) -> None:
    spec = original_transformer(
        vocab_size=V, context_length=32, d_model=D, layers=LAYERS, heads=HEADS, d_ff=HIDDEN, positions=positions
    )
    model = spec.initialize(seed=3).eval()
    generator = torch.Generator().manual_seed(4)
    for parameter in model.parameters():
        parameter.data += torch.randn(parameter.shape, generator=generator) * 0.3
    sources = [
        torch.randint(V, (int(length),), generator=generator).tolist()
        for length in torch.randint(1, 15, (32,), generator=generator)
    ]
    search, options = BeamSpec(beams=3, length_penalty=0.6), {"max_new_tokens": 10, "stop_ids": [1, 2, 3], "n": 3}
    source, padding = pad_sources(sources)
    assert padding is not None
    together = beam_search_batch(model.given(model.encode(source, positions=padding)), [[0]] * 32, search, **options)  # type: ignore[arg-type]
    for row, hypotheses in zip(sources, together, strict=True):
        alone = beam_search(model.given(model.encode(torch.tensor([row]))), [0], search, **options)  # type: ignore[arg-type]
        assert [each.ids for each in hypotheses] == [each.ids for each in alone]
        assert [each.score for each in hypotheses] == pytest.approx([each.score for each in alone], abs=1e-4)
    assert len({len(hypotheses[0].ids) for hypotheses in together}) > 1


@torch.no_grad()
def test_rows_of_a_conditioned_model_follow_their_sources() -> None:
    model = built("post")
    sources = torch.randint(V, (3, 5), generator=torch.Generator().manual_seed(5))
    tokens = torch.randint(V, (7, 4), generator=torch.Generator().manual_seed(6))
    for rows in ([0, 0, 1, 1, 2, 2], [0, 0, 2, 2], [2, 1, 0], [0, 1, 1, 2, 2, 2, 0]):
        given = model.given(model.encode(sources))
        given(tokens[:3])  # layers keep keys and values of the memory
        given.select_rows(rows)
        expected = model(sources[rows], tokens[: len(rows)])
        torch.testing.assert_close(given(tokens[: len(rows)]), expected, rtol=1e-4, atol=1e-4)
        weights = list[Tensor]()
        attention = model.decoder.blocks[0].cross.weights
        handle = attention.register_forward_hook(lambda _, __, y, kept=weights: kept.append(y))
        torch.testing.assert_close(given(tokens[: len(rows)]), expected, rtol=1e-4, atol=1e-4)
        handle.remove()
        assert weights[0].flatten(1, 2).shape == (len(rows), HEADS, 4, 5)


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
