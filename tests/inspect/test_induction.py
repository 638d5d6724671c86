"""Induction scores of heads that are built to look at a single token, and of the copying start."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from traced import as_loaded, opened

from underhood.core.errors import UserError
from underhood.infer.load import LoadedModel
from underhood.inspect.induction import in_context_score, induction_scores, repeated_tokens
from underhood.inspect.trace import trace
from underhood.models.copying import begin_copying
from underhood.models.decoder import Decoder, DecoderSpec, qwen3_shaped
from underhood.nn.attention import AttentionSpec
from underhood.nn.block import BlockSpec
from underhood.nn.feedforward import MLPSpec
from underhood.nn.positions import LearnedPositionSpec

LENGTH, PLACES, VOCABULARY = 10, 32, 16


def looking_back(*offsets: int) -> Decoder:
    """A layer whose heads each look a fixed number of tokens back, by learned positions that are one-hot."""
    block = BlockSpec(
        mixer=AttentionSpec(heads=len(offsets), kv_heads=len(offsets), head_dim=PLACES, rotary=None),
        feedforward=MLPSpec(d_ff=4),
        norm=None,
    )
    spec = DecoderSpec(
        vocab_size=VOCABULARY,
        context_length=PLACES,
        d_model=PLACES,
        layers=2,
        blocks=(block,),
        positions=LearnedPositionSpec(),
    )
    model = spec.initialize(seed=0).eval()
    with torch.no_grad():
        assert model.position_embed is not None
        model.embed.weight.zero_()
        model.position_embed.weight.copy_(torch.eye(PLACES))
        for layer in model.blocks:
            layer.mixer.key.weight.copy_(torch.eye(PLACES).repeat(len(offsets), 1))
            shifted = [torch.eye(PLACES).roll(-offset, dims=0) for offset in offsets]
            layer.mixer.query.weight.copy_(1000 * torch.cat(shifted))
    return model


def test_heads_that_look_where_the_scores_say_have_score_1(tmp_path: Path):
    loaded = as_loaded(looking_back(1, LENGTH - 1, LENGTH, 3), tmp_path)
    scores = induction_scores(loaded, length=LENGTH, count=2)
    for layer in range(2):
        assert torch.allclose(scores.previous[layer], torch.tensor([1.0, 0, 0, 0]), atol=1e-5)
        assert torch.allclose(scores.induction[layer], torch.tensor([0, 1.0, 0, 0]), atol=1e-5)
        assert torch.allclose(scores.duplicate[layer], torch.tensor([0, 0, 1.0, 0]), atol=1e-5)
    assert {(layer, head) for layer, head, _ in scores.strongest(count=2)} == {(0, 1), (1, 1)}
    assert scores.first_loss == pytest.approx(torch.tensor(VOCABULARY).log().item(), abs=1e-4)


def test_only_the_second_half_counts(tmp_path: Path):
    loaded = as_loaded(looking_back(LENGTH - 1), tmp_path)
    # Where there is nothing nine tokens back, this head spreads; over all tokens its mean weight would be lower.
    [sequence] = repeated_tokens(loaded, LENGTH, 1)
    pattern_TT = trace(loaded, sequence.tolist(), ["query", "key"]).pattern(0)[0]
    everywhere = pattern_TT.diagonal(-(LENGTH - 1)).sum() / len(sequence)
    assert everywhere < 0.6
    assert induction_scores(loaded, length=LENGTH).induction[0, 0] == pytest.approx(1, abs=1e-5)


@pytest.mark.parametrize("family", ["gpt2", "mistral", "gemma2"])
def test_scores_are_read_from_transformers_attentions(family: str, tmp_path: Path):
    loaded, peer = opened(family, tmp_path)
    peer.set_attn_implementation("eager")
    sequences = repeated_tokens(loaded, 6, 2)
    scores = induction_scores(loaded, length=6, count=2)
    with torch.no_grad():
        done = peer(sequences, output_attentions=True, use_cache=False)
    layers = [weights_BHTT.mean(dim=0) for weights_BHTT in done.attentions]
    for layer, weights_HTT in enumerate(layers):
        expected = sum(weights_HTT[:, token, token - 5] for token in range(6, 12)) / 6
        assert torch.allclose(scores.induction[layer], expected, atol=1e-4)
    logprobs_BTV = done.logits.log_softmax(dim=-1)
    loss = -sum(logprobs_BTV[row, token, sequences[row, token + 1]] for row in range(2) for token in range(6, 11)) / 10
    assert scores.second_loss == pytest.approx(float(loss), abs=1e-4)


def copier(start: bool) -> Decoder:
    model = qwen3_shaped(vocab_size=120, context_length=96, d_model=192, layers=2, heads=4, d_ff=32).initialize(seed=0)
    if start:
        begin_copying(model, seed=0, embed_std=0.02)
    return model.eval()


def test_the_copying_start_has_induction_heads_and_an_ordinary_start_has_none(tmp_path: Path):
    with_start, without = (induction_scores(as_loaded(copier(start), tmp_path), length=30) for start in (True, False))
    (layer, _, best), *_ = with_start.strongest()
    assert layer == 1
    assert best > 0.4
    assert best > 5 * without.induction.max()
    assert with_start.previous[0].max() > 0.4
    assert with_start.second_loss < with_start.first_loss - 1
    assert without.second_loss == pytest.approx(without.first_loss, abs=0.05)


def test_repeated_tokens_are_ordinary_and_repeated(tmp_path: Path):
    loaded, _ = opened("llama2", tmp_path)
    sequences = repeated_tokens(loaded, 20, 3, seed=1)
    assert sequences.shape == (3, 40)
    assert torch.equal(sequences[:, :20], sequences[:, 20:])
    assert not torch.equal(sequences, repeated_tokens(loaded, 20, 3, seed=2))
    with pytest.raises(UserError, match="from 2 to 80"):
        repeated_tokens(loaded, 81, 1)


def text_of(ids: list[int]) -> str:
    return "".join(chr(0x100 + id) for id in ids)


def test_in_context_score_is_late_loss_minus_early_loss(tmp_path: Path):
    loaded: LoadedModel
    loaded, peer = opened("llama2", tmp_path)
    texts = [text_of([(n * 7 + n * n * k) % 119 for n in range(60)]) for k in (1, 2)]
    ids = torch.tensor([loaded.prompt_ids(text) for text in texts])
    with torch.no_grad():
        logprobs_BTV = peer(ids).logits.log_softmax(dim=-1)
    loss = [[-float(logprobs_BTV[row, t - 1, ids[row, t]]) for t in range(1, 60)] for row in range(2)]
    mean = [sum(column) / 2 for column in zip(*loss, strict=True)]  # entry t is token t + 1
    expected = sum(mean[49:53]) / 4 - sum(mean[9:13]) / 4
    assert in_context_score(loaded, texts, early=10, late=50, width=4) == pytest.approx(expected, abs=1e-4)
    with pytest.raises(UserError, match="no text has"):
        in_context_score(loaded, ["ĀĂ"], early=10, late=50)
    with pytest.raises(UserError, match="context of 160"):
        in_context_score(loaded, texts)
